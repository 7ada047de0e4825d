"""`cdc teardown`: take a pipeline away."""

from __future__ import annotations

from typing import Annotated

import typer

from cdc.cli.app import TARGET_FORMS, NameOption, SourceArgument, app, console
from cdc.config import known_as, source_module, status_file, target_module


@app.command()
def teardown(
    source: SourceArgument,
    target: Annotated[str | None, typer.Argument(metavar="[TARGET]", help=TARGET_FORMS)] = None,
    name: NameOption = "cdc",
) -> None:
    """Remove the slot, the publications and the state that the pipeline made, and nothing else. Its tables stay."""
    removed = []
    if target is not None:
        module, path = target_module(target)
        removed += module.teardown_target(path, name)
        file = status_file(target, name)
        if file.exists():
            file.unlink()
            removed.append(f"status file {file}")
    removed += source_module(source).teardown_source(source, known_as(source, target, name))
    for what in removed:
        console.print(f"removed {what}", highlight=False, markup=False, soft_wrap=True)
    if not removed:
        console.print(f"There is nothing of a pipeline named {name!r}.", highlight=False, markup=False)
