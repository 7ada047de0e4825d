"""Time, and waiting for a socket, as the streams know them: a test can put a clock of its own in their place."""

from __future__ import annotations

import select
import time
from typing import Any, Protocol


class Waiting(Protocol):
    """Everything that a stream knows of time."""

    def now(self) -> float:
        """Seconds on a clock that never goes back."""

    def clock(self) -> int:
        """Microseconds since the Unix epoch, as this machine believes."""

    def sleep(self, seconds: float) -> None:
        """Let some time pass."""

    def readable(self, socket: Any, seconds: float) -> bool:
        """Whether something can be read from a socket, or a file descriptor, now or within that time."""


class _Machine:
    def now(self) -> float:
        return time.monotonic()

    def clock(self) -> int:
        return int(time.time() * 1_000_000)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def readable(self, socket: Any, seconds: float) -> bool:
        return bool(select.select([socket], [], [], seconds)[0])


MACHINE: Waiting = _Machine()
