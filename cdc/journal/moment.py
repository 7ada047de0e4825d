"""Finding a position or a time in a journal."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from cdc.errors import UsageError
from cdc.journal.folder import Folder
from cdc.journal.gaps import OpenGaps
from cdc.journal.reader import Reader
from cdc.model.change import Transactions
from cdc.model.moment import Moment, written
from cdc.model.position import Checkpoint, Position
from cdc.model.segment import split


@dataclass(frozen=True, slots=True)
class End:
    """Where in a journal to stop.

    Attributes:
        record: the number of the record after the last one of which anything is given.
        count: how many transactions of that last one; None for all of it.
        position: where that is.
    """

    record: int
    count: int | None
    position: Position


@dataclass(frozen=True, slots=True)
class Start:
    """Where in a journal to begin.

    Attributes:
        record: the number of the first record.
        skip: how many of its transactions come before.
    """

    record: int
    skip: int = 0


def find_start(folder: Folder, begin: Moment) -> Start:
    """The place after a position, or before the first transaction since a time.

    Raises:
        UsageError: the journal does not have it.
    """
    if begin.time is None:
        end, _ = _find(folder, begin)
        return Start(end.record) if end.count is None else Start(end.record - 1, end.count)
    reader = Reader(folder, folder.read_manifest().first)
    while (found := reader.read()) is not None:
        late = found[1].transactions.committed_at >= begin.time
        if late.any():
            return Start(found[0].number, int(np.argmax(late)))
    begin.refuse_future(int(time.time() * 1e6))
    return Start(reader.next)


def find_end(folder: Folder, until: Moment) -> End:
    """The place after the last transaction up to a moment, in commit order.

    Args:
        until: a time, up to the first commit after it; or a position as the source writes it, of a commit or a
            checkpoint, or any LSN of PostgreSQL.

    Raises:
        UsageError: the journal does not reach it.
        NotKnown: a table is in a gap there.
    """
    end, gaps = _find(folder, until)
    gaps.refuse(folder, until, end.record - (end.count is not None), end.position.order)
    return end


def _find(folder: Folder, until: Moment) -> tuple[End, OpenGaps]:
    """That place, and the gaps that it lies in."""
    first, gaps = first_state(folder), OpenGaps()
    limit = _Time(until.time) if until.time is not None else _Place(until.text, until.lsn)
    reader = Reader(folder, folder.read_manifest().first)
    end: End | None = None
    newest, is_over = int(time.time() * 1e6), False
    while not is_over and (found := reader.read()) is not None:
        header, segment = found
        transactions, at = segment.transactions, segment.checkpoint
        count = limit.count(transactions)
        is_over = count < len(transactions)
        if is_over and count:
            gaps.see(split(segment, count)[0])
            order = int(transactions.order[count - 1])
            end = End(header.number + 1, count, Position(order + 1, transactions.write(order)))
        elif at is not None and not is_over:
            is_over = not len(transactions) and limit.is_before(at)
            end = End(header.number + 1, None, at.position) if not is_over else end
        if not is_over:
            gaps.see(segment)
        if len(transactions):
            newest = max(newest, int(transactions.committed_at.max()))
    until.refuse_future(newest)
    if end is None or first is None or not limit.is_known(first, None if is_over else end.position):
        begins = f" It begins at {first}." if first is not None else ""
        raise UsageError(
            f"The journal in {folder.path} does not reach {until}.{begins}",
            hint=f"`cdc journal info {folder.path}` shows where it begins and ends.",
        )
    return end, gaps


@dataclass(frozen=True, slots=True)
class FirstState:
    """What a journal knows first: that of its first copy, or the end of its first transaction.

    Attributes:
        position: where that is.
        time: microseconds since the Unix epoch; None where an older version did not write when the copy was.
    """

    position: Position
    time: int | None

    def __str__(self) -> str:
        return f"{self.position}, {written(self.time)}" if self.time is not None else str(self.position)


def first_state(folder: Folder) -> FirstState | None:
    """The end of the copy, after which only transactions follow. Of the copy only the headers are read."""
    reader, first = Reader(folder, folder.read_manifest().first), None
    while (header := reader.peek()) is not None and not header.transactions:
        if header.checkpoint is not None and (header.steps or first is None):
            seconds = header.read_at // 1_000_000 * 1_000_000 if header.read_at is not None else None
            first = FirstState(header.checkpoint, seconds)
        reader.skip()
    if first is None and (found := reader.read()) is not None:
        transactions = found[1].transactions
        order = int(transactions.order[0])
        first = FirstState(Position(order, transactions.write(order)), int(transactions.committed_at[0]))
    return first


class _Time:
    """A time as the end: the first commit that is later is beyond it, whatever the clocks of those behind it say."""

    def __init__(self, micros: int) -> None:
        self._micros = micros
        self._has_commit = False

    def count(self, them: Transactions) -> int:
        """How many of some transactions are not beyond it."""
        later = them.committed_at > self._micros
        count = int(np.argmax(later)) if later.any() else len(them)
        self._has_commit = self._has_commit or count > 0
        return count

    def is_before(self, at: Checkpoint) -> bool:
        """Whether it lies before a checkpoint."""
        return False

    def is_known(self, first: FirstState, end: Position | None) -> bool:
        """Whether the journal knows what there was then; `end` is its own, if nothing was beyond the limit."""
        return self._has_commit if first.time is None else self._micros >= first.time


class _Place:
    """A position as the end; the last one that is written so, since a copy has many."""

    def __init__(self, text: str, lsn: int | None) -> None:
        self._text = text
        self._is_lsn = lsn is not None
        self._order = lsn

    def count(self, them: Transactions) -> int:
        """How many of some transactions are not beyond it."""
        if not self._is_lsn:
            texts = [them.write(order) for order in them.order.tolist()]
            if self._text in texts:
                self._order = int(them.order[texts.index(self._text)])
        return int(np.searchsorted(them.order, self._order, side="right")) if self._order is not None else len(them)

    def is_before(self, at: Checkpoint) -> bool:
        """Whether it lies before a checkpoint."""
        if at.position.text == self._text and not self._is_lsn:
            self._order = at.position.order
        return self._order is not None and self._order < at.position.order

    def is_known(self, first: FirstState, end: Position | None) -> bool:
        """Whether the journal knows what there was then; `end` is its own, if nothing was beyond the limit."""
        order = self._order
        return order is not None and first.position.order <= order and (end is None or order <= end.order)
