"""The port: where it listens, what it costs those who do not ask for it, and that it answers whatever hangs."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cdc.engine.liveness import Watch
from cdc.engine.pipeline import Pipeline
from cdc.engine.views import PipelineView
from cdc.errors import UsageError
from cdc.service.address import Address
from cdc.service.observed import ObservedPipeline, ObservedProcess
from cdc.service.web import WebServer
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
