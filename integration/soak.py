"""`python -m integration.soak --minutes N`: a live workload, faults at random times, comparisons, and what it all took.

`cdc run` runs as a process of its own, as users run it. Whatever is random comes from the seed, which is printed. It ends with
1 if a comparison found a difference or the process ended in a way that it should not have.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from cdc.model.selection import Selection
from cdc.runs import compare_tables
from cdc.whereabouts import status_file
from integration.memory import resident_mb
from integration.soak_sources import SOURCES, Live, open_source

_WARM = 20.0  # seconds after which a process has what it needs, so that its size may tell a slope
_LOOK_EVERY = 1.0
_CATCH_UP_WITHIN = 600.0
_SIGNALS = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM}
FAULTS = {"kill -9": 4, "SIGTERM": 2, "SIGSTOP": 2, "cut": 3, "restart of the source": 1, "pause of the work": 2}


@dataclass(slots=True)
class Sample:
    """One look, at a second since the begin. `age` is the process's, None where something is not known just then."""

    second: float
    age: float
    resident_mb: float
    file_mb: float
    lag_seconds: float | None
    retained_mb: float | None


@dataclass(slots=True)
class Outcome:
    """The report at the end."""

    source: str
    seed: int
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    transactions: int = 0
    rows_changed: int = 0
    comparisons: int = 0
    rows_compared: int = 0
    verifications: int = 0
    rows_verified: int = 0
    differences: list[str] = field(default_factory=list)
    resident_mb_max: float = 0.0
    resident_mb_per_hour: float | None = None
    lag_seconds_first_quarter: float | None = None
    lag_seconds_last_quarter: float | None = None
    file_mb_first: float = 0.0
    file_mb_last: float = 0.0
    source_mb_first: float = 0.0
    source_mb_last: float = 0.0
    retained_mb_max: float | None = None


