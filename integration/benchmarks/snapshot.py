"""Copying a table into DuckDB, against one `COPY ... TO STDOUT` into /dev/null.

As in the drains, what each side needs to start and to copy an empty table is measured in the same run, and taken off.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rich.console import Console

from cdc.demo.server import PrivatePostgres
from integration.benchmarks.drain import ROW, TEN_COLUMNS
from integration.benchmarks.measure import Took, report, run


def copy(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """2,000,000 rows of ten columns."""
    count = int(2_000_000 * scale)
    dsn = server.create_database("copied")
    server.execute(f"CREATE TABLE t ({TEN_COLUMNS})", "copied")
    psql = [str(server.binaries / "psql"), "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "-d", "copied"]

    def copy_once() -> Took:
        return run([*psql, "-c", "COPY t TO STDOUT", "-o", "/dev/null"], {"PGPASSFILE": str(server.passfile)})

    def replicate_once() -> Took:
        with tempfile.TemporaryDirectory() as folder:
            target = f"duckdb:{Path(folder) / 'copy.duckdb'}"
            took = run([sys.executable, "-m", "cdc", "run", dsn, target, "--until-caught-up"])
        run([sys.executable, "-m", "cdc", "teardown", dsn, "--name", "copy", "--yes"])
        return took

    idle, idle_theirs = replicate_once(), copy_once()
    server.execute(f"INSERT INTO t SELECT {ROW} FROM generate_series(1, {count}) i", "copied")
    server.execute("VACUUM ANALYZE t", "copied")
    theirs, ours = [], []
    for _ in range(pairs):
        theirs.append(copy_once().beyond(idle_theirs))
        ours.append(replicate_once().beyond(idle))
    report(console, f"Snapshot, {count:,} rows", count, theirs, ours, "COPY TO STDOUT, one connection", 0.5)
