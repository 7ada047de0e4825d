"""First starts with many tables of one row: what a table costs must not depend on how many there are (P21)."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rich.console import Console

from cdc.demo.server import PrivatePostgres
from integration.benchmarks.measure import LIMIT_MB, Took, run

_AT_ONCE = 250  # tables made in one transaction


def copies(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """1,000 and 5,000 tables."""
    few, many = int(1000 * scale), int(5000 * scale)
    rates = []
    for count in (few, many):
        took = _first_start(server, count)
        rates.append(count / took.seconds)
        console.print(
            f"{count:,} tables: {rates[-1]:.0f} tables/s, {took.seconds:.1f} s, CPU {took.cpu:.1f} s, "
            f"peak memory {took.peak_mb:.0f} of {LIMIT_MB} MB",
            highlight=False,
        )
    console.print(f"ratio {rates[1] / rates[0]:.2f} (to reach: 0.8)\n", highlight=False)


def _first_start(server: PrivatePostgres, count: int) -> Took:
    name = f"tables_{count}"
    dsn = server.create_database(name)
    for begin in range(0, count, _AT_ONCE):
        numbers = range(begin, min(begin + _AT_ONCE, count))
        make = "CREATE TABLE t{0} (id int PRIMARY KEY, v text, w int); INSERT INTO t{0} VALUES ({0}, 'row', 1)"
        server.execute("; ".join(make.format(number) for number in numbers), name)
    with tempfile.TemporaryDirectory() as folder:
        target = f"duckdb:{Path(folder) / 'tables.duckdb'}"
        took = run([sys.executable, "-m", "cdc", "run", dsn, target, "--until-caught-up"])
    run([sys.executable, "-m", "cdc", "teardown", dsn, "--name", "tables", "--yes"])
    return took
