"""`cdc query`: one question to a target, also while a pipeline writes it."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cdc.cli.app import TargetArgument, app
from cdc.cli.consoles import console, messages
from cdc.cli.quantity import seconds_of
from cdc.logs import printable
from cdc.target import QueryAnswer, QueryWishes


class QueryFormat(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    ARROW = "arrow"


@app.command()
def query(
    target: TargetArgument,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="A SELECT, in DuckDB's SQL.")],
    form: Annotated[
        QueryFormat, typer.Option("--format", help="How to print the rows; json is one object a line.")
    ] = QueryFormat.TABLE,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="The most rows to print.")] = 1_000,
    timeout: Annotated[
        str,
        typer.Option(
            "--timeout",
            metavar="DURATION",
            help="The longest time that it may take. A running pipeline allows at most 30s.",
        ),
    ] = "5s",
) -> None:
    """Ask TARGET one question: what it holds at this moment.

    If a pipeline has the file open, it answers between two transactions, and applies nothing meanwhile. For
    dashboards and large questions: cdc run ... --publish FILE --serve ADDRESS.
    """
    import pyarrow as pa

    from cdc.runs import query as ask
    from cdc.targets.duckdb.rendering import as_csv, as_json_lines

    answer = ask(target, QueryWishes(sql, limit, seconds_of("--timeout", timeout)))
    match form:
        case QueryFormat.ARROW:
            with pa.ipc.new_stream(sys.stdout.buffer, answer.rows.schema) as stream:
                stream.write_table(answer.rows)
        case QueryFormat.JSON:
            sys.stdout.buffer.write(as_json_lines(answer.rows, answer.types))
        case QueryFormat.CSV:
            sys.stdout.buffer.write(as_csv(answer.rows))
        case QueryFormat.TABLE:
            _show(answer)
    sys.stdout.flush()
    if answer.is_cut:
        messages.print(f"There are more than these {limit} rows: --limit says how many to print.", highlight=False)


def _show(answer: QueryAnswer) -> None:
    from cdc.targets.duckdb.rendering import as_texts

    shown = Table(*(escape(printable(name)) for name in answer.rows.column_names))
    for row in as_texts(answer.rows):
        shown.add_row(*("[dim]NULL[/dim]" if value is None else escape(printable(value)) for value in row))
    console.print(shown)
