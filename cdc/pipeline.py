"""A pipeline: one source into one target, on a reader and an applier thread that this one supervises."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from tenacity import RetryCallState, Retrying, retry_if_exception
from tenacity.wait import wait_exponential_jitter

from cdc import faults
from cdc.errors import CdcError, SlotBusy, Stalled, Unavailable
from cdc.handoff import Handoff
from cdc.liveness import Stall, Watch
from cdc.model.change import Op
from cdc.model.position import Position
from cdc.model.schema import TableName
from cdc.model.segment import Changes, Copied, Reset, Segment, Truncate
from cdc.source import Source
from cdc.stage import Stage, Stopped
from cdc.target import Replaceable, Target

log = logging.getLogger(__name__)

T = TypeVar("T")

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


@dataclass(frozen=True, slots=True)
class VerificationView:
    """What the last verification in the background found.

    Attributes:
        finished_at: seconds since the Unix epoch, by this machine's clock.
        rows: that were compared.
        different: per table, how many rows differ.
        not_compared: per table, why not.
    """

    finished_at: float
    rows: int
    different: dict[str, int]
    not_compared: dict[str, str]


@dataclass(slots=True)
class PipelineView:
    """What a pipeline is doing, for people and for status.

    Attributes:
        phase: opening, copying, streaming, waiting (to try again) or stopped.
        rows_copied, rows_applied, transactions_applied: in this run.
        durable: the target's checkpoint.
        source_position: how far the source's log is, as far as is known.
        lag_bytes: between the two.
        lag_seconds: by the source's clock, how old the oldest commit is that was read and is not applied (E-02).
        tables: by name.
        failure: the message of the last failure that is being retried.
        is_red: that failure is one that makes status unhealthy at once.
        verification: in the background, if there was one.
        stall: what does not move on, if anything does not.
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
    is_red: bool = False
    verification: VerificationView | None = None
    stall: Stall | None = None


