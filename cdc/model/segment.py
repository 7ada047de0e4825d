"""Segments: consecutive whole transactions as steps in source order, the unit of apply and of checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cdc.model.change import ABSENT, ChangeBatch, Transactions
from cdc.model.parts import Part
from cdc.model.position import Checkpoint
from cdc.model.schema import TableSchema


@dataclass(frozen=True, slots=True)
class Changes:
    """Row changes of one table. Steps of different tables between two barriers may be in any order."""

    batch: ChangeBatch


@dataclass(frozen=True, slots=True)
class Reset:
    """A barrier: the table is about to be copied, so whatever the target held of it goes, and it exists afterwards.

    Attributes:
        schema: its shape.
        by_parts: its rows do not follow in segments: they are copied part by part while the log is followed.
        transaction: index into the segment's transactions, of the one with which that is so; ABSENT if it is between
            two of them.
    """

    schema: TableSchema
    by_parts: bool = False
    transaction: int = ABSENT


@dataclass(frozen=True, slots=True)
class Truncate:
    """A barrier: all rows of the table went.

    Attributes:
        schema: the table.
        transaction: index into the segment's transactions.
        ordinal: place in that transaction.
    """

    schema: TableSchema
    transaction: int
    ordinal: int


@dataclass(frozen=True, slots=True)
class Evolve:
    """A barrier: the table has another shape from here on.

    Attributes:
        old, new: the versions; columns are matched by their identity, never by name.
        transaction: index into the segment's transactions, of the first transaction that uses the new shape; ABSENT
            if it is there between two transactions.
        fill: per identity of an added column, the value (canonical text) that rows written before it have (A-48);
            a column that is not named here is null in them.
    """

    old: TableSchema
    new: TableSchema
    transaction: int
    fill: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Suspect:
    """Rows of a table may have changed without an event: it has to be compared with the source.

    Attributes:
        schema: the table.
        reason: why, in a sentence.
        transaction: index into the segment's transactions, of the one that casts the doubt; ABSENT if none does.
        since: order of the place in the log behind which that may have been, if it may have been before the doubt.
    """

    schema: TableSchema
    reason: str
    transaction: int = ABSENT
    since: int | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """From here on it is not known what a table's rows were, since changes of it are passed over, or may be: up to the
    place where it is `Copied`, or where a copy that follows in segments has ended.

    Attributes:
        schema: the table.
        reason: why, in a sentence.
        transaction: index into the segment's transactions, of the first one that is not known; ABSENT if that is the
            next one that comes.
        ordinal: how many changes of that transaction come before it; it has no place of its own among them.
        since: see `Suspect`.
    """

    schema: TableSchema
    reason: str
    transaction: int = ABSENT
    ordinal: int = 0
    since: int | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """A barrier: the table is no more in the source, and its rows with it. What a target had of it, it may keep.

    Attributes:
        schema: the table.
        transaction: index into the segment's transactions; ABSENT if the log does not tell, so that it is somewhere
            between the last transaction and this place.
        ordinal: how many changes of that transaction come before it; it has no place of its own among them.
    """

    schema: TableSchema
    transaction: int = ABSENT
    ordinal: int = 0


@dataclass(frozen=True, slots=True)
class Replace:
    """A barrier of a table that is copied by parts: what it holds of one part goes, and other rows come.

    Attributes:
        schema: the table.
        part: which rows go.
        batches: the copied rows that come.
    """

    schema: TableSchema
    part: Part
    batches: tuple[ChangeBatch, ...]


@dataclass(frozen=True, slots=True)
class Copied:
    """A barrier: all parts of a table that was copied by parts have been replaced."""

    schema: TableSchema


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the application said in a transaction, about it: who, why. Tables do not have it.

    Attributes:
        transaction: index into the segment's transactions.
        ordinal: how many changes of the transaction come before it; it has no place of its own among them.
        number: how many notes of the transaction come before it.
        prefix: who says it.
        content: text, or `\\x` and hexadecimal digits where it is none.
    """

    transaction: int
    ordinal: int
    number: int
    prefix: str
    content: str


Step = Changes | Reset | Truncate | Evolve | Suspect | Gap | Drop | Replace | Copied | Note

