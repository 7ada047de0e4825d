"""How fast something goes, and when it will have come to an end at that pace."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

_PACE_OVER = 10.0  # seconds
_DECLINE_OVER = 1800.0  # seconds: a source checkpoints, and a target tidies up, more often than that
_LEAST_DECLINE = 30.0  # seconds, before a decline says anything


class Pace:
    """How fast counts grow, by name, over the last few seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, Mapping[str, int]]] = deque()

    def see(self, now: float, counts: Mapping[str, int]) -> None:
        """Take note of counts; `now` is in seconds, by any clock that never goes back."""
        while self._seen and now - self._seen[0][0] > _PACE_OVER:
            self._seen.popleft()
        self._seen.append((now, counts))

    def per_second(self, name: str) -> float:
        """How much a count grows in a second; 0 for one that has not been seen twice."""
        if len(self._seen) < 2:
            return 0.0
        (since, before), (now, after) = self._seen[0], self._seen[-1]
        grown = after.get(name, 0) - before.get(name, 0)
        return max(0, grown) / (now - since)


class Decline:
    """When what is left of something will be used up, if it goes on as in the last half hour."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def see(self, now: float, left: int | None) -> None:
        """Take note of what is left; None if it has no limit."""
        if left is None:
            self._seen.clear()
            return
        while self._seen and now - self._seen[0][0] > _DECLINE_OVER:
            self._seen.popleft()
        self._seen.append((now, left))

    @property
    def seconds_left(self) -> float | None:
        """Seconds until nothing is left; None if it does not become less, or that is not known yet."""
        if not self._seen:
            return None
        (since, before), (now, left) = self._seen[0], self._seen[-1]
        if left <= 0:
            return 0.0
        if now - since < _LEAST_DECLINE or left >= before:
            return None
        return left * (now - since) / (before - left)