class Soak:
    """One source under load into one file, for some time."""

    def __init__(self, live: Live, folder: Path, minutes: float, rate: float, seed: int, console: Console) -> None:
        self._live, self._console, self._rate = live, console, rate
        self._seconds = minutes * 60
        self._rng = random.Random(seed)
        self._path = folder / "soak.duckdb"
        self._target = f"duckdb:{self._path}"
        self._log = folder / "cdc.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._started = self._began = time.monotonic()
        self._samples: list[Sample] = []
        self.outcome = Outcome(live.flavor, seed)

    def run(self) -> Outcome:
        """Until the time is over and the last comparison is made."""
        outcome = self.outcome
        outcome.source_mb_first = self._live.size_mb()
        self._begin_work()
        self._start()
        fault_at, compare_at = self._next_fault(), self._seconds / 6
        while (now := time.monotonic() - self._began) < self._seconds and not outcome.differences:
            self._look()
            if now >= compare_at:
                self._compare()
                compare_at += self._seconds / 6
                outcome.file_mb_first = outcome.file_mb_first or self._file_mb()
            elif now >= fault_at:
                self._fault()
                fault_at = time.monotonic() - self._began + self._next_fault()
            time.sleep(_LOOK_EVERY)
        self._compare()
        self._end_work()
        self._stop(signal.SIGTERM)
        outcome.seconds = time.monotonic() - self._began
        outcome.file_mb_last, outcome.source_mb_last = self._file_mb(), self._live.size_mb()
        self._summarize()
        return outcome

    def _next_fault(self) -> float:
        return self._rng.uniform(4, 30)

    def _begin_work(self) -> None:
        self._live.begin(self._rate, self._rng.randrange(1, 1000))

    def _end_work(self) -> None:
        transactions, rows = self._live.end()
        self.outcome.transactions += transactions
        self.outcome.rows_changed += rows

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "cdc", "run", self._live.dsn, self._target, "--name", "soak", *arguments]

    def _start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log)
        self._started = time.monotonic()
        self.outcome.starts += 1

    def _stop(self, number: signal.Signals) -> None:
        """End the process by a signal; by SIGTERM it must end well."""
        if self._process is None:
            return
        if number == signal.SIGTERM:
            self._await_begin(self._process)
        self._process.send_signal(number)
        code = self._process.wait(_CATCH_UP_WITHIN)
        if code != (0 if number == signal.SIGTERM else -number):
            self._differs(f"after {number.name} the process ended with {code}")
        self._process = None

    def _await_begin(self, process: subprocess.Popen[bytes]) -> None:
        """Before it has begun, the interpreter's own way of ending is all there is."""
        ends = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < ends:
            if self._status().get("pid") == process.pid:
                return
            time.sleep(0.1)

    def _status(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(status_file(self._target, "soak").read_bytes())
        except (OSError, ValueError):
            return {}
        return content

    def _differs(self, what: str) -> None:
        self.outcome.differences.append(what)
        self._console.print(
            f"[red]{what}[/red]; its log is {self._log}:\n{self._log.read_text()[-2000:]}", highlight=False
        )

    def _look(self) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is not None:
            self._differs(f"the process ended by itself with {process.returncode}")
            return
        status = self._status()
        is_current = status.get("pid") == process.pid and status["phase"] == "streaming"
        lag = float(status["lag_seconds"]) if is_current else None
        now = time.monotonic()
        resident = resident_mb(process.pid)
        self.outcome.resident_mb_max = max(self.outcome.resident_mb_max, resident_mb(process.pid, "VmHWM"))
        retained = self._live.retained_mb() if len(self._samples) % 5 == 0 else None
        self._samples.append(Sample(now - self._began, now - self._started, resident, self._file_mb(), lag, retained))

    def _file_mb(self) -> float:
        files = (self._path, Path(f"{self._path}.wal"))
        return sum(file.stat().st_size for file in files if file.exists()) / 1e6

    def _fault(self) -> None:
        kinds = list(FAULTS)
        (kind,) = self._rng.choices(kinds, list(FAULTS.values()))
        self.outcome.faults[kind] = self.outcome.faults.get(kind, 0) + 1
        process = self._process
        assert process is not None
        if kind in _SIGNALS:
            self._stop(_SIGNALS[kind])
            time.sleep(self._rng.uniform(0, 2))
            self._start()
        elif kind == "SIGSTOP":
            process.send_signal(signal.SIGSTOP)
            time.sleep(self._rng.uniform(1, 8))
            process.send_signal(signal.SIGCONT)
        elif kind == "cut":
            self._live.cut()
        else:
            self._end_work()
            if kind == "restart of the source":
                # A process that has only begun says at once that nobody answers, and leaves the rest to who started it.
                time.sleep(max(0.0, _WARM - (time.monotonic() - self._started)))
                self._live.restart()
            else:
                time.sleep(self._rng.uniform(1, 15))
            self._begin_work()

    def _compare(self) -> None:
        """Verify while both sides are busy; then stop the work, catch up, and compare every value of every row."""
        self._verify()
        self._end_work()
        self._stop(signal.SIGTERM)
        with self._log.open("ab") as log:
            done = subprocess.run(
                self._command("--until-caught-up"), stdout=log, stderr=log, timeout=_CATCH_UP_WITHIN, check=False
            )
        if done.returncode != 0:
            self._differs(f"catching up ended with {done.returncode}")
            return
        compared = compare_tables(self._live.dsn, self._target, Selection())
        self.outcome.comparisons += 1
        self.outcome.rows_compared += sum(table.source_rows for table in compared)
        for table in compared:
            if not table.equal:
                self._differs(f"{table.table} differs: {table.source_rows} rows there, {table.target_rows} here")
        self._console.print(
            f"{time.monotonic() - self._began:7.0f} s  compared {sum(t.source_rows for t in compared):,} rows of "
            f"{len(compared)} tables, {sum(self.outcome.faults.values())} faults so far",
            highlight=False,
        )
        self._begin_work()
        self._start()

    def _verify(self) -> None:
        command = [sys.executable, "-m", "cdc", "verify", self._live.dsn, self._target, "--name", "soak", "--json"]
        with self._log.open("ab") as log:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, timeout=_CATCH_UP_WITHIN, check=False)
        if done.returncode != 0:
            self._differs(f"cdc verify ended with {done.returncode}: {done.stdout.decode()[:2000]}")
            return
        self.outcome.verifications += 1
        self.outcome.rows_verified += sum(table["rows"] for table in json.loads(done.stdout)["tables"])

    def _summarize(self) -> None:
        warm = [sample for sample in self._samples if sample.age > _WARM]
        if len(warm) > 10:
            slope = np.polyfit([s.second for s in warm], [s.resident_mb for s in warm], 1)[0]
            self.outcome.resident_mb_per_hour = float(slope) * 3600
        lags = [sample.lag_seconds for sample in self._samples if sample.lag_seconds is not None]
        if quarter := len(lags) // 4:
            self.outcome.lag_seconds_first_quarter = float(np.median(lags[:quarter]))
            self.outcome.lag_seconds_last_quarter = float(np.median(lags[-quarter:]))
        self.outcome.retained_mb_max = max(
            (s.retained_mb for s in self._samples if s.retained_mb is not None), default=None
        )


def show(outcome: Outcome, console: Console) -> None:
    """The same for people."""
    table = Table("what", "figure", title=f"{outcome.source}, seed {outcome.seed}", title_justify="left")
    figures = asdict(outcome)
    figures["faults"] = ", ".join(f"{kind}: {count}" for kind, count in sorted(outcome.faults.items())) or "none"
    for name, value in figures.items():
        text = (
            "-"
            if value is None
            else f"{value:,.1f}"
            if isinstance(value, float)
            else f"{value:,}"
            if isinstance(value, int)
            else str(value)
        )
        table.add_row(name.replace("_", " "), text)
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m integration.soak", description=__doc__)
    parser.add_argument("--source", choices=SOURCES, default="postgresql")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=300.0, help="row changes a second")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    console = Console(width=120)
    console.print(f"{arguments.source}, {arguments.minutes:g} minutes, seed {arguments.seed}", highlight=False)
    with open_source(arguments.source) as live, tempfile.TemporaryDirectory(prefix="cdc-soak-") as folder:
        outcome = Soak(live, Path(folder), arguments.minutes, arguments.rate, arguments.seed, console).run()
    show(outcome, console)
    text = json.dumps(asdict(outcome))
    if arguments.json is not None:
        arguments.json.write_text(text)
    print(text)
    return 1 if outcome.differences else 0


if __name__ == "__main__":
    sys.exit(main())
