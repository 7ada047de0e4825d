"""A pipeline: one source into one target, on a reader and an applier thread that this one supervises."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from tenacity import RetryCallState, Retrying, retry_if_exception
from tenacity.wait import wait_exponential_jitter

from cdc.errors import CdcError, SlotBusy
from cdc.handoff import Handoff
from cdc.model.change import Op
from cdc.model.position import Position
from cdc.model.schema import TableName
from cdc.model.segment import Changes, Reset, Segment, Truncate
from cdc.source import Source
from cdc.target import Target

log = logging.getLogger(__name__)

_SLOT_BUSY_TRIES = 6  # the walsender of a process that was just killed lingers for a moment
_LONGEST_WAIT = 30.0  # seconds between tries
_END_WITHIN = 30.0  # seconds for the threads to end when asked to (D-18)


@dataclass(slots=True)
class TableView:
    """What happened to one table in this run."""

    rows_estimated: int = 0
    rows_copied: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    truncated: int = 0
    state: str = "waiting"


@dataclass(slots=True)
class PipelineView:
    """What a pipeline is doing, for people and for status.

    Attributes:
        phase: opening, copying, streaming, waiting (to try again) or stopped.
        rows_copied, rows_applied, transactions_applied: in this run.
        durable: the target's checkpoint.
        source_position: how far the source's log is, as far as is known.
        lag_bytes: between the two.
        lag_seconds: by the source's clock, how old the newest applied commit is; 0 if nothing is left to apply.
        tables: by name.
        failure: the message of the last failure that is being retried.
    """

    phase: str = "opening"
    rows_copied: int = 0
    rows_applied: int = 0
    transactions_applied: int = 0
    durable: Position | None = None
    source_position: Position | None = None
    lag_bytes: int = 0
    lag_seconds: float = 0.0
    tables: dict[TableName, TableView] = field(default_factory=dict)
    failure: str | None = None


class Pipeline:
    """Copies, then follows, until it is stopped, has caught up, or cannot go on.

    Args:
        make_source, make_target: called once per try: after a failure both are opened afresh and the target says
            where to go on.
        queue_bytes: bound of the hand-off between the two.
        until_caught_up: end once everything is applied that the source had when the run began.
    """

    def __init__(
        self,
        make_source: Callable[[], Source],
        make_target: Callable[[], Target],
        *,
        queue_bytes: int,
        until_caught_up: bool = False,
    ) -> None:
        self._make_source = make_source
        self._make_target = make_target
        self._queue_bytes = queue_bytes
        self._until_caught_up = until_caught_up
        self._goal: Position | None = None
        self._stop = threading.Event()
        self._view = PipelineView()
        self._source: Source | None = None
        self._handoff: Handoff | None = None
        self._last_commit = 0
        self._was_open = False
        self._progress_at = 0
        self._try = 0

    def view(self) -> PipelineView:
        """What is going on right now."""
        view, source, handoff = self._view, self._source, self._handoff
        if source is not None and handoff is not None:
            head, durable = source.head, handoff.durable
            view.durable, view.source_position = durable, head.position
            view.lag_bytes = max(0, head.position.order - durable.order) if durable is not None else 0
            behind = view.lag_bytes > 0 and not handoff.idle and self._last_commit
            view.lag_seconds = max(0.0, (head.clock - self._last_commit) / 1e6) if behind else 0.0
        return view

    def stop(self) -> None:
        """Ask the run to end at the next commit boundary; may be called from anywhere, a signal handler included."""
        self._stop.set()

    def run(self) -> None:
        """Run until the end.

        Raises:
            CdcError: the run cannot go on. What is transient was tried again before.
        """
        waiting = wait_exponential_jitter(multiplier=0.5, max=_LONGEST_WAIT)

        def wait(state: RetryCallState) -> float:
            state.attempt_number -= self._progress_at
            delay = waiting(state)
            state.attempt_number += self._progress_at
            return delay

        for attempt in Retrying(
            retry=retry_if_exception(self._is_worth_retrying),
            wait=wait,
            sleep=self._sleep,
            before_sleep=self._say_retry,
            reraise=True,
        ):
            with attempt:
                self._try = attempt.retry_state.attempt_number
                if not self._stop.is_set():
                    self._run_once()
        self._view.phase = "stopped"

    def run_beside(self, meanwhile: Callable[[threading.Thread], None]) -> None:
        """Run on a thread of its own while this one does something; the run is stopped when that is done.

        Args:
            meanwhile: is given the thread, which lives as long as the run.

        Raises:
            CdcError: as `run`.
        """
        failures: list[BaseException] = []

        def body() -> None:
            try:
                self.run()
            except BaseException as error:
                failures.append(error)
            finally:
                self._view.phase = "stopped"

        thread = threading.Thread(target=body, name="pipeline")
        thread.start()
        try:
            meanwhile(thread)
        finally:
            self.stop()
            thread.join()
        if failures:
            raise failures[0]

    def _is_worth_retrying(self, error: BaseException) -> bool:
        """At a first start everything but a slot that is about to be free is told at once: it may be a mistake."""
        if not isinstance(error, CdcError) or not error.retry or self._stop.is_set():
            return False
        if isinstance(error, SlotBusy):
            return self._try - self._progress_at < _SLOT_BUSY_TRIES
        return self._was_open

    def _sleep(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _say_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        self._view.phase, self._view.failure = "waiting", str(error)
        delay = state.next_action.sleep if state.next_action is not None else 0
        log.warning("%s Trying again in %.1f s.", error, delay)

    def _run_once(self) -> None:
        target = self._make_target()
        source = self._make_source()
        self._view.phase = "opening"
        try:
            checkpoint = target.open()
            source.open(checkpoint)
            if self._until_caught_up and self._goal is None:
                self._goal = source.head.position
            for table, rows in source.estimates.items():
                self._view.tables.setdefault(table, TableView()).rows_estimated = rows
            handoff = Handoff(self._queue_bytes, checkpoint.position if checkpoint else None, self._goal)
            self._handoff, self._source = handoff, source
            self._was_open = True
            self._supervise(source, target, handoff)
        finally:
            self._handoff = self._source = None
            try:
                source.close()
            finally:
                target.close()

    def _supervise(self, source: Source, target: Target, handoff: Handoff) -> None:
        failures: list[BaseException] = []

        def guarded(work: Callable[[], None]) -> Callable[[], None]:
            def body() -> None:
                try:
                    work()
                except BaseException as error:  # whatever ends a thread must end the run (D-20)
                    failures.append(error)
                    handoff.stop()

            return body

        threads = [
            threading.Thread(target=guarded(lambda: self._read(source, handoff)), name="reader", daemon=True),
            threading.Thread(target=guarded(lambda: self._apply(target, handoff)), name="applier", daemon=True),
        ]
        for thread in threads:
            thread.start()
        while not handoff.stopping and any(thread.is_alive() for thread in threads):
            if self._stop.wait(0.02) or self._has_arrived(source, handoff):
                handoff.stop()
        for thread in threads:
            thread.join(_END_WITHIN)
        if failures:
            raise failures[0]

    def _has_arrived(self, source: Source, handoff: Handoff) -> bool:
        at, goal = handoff.durable, self._goal
        if goal is None or at is None or at < goal or self._view.phase != "streaming":
            return False
        return handoff.idle and source.is_complete

    def _read(self, source: Source, handoff: Handoff) -> None:
        self._view.phase = "copying"
        for segment in source.copy(handoff):
            handoff.put(segment)
        if handoff.stopping:
            return
        self._view.phase = "streaming"
        for table in self._view.tables.values():
            table.state = "streaming"
        for segment in source.stream(handoff):
            handoff.put(segment)
        handoff.finish()

    def _apply(self, target: Target, handoff: Handoff) -> None:
        while (segment := handoff.take()) is not None:
            target.apply(segment)
            handoff.applied(segment)
            self._count(segment)
            self._progress_at = self._try
            self._view.failure = None

    def _count(self, segment: Segment) -> None:
        view = self._view
        for step in segment.steps:
            if isinstance(step, Changes):
                batch = step.batch
                table = view.tables.setdefault(batch.schema.table, TableView())
                if batch.copied:
                    view.rows_copied += len(batch)
                    table.rows_copied += len(batch)
                    continue
                counts = np.bincount(batch.op, minlength=5)
                table.inserted += int(counts[Op.INSERT])
                table.updated += int(counts[Op.UPDATE])
                table.deleted += int(counts[Op.DELETE])
                view.rows_applied += len(batch)
            elif isinstance(step, Reset):
                table = view.tables.setdefault(step.schema.table, TableView())
                table.rows_copied, table.state = 0, "copying"
            elif isinstance(step, Truncate):
                view.tables.setdefault(step.schema.table, TableView()).truncated += 1
        if len(segment.transactions):
            view.transactions_applied += len(segment.transactions) - (segment.checkpoint is None)
            self._last_commit = int(segment.transactions.committed_at[-1])
