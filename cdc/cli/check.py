"""`cdc check`: what would stop replication, and whether another decoder reads the log alike."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from cdc.cli.app import ExcludeOption, SourceArgument, TablesOption, app, selection
from cdc.cli.consoles import console
from cdc.errors import EXIT_OPERATOR, UsageError
from cdc.logs import printable
from cdc.sources.findings import Finding, Severity

_STYLES = {Severity.FATAL: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}


@app.command()
def check(
    source: SourceArgument,
    file: Annotated[str | None, typer.Argument(help="A file of the log, for --log. [default: the newest]")] = None,
    log: Annotated[
        bool,
        typer.Option("--log", help="MySQL, MariaDB: read a file of the log also with a second decoder, and compare."),
    ] = False,
    tables: TablesOption = None,
    exclude: ExcludeOption = None,
) -> None:
    """Find everything that would stop replication from SOURCE, and say how to fix it. Changes nothing."""
    from cdc.connectors import source_module
    from cdc.runs import compare_log

    chosen = selection(tables, exclude)
    if log:
        if print_findings(compare_log(source, chosen, file)):
            raise typer.Exit(EXIT_OPERATOR)
        return
    if file is not None:
        raise UsageError(f"{file!r} is one argument too many.", hint=f"For a file: cdc check SOURCE --log {file}")
    fatal = print_findings(source_module(source).check_source(source, chosen))
    if fatal:
        console.print(f"\n{fatal} of these would stop replication.", highlight=False)
        raise typer.Exit(EXIT_OPERATOR)
    console.print("\nReady to replicate.", highlight=False)


def print_findings(findings: list[Finding]) -> int:
    """Print findings; how many of them are fatal."""
    for finding in findings:
        style = _STYLES[finding.severity]
        subject, message = escape(printable(finding.subject)), escape(printable(finding.message))
        console.print(
            f"[{style}]{finding.severity.upper():8}[/] [bold]{subject}[/]: {message}",
            highlight=False,
            soft_wrap=True,
        )
        if finding.fix:
            console.print(f"         {escape(printable(finding.fix))}", highlight=False, soft_wrap=True)
    return sum(finding.severity is Severity.FATAL for finding in findings)
