"""One transaction that is larger than the memory it may use."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rich.console import Console

from cdc.demo.server import PrivatePostgres
from integration.benchmarks.drain import ROW, TEN_COLUMNS
from integration.benchmarks.measure import LIMIT_MB, run


def one_transaction(server: PrivatePostgres, console: Console, _pairs: int, scale: float) -> None:
    """5,000,000 rows inserted at once."""
    count = int(5_000_000 * scale)
    dsn = server.create_database("large")
    server.execute(f"CREATE TABLE t ({TEN_COLUMNS})", "large")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cdc", "run", dsn, f"duckdb:{Path(folder) / 'x.duckdb'}", "--until-caught-up"]
        run(command)
        server.execute(f"INSERT INTO t SELECT {ROW} FROM generate_series(1, {count}) i", "large")
        took = run(command)
    console.print(
        f"One transaction of {count:,} rows: {took.seconds:.1f} s, {count / took.seconds:,.0f} rows/s, CPU {took.cpu:.1f} s, "
        f"peak memory {took.peak_mb:.0f} MB (limit: {LIMIT_MB})\n",
        highlight=False,
    )
    server.execute("SELECT pg_drop_replication_slot('cdc_x')")
