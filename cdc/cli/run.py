"""`cdc run`: copy, then follow."""

from __future__ import annotations

import os
import signal
from typing import Annotated

import typer

from cdc.cli.app import (
    ExcludeOption,
    KeylessOption,
    NameOption,
    SourceArgument,
    TablesOption,
    TargetArgument,
    app,
    messages,
    selection,
)
from cdc.cli.view import watch
from cdc.config import MEGABYTE, Options, open_pipeline, status_file
from cdc.pipeline import Pipeline


@app.command()
def run(
    source: SourceArgument,
    target: TargetArgument,
    tables: TablesOption = None,
    exclude: ExcludeOption = None,
    name: NameOption = "cdc",
    include_keyless: KeylessOption = False,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End once what the source had at the start is applied.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Sessions that read the snapshot. [default: number of cores]")
    ] = None,
    memory: Annotated[int, typer.Option(min=64, help="Megabytes that DuckDB may use.")] = 256,
    segment: Annotated[int, typer.Option(min=1, max=1024, help="Megabytes of log applied at a time, at most.")] = 16,
) -> None:
    """Copy what SOURCE holds into TARGET, then follow its log. Goes on where it was when run again."""
    options = Options(
        name=name,
        selection=selection(tables, exclude),
        include_keyless=include_keyless,
        workers=workers or os.cpu_count() or 1,
        segment_bytes=segment * MEGABYTE,
        queue_bytes=3 * segment * MEGABYTE,
        target_memory=memory * MEGABYTE,
        until_caught_up=until_caught_up,
    )
    pipeline = open_pipeline(source, target, options)
    stop_on_signals(pipeline)
    pipeline.run_beside(lambda _: watch(pipeline, messages, status_file(target)))


def stop_on_signals(pipeline: Pipeline) -> None:
    """SIGINT and SIGTERM end the run at the next commit boundary (D-18)."""

    def stop(_number: int, _frame: object) -> None:
        pipeline.stop()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
