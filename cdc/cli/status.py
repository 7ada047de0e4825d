"""`cdc status`: how a pipeline is, by the source's account and the target's."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer

from cdc.cli.app import NameOption, SourceArgument, TargetArgument, app
from cdc.cli.quantity import seconds_of
from cdc.errors import EXIT_RESTARTABLE
from cdc.logs import printable
from cdc.service.health import look
from cdc.whereabouts import name_of


@app.command()
def status(
    source: SourceArgument,
    target: TargetArgument,
    name: NameOption = None,
    max_lag: Annotated[
        str,
        typer.Option(
            "--max-lag", metavar="DURATION", help="Unhealthy if the target is behind by more than this: 90s, 5m, 1h."
        ),
    ] = "5m",
    require_running: Annotated[
        bool, typer.Option("--require-running", help="Unhealthy if no process runs the pipeline, behind or not.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show how far TARGET is behind SOURCE, each table's state, and the health of the source's log.

    Ends with 1 if something is not healthy, so it can be a probe.
    """
    max_lag_s = seconds_of("--max-lag", max_lag)
    report, lines = look(source, target, name_of(source, target, name), max_lag_s, require_running=require_running)
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()
    else:
        _print(report, lines)
    if not report["healthy"]:
        raise typer.Exit(EXIT_RESTARTABLE)


def _print(report: dict[str, Any], lines: Mapping[str, str]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from cdc.cli.consoles import console

    rows = {
        "pipeline": f"{report['name']}, {report['phase'] or 'open in another process'}",
        "healthy": {"green": "yes", "amber": "yes, but see the tables"}.get(report["health"])
        or f"no. {' '.join(report['problems'])}",
        "applied": report["position"] or "nothing yet",
        "lag": _lag(report),
        **lines,
    }
    if (stall := report["stall"]) is not None:
        since = datetime.fromtimestamp(stall["since"], UTC).isoformat(timespec="seconds")
        rows["stalled"] = f"{stall['stage']} since {since} ({stall['doing']})"
    if report["failure"]:
        rows["failure"] = report["failure"]
    if report["remedy"]:
        rows["what to do"] = report["remedy"]
    if report["publication"]:
        rows["published"] = _publication(report["publication"])
    if report["serving"]:
        rows["served at"] = ", ".join(report["serving"]["addresses"])
    if report["verification"]:
        rows["verified"] = _verification(report["verification"])
    for label, value in rows.items():
        console.print(f"{label:17} {printable(str(value))}", highlight=False, markup=False, soft_wrap=True)
    if report["tables"]:
        table = Table("table", "state", "why")
        for name, entry in sorted(report["tables"].items()):
            table.add_row(*(escape(printable(text)) for text in (name, entry["state"], _why(entry))))
        console.print(table)


def _why(entry: Mapping[str, Any]) -> str:
    differed = f"{entry['different']:,} rows differed and were read again" if entry["different"] else ""
    return "; ".join(text for text in (entry["reason"], differed) if text)


def _publication(found: Mapping[str, Any]) -> str:
    if found["at"] is None:
        return f"{found['file']}, not yet"
    when = datetime.fromtimestamp(found["at"], UTC).isoformat(timespec="seconds")
    took = f"{found['seconds']:.1f} s, of which nothing was applied for {found['pause']:.2f} s"
    return f"{found['file']}, as of {when} ({found['position']}); it took {took}"


def _verification(found: Mapping[str, Any]) -> str:
    when = datetime.fromtimestamp(found["finished_at"], UTC).isoformat(timespec="seconds")
    differ = [f"{rows} rows of {table}" for table, rows in found["different"].items()]
    differ += [f"{table} ({'; '.join(shape)})" for table, shape in found.get("shapes", {}).items()]
    outcome = "DIFFERENT: " + ", ".join(differ) if differ else f"identical, {found['rows']:,} rows"
    if found["not_compared"]:
        outcome += f"; not compared: {', '.join(found['not_compared'])}"
    return f"{when}, {outcome}"


def _lag(report: dict[str, Any]) -> str:
    if report["lag_bytes"] is None:
        return "unknown"
    seconds = f", {report['lag_seconds']:.1f} s" if report["lag_seconds"] is not None else ""
    return f"{report['lag_bytes']:,} bytes{seconds}"
