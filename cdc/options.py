"""The options of a run, and those of them that stay with the pipeline: the ones that concern its tables."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from cdc.errors import UsageError
from cdc.model.selection import Selection
from cdc.target import KEEP_ALL, Keys, Mode, Retention

MEGABYTE = 1 << 20
SEGMENT_BYTES = 16 * MEGABYTE
STALL_TIMEOUT = 300.0  # seconds
PUBLISH_EVERY = 30.0  # seconds
NAMELESS = "cdc"  # a pipeline that nobody has named, and that has no file of which it could have its name
_NAME = re.compile(r"[a-z0-9_]{1,40}")


class AfterShape(StrEnum):
    """How a table is compared after its shape has changed."""

    FULL = "full"
    SAMPLE = "sample"  # some parts, at random; all of it if one of them differs
    OFF = "off"


class OnOperatorNeeded(StrEnum):
    """What a process does that only a person can help."""

    EXIT = "exit"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class KeptOptions:
    """The options of the last run that concern the tables. They are in the source's state: a job that opens the
    pipeline by itself follows the same tables in the same way (O5).

    Attributes:
        selection: which tables.
        include_keyless: also tables whose updates and deletes the log cannot identify, for inserts and truncates.
        holds_tables: what concerns one table holds that table; otherwise it ends the run.
        after_shape: how a table is compared with the source after its shape has changed.
        max_rate: rows per second that are compared at most where a table is suspect; None for no bound.
    """

    selection: Selection = field(default_factory=Selection)
    include_keyless: bool = False
    holds_tables: bool = True
    after_shape: AfterShape = AfterShape.SAMPLE
    max_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """How the published copy is served to readers.

    Attributes:
        addresses: where, as `cdc.serve.address` reads them; empty if only the port of the service asks it.
        memory: bytes that DuckDB has for all queries together.
        seconds: that one query may take.
        certificate, key: files in PEM; None without TLS.
    """

    addresses: tuple[str, ...] = ()
    memory: int = 512 * MEGABYTE
    seconds: float = 60.0
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """How a run works; every field has a working default.

    Attributes:
        name: of the pipeline: slot, publications and status are named after it.
        selection: which tables.
        include_keyless: also tables whose updates and deletes the log cannot identify, for inserts and truncates.
        workers: sessions that read the snapshot.
        segment_bytes: of log that one segment holds at most.
        queue_bytes: of segments that wait for the target.
        live_share: of a core, that small commits may take; they wait for each other for that.
        every: seconds between two commits of small changes, where the target has that; None for what is usual there.
        target_memory: bytes that the target's engine may use; None for what is usual there.
        mode: how the target keeps the tables; None for as it does already.
        keys: how the target's tables have their keys; None for as they do already.
        format: how events are written, where the target holds events; None for as they are already.
        rotate_bytes: after which a file of events is followed by another one; None for what is usual there.
        until_caught_up: end once what the source had at start is applied.
        verify_every: seconds between verifications in the background; None for none.
        retention: how much of a journal is kept.
        holds_tables: what concerns one table holds that table; otherwise it ends the run.
        after_shape: how a table is compared with the source after its shape has changed.
        max_rate: rows per second that are compared at most where a table is suspect; None for no bound.
        waits_for_tables: a source that has no table to follow yet is looked at again and again.
        stall_timeout: seconds without a sign of life after which a stage is given up (`cdc.engine.liveness`).
        publish: where a copy of the target goes that others read; None for none.
        publish_every: seconds between the beginnings of two such copies.
        serving: how that copy is served to readers; None for not at all.
        only_looks: tables neither come nor go, and nothing is changed on the source.
    """

    name: str = NAMELESS
    selection: Selection = field(default_factory=Selection)
    include_keyless: bool = False
    workers: int = os.cpu_count() or 1
    segment_bytes: int = SEGMENT_BYTES
    queue_bytes: int = 48 * MEGABYTE
    live_share: float = 0.1
    every: float | None = None
    target_memory: int | None = None
    mode: Mode | None = None
    keys: Keys | None = None
    format: str | None = None
    rotate_bytes: int | None = None
    until_caught_up: bool = False
    verify_every: float | None = None
    retention: Retention = KEEP_ALL
    holds_tables: bool = True
    after_shape: AfterShape = AfterShape.SAMPLE
    max_rate: float | None = None
    stall_timeout: float = STALL_TIMEOUT
    waits_for_tables: bool = False
    publish: Path | None = None
    publish_every: float = PUBLISH_EVERY
    serving: Serving | None = None
    only_looks: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"{self.name!r} cannot name a pipeline.",
                hint="Use up to 40 lower-case letters, digits and underscores, which are the characters of a slot's "
                "name.",
            )

    @property
    def kept(self) -> KeptOptions:
        """What of these stays with the pipeline."""
        rate = float(self.max_rate) if self.max_rate is not None else None
        return KeptOptions(self.selection, self.include_keyless, self.holds_tables, self.after_shape, rate)

    def with_kept(self, kept: KeptOptions) -> Options:
        """The same, with the options of a run before."""
        return replace(
            self,
            selection=kept.selection,
            include_keyless=kept.include_keyless,
            holds_tables=kept.holds_tables,
            after_shape=kept.after_shape,
            max_rate=kept.max_rate,
        )
