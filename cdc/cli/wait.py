"""`cdc wait`: until a target has what the source has."""

from __future__ import annotations

from typing import Annotated

import typer

from cdc.cli.app import NameOption, SourceArgument, TargetArgument, app
from cdc.cli.consoles import console, messages
from cdc.cli.quantity import seconds_of

_NOW = "now"


@app.command()
def wait(
    source: SourceArgument,
    target: TargetArgument,
    position: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="POSITION",
            help="The position as SOURCE writes it: an LSN, GTIDs or binlog.000001:4; or now.",
        ),
    ] = _NOW,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="DURATION", help="The longest time to wait: 10s, 5m.")
    ] = "60s",
    published: Annotated[
        bool, typer.Option("--published", help="Wait until the copy of `cdc run --publish` has it, too.")
    ] = False,
    name: NameOption = None,
) -> None:
    """Wait until everything up to a position of SOURCE is in TARGET. Then it is durable, and visible to all readers.

    Ends with 1 if that takes too long, or if no process runs the pipeline.
    """
    from cdc.connectors import position_now
    from cdc.logs import without_password
    from cdc.replica import Replica
    from cdc.whereabouts import name_of

    seconds = seconds_of("--timeout", timeout)
    replica = Replica(target, name=name_of(source, target, name))
    wanted = position_now(source) if position == _NOW else position
    with messages.status(f"waiting for {wanted}"):
        reached = replica.wait_for(wanted, seconds, published=published)
    console.print(f"{without_password(target)}: {reached}", highlight=False, markup=False, soft_wrap=True)
