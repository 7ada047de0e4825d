"""Copying a table into DuckDB, against one `COPY ... TO STDOUT` into /dev/null."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rich.console import Console

from cdc.demo.server import PrivatePostgres
from integration.benchmarks.drain import ROW, TEN_COLUMNS
from integration.benchmarks.measure import report, run


def copy(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """2,000,000 rows of ten columns."""
    count = int(2_000_000 * scale)
    dsn = server.create_database("copied")
    server.execute(f"CREATE TABLE t ({TEN_COLUMNS})", "copied")
    server.execute(f"INSERT INTO t SELECT {ROW} FROM generate_series(1, {count}) i", "copied")
    server.execute("VACUUM ANALYZE t", "copied")
    psql = [str(server.binaries / "psql"), "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "-d", "copied"]
    theirs, ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(pairs):
            theirs.append(run([*psql, "-c", "COPY t TO STDOUT", "-o", "/dev/null"]))
            target = Path(folder) / f"{number}.duckdb"
            ours.append(run([sys.executable, "-m", "cdc", "run", dsn, f"duckdb:{target}", "--until-caught-up"]))
            run([sys.executable, "-m", "cdc", "teardown", dsn])
            target.unlink()
    report(console, f"Snapshot, {count:,} rows", count, theirs, ours, "COPY TO STDOUT, one connection", 0.5)
