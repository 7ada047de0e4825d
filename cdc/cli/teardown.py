"""`cdc teardown`: take a pipeline away."""

from __future__ import annotations

from typing import Annotated

import typer

from cdc.cli.app import NameOption, OptionalTargetArgument, SourceArgument, app
from cdc.cli.consoles import console
from cdc.errors import EXIT_RESTARTABLE


@app.command()
def teardown(
    source: SourceArgument,
    target: OptionalTargetArgument = None,
    name: NameOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove the slot, the publications and the state that the pipeline made, and nothing else. The tables stay.

    SOURCE, TARGET and the name must belong together. The command first shows what it would remove. If TARGET is gone,
    leave it out: --name then names the pipeline, and only SOURCE is tidied up.
    """
    from cdc.runs import removals

    found = removals(source, target, name)
    if not found:
        console.print("There is nothing to remove.", highlight=False)
        return
    if not yes:
        for removal in found:
            _say(f"to be removed: {removal.what}")
        if not typer.confirm("Remove this? The pipeline can not go on afterwards.", err=True):
            raise typer.Exit(EXIT_RESTARTABLE)
    for removal in found:
        removal.remove()
        _say(f"removed {removal.what}")


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
