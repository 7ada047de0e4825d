"""`cdc rebuild`: a target anew from a journal."""

from __future__ import annotations

from typing import Annotated

import typer

from cdc.cli.app import TargetArgument, app, messages
from cdc.cli.run import stop_on_signals
from cdc.cli.view import watch
from cdc.config import MEGABYTE, Options, open_rebuild


@app.command()
def rebuild(
    target: TargetArgument,
    source: Annotated[str, typer.Option("--from", metavar="journal:DIR", help="The journal.")],
    until: Annotated[
        str | None, typer.Option("--until", metavar="POSITION|TIME", help="Stop there: what the source held then.")
    ] = None,
    memory: Annotated[int, typer.Option(min=64, help="Megabytes that DuckDB may use.")] = 256,
) -> None:
    """Build TARGET, which must be new, from what a journal holds: the copy that it began with, and the log since.

    Nothing is asked of the database. `cdc run journal:DIR TARGET` goes on from there.
    """
    pipeline = open_rebuild(source, target, until, Options(target_memory=memory * MEGABYTE))
    stop_on_signals(pipeline)
    pipeline.run_beside(lambda _: watch(pipeline, messages, None))
