"""Supervision: whatever ends a thread ends the run, and what is transient is tried again."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cdc.engine.handoff import Handoff
from cdc.engine.pipeline import Pipeline
from cdc.engine.stage import Stage
from cdc.engine.views import PipelineView
from cdc.errors import HalfWritten, InvariantError, SlotBusy, SourceUnfit, TablesHeld, TargetBusy, Unavailable
from cdc.journal.folder import Folder
from cdc.journal.target import JournalTarget
from cdc.journal.writer import Writer
from cdc.model.change import Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableName
from cdc.model.segment import Segment
from cdc.model.standing import Standing, State
from cdc.source import Head, Link
from cdc.target import TargetSettings


def at(order: int) -> Position:
    return Position(order, str(order))


def segment(order: int, size: int = 1) -> Segment:
    return Segment([], Transactions.none(), Checkpoint(at(order), ""), size)


class Script:
    """A source and a target that do what a test says."""

    def __init__(self, *streams: list[Segment | BaseException], apply: BaseException | None = None) -> None:
        self.streams, self.fail_apply = list(streams), apply
        self.opened = self.closed = 0
        self.applied: list[int] = []

    head = Head(at(1000), 0)
    estimates: Mapping[TableName, int] = {}
    followed: Mapping[int, TableName] = {}
    apart: Mapping[TableName, Standing] = {}
    is_complete = True

    def source(self) -> Script:
        return self

    def target(self) -> ScriptTarget:
        return ScriptTarget(self)

    def open(self, resume: Checkpoint | None) -> None:
        self.opened += 1

    def copy(self, link: Link) -> Iterator[Segment]:
        yield from ()

    def stream(self, link: Link) -> Iterator[Segment]:
        for step in self.streams.pop(0):
            if isinstance(step, BaseException):
                raise step
            yield step

    def close(self) -> None:
        self.closed += 1

    def pipeline(self) -> Pipeline:
        return Pipeline(self.source, self.target, queue_bytes=10)


class ScriptTarget:
    def __init__(self, script: Script) -> None:
        self.script = script

    def open(self) -> Checkpoint | None:
        return None

    def apply(self, segment: Segment) -> None:
        if self.script.fail_apply is not None:
            raise self.script.fail_apply
        assert segment.checkpoint is not None
        self.script.applied.append(segment.checkpoint.position.order)

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipeline, "_sleep", lambda *_: None)


def test_a_thread_that_fails_ends_the_run() -> None:
    """D-20: on either side, with its own error, and both ends are closed."""
    for script in (
        Script([segment(1), RuntimeError("reader")]),
        Script([segment(1)], apply=RuntimeError("applier")),
    ):
        with pytest.raises(RuntimeError, match=r"reader|applier"):
            script.pipeline().run()
        assert script.opened == script.closed == 1


def test_what_is_transient_is_tried_again_after_a_first_success() -> None:
    """E-11."""
    script = Script([segment(1), Unavailable("gone")], [Unavailable("gone")], [segment(2)])
    script.pipeline().run()
    assert script.opened == 3
    assert script.applied[-1] == 2


def test_at_a_first_start_a_failure_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """E-11, E-12: it may be a typing error in the DSN."""
    script = Script()

    def refuse(*_: object) -> None:
        script.opened += 1
        raise Unavailable("refused")

    monkeypatch.setattr(script, "open", refuse)
    with pytest.raises(Unavailable):
        script.pipeline().run()
    assert script.opened == 1


def test_who_only_looks_at_a_target_keeps_no_run_from_beginning(tmp_path: Path) -> None:
    """O33: `cdc status` has a target open for a moment, whatever kind it is; who has it open for longer is a writer."""
    folder = Folder(tmp_path / "j")
    settings = TargetSettings("cdc", "postgresql", 0)
    Writer(folder).open().close()
    script = Script([])
    pipeline = Pipeline(script.source, lambda: JournalTarget(folder, settings), queue_bytes=10)
    with folder.lock.open("rb") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        release = threading.Timer(0.3, fcntl.flock, (looked_at, fcntl.LOCK_UN))
        release.start()
        pipeline.run()
        release.join()
        assert script.opened == 1
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        with pytest.raises(TargetBusy):
            Pipeline(script.source, lambda: JournalTarget(folder, settings), queue_bytes=10).run()


def test_a_busy_slot_is_waited_for_a_bounded_time() -> None:
    """A-10."""
    script = Script(*[[SlotBusy("busy")] for _ in range(50)])
    with pytest.raises(SlotBusy):
        script.pipeline().run()
    assert script.opened == 6


def test_a_lost_connection_is_no_error_of_a_run_that_is_asked_to_end() -> None:
    """D-18, E-11: one that would be tried again otherwise; a failure that needs a person is reported at any time."""
    for failure, is_reported in ((Unavailable("gone"), False), (InvariantError("no"), True)):
        script = Script()
        pipeline = script.pipeline()

        def stream(_: Link, pipeline: Pipeline = pipeline, failure: BaseException = failure) -> Iterator[Segment]:
            yield segment(1)
            pipeline.stop()
            raise failure

        script.stream = stream  # type: ignore[method-assign]
        with pytest.raises(InvariantError) if is_reported else nullcontext():
            pipeline.run()
        assert script.opened == script.closed == 1
        assert pipeline.view().phase == "stopped" or is_reported


def test_what_needs_a_person_is_not_tried_again() -> None:
    """D-15, E-11."""
    script = Script([segment(1), InvariantError("no")], [segment(2)])
    with pytest.raises(InvariantError):
        script.pipeline().run()
    assert script.opened == 1


def test_it_follows_once_the_copy_is_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """C-04: a question to a pipeline that follows finds the tables as they were copied, not a target without tables."""
    script = Script([segment(2)])
    monkeypatch.setattr(script, "copy", lambda _: iter([segment(1)]))
    applying, may_go_on = threading.Event(), threading.Event()

    def apply(_: ScriptTarget, applied: Segment) -> None:
        applying.set()
        assert may_go_on.wait(10)
        script.applied.append(applied.checkpoint.position.order)  # type: ignore[union-attr]

    monkeypatch.setattr(ScriptTarget, "apply", apply)
    pipeline = script.pipeline()

    def ask(thread: threading.Thread) -> None:
        assert applying.wait(10)
        with pytest.raises(Unavailable, match="not following"):
            pipeline.errand(lambda _: None, patience=0.1)
        assert pipeline.view().phase == "copying"
        may_go_on.set()
        thread.join(10)

    pipeline.run_beside(ask)
    assert script.applied == [1, 2]


@pytest.mark.parametrize("interrupts", [1, 2])
def test_an_interrupt_waits_for_what_is_at_work(monkeypatch: pytest.MonkeyPatch, interrupts: int) -> None:
    """D-18: Ctrl-C in a program of Python: nothing is closed under a segment that is at work."""
    script = Script([segment(1), segment(2), segment(3)])
    pipeline = script.pipeline()
    at_work, go_on, interrupted = threading.Event(), threading.Event(), threading.Event()
    said: list[str] = []

    def apply(self: ScriptTarget, segment: Segment) -> None:
        assert segment.checkpoint is not None
        at_work.set()
        assert go_on.wait(10)
        said.append(f"applied {segment.checkpoint.position}")

    def interrupt(seconds: float) -> bool:
        assert at_work.wait(10)
        raise KeyboardInterrupt

    join = threading.Thread.join
    left = [interrupts - 1]

    def joined(self: threading.Thread, seconds: float | None = None) -> None:
        if self.name == "applier" and left[0]:
            left[0] -= 1
            raise KeyboardInterrupt
        interrupted.set()
        join(self, seconds)

    monkeypatch.setattr(ScriptTarget, "apply", apply)
    monkeypatch.setattr(ScriptTarget, "close", lambda self: said.append("closed"))
    monkeypatch.setattr(pipeline._stop, "wait", interrupt)
    monkeypatch.setattr(threading.Thread, "join", joined)
    end = threading.Thread(target=lambda: interrupted.wait(10) and go_on.set())
    end.start()
    with pytest.raises(KeyboardInterrupt):
        pipeline.run()
    interrupted.set()
    join(end)
    assert said == ["applied 1", "closed"] if interrupts == 1 else "closed" not in said


def test_the_handoff_is_bounded() -> None:
    """D-13: a full queue pauses the source, and what is durable is known only once it is applied."""
    handoff = Handoff(10)
    handoff.put(segment(1, size=6))
    assert not handoff.paused
    assert not handoff.idle
    handoff.put(segment(2, size=6))
    assert handoff.paused
    blocked = threading.Thread(target=handoff.put, args=(segment(3, size=1),), daemon=True)
    blocked.start()
    blocked.join(0.05)
    assert blocked.is_alive()
    taken = handoff.take()
    assert taken is not None
    assert handoff.durable is None
    assert not handoff.idle
    handoff.applied(taken)
    assert handoff.durable == at(1)
    blocked.join(5)
    assert not blocked.is_alive()
    handoff.finish()
    for _ in range(2):
        left = handoff.take()
        assert left is not None
        handoff.applied(left)
    assert handoff.take() is None
    assert handoff.idle
    assert handoff.durable == at(3)


def test_small_segments_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    """O50: after each one the applier counts as busy until the process has computed no more than its share of the time,
    whichever thread it was; unless the run has a goal."""
    now, computed = [100.0], [50.0]
    clocks = SimpleNamespace(monotonic=lambda: now[0], process_time=lambda: computed[0])
    monkeypatch.setattr("cdc.engine.handoff.time", clocks)

    def applied(handoff: Handoff, order: int, took: float, cpu: float) -> None:
        handoff.put(segment(order))
        taken = handoff.take()
        assert isinstance(taken, Segment)
        now[0] += took
        computed[0] += cpu
        handoff.applied(taken)

    handoff = Handoff(10, share=0.2)
    applied(handoff, 1, took=0.010, cpu=0.012)
    assert handoff.rest == pytest.approx(0.050)
    assert not handoff.idle
    now[0] += 0.051
    assert handoff.idle
    applied(handoff, 2, took=0.020, cpu=0.002)  # it waited for a disk
    assert handoff.idle
    applied(handoff, 3, took=3.0, cpu=3.0)
    assert handoff.rest == pytest.approx(0.2)  # and no longer
    aimed = Handoff(10, goal=at(9), share=0.2)
    applied(aimed, 1, took=0.010, cpu=0.010)
    assert aimed.idle
    whole = Handoff(10)
    applied(whole, 1, took=0.010, cpu=0.009)
    assert whole.idle


def test_commits_are_so_far_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """O50: where each leaves something behind. Neither a goal, nor somebody who waits for a place, waits for that, nor
    does the rest of a transaction that is there in part."""
    now = [100.0]
    clocks = SimpleNamespace(monotonic=lambda: now[0], process_time=lambda: 0.0)
    monkeypatch.setattr("cdc.engine.handoff.time", clocks)
    handoff = Handoff(10, share=0.2, every=10)
    assert handoff.idle
    handoff.put(replace(segment(1), checkpoint=None))
    handoff.put(segment(2))
    for rests in (0.0, 10 - 4):
        taken = handoff.take()
        assert isinstance(taken, Segment)
        now[0] += 4
        handoff.applied(taken)
        assert handoff.rest == rests
    handoff.seek(at(9))
    assert handoff.idle
    handoff.seek(None)
    assert not handoff.idle
    now[0] += 6.1
    assert handoff.idle


def test_stopping_lets_everybody_go() -> None:
    handoff = Handoff(1)
    handoff.put(segment(1))
    blocked = threading.Thread(target=handoff.put, args=(segment(2),), daemon=True)
    blocked.start()
    handoff.stop()
    blocked.join(5)
    assert not blocked.is_alive()
    assert handoff.take() is None


class Everything:
    """A place that sees all transactions."""

    is_exact = True
    until = at(0)

    def sees(self, transactions: Transactions) -> np.ndarray:
        return np.ones(len(transactions), dtype=np.int8)


def test_an_errand_that_leaves_a_target_half_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """O3, O4: the errand fails, nothing more is applied to that target, and the run goes on with it opened again."""
    script = Script()

    def stream(link: Link) -> Iterator[Segment]:
        number = script.opened * 10
        while not link.stopping:
            if not link.paused:
                number += 1
                yield segment(number)
            time.sleep(0.001)

    def work(stage: Stage) -> None:
        nonlocal broken
        with stage.places(Everything()) as places:
            for _ in places:
                broken = list(script.applied)
                raise HalfWritten("It failed in the middle.")

    broken: list[int] = []
    seen: list[int] = []
    monkeypatch.setattr(script, "stream", stream)
    pipeline = script.pipeline()

    def meanwhile(_: threading.Thread) -> None:
        with pytest.raises(HalfWritten):
            pipeline.errand(work, patience=10)
        pipeline.errand(lambda stage: seen.append(stage.is_broken), patience=10)

    pipeline.run_beside(meanwhile)
    assert seen == [False]
    assert script.opened == 2
    assert script.applied[: len(broken)] == broken
    assert all(order > 20 for order in script.applied[len(broken) :])


def test_who_watches_a_run_does_not_turn_its_end_into_one_that_was_asked_for() -> None:
    """A run that was to catch up and holds a table fails, though who watches it ends as soon as it has stopped."""
    script = Script([segment(1000)])
    script.apart = {TableName("shop", "t"): Standing(State.HELD, "its rows are odd")}
    pipeline = Pipeline(script.source, script.target, queue_bytes=10, until_caught_up=True)
    pipeline.companions.append(lambda: time.sleep(0.3))  # takes a moment to end

    def watch(_: threading.Thread) -> None:
        while pipeline.view().phase != "stopped":
            time.sleep(0.001)

    with pytest.raises(TablesHeld, match=r"shop\.t: its rows are odd"):
        pipeline.run_beside(watch)


def test_a_table_that_is_gone_from_the_source_is_gone_from_the_view() -> None:
    """Names come and go over the years. None of them may stay as one that is followed, or as a label of a metric."""
    a, b, c = (TableName("public", name) for name in "abc")
    seen: list[set[TableName]] = []

    class Renamed(Script):
        followed: Mapping[int, TableName] = {1: a, 2: b}
        estimates: Mapping[TableName, int] = {a: 1, b: 1}

        def stream(self, link: Link) -> Iterator[Segment]:
            del link
            seen.append(set(pipeline.view().tables))
            self.followed = {1: c}
            self.apart = {c: Standing(State.HELD, "It has no key.")}
            seen.append(set(pipeline.view().tables))
            yield segment(1)

    pipeline = Renamed([]).pipeline()
    pipeline.run()
    assert seen == [{a, b}, {c}]


def test_a_table_is_counted_while_somebody_looks() -> None:
    """What a look finds there stays: the applier may have begun to count."""
    view, table = PipelineView(phase="streaming"), TableName("public", "t")
    counted = view.table(table)
    view.see({table: Standing(State.HELD, "It has no key.")})
    assert view.tables[table] is counted
    assert counted.state is State.HELD


def test_one_that_takes_the_place_of_another_fails_until_it_goes_on() -> None:
    """O11, O13: between two tries, a failure is not over and the time since the log was followed goes on."""

    class Failing(Script):
        def stream(self, link: Link) -> Iterator[Segment]:
            yield segment(1)
            while link.durable != at(1):
                time.sleep(0.001)
            before.view()
            raise SourceUnfit("It is unfit.")

    before = Failing().pipeline()
    with pytest.raises(SourceUnfit):
        before.run()
    after = Script([segment(2)]).pipeline()
    after.come_after(before)
    view = after.view()
    assert (view.failure, view.is_red, view.phase) == ("It is unfit.", True, "opening")
    assert view.durable == at(1)
    assert view.lag_seconds > 0
    after.run()
    assert after.view().failure is None
