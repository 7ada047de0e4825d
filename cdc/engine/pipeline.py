"""A pipeline: one source into one target, on a reader and an applier thread that this one supervises."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, retry_if_exception_type, stop_after_delay, wait_fixed
from tenacity.wait import wait_exponential_jitter

from cdc import faults
from cdc.engine.handoff import Handoff
from cdc.engine.liveness import Watch
from cdc.engine.stage import Stage, Stopped
from cdc.engine.views import PipelineView
from cdc.errors import (
    CdcError,
    CheckpointUnreadable,
    NoTables,
    OtherPipeline,
    RowDrift,
    SlotBusy,
    SourceBehind,
    Stalled,
    TableSetApart,
    TablesHeld,
    TargetBusy,
    Unavailable,
    UsageError,
)
from cdc.files.disk import no_system_errors
from cdc.logs import Thread, of_pipeline
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableName
from cdc.model.segment import Evolve, Reset, Segment
from cdc.model.selection import Selection
from cdc.model.standing import Standing, State, Suspicion
from cdc.source import Source
from cdc.target import Choosy, Comparable, Placed, Replaceable, Target

log = logging.getLogger(__name__)

T = TypeVar("T")

_SLOT_BUSY_TRIES = 6  # the walsender of a process that was just killed lingers for a moment
_LOOKED_AT_FOR = 1.5  # seconds for which somebody who only looks, as `cdc status` does, may have a target open
_LONGEST_WAIT = 30.0  # seconds between tries
_PLACED_EVERY = 1.0  # seconds between looks whether the target is still where it was, though nothing is written (O9)
_END_WITHIN = 30.0  # seconds for the threads to end when asked to (D-18)


class Pipeline:
    """Copies, then follows, until it is stopped, has caught up, or cannot go on.

    Args:
        make_source, make_target: called once per try: after a failure both are opened afresh and the target says
            where to go on.
        queue_bytes: bound of the hand-off between the two.
        live_share: of a core, that the process may take while small segments are followed live: they gather meanwhile.
        every: seconds between the beginnings of two commits of small segments, at least.
        holds_tables: a failure that concerns one table holds that table; otherwise it ends the run.
        waits_for_tables: a source that lacks the tables is looked at again and again; otherwise that ends the run.
        until_caught_up: end once everything is applied that the source had when the run began.
        name: of the pipeline, in its log lines.
        watch: notices when a side does not move on; `run` then raises as soon as it can.
    """

    def __init__(
        self,
        make_source: Callable[[], Source],
        make_target: Callable[[], Target],
        *,
        queue_bytes: int,
        live_share: float = 1.0,
        every: float = 0.0,
        until_caught_up: bool = False,
        holds_tables: bool = True,
        waits_for_tables: bool = False,
        name: str = "",
        watch: Watch | None = None,
    ) -> None:
        self._make_source = make_source
        self._make_target = make_target
        self._queue_bytes = queue_bytes
        self._live_share = live_share
        self._every = every
        self._until_caught_up = until_caught_up
        self._holds_tables = holds_tables
        self._waits_for_tables = waits_for_tables
        self._refused: dict[int, str] = {}  # tables that the target cannot take, and why, for the next try
        self._wanted: set[int] = set()  # tables to be copied again, whose copy has not begun
        self._set_apart_at: dict[int, Position | None] = {}  # where the target was when a table was set apart last
        self._doubted: dict[int, str] = {}  # tables to be marked as suspect when the target is open again
        self.heals = False  # a companion compares tables that are suspect, and those that got another shape
        self.resets: Counter[int] = Counter()  # how often the copy of each table has begun in this run
        self.evolved: set[int] = set()  # tables that got another shape and have not been compared since
        self.name = name
        self._goal: Position | None = None
        self._stop = threading.Event()
        self._over = threading.Event()  # the run has ended, or is asked to: nobody needs to rest any longer
        self._view = PipelineView()
        self._seeing = threading.Lock()
        self._followed: tuple[Source | None, list[TableName]] = (None, [])  # tables, by the source of the last look
        self._source: Source | None = None
        self._handoff: Handoff | None = None
        self._was_open = False
        self._followed_at: float | None = (
            None  # the last moment at which the log was followed, by a clock of this class
        )
        self._progress_at = 0
        self._try = 0
        self._stage: Stage | None = None
        self._asked: set[Future[Any]] = set()
        self._errands = threading.Condition()
        self._has_ended = False
        self._companion_failure: BaseException | None = None
        self.meant: Selection | None = None  # the tables that it is to follow, if that is known
        self.companions: list[Callable[[], None]] = []  # run on threads of their own while the pipeline does
        self._watch = watch or Watch()
        busy, shortly = retry_if_exception_type(TargetBusy), stop_after_delay(_LOOKED_AT_FOR)
        self._looked_at = Retrying(retry=busy, stop=shortly, wait=wait_fixed(0.05), reraise=True)
        self._is_hung = False

    def view(self) -> PipelineView:
        """What is going on right now."""
        view, source, handoff = self._view, self._source, self._handoff
        if source is not None and handoff is not None:
            head, durable = source.head, handoff.durable
            view.durable, view.source_position = durable, head.position
            # Before the first copy is complete the target is nowhere in the log.
            reached = durable.order if durable is not None else 0
            view.lag_bytes = max(0, head.position.order - reached) if reached else 0
            oldest = handoff.oldest
            view.lag_seconds = max(0.0, (head.clock - oldest) / 1e6) if oldest is not None else 0.0
            if view.phase == "streaming" and durable is not None and not view.lag_bytes:
                self._has_recovered()
            with self._seeing:  # several threads look, and what is known of tables must not go back
                view.see(self._standings(source), self._gone_from(source))
        now = time.monotonic()
        if view.phase == "streaming":
            self._followed_at = now
        elif self._followed_at is not None and view.phase != "stopped":
            view.lag_seconds = max(view.lag_seconds, now - self._followed_at)
        view.stall = self._watch.stall
        return view

    def _gone_from(self, source: Source) -> set[TableName]:
        """The tables that a source followed when somebody looked last, and does not follow any more."""
        seen_of, before = self._followed
        names = list(source.followed.values())
        self._followed = source, names
        return set(before) - set(names) if seen_of is source and before != names else set()

    def _standings(self, source: Source) -> dict[TableName, Standing]:
        """How the tables stand that are not simply followed, by the source's state and the target's marks."""
        apart = dict(source.apart)
        copying, suspects = self.copying, self.suspects
        if marked := copying | suspects.keys():
            names = source.followed
            for identity in marked & names.keys():
                doubt = suspects.get(identity)
                mark = Standing(State.SUSPECT, doubt.reason) if doubt is not None else Standing(State.COPYING)
                apart.setdefault(names[identity], mark)
        return apart

    def standing(self, identity: int) -> Standing:
        """How a table stands, by its identity; while the pipeline begins again, as one that is being copied."""
        source = self._source
        if source is None or self._handoff is None or self._view.phase != "streaming":
            return Standing(State.COPYING)
        name = source.followed.get(identity)
        if name is not None and (apart := source.apart.get(name)) is not None:
            return apart
        if (suspicion := self.suspects.get(identity)) is not None:
            return Standing(State.SUSPECT, suspicion.reason)
        return Standing(State.COPYING if identity in self.copying else State.FOLLOWING)

    @property
    def held(self) -> dict[TableName, str]:
        """The tables that are held, each with the reason."""
        tables = list(self.view().tables.items())
        return {name: table.reason for name, table in tables if table.state is State.HELD}

    def come_after(self, before: Pipeline) -> None:
        """Take the place of a pipeline that has failed. Until this one has something applied, or has nothing to apply,
        it fails as that one did, and the time since the log was followed goes on (O11, O13)."""
        self._view.inherit(before._view)
        self._followed_at = before._followed_at

    def stop(self) -> None:
        """Ask the run to end at the next commit boundary; may be called from anywhere, a signal handler included."""
        self._stop.set()
        self._over.set()

    def run(self) -> None:
        """Run until the end.

        Raises:
            CdcError: the run cannot go on. What is transient was tried again before.
        """
        with of_pipeline(self.name):
            self._run_with_companions()

    def _run_with_companions(self) -> None:
        beside = [
            Thread(target=self._accompany, args=(work,), name="companion", daemon=True) for work in self.companions
        ]
        for thread in beside:
            thread.start()
        try:
            self._run_until_the_end()
        finally:
            with self._errands:
                self._has_ended = True
                self._over.set()
                self._errands.notify_all()
            for thread in beside:
                thread.join(_END_WITHIN)

    def _accompany(self, work: Callable[[], None]) -> None:
        try:
            with no_system_errors():
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
    def has_closed(self) -> bool:
        """Whether the run has ended as it should, and has closed its target."""
        return self._has_ended and self._was_open and not self._is_hung and self._view.failure is None

    @property
    def was_stopped(self) -> bool:
        """Whether somebody has asked for the end of the run."""
        return self._stop.is_set()

    @property
    def is_idle(self) -> bool:
        """Whether it follows the log and has applied everything that was read."""
        handoff = self._handoff
        return self._view.phase == "streaming" and handoff is not None and handoff.is_empty

    @property
    def is_open(self) -> bool:
        """Whether it has its target open."""
        return self._stage is not None

    @property
    def looks(self) -> int:
        """How often the watch has looked at its stages: as long as this grows, none of them was given up."""
        return self._watch.looks

    @property
    def is_given_up(self) -> bool:
        """Whether a stage hangs, which only the end of the process can solve."""
        return self._watch.is_over

    @property
    def copying(self) -> set[int]:
        """The tables, by identity, that are copied part by part."""
        stage = self._stage
        return stage.target.copying if stage is not None and isinstance(stage.target, Replaceable) else set()

    @property
    def suspects(self) -> dict[int, Suspicion]:
        """The tables, by identity, that have to be compared with the source."""
        stage = self._stage
        return dict(stage.target.suspects) if stage is not None and isinstance(stage.target, Comparable) else {}

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The target's checkpoint, if readers find there every table that is followed, with all of its rows; otherwise
        None."""
        stage = self._stage
        return stage.checkpoint if stage is not None and self._view.phase == "streaming" and not self.copying else None

    def hurry(self, seconds: float) -> None:
        """Have what the log has now applied soon, since somebody waits for it."""
        handoff = self._handoff
        if handoff is not None:
            handoff.hurry(seconds)

    def hold(self, identity: int, reason: str) -> None:
        """Have the source hold a table.

        Raises:
            CdcError: what concerns one table ends the run.
        """
        if not self._holds_tables:
            raise CdcError(reason)
        handoff = self._handoff
        if handoff is not None:
            handoff.refuse(identity, reason)

    def copy_again(self, identity: int) -> None:
        """Have the source take a table in as it is now, whatever it was held for, so that it is copied again."""
        self._wanted.add(identity)
        handoff = self._handoff
        if handoff is not None:
            handoff.want_again({identity})

    def is_unheard(self, identity: int) -> bool:
        """Whether the source does not know yet that a table is to be copied again, or not any more."""
        handoff = self._handoff
        return handoff is None or handoff.is_wanted(identity)

    def rest(self, seconds: float) -> None:
        """Wait, but not beyond the end of the run."""
        self._over.wait(max(0.0, seconds))

    def _run_until_the_end(self) -> None:
        waiting = wait_exponential_jitter(multiplier=0.5, max=_LONGEST_WAIT)

        def wait(state: RetryCallState) -> float:
            state.attempt_number -= self._progress_at
            delay = waiting(state)
            state.attempt_number += self._progress_at
            return delay

        try:
            with self._watch, self._excused_when_stopping():
                for attempt in Retrying(
                    retry=retry_if_exception(self._is_worth_retrying),
                    wait=wait,
                    sleep=self._sleep,
                    before_sleep=self._say_retry,
                    reraise=True,
                ):
                    with attempt:
                        self._try = self._view.tries = attempt.retry_state.attempt_number
                        if not self._stop.is_set():
                            with no_system_errors():
                                self._run_once()
            self._refuse_held()
            if self._companion_failure is not None:
                raise self._companion_failure
        except BaseException as error:
            self._view.fail(error, is_red=True)
            raise
        finally:
            self._view.phase = "stopped"  # last, since a program that sees it may stop what is left

    def _refuse_held(self) -> None:
        """A run that was to catch up has not done so where tables are held.

        Raises:
            TablesHeld: there are such tables, and nobody has asked for the end.
        """
        held = self.held
        if self._until_caught_up and held and not self._stop.is_set():
            listed = "; ".join(f"{name}: {reason}" for name, reason in sorted(held.items()))
            raise TablesHeld(
                f"Everything is applied except for {len(held)} held table{'s' * (len(held) > 1)}: {listed}",
                hint=f"Remove the reason, then: cdc resync SOURCE TARGET --tables {min(held)}",
            )

    @contextmanager
    def _excused_when_stopping(self) -> Iterator[None]:
        """What the next run would try again just as well is no reason to end in an error (D-18)."""
        try:
            yield
        except CdcError as error:
            if not (self._may_pass(error) and self._stop.is_set()):
                raise
            log.warning("%s It ends here, as asked; the next run goes on from the checkpoint.", error)

    def errand(self, work: Callable[[Stage], T], patience: float = 0.0) -> T:
        """Have something done on the applier thread, between two transactions, and wait for it.

        Args:
            work: done once more if the pipeline had to begin again meanwhile and there is patience.
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
                raise Unavailable(
                    "The pipeline is not following the log.",
                    hint="`cdc status SOURCE TARGET` shows why.",
                )
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

        thread = Thread(target=body, name="pipeline")
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
        """A first start ends at once, but for a slot that is about to be free: the error may be a mistake."""
        if not isinstance(error, CdcError) or not self._may_pass(error) or self._stop.is_set():
            return False
        if isinstance(error, NoTables):
            return True
        if isinstance(error, SlotBusy):
            return self._try - self._progress_at < _SLOT_BUSY_TRIES
        # A replica that is behind is no mistake, but a moment of a failover.
        return self._was_open or (isinstance(error, SourceBehind) and not self._until_caught_up)

    def _may_pass(self, error: CdcError) -> bool:
        return error.retry or (self._waits_for_tables and isinstance(error, NoTables))

    def _sleep(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _say_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        self._view.phase = "waiting"
        if error is not None:
            self._view.fail(error, is_red=isinstance(error, CdcError) and error.is_red)
        self._watch.retries.doing = "it fails and is tried again"
        delay = state.next_action.sleep if state.next_action is not None else 0
        log.warning("%s Trying again in %.1f s.", error, delay)

    def _has_recovered(self) -> None:
        self._watch.retries.doing = None
        self._view.recover()

    def _run_once(self) -> None:
        target = self._make_target()
        source = self._make_source()
        self._view.phase = "opening"
        try:
            checkpoint = self._open_both(source, target)
            if isinstance(target, Choosy):
                target.refuse(source.meant)
            if self._until_caught_up and self._goal is None:
                self._goal = source.head.position
            for table, rows in source.estimates.items():
                self._view.table(table).rows_estimated = rows
            durable = checkpoint.position if checkpoint else None
            alive = self._watch.source.alive
            pace = self._live_share, self._every
            handoff = Handoff(self._queue_bytes, durable, self._goal, alive, self._refused, *pace)
            self._refused = {}
            handoff.want_again(set(self._wanted))
            self._handoff, self._source = handoff, source
            self._was_open = True
            self._mark_doubted(target)
            with self._errands:
                self._stage = Stage(target, handoff, checkpoint, self._applied, self._watch.target)
            self._supervise(source, self._stage, handoff)
        except CdcError as error:
            if error.concerns is None or error.retry or not self._holds_tables:
                raise
            durable = self._handoff.durable if self._handoff is not None else None
            if error.concerns in self._set_apart_at and self._set_apart_at[error.concerns] == durable:
                raise  # that it was set apart has not helped
            self._set_apart_at[error.concerns] = durable
            raise self._set_apart(error, target, source) from error
        finally:
            if self._handoff is not None:
                self.view()  # the last one that sees the source
            self._handoff = self._source = None
            self._let_go_of_errands()
            if not self._is_hung:
                self._close(source, target)

    def _open_both(self, source: Source, target: Target) -> Checkpoint | None:
        """The target's checkpoint. What this fails with is for status to say as well, unless the target belongs to
        another pipeline, which may say there how it is."""
        with (
            self._known_unless(TargetBusy, CheckpointUnreadable, UsageError),
            self._watch.target.at("opening the target"),
        ):
            faults.point("pipeline.before_open")
            checkpoint = self._looked_at(target.open)
        self._view.has_target |= checkpoint is None
        with self._known_unless(CheckpointUnreadable, OtherPipeline), self._watch.source.at("opening the source"):
            faults.point("pipeline.between_opens")
            source.open(checkpoint)
        self._view.has_target = True
        return checkpoint

    @contextmanager
    def _known_unless(self, *foreign: type[CdcError]) -> Iterator[None]:
        """Whatever fails, it is this pipeline's own target, unless it fails so."""
        try:
            with no_system_errors():
                yield
        except CdcError as error:
            self._view.has_target |= not isinstance(error, foreign)
            raise

    def _set_apart(self, error: CdcError, target: Target, source: Source) -> CdcError:
        """What is tried next after a failure that concerns one table."""
        identity = error.concerns
        assert identity is not None
        name = source.followed.get(identity, identity)
        if isinstance(error, RowDrift) and isinstance(target, Comparable) and self.heals:
            self._doubted[identity] = error.message
            return TableSetApart(f"{error.message} {name} is compared with the source.")
        self._refused[identity] = error.message
        self._wanted.discard(identity)
        return TableSetApart(f"{name} is held, and the others go on: {error.message}", hint=error.hint)

    def _mark_doubted(self, target: Target) -> None:
        if isinstance(target, Comparable):
            for identity, reason in self._doubted.items():
                target.suspect(identity, reason)
        self._doubted.clear()

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
            Thread(target=guarded(lambda: self._read(source, handoff)), name="reader", daemon=True),
            Thread(target=guarded(stage.run), name="applier", daemon=True),
        ]
        for thread in threads:
            thread.start()
        placed = time.monotonic()
        try:
            while not handoff.stopping and any(thread.is_alive() for thread in threads):
                if self._stop.wait(0.02) or self._has_arrived(source, handoff) or self._watch.is_over:
                    handoff.stop()
                if isinstance(stage.target, Placed) and time.monotonic() - placed >= _PLACED_EVERY:
                    placed = time.monotonic()
                    guarded(stage.target.verify_place)()
        except BaseException:  # somebody interrupts the thread that this runs on; the two do not know of it
            self.stop()
            handoff.stop()
            self._is_hung = True  # should he do so again
            self._wait_for(threads)
            self._is_hung = False
            raise
        self._wait_for(threads)
        if failures:
            # One that another try does not heal comes first: a run that lost its lease must not take it back (D-17).
            raise next((error for error in failures if not (isinstance(error, CdcError) and error.retry)), failures[0])

    def _wait_for(self, threads: Sequence[threading.Thread]) -> None:
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
                    hint="Start again. What was not committed is rolled back.",
                )
            alive[0].join(0.1)

    def _is_unsettled(self, source: Source) -> bool:
        """Whether tables are being copied or compared, or are to be; those that are held are not waited for."""
        marked = self.copying | (set(self.suspects) if self.heals else set()) | self.evolved
        if not marked:
            return False
        apart, names = source.apart, source.followed
        held = {name for name, standing in apart.items() if standing.state is State.HELD}
        return any(names.get(identity) not in held for identity in marked & names.keys())

    def _has_arrived(self, source: Source, handoff: Handoff) -> bool:
        at, goal = handoff.durable, self._goal
        if goal is None or at is None or at < goal or self._view.phase != "streaming":
            return False
        # In this order: what the source hands over before it is complete is applied, and then its marks are there.
        return source.is_complete and handoff.is_empty and not self._is_unsettled(source)

    def _read(self, source: Source, handoff: Handoff) -> None:
        self._view.phase = "copying"
        for segment in self._watched(source.copy(handoff), "copying"):
            handoff.drain()  # one is made while one is applied: a third would only take memory, since they are large
            handoff.put(segment)
        handoff.drain()  # a request to a pipeline that follows finds the tables as they were copied
        if handoff.stopping:
            return
        with self._errands:
            self._view.phase = "streaming"
            self._errands.notify_all()
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

    def _applied(self, segment: Segment, seconds: float) -> None:
        self._view.count(segment, seconds)
        is_compared = self.heals and self._stage is not None and isinstance(self._stage.target, Comparable)
        for step in segment.steps:
            if isinstance(step, Reset):
                self.resets[step.schema.identity] += 1
                self._wanted.discard(step.schema.identity)
            elif isinstance(step, Evolve) and step.old.columns != step.new.columns and is_compared:
                self.evolved.add(step.new.identity)
        self._progress_at = self._try
        self._has_recovered()
