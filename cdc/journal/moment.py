"""Finding a position or a time in a journal."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from cdc.errors import UsageError
from cdc.journal.folder import Folder
from cdc.journal.reader import Reader
from cdc.model.change import Transactions
from cdc.model.position import Position
from cdc.source import Begin

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


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


def find_start(folder: Folder, begin: Begin) -> Start:
    """The place after a position, or at or before the first transaction since a time.

    Raises:
        UsageError: the journal does not have it.
    """
    if begin.position is not None:
        end = find_end(folder, begin.position)
        return Start(end.record) if end.count is None else Start(end.record - 1, end.count)
    reader = Reader(folder, folder.read_manifest().first)
    while (header := reader.peek()) is not None:
        if header.committed_at is not None and header.committed_at[-1] >= (begin.time or 0):
            break
        reader.skip()
    return Start(reader.next)


def find_end(folder: Folder, until: str) -> End:
    """The place after the last transaction up to a moment, in commit order.

    Args:
        until: a time (ISO 8601; without a zone it is the local one), up to the first commit after it; or a position as
            the source writes it, of a commit or a checkpoint, or any LSN of PostgreSQL.

    Raises:
        UsageError: it is neither, or not a moment at which the journal knows what the source held.
    """
    reader = Reader(folder, folder.read_manifest().first)
    count_in, is_at = _counter(until)
    end: End | None = None
    begins: Position | None = None  # what the first copy holds; before that, nothing is known
    is_known = is_found = False
    while not is_found and (found := reader.read()) is not None:
        header, segment = found
        transactions, at = segment.transactions, segment.checkpoint
        if begins is None and at is not None:
            begins = at.position
            is_known = is_at(Transactions.none(), begins)
        count = count_in(transactions)
        is_known |= count > 0
        if count < len(transactions):
            is_found = True
            if count:
                order = int(transactions.order[count - 1])
                end = End(header.number + 1, count, Position(order + 1, transactions.write(order)))
        elif at is not None:
            end = End(header.number + 1, None, at.position)
            is_found = is_at(transactions, at.position)
    is_moment = _LSN.fullmatch(until) is not None or _time(until) is not None
    if end is None or not is_known or not (is_found or is_moment):
        began = f" It begins at {begins}." if begins is not None else ""
        raise UsageError(f"The journal in {folder.path} does not reach {until}.{began}", hint="See `cdc journal ls`.")
    return end


def _counter(until: str) -> tuple[Callable[[Transactions], int], Callable[[Transactions, Position], bool]]:
    """What says how many of some transactions lie before a moment, and what says that a record ends there."""
    if (found := _LSN.fullmatch(until)) is not None:
        order = int(found[1], 16) << 32 | int(found[2], 16)
        return lambda them: int(np.searchsorted(them.order, order)), lambda _, at: at.order >= order
    if (micros := _time(until)) is not None:

        def before(them: Transactions) -> int:
            later = them.committed_at > micros
            return int(np.argmax(later)) if later.any() else len(them)

        return before, lambda *_: False

    def up_to(them: Transactions) -> int:
        texts = [them.write(order) for order in them.order.tolist()]
        return texts.index(until) + 1 if until in texts else len(them)

    def is_there(them: Transactions, at: Position) -> bool:
        return at.text == until or (len(them) > 0 and them.write(int(them.order[-1])) == until)

    return up_to, is_there


def _time(text: str) -> int | None:
    """Microseconds since the Unix epoch."""
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1_000_000)
    except ValueError:
        return None
