"""`cdc demo`: the whole thing on a private server, compared at the end."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Annotated

import typer

from cdc.cli.app import app
from cdc.cli.consoles import console
from cdc.errors import EXIT_RESTARTABLE, UsageError


@app.command()
def demo(
    source: Annotated[str, typer.Option(help="postgresql, mysql or mariadb, if this machine has one.")] = "postgresql",
    seconds: Annotated[float, typer.Option(min=1, help="How many seconds the workload runs.")] = 20,
    rate: Annotated[float, typer.Option(min=1, help="Row changes per second.")] = 500,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the server's folder afterwards.")] = False,
) -> None:
    """Follow a private server under load into demo.duckdb, and compare both sides."""
    if source not in ("postgresql", "mysql", "mariadb"):
        raise UsageError(f"There is no demo of {source!r}.", hint="--source is postgresql, mysql or mariadb.")
    from cdc.demo.run import run_demo  # needs the extra `demo`

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    if not run_demo(source=source, seconds=seconds, rate=rate, keep=keep, console=console):
        raise typer.Exit(EXIT_RESTARTABLE)


def _end(number: int, frame: FrameType | None) -> None:
    """End as an error does, which stops the server and removes its folder (O46)."""
    raise SystemExit(128 + number)
