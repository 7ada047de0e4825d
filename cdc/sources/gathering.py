"""What a copy has read and not handed over yet: rows of many small tables go into one segment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from cdc.model.change import ChangeBatch
from cdc.model.segment import Changes

_LEAST = 256  # tables that end in one segment
_SHARE = 16  # part of all tables: each segment has the state of all, so that their number must not grow (P21)
_LONGEST = 1.0  # seconds that a table which has ended waits
# Rows of one table in a segment: a row group of DuckDB, which it writes once if it comes whole. What comes in other
# numbers it writes again, to fill its row groups up.
FULL = 122_880


class Gathered:
    """Copied rows, and the tables that have ended with them. It is emptied for as long as it is due.

    Args:
        tables: that are copied.
        budget: bytes of rows that make one segment, where they come to that before a table has `FULL` rows.
        now: tells the time in seconds.
    """

    def __init__(self, tables: int, budget: int, now: Callable[[], float]) -> None:
        self._most = max(_LEAST, tables // _SHARE)
        self._budget = budget
        self._now = now
        self._changes: list[Changes] = []
        self._size = 0
        self._rows: Counter[int] = Counter()  # of each table
        self._rest: ChangeBatch | None = None  # rows that would be too many of their table
        self._ended: list[int] = []
        self._since = 0.0

    def __bool__(self) -> bool:
        return bool(self._changes or self._ended)

    @property
    def is_due(self) -> bool:
        """Whether it is time to hand it over."""
        if self._size >= self._budget or len(self._ended) >= self._most or FULL in self._rows.values():
            return True
        return bool(self._ended) and self._now() - self._since >= _LONGEST

    def add(self, batch: ChangeBatch) -> None:
        table = batch.schema.identity
        fitting = FULL - self._rows[table]
        if len(batch) > fitting:
            batch, self._rest = _cut(batch, fitting)
        self._changes.append(Changes(batch))
        self._size += batch.held
        self._rows[table] += len(batch)

    def end(self, table: int) -> None:
        """All rows of a table, by its identity, have been added."""
        if not self._ended:
            self._since = self._now()
        self._ended.append(table)

    def take(self) -> tuple[list[Changes], int, list[int]]:
        """The rows, their bytes, and the tables that have ended with them; only what did not fit is left."""
        taken = self._changes, self._size, self._ended
        self._changes, self._size, self._ended = [], 0, []
        self._rows.clear()
        rest, self._rest = self._rest, None
        if rest is not None:
            self.add(rest)
        return taken


def _cut(batch: ChangeBatch, count: int) -> tuple[ChangeBatch, ChangeBatch]:
    """The first rows of a batch, and the others."""
    size = batch.size * count // len(batch)
    first = replace(batch.rows(np.arange(count)), size=size)
    return first, replace(batch.rows(np.arange(count, len(batch))), size=batch.size - size)
