"""`cdc verify`: whether the target is what the source is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from cdc.cli.app import ExcludeOption, NameOption, SourceArgument, TablesOption, TargetArgument, app
from cdc.cli.app import selection as chosen
from cdc.cli.consoles import console, messages
from cdc.errors import EXIT_RESTARTABLE
from cdc.logs import without_password
from cdc.options import Options

_SHOWN = 20  # differing rows of one table; --json has them all


@app.command()
def verify(
    source: SourceArgument,
    target: TargetArgument,
    tables: TablesOption = None,
    exclude: ExcludeOption = None,
    name: NameOption = None,
    sample: Annotated[
        float, typer.Option(min=0.0001, max=1.0, help="How much of each table is compared, chosen at random.")
    ] = 1.0,
    max_rate: Annotated[
        float | None, typer.Option("--max-rate", min=1, help="How many rows the source digests per second, at most.")
    ] = None,
    show_values: Annotated[
        bool, typer.Option("--show-values", help="Also show the values of rows that differ.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, which `cdc repair` reads.")] = False,
) -> None:
    """Compare every value of every row, while replication runs and the application writes.

    Each part of a table is compared at one exact position of the log. The shape of the table is compared first: in the
    source's catalog, in the pipeline and in the target. Ends with 0 if all is identical, with 1 if anything differs,
    could not be compared, or is not followed.
    """
    from cdc.runs import have_done
    from cdc.whereabouts import name_of

    wanted = chosen(tables, exclude)
    arguments = {
        "tables": wanted.include,
        "exclude": wanted.exclude,
        "sample": sample,
        "max_rate": max_rate,
        "with_values": show_values,
    }
    with messages.status("comparing") as line:
        found = have_done(
            source,
            target,
            Options(name=name_of(source, target, name)),
            "verify",
            arguments,
            lambda report: line.update(f"comparing {report['table']}: {report['rows']:,} rows"),
        )
    if as_json:
        report = {"source": without_password(source), "target": without_password(target), **found}
        sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_APPEND_NEWLINE))
    else:
        _print(found["tables"])
    if not found["identical"]:
        raise typer.Exit(EXIT_RESTARTABLE)


def _print(tables: list[Mapping[str, Any]]) -> None:
    from cdc.jobs.shapes import ShapeDifference

    summary = Table("table", "rows compared", "at", "outcome")
    for table in tables:
        if table["shape"]:
            outcome = "[red]another shape[/red]"
        elif table["trouble"]:
            outcome = f"[yellow]not compared[/yellow]: {table['trouble']}"
        elif table["different"]:
            outcome = f"[red]{table['different']:,} rows differ[/red]"
        else:
            outcome = "[green]identical[/green]"
        summary.add_row(table["table"], f"{table['rows']:,}", table["last_position"] or "-", outcome)
    console.print(summary)
    for table in tables:
        for entry in table["shape"]:
            line = f"{table['table']}: {ShapeDifference(**entry)}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        if table["left_out"]:
            line = f"{table['table']}: left out: {', '.join(table['left_out'])}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        for difference in table["differences"][:_SHOWN]:
            console.print(_line(table["table"], difference), highlight=False, markup=False, soft_wrap=True)
        if (more := table["different"] - _SHOWN) > 0:
            console.print(f"{table['table']}: and {more:,} more; --json lists them.", highlight=False, markup=False)


def _line(table: str, difference: Mapping[str, Any]) -> str:
    key = difference["key"]
    which = ", ".join(f"{name}={value}" for name, value in key.items()) if key else f"{difference['rows']} rows"
    words = [f"{table} ({which}): {difference['found']} at {difference['position']}"]
    for side in ("source", "target"):
        if (row := difference.get(side)) is not None:
            words.append(f"  {side}: " + ", ".join(f"{column}={value!r}" for column, value in row.items()))
    return "\n".join(words)
