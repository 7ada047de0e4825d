"""`cdc status`: how a pipeline is, by the source's account and the target's."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from cdc.cli.app import NameOption, SourceArgument, TargetArgument, app, console
from cdc.config import source_module, status_file, target_module
from cdc.errors import TargetBusy


@app.command()
def status(
    source: SourceArgument,
    target: TargetArgument,
    name: NameOption = "cdc",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show how far TARGET is behind SOURCE, each table's state, and the health of the slot."""
    slot = source_module(source).source_status(source, name)
    report: dict[str, Any] = {"name": name, "slot": asdict(slot), **_target_side(source, target)}
    applied = report["position"]
    report["lag_bytes"] = slot.lag_bytes if slot.exists else None
    report["healthy"] = slot.exists and slot.wal_status != "lost" and applied is not None
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_APPEND_NEWLINE))
        return
    _print(report)


def _target_side(source: str, target: str) -> dict[str, Any]:
    """From the file, or, while a pipeline has it open, from what that pipeline says."""
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
            "lag_seconds": running.get("lag_seconds"),
            "failure": running.get("failure"),
            "tables": tables,
        }
    tables = source_module(source).table_states(checkpoint.state) if checkpoint is not None else {}
    return {
        "running": False,
        "phase": "stopped",
        "position": checkpoint.position.text if checkpoint is not None else None,
        "lag_seconds": None,
        "failure": None,
        "tables": tables,
    }


def _running(path: Path) -> dict[str, Any]:
    """The status file, if the process that wrote it lives."""
    try:
        content: dict[str, Any] = orjson.loads(path.read_bytes())
        os.kill(content["pid"], 0)
    except (OSError, ValueError, KeyError):
        return {}
    return content


def _print(report: dict[str, Any]) -> None:
    slot = report["slot"]
    rows = {
        "pipeline": f"{report['name']}, {report['phase'] or 'open in another process'}",
        "applied": report["position"] or "nothing yet",
        "lag": _lag(report),
        "slot": f"{slot['slot']}: {_slot(slot)}",
        "retained WAL": f"{slot['retained_bytes']:,} bytes"
        + (f", {slot['safe_bytes']:,} more until the slot is in danger" if slot["safe_bytes"] is not None else ""),
        "pinned by": slot["pinned_by"] or "nothing",
        "catalog xmin age": str(slot["catalog_xmin_age"] or 0),
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


def _slot(slot: dict[str, Any]) -> str:
    if not slot["exists"]:
        return "missing"
    reason = f" ({slot['invalidation_reason']})" if slot["invalidation_reason"] else ""
    used = f"read by {slot['holder']}" if slot["active"] else "nobody reads from it"
    return f"{slot['wal_status']}{reason}, {used}"
