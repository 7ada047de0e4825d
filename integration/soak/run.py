"""One source under load into one file for some time, with faults and comparisons, and what it all took."""

from __future__ import annotations

import random
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from cdc.model.selection import Selection
from cdc.runs import compare_tables
from integration.soak.process import Failed, Process
from integration.soak.samples import line
from integration.soak.sources import Live
from integration.soak.work import WRITERS, Shaper, Writer, create

LOOK_EVERY = 5.0
_ASK_EVERY = 6  # looks between two of which DuckDB is asked what it holds: nothing is applied meanwhile
_WARM = 20.0  # seconds: a process that has only begun says at once that no server answers, and leaves the rest to who started it
_ROUGH_PAUSES = (4.0, 30.0)  # seconds between two faults
_STEADY_PAUSES = (30.0, 120.0)
_ENDS = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM}
STEADY_FAULTS = {"SIGSTOP": 2, "cut": 3, "restart of the source": 1, "pause of the work": 2}
FAULTS = {"kill -9": 4, "SIGTERM": 2} | STEADY_FAULTS


@dataclass(slots=True)
class Outcome:
    """What happened in a run; its samples are in a file of their own."""

    source: str
    seed: int
    rate: float
    seconds: float = 0.0
    working_seconds: float = 0.0
    commits: int = 0
    rows_changed: int = 0
    shapes_changed: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    comparisons: int = 0
    rows_compared: int = 0
    verifications: int = 0
    rows_verified: int = 0
    resident_mb_max: float = 0.0
    source_mb_first: float = 0.0
    source_mb_last: float = 0.0
    differences: list[str] = field(default_factory=list)

    @property
    def commits_a_second(self) -> float:
        """What the work has reached, beside cdc."""
        return self.commits / self.working_seconds if self.working_seconds else 0.0


