"""From commit on the source to visible in DuckDB."""

from __future__ import annotations

import tempfile
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psycopg
from rich.console import Console

from cdc.demo.server import PrivatePostgres
from cdc.model.segment import Segment
from cdc.model.selection import Selection
from cdc.options import Options
from cdc.runs import open_pipeline
from cdc.targets.duckdb.target import DuckDbTarget

RATE = 100  # commits per second
SECONDS = 20


class Observed(DuckDbTarget):
    """Notes when each commit became durable, by the clock that the source on the same machine has too."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, 256 << 20)
        self.delays: list[float] = []

    def apply(self, segment: Segment) -> None:
        super().apply(segment)
        now = time.time() * 1e6
        self.delays += ((now - segment.transactions.committed_at) / 1000).tolist()


def commit_to_visible(server: PrivatePostgres, console: Console, _pairs: int, scale: float) -> None:
    """100 single-row commits a second, as users have it and with nothing done to let commits gather."""
    seconds = SECONDS * scale
    console.print(f"Latency and price of {RATE} commits a second, for {seconds:.0f} s:", highlight=False)
    paced = _measured(server, console, "paced", Options().live_share, seconds)
    at_once = _measured(server, console, "at once", 1.0, seconds)
    console.print(
        f"  CPU per commit, paced against at once: {paced / at_once:.2f}; to reach, paced: p50 60 ms, p99 300 ms, "
        "20 % of a core\n",
        highlight=False,
    )


def _write(dsn: str, count: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        began = time.monotonic()
        for number in range(count):
            connection.execute("INSERT INTO t VALUES (%s, 'x')", (number,))
            time.sleep(max(0.0, began + (number + 1) / RATE - time.monotonic()))


def _measured(server: PrivatePostgres, console: Console, how: str, live_share: float, seconds: float) -> float:
    """CPU seconds per commit, of this process; another one writes."""
    dsn = server.create_database("latency")
    server.execute("CREATE TABLE t (id int PRIMARY KEY, v text)", "latency")
    with tempfile.TemporaryDirectory() as folder:
        target = Observed(Path(folder) / "target.duckdb")
        options = Options(selection=Selection(("public.t",)), live_share=live_share)
        pipeline = open_pipeline(dsn, f"duckdb:{folder}/target.duckdb", options)
        pipeline._make_target = lambda: target
        thread = threading.Thread(target=pipeline.run)
        thread.start()
        while pipeline.view().phase != "streaming":
            time.sleep(0.05)
        used = time.process_time()
        writer = get_context("spawn").Process(target=_write, args=(dsn, int(seconds * RATE)))
        writer.start()
        writer.join()
        time.sleep(1)
        cpu = time.process_time() - used
        pipeline.stop()
        thread.join()
    p50, p99 = np.percentile(target.delays, [50, 99])
    console.print(
        f"  {how}: {len(target.delays):,} commits, p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
        f"{cpu / len(target.delays) * 1000:.2f} ms of CPU a commit, {cpu / seconds:.0%} of a core",
        highlight=False,
    )
    server.execute("SELECT pg_drop_replication_slot('cdc_cdc')")
    server.execute("DROP DATABASE latency WITH (FORCE)")
    return cpu / len(target.delays)
