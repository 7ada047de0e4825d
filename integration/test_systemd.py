"""What a service manager hears of `cdc run`, over a socket of the test in the place of systemd's, and the unit file."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from integration import processes
from integration.conftest import Database, Replica, make_replica
from integration.processes import Process

UNIT = Path(__file__).parent.parent / "docs" / "deploy" / "cdc@.service"
WATCHDOG = 2.0  # seconds
STALL_TIMEOUT = 4.0


class Listener:
    """A service manager's end of the socket.

    Attributes:
        heard: all messages, each with its moment and its lines by their names.
    """

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self.heard: list[tuple[float, dict[str, str]]] = []

    def close(self) -> None:
        self._socket.close()

    def listen(self, seconds: float) -> list[dict[str, str]]:
        """What comes within that time."""
        until, before = time.monotonic() + seconds, len(self.heard)
        while (left := until - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                message = self._socket.recv(4096).decode()
            except TimeoutError:
                break
            lines = dict(line.split("=", 1) for line in message.splitlines())
            self.heard.append((time.monotonic(), lines))
        return [lines for _, lines in self.heard[before:]]

    def until(self, name: str, words: str = "", seconds: float = 30) -> dict[str, str]:
        """The first message that has a line of that name with those words."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for lines in self.listen(0.1):
                if words in lines.get(name, "\0"):
                    return lines
        raise AssertionError(f"There is no {name}={words} in {self.heard}")

    def at(self, name: str) -> list[float]:
        """The moments of the messages that have a line of that name."""
        return [moment for moment, lines in self.heard if name in lines]


