"""`cdc config`: what the file of settings would have done, and how editors know its keys."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from cdc.cli.app import app
from cdc.cli.consoles import console
from cdc.cli.settings import keys, read, run_command, the_settings
from cdc.errors import EXIT_OPERATOR
from cdc.logs import printable
from cdc.plan import Action, Begins, Plan, PlannedTable, plan
from cdc.settings.key import Key

config = typer.Typer(help="Check the file of settings, and show what it would do.", no_args_is_help=True)
app.add_typer(config, name="config")

_BEGINS = {
    Begins.NEW: "is new: it copies, then follows",
    Begins.GOES_ON: "goes on from its checkpoint",
    Begins.RUNS: "is run by another process now",
}
_KINDS = {str: "a text", list: "a list of texts", bool: "`true` or `false`", int: "a whole number", float: "a number"}


@config.command()
def check(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="The file. [default: as for cdc run]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find all mistakes in the file, then show what `cdc run` would make, copy and leave out. Changes nothing.

    Ends with 2 if the file has mistakes, with 3 if a person has to do something first.
    """
    settings = read(file) if file is not None else the_settings(context)
    command = run_command()
    with command.make_context("run", [], parent=context.parent) as of_run:
        wanted, _ = command.all_wanted(of_run, settings)
    plans = [plan(each.source, each.targets, each.options) for each in wanted]
    if as_json:
        report = {"file": str(settings.file), "pipelines": [asdict(each) for each in plans]}
        sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()
    else:
        for each in plans:
            _print(each)
        rows = sum(each.rows for each in plans)
        count = f"{len(plans)} pipeline{'s' * (len(plans) > 1)}"
        _say(f"{settings.file}: {count}; about {rows:,} rows would be copied. Nothing was changed.")
    if any(each.problems for each in plans):
        raise typer.Exit(EXIT_OPERATOR)


@config.command()
def schema(
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of docs/configuration.md.")] = False,
) -> None:
    """Print the JSON schema of the file, from which editors know its keys.

    The first line of the file names it for them: #:schema ./cdc.schema.json
    """
    if as_markdown:
        sys.stdout.write(markdown(keys()))
        return
    from cdc.settings.model import schema_of

    sys.stdout.buffer.write(orjson.dumps(schema_of(keys()), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def markdown(known: Sequence[Key]) -> str:
    """The table of docs/configuration.md."""
    lines = ["| key | holds | what it means |", "| --- | --- | --- |"]
    for key in sorted(known, key=lambda key: (not key.is_of_process, key.name)):
        top = " (at the top)" if key.is_of_process else ""
        lines.append(f"| `{key.name}`{top} | {_holds(key)} | {key.help.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def _holds(key: Key) -> str:
    if key.choices:
        return ", ".join(f'`"{choice}"`' for choice in key.choices)
    if key.written is not None:
        return f"{key.written.what}: {key.written.example}"
    bounds = [f"at {word} {bound:g}" for word, bound in (("least", key.least), ("most", key.most)) if bound is not None]
    return ", ".join([_KINDS[key.kind], *bounds])


def _print(found: Plan) -> None:
    _say(f"{found.pipeline}: {found.source} into {', '.join(found.targets)} {_BEGINS[found.begins]}")
    for made in found.makes:
        _say(f"  makes {made}")
    for problem in found.problems:
        console.print(f"  [bold red]PROBLEM[/] {escape(printable(problem))}", highlight=False, soft_wrap=True)
    for warning in found.warnings:
        console.print(f"  [yellow]WARNING[/] {escape(printable(warning))}", highlight=False, soft_wrap=True)
    if found.tables:
        console.print(_table(found.tables))


def _table(tables: Sequence[PlannedTable]) -> Table:
    shown = Table("table", "what becomes of it", "rows, about", "why")
    for each in tables:
        rows = f"{each.rows:,}" if each.action is Action.COPY and each.rows is not None else ""
        shown.add_row(*(escape(printable(text)) for text in (each.table, each.action, rows, each.reason)))
    return shown


def _say(line: str) -> None:
    console.print(printable(line), highlight=False, markup=False, soft_wrap=True)
