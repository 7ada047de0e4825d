"""From commit on the source to visible in DuckDB."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psycopg
from rich.console import Console

from cdc.config import Options, open_pipeline
from cdc.demo.server import PrivatePostgres
from cdc.model.segment import Segment
from cdc.selection import Selection
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
    """100 single-row commits a second."""
    dsn = server.create_database("latency")
    server.execute("CREATE TABLE t (id int PRIMARY KEY, v text)", "latency")
    with tempfile.TemporaryDirectory() as folder:
        target = Observed(Path(folder) / "target.duckdb")
        pipeline = open_pipeline(dsn, f"duckdb:{folder}/target.duckdb", Options(selection=Selection(("public.t",))))
        pipeline._make_target = lambda: target
        thread = threading.Thread(target=pipeline.run)
        thread.start()
        while pipeline.view().phase != "streaming":
            time.sleep(0.05)
        with psycopg.connect(dsn, autocommit=True) as connection:
            began = time.monotonic()
            for number in range(int(SECONDS * RATE * scale)):
                connection.execute("INSERT INTO t VALUES (%s, 'x')", (number,))
                time.sleep(max(0.0, began + (number + 1) / RATE - time.monotonic()))
        time.sleep(1)
        pipeline.stop()
        thread.join()
    p50, p99 = np.percentile(target.delays, [50, 99])
    console.print(
        f"Latency, {len(target.delays):,} commits at {RATE}/s: p50 {p50:.1f} ms (to reach: 50), "
        f"p99 {p99:.1f} ms (to reach: 250)\n",
        highlight=False,
    )
    server.execute("SELECT pg_drop_replication_slot('cdc_cdc')")
