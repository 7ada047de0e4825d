"""`cdc resync`: copy whole tables again."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from cdc.cli import completion
from cdc.cli.app import NameOption, SourceArgument, TargetArgument, app, selection
from cdc.cli.consoles import console, messages
from cdc.errors import UsageError
from cdc.options import Options

log = logging.getLogger(__name__)


@app.command()
def resync(
    source: SourceArgument,
    target: TargetArgument,
    tables: Annotated[
        list[str] | None,
        typer.Option(
            "--tables",
            "-t",
            metavar="PATTERN",
            help="Tables to copy again, as schema.table with * and ?; may be repeated.",
            autocompletion=completion.tables,
        ),
    ] = None,
    table: Annotated[list[str] | None, typer.Option("--table", hidden=True)] = None,
    name: NameOption = None,
) -> None:
    """Copy whole tables again, part by part, while all tables are followed."""
    from cdc.runs import have_done
    from cdc.whereabouts import name_of

    if table is not None:
        log.warning("Write --tables: from the next release on, --table is not known here.")
    wanted = [*(tables or []), *(table or [])]
    if not wanted:
        raise UsageError("--tables is missing.", hint="Write --tables schema.table, or --tables '*.*' for all.")
    arguments = {"tables": selection(wanted, None).include}
    options = Options(name=name_of(source, target, name))
    with messages.status("copying"):
        done = have_done(source, target, options, "resync", arguments, lambda _: None)
    for entry in done["tables"]:
        console.print(f"{entry['table']}: copied again", highlight=False, markup=False)
