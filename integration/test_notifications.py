"""Alerts reach people: real requests to a real server, a real command, and a run that ends with 3."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cdc.demo.server import PrivatePostgres
from cdc.errors import EXIT_OPERATOR, EXIT_USAGE, UsageError
from cdc.options import Options
from cdc.runs import open_pipeline
from cdc.service import alerts, notify, observed, service
from cdc.service.alerts import Alert, Event
from cdc.service.notify import AppriseService, Command, Notifier
from cdc.service.service import Service
from integration.conftest import Database
from integration.processes import cdc
from integration.watched import wait_for

ALERT = Alert(Event.HELD, "shop", "public.<b>orders</b> is held.", ["public.<b>orders</b>"])


class Receiver:
    """A server that takes what webhooks send.

    Attributes:
        got: the JSON that has come.
        goes_on: a request is answered once this is set.
    """

    def __init__(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                receiver.goes_on.wait(60)
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.got: list[dict[str, Any]] = []
        self.status = 200
        self.goes_on = threading.Event()
        self.goes_on.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"json://somebody:s3cret@127.0.0.1:{self._server.server_address[1]}/hooks/t0ken"

    def close(self) -> None:
        self.goes_on.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def writes(file: Path) -> str:
    """A command that writes what it gets into a file."""
    script = file.with_suffix(".py")
    script.write_text(
        "import json, os, sys\n"
        "got = {name: os.environ[name] for name in ('CDC_EVENT', 'CDC_PIPELINE', 'CDC_MESSAGE')}\n"
        f"open({str(file)!r}, 'a').write(json.dumps([got, json.load(sys.stdin)]) + '\\n')\n"
    )
    return f"{sys.executable} '{script}'"


def quick(url: str) -> AppriseService:
    """A service without the five seconds that apprise lets pass between two messages."""
    service = AppriseService(url, 1)
    service._service.request_rate_per_sec = 0
    return service


def test_a_service_and_a_command_get_an_alert(receiver: Receiver, tmp_path: Path) -> None:
    """Both have all of it; the name of a table is text, whatever it looks like."""
    file = tmp_path / "got"
    notifier = Notifier([AppriseService(receiver.url, 1), Command(writes(file))])
    notifier.send(ALERT)
    notifier.close()

    (message,) = receiver.got
    assert message["title"] == "cdc shop: held"
    assert message["message"] == ALERT.message
    assert message["type"] == "warning"
    environment, alert = json.loads(file.read_text())
    assert environment == {"CDC_EVENT": "held", "CDC_PIPELINE": "shop", "CDC_MESSAGE": ALERT.message}
    assert alert == {
        "event": "held",
        "pipeline": "shop",
        "message": ALERT.message,
        "tables": ALERT.tables,
        "at": pytest.approx(ALERT.at),
    }


def test_a_receiver_that_hangs_keeps_nobody_waiting(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the pipeline, nor the other receivers, nor the end of the process waits for it."""
    receiver.goes_on.clear()
    file = tmp_path / "got"
    notifier = Notifier([quick(receiver.url), Command(writes(file))])
    for _ in range(3):
        notifier.send(ALERT)
    wait_for(lambda: file.exists() and len(file.read_text().splitlines()) == 3, "the command has all three")

    assert len(receiver.got) <= 1, "the one that hangs has not been asked again meanwhile"
    notifier.close(0.1)
    assert "has not taken its alerts before the end" in caplog.text
    receiver.goes_on.set()
    notifier.close()


