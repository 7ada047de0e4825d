"""`cdc history`, `cdc as-of`, `cdc diff`: what a target of `--mode history` knows of the past."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Annotated, Any

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from cdc.cli.app import TargetArgument, app
from cdc.cli.consoles import console, messages
from cdc.errors import UsageError
from cdc.logs import printable

TableArgument = Annotated[str, typer.Argument(metavar="TABLE", help="schema.table, or the table's name alone.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]

_PLACE = (
    "a time (2026-01-31 12:00:00+00; UTC if it names no zone; @1769860800), or a position as `cdc history` shows it"
)


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@app.command(context_settings={"ignore_unknown_options": True})  # -5 is a key
def history(
    target: TargetArgument,
    table: TableArgument,
    key: Annotated[list[str], typer.Argument(metavar="KEY...", help="The values of the row's key, in order.")],
    as_json: JsonOption = False,
) -> None:
    """Show every version of a row: who changed what when."""
    with _histories(target) as histories:
        events = histories.versions(histories.table(table), key)
    if not events:
        raise UsageError(
            f"No row of {table} has ever had that key, as far as this history goes back.",
            hint="Write values as `cdc as-of` shows them. Before a value that begins with --, write -- as an "
            "argument of its own.",
        )
    if as_json:
        _json(
            {
                "op": event.op,
                "time": event.time,
                "position": event.position,
                "transaction": event.transaction,
                "row": event.row,
                "changed": event.changed,
            }
            | ({"reason": event.reason} if event.reason is not None else {})
            for event in events
        )
        return
    shown = Table("time", "position", "transaction", "op", "changed")
    for event in events:
        values = [f"{name}=[bold]{_text(event.row[name])}[/bold]" for name in event.changed]
        values += [escape(printable(event.reason))] if event.reason is not None else []
        number = "" if event.transaction is None else str(event.transaction)
        shown.add_row(event.time, escape(event.position), number, event.op, "\n".join(values))
    console.print(shown)


@app.command()
def as_of(
    target: TargetArgument,
    table: TableArgument,
    at: Annotated[str, typer.Argument(metavar="POSITION|TIME", help=f"The moment: {_PLACE}.")],
    form: Annotated[Format, typer.Option("--format", help="How to print the rows.")] = Format.TABLE,
) -> None:
    """Show the rows of a table as they were."""
    with _histories(target) as histories:
        known = histories.table(table)
        place = histories.place(known, at)
        columns, rows = histories.as_of(known, place)
        _say(place)
        if form is Format.JSON:
            _json(rows)
        elif form is Format.CSV:
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(row.values() for row in rows)
        else:
            shown = Table(*(escape(printable(name)) for name in columns))
            for row in rows:
                shown.add_row(*map(_text, row.values()))
            console.print(shown)


@app.command()
def diff(
    target: TargetArgument,
    table: TableArgument,
    before: Annotated[str, typer.Argument(metavar="A", help=f"The earlier moment: {_PLACE}.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The later moment, written in the same way.")],
    as_json: JsonOption = False,
) -> None:
    """Show the rows of a table that were added, removed or changed between two places."""
    with _histories(target) as histories:
        known = histories.table(table)
        places = [histories.place(known, at) for at in (before, after)]
        for place in places:
            _say(place)
        found = (
            {"change": "added" if old is None else "removed" if new is None else "changed", "before": old, "after": new}
            for old, new in histories.diff(known, *places)
        )
        if as_json:
            _json(found)
            return
        shown = Table("change", "row")
        for entry in found:
            shown.add_row(entry["change"], "\n".join(_differences(entry["before"], entry["after"], known.key)))
        console.print(shown)


def _differences(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, key: Iterable[str]) -> Iterable[str]:
    """The values of a row that came or went, or the key and what is different in one that changed."""
    if old is None or new is None:
        row = new if old is None else old
        return [f"{escape(printable(name))}={_text(value)}" for name, value in (row or {}).items()]
    return [
        f"{escape(printable(name))}={_text(new[name])}"
        if old[name] == new[name]
        else f"{escape(printable(name))}={_text(old[name])} -> [bold]{_text(new[name])}[/bold]"
        for name in new
        if old[name] != new[name] or name in key
    ]


def _say(place: object) -> None:
    """What is answered, beside the rows, which a program may read."""
    messages.print(printable(str(place)), highlight=False, markup=False, soft_wrap=True)


def _histories(target: str) -> AbstractContextManager[Any]:
    from cdc.runs import open_histories

    return open_histories(target)


def _text(value: object) -> str:
    return "[dim]NULL[/dim]" if value is None else escape(printable(str(value)))


def _json(entries: Iterable[Mapping[str, Any]]) -> None:
    for entry in entries:
        sys.stdout.buffer.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()
