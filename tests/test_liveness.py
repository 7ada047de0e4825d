"""E-01: a thread that has something to do and does not move on is found out; one that waits, or is slow, is not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from cdc.engine.liveness import TARGET_FACTOR, Stall, Watch
from cdc.engine.pipeline import Pipeline
from cdc.errors import Stalled, Unavailable
from cdc.model.segment import Segment
from cdc.service.health import stall_of
from cdc.source import Link
from tests.test_pipeline import Script, ScriptTarget, segment


def watch(over: list[Stall]) -> Watch:
    return Watch(100, over.append)


def test_a_reader_that_gives_no_sign_is_unhealthy_then_given_up() -> None:
    over: list[Stall] = []
    looking = watch(over)
    with looking.source.at("reading"):
        looking.look(1)
        for seconds in range(1, 100):
            looking.look(1)
            assert (looking.stall is not None) == (seconds >= 50), seconds
            assert not looking.is_over
        looking.look(1)
        assert looking.is_over
        looking.look(1)
    assert [(stall.stage, stall.doing, stall.seconds) for stall in over] == [("reader", "reading", 100)]


def test_a_sign_of_life_is_enough() -> None:
    looking = watch([])
    with looking.source.at("reading"):
        for _ in range(1000):
            looking.look(49)
            looking.source.alive()
    assert looking.stall is None


def test_a_thread_that_waits_is_not_watched() -> None:
    """Waiting for the other side is no stall, and a stall is over once the thread goes on."""
    looking = watch([])
    for _ in range(1000):
        looking.look(10)
    assert looking.stall is None
    with looking.target.at("applying"):
        for _ in range(20):
            looking.look(10)
        assert looking.stall is not None
    looking.look(10)
    assert looking.stall is None
    assert not looking.is_over


def test_a_slow_target_has_more_time() -> None:
    over: list[Stall] = []
    looking = watch(over)
    with looking.target.at("applying"):
        looking.look(1)
        looking.look(100)
        assert looking.stall is not None
        looking.look(100 * TARGET_FACTOR - 101)
        assert not looking.is_over
        looking.look(1)
    assert [stall.stage for stall in over] == ["applier"]


def test_to_fail_for_long_is_unhealthy_and_goes_on() -> None:
    looking = watch([])
    looking.retries.doing = "again"
    for _ in range(1000):
        looking.look(10)
    assert looking.stall is not None
    assert not looking.is_over


def test_a_process_that_writes_no_status_is_hung() -> None:
    """E-01: it lives, by its PID, but the main thread of it does nothing, or all of it was stopped."""
    now = time.time()
    assert stall_of({"stall": None, "written_at": now - 5}) is None
    assert stall_of({}) is None
    own = {"stage": "reader", "doing": "x", "since": now, "seconds": 1.0}
    assert stall_of({"stall": own, "written_at": now}) == own
    hung = stall_of({"stall": None, "written_at": now - 60})
    assert hung is not None
    assert (hung["stage"], hung["since"]) == ("process", now - 60)


class Hanging(Script):
    """A script whose stream, or whose target, never comes back."""

    def __init__(self, *, reader: bool) -> None:
        super().__init__([segment(1)])
        self.reader = reader
        self.never = threading.Event()
        self.target_closed = 0

    def stream(self, link: Link) -> Iterator[Segment]:
        yield from super().stream(link)
        while not link.stopping and not self.reader:
            link.alive()
            time.sleep(0.001)
        if self.reader:
            self.never.wait()

    def target(self) -> ScriptTarget:
        return HangingTarget(self)


class HangingTarget(ScriptTarget):
    script: Hanging

    def apply(self, segment: Segment) -> None:
        super().apply(segment)
        if not self.script.reader:
            self.script.never.wait()

    def close(self) -> None:
        self.script.target_closed += 1


@pytest.mark.parametrize("reader", [True, False])
def test_a_run_with_a_thread_that_hangs_ends(reader: bool) -> None:
    """E-01, D-20: and nothing is closed under that thread, which may be at work after all."""
    script = Hanging(reader=reader)
    over: list[Stall] = []
    timeout = 2.0 if reader else 0.4  # a busy machine may keep a thread that lives from running for a while
    pipeline = Pipeline(script.source, script.target, queue_bytes=10, watch=Watch(timeout, over.append))
    with pytest.raises(Stalled, match="reader" if reader else "applier"):
        pipeline.run()
    assert [stall.stage for stall in over] == ["reader" if reader else "applier"]
    assert script.closed == script.target_closed == 0
    stall = pipeline.view().stall
    assert stall is not None
    assert stall.doing == ("reading the log" if reader else "applying")
    script.never.set()


def test_the_target_is_not_closed_while_it_is_applied_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """D-01, D-20: a failure of the reader waits for the statement at hand: rolled back under it, the next statement
    would be a transaction of its own."""
    monkeypatch.setattr("cdc.engine.pipeline._END_WITHIN", 0.01)
    monkeypatch.setattr(Pipeline, "_sleep", lambda *_: None)
    happened: list[str] = []
    begun = threading.Event()

    class Slow(ScriptTarget):
        def apply(self, segment: Segment) -> None:
            begun.set()
            time.sleep(0.5)
            happened.append("applied")

        def close(self) -> None:
            happened.append("closed")

    class Failing(Script):
        def target(self) -> ScriptTarget:
            return Slow(self)

        def stream(self, link: Link) -> Iterator[Segment]:
            self.streams.pop(0)
            yield segment(1)
            begun.wait()
            begun.clear()
            raise Unavailable("gone")

    script = Failing([], [])
    with pytest.raises(IndexError):  # there is no third stream
        script.pipeline().run()
    assert happened == ["applied", "closed", "applied", "closed", "closed"]
