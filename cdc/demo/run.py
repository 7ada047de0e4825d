"""The demonstration from beginning to end."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg
from rich.console import Console
from rich.live import Live
from rich.table import Table

from cdc.config import Options, TableComparison, compare_tables, open_pipeline
from cdc.demo.server import PrivatePostgres
from cdc.demo.shop import Workload, create
from cdc.pipeline import Pipeline, PipelineView
from cdc.selection import Selection
from cdc.sources.postgres.position import lsn, parse_lsn

TARGET = Path("demo.duckdb")
_CATCH_UP_WITHIN = 120.0  # seconds
_LINE_EVERY = 2.0


def run_demo(*, seconds: float, rate: float, keep: bool, console: Console) -> bool:
    """Run it all and say whether both sides ended equal."""
    for leftover in TARGET.parent.glob(f"{TARGET.name}*"):
        leftover.unlink()
    with PrivatePostgres(keep=keep) as server:
        version = server.execute("SHOW server_version")[0][0]
        console.print(f"PostgreSQL {version} runs in {server.folder} on port {server.port}.", highlight=False)
        dsn = server.create_database("shop")
        with psycopg.connect(dsn, autocommit=True) as connection:
            create(connection)
        selection = Selection(("shop.*",))
        workload = Workload(dsn, rate)
        workload.start()
        console.print(f"The workload runs; now: cdc run {dsn} duckdb:{TARGET}\n", highlight=False, soft_wrap=True)
        pipeline = open_pipeline(dsn, f"duckdb:{TARGET}", Options(name="demo", selection=selection))
        _follow(pipeline, workload, server, seconds, console)
        console.print(
            f"\n{workload.transactions:,} transactions with {workload.changes:,} row changes, "
            f"{workload.rolled_back:,} times rolled back. Comparing every value of every row:",
            highlight=False,
        )
        outcome = compare_tables(dsn, f"duckdb:{TARGET}", selection)
    _print_outcome(outcome, console)
    return bool(outcome) and all(table.equal for table in outcome)


def _follow(pipeline: Pipeline, workload: Workload, server: PrivatePostgres, seconds: float, console: Console) -> None:
    def meanwhile(thread: threading.Thread) -> None:
        _watch(pipeline, thread, time.monotonic() + seconds, console)
        workload.stop()
        end = lsn(parse_lsn(str(server.execute("SELECT pg_current_wal_flush_lsn()")[0][0])))
        pipeline.stop_at(end)
        console.print(f"The workload has stopped at {end}; waiting until the target has it all.", highlight=False)
        _watch(pipeline, thread, time.monotonic() + _CATCH_UP_WITHIN, console)

    pipeline.run_beside(meanwhile)


def _watch(pipeline: Pipeline, thread: threading.Thread, until: float, console: Console) -> None:
    """Show the pipeline until a time, or its end."""
    before, since, said = 0, time.monotonic(), 0.0
    with Live(console=console, refresh_per_second=5, transient=True) as live:
        while thread.is_alive() and time.monotonic() < until:
            time.sleep(0.2)
            view, now = pipeline.view(), time.monotonic()
            rows = view.rows_copied + view.rows_applied
            rate, before, since = (rows - before) / (now - since), rows, now
            if console.is_terminal:
                live.update(_picture(view, rate))
            elif now - said >= _LINE_EVERY:
                said = now
                console.print(
                    f"{view.phase}: {view.rows_copied:,} rows copied, {view.rows_applied:,} changes applied, "
                    f"{rate:,.0f} rows/s, {view.lag_bytes:,} bytes behind",
                    highlight=False,
                )


def _picture(view: PipelineView, rate: float) -> Table:
    title = f"{view.phase}   {rate:,.0f} rows/s   lag {view.lag_bytes:,} bytes, {view.lag_seconds:.1f} s"
    table = Table("table", "copied", "inserted", "updated", "deleted", title=title, title_justify="left")
    for name, entry in sorted(view.tables.items()):
        numbers = (entry.rows_copied, entry.inserted, entry.updated, entry.deleted)
        table.add_row(str(name), *(f"{number:,}" for number in numbers))
    return table


def _print_outcome(outcome: Sequence[TableComparison], console: Console) -> None:
    table = Table("table", "rows in PostgreSQL", "rows in DuckDB", "outcome")
    for entry in outcome:
        there = f"{entry.target_rows:,}" if entry.target_rows is not None else "no table"
        verdict = "[green]equal[/green]" if entry.equal else "[red]DIFFERENT[/red]"
        table.add_row(str(entry.table), f"{entry.source_rows:,}", there, verdict)
    console.print(table)
