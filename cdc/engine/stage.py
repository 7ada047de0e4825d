"""The applying side of a pipeline: segments in order and, for an errand between them, the exact place of a look."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import numpy as np

from cdc import faults
from cdc.engine.handoff import Handoff
from cdc.engine.liveness import Watched
from cdc.errors import CdcError, HalfWritten, Unavailable
from cdc.model.change import Transactions
from cdc.model.position import Checkpoint
from cdc.model.segment import Changes, Evolve, Gap, Note, Reset, Segment, Step, Suspect, split
from cdc.observer import SEEN, UNSEEN, Place
from cdc.target import Comparable, Placed, Replaceable, Target

log = logging.getLogger(__name__)

_REMEMBERED = 100_000  # transactions: a commit is in the log a moment before snapshots see it


class Missed(Unavailable):
    """The target was not brought to the place of a look, which has to be repeated."""

    def __init__(self, why: str) -> None:
        super().__init__(f"A look could not be placed between two transactions: {why}.")


class Stopped(CdcError):
    """The pipeline ended before an errand did."""

    def __init__(self) -> None:
        super().__init__(
            "The pipeline ended before this was done.",
            hint="See the message of the pipeline; then run the command again.",
        )


class Stage:
    """Takes segments and applies them. All of it runs on the applier thread.

    Args:
        checkpoint: where the target is.
        applied: called with each segment once it is durable, and with the seconds that the target took for it.
        watch: finds out if this does not move on.
    """

    def __init__(
        self,
        target: Target,
        handoff: Handoff,
        checkpoint: Checkpoint | None,
        applied: Callable[[Segment, float], None],
        watch: Watched,
    ) -> None:
        self.target = target
        self.checkpoint = checkpoint
        self.is_broken = False
        self._handoff = handoff
        self._applied = applied
        self._watch = watch
        self._is_inside = False
        self._spent = 0.0  # seconds on what is not counted yet
        self._touched: set[int] = set()  # tables, since the place before
        self._recent: deque[Transactions] = deque()
        self._remembered = 0

    def run(self) -> None:
        """Apply segments and do errands until there are no more."""
        while (taken := self._handoff.take()) is not None:
            if isinstance(taken, Segment):
                self._apply(taken)
            else:
                with self._watch.at("looking at the source and the target"):
                    taken()

    def alive(self) -> None:
        """Give a sign of life in an errand that takes long."""
        self._watch.alive()

    def finish_transaction(self) -> None:
        """Apply a large transaction that is there in part to its end: an errand finds the target between two."""
        while self._is_inside:
            self._apply(self._next())

    @contextmanager
    def places(self, place: Place) -> Iterator[Iterator[set[int]]]:
        """Bring the target to each place between two transactions where a look may have been, one after the other.

        There is one if the place is exact. Each comes with the tables, by identity, that have changed since the one
        before. The errand leaves the loop where it has seen enough; what was taken from the hand-off meanwhile is
        applied then.

        Raises:
            Missed: no place between two transactions is that of the look; its snapshot cuts the log otherwise.
        """
        # Closed here, since an error of a generator that is merely let go of would be lost.
        with closing(self._places(place)) as places:
            try:
                yield places
            except HalfWritten:  # with more applied, it would be committed (O4)
                self.is_broken = True
                raise

    def _places(self, place: Place) -> Generator[set[int], None, None]:
        window: deque[Segment] = deque()
        try:
            if not all((place.sees(transactions) != UNSEEN).all() for transactions in self._recent):
                raise Missed("the target has a transaction that it does not see yet")
            self._handoff.seek(place.until)
            self._look_ahead(place, window)
            self._handoff.seek(None)
            self._touched = set()
            candidates = _candidates(window, place)
            whole = part = 0  # segments of the window, and transactions of the one after them, that were applied
            for index, count in candidates:
                while whole < index:
                    self._apply(window.popleft())
                    whole, part = whole + 1, 0
                if count > part:
                    first, window[0] = split(window[0], count - part)
                    part = count
                    self._put(first)
                yield self._touched
                self._touched = set()
            if not candidates:
                raise Missed("it sees transactions in another order than the log has")
        finally:
            self._handoff.seek(None)
            while window and not self.is_broken:
                self._apply(window.popleft())

    def _look_ahead(self, place: Place, window: deque[Segment]) -> None:
        """Take segments up to the end of what the look may have seen, and apply those that it saw altogether."""
        until = place.until.order
        if self.checkpoint is not None and self.checkpoint.position.order >= until:
            return
        while True:
            segment = self._next()
            order, seen = segment.transactions.order, place.sees(segment.transactions)
            window.append(segment)
            if len(window) == 1 and (seen == SEEN).all():
                self._apply(window.popleft())
            if segment.checkpoint is not None and segment.checkpoint.position.order >= until:
                return
            if len(order) and order[-1] >= until and seen[-1] != SEEN:
                return
            if window and self._handoff.paused:
                raise Missed("too much happened meanwhile")

    def _next(self) -> Segment:
        segment = self._handoff.take_segment()
        if segment is None:
            raise Stopped
        return segment

    def _apply(self, segment: Segment) -> None:
        self._put(segment)
        if segment.checkpoint is not None and isinstance(self.target, Placed):
            self.target.verify_place()
        self._is_inside = segment.checkpoint is None
        self.checkpoint = segment.checkpoint or self.checkpoint
        self._remember(segment.transactions)
        self._handoff.applied(segment)
        self._applied(segment, self._spent)
        self._spent = 0.0

    def _put(self, segment: Segment) -> None:
        self._touched |= {identity for step in segment.steps for identity in _tables(step)}
        began = time.monotonic()
        try:
            with self._watch.at("applying"):
                faults.point("handoff.after_take")
                self.target.apply(self._with_doubts(segment))
                faults.point("handoff.before_applied")
        except BaseException:
            self.is_broken = True
            raise
        self._spent += time.monotonic() - began

    def _with_doubts(self, segment: Segment) -> Segment:
        """A target whose tables cannot be compared is given all rows of a suspect table again, after a reset."""
        if not any(isinstance(step, Suspect) for step in segment.steps) or isinstance(self.target, Comparable):
            return segment
        again = isinstance(self.target, Replaceable)
        steps: list[Step] = []
        for step in segment.steps:
            if not isinstance(step, Suspect):
                steps.append(step)
            elif again:
                steps += [
                    Gap(step.schema, step.reason, step.transaction, since=step.since),
                    Reset(step.schema, True, step.transaction),
                ]
            else:
                log.warning("%s is suspect: %s", step.schema.table, step.reason)
        return replace(segment, steps=steps)

    def _remember(self, transactions: Transactions) -> None:
        if not len(transactions):
            return
        self._recent.append(transactions)
        self._remembered += len(transactions)
        while self._remembered - len(self._recent[0]) > _REMEMBERED:
            self._remembered -= len(self._recent.popleft())


def _tables(step: Step) -> set[int]:
    if isinstance(step, Changes):
        return {step.batch.schema.identity}
    if isinstance(step, Note):
        return set()
    return {step.new.identity if isinstance(step, Evolve) else step.schema.identity}


def _candidates(window: deque[Segment], place: Place) -> list[tuple[int, int]]:
    """Places in a window as (segment, transactions of it before): all before may be seen, and none after must be."""
    seen = [place.sees(segment.transactions) for segment in window]
    flat = np.concatenate(seen) if seen else np.empty(0, dtype=np.int8)
    first_unseen = int(np.argmax(flat == UNSEEN)) if (flat == UNSEEN).any() else len(flat)
    last_seen = int(np.flatnonzero(flat == SEEN)[-1]) + 1 if (flat == SEEN).any() else 0
    places: list[tuple[int, int]] = []
    begin = 0
    for index, segment in enumerate(window):
        count = len(segment.transactions)
        # A large transaction goes on in the next segment: its first part is no place to stop at.
        whole = count - (segment.checkpoint is None)
        goes_on = index > 0 and window[index - 1].checkpoint is None
        places += [
            (index, place)
            for place in range(1 if goes_on else 0, whole + 1)
            if last_seen <= begin + place <= first_unseen
        ]
        begin += count
    if not window:
        return [(0, 0)]
    return _without_twins(places, window)


def _without_twins(places: list[tuple[int, int]], window: deque[Segment]) -> list[tuple[int, int]]:
    """The end of one segment and the begin of the next are one place."""
    return [
        (index, count)
        for index, count in places
        if not (count == len(window[index].transactions) and (index + 1, 0) in places)
    ]
