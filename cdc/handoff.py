"""The bounded hand-off between the reader and the applier, and the link through which the source sees the target."""

from __future__ import annotations

import threading
from collections import deque

from cdc.model.position import Position
from cdc.model.segment import Segment


class Handoff:
    """A queue of segments that is bounded in bytes; also the `Link` of a source.

    A source that reads a log asks `paused` and does not put while it is; `put` blocks, for a snapshot's sake.
    """

    def __init__(self, limit: int, durable: Position | None = None, goal: Position | None = None) -> None:
        self._limit = limit
        self._segments: deque[Segment] = deque()
        self._size = 0
        self._applying = False
        self._stopping = False
        self._finished = False
        self._durable = durable
        self._goal = goal
        self._changed = threading.Condition()

    @property
    def durable(self) -> Position | None:
        return self._durable

    @property
    def goal(self) -> Position | None:
        return self._goal

    @property
    def paused(self) -> bool:
        return self._size >= self._limit

    @property
    def idle(self) -> bool:
        return not self._segments and not self._applying

    @property
    def stopping(self) -> bool:
        return self._stopping

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

    def put(self, segment: Segment) -> None:
        """Queue a segment; waits while the queue is full, unless everything stops."""
        with self._changed:
            self._changed.wait_for(lambda: self._size < self._limit or self._stopping)
            self._segments.append(segment)
            self._size += segment.size
            self._changed.notify_all()

    def take(self) -> Segment | None:
        """The next segment, which counts as being applied until `applied`; None once there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._segments or self._stopping or self._finished)
            if self._stopping or not self._segments:
                return None
            self._applying = True
            return self._segments.popleft()

    def applied(self, segment: Segment) -> None:
        """Say that a segment that was taken is durable."""
        with self._changed:
            self._applying = False
            self._size -= segment.size
            if segment.checkpoint is not None:
                self._durable = segment.checkpoint.position
            self._changed.notify_all()