class Soak:
    """One run: a rough half with faults of all kinds, in which target and source are compared at rest, and a steady half, in which
    one process stays and shows whether anything grows.

    Args:
        live: a server of its own.
        folder: for the target and the log.
        samples: the file for what is seen.
        minutes, rate: how long, and commits a second.
        seed: of whatever is random.
        parts: of each half, with a comparison or a verification at the end of each.
    """

    def __init__(
        self,
        live: Live,
        folder: Path,
        samples: Path,
        minutes: float,
        rate: float,
        seed: int,
        console: Console,
        parts: int = 3,
    ) -> None:
        self._live, self._console, self._rate, self._samples = live, console, rate, samples
        self._half, self._parts = minutes * 30, parts
        self._rng = random.Random(seed)
        self._process = Process(live.dsn, folder / "soak.duckdb", folder / "cdc.log")
        self._writers: list[Writer] = []
        self._shaper: Shaper | None = None
        self._began = self._working_since = time.monotonic()
        self._is_over = threading.Event()
        self._unseen: BaseException | None = None  # what has ended the looks
        self.outcome = Outcome(live.flavor, seed, rate)

    def run(self) -> Outcome:
        """Until the time is over and the last comparison is made, or something is wrong."""
        outcome = self.outcome
        create(self._live.connect)
        outcome.source_mb_first = self._live.size_mb()
        self._began = time.monotonic()
        looks = threading.Thread(target=self._look, name="looks", daemon=True)
        looks.start()
        try:
            self._begin()
            self._process.await_following()
            self._halves()
        except Failed as failure:
            self._differs(str(failure))
        finally:
            self._is_over.set()
            looks.join()
            with suppress(Failed):  # after the last comparison there is none
                self._process.end(signal.SIGKILL)
            self._end_work()
        outcome.seconds = time.monotonic() - self._began
        outcome.starts, outcome.resident_mb_max = self._process.starts, self._process.peak_mb
        outcome.source_mb_last = self._live.size_mb()
        return outcome

    def _halves(self) -> None:
        ends = [self._half * part / self._parts for part in range(1, self._parts + 1)]
        for end in ends:
            self._until(end, FAULTS, _ROUGH_PAUSES)
            self._verify()
            self._compare()
            self._begin()
        for end in ends:
            self._until(self._half + end, STEADY_FAULTS, _STEADY_PAUSES)
            self._verify()
        self._compare()

    def _until(self, second: float, faults: dict[str, int], pauses: tuple[float, float]) -> None:
        """Go on with faults."""
        while (left := second - (time.monotonic() - self._began)) > 0:
            if self._is_over.wait(min(left, self._rng.uniform(*pauses))):
                raise Failed(str(self._unseen))
            if time.monotonic() - self._began < second:
                self._fault(faults)

    def _begin(self) -> None:
        self._begin_work()
        self._process.start()

    def _begin_work(self) -> None:
        seed = self._rng.randrange(1, 1000)
        rate = self._rate / WRITERS
        self._writers = [Writer(self._live.connect, rate, seed + number, number) for number in range(WRITERS)]
        self._shaper = Shaper(self._live.connect, seed)
        self._working_since = time.monotonic()
        for work in (*self._writers, self._shaper):
            work.start()

    def _end_work(self) -> None:
        """Raises what has ended a session before."""
        if self._shaper is None:
            return
        writers, shaper = self._writers, self._shaper
        self._shaper = None
        for work in (*writers, shaper):
            work.stop()
        outcome = self.outcome
        outcome.working_seconds += time.monotonic() - self._working_since
        outcome.commits += sum(writer.transactions for writer in writers)
        outcome.rows_changed += sum(writer.changes for writer in writers)
        outcome.shapes_changed += shaper.transactions

    def _fault(self, faults: dict[str, int]) -> None:
        (kind,) = self._rng.choices(list(faults), list(faults.values()))
        self.outcome.faults[kind] = self.outcome.faults.get(kind, 0) + 1
        if kind in _ENDS:
            self._process.end(_ENDS[kind])
            time.sleep(self._rng.uniform(0, 2))
            self._process.start()
        elif kind == "SIGSTOP":
            self._process.send(signal.SIGSTOP)
            time.sleep(self._rng.uniform(1, 8))
            self._process.send(signal.SIGCONT)
        elif kind == "cut":
            self._live.cut()
        else:
            self._end_work()
            if kind == "restart of the source":
                time.sleep(max(0.0, _WARM - self._process.age))
                self._live.restart()
            else:
                time.sleep(self._rng.uniform(1, 15))
            self._begin_work()

    def _verify(self) -> None:
        """While both sides are busy."""
        self.outcome.rows_verified += self._process.verify()
        self.outcome.verifications += 1

    def _compare(self) -> None:
        """Stop the work and the process, catch up, and compare every value of every row."""
        self._end_work()
        self._process.end(signal.SIGTERM)
        self._process.catch_up()
        compared = compare_tables(self._live.dsn, self._process.target, Selection())
        rows = sum(table.source_rows for table in compared)
        self.outcome.comparisons += 1
        self.outcome.rows_compared += rows
        for table in compared:
            if not table.equal:
                raise Failed(f"{table.table} differs: {table.source_rows} rows there, {table.target_rows} here")
        self._console.print(
            f"{time.monotonic() - self._began:7.0f} s  compared {rows:,} rows of {len(compared)} tables; so far "
            f"{sum(self.outcome.faults.values())} faults, {self.outcome.commits_a_second:.0f} commits a second",
            highlight=False,
        )

    def _differs(self, what: str) -> None:
        self.outcome.differences.append(what)
        log = self._process.log
        said = log.read_text()[-2000:] if log.exists() else ""
        self._console.print(f"[red]{what}[/red]; its log is {log}:\n{said}", highlight=False)

    def _look(self) -> None:
        """Sample until the run is over, on a thread of its own, since faults and comparisons take their time."""
        count = 0
        try:
            with self._samples.open("wb") as file:
                while not self._is_over.wait(LOOK_EVERY):
                    sample = self._process.look(
                        time.monotonic() - self._began,
                        self._live.retained_mb(),
                        asks=count % _ASK_EVERY == 0,
                    )
                    count += 1
                    if sample is not None:
                        file.write(line(sample))
                        file.flush()
        except BaseException as error:
            self._unseen = error
            self._is_over.set()
