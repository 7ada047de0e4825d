"""A world of one thread: a clock that stands still until somebody waits, and what happens when."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

BEGIN = 1_700_000_000_000_000  # microseconds since the Unix epoch by the source's clock, at the virtual second 0
MOST_STEPS = 60_000  # of one schedule: more means that nothing gets on


class Crash(BaseException):
    """The process is dead. No handler of the program may notice."""


class World:
    """A virtual clock, as `cdc.waiting.Waiting`, with events on it.

    Args:
        rng: all that is random.
        skew: by how many seconds this machine's clock differs from the source's.
    """

    def __init__(self, rng: Random, skew: float = 0.0) -> None:
        self.rng = rng
        self.skew = skew
        self.time = 0.0
        self.steps = 0
        self.crash_at: int | None = None
        self.is_dead = False  # the process, from a crash until it is started again
        self.coverage: Counter[str] = Counter()
        self.trace: list[object] = []
        self.checks: list[Callable[[], None]] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def now(self) -> float:
        return self.time

    def clock(self) -> int:
        return self.source_clock() + int(self.skew * 1e6)

    def source_clock(self) -> int:
        return BEGIN + int(self.time * 1e6)

    def sleep(self, seconds: float) -> None:
        self._run(self.time + seconds, lambda: False)

    def readable(self, socket: Any, seconds: float) -> bool:
        assert not (seconds and socket.holds()), "it waits for what it could have"
        if not socket.has_arrived():
            self._run(self.time + seconds, socket.has_arrived)
        return bool(socket.has_arrived())

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Let something happen."""
        self._number += 1
        heapq.heappush(self._events, (self.time + seconds, self._number, action))

    def wait(self) -> None:
        """Let the next thing happen."""
        self._run(self._events[0][0] if self._events else self.time + 1.0, lambda: False)

    def _run(self, until: float, enough: Callable[[], bool]) -> None:
        while self._events and self._events[0][0] <= until and not enough():
            self.time, _, action = heapq.heappop(self._events)
            action()
            self._step()
        if not enough():
            self.time = max(self.time, until)
            self._step()

    def _step(self) -> None:
        self.steps += 1
        for check in self.checks:
            check()
        if self.crash_at is not None and self.steps >= self.crash_at:
            self.crash_at, self.is_dead = None, True
            raise Crash
        if self.steps > MOST_STEPS:
            raise AssertionError("nothing gets on any more")

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability
