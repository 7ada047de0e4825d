"""What is known of the pasts of versioned tables: where they begin, and their gaps (see `cdc.tables.gaps`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cdc.tables.places import NOT_YET
from cdc.tables.versioned.state import Past, Unknown, VersionedState

_OPEN = -1


class Pasts:
    """The pasts of the tables of a target, by identity. What is said again, as after a crash, changes nothing."""

    def __init__(self, state: VersionedState) -> None:
        self._state = state
        self._pasts = state.pasts()

    def begin(self, identity: int, order: int) -> None:
        """A table's history begins at a place, or NOT_YET; what it was before is not known."""
        self._keep(identity, Past(order))

    def is_whole(self, identity: int, order: int) -> None:
        """A table that came by parts has all of them at a place, where its history begins unless it has begun."""
        past = self._pasts.get(identity)
        if past is not None and past.since == NOT_YET:
            self._keep(identity, replace(past, since=order))

    def copy_begins(self, identity: int, order: int) -> None:
        """A table is copied again at a place, and is whole where a later transaction comes."""
        self.nothing_is_skipped(identity)
        if (past := self._pasts.get(identity)) is not None:
            self._keep(identity, replace(past, copied_since=order))

    def copies_end(self, orders: np.ndarray) -> None:
        """Transactions come (int64[n], places in order): the copies that had begun before are complete. Those that come
        once more after a crash say nothing of a copy that began behind them."""
        for identity, past in list(self._pasts.items()):
            later = orders[orders > past.copied_since]
            if past.copied_since >= 0 and len(later):
                self._keep(identity, replace(past, copied_since=-1))
                self.known_at(identity, int(later[0]))
                self.is_whole(identity, int(later[0]))

    def unknown_from(self, identity: int, order: int, reason: str, *, is_doubt: bool, is_skipped: bool) -> None:
        """From a place on it is not known what a table was; if that was so already, it has been since then."""
        past = self._pasts.get(identity)
        if past is None:
            return
        gap = self._open(identity) or Unknown(order, _OPEN, reason, is_doubt, is_skipped)
        gap = replace(gap, is_doubt=gap.is_doubt and is_doubt, is_skipped=gap.is_skipped or is_skipped)
        others = tuple(each for each in past.unknown if each.begins != gap.begins)
        self._keep(identity, replace(past, unknown=(*others, gap)))

    def nothing_is_skipped(self, identity: int) -> None:
        """A table's changes are followed from here on."""
        if (gap := self._open(identity)) is not None:
            self._end(identity, replace(gap, is_skipped=False))

    def differed(self, identity: int) -> None:
        """Rows of a table were other ones than they should have been."""
        if (gap := self.doubt(identity)) is not None:
            self._end(identity, replace(gap, is_doubt=False))

    def doubt(self, identity: int) -> Unknown | None:
        """The gap that has not ended, if it may turn out to be none."""
        gap = self._open(identity)
        return gap if gap is not None and gap.is_doubt else None

    def known_at(self, identity: int, order: int) -> None:
        """At a place it is known again, unless changes are skipped."""
        gap = self._open(identity)
        if gap is not None and not gap.is_skipped:
            self._end(identity, replace(gap, ends=order) if order > gap.begins else None)

    def _open(self, identity: int) -> Unknown | None:
        past = self._pasts.get(identity)
        return past.unknown[-1] if past is not None and past.unknown and past.unknown[-1].ends == _OPEN else None

    def _end(self, identity: int, gap: Unknown | None) -> None:
        past = self._pasts[identity]
        self._keep(identity, replace(past, unknown=(*past.unknown[:-1], *([gap] if gap is not None else []))))

    def _keep(self, identity: int, past: Past) -> None:
        if self._pasts.get(identity) != past:
            self._state.keep_past(identity, past)
            self._pasts[identity] = past
