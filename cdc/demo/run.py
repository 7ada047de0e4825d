"""The demonstration from beginning to end."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import duckdb
import psycopg
from rich.console import Console
from rich.table import Table

from cdc.demo import mysql_shop, shop
from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from cdc.engine.pipeline import Pipeline
from cdc.errors import UsageError
from cdc.logs import Facts
from cdc.model.selection import Selection
from cdc.options import Options
from cdc.runs import TableComparison, compare_tables, open_pipeline
from cdc.screen.lines import Lines
from cdc.screen.shown import screen

TARGET = Path("demo.duckdb")
_MARK = "_cdc_demo"  # a schema of the target
_CATCH_UP_WITHIN = 120.0  # seconds
_LINE_EVERY = 2.0
_LOOK_EVERY = 0.1


class _Workload(Protocol):
    changes: int
    transactions: int
    rolled_back: int

    def start(self) -> None: ...
    def stop(self) -> None: ...


def run_demo(*, source: str, seconds: float, rate: float, keep: bool, console: Console) -> bool:
    """Run it all and say whether both sides ended equal.

    Args:
        source: `postgresql`, `mysql` or `mariadb`.
    """
    _make_room()
    server = PrivatePostgres(keep=keep) if source == "postgresql" else PrivateMySql(source)
    with server:
        dsn, workload = (
            _shop(server, rate, console) if isinstance(server, PrivatePostgres) else _accounts(server, rate, console)
        )
        workload.start()
        shown = dsn.replace(f":{server.password}@", "@")
        console.print(f"The workload runs; now: cdc run '{shown}' duckdb:{TARGET}\n", highlight=False, soft_wrap=True)
        _follow(dsn, workload, seconds, console)
        console.print(
            f"\n{workload.transactions:,} transactions with {workload.changes:,} row changes, "
            f"{workload.rolled_back:,} times rolled back. Comparing every value of every row:",
            highlight=False,
        )
        outcome = compare_tables(dsn, f"duckdb:{TARGET}", Selection())
    _print_outcome(outcome, source, console)
    return bool(outcome) and all(table.equal for table in outcome)


def _make_room() -> None:
    """Remove what an earlier demo has made, and begin a file that says of itself that a demo has made it (O19).

    Raises:
        UsageError: there is a file that no demo has made, or that somebody uses.
    """
    found = [file for file in (TARGET, TARGET.with_name(f"{TARGET.name}.wal")) if file.exists()]
    if found and not _is_of_demo():
        raise UsageError(
            f"{found[0].resolve()} exists, and is in use, or is not from an earlier demo.",
            hint=f"Start the demo in another folder (mkdir demo; cd demo; cdc demo), or move {found[0]} away.",
        )
    for file in found:
        file.unlink()
    with duckdb.connect(str(TARGET)) as made:
        made.execute(f"CREATE SCHEMA {_MARK}")


def _is_of_demo() -> bool:
    try:
        with duckdb.connect(str(TARGET), read_only=True) as connection:
            mark = "SELECT 1 FROM duckdb_schemas() WHERE schema_name = ? AND database_name = current_database()"
            return connection.execute(mark, [_MARK]).fetchone() is not None
    except duckdb.Error:
        return False


def _shop(server: PrivatePostgres, rate: float, console: Console) -> tuple[str, _Workload]:
    version = server.execute("SHOW server_version")[0][0]
    console.print(f"PostgreSQL {version} runs in {server.folder} on port {server.port}.", highlight=False)
    dsn = server.create_database("shop")
    with psycopg.connect(dsn, autocommit=True) as connection:
        shop.create(connection)
    return dsn, shop.Workload(dsn, rate)


def _accounts(server: PrivateMySql, rate: float, console: Console) -> tuple[str, _Workload]:
    version = server.execute("SELECT version()")[0][0]
    console.print(f"{server.flavor} {version} runs in {server.folder} on port {server.port}.", highlight=False)
    dsn = server.create_database("shop")
    with server.connect("shop") as connection:
        mysql_shop.create(connection)
    return dsn, mysql_shop.Workload(server.arguments("shop"), rate)


def _follow(dsn: str, workload: _Workload, seconds: float, console: Console) -> None:
    """Follow while the workload runs; then once more, until everything has arrived."""

    def meanwhile(thread: threading.Thread) -> None:
        _watch(pipeline, thread, time.monotonic() + seconds, console)
        workload.stop()
        console.print("The workload has stopped; waiting until the target has it all.", highlight=False)

    pipeline = open_pipeline(dsn, f"duckdb:{TARGET}", Options(name="demo"))
    pipeline.run_beside(meanwhile)
    pipeline = open_pipeline(dsn, f"duckdb:{TARGET}", Options(name="demo", until_caught_up=True))
    pipeline.run_beside(lambda thread: _watch(pipeline, thread, time.monotonic() + _CATCH_UP_WITHIN, console))


def _watch(pipeline: Pipeline, thread: threading.Thread, until: float, console: Console) -> None:
    """Show the pipeline until a time, or its end."""

    def say(line: Facts) -> None:
        console.print(str(line), highlight=False, markup=False, soft_wrap=True)

    with screen(console, Lines(say, _LINE_EVERY)) as shown:
        while thread.is_alive() and time.monotonic() < until:
            time.sleep(_LOOK_EVERY)
            shown.show(pipeline.name, pipeline.view())
            shown.draw()


def _print_outcome(outcome: Sequence[TableComparison], source: str, console: Console) -> None:
    table = Table("table", f"rows in {source}", "rows in DuckDB", "outcome")
    for entry in outcome:
        there = f"{entry.target_rows:,}" if entry.target_rows is not None else "no table"
        verdict = "[green]equal[/green]" if entry.equal else "[red]DIFFERENT[/red]"
        table.add_row(str(entry.table), f"{entry.source_rows:,}", there, verdict)
    console.print(table)
