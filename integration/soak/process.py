"""`cdc run` as a process of its own, as users run it, and what can be seen of it from outside."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cdc.errors import CdcError
from cdc.jobs import answers
from cdc.jobs.control import ask
from cdc.whereabouts import own_socket, status_file
from integration.benchmarks.measure import process_cpu
from integration.memory import resident_mb
from integration.soak.samples import Sample

NAME = "soak"
CATCH_UP_WITHIN = 600.0
_BEGIN_WITHIN = 60.0
_ANSWER_WITHIN = 10.0
_DUCKDB_MEMORY = "SELECT sum(memory_usage_bytes) FROM duckdb_memory()"


class Failed(Exception):
    """The process ended in a way that it should not have."""


class Process:
    """One pipeline's process, which can be started again after each end.

    Args:
        dsn: of the source.
        path: of the target's file.
        log: what the processes say.

    Attributes:
        starts: how many there were.
        peak_mb: resident memory, the most of any that was looked at.
    """

    def __init__(self, dsn: str, path: Path, log: Path) -> None:
        self.target = f"duckdb:{path}"
        self.log = log
        self.starts = 0
        self.peak_mb = 0.0
        self._dsn, self._path = dsn, path
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._duckdb_mb: float | None = None

    @property
    def age(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._started

    def start(self) -> None:
        """Follow from where the last one was."""
        with self.log.open("ab") as log:
            command = self._command("run")
            self._started, self._duckdb_mb = time.monotonic(), None
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.starts += 1

    def send(self, number: signal.Signals) -> None:
        """Without waiting for anything."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: signal.Signals) -> None:
        """End it by a signal; after SIGTERM it must end well."""
        process, self._process = self._process, None
        if process is None:
            return
        if number == signal.SIGTERM:
            self._await_begin(process)
        process.send_signal(number)
        code = process.wait(CATCH_UP_WITHIN)
        if code != (0 if number == signal.SIGTERM else -number):
            raise Failed(f"after {number.name} the process ended with {code}")

    def _await_begin(self, process: subprocess.Popen[bytes]) -> None:
        """Before it has begun, the interpreter's own way of ending is all there is."""
        ends = time.monotonic() + _BEGIN_WITHIN
        while process.poll() is None and time.monotonic() < ends and self._status().get("pid") != process.pid:
            time.sleep(0.1)

    def await_following(self) -> None:
        """Until it follows the log: before the first copy is made there is nothing to compare or to go on from, and a
        process that is just opening its target does not answer."""
        assert self._process is not None
        ends = time.monotonic() + CATCH_UP_WITHIN
        while not self._is_followed(self._process.pid, self._status()):
            if self._process.poll() is not None or time.monotonic() > ends:
                raise Failed("the process does not follow the log")
            time.sleep(0.1)

    @staticmethod
    def _is_followed(pid: int, status: dict[str, Any]) -> bool:
        return status.get("pid") == pid and status["phase"] == "streaming"

    def catch_up(self) -> None:
        """Have another one apply all that the source has."""
        self._done("run", "--until-caught-up")

    def verify(self) -> int:
        """Have every row compared while both sides go on; how many there were."""
        self.await_following()
        return sum(table["rows"] for table in json.loads(self._done("verify", "--json"))["tables"])

    def _done(self, command: str, *arguments: str) -> str:
        with self.log.open("ab") as log:
            try:
                done = subprocess.run(
                    self._command(command, *arguments),
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    timeout=CATCH_UP_WITHIN,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise Failed(f"cdc {command} did not end within {CATCH_UP_WITHIN:.0f} s") from None
        if done.returncode != 0:
            raise Failed(f"cdc {command} ended with {done.returncode}: {done.stdout[:2000]}")
        return done.stdout

    def _command(self, command: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "cdc", command, self._dsn, self.target, "--name", NAME, *arguments]

    def _status(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(status_file(self.target, NAME).read_bytes())
        except (OSError, ValueError):
            return {}
        return content

    def look(self, second: float, retained_mb: float | None, *, asks: bool) -> Sample | None:
        """How it is now; None while there is none.

        Args:
            retained_mb: what the source keeps for it, if it keeps something.
            asks: have DuckDB say what it holds, which the pipeline does between two transactions.

        Raises:
            Failed: it has ended by itself.
        """
        process, started = self._process, self._started
        if process is None:
            return None
        if (code := process.poll()) is not None and self._process is process:
            raise Failed(f"the process ended by itself with {code}")
        status = self._status()
        is_followed = self._is_followed(process.pid, status)
        lag = status["lag_bytes"] / 1e6 if is_followed else None
        if asks or self._duckdb_mb is None:
            self._duckdb_mb = self._duckdb_memory() if is_followed else None
        try:
            cpu = process_cpu(process.pid)
        except OSError:  # it was ended just now
            return None
        self.peak_mb = max(self.peak_mb, resident_mb(process.pid, "VmHWM"))
        return Sample(
            second=round(second, 1),
            start=self.starts,
            age=round(time.monotonic() - started, 1),
            resident_mb=round(resident_mb(process.pid), 1),
            duckdb_mb=self._duckdb_mb,
            file_mb=_size_mb(self._path),
            wal_mb=_size_mb(Path(f"{self._path}.wal")),
            retained_mb=lag if retained_mb is None else retained_mb,
            cpu_seconds=cpu,
            commits=status["transactions_applied"] if is_followed else None,
            lag_seconds=status["lag_seconds"] if is_followed else None,
            lag_mb=lag,
        )

    def _duckdb_memory(self) -> float | None:
        arguments = {"sql": _DUCKDB_MEMORY, "limit": 1, "seconds": _ANSWER_WITHIN}
        with suppress(CdcError, OSError):  # it may end meanwhile
            said = ask(own_socket(self.target, NAME), "query", arguments, lambda _: None, _ANSWER_WITHIN)
            if said is not None:
                return float(answers.read(said).rows.column(0)[0].as_py()) / 1e6
        return None


def _size_mb(file: Path) -> float:
    try:
        return file.stat().st_size / 1e6
    except OSError:
        return 0.0
