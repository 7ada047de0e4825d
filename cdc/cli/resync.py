"""`cdc resync`: copy whole tables anew."""

from __future__ import annotations

from typing import Annotated

import typer

from cdc.cli.app import NameOption, SourceArgument, TargetArgument, app, console, messages, selection
from cdc.config import Options, have_done


@app.command()
def resync(
    source: SourceArgument,
    target: TargetArgument,
    table: Annotated[list[str], typer.Option("--table", "-t", help="A table; may be given again, and be a pattern.")],
    name: NameOption = "cdc",
) -> None:
    """Copy whole tables anew, part by part, while they and all others are followed."""
    arguments = {"tables": selection(table, None).include}
    with messages.status("copying"):
        done = have_done(source, target, Options(name=name), "resync", arguments, lambda _: None)
    for entry in done["tables"]:
        console.print(f"{entry['table']}: copied anew", highlight=False, markup=False)
