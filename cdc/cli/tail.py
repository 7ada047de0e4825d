"""`cdc tail`: the change events as lines."""

from __future__ import annotations

import math
import sys
from typing import Annotated

import typer

from cdc.cli.app import (
    STALL_TIMEOUT,
    ExcludeOption,
    FormatOption,
    KeylessOption,
    SourceArgument,
    StallTimeoutOption,
    TablesOption,
    app,
    selection,
)
from cdc.cli.quantity import seconds_of
from cdc.errors import UsageError
from cdc.model.moment import Moment
from cdc.options import Options

OPS = ("insert", "update", "delete", "truncate", "drop", "copy", "reset", "gap", "note", "schema")


@app.command()
def tail(
    source: SourceArgument,
    tables: TablesOption = None,
    exclude: ExcludeOption = None,
    op: Annotated[
        list[str] | None, typer.Option("--op", help=f"Only these events: {', '.join(OPS)}; may be repeated.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="SQL", help="Only changes whose row fulfils this condition, in DuckDB's SQL."),
    ] = None,
    begin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="POSITION|TIME",
            help="Where to begin: binlog.000001:4, a GTID set, 0/16D3748 (PostgreSQL, with --slot), "
            "2024-12-31T23:59:59Z.",
        ),
    ] = None,
    event_format: FormatOption = None,
    schemas: Annotated[bool, typer.Option("--schemas", help="Debezium: describe the fields in each message.")] = False,
    transactions: Annotated[
        bool,
        typer.Option(
            "--transactions", help="Debezium: number the events of each transaction, and emit its begin and end."
        ),
    ] = False,
    slot: Annotated[
        str | None,
        typer.Option("--slot", help="PostgreSQL: keep a slot of this name, and go on from it the next time."),
    ] = None,
    include_keyless: KeylessOption = False,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when everything is emitted that the source had at the start.")
    ] = False,
    stall_timeout: StallTimeoutOption = STALL_TIMEOUT,
) -> None:
    """Print every row change of SOURCE as one line, in commit order, from now on. Ends when it is stopped.

    Changes of one transaction follow each other. docs/audit.md describes the lines.
    """
    from cdc.cli.process import Ending, end_process
    from cdc.connectors import origin_of, source_module
    from cdc.engine.liveness import Watch
    from cdc.engine.pipeline import Pipeline
    from cdc.formats import Chosen, FormatSettings, make
    from cdc.formats.where import Where
    from cdc.targets.jsonl.stream import StreamTarget, Taken

    options = Options(selection=selection(tables, exclude))
    chosen = Chosen(_ops(op), Where(where) if where is not None else None)
    wanted = Moment.parse(begin) if begin is not None else None
    settings = FormatSettings("tail", *origin_of(source), schemas=schemas, transactions=transactions)
    form, patience = event_format or "json", seconds_of("--stall-timeout", stall_timeout)
    make(form, settings)
    if (schemas or transactions) and form != "debezium":
        raise UsageError("--schemas and --transactions need Debezium's format.", hint="--format debezium")
    make_source = source_module(source).tail_factory(
        source,
        slot=slot,
        selection=options.selection,
        include_keyless=include_keyless,
        budget=options.segment_bytes,
        begin=wanted,
    )
    since = wanted.time if wanted is not None else None
    lines = Taken(sys.stdout.fileno(), lambda: pipeline.is_running)
    output = StreamTarget(lines, lambda: make(form, settings), chosen, since)
    pipeline = Pipeline(
        make_source,
        lambda: output,
        queue_bytes=options.queue_bytes,
        until_caught_up=until_caught_up,
        watch=Watch(patience, end_process, target_factor=math.inf),  # who reads the lines may take their time
    )
    Ending().stops(pipeline.stop)
    pipeline.run()


def _ops(wanted: list[str] | None) -> frozenset[str] | None:
    """Kinds of events, which may also be separated by commas."""
    if wanted is None:
        return None
    names = frozenset(name.strip() for words in wanted for name in words.split(","))
    if unknown := sorted(names.difference(OPS)):
        raise UsageError(f"{unknown[0]!r} is not a kind of event.", hint=f"There are {', '.join(OPS)}.")
    return names
