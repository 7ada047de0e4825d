"""What readers of a served copy wait, and what they cost the pipeline, against none in the same run."""

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
from cdc.options import Options, Serving
from cdc.runs import open_pipeline
from cdc.targets.duckdb.target import DuckDbTarget
from integration.benchmarks.latency import RATE
from integration.serving import free_ports, wait_for_port

ROWS = 200_000
SECONDS = 15
READERS = 5
QUERIES = (
    "SELECT count(*), max(id) FROM t",
    "SELECT * FROM t WHERE id = 5",
    "SELECT v, count(*) FROM t GROUP BY v LIMIT 5",
)


def served(server: PrivatePostgres, console: Console, _pairs: int, scale: float) -> None:
    """Five readers that ask again and again, beside 100 commits a second and a copy each second."""
    seconds = SECONDS * scale
    console.print(f"{READERS} readers beside {RATE} commits a second, for {seconds:.0f} s:", highlight=False)
    dsn = server.create_database("readers")
    server.execute("CREATE TABLE t (id int PRIMARY KEY, v text)", "readers")
    server.execute(f"INSERT INTO t SELECT n, (n % 1000)::text FROM generate_series(1, {ROWS}) n", "readers")
    (port,) = free_ports(1)
    delays: list[float] = []
    apply = DuckDbTarget.apply

    def observed(target: DuckDbTarget, segment: Segment) -> None:
        apply(target, segment)
        delays.extend(((time.time() * 1e6 - segment.transactions.committed_at) / 1000).tolist())

    DuckDbTarget.apply = observed  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy.duckdb"
            serving = Serving((f"pg://127.0.0.1:{port}",))
            chosen = Selection(("public.t",))
            options = Options(selection=chosen, publish=copy, publish_every=1.0, serving=serving)
            pipeline = open_pipeline(dsn, f"duckdb:{folder}/target.duckdb", options)
            thread = threading.Thread(target=pipeline.run)
            thread.start()
            wait_for_port(port)
            while not copy.exists():
                time.sleep(0.1)
            alone = _phase(server, dsn, delays, 0, port, seconds, ROWS)
            beside = _phase(server, dsn, delays, READERS, port, seconds, 2 * ROWS)
            pipeline.stop()
            thread.join()
    finally:
        DuckDbTarget.apply = apply  # type: ignore[method-assign]
    (cpu, visible, _), (cpu_beside, visible_beside, waits) = alone, beside
    console.print(
        f"  {len(waits):,} answers; a reader waits p50 {np.percentile(waits, 50):.0f} ms, p99 {np.percentile(waits, 99):.0f} "
        f"ms\n  commit to durable p50 {visible[0]:.0f} ms, p99 {visible[1]:.0f} ms without readers; "
        f"{visible_beside[0]:.0f} and {visible_beside[1]:.0f} with them: {visible_beside[0] / visible[0]:.2f}\n"
        f"  CPU of the pipeline per commit, with readers against none: {cpu_beside / cpu:.2f}\n",
        highlight=False,
    )
    server.execute("SELECT pg_drop_replication_slot('cdc_cdc')")
    server.execute("DROP DATABASE readers WITH (FORCE)")


def _phase(
    server: PrivatePostgres, dsn: str, delays: list[float], readers: int, port: int, seconds: float, first: int
) -> tuple[float, tuple[float, float], list[float]]:
    """CPU per commit, the median and the 99th percentile of what a commit waits, and what each question waited."""
    spawn = get_context("spawn")
    answers = spawn.Queue()
    count = int(seconds * RATE)
    reading = [spawn.Process(target=_read, args=(port, seconds, answers)) for _ in range(readers)]
    writing = spawn.Process(target=_write, args=(dsn, first + 1, count))
    delays.clear()
    began = time.process_time()
    for process in (*reading, writing):
        process.start()
    waits = [wait for _ in reading for wait in answers.get()]
    for process in (*reading, writing):
        process.join()
    while len(delays) < count:
        time.sleep(0.05)
    used = time.process_time() - began
    return used / count, (float(np.percentile(delays, 50)), float(np.percentile(delays, 99))), waits


def _write(dsn: str, first: int, count: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        began = time.monotonic()
        for number in range(count):
            connection.execute("INSERT INTO t VALUES (%s, 'x')", (first + number,))
            time.sleep(max(0.0, began + (number + 1) / RATE - time.monotonic()))


def _read(port: int, seconds: float, answers: object) -> None:
    waits = []
    ends = time.monotonic() + seconds
    with psycopg.connect(f"host=127.0.0.1 port={port} user=me dbname=shop", autocommit=True) as connection:
        while time.monotonic() < ends:
            began = time.monotonic()
            connection.execute(QUERIES[len(waits) % len(QUERIES)].encode()).fetchall()
            waits.append((time.monotonic() - began) * 1000)
            time.sleep(0.05)
    answers.put(waits)  # type: ignore[attr-defined]