@contextmanager
def listening(folder: Path, *, abstract: bool = False) -> Iterator[tuple[Listener, dict[str, str]]]:
    """A listener, and the variables by which a process knows of it."""
    address = f"@cdc-test-{os.getpid()}" if abstract else str(folder / "notify")
    listener = Listener(address)
    try:
        yield listener, {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": str(int(WATCHDOG * 1e6))}
    finally:
        listener.close()


@pytest.fixture
def one_table(database: Database, tmp_path: Path) -> Replica:
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    return make_replica(database, tmp_path)


def run(replica: Replica, *arguments: str, **environment: str) -> Process:
    ends = (replica.database.dsn, replica.target, "--name", replica.options.name)
    return processes.start("run", *ends, "--stall-timeout", f"{STALL_TIMEOUT}s", *arguments, **environment)


def test_a_run_from_its_start_to_its_end(database: Database, one_table: Replica, tmp_path: Path) -> None:
    """Ready once both ends are open, a sign of life at least as often as was asked for, and a word at the end."""
    with listening(tmp_path) as (systemd, environment):
        process = run(one_table, **environment)
        systemd.until("READY", "1")
        systemd.until("STATUS", "streaming")
        database.execute("INSERT INTO t VALUES (2)")
        systemd.until("STATUS", "1 rows applied")
        systemd.listen(2 * WATCHDOG)
        process.terminate()
        assert process.wait(30) == 0
        systemd.listen(0.1)
    assert len(systemd.at("READY")) == 1
    assert systemd.at("STOPPING")
    signs = systemd.at("WATCHDOG")
    assert len(signs) >= 3
    assert max(after - before for before, after in pairwise(signs)) < WATCHDOG
    assert systemd.heard[-1][1]["STATUS"] == f"{one_table.options.name}: stopped"


def test_a_run_that_soon_has_caught_up(one_table: Replica, tmp_path: Path) -> None:
    """It was ready, however short that was: systemd calls it a failure otherwise. Its socket may be an abstract one."""
    with listening(tmp_path, abstract=True) as (systemd, environment):
        assert run(one_table, "--until-caught-up", **environment).wait(30) == 0
        systemd.listen(0.1)
    assert len(systemd.at("READY")) == 1
    assert systemd.at("STOPPING")


def test_a_process_that_cannot_end_itself_gives_no_sign_of_life(one_table: Replica, tmp_path: Path) -> None:
    """E-01: a stage hangs, and so does the watch, since nobody reads what it says. Only the service manager is left."""
    one_table.catch_up()
    with listening(tmp_path) as (systemd, environment):
        process = run(one_table, CDC_FAULT="stream.tick=hang", **environment)
        try:
            systemd.until("READY", "1")
            full = fill(process)
            systemd.listen(STALL_TIMEOUT + WATCHDOG)
            assert process.poll() is None
            assert systemd.at("WATCHDOG")
            assert time.monotonic() - systemd.at("WATCHDOG")[-1] > WATCHDOG
            os.close(full)
        finally:
            process.kill()


def fill(process: Process) -> int:
    """Fill the pipe of what a process says, so that whatever says more waits; returns another end of it."""
    assert process.stderr is not None
    pipe = os.open(f"/proc/self/fd/{process.stderr.fileno()}", os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, b" ")
    return pipe


def test_a_stopped_process_gives_no_sign_of_life(one_table: Replica, tmp_path: Path) -> None:
    """And gives them again when it goes on."""
    with listening(tmp_path) as (systemd, environment):
        process = run(one_table, **environment)
        try:
            systemd.until("STATUS", "streaming")
            process.send_signal(signal.SIGSTOP)
            systemd.listen(0.2)
            assert systemd.listen(WATCHDOG) == []
            process.send_signal(signal.SIGCONT)
            systemd.until("WATCHDOG", "1", WATCHDOG)
        finally:
            process.kill()


def test_waiting_for_tables_is_a_start_that_takes_longer(database: Database, tmp_path: Path) -> None:
    """O47: the time for a start is extended until there are tables."""
    replica = make_replica(database, tmp_path)
    with listening(tmp_path) as (systemd, environment):
        process = run(replica, "--wait-for-tables", **environment)
        try:
            systemd.until("STATUS", "waiting")
            assert int(systemd.until("EXTEND_TIMEOUT_USEC")["EXTEND_TIMEOUT_USEC"]) > WATCHDOG * 1e6
            assert not systemd.at("READY")
            database.execute("CREATE TABLE t (id int PRIMARY KEY)")
            systemd.until("READY", "1", 60)
        finally:
            process.kill()


def test_a_run_that_fails_says_why(database: Database, tmp_path: Path) -> None:
    """E-03: what `systemctl status` shows then. It was never ready."""
    replica = make_replica(database, tmp_path)
    with listening(tmp_path) as (systemd, environment):
        process = run(replica, **environment)
        assert process.wait(30) == 2
        systemd.listen(0.2)
    assert not systemd.at("READY")
    assert "can be followed" in systemd.heard[-1][1]["STATUS"]


def test_the_unit() -> None:
    """systemd reads every line of the unit, and finds little that it could do beyond its work."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("There is no systemd on this machine.")
    said = analyze("verify")
    assert said.returncode == 0, said.stdout
    assert "cdc@" not in said.stdout.replace("Command /usr/local/bin/cdc is not executable", ""), said.stdout
    said = analyze("security", "--offline=true", "--threshold=15")
    assert said.returncode == 0, said.stdout


def test_the_password_of_the_unit(tmp_path: Path) -> None:
    """E-03: what the credential holds is in the environment of the run alone, for each kind of source."""
    (tmp_path / "password").write_text("it's $HOME\n")
    program = tmp_path / "cdc"
    program.write_text('#!/bin/sh\necho "$PGPASSWORD/$MYSQL_PWD/$*"\n')
    program.chmod(0o755)
    (line,) = re.findall(r"^ExecStart=(.*)$", UNIT.read_text(), re.MULTILINE)
    command = shlex.split(line.replace("$$", "$").replace("%i", "shop"))
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said == "it's $HOME/it's $HOME/run shop\n"


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`systemd-analyze` of the unit."""
    command = ["systemd-analyze", *arguments, str(UNIT)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
