"""Liveness: a stage that has something to do and does not move on is found out (E-01).

A thread that hangs looks like one that is patient. The difference is that a reader that lives turns its loop
several times a second, or takes in bytes, however little the server sends; and that a target, which can be slow (one
statement over a table of a billion rows), is slow for minutes, not for hours. Hence two limits. A thread that waits for
the other side, or for the next try, is not watched at all.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from cdc.logs import Thread
from cdc.options import STALL_TIMEOUT

log = logging.getLogger(__name__)

TARGET_FACTOR = 12  # how much longer than the source the target may be silent: one statement gives no sign of life
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Stall:
    """A stage that does not move on.

    Attributes:
        stage: reader, applier, or pipeline if it is tried again and again.
        doing: what it began with and has not ended.
        since: seconds since the Unix epoch.
        seconds: for how long.
    """

    stage: str
    doing: str
    since: float
    seconds: float

    def __str__(self) -> str:
        return f"The {self.stage} has not moved on for {self.seconds:.0f} s ({self.doing})."


class Watched:
    """What one thread is at.

    Args:
        name: for people.
        unhealthy_after: seconds without a sign of life after which the pipeline counts as unhealthy.
        over_after: the same, after which it is given up.
    """

    def __init__(self, name: str, unhealthy_after: float, over_after: float = _NEVER) -> None:
        self.name = name
        self.unhealthy_after = unhealthy_after
        self.over_after = over_after
        self.doing: str | None = None
        self.signs = 0

    def alive(self) -> None:
        """Give a sign of life; may be called by several threads."""
        self.signs += 1

    @contextmanager
    def at(self, doing: str) -> Iterator[None]:
        """Be watched for as long as something takes."""
        self.signs += 1
        before, self.doing = self.doing, doing
        try:
            yield
        finally:
            self.doing = before


class Watch:
    """Looks at the stages from a thread of its own.

    Time is counted in looks, so that a process that was stopped for a while does not hold that against its stages.

    Args:
        timeout: seconds without a sign of life that end a run; it counts as unhealthy from half of that on.
        on_over: called once, on the watching thread, when a stage is given up. Only the end of the process lets go of
            what a hung thread holds.
        target_factor: how much longer the target may be silent; infinite where somebody else may let it wait.

    Attributes:
        looks: how often it has looked. Who sees this grow knows that the watch itself does not hang.
    """

    def __init__(
        self,
        timeout: float = STALL_TIMEOUT,
        on_over: Callable[[Stall], None] | None = None,
        target_factor: float = TARGET_FACTOR,
    ) -> None:
        self.source = Watched("reader", timeout / 2, timeout)
        self.target = Watched("applier", timeout, target_factor * timeout)
        self.retries = Watched("pipeline", timeout)
        self.stall: Stall | None = None
        self.is_over = False
        self.looks = 0
        self._on_over = on_over
        self._every = min(1.0, timeout / 20)
        self._quiet: dict[Watched, tuple[int, float]] = {}
        self._end = threading.Event()

    def __enter__(self) -> Watch:
        self._end.clear()
        Thread(target=self._run, name="watch", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()

    def _run(self) -> None:
        while not self._end.wait(self._every):
            self.look(self._every)

    def look(self, passed: float) -> None:
        """Take notice of what the stages did in so many seconds."""
        self.looks += 1
        stalls = []
        for stage in (self.source, self.target, self.retries):
            signs, quiet = self._quiet.get(stage, (-1, 0.0))
            quiet = quiet + passed if stage.doing is not None and stage.signs == signs else 0.0
            self._quiet[stage] = (stage.signs, quiet)
            if quiet >= stage.unhealthy_after:
                stalls.append((quiet / stage.over_after, stage, quiet))
        if not stalls:
            self.stall = None
            return
        share, stage, quiet = max(stalls, key=lambda found: found[0])
        since = self.stall.since if self.stall is not None else time.time() - quiet
        was_fine, self.stall = self.stall is None, Stall(stage.name, stage.doing or "", since, quiet)
        if was_fine:
            log.warning("%s", self.stall)
        if share >= 1 and not self.is_over:
            self.is_over = True
            if self._on_over is not None:
                self._on_over(self.stall)
