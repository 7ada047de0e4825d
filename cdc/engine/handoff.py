"""The bounded hand-off between the reader and the applier, and the link through which the source sees the target."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from cdc.model.position import Position
from cdc.model.segment import Segment

Errand = Callable[[], None]

_LONGEST_REST = 0.2  # seconds
_BEGIN = Position(0, "")


class Handoff:
    """A queue of segments that is bounded in bytes; also the `Link` of a source.

    A segment costs much the same whatever is in it, up to some hundred rows. So after each one the applier counts as
    busy for a while, in which the source lets what is small gather: until what the process has computed since the last
    one is no more than its share of that time (O50), and `every` so many seconds have passed since that began, where a
    commit leaves something behind in the target. What is large goes on at once.

    A source that reads a log asks `paused` and does not put while it is; `put` blocks, for a snapshot's sake. Beside
    the segments it passes errands on: what somebody wants done on the applier thread, between two segments.
    """

    def __init__(
        self,
        limit: int,
        durable: Position | None = None,
        goal: Position | None = None,
        alive: Callable[[], None] = lambda: None,
        refused: Mapping[int, str] | None = None,
        share: float = 1.0,
        every: float = 0.0,
    ) -> None:
        self._limit = limit
        self._share = share
        self._every = every
        self._began = self._rests_until = 0.0
        self._computed = time.process_time()
        self.alive = alive
        self._refused = dict(refused or {})
        self._again: set[int] = set()
        self._segments: deque[Segment] = deque()
        self._errands: deque[Errand] = deque()
        self._size = 0
        self._applying = False
        # When the first transaction of each segment that is not durable was committed; None for one without any.
        self._commits: deque[int | None] = deque()
        self._applied = 0  # how many of these segments are parts that wait for the end of their transaction
        self._stopping = False
        self._finished = False
        self._durable = durable
        self._goal = goal
        self._sought: Position | None = None
        self._hurried_until = 0.0
        self._changed = threading.Condition()

    @property
    def durable(self) -> Position | None:
        return self._durable

    @property
    def goal(self) -> Position | None:
        if self._sought is not None or self._goal is not None:
            return self._sought or self._goal
        return self._durable or _BEGIN if time.monotonic() < self._hurried_until else None

    @property
    def paused(self) -> bool:
        return self._size >= self._limit

    @property
    def idle(self) -> bool:
        return self.is_empty and not self.rest

    @property
    def rest(self) -> float:
        return 0.0 if self.goal is not None else max(0.0, self._rests_until - time.monotonic())

    @property
    def is_empty(self) -> bool:
        """Whether everything that was put is applied."""
        return not self._segments and not self._applying

    @property
    def oldest(self) -> int | None:
        """When the first transaction was committed that has been read and is not durable, by the source's clock."""
        with self._changed:
            return next((commit for commit in self._commits if commit is not None), None)

    @property
    def stopping(self) -> bool:
        return self._stopping

    def want_again(self, tables: set[int]) -> None:
        """Ask the source to have tables copied again, by their identities."""
        with self._changed:
            self._again |= tables

    def is_wanted(self, table: int) -> bool:
        """Whether the source has not taken that wish yet."""
        with self._changed:
            return table in self._again

    def refuse(self, table: int, reason: str) -> None:
        """Ask the source to hold a table, by its identity."""
        with self._changed:
            self._refused[table] = reason

    def take_refused(self) -> dict[int, str]:
        with self._changed:
            taken, self._refused = self._refused, {}
        return taken

    def take_again(self) -> set[int]:
        with self._changed:
            taken, self._again = self._again, set()
        return taken

    def stop(self) -> None:
        """Ask both sides to end; what is queued is not applied any more."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def finish(self) -> None:
        """Say that nothing more will be put; what is queued is still applied."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def drain(self) -> None:
        """Wait until everything that was put is durable, unless everything stops."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_empty or self._stopping)

    def put(self, segment: Segment) -> None:
        """Queue a segment; waits while the queue is full, unless everything stops."""
        with self._changed:
            self._changed.wait_for(lambda: self._size < self._limit or self._stopping)
            self._segments.append(segment)
            self._size += segment.size
            commits = segment.transactions.committed_at
            self._commits.append(int(commits[0]) if len(commits) else None)
            self._changed.notify_all()

    def ask(self, errand: Errand) -> None:
        """Have something done on the applier thread, before the next segment."""
        with self._changed:
            self._errands.append(errand)
            self._changed.notify_all()

    def seek(self, position: Position | None) -> None:
        """Say that somebody waits for a place in the log, or no longer does."""
        self._sought = position

    def hurry(self, seconds: float) -> None:
        """Say that somebody waits for what is in the log now; he says it again for as long as he does."""
        self._hurried_until = time.monotonic() + seconds

    def take(self) -> Segment | Errand | None:
        """The next errand or segment; None once there will be no more.

        A segment counts as being applied until `applied`.
        """
        with self._changed:
            self._wait_for(lambda: bool(self._errands))
            if self._stopping or not (self._errands or self._segments):
                return None
            return self._errands.popleft() if self._errands else self._pop()

    def take_segment(self) -> Segment | None:
        """The next segment, for an errand; None once there will be no more."""
        with self._changed:
            self._wait_for(lambda: False)
            return self._pop() if self._segments and not self._stopping else None

    def _wait_for(self, something: Callable[[], bool]) -> None:
        self._applying = False  # also where an errand holds segments back: a thread that waits has nothing to do
        self._changed.wait_for(lambda: self._segments or self._stopping or self._finished or something())

    def _pop(self) -> Segment:
        self._applying = True
        self._began = time.monotonic()
        return self._segments.popleft()

    def _rest(self, *, has_committed: bool) -> None:
        if self._share < 1:
            computed = time.process_time()
            due = self._began + (computed - self._computed) / self._share
            self._rests_until = min(time.monotonic() + _LONGEST_REST, due)
            self._computed = computed
        if has_committed:
            self._rests_until = max(self._rests_until, self._began + self._every)

    def applied(self, segment: Segment) -> None:
        """Say that a segment that was taken is durable: all of it, or the last part of one that was cut up (O16)."""
        with self._changed:
            self._applying = False
            self._rest(has_committed=segment.checkpoint is not None)
            self._size -= segment.size
            self._applied += 1
            if segment.checkpoint is not None:
                self._durable = segment.checkpoint.position
                for _ in range(self._applied):
                    self._commits.popleft()
                self._applied = 0
            self._changed.notify_all()