def test_what_fails_is_tried_again_and_says_nothing_secret(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E-03: a URL has passwords in it, also in its path, and so neither it nor a part of it is in a log."""
    monkeypatch.setattr(notify, "_AGAIN_AFTER", (0.01, 0.01))
    caplog.set_level(logging.DEBUG)
    receiver.status = 500
    notifier = Notifier([quick(receiver.url)])
    notifier.send(ALERT)
    wait_for(lambda: len(receiver.got) == 3, "it is tried three times")
    notifier.close()

    assert len(receiver.got) == 3
    said = [record.getMessage() for record in caplog.records if record.name.startswith("cdc")]
    assert said == ["The alert 'held' was not sent to JSON (URL number 1 of --notify): it did not take it."] * 3
    assert not any(word in "\n".join(said) for word in ("s3cret", "t0ken", "somebody", "127.0.0.1"))


@pytest.mark.parametrize(
    ("command", "trouble"),
    [
        ("sh -c 'exit 3'", "it ended with 3"),
        ("sh -c 'kill -9 $$'", "it ended with -9"),
        ("cat", None),
        ("true", None),  # does not read what it gets
    ],
)
def test_the_end_of_a_command_says_whether_it_took_the_alert(command: str, trouble: str | None) -> None:
    """Its failure is a line in the log; there is no shell in between."""
    assert Command(command).send(ALERT) == trouble


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """Otherwise each alert would leave a process behind."""
    file = tmp_path / "pid"
    trouble = Command(f"sh -c 'sleep 60 & echo $! > {file}; wait'", seconds=1).send(ALERT)

    assert trouble == "it took longer than 1 s"
    child = int(file.read_text())
    wait_for(lambda: not _lives(child), "it is killed")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.parametrize(
    ("url", "says"),
    [("nothing://s3cret@x", "URL number 1 of --notify (nothing://...) is"), ("s3cret", "URL number 1 of --notify is")],
)
def test_a_url_of_no_service_is_refused_without_being_shown(url: str, says: str) -> None:
    """E-03."""
    with pytest.raises(UsageError) as error:
        AppriseService(url, 1)

    assert says in error.value.message
    assert "s3cret" not in error.value.message


def test_without_the_library_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra, and not everybody has it."""
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(UsageError) as error:
        AppriseService("json://127.0.0.1", 1)

    assert "pip install 'apprise>=2.0'" in (error.value.hint or "")


@pytest.mark.parametrize("command", ["", "sh -c 'exit", "/nowhere/to/be/found --now"])
def test_a_command_that_cannot_run_is_refused_at_the_start(command: str, database: Database, tmp_path: Path) -> None:
    """An alert is the wrong moment to find that out; nothing was made on the source."""
    done = cdc("run", database.dsn, f"duckdb:{tmp_path / 'x.duckdb'}", "--notify-command", command)

    assert done.returncode == EXIT_USAGE, done.stderr
    assert "--notify-command" in done.stderr
    assert database.execute("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()") == []


def test_a_run_that_ends_with_3_sends_that_before(receiver: Receiver, database: Database, tmp_path: Path) -> None:
    """What is wrong is in the message, with its remedy; a supervisor does not start such a run again."""
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)")
    target, file = f"duckdb:{tmp_path / 'shop.duckdb'}", tmp_path / "got"
    assert cdc("run", database.dsn, target, "--until-caught-up").returncode == 0
    ((slot,),) = database.execute("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")
    database.execute(f"SELECT pg_drop_replication_slot('{slot}')")

    done = cdc(
        "run", database.dsn, target, "--notify-command", writes(file), CDC_NOTIFY=f"{receiver.url} {receiver.url}/2"
    )

    assert done.returncode == EXIT_OPERATOR, done.stderr
    assert [message["title"] for message in receiver.got] == ["cdc shop: stopped"] * 2
    assert str(slot) in receiver.got[0]["message"]
    (line,) = file.read_text().splitlines()
    environment, alert = json.loads(line)
    assert environment["CDC_EVENT"] == alert["event"] == "stopped"
    assert not any(secret in done.stderr for secret in ("s3cret", "t0ken"))


def test_an_outage_of_the_source_is_two_alerts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """O31: the pipeline tries again and again meanwhile. A person hears of it once, and once that it is over."""
    monkeypatch.setattr(alerts, "_LASTS", dict.fromkeys(Event, 2.0))
    monkeypatch.setattr(alerts, "_WELL_FOR", 2.0)
    monkeypatch.setattr(service, "_ALERT_EVERY", 1.0)
    monkeypatch.setattr(observed, "ASK_EVERY", 1.0)
    monkeypatch.setattr("cdc.engine.pipeline._LONGEST_WAIT", 0.5)
    file = tmp_path / "got"

    def events() -> list[str]:
        return [json.loads(line)[0]["CDC_EVENT"] for line in file.read_text().splitlines()] if file.exists() else []

    with PrivatePostgres(18) as server:
        dsn, target = server.create_database("shop"), f"duckdb:{tmp_path / 'shop.duckdb'}"
        server.execute("CREATE TABLE orders (id int PRIMARY KEY)", "shop")
        notifier = Notifier([Command(writes(file))])
        with Service(None, notifier) as looks:
            pipeline = open_pipeline(dsn, target, Options("shop"))
            looks.observe(dsn, target, "shop", 300.0).attach(pipeline)
            thread = threading.Thread(target=pipeline.run)
            thread.start()
            wait_for(lambda: pipeline.view().phase == "streaming", "the log is followed")
            server.stop()
            wait_for(lambda: events() == ["unhealthy"], "the source is gone")
            server.start()
            wait_for(lambda: events() == ["unhealthy", "recovered"], "the source is back")
            pipeline.stop()
            thread.join()

    assert "The source cannot be asked" in json.loads(file.read_text().splitlines()[0])[1]["message"]
