"""What of a journal is kept: nothing goes that a target which is fed from it has still to apply."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from cdc.errors import Unavailable
from cdc.journal.folder import FileEntry, Folder, Manifest, replace_file
from cdc.journal.writer import Writer
from cdc.model.records import read_record
from cdc.target import Retention

log = logging.getLogger(__name__)

_NEARLY = 0.8  # share of the budget from which on a log line says how long the budget will last


class JournalFull(Unavailable):
    """The journal has used its budget, and its targets have still to apply what is in it (E-08, D-13)."""

    is_red = True


@dataclass(frozen=True, slots=True)
class ReaderEntry:
    """A target that is fed from a journal.

    Attributes:
        reader: its identity, which its checkpoint carries.
        name: as it was written on the command line.
        next: the number of the first record that it has not applied durably.
        position: the source's position up to which it has.
        seen_at: when it last said so, in seconds since the Unix epoch.
    """

    reader: str
    name: str
    next: int
    position: str | None
    seen_at: float


def read_readers(folder: Folder) -> list[ReaderEntry]:
    """All targets that are fed from a journal, by name."""
    found = []
    for path in sorted(folder.readers.glob("*.json")) if folder.readers.exists() else []:
        try:
            found.append(read_record(ReaderEntry, orjson.loads(path.read_bytes())))
        except (OSError, ValueError):
            log.warning("%s cannot be read; no records are kept for its target", path)
    return sorted(found, key=lambda entry: (entry.name, entry.reader))


def write_reader(folder: Folder, entry: ReaderEntry) -> None:
    """Say how far a target is."""
    folder.readers.mkdir(exist_ok=True)
    replace_file(_path(folder, entry.reader), orjson.dumps(asdict(entry)))


def forget_reader(folder: Folder, reader: str) -> bool:
    """A target that is not to be waited for any more; whether there was one."""
    path = _path(folder, reader)
    existed = path.exists()
    path.unlink(missing_ok=True)
    return existed


def _path(folder: Folder, reader: str) -> Path:
    return folder.readers / f"{reader}.json"


def removable(
    manifest: Manifest, size: int, readers: Iterable[ReaderEntry], retention: Retention, now: float
) -> list[FileEntry]:
    """Which files may go, from the oldest on.

    Args:
        size: bytes of the whole journal.
        now: seconds since the Unix epoch.
    """
    waited_for = min((reader.next for reader in readers), default=None)
    found = []
    for entry in manifest.files:
        if waited_for is not None and entry.next > waited_for:
            break
        is_old = retention.age is not None and entry.closed_at <= now - retention.age
        is_much = retention.size is not None and size > retention.size
        if not (is_old or is_much):
            break
        found.append(entry)
        size -= entry.size
    return found


def prune(writer: Writer, folder: Folder, retention: Retention) -> list[FileEntry]:
    """Remove what may go; what that was."""
    if retention.age is None and retention.size is None:
        return []
    gone = removable(writer.manifest, writer.size, read_readers(folder), retention, time.time())
    if gone:
        writer.remove(gone)
        log.info("the journal removes records %d to %d", gone[0].first, gone[-1].next - 1)
    return gone


def refuse_beyond_budget(writer: Writer, folder: Folder, retention: Retention) -> None:
    """Stop before the budget is used up; the source then keeps its log, as if there were no journal.

    Raises:
        JournalFull: it is.
    """
    if retention.budget is None or writer.size < retention.budget:
        return
    behind = [reader for reader in read_readers(folder) if reader.next < writer.next]
    waits = ", ".join(f"{reader.name} at record {reader.next}" for reader in behind) or "no target"
    raise JournalFull(
        f"The journal in {folder.path} has used its budget of {retention.budget >> 20} MB; it waits for {waits}.",
        hint="Start the targets that are behind, allow more with --journal-budget, remove applied records with "
        f"--journal-age or --journal-size, or forget a target that is gone: `cdc journal forget {folder.path} TARGET`.",
    )


def seconds_left(manifest: Manifest, size: int, budget: int, now: float) -> float | None:
    """How long the budget will last at the rate of the last hour; None if that is not known, or nothing grows."""
    recent = [entry for entry in manifest.files if entry.closed_at > now - 3600]
    if len(recent) < 2:
        return None
    grown = sum(entry.size for entry in recent[1:])
    took = now - recent[0].closed_at
    return (budget - size) * took / grown if took > 0 else None


def forecast(manifest: Manifest, size: int, retention: Retention) -> str | None:
    """A warning, if the budget is nearly used up."""
    if retention.budget is None or size < _NEARLY * retention.budget:
        return None
    left = seconds_left(manifest, size, retention.budget, time.time())
    when = f"; at its present rate it lasts {left / 60:.0f} minutes" if left is not None else ""
    return f"The journal holds {size >> 20} MB of its budget of {retention.budget >> 20} MB{when}."
