"""How fast counts grow, and what follows from that."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable, Mapping

_OVER = 5.0  # seconds
_APART = 0.5


class Rates:
    """Counts over the last few seconds, by their names."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, Mapping[Hashable, int]]] = deque()

    def see(self, counts: Mapping[Hashable, int]) -> None:
        """Take note of what the counts are now."""
        now = time.monotonic()
        if len(self._seen) > 1 and now - self._seen[-2][0] < _APART:
            self._seen.pop()
        self._seen.append((now, counts))
        while now - self._seen[0][0] > _OVER:
            self._seen.popleft()

    def of(self, name: Hashable) -> float:
        """How much one of them has grown, per second."""
        if not self._seen:
            return 0.0
        (since, before), (until, after) = self._seen[0], self._seen[-1]
        if until <= since:
            return 0.0
        return max(0.0, (after.get(name, 0) - before.get(name, 0)) / (until - since))


def duration(seconds: float) -> str:
    """Time that is left, as people say it: `42 s`, `3 min`, `2 h 5 min`."""
    if seconds < 99:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days"


def size(count: float) -> str:
    """Bytes, as people say them: `812 B`, `3.1 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"
