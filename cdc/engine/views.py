"""What a pipeline is doing, for people and for status."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from cdc.engine.liveness import Stall
from cdc.errors import CdcError
from cdc.model.change import ChangeBatch, Op
from cdc.model.position import Position
from cdc.model.schema import TableName
from cdc.model.segment import Changes, Reset, Segment, Truncate
from cdc.model.standing import Standing, State


@dataclass(slots=True)
class TableView:
    """What happened to one table in this run.

    Attributes:
        state, reason: how it stands.
        different: rows that differed when it was compared last, and were read again; None if it was not compared.
    """

    rows_estimated: int = 0
    rows_copied: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    truncated: int = 0
    state: State = State.COPYING
    reason: str = ""
    different: int | None = None


@dataclass(frozen=True, slots=True)
class VerificationView:
    """What the last verification in the background found.

    Attributes:
        finished_at: seconds since the Unix epoch, by this machine's clock.
        rows: that were compared.
        different: per table, how many rows differ.
        not_compared: per table, why not.
        shapes: per table, what is not the same of its shape; also of tables that are meant and not followed.
    """

    finished_at: float
    rows: int
    different: dict[str, int]
    not_compared: dict[str, str]
    shapes: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class PublicationView:
    """The copy that others read.

    Attributes:
        file: where it is.
        every: seconds after which it is to be renewed.
        at: when it was last known to be what the target holds, in seconds since the Unix epoch; None before the first.
        position: the position that it has; None before the first.
        seconds: how long it took.
        pause: seconds of those in which nothing was applied.
        written, size: bytes that were written for it, and that it has.
        problem: why it is not as new as it should be, in a sentence; None if it is.
    """

    file: str
    every: float
    at: float | None = None
    position: str | None = None
    seconds: float = 0.0
    pause: float = 0.0
    written: int = 0
    size: int = 0
    problem: str | None = None


@dataclass(slots=True)
class ServingView:
    """The process that serves the copy to readers.

    Attributes:
        addresses: where they connect.
        pid: of that process; None if it does not run just now.
        restarts: how often it was started again.
        problem: why it does not serve, or did not a moment ago, in a sentence; None if it does.
    """

    addresses: list[str]
    pid: int | None = None
    restarts: int = 0
    problem: str | None = None


@dataclass(slots=True)
class PipelineView:
    """What a pipeline is doing, for people and for status.

    Attributes:
        phase: opening, copying, streaming, waiting (to try again) or stopped.
        rows_copied, rows_applied, transactions_applied: in this run.
        durable: the target's checkpoint.
        source_position: how far the source's log is, as far as is known.
        lag_bytes: between the two.
        lag_seconds: by the source's clock, how old the oldest commit is that was read and is not applied (E-02); while
            the log is not followed, though it was, at least the time since then.
        tables: by name.
        segments, segment_seconds, segment_bytes: that were applied in this run, and what these took in all.
        checkpoint_at: when the target got its checkpoint, in this run; seconds since the Unix epoch.
        tries: how often both ends were opened in this run, or were to be.
        failure: the message of the last failure that is being retried, or that has ended the run.
        remedy: what to do about it.
        failed_at: when that was; seconds since the Unix epoch.
        is_red: that failure is one that makes status unhealthy at once.
        has_target: it has opened its target, or failed to in a way that shows that nobody else writes there.
        verification: in the background, if there was one.
        stall: what does not move on, if anything does not.
        publication: the copy that others read, if there is to be one.
        serving: the process that serves that copy, if there is to be one.
    """

    phase: str = "opening"
    rows_copied: int = 0
    rows_applied: int = 0
    transactions_applied: int = 0
    durable: Position | None = None
    source_position: Position | None = None
    lag_bytes: int = 0
    lag_seconds: float = 0.0
    segments: int = 0
    segment_seconds: float = 0.0
    segment_bytes: int = 0
    checkpoint_at: float | None = None
    tries: int = 0
    tables: dict[TableName, TableView] = field(default_factory=dict)
    failure: str | None = None
    remedy: str | None = None
    failed_at: float | None = None
    is_red: bool = False
    has_target: bool = False
    verification: VerificationView | None = None
    stall: Stall | None = None
    publication: PublicationView | None = None
    serving: ServingView | None = None

    def table(self, name: TableName) -> TableView:
        """The view of one table, which is made if there is none yet."""
        return self.tables.setdefault(name, TableView())

    def see(self, apart: Mapping[TableName, Standing], gone: Collection[TableName] = ()) -> None:
        """Take note of how the tables stand, while another thread may count; once the log is followed, all others are
        simply followed.

        Args:
            gone: tables that the source has no more, be it under this name. Over the years, names come and go.
        """
        for name in gone:
            if name not in apart:
                self.tables.pop(name, None)
        for name in apart:
            self.table(name)
        follows = self.phase == "streaming"
        for name, table in list(self.tables.items()):  # of which no hash is computed: it is a copy of one moment
            standing = apart.get(name) or (Standing(State.FOLLOWING) if follows else None)
            if standing is not None:
                table.state, table.reason = standing.state, standing.reason

    def fail(self, error: BaseException, *, is_red: bool) -> None:
        """Take note of what has failed."""
        self.failure, self.is_red, self.failed_at = str(error), is_red, time.time()
        self.remedy = error.hint if isinstance(error, CdcError) else None

    def inherit(self, before: PipelineView) -> None:
        """Take over how a run has ended that this one takes the place of."""
        self.failure, self.remedy, self.is_red = before.failure, before.remedy, before.is_red
        self.failed_at, self.lag_seconds, self.durable = before.failed_at, before.lag_seconds, before.durable

    def recover(self) -> None:
        """Take note that what has failed goes on."""
        self.failure, self.remedy, self.failed_at, self.is_red = None, None, None, False

    def count(self, segment: Segment, seconds: float) -> None:
        """Take note of what was applied, and how long that took."""
        self.segments += 1
        self.segment_seconds += seconds
        self.segment_bytes += segment.size
        if segment.checkpoint is not None:
            self.checkpoint_at = time.time()
        for step in segment.steps:
            if isinstance(step, Changes):
                self._count_rows(step.batch)
            elif isinstance(step, Reset):
                self.table(step.schema.table).rows_copied = 0
            elif isinstance(step, Truncate):
                self.table(step.schema.table).truncated += 1
        if len(segment.transactions):
            self.transactions_applied += len(segment.transactions) - (segment.checkpoint is None)

    def _count_rows(self, batch: ChangeBatch) -> None:
        table = self.table(batch.schema.table)
        if batch.copied:
            self.rows_copied += len(batch)
            table.rows_copied += len(batch)
            return
        counts = np.bincount(batch.op, minlength=5)
        table.inserted += int(counts[Op.INSERT])
        table.updated += int(counts[Op.UPDATE])
        table.deleted += int(counts[Op.DELETE])
        self.rows_applied += len(batch)
