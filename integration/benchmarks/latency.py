"""From commit on the source to visible in DuckDB, and what following live costs."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import duckdb
import numpy as np
import psycopg
from rich.console import Console

from cdc.demo.server import PrivatePostgres
from cdc.engine.pipeline import Pipeline
from cdc.model.segment import Segment
from cdc.model.selection import Selection
from cdc.options import Options
from cdc.runs import open_pipeline
from cdc.targets.duckdb.target import DuckDbTarget

RATE = 100  # commits per second
SECONDS = 20
PRICES = {RATE: 1.0, 1_000: 0.3}  # commits per second -> milliseconds of CPU that one may take
SIZES = (1_000_000, 10_000_000)  # rows
CHANGED = 20_000  # rows, all over the table, of which each commit changes one
BACKLOG = 100_000  # updates
_PER_SESSION = 250  # commits per second


class Observed(DuckDbTarget):
    """Notes when each commit became durable, by the clock that the source on the same machine has too."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, 256 << 20)
        self.delays: list[float] = []
        self.segments = 0

    def apply(self, segment: Segment) -> None:
        super().apply(segment)
        now = time.time() * 1e6
        self.delays += ((now - segment.transactions.committed_at) / 1000).tolist()
        self.segments += bool(len(segment.transactions))


@dataclass(frozen=True, slots=True)
class Live:
    """What following live took.

    Attributes:
        cpu: milliseconds of this process for one commit.
        said: all figures, for people.
    """

    cpu: float
    said: str


def commit_to_visible(server: PrivatePostgres, console: Console, _pairs: int, scale: float) -> None:
    """Single-row commits as users have them, and 100 a second with nothing done to let commits gather."""
    seconds = SECONDS * scale
    console.print(f"Single-row inserts, committed one by one for {seconds:.0f} s:", highlight=False)
    prices = {}
    for rate, limit in PRICES.items():
        took = _inserts(server, rate, Options().live_share, seconds)
        prices[rate] = took.cpu
        console.print(f"  {rate:,} a second: {took.said} (to reach: {limit} ms)", highlight=False)
    at_once = _inserts(server, RATE, 1.0, seconds)
    console.print(f"  {RATE} a second, at once: {at_once.said}", highlight=False)
    console.print(
        f"  CPU per commit, of {RATE} a second: as users have them to at once {prices[RATE] / at_once.cpu:.2f}; "
        f"1,000 to {RATE} a second {prices[1_000] / prices[RATE]:.2f}; to reach, p50 60 ms and p99 300 ms\n",
        highlight=False,
    )


def by_size(server: PrivatePostgres, console: Console, _pairs: int, scale: float) -> None:
    """100 updates a second, and a backlog of them, of rows all over tables of two sizes."""
    seconds = SECONDS * scale
    console.print(
        f"Updates of random rows, committed one by one, {RATE} a second for {seconds:.0f} s:", highlight=False
    )
    prices, drained = [], []
    for size in SIZES:
        rows = int(size * scale)
        dsn = _table(server, f"(SELECT i * {max(rows // CHANGED, 1)} FROM generate_series(0, {CHANGED - 1}) i)")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "target.duckdb"
            _copy(dsn, path)
            _fill(path, rows)
            took = _live(dsn, path, "updates", RATE, Options().live_share, seconds)
            drain = _drain(server, dsn, path)
        _drop(server)
        prices.append(took.cpu)
        drained.append(drain)
        console.print(f"  {rows:,} rows: {took.said}; {BACKLOG:,} at once in {drain:.2f} s of CPU", highlight=False)
    console.print(
        f"  CPU, large to small: of a commit {prices[1] / prices[0]:.2f} (to reach: 1.5), of the backlog "
        f"{drained[1] / drained[0]:.2f} (to reach: 1.1)\n",
        highlight=False,
    )


def _table(server: PrivatePostgres, identities: str) -> str:
    dsn = server.create_database("latency")
    server.execute("CREATE TABLE t (id int PRIMARY KEY, v text)", "latency")
    server.execute(f"INSERT INTO t SELECT found.*, 'x' FROM {identities} AS found", "latency")
    return dsn


