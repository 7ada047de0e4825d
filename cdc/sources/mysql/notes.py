"""The statements that changed rows, where the log has their text: annotations of their transactions. Sans I/O.

MySQL writes them with binlog_rows_query_log_events, MariaDB with binlog_annotate_row_events: each before its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cdc.model.segment import Note
from cdc.sources.mysql.events import HEADER, Event
from cdc.sources.mysql.transactions import Begun

PREFIX = "statement"


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the changes of row events are, as arrays of one length.

    Attributes:
        event: int64[n], the indexes of the events.
        transaction: int64[n], the indexes of their transactions.
        ordinal: int64[n], of the first change of each.
        count: int64[n], how many changes of tables that are followed each has.
    """

    event: np.ndarray
    transaction: np.ndarray
    ordinal: np.ndarray
    count: np.ndarray


@dataclass(frozen=True, slots=True)
class Said:
    """A statement: the index of its event, and of the transaction that it is in."""

    event: int
    transaction: int
    text: str


def statements(events: Sequence[bytes], kind: np.ndarray, first: Sequence[int], before: str | None) -> list[Said]:
    """The statements of a run of events.

    Args:
        first: the events that the transactions begin with.
        before: a statement of the first transaction that came with earlier events, and whose rows did not.
    """
    found = [Said(-1, 0, before)] if before is not None else []
    for index in np.flatnonzero((kind == Event.ROWS_QUERY) | (kind == Event.ANNOTATE_ROWS)).tolist():
        transaction = int(np.searchsorted(first, index, side="right")) - 1
        body = events[index][HEADER + (kind[index] == Event.ROWS_QUERY) :]  # MySQL: a byte of length, which is not used
        if transaction >= 0:
            found.append(Said(index, transaction, body.decode(errors="backslashreplace")))
    return found


def notes_of(
    said: Sequence[Said], placed: Sequence[Placed], begun: Sequence[Begun], *, goes_on: bool
) -> tuple[list[Note], str | None]:
    """The notes of statements that changed rows of tables that are followed; and a statement whose rows are to come.

    Args:
        goes_on: the last transaction is not over.
    """
    if not said:
        return [], None
    event, transaction, ordinal, count = (
        np.concatenate([getattr(part, name) for part in placed] or [np.empty(0, dtype=np.int64)])
        for name in ("event", "transaction", "ordinal", "count")
    )
    ends = [following.event for following in said[1:]] + [int(event[-1]) + 1 if len(event) else 0]
    notes: list[Note] = []
    for statement, end in zip(said, ends, strict=True):
        rows = np.arange(np.searchsorted(event, statement.event), np.searchsorted(event, end))
        rows = rows[(transaction[rows] == statement.transaction) & (count[rows] > 0)]
        if len(rows):
            of = begun[statement.transaction]
            place = int(ordinal[rows[0]])
            notes.append(Note(statement.transaction, place, of.notes, PREFIX, statement.text))
            of.notes += 1
    last = said[-1]
    has_rows = len(event) > 0 and bool((event > last.event).any())
    waits = goes_on and last.transaction == len(begun) - 1 and not has_rows
    return notes, last.text if waits else None