class Pipeline:
    """Copies, then follows, until it is stopped, has caught up, or cannot go on.

    Args:
        make_source, make_target: called once per try: after a failure both are opened afresh and the target says
            where to go on.
        queue_bytes: bound of the hand-off between the two.
        until_caught_up: end once everything is applied that the source had when the run began.
        watch: notices when a side does not move on; `run` then raises as soon as it can.
    """

    def __init__(
        self,
        make_source: Callable[[], Source],
        make_target: Callable[[], Target],
        *,
        queue_bytes: int,
        until_caught_up: bool = False,
        watch: Watch | None = None,
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
        self._was_open = False
        self._progress_at = 0
        self._try = 0
        self._stage: Stage | None = None
        self._asked: set[Future[Any]] = set()
        self._errands = threading.Condition()
        self._has_ended = False
        self._companion_failure: BaseException | None = None
        self.companions: list[Callable[[], None]] = []  # run on threads of their own while the pipeline does
        self._watch = watch or Watch()
        self._is_hung = False

    def view(self) -> PipelineView:
        """What is going on right now."""
        view, source, handoff = self._view, self._source, self._handoff
        if source is not None and handoff is not None:
            head, durable = source.head, handoff.durable
            view.durable, view.source_position = durable, head.position
            view.lag_bytes = max(0, head.position.order - durable.order) if durable is not None else 0
            oldest = handoff.oldest
            view.lag_seconds = max(0.0, (head.clock - oldest) / 1e6) if oldest is not None else 0.0
            if view.phase == "streaming" and durable is not None and not view.lag_bytes:
                self._has_recovered()
        view.stall = self._watch.stall
        return view

    def stop(self) -> None:
        """Ask the run to end at the next commit boundary; may be called from anywhere, a signal handler included."""
        self._stop.set()

    def run(self) -> None:
        """Run until the end.

        Raises:
            CdcError: the run cannot go on. What is transient was tried again before.
        """
        beside = [threading.Thread(target=self._accompany, args=(work,), daemon=True) for work in self.companions]
        for thread in beside:
            thread.start()
        try:
            self._run_until_the_end()
        finally:
            with self._errands:
                self._has_ended = True
                self._errands.notify_all()
            for thread in beside:
                thread.join(_END_WITHIN)
        if self._companion_failure is not None:
            raise self._companion_failure

    def _accompany(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # whatever ends a companion must end the run (D-20)
            if not self._has_ended:
                self._companion_failure = error
                self.stop()

    @property
    def is_running(self) -> bool:
        """Whether the run has not ended."""
        return not self._has_ended and not self._stop.is_set()

    @property
    def is_open(self) -> bool:
        """Whether it has its target open."""
        return self._stage is not None

    @property
    def copying(self) -> set[int]:
        """The tables, by identity, that are copied part by part."""
        stage = self._stage
        return stage.target.copying if stage is not None and isinstance(stage.target, Replaceable) else set()

    def rest(self, seconds: float) -> None:
        """Wait, but not beyond the end of the run."""
        self._stop.wait(seconds)

    def _run_until_the_end(self) -> None:
        waiting = wait_exponential_jitter(multiplier=0.5, max=_LONGEST_WAIT)

        def wait(state: RetryCallState) -> float:
            state.attempt_number -= self._progress_at
            delay = waiting(state)
            state.attempt_number += self._progress_at
            return delay

        with self._watch, self._excused_when_stopping():
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

    @contextmanager
    def _excused_when_stopping(self) -> Iterator[None]:
        """What the next run would try again just as well is no reason to end in an error (D-18)."""
        try:
            yield
        except CdcError as error:
            if not (error.retry and self._stop.is_set()):
                raise
            log.warning("%s It ends here, as asked; the next run goes on from the checkpoint.", error)

    def errand(self, work: Callable[[Stage], T], patience: float = 0.0) -> T:
        """Have something done on the applier thread, between two transactions, and wait for it.

        Args:
            work: done once more if the pipeline had to begin anew meanwhile and there is patience.
            patience: seconds to wait for a pipeline that is not following the log just now.

        Raises:
            Unavailable: the pipeline is not running.
            CdcError: what the work raised; if it left the target broken, the run tries again or ends with that, too.
        """
        while True:
            try:
                return self._errand_once(work, patience)
            except Stopped:
                if not patience or not self.is_running:
                    raise

    def _errand_once(self, work: Callable[[Stage], T], patience: float) -> T:
        answer: Future[T] = Future()

        def do() -> None:
            try:
                stage.finish_transaction()
                answer.set_result(work(stage))
            except BaseException as error:
                answer.set_exception(error)
                if stage.is_broken:
                    raise

        with self._errands:
            if not self._errands.wait_for(lambda: self._has_ended or self._follows(), patience) or self._has_ended:
                raise Unavailable("The pipeline is not following the log.", hint="Its own messages say why.")
            assert self._stage is not None
            assert self._handoff is not None
            stage = self._stage
            self._asked.add(answer)
            self._handoff.ask(do)
        try:
            return answer.result()
        finally:
            self._asked.discard(answer)

    def _follows(self) -> bool:
        return self._stage is not None and self._handoff is not None and self._view.phase == "streaming"

    def _let_go_of_errands(self) -> None:
        with self._errands:
            self._stage = None
            for answer in list(self._asked):
                if not answer.done():
                    answer.set_exception(Stopped())

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
        except CdcError:
            self.stop()
            thread.join()
            if not failures:
                raise
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
        self._view.is_red = isinstance(error, CdcError) and error.is_red
        self._watch.retries.doing = "it fails and is tried again"
        delay = state.next_action.sleep if state.next_action is not None else 0
        log.warning("%s Trying again in %.1f s.", error, delay)

    def _has_recovered(self) -> None:
        self._view.failure = self._watch.retries.doing = None
        self._view.is_red = False

    def _run_once(self) -> None:
        target = self._make_target()
        source = self._make_source()
        self._view.phase = "opening"
        try:
            with self._watch.target.at("opening the target"):
                faults.point("pipeline.before_open")
                checkpoint = target.open()
            with self._watch.source.at("opening the source"):
                faults.point("pipeline.between_opens")
                source.open(checkpoint)
            if self._until_caught_up and self._goal is None:
                self._goal = source.head.position
            for table, rows in source.estimates.items():
                self._view.tables.setdefault(table, TableView()).rows_estimated = rows
            durable = checkpoint.position if checkpoint else None
            handoff = Handoff(self._queue_bytes, durable, self._goal, self._watch.source.alive)
            self._handoff, self._source = handoff, source
            self._was_open = True
            with self._errands:
                self._stage = Stage(target, handoff, checkpoint, self._applied, self._watch.target)
            self._supervise(source, self._stage, handoff)
        finally:
            self._handoff = self._source = None
            self._let_go_of_errands()
            if not self._is_hung:
                self._close(source, target)

    def _close(self, source: Source, target: Target) -> None:
        try:
            with self._watch.source.at("closing the source"):
                source.close()
        finally:
            with self._watch.target.at("closing the target"):
                target.close()

    def _supervise(self, source: Source, stage: Stage, handoff: Handoff) -> None:
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
            threading.Thread(target=guarded(stage.run), name="applier", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            while not handoff.stopping and any(thread.is_alive() for thread in threads):
                if self._stop.wait(0.02) or self._has_arrived(source, handoff) or self._watch.is_over:
                    handoff.stop()
        except BaseException:  # somebody interrupts the thread that this runs on; the two do not know of it
            self.stop()
            handoff.stop()
            self._is_hung = True  # should he do so again
            self._wait_for(threads)
            self._is_hung = False
            raise
        self._wait_for(threads)
        if failures:
            # One that another try does not heal comes first: whoever lost his lease must not take it back (D-17).
            raise next((error for error in failures if not (isinstance(error, CdcError) and error.retry)), failures[0])

    def _wait_for(self, threads: list[threading.Thread]) -> None:
        """Until they have ended. Closing the target under one that is at work would roll back and let the next
        statement be a transaction of its own, with half of a segment in it.

        Raises:
            Stalled: one of them hangs, or has not ended soon enough after a stop was asked for.
        """
        asked = None
        while alive := [thread for thread in threads if thread.is_alive()]:
            if asked is None and self._stop.is_set():
                asked = time.monotonic()
            is_late = asked is not None and time.monotonic() - asked > _END_WITHIN
            if is_late or self._watch.is_over:
                self._is_hung = True
                raise Stalled(
                    str(self._watch.stall or f"The {alive[0].name} does not end."),
                    hint="What it had begun is rolled back with the end of the process; start again.",
                )
            alive[0].join(0.1)

    def _has_arrived(self, source: Source, handoff: Handoff) -> bool:
        at, goal = handoff.durable, self._goal
        if goal is None or at is None or at < goal or self._view.phase != "streaming":
            return False
        return handoff.idle and source.is_complete and not self.copying

    def _read(self, source: Source, handoff: Handoff) -> None:
        self._view.phase = "copying"
        for segment in self._watched(source.copy(handoff), "copying"):
            handoff.put(segment)
        handoff.drain()  # whoever asks a pipeline that follows finds the tables as they were copied
        if handoff.stopping:
            return
        with self._errands:
            self._view.phase = "streaming"
            self._errands.notify_all()
        for table in self._view.tables.values():
            table.state = "streaming"
        for segment in self._watched(source.stream(handoff), "reading the log"):
            handoff.put(segment)
        handoff.finish()

    def _watched(self, segments: Iterator[Segment], doing: str) -> Iterator[Segment]:
        """Segments as they come; what is done with them is not the reader's time."""
        while True:
            with self._watch.source.at(doing):
                segment = next(segments, None)
                faults.point("handoff.before_put")
            if segment is None:
                return
            yield segment

    def _applied(self, segment: Segment) -> None:
        self._count(segment)
        self._progress_at = self._try
        self._has_recovered()

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
                if table.state == "waiting":
                    table.state = "streaming"
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
            elif isinstance(step, Copied):
                view.tables.setdefault(step.schema.table, TableView()).state = "streaming"
        if len(segment.transactions):
            view.transactions_applied += len(segment.transactions) - (segment.checkpoint is None)