def _drop(server: PrivatePostgres) -> None:
    server.execute("SELECT pg_drop_replication_slot('cdc_cdc')")
    server.execute("DROP DATABASE latency WITH (FORCE)")


def _inserts(server: PrivatePostgres, rate: int, live_share: float, seconds: float) -> Live:
    dsn = _table(server, "(SELECT 1 WHERE false)")
    with tempfile.TemporaryDirectory() as folder:
        took = _live(dsn, Path(folder) / "target.duckdb", "inserts", rate, live_share, seconds)
    _drop(server)
    return took


def _copy(dsn: str, path: Path) -> None:
    pipeline_of(dsn, path, until_caught_up=True).run()


def _fill(path: Path, rows: int) -> None:
    """Add the rows that nobody changes, and put all of them in the order of the key, as a copy has them."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TEMP TABLE changed AS FROM public.t")
        connection.execute("DELETE FROM public.t")
        connection.execute(
            f"INSERT INTO public.t SELECT i, 'x' FROM range({rows}) AS r(i) "
            "UNION ALL SELECT id, v FROM changed WHERE id >= ? ORDER BY 1",
            [rows],
        )


def pipeline_of(
    dsn: str, path: Path, *, tables: str = "public.t", live_share: float = 1.0, until_caught_up: bool = False
) -> Pipeline:
    """From a database into a DuckDB file, in this process."""
    options = Options(selection=Selection((tables,)), live_share=live_share, until_caught_up=until_caught_up)
    return open_pipeline(dsn, f"duckdb:{path}", options)


@contextmanager
def following(pipeline: Pipeline) -> Iterator[None]:
    """A pipeline that follows the log meanwhile."""
    thread = threading.Thread(target=pipeline.run)
    thread.start()
    while pipeline.view().phase != "streaming":
        time.sleep(0.05)
    try:
        yield
    finally:
        pipeline.stop()
        thread.join()


def _live(dsn: str, path: Path, work: str, rate: int, live_share: float, seconds: float) -> Live:
    """The CPU is that of this process once it follows; other ones write."""
    target = Observed(path)
    pipeline = pipeline_of(dsn, path, live_share=live_share)
    pipeline._make_target = lambda: target
    with following(pipeline):
        used = time.process_time()
        writer = get_context("spawn").Process(target=_write, args=(dsn, work, rate, seconds))
        writer.start()
        writer.join()
        time.sleep(1)
        cpu = time.process_time() - used
    count = len(target.delays)
    p50, p99 = np.percentile(target.delays, [50, 99])
    return Live(
        cpu / count * 1000,
        f"{cpu / count * 1000:.2f} ms of CPU a commit, {cpu / seconds:.0%} of a core, p50 {p50:.1f} ms, p99 {p99:.1f} "
        f"ms, {count:,} commits in {target.segments:,} segments",
    )


def _write(dsn: str, work: str, rate: int, seconds: float) -> None:
    sessions = max(rate // _PER_SESSION, 1)
    with ThreadPoolExecutor(sessions) as pool:
        list(pool.map(lambda number: _session(dsn, work, number, rate / sessions, seconds), range(sessions)))


def _session(dsn: str, work: str, number: int, rate: float, seconds: float) -> None:
    chance = np.random.default_rng(number)
    with psycopg.connect(dsn, autocommit=True) as connection:
        keys = [key for (key,) in connection.execute("SELECT id FROM t").fetchall()]
        began = time.monotonic()
        for index in range(int(seconds * rate)):
            if work == "inserts":
                connection.execute("INSERT INTO t VALUES (%s, 'x')", (number * 1_000_000 + index,))
            else:
                connection.execute("UPDATE t SET v = %s WHERE id = %s", (str(index), keys[chance.integers(len(keys))]))
            time.sleep(max(0.0, began + (index + 1) / rate - time.monotonic()))


def _drain(server: PrivatePostgres, dsn: str, path: Path) -> float:
    """Seconds of CPU for a backlog of updates, beyond those of a run with nothing to do."""
    spent = []
    for repeats in (0, -(-BACKLOG // CHANGED)):
        for number in range(repeats):
            server.execute(f"UPDATE t SET v = 'round {number}'", "latency")
        began = time.process_time()
        _copy(dsn, path)
        spent.append(time.process_time() - began)
    return spent[1] - spent[0]
