"""The port: where it listens, what it costs those who do not ask for it, and that it answers whatever hangs."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cdc.engine.liveness import Watch
from cdc.engine.pipeline import Pipeline
from cdc.engine.views import PipelineView, PublicationView
from cdc.errors import SourceUnfit, Unavailable, UsageError
from cdc.model.position import Position
from cdc.service.address import Address
from cdc.service.notify import Notifier
from cdc.service.observed import ObservedPipeline, ObservedProcess
from cdc.service.service import Service
from cdc.service.web import WebServer, _Latest
from cdc.source import SourceStatus
from cdc.testing import MemoryTarget, ScriptedSource
from tests.test_commands import loaded_by


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:9464", "127.0.0.1", 9464),
        (":9464", "127.0.0.1", 9464),
        ("[::1]:9464", "::1", 9464),
        ("0.0.0.0:80", "0.0.0.0", 80),
        ("db-1.example:9464", "db-1.example", 9464),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)
    assert str(Address.parse(text)) == (text if host in text else f"{host}{text}")


@pytest.mark.parametrize("text", ["", "9464", "127.0.0.1", "::1:9464", "a b:1", "127.0.0.1:99999", "http://x:1", "x:"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="is not an address") as refused:
        Address.parse(text)
    assert "127.0.0.1:9464" in str(refused.value.hint)


def test_names_that_a_request_may_call_it() -> None:
    """At a loopback address those of this machine alone (DNS rebinding)."""
    assert set(Address.parse("[::1]:1").names) == {"localhost", "127.0.0.1", "[::1]"}
    assert set(Address.parse("127.0.0.5:1").names) == {"localhost", "127.0.0.1", "[::1]", "127.0.0.5"}
    assert Address.parse("0.0.0.0:1").names == ["*"]
    assert Address.parse("db-1.example:1").names == ["*"]


def test_an_address_that_is_taken_or_not_of_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"Nothing can listen at 127.0.0.1:{port}: .*in use"):
            Address("127.0.0.1", port).bind()
    with pytest.raises(UsageError, match=r"Nothing can listen at 192\.0\.2\.1:1"):  # RFC 5737: of nobody
        Address("192.0.2.1", 1).bind()


def test_nobody_pays_for_a_port_that_is_not_asked_for() -> None:
    """Start-up: the web server and the client of Prometheus are loaded by --listen alone."""
    loaded = loaded_by("run", "nonsense", "x.duckdb")
    assert "cdc.cli.run" in loaded
    assert not {"starlette", "uvicorn", "prometheus_client", "asyncio"} & loaded


class Hung(Pipeline):
    """A pipeline of which nothing can be learnt before it is let go."""

    def __init__(self, watch: Watch) -> None:
        def make() -> Any:
            raise AssertionError

        super().__init__(make, make, queue_bytes=1, watch=watch)
        self.goes_on = threading.Event()

    def view(self) -> PipelineView:
        self.goes_on.wait(20)
        return super().view()


@pytest.fixture
def web() -> Iterator[tuple[Hung, Watch, int]]:
    watch = Watch(10)
    pipeline, process = Hung(watch), ObservedProcess()
    observed = ObservedPipeline("postgresql://nowhere/shop", "jsonl:/nowhere", "shop", 60.0)
    observed.attach(pipeline)
    process.add(observed)
    listening = Address("127.0.0.1", 0).bind()
    port = listening.getsockname()[1]
    server = WebServer(process, Address("127.0.0.1", port), listening)
    server.start()
    yield pipeline, watch, port
    pipeline.goes_on.set()
    server.stop()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 1)


def asked(port: int, path: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    return connection


def test_a_hung_pipeline_holds_up_no_probe(web: tuple[Hung, Watch, int]) -> None:
    """E-01: /livez is green until the watch gives a stage up, and then red, whatever else waits for an answer."""
    pipeline, watch, port = web
    waiting = [asked(port, path) for path in ("/readyz", "/status.json", "/metrics", "/events") for _ in range(10)]
    assert asked(port, "/livez").getresponse().status == 200
    with watch.source.at("reading the log"):
        watch.look(1)
        watch.look(6)
        assert asked(port, "/livez").getresponse().status == 200
        watch.look(6)
        assert watch.is_over
        assert asked(port, "/livez").getresponse().status == 503
    pipeline.goes_on.set()
    assert [connection.getresponse().status for connection in waiting] == [503] * 10 + [200] * 30


def observed_pipeline(pipeline: Pipeline | None = None, name: str = "shop") -> ObservedPipeline:
    found = ObservedPipeline("postgresql://nowhere/shop", "jsonl:/nowhere/x.jsonl", name, 60.0)
    if pipeline is not None:
        found.attach(pipeline)
    return found


def following() -> Pipeline:
    """One that says that it follows."""
    pipeline = Pipeline(lambda: ScriptedSource([]), MemoryTarget, queue_bytes=1)
    view = pipeline.view()
    view.phase, view.durable = "streaming", Position(1, "1")
    return pipeline


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time as observers see it."""
    now = [1000.0]
    monkeypatch.setattr(
        "cdc.service.observed.time", SimpleNamespace(time=lambda: now[0], monotonic=lambda: now[0], sleep=None)
    )
    return now


