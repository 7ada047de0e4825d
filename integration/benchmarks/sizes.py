"""Copies of tables of several sizes into DuckDB: neither the CPU of a row nor the memory may depend on the size.

As in the other copies, what it takes to start and to copy an empty table is measured in the same run, and taken off.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from integration.benchmarks import binlog, drain
from integration.benchmarks.measure import Took, run

MILLIONS = (1, 2, 10)
_LIMIT_MB = 500


def from_postgres(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """1, 2 and 10 million rows of ten columns."""
    dsns: dict[int, str] = {}
    for count in _counts(scale):
        name = f"sized_{count}"
        dsns[count] = server.create_database(name)
        server.execute(f"CREATE TABLE t ({drain.TEN_COLUMNS})", name)
        server.execute(f"INSERT INTO t SELECT {drain.ROW} FROM generate_series(1, {count}) i", name)
        server.execute("VACUUM ANALYZE t", name)
    _compare(console, "PostgreSQL", dsns, pairs)


def from_mysql(server: PrivateMySql, console: Console, pairs: int, scale: float) -> None:
    """The same, on MySQL or MariaDB."""
    dsns: dict[int, str] = {}
    for count in _counts(scale):
        name = f"sized_{count}"
        dsns[count] = server.create_database(name)
        server.execute(f"CREATE TABLE t ({binlog.COLUMNS})", database=name)
        binlog.fill(server, name, count)
    _compare(console, server.flavor, dsns, pairs)


def _counts(scale: float) -> list[int]:
    return [0, *(int(millions * 1_000_000 * scale) for millions in MILLIONS)]


def _compare(console: Console, source: str, dsns: Mapping[int, str], pairs: int) -> None:
    idle = _copy(dsns[0])
    took: dict[int, list[Took]] = {count: [] for count in dsns if count}
    for _ in range(pairs):
        for count, runs in took.items():
            runs.append(_copy(dsns[count]).beyond(idle))
    columns = ("rows", "rows/s", "CPU s of 1 M", "of the least", "peak MB")
    table = Table(*columns, title=f"{source}, copies by size", title_justify="left")
    least = _cpu(*next(iter(took.items())))
    for count, runs in took.items():
        pace = count / median(each.seconds for each in runs)
        cpu, peak = _cpu(count, runs), max(each.peak_mb for each in runs)
        table.add_row(f"{count:,}", f"{pace:,.0f}", f"{cpu:.2f}", f"{cpu / least:.2f}", f"{peak:.0f}")
    console.print(table)
    console.print(f"medians of {pairs} rounds; to reach: 1.10 of the least; peak memory: limit {_LIMIT_MB} MB\n")


def _cpu(count: int, runs: Sequence[Took]) -> float:
    """Seconds of CPU that 1,000,000 rows take."""
    return median(each.cpu for each in runs) * 1_000_000 / count


def _copy(dsn: str) -> Took:
    with tempfile.TemporaryDirectory() as folder:
        took = run([sys.executable, "-m", "cdc", "run", dsn, f"duckdb:{folder}/sized.duckdb", "--until-caught-up"])
    run([sys.executable, "-m", "cdc", "teardown", dsn, "--name", "sized", "--yes"])
    return took
