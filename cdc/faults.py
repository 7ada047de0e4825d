"""Named fault points: the places where a step is half done, and where a test may make the process fail (G, D-19, E-01).

`CDC_FAULT=target.before_commit` kills the process when it first passes that point. In full it is
`NAME[:NTH][=KIND[:SECONDS]]`, and there may be several, with commas between them:

* `kill`: SIGKILL, as the kernel does it when memory runs out.
* `raise`: a failure that goes away, which a pipeline tries again (`FaultPassing`).
* `fail`: one that does not, which ends it (`FaultLasting`).
* `hang`: the thread that passes does nothing any more, as in a system call that never returns.
* `delay`: it goes on after so many seconds (1 if none are given), in which everything else does.
* `nospace`, `ioerror`: what the system says of a disk that is full, and of one that fails (`OSError`).
* `full`: no file of this process can be written any more, so that whatever writes next says so in its own words
  (DuckDB's `IOException`, Arrow's, `OSError`). The limit is that of `ulimit -f`, whose error is EFBIG.

Unset, which is always so in production, a point costs one look at an empty dictionary.
"""

from __future__ import annotations

import logging
import os
import re
import resource
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EIO, ENOSPC

from cdc.errors import CdcError, InvariantError, Unavailable, UsageError

log = logging.getLogger(__name__)

_ENVIRONMENT = "CDC_FAULT"
KINDS = ("kill", "raise", "fail", "hang", "delay", "nospace", "ioerror", "full")
_OF_THE_SYSTEM = {"nospace": ENOSPC, "ioerror": EIO}
_SETTING = re.compile(r"(?P<name>[a-z_.]+)(:(?P<nth>[1-9]\d*))?(=(?P<kind>[a-z]+)(:(?P<seconds>\d+(\.\d+)?))?)?")

# Every point with what is done and what is not when it is passed.
POINTS: Mapping[str, str] = {
    "pipeline.before_open": "nothing is open",
    "pipeline.between_opens": "the target is open, the source is not",
    "handoff.before_put": "a segment was made, the applier does not know of it",
    "handoff.after_take": "the applier has taken a segment and not begun with it",
    "handoff.before_applied": "a segment is durable, the reader does not know",
    "setup.before_publication": "the target claims the slot, nothing is on the source",
    "setup.before_slot": "there is a publication and no slot",
    "setup.after_slot": "there is a slot, the target does not know its position",
    "setup.half_dropped": "of what a killed try left, the slot is gone and the publication is not",
    "membership.announced": "a table that came later is about to be published, the target does not know",
    "membership.changed": "it is published, the target does not know",
    "healing.part": "a part of a table was compared and set right, the next one was not",
    "backfill.part": "a part of a table was read again, the next one was not",
    "copy.before_snapshot": "the sessions that copy have not begun",
    "copy.locked": "writes on the source wait for the snapshot to begin",
    "copy.before_reset": "the snapshot has begun, the target's tables are as they were",
    "copy.before_first_row": "the target's tables are being emptied",
    "copy.rows": "a part of a chunk was read",
    "copy.chunk": "a chunk was read, its end is not known to the reader",
    "copy.before_done": "all rows of a table were read, it does not count as copied",
    "copy.after_segment": "the next rows of a copy wait",
    "copy.again": "a statement rewrote a table, which counts as not copied for the reader alone",
    "copy.adopted": "a table that came later is expected, the target does not know",
    "stream.before_start": "a session is open, the log was not asked for",
    "stream.started": "the log was asked for, nothing was read",
    "stream.before_decode": "whole transactions were read, and not decoded",
    "stream.before_checkpoint": "they are decoded, their checkpoint is not made",
    "stream.segment": "a segment was made from them",
    "stream.before_feedback": "something is durable, the server does not know",
    "stream.tick": "the stream is looked after",
    "schema.before": "a table is about to have another shape",
    "schema.after": "a table has another shape for the reader, not for the target",
    "journal.written": "a record was written, and may not be on the disk",
    "journal.synced": "it is durable, nobody knows",
    "journal.file_full": "a file is full, the manifest does not know",
    "target.opened": "the file is open, its state was not read",
    "target.before_state": "the state tables may be missing",
    "target.begun": "a transaction is open and empty",
    "target.reset": "a table was dropped or emptied, and has no rows again",
    "target.before_insert": "rows are about to be inserted",
    "target.between_merges": "rows were updated and deleted, those that are new are missing",
    "target.between_matches": "of a table without a key, rows that went are deleted, those that came are missing",
    "target.truncated": "a table was emptied",
    "target.evolve": "columns were dropped, those that are new are missing",
    "versioned.rebuilt": "a table of another shape is whole beside the one whose place it takes",
    "versioned.evolved": "a table has another shape, which is not recorded",
    "versioned.floor_kept": "a table is about to refuse old rows, and does not yet",
    "versioned.merged": "a table was merged, none of its deleted rows was removed",
    "versioned.removed": "deleted rows were removed for good, nobody knows",
    "versioned.exchanged": "a copy has taken the place of a table, which is not recorded",
    "target.widened": "a column was made text, for a value that is not there yet",
    "target.before_checkpoint": "all rows of a segment are written, its checkpoint is not",
    "target.before_commit": "the checkpoint is written as well",
    "target.after_commit": "it is durable, nobody knows",
    "target.before_close": "the file is open, whatever is not committed is to be rolled back",
    "publish.ready": "a process is ready to copy the target for readers, nothing was taken",
    "publish.settled": "everything is in the target's file, nothing was copied",
    "publish.block": "a part of the copy was written, by the process that copies",
    "publish.taken": "the copy is equal, and has no name",
    "publish.released": "the copy is being made durable and given its name, the pipeline goes on",
    "publish.kept": "readers find the copy, status does not know",
    "kafka.topic": "a topic was made, the checkpoint does not know of it",
    "kafka.fenced": "who wrote before is shut out, the checkpoint was not read",
    "kafka.begun": "a transaction is open and empty",
    "kafka.before_checkpoint": "all messages of a segment are queued, its checkpoint is not",
    "kafka.before_commit": "the brokers have the checkpoint as well, nobody may read it",
    "kafka.after_commit": "it is durable, nobody knows",
    "kafka.before_close": "a transaction may be open, and is to be aborted",
}


