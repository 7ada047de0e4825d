"""`cdc run` as it looks in a terminal, and its log lines for programs."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyte

from integration.conftest import Database
from integration.processes import COMMAND, cdc


class Terminal:
    """A window in which `cdc` runs, and what it shows."""

    def __init__(self, *arguments: str, columns: int, lines: int, **environment: str) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=1000)
        self._stream = pyte.ByteStream(self.screen)
        self.written = b""
        self._window, inside = pty.openpty()
        self._inside = inside
        self._resize(columns, lines)
        variables = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            env=variables | {"TERM": "xterm-256color"} | environment,
        )

    def _resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._inside, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        self._resize(columns, lines)
        self.screen.resize(lines, columns)
        self.process.send_signal(signal.SIGWINCH)

    @property
    def lines(self) -> list[str]:
        """What it shows, and what was scrolled out, without empty lines."""
        top = ["".join(line[column].data for column in range(self.screen.columns)) for line in self.screen.history.top]
        return [line.rstrip() for line in [*top, *self.screen.display] if line.strip()]

    def until(self, is_seen: Callable[[list[str]], bool], within: float = 60) -> list[str]:
        """Read until something is seen, or the process has ended."""
        end = time.monotonic() + within
        while not is_seen(self.lines):
            assert time.monotonic() < end, self.lines
            if select.select([self._window], [], [], 0.1)[0]:
                self.written += (chunk := os.read(self._window, 65536))
                self._stream.feed(chunk)
            elif self.process.poll() is not None:
                break
        return self.lines

    def end(self) -> list[str]:
        """All of it, once the process has ended."""
        self.until(lambda _: False, 60)
        self.process.wait(10)
        return self.lines

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._window)
        os.close(self._inside)


@contextmanager
def window(*arguments: str, columns: int = 100, lines: int = 24, **environment: str) -> Iterator[Terminal]:
    terminal = Terminal(*arguments, columns=columns, lines=lines, **environment)
    try:
        yield terminal
    finally:
        terminal.close()


def says(text: str) -> Callable[[list[str]], bool]:
    return lambda lines: any(text in line for line in lines)


def test_a_run_in_a_terminal(database: Database, tmp_path: Path) -> None:
    """O37: tables and what came of them, log lines above, one word when it has caught up, and one at the end."""
    database.execute("CREATE TABLE orders (id int PRIMARY KEY, v text)")
    database.execute('CREATE TABLE "[red]\x1b[2J" (id int PRIMARY KEY)')
    database.execute("INSERT INTO orders SELECT i, 'x' FROM generate_series(1, 1000) i")
    target = f"duckdb:{tmp_path / 'shop.duckdb'}"
    with window("run", database.dsn, target, columns=90) as terminal:
        terminal.until(says("following, caught up"))
        database.execute("UPDATE orders SET v = 'y' WHERE id <= 7; DELETE FROM orders WHERE id > 990")
        terminal.until(
            lambda lines: any(line.split()[:5] == ["public.orders", "1,000", "-", "7", "10"] for line in lines)
        )
        database.execute("CREATE TABLE keyless (id int)")  # which a line of the log says
        database.execute("INSERT INTO orders VALUES (2000, 'z')")
        terminal.until(lambda lines: any(line.split()[2:5] == ["1", "7", "10"] for line in lines))
        assert len([line for line in terminal.lines if line.startswith("shop  ")]) == 1, terminal.lines
        assert sum("Caught up with the source, at " in line for line in terminal.lines) == 1, terminal.lines
        terminal.resize(60, 10)
        terminal.until(lambda lines: any(line.split()[1:4] == ["1", "7", "10"] for line in lines))
        terminal.process.send_signal(signal.SIGINT)
        lines = terminal.end()
    assert terminal.process.returncode == 0
    assert lines[-1].startswith("Stopped at 0/"), lines
    assert lines[-1].endswith("; run the same command to go on.")
    assert b"\x1b[2J" not in terminal.written
    assert any("public.[red]\\x1b[2J" in line for line in lines)


def test_the_end_of_a_run_that_catches_up(database: Database, tmp_path: Path) -> None:
    """It says how to look at what is there; without colours where nobody wants any."""
    database.execute("CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1)")
    target = tmp_path / "shop.duckdb"
    with window("run", database.dsn, str(target), "--until-caught-up", columns=200, NO_COLOR="1") as terminal:
        lines = terminal.end()
    assert terminal.process.returncode == 0
    assert lines[-1].startswith("Caught up, and ended at 0/"), lines
    assert lines[-1].endswith(f"To look at it: cdc query {target} 'SELECT * FROM public.orders LIMIT 10'")
    assert b"\x1b[3" not in terminal.written.replace(b"\x1b[3m", b"")


def test_lines_for_programs(database: Database, tmp_path: Path) -> None:
    """Every line is an object, the last word included; each says of which pipeline and thread it is."""
    database.execute("CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1)")
    run = ("run", database.dsn, str(tmp_path / "shop.duckdb"), "--until-caught-up")
    done = cdc(*run, "--log-format", "json", "--log-level=debug")
    assert done.returncode == 0
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert all({"time", "level", "logger", "message", "thread"} <= line.keys() for line in said)
    assert {line.get("pipeline") for line in said if line["message"] == "progress"} == {"shop"}
    assert {line["pipeline"] for line in said if line["thread"] in ("reader", "applier")} == {"shop"}
    assert said[-1]["message"].startswith("Caught up, and ended at ")
    assert [line["phase"] for line in said if line["message"] == "progress"][-1] == "stopped"
    again = cdc(*run, CDC_LOG_FORMAT="json", CDC_LOG_LEVEL="warning")
    assert (again.returncode, again.stderr) == (0, "")


def test_errors_for_programs(tmp_path: Path) -> None:
    """What a command fails with is a line of the same kind, whatever it is."""
    for arguments, code in (
        (("status", "--bogus", "--log-format", "json"), 2),
        (("--log-format=json", "run", "nonsense", str(tmp_path / "x.duckdb")), 2),
        (("run", "postgresql://u@127.0.0.1:1/d", str(tmp_path / "x.duckdb"), "--log-format", "json", "--quiet"), 1),
    ):
        done = cdc(*arguments)
        assert done.returncode == code, done.stderr
        line = json.loads(done.stderr)
        assert (line["level"], line["exit_code"]) == ("error", code)
        assert line["message"].endswith((".", "?", ")", "refused")), line
        assert "hint" in line


def test_quiet(database: Database, tmp_path: Path) -> None:
    """Nothing is said or drawn where nothing goes wrong."""
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)")
    run = ("run", database.dsn, str(tmp_path / "shop.duckdb"), "--until-caught-up", "--quiet")
    with window(*run) as terminal:
        assert terminal.end() == []
    assert terminal.process.returncode == 0
