"""Encoding events, on one core; and `cdc tail` to /dev/null against `pg_recvlogical -f /dev/null` over the same backlog."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import pyarrow as pa
from rich.console import Console

from cdc.demo.server import PrivatePostgres
from cdc.engine.pipeline import Pipeline
from cdc.formats import FORMATS, FormatSettings, make
from cdc.model.position import Checkpoint
from cdc.model.segment import Segment
from cdc.model.selection import Selection
from cdc.sources.postgres import tail_factory
from integration.benchmarks.drain import ROW, TEN_COLUMNS
from integration.benchmarks.measure import report, run
from integration.benchmarks.slots import take_recvlogical

GOALS = {"json": 150_000, "cloudevents": 150_000, "debezium": 80_000}


class Kept:
    """A target that keeps the segments."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []

    def open(self) -> Checkpoint | None:
        return None

    def apply(self, segment: Segment) -> None:
        self.segments.append(segment)

    def close(self) -> None: ...


def events(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """300,000 inserts of ten columns, 1,000 per transaction: encoded alone, then the whole way through `cdc tail`."""
    count = int(300_000 * scale) // 1000 * 1000
    dsn = server.create_database("formats")
    server.execute(f"CREATE TABLE t ({TEN_COLUMNS})", "formats")
    slots = ["kept", *(f"{name}_{number}" for name in GOALS for number in range(pairs)), "idle"]
    for slot in slots:
        run(_tail(dsn, slot, "json"))
    idle = run(_tail(dsn, "idle", "json"))
    work = f"""
        DO $$ BEGIN FOR part IN 0..{count // 1000 - 1} LOOP
            INSERT INTO t SELECT {ROW} FROM generate_series(part * 1000 + 1, part * 1000 + 1000) i; COMMIT;
        END LOOP; END $$
    """
    server.execute(work, "formats")
    for name in GOALS:
        theirs, ours = [], []
        for number in range(pairs):
            theirs.append(take_recvlogical(server, "formats", "idle"))
            ours.append(run(_tail(dsn, f"{name}_{number}", name)).beyond(idle))
        tool = "pg_recvlogical -f /dev/null"
        report(console, f"cdc tail --format {name}, {count:,} events", count, theirs, ours, tool, 1.0)
        rate = count / median(took.cpu for took in ours)
        console.print(f"cdc tail --format {name}: {rate:,.0f} events per second of one core\n", highlight=False)
    _encoding(dsn, console, pairs)
    for slot in slots:
        server.execute(f"SELECT pg_drop_replication_slot('{slot}')", "formats")


def _encoding(dsn: str, console: Console, pairs: int) -> None:
    target = Kept()
    make_source = tail_factory(dsn, slot="kept", selection=Selection(), include_keyless=False, budget=16 << 20)
    Pipeline(make_source, lambda: target, queue_bytes=48 << 20, until_caught_up=True).run()
    rows = sum(segment.row_count for segment in target.segments)
    cores = pa.cpu_count()
    pa.set_cpu_count(1)
    for name in FORMATS:
        seconds = median(_timed(lambda name=name: _encode(name, target.segments)) for _ in range(pairs))  # type: ignore[misc]
        console.print(f"encoding {name}: {rows / seconds:,.0f} events/s (to reach: {GOALS[name]:,})", highlight=False)
    pa.set_cpu_count(cores)


def _encode(name: str, segments: list[Segment]) -> None:
    form = make(name, FormatSettings("bench", "postgresql", "formats"))
    for segment in segments:
        form.encode(segment).lines()


def _timed(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _tail(dsn: str, slot: str, name: str) -> list[str]:
    return [sys.executable, "-m", "cdc", "tail", dsn, "--slot", slot, "--format", name, "--until-caught-up"]
