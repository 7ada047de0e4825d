"""Many tables: what a table costs must not depend on how many there are, at the first start (P21) and when it changes (P25)."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from cdc.demo.server import PrivatePostgres
from integration.benchmarks.latency import Observed, following, pipeline_of
from integration.benchmarks.measure import LIMIT_MB, Took, run

TOUCHED = (1, 100, 2_000)  # tables that one commit changes
_COMMITS = 10
_AT_ONCE = 250  # tables made in one transaction


def copies(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """First starts with 1,000 and 5,000 tables of one row."""
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


def commits(server: PrivatePostgres, console: Console, _pairs: int, scale: float) -> None:
    """Commits, one after the other, each of which updates a row in some tables of those that are followed."""
    name = "touched"
    dsn = _tables(server, name, max(TOUCHED))
    prices = {}
    console.print(f"Commits that update one row in each of some of {max(TOUCHED):,} tables:", highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "touched.duckdb"
        pipeline_of(dsn, path, tables="public.*", until_caught_up=True).run()
        target = Observed(path)
        pipeline = pipeline_of(dsn, path, tables="public.*")
        pipeline._make_target = lambda: target
        with following(pipeline):
            for count in TOUCHED:
                first = _touch(server, name, target, count, 1)
                cpu = prices[count] = _touch(server, name, target, count, max(int(_COMMITS * scale), 1)) / count
                console.print(
                    f"  {count:,}: {cpu * count * 1000:.2f} ms of CPU a commit, {cpu * 1000:.3f} ms a table; the first "
                    f"commit {first * 1000:.1f} ms",
                    highlight=False,
                )
    run([sys.executable, "-m", "cdc", "teardown", dsn, "--name", "cdc", "--yes"])
    few, many = sorted(prices)[1:]
    console.print(
        f"  a table, of {many:,} to of {few:,}: {prices[many] / prices[few]:.2f} (to reach: 1.5)\n", highlight=False
    )


def _touch(server: PrivatePostgres, name: str, target: Observed, count: int, times: int) -> float:
    """Seconds of CPU of this process that a commit takes; the server changes the rows by itself."""
    began = time.process_time()
    for _ in range(times):
        seen = len(target.delays)
        server.execute(
            f"DO $$ BEGIN FOR n IN 0..{count - 1} LOOP EXECUTE format('UPDATE t%s SET w = w + 1', n); END LOOP; END $$",
            name,
        )
        while len(target.delays) == seen:
            time.sleep(0.01)
    return (time.process_time() - began) / times


def _first_start(server: PrivatePostgres, count: int) -> Took:
    dsn = _tables(server, f"tables_{count}", count)
    with tempfile.TemporaryDirectory() as folder:
        target = f"duckdb:{Path(folder) / 'tables.duckdb'}"
        took = run([sys.executable, "-m", "cdc", "run", dsn, target, "--until-caught-up"])
    run([sys.executable, "-m", "cdc", "teardown", dsn, "--name", "tables", "--yes"])
    return took


def _tables(server: PrivatePostgres, name: str, count: int) -> str:
    """A database with so many tables of one row."""
    dsn = server.create_database(name)
    for begin in range(0, count, _AT_ONCE):
        numbers = range(begin, min(begin + _AT_ONCE, count))
        make = "CREATE TABLE t{0} (id int PRIMARY KEY, v text, w int); INSERT INTO t{0} VALUES ({0}, 'row', 1)"
        server.execute("; ".join(make.format(number) for number in numbers), name)
    return dsn
