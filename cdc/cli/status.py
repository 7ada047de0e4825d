"""`cdc status`: how a pipeline is, by the source's account and the target's."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from cdc.cli.app import NameOption, SourceArgument, TargetArgument, app, console
from cdc.config import JOURNAL, control_socket, kind_of, known_as, source_module, status_file, target_module
from cdc.control import is_served
from cdc.errors import EXIT_RESTARTABLE, TargetBusy
from cdc.journal.observer import source_state
from cdc.logs import printable
from cdc.source import SourceStatus

_SILENT_FOR = 30.0  # seconds without a new status file after which a process counts as hung


@app.command()
def status(
    source: SourceArgument,
    target: TargetArgument,
    name: NameOption = "cdc",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show how far TARGET is behind SOURCE, each table's state, and the health of the source's log.

    Ends with 1 if that is not healthy: it can be a probe.
    """
    report, state = _target_side(source, target, name)
    found: SourceStatus = source_module(source).source_status(source, known_as(source, target, name), state)
    report = {"name": name, found.kind: found.details, **report}
    if found.lag_bytes is not None:
        report["lag_bytes"] = found.lag_bytes
    differs = bool((report["verification"] or {}).get("different"))
    is_fine = report["stall"] is None and not differs and not report["is_red"]
    report["healthy"] = found.healthy and report["position"] is not None and is_fine
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()
    else:
        _print(report, found.lines)
    if not report["healthy"]:
        raise typer.Exit(EXIT_RESTARTABLE)


def _target_side(source: str, target: str, name: str) -> tuple[dict[str, Any], str | None]:
    """From the target, with the source's state, or, while a pipeline has it open, from what that pipeline says."""
    module, path = target_module(target)
    try:
        if is_served(control_socket(target, name)):
            raise TargetBusy("A pipeline of this machine writes to it.")
        checkpoint = module.read_checkpoint(path, name)
    except TargetBusy:
        running = _running(status_file(target, name))
        tables = {table: entry["state"] for table, entry in running.get("tables", {}).items()}
        return {
            "running": True,
            "phase": running.get("phase"),
            "position": running.get("durable"),
            "lag_bytes": running.get("lag_bytes"),
            "lag_seconds": running.get("lag_seconds"),
            "failure": running.get("failure"),
            "is_red": running.get("is_red", False),
            "verification": running.get("verification"),
            "stall": stall_of(running),
            "tables": tables,
        }, None
    state = checkpoint.state if checkpoint is not None else None
    if state is not None and kind_of(source) != JOURNAL:
        state = source_state(state)  # a target that is fed from a journal can be asked about its database as well
    tables = source_module(source).table_states(state) if state is not None else {}
    return {
        "running": False,
        "phase": "stopped",
        "position": checkpoint.position.text if checkpoint is not None else None,
        "lag_bytes": None,
        "lag_seconds": None,
        "failure": None,
        "is_red": False,
        "verification": None,
        "stall": None,
        "tables": tables,
    }, state


def _running(path: Path) -> dict[str, Any]:
    """The status file, if the process that wrote it lives."""
    try:
        content: dict[str, Any] = orjson.loads(path.read_bytes())
        os.kill(content["pid"], 0)
    except (OSError, ValueError, KeyError):
        return {}
    return content


def stall_of(running: dict[str, Any]) -> dict[str, Any] | None:
    """What does not move on by the pipeline's own account; or the process itself, which should write every second."""
    stall: dict[str, Any] | None = running.get("stall")
    written = running.get("written_at")
    if written is not None and time.time() - written > _SILENT_FOR:
        seconds = time.time() - written
        stall = {"stage": "process", "doing": "it writes no status", "since": written, "seconds": seconds}
    return stall


def _print(report: dict[str, Any], lines: Mapping[str, str]) -> None:
    rows = {
        "pipeline": f"{report['name']}, {report['phase'] or 'open in another process'}",
        "healthy": "yes" if report["healthy"] else "no",
        "applied": report["position"] or "nothing yet",
        "lag": _lag(report),
        **lines,
    }
    if (stall := report["stall"]) is not None:
        since = datetime.fromtimestamp(stall["since"], UTC).isoformat(timespec="seconds")
        rows["stalled"] = f"{stall['stage']} since {since} ({stall['doing']})"
    if report["failure"]:
        rows["failure"] = report["failure"]
    if report["verification"]:
        rows["verified"] = _verification(report["verification"])
    for label, value in rows.items():
        console.print(f"{label:17} {printable(str(value))}", highlight=False, markup=False, soft_wrap=True)
    if report["tables"]:
        table = Table("table", "state")
        for entry in sorted(report["tables"].items()):
            table.add_row(*(escape(printable(text)) for text in entry))
        console.print(table)


def _verification(found: Mapping[str, Any]) -> str:
    when = datetime.fromtimestamp(found["finished_at"], UTC).isoformat(timespec="seconds")
    if found["different"]:
        outcome = "DIFFERENT: " + ", ".join(f"{rows} rows of {table}" for table, rows in found["different"].items())
    else:
        outcome = f"identical, {found['rows']:,} rows"
    if found["not_compared"]:
        outcome += f"; not compared: {', '.join(found['not_compared'])}"
    return f"{when}, {outcome}"


def _lag(report: dict[str, Any]) -> str:
    if report["lag_bytes"] is None:
        return "unknown"
    seconds = f", {report['lag_seconds']:.1f} s" if report["lag_seconds"] is not None else ""
    return f"{report['lag_bytes']:,} bytes{seconds}"
