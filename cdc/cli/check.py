"""`cdc check`: what would stop replication."""

from __future__ import annotations

import typer
from rich.markup import escape

from cdc.cli.app import ExcludeOption, SourceArgument, TablesOption, app, console, selection
from cdc.config import source_module
from cdc.errors import EXIT_OPERATOR
from cdc.findings import Finding, Severity
from cdc.logs import printable

_STYLES = {Severity.FATAL: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}


@app.command()
def check(source: SourceArgument, tables: TablesOption = None, exclude: ExcludeOption = None) -> None:
    """Look for everything that would stop replication from SOURCE, and say how to fix it. Changes nothing."""
    findings: list[Finding] = source_module(source).check_source(source, selection(tables, exclude))
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
    fatal = sum(finding.severity is Severity.FATAL for finding in findings)
    if fatal:
        console.print(f"\n{fatal} of these would stop replication.", highlight=False)
        raise typer.Exit(EXIT_OPERATOR)
    console.print("\nReady to replicate.", highlight=False)