class FaultPassing(Unavailable):
    """A test wanted a failure that goes away."""


class FaultLasting(CdcError):
    """A test wanted a failure that does not."""


@dataclass(slots=True)
class _Fault:
    """What is to happen at one point, and how often that was passed."""

    nth: int
    kind: str
    seconds: float
    passed: int = 0


def parse(setting: str) -> dict[str, _Fault]:
    """Read a setting as the module says; raises UsageError."""
    faults = {}
    for part in filter(None, setting.split(",")):
        match = _SETTING.fullmatch(part)
        if match is None or match["name"] not in POINTS or (match["kind"] or "kill") not in KINDS:
            raise UsageError(
                f"{_ENVIRONMENT} has {part!r}, which is not a fault.",
                hint="Write it as NAME[:NTH][=KIND[:SECONDS]]; cdc/faults.py has the names, the kinds are "
                f"{', '.join(KINDS)}.",
            )
        faults[match["name"]] = _Fault(int(match["nth"] or 1), match["kind"] or "kill", float(match["seconds"] or 1))
    return faults


_armed = parse(os.environ.get(_ENVIRONMENT, ""))
_lock = threading.Lock()  # several threads copy


@contextmanager
def armed(setting: str) -> Iterator[None]:
    """Have points fail as a setting says, for as long as a test in this process does something; raises UsageError."""
    global _armed  # noqa: PLW0603
    before, _armed = _armed, parse(setting)
    try:
        yield
    finally:
        _armed = before


def point(name: str) -> None:
    """Mark a point of the program that a test may make fail."""
    if _armed:
        _pass(name)


def _pass(name: str) -> None:
    if name not in POINTS:
        raise InvariantError(f"{name!r} is not in the list of fault points.")
    fault = _armed.get(name)
    if fault is None:
        return
    with _lock:
        fault.passed += 1
        if fault.passed != fault.nth:
            return
    log.warning("fault point %s: %s", name, fault.kind)
    if fault.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.kind == "raise":
        raise FaultPassing(f"The fault point {name} failed.")
    elif fault.kind == "fail":
        raise FaultLasting(f"The fault point {name} failed for good.")
    elif fault.kind == "delay":
        time.sleep(fault.seconds)
    elif fault.kind in _OF_THE_SYSTEM:
        number = _OF_THE_SYSTEM[fault.kind]
        raise OSError(number, os.strerror(number))
    elif fault.kind == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    else:
        threading.Event().wait()
