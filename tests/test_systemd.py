"""What a service manager hears of several pipelines in one process; of one it is in integration/test_systemd.py."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc.cli.systemd import Manager, Report, reported
from cdc.engine.liveness import Watch
from cdc.engine.pipeline import Pipeline
from cdc.errors import SourceUnfit
from cdc.target import Target
from cdc.testing import MemoryTarget, ScriptedSource


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[socket.socket, Manager]]:
    """A socket in the place of systemd's, and how a process knows of it: everything is due at once."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(1)
        yield listener, Manager(str(tmp_path / "notify"), 1e-9)


def refused() -> Target:
    raise SourceUnfit("It is unfit.\nFor many a reason.")


def test_each_pipeline_has_to_move_on(listening: tuple[socket.socket, Manager]) -> None:
    """E-01: one whose watch hangs is not hidden by another one; one that has ended is not waited for."""
    listener, manager = listening
    watches = {"a": Watch(), "b": Watch()}
    pipelines = {
        "a": Pipeline(lambda: ScriptedSource([]), MemoryTarget, queue_bytes=1, watch=watches["a"]),
        "b": Pipeline(lambda: ScriptedSource([]), refused, queue_bytes=1, watch=watches["b"]),
    }
    report = Report(manager, lambda: pipelines)

    def said(*looking: str) -> list[str]:
        for name in looking:
            watches[name].look(1.0)
        report.look()
        return listener.recv(4096).decode().splitlines()

    assert said("a", "b") == ["STATUS=a: opening; b: opening", "WATCHDOG=1", "EXTEND_TIMEOUT_USEC=60000000"]
    assert said("a") == ["STATUS=a: opening; b: opening"]
    assert "WATCHDOG=1" in said("a", "b")
    with pytest.raises(SourceUnfit):
        pipelines["b"].run()
    assert said("a")[:2] == ["STATUS=a: opening; b: stopped, It is unfit.\\nFor many a reason.", "WATCHDOG=1"]
    assert said() == ["STATUS=a: opening; b: stopped, It is unfit.\\nFor many a reason."]
    report.end()
    assert listener.recv(4096).decode().splitlines()[1:] == ["STOPPING=1"]


def test_a_long_status_is_cut(listening: tuple[socket.socket, Manager]) -> None:
    """systemd ignores a message of more than 4096 bytes."""
    listener, manager = listening
    pipeline = Pipeline(lambda: ScriptedSource([]), MemoryTarget, queue_bytes=1)
    pipelines = {f"{'ü' * 40}{number}": pipeline for number in range(100)}
    Report(manager, lambda: pipelines).look()
    message = listener.recv(10000)
    assert 1000 < len(message) < 4096
    message.decode()


@pytest.mark.parametrize(
    ("environment", "manager"),
    [
        ({}, None),
        ({"NOTIFY_SOCKET": ""}, None),
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, None),
        ({"NOTIFY_SOCKET": "/run/n"}, Manager("/run/n", None)),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "30000000"}, Manager("\0n", 30.0)),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "0"}, Manager("/run/n", None)),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "many"}, Manager("/run/n", None)),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}, Manager("/run/n", None)),
    ],
)
def test_what_the_environment_says(environment: dict[str, str], manager: Manager | None) -> None:
    """As sd_notify(3) and sd_watchdog_enabled(3) read it."""
    assert Manager.of(environment) == manager


def test_a_manager_that_is_gone_is_no_failure(tmp_path: Path) -> None:
    """Nothing ends because nobody listens."""
    Manager(str(tmp_path / "gone"), None).send(["READY=1"])


def test_a_look_that_fails_does_not_end_the_signs_of_life(
    listening: tuple[socket.socket, Manager], monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd would kill a process that moves on, and nobody would know why."""
    listener, manager = listening
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    monkeypatch.setenv("WATCHDOG_USEC", "40000")
    pipeline = Pipeline(lambda: ScriptedSource([]), MemoryTarget, queue_bytes=1)
    troubles = ["dictionary changed size during iteration"]

    def pipelines() -> dict[str, Pipeline]:
        if troubles:
            raise RuntimeError(troubles.pop())
        return {"a": pipeline}

    with reported(pipelines):
        assert listener.recv(4096).decode().startswith("STATUS=a: opening")
