"""`cdc backup`: a copy of a target, also while it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cdc.cli.app import TargetArgument, app
from cdc.cli.consoles import console, messages


@app.command()
def backup(
    target: TargetArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy goes. A file of that name is replaced.")],
) -> None:
    """Copy a DuckDB file between two transactions, also while a pipeline writes it."""
    from cdc.runs import back_up

    with messages.status("copying"):
        done = back_up(target, file)
    place = f"as of {done['position']}" if done["position"] is not None else "without a checkpoint"
    console.print(f"{file}: {place}", highlight=False, markup=False, soft_wrap=True)
