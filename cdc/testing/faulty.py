"""A target that fails in known ways."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from enum import StrEnum

from cdc.errors import Unavailable
from cdc.model.position import Checkpoint
from cdc.model.segment import Segment
from cdc.target import Target


class Fault(StrEnum):
    """What may go wrong with one call of `Target.apply`."""

    REJECT = "reject"  # an error, and nothing was written
    FAIL_AFTER_WRITE = "fail after write"  # everything was written, and the answer is an error (D-14)
    HOLD = "hold"  # written at once, and the answer comes late
    SLOW = "slow"  # written late
    REPEAT = "repeat"  # it comes again, and the one before it as well (D-05); copied rows and parts never do


class FaultyTarget:
    """A target behind which another one fails in known ways.

    Args:
        target: the real one.
        faults: one for each segment that comes, None for one that is applied as it should be; none after the last.
        delay: seconds that HOLD and SLOW take.
        sleep: how to wait for so long.
        error: makes what REJECT and FAIL_AFTER_WRITE raise.
    """

    def __init__(
        self,
        target: Target,
        faults: Iterable[Fault | None],
        *,
        delay: float = 0.05,
        sleep: Callable[[float], None] = time.sleep,
        error: Callable[[], Exception] = lambda: Unavailable("The target has failed, as a test wanted."),
    ) -> None:
        self._target = target
        self._faults = iter(faults)
        self._delay = delay
        self._sleep = sleep
        self._error = error
        self._before: Segment | None = None  # the last one that may come again

    def open(self) -> Checkpoint | None:
        self._before = None
        return self._target.open()

    def close(self) -> None:
        self._target.close()

    def apply(self, segment: Segment) -> None:
        fault = next(self._faults, None)
        if fault is Fault.REJECT:
            raise self._error()
        if fault is Fault.SLOW:
            self._sleep(self._delay)
        self._target.apply(segment)
        may_repeat = segment.checkpoint is not None and len(segment.transactions) > 0
        if fault is Fault.REPEAT and may_repeat:
            for again in (self._before, segment):
                if again is not None:
                    self._target.apply(again)
        elif fault is Fault.HOLD:
            self._sleep(self._delay)
        elif fault is Fault.FAIL_AFTER_WRITE:
            raise self._error()
        if may_repeat:
            self._before = segment
