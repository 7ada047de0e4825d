"""`cdc tail`: the change events as JSON lines."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cdc.cli.app import ExcludeOption, KeylessOption, SourceArgument, TablesOption, app, selection
from cdc.cli.run import stop_on_signals
from cdc.config import Options, source_module
from cdc.pipeline import Pipeline
from cdc.targets.jsonl import JsonLinesTarget


@app.command()
def tail(
    source: SourceArgument,
    tables: TablesOption = None,
    exclude: ExcludeOption = None,
    slot: Annotated[
        str | None,
        typer.Option("--slot", help="Keep a slot of this name, and go on from it the next time (PostgreSQL)."),
    ] = None,
    include_keyless: KeylessOption = False,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End once what the source had at the start is told.")
    ] = False,
) -> None:
    """Print every row change of SOURCE as one line of JSON, in commit order, from now on."""
    options = Options(selection=selection(tables, exclude))
    make_source = source_module(source).tail_factory(
        source,
        slot=slot,
        selection=options.selection,
        include_keyless=include_keyless,
        budget=options.segment_bytes,
    )
    output = JsonLinesTarget(sys.stdout.buffer)
    pipeline = Pipeline(
        make_source,
        lambda: output,
        queue_bytes=options.queue_bytes,
        until_caught_up=until_caught_up,
    )
    stop_on_signals(pipeline)
    pipeline.run()