def test_looks_that_have_ended_do_not_look_healthy(clock: list[float]) -> None:
    """Whether the thread has died or hangs: samples and forecasts are old, and that is said."""
    observed = observed_pipeline(following())
    observed.look()
    observed._answered_at = clock[0]
    assert observed.report()["ready"]
    clock[0] += 35
    report = observed.report()
    assert (report["ready"], report["health"]) == (False, "red")
    assert report["problems"] == ["Nothing has looked at the pipeline for 35 s."]
    observed.look()
    assert observed.report()["ready"]


def test_a_source_that_nobody_asks_any_more_is_none_that_answers(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer becomes old, be it that the question fails in a way that nobody has foreseen, or that its thread died.
    Before a first copy there is no slot to be asked about."""

    class Broken:
        def source_status(self, *_: object) -> SourceStatus:
            if answers:
                return answers.pop()
            raise ZeroDivisionError

    monkeypatch.setattr("cdc.service.observed.source_module", lambda _: Broken())
    answers = [SourceStatus("slot", None, 0, False, {"safe_bytes": 5}, {})]
    pipeline = following()
    pipeline.view().phase = "copying"
    observed = observed_pipeline(pipeline)
    clock[0] += 600
    observed.look()
    assert observed.report()["problems"] == []
    pipeline.view().phase = "streaming"
    observed.ask()
    assert observed.report()["ready"]
    for _ in range(5):
        clock[0] += 10
        observed.look()
        with pytest.raises(ZeroDivisionError):
            observed.ask()
    report = observed.report()
    assert report["problems"] == ["The source cannot be asked: there was no answer for 50 s."]
    assert report["source"]["error"]


def test_one_look_that_fails_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it is, neither the looking ends nor the alerts of other pipelines."""
    service = Service(None, Notifier([]))
    broken, fine = (
        service.observe("journal:/a", "jsonl:/a", "a", 60.0),
        service.observe("journal:/b", "jsonl:/b", "b", 60.0),
    )
    looked: list[str] = []
    broken.look = broken.report = lambda: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    fine.look = lambda: looked.append("b")  # type: ignore[method-assign]
    service._asked = {broken, fine}
    service._look()
    service._alert()
    assert looked == ["b"]
    assert "b" in service._notifier._alerts


def test_a_pipeline_that_begins_again_is_not_well_before_it_goes_on() -> None:
    """O11: a feed that fails is tried again every few seconds, and each time is another pipeline."""
    first = following()
    observed = observed_pipeline(first)
    observed.look()
    observed._answered_at = time.monotonic()
    first.view().fail(SourceUnfit("It is unfit.", hint="Mend it."), is_red=True)
    first.view().phase = "stopped"
    assert observed.report()["problems"] == ["The last run has failed: It is unfit."]
    observed.attach(Pipeline(lambda: ScriptedSource([]), MemoryTarget, queue_bytes=1))
    report = observed.report()
    assert (report["phase"], report["problems"]) == ("opening", ["It fails: It is unfit."])
    assert report["unready"] == ["It fails: It is unfit. Mend it."]


def test_one_that_has_never_begun() -> None:
    """What it fails with is said in each moment of its tries, and also at its end."""
    pipeline = Pipeline(lambda: ScriptedSource([]), MemoryTarget, queue_bytes=1)
    observed, view = observed_pipeline(pipeline), pipeline.view()
    assert observed.report()["unready"] == ["The log is not followed yet."]
    view.fail(Unavailable("The line is cut.", hint="Mend it."), is_red=False)
    for view.phase in ("waiting", "opening"):
        assert observed.report()["problems"] == ["It cannot begin: The line is cut."]
    view.fail(SourceUnfit("It is unfit.", hint="Mend it."), is_red=True)
    view.phase = "stopped"
    assert observed.report()["problems"] == ["Nothing was ever applied.", "The last run has failed: It is unfit."]


def test_a_copy_that_is_not_renewed_any_more() -> None:
    """What makes it may hang without a word; while the log is not followed, that is said instead."""
    pipeline = following()
    observed, view = observed_pipeline(pipeline), pipeline.view()
    view.publication = PublicationView("copy.duckdb", 30.0, at=time.time() - 100)
    assert observed.report()["ready"]
    view.publication = PublicationView("copy.duckdb", 30.0, at=time.time() - 130)
    assert observed.report()["problems"] == ["copy.duckdb is not as new as it should be: It was renewed 130 s ago."]
    view.phase = "waiting"
    assert observed.report()["problems"] == []


def test_feeds_whose_targets_look_alike_are_two() -> None:
    """What is not shown of an address is what they differ in. Prometheus refuses all metrics if two have one name."""
    observed = observed_pipeline()
    targets = ("clickhouse://u:secret@h/a?cluster=x", "clickhouse://u:secret@h/a?cluster=y", "clickhouse://h/b")
    feeds = [observed.feed(target, "journal:/j") for target in (*targets, *targets)]
    assert feeds[:3] == feeds[3:]
    assert list(observed.feeds) == ["clickhouse://h/a", "clickhouse://h/a (2)", "clickhouse://h/b"]
    assert [feed.target for feed in feeds[:3]] == list(observed.feeds)


def test_a_process_without_a_pipeline_is_not_ready() -> None:
    """It answers from its first moment on, before it has made any."""
    document = ObservedProcess().document()
    assert (document["ready"], document["unready"]) == (False, ["No pipeline has begun."])


def test_one_document_for_all_who_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser with many tabs costs the pipeline no more than one does."""
    process, made = ObservedProcess(), []
    monkeypatch.setattr(process, "document", lambda: made.append(1) or {})
    latest = _Latest(process)

    async def listen() -> list[bytes]:
        return await asyncio.gather(*(latest.document() for _ in range(50)))

    assert asyncio.run(listen()) == [b"{}"] * 50
    assert len(made) == 1


def test_so_many_listen_at_a_time(web: tuple[Hung, Watch, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a connection that does not end; probes and metrics are answered all the same."""
    pipeline, _, port = web
    pipeline.goes_on.set()
    monkeypatch.setattr("cdc.service.web._MOST_LISTENERS", 1)
    first = asked(port, "/events")
    assert first.getresponse().readline().startswith(b"data: ")
    assert asked(port, "/events").getresponse().status == 503
    assert asked(port, "/metrics").getresponse().status == 200
    first.close()