_Placed = Reset | Truncate | Evolve | Suspect | Gap | Drop | Note  # which may be of a transaction


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive whole transactions, or a part of one that is too large for one segment.

    Attributes:
        steps: in source order.
        transactions: those that the steps refer to, in commit order.
        checkpoint: what the target holds once this is applied; None if the last transaction goes on in the next
            segment, in which case nothing of it may become visible or durable yet.
        size: bytes that it holds, for back-pressure.
        read_at: when copied rows of it were read, by the clock of the machine that did, in microseconds since the Unix
            epoch; None for just now.
    """

    steps: list[Step]
    transactions: Transactions
    checkpoint: Checkpoint | None
    size: int = 0
    read_at: int | None = None

    @property
    def row_count(self) -> int:
        return sum(len(step.batch) for step in self.steps if isinstance(step, Changes))


def join(segments: Sequence[Segment]) -> Segment:
    """Consecutive segments as one."""
    if len(segments) == 1:
        return segments[0]
    begins = np.cumsum([0, *(len(segment.transactions) for segment in segments)])
    steps = [
        _moved(step, int(begin)) for segment, begin in zip(segments, begins, strict=False) for step in segment.steps
    ]
    return Segment(
        steps,
        Transactions.joined([segment.transactions for segment in segments]),
        segments[-1].checkpoint,
        sum(segment.size for segment in segments),
    )


def _moved(step: Step, by: int) -> Step:
    """A step whose transactions come after so many others."""
    if isinstance(step, Changes):
        return Changes(replace(step.batch, transaction=(step.batch.transaction + by).astype(np.int32)))
    if isinstance(step, _Placed) and step.transaction != ABSENT:
        return replace(step, transaction=step.transaction + by)
    return step


def with_gaps(segment: Segment, gaps: Sequence[Gap]) -> Segment:
    """A segment with gaps that were found out while it was made. What the log does not place begins with it."""
    if not gaps:
        return segment
    if len(segment.transactions):
        gaps = [replace(gap, transaction=max(gap.transaction, 0)) for gap in gaps]
    return replace(segment, steps=[*segment.steps, *gaps])


def split(segment: Segment, count: int) -> tuple[Segment, Segment]:
    """A segment as two: its first transactions, with which the target is in the middle of it, and the others."""
    first = replace(segment, steps=list(_steps(segment, 0, count)), transactions=segment.transactions.part(0, count))
    rest = replace(
        segment,
        steps=list(_steps(segment, count, len(segment.transactions))),
        transactions=segment.transactions.part(count, len(segment.transactions)),
    )
    return replace(first, checkpoint=None, size=0), rest


def beyond(segment: Segment, order: int | None) -> Segment | None:
    """What a segment has that a target does not which holds everything before a place in the log (D-05)."""
    if order is None:
        return segment
    if segment.checkpoint is not None and segment.checkpoint.position.order < order:
        return None
    known = int(np.searchsorted(segment.transactions.order, order))
    if not known:
        return segment
    before, new = split(segment, known)
    # What belongs to no transaction may stand before the first one that is new.
    of_none = [step for step in before.steps if not isinstance(step, Changes) and _is_of_none(step)]
    return replace(new, steps=[*of_none, *new.steps])


def _steps(segment: Segment, begin: int, end: int) -> Iterator[Step]:
    for step in segment.steps:
        if isinstance(step, Changes):
            of = step.batch.transaction
            rows = np.flatnonzero((of >= begin) & (of < end))
            if len(rows):
                batch = step.batch.rows(rows)
                yield Changes(replace(batch, transaction=(batch.transaction - begin).astype(np.int32)))
        elif _is_of_none(step):
            if begin == 0:
                yield step
        elif isinstance(step, _Placed) and begin <= step.transaction < end:
            yield replace(step, transaction=step.transaction - begin)


def _is_of_none(step: Step) -> bool:
    """Whether a step belongs to no transaction; asked of those that are no changes."""
    return not isinstance(step, _Placed) or step.transaction == ABSENT


_EXPANSION = 4  # how much larger than its log a segment may be in memory


def bytes_held(steps: list[Step]) -> int:
    """Bytes that steps take in memory, about."""
    return sum(step.batch.held for step in steps if isinstance(step, Changes))


def fitting(budget: int, log: int, held: int) -> int:
    """How much log to take at a time, by what the last of it became.

    Rows of many short values (a wide table's nulls, deletes by a short key) grow when they are decoded.

    Args:
        budget: of log, at most.
        log, held: bytes of log that were decoded last, and what they take in memory now.
    """
    return budget if held <= _EXPANSION * log else max(1, budget * _EXPANSION * log // held)
