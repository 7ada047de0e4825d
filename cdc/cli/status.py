"""`cdc status`: how a pipeline is, by the source's account and the target's."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from cdc.cli.app import NameOption, SourceArgument, TargetArgument, app, console
from cdc.config import source_module, status_file, target_module
from cdc.errors import TargetBusy
from cdc.source import SourceStatus


@app.command()
def status(
    source: SourceArgument,
    target: TargetArgument,
    name: NameOption = "cdc",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show how far TARGET is behind SOURCE, each table's state, and the health of the source's log."""
    report, state = _target_side(source, target)
    found: SourceStatus = source_module(source).source_status(source, name, state)
    report = {"name": name, found.kind: found.details, **report}
    if found.lag_bytes is not None:
        report["lag_bytes"] = found.lag_bytes
    report["healthy"] = found.healthy and report["position"] is not None
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_APPEND_NEWLINE))
        return
    _print(report, found.lines)


def _target_side(source: str, target: str) -> tuple[dict[str, Any], str | None]:
    """From the file, with the source's state, or, while a pipeline has it open, from what that pipeline says."""
    module, path = target_module(target)
    try:
        checkpoint = module.read_checkpoint(path)
    except TargetBusy:
        running = _running(status_file(target))
        tables = {table: entry["state"] for table, entry in running.get("tables", {}).items()}
        return {
            "running": True,
            "phase": running.get("phase"),
            "position": running.get("durable"),
            "lag_bytes": running.get("lag_bytes"),
            "lag_seconds": running.get("lag_seconds"),
            "failure": running.get("failure"),
            "tables": tables,
        }, None
    tables = source_module(source).table_states(checkpoint.state) if checkpoint is not None else {}
    return {
        "running": False,
        "phase": "stopped",
        "position": checkpoint.position.text if checkpoint is not None else None,
        "lag_bytes": None,
        "lag_seconds": None,
        "failure": None,
        "tables": tables,
    }, checkpoint.state if checkpoint is not None else None


def _running(path: Path) -> dict[str, Any]:
    """The status file, if the process that wrote it lives."""
    try:
        content: dict[str, Any] = orjson.loads(path.read_bytes())
        os.kill(content["pid"], 0)
    except (OSError, ValueError, KeyError):
        return {}
    return content


def _print(report: dict[str, Any], lines: Mapping[str, str]) -> None:
    rows = {
        "pipeline": f"{report['name']}, {report['phase'] or 'open in another process'}",
        "applied": report["position"] or "nothing yet",
        "lag": _lag(report),
        **lines,
    }
    if report["failure"]:
        rows["failure"] = report["failure"]
    for label, value in rows.items():
        console.print(f"{label:17} {value}", highlight=False, markup=False, soft_wrap=True)
    if report["tables"]:
        table = Table("table", "state")
        for entry in sorted(report["tables"].items()):
            table.add_row(*entry)
        console.print(table)


def _lag(report: dict[str, Any]) -> str:
    if report["lag_bytes"] is None:
        return "unknown"
    seconds = f", {report['lag_seconds']:.1f} s" if report["lag_seconds"] is not None else ""
    return f"{report['lag_bytes']:,} bytes{seconds}"
