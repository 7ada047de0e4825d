"""A workload: transactions on a thread of its own, until it is stopped."""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod


class WorkloadThread(ABC):
    """What workloads have in common.

    Args:
        rate: changes per second, about, or whatever a workload counts; None for as many as there can be.
        seed: makes the choices repeatable.

    Attributes:
        changes, transactions, rolled_back: how many there were.
    """

    def __init__(self, rate: float | None, seed: int) -> None:
        self.changes = 0
        self.transactions = 0
        self.rolled_back = 0
        self._rate = rate
        self._rng = random.Random(seed)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="workload", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the transaction at hand; raises what ended the workload before, if anything did."""
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._failure = error

    @abstractmethod
    def _work(self) -> None:
        """Make transactions until it is stopped."""

    def _pace(self, began: float, done: int) -> None:
        """Wait where the work is ahead of its rate.

        Args:
            began: on the monotonic clock, when the work began.
            done: how much of what the rate counts was done since then.
        """
        if self._rate is not None:
            self._stop.wait(max(0.0, done / self._rate - (time.monotonic() - began)))
