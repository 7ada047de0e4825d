"""Deleted rows go for good, once nothing can come any more that they have to hide.

A deleted row stays while a row of its key that is older is in the table, or may still come: by an insert that nobody
waits for any longer, or from a process that was asleep, lost its lease, and wakes up. So a table first refuses every
row that is older than the checkpoint, from any sender. After a while, inserts that had begun before have ended. Then
the server merges the table, and the deleted rows are removed that were older than that.

What a restart applies again, and what it looks for to know how far it came (`Store.reached`), lies at the checkpoint or
beyond it: rows that are removed are before it. A crash between two steps leaves a table that refuses old rows, or is
merged, or both.
"""

from __future__ import annotations

import logging
import time

from cdc import faults
from cdc.tables.versioned.shapes import key_of, place_of
from cdc.tables.versioned.state import Shape, VersionedState
from cdc.tables.versioned.store import Store

log = logging.getLogger(__name__)

_UNDER_WAY = 1800.0  # seconds that an insert may take; its sender gives up after 300
_MANY = 10_000  # deleted rows; with fewer, no table is written again
_SHARE = 0.2  # of all rows


class Cleanup:
    """Removes the deleted rows of a mirror."""

    def __init__(self, store: Store, state: VersionedState) -> None:
        self._store = store
        self._state = state
        self._left: list[Shape] = []  # tables that this round has not looked at
        self._since: dict[int, tuple[int, float]] = {}  # what a table refuses from when on

    def once(self, at: int) -> bool:
        """Look at one table; whether there are more in this round.

        Args:
            at: order in the log of the last transaction, which is durable; also of rows that are copied now.
        """
        if not self._left:
            self._left = self._state.shapes()
        if self._left:
            self._look(self._left.pop(), at)
        return bool(self._left)

    def _look(self, shape: Shape, at: int) -> None:
        identity = shape.schema.identity
        if shape.becoming is not None:
            return
        if identity not in self._since:
            self._refuse(shape, at)
            return
        order, since = self._since[identity]
        if time.monotonic() - since >= _UNDER_WAY:
            del self._since[identity]
            self._remove(shape, order)

    def _refuse(self, shape: Shape, at: int) -> None:
        """Begin with a table if many of its rows were deleted."""
        identity = shape.schema.identity
        deleted, count = self._store.count_deleted(place_of(identity), at)
        if deleted > _MANY and deleted > count * _SHARE:
            self._state.keep_floor(identity, at)
            faults.point("versioned.floor_kept")
            self._store.refuse_older(place_of(identity), at)
            self._since[identity] = at, time.monotonic()

    def _remove(self, shape: Shape, order: int) -> None:
        place = place_of(shape.schema.identity)
        before, _ = self._store.count_deleted(place, order)
        self._store.merge(place)
        faults.point("versioned.merged")
        if self._store.hides_older(place, key_of(shape.schema), order):
            log.info("%s keeps its deleted rows: the server has not merged it yet", shape.schema.table)
            return
        self._store.remove_deleted(place, order)
        faults.point("versioned.removed")
        log.info("%s: %d deleted rows were removed", shape.schema.table, before)
