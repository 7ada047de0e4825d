"""`cdc serve`: a published copy for readers, by the PostgreSQL protocol, Arrow Flight SQL and HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cdc.cli.app import app
from cdc.cli.quantity import LEAST_MEMORY, bytes_of, seconds_of
from cdc.errors import UsageError
from cdc.serve.limits import CONNECTIONS, ROWS, Limits


@app.command()
def serve(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The copy that `cdc run --publish FILE` keeps.")],
    addresses: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ADDRESS...", help="pg://HOST:PORT (PostgreSQL protocol), flight://HOST:PORT or http://HOST:PORT"
        ),
    ] = None,
    memory: Annotated[
        str, typer.Option("--memory", metavar="SIZE", help="Memory that DuckDB may use for all queries together.")
    ] = "512MB",
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="DURATION", help="How long DuckDB may work on one query.")
    ] = "60s",
    rows: Annotated[int, typer.Option("--rows", min=1, help="The most rows that one answer may have.")] = ROWS,
    connections: Annotated[
        int, typer.Option("--connections", min=1, max=1000, help="The most readers at a time, for each protocol.")
    ] = CONNECTIONS,
    certificate: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="FILE", help="The certificate, in PEM.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="The key of that certificate, in PEM.")
    ] = None,
    own_socket: Annotated[Path | None, typer.Option("--own-socket", hidden=True)] = None,
    parent: Annotated[int | None, typer.Option("--parent", hidden=True)] = None,
) -> None:
    """Serve a published copy to readers, read only. CDC_SERVE_USER and CDC_SERVE_PASSWORD set who may read."""
    from cdc.serve.access import Access
    from cdc.serve.address import address_of, refuse_open
    from cdc.serve.process import serve as serve_file

    found = [address_of(text) for text in addresses or ()]
    if not found and own_socket is None:
        raise UsageError("No address is given.", hint=f"Write cdc serve {file} pg://127.0.0.1:5433")
    access = Access.of(dict(os.environ), certificate, key)
    refuse_open(found, access)
    limits = Limits(
        memory=bytes_of("--memory", memory, least=LEAST_MEMORY),
        seconds=seconds_of("--timeout", timeout),
        rows=rows,
        connections=connections,
    )
    serve_file(file, found, own_socket, access, limits, parent=parent)
