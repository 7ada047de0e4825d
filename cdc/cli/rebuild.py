"""`cdc rebuild`: build a target again from a journal."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from cdc.cli.app import OptionalTargetArgument, app
from cdc.cli.consoles import messages
from cdc.cli.quantity import LEAST_MEMORY, MemoryOption, bytes_of
from cdc.errors import UsageError
from cdc.options import Options

log = logging.getLogger(__name__)


@app.command()
def rebuild(
    source: Annotated[str, typer.Argument(metavar="journal:DIR", help="The journal.")],
    target: OptionalTargetArgument = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until", metavar="POSITION|TIME", help="Stop there. TARGET then has what the source held at that moment."
        ),
    ] = None,
    memory: MemoryOption = None,
    was_from: Annotated[str | None, typer.Option("--from", hidden=True)] = None,
) -> None:
    """Build a new TARGET from a journal: its first copy, and the log since then.

    The database is not needed. `cdc run journal:DIR TARGET` goes on from there.
    """
    from cdc.cli.process import Ending
    from cdc.cli.view import Watched, watch
    from cdc.runs import open_rebuild
    from cdc.whereabouts import name_of

    if was_from is not None:
        log.warning("Write `cdc rebuild %s %s`: from the next release on, --from is not known here.", was_from, source)
        source, target = was_from, source
    if target is None:
        raise UsageError("There is no target.", hint=f"Write cdc rebuild {source} TARGET.")
    options = Options(
        name=name_of(source, target, None), target_memory=bytes_of("--memory", memory, least=LEAST_MEMORY)
    )
    pipeline = open_rebuild(source, target, until, options)
    Ending().stops(pipeline.stop)
    pipeline.run_beside(lambda _: watch([Watched(options.name, pipeline, target)], messages))
