"""`cdc status`: how a pipeline is, by the source's account and the target's."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from cdc.cli.app import NameOption, SourceArgument, TargetArgument, app, console
from cdc.cli.quantity import seconds_of
from cdc.connectors import JOURNAL, kind_of, known_as, source_module, target_module
from cdc.errors import EXIT_RESTARTABLE, CdcError, TargetBusy, UsageError
from cdc.jobs.control import is_served
from cdc.journal.observer import held_tables, journal_of, source_state
from cdc.logs import printable
from cdc.model.position import Position
from cdc.model.schema import TableName
from cdc.model.standing import Standing, State
from cdc.source import SourceStatus
from cdc.whereabouts import control_socket, last_said, name_of, pipeline_of, read_status, refuse_other

_SILENT_FOR = 30.0  # seconds without a new status file after which a process counts as hung


@app.command()
def status(
    source: SourceArgument,
    target: TargetArgument,
    name: NameOption = None,
    max_lag: Annotated[
        str, typer.Option("--max-lag", metavar="DURATION", help="Unhealthy when it is behind for longer: 90s, 5m, 1h.")
    ] = "5m",
    require_running: Annotated[
        bool, typer.Option("--require-running", help="Unhealthy when nobody runs it, behind or not.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show how far TARGET is behind SOURCE, each table's state, and the health of the source's log.

    Ends with 1 if that is not healthy: it can be a probe.
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


def look(
    source: str, target: str, name: str, max_lag: float, *, require_running: bool
) -> tuple[dict[str, Any], Mapping[str, str]]:
    """What is to be said of a pipeline as JSON, and the lines about its source."""
    report, state, position = _target_side(source, target, name)
    found = _source_side(source, target, name, state, position)
    report = {"name": name, found.kind: found.details, **report}
    if found.lag_bytes is not None:
        report["lag_bytes"] = found.lag_bytes
    # Messages of servers, which some of them quote, end without a full stop.
    problems = [f"{text.removesuffix('.')}." for text in _problems(report, found, max_lag)]
    if require_running and not report["running"]:
        problems.append("Nobody runs it.")
    states = {entry["state"] for entry in report["tables"].values()}
    is_settled = not states & {State.SUSPECT, State.COPYING}
    report |= {"problems": problems, "healthy": not problems}
    report["health"] = "red" if problems else "green" if is_settled else "amber"
    return report, found.lines


def _source_side(source: str, target: str, name: str, state: str | None, position: Position | None) -> SourceStatus:
    """By the source's account; what the target says stands whether the source answers or not (O29)."""
    try:
        journal = journal_of(state) if state is not None and kind_of(source) != JOURNAL else None
        if journal is not None:
            return _through(journal, source, target, name, state, position)
        found: SourceStatus = source_module(source).source_status(
            source, known_as(source, target, name), state, position
        )
    except UsageError:
        raise  # a typing error on the command line
    except CdcError as error:
        problem = f"The source cannot be asked: {error.message}"
        return SourceStatus("source", problem, None, False, {"error": error.message}, {})
    return found


def _through(
    journal: str, source: str, target: str, name: str, state: str | None, position: Position | None
) -> SourceStatus:
    """Of a target that a journal feeds, asked about the database: a backlog is what the journal lacks, and what it has
    and the target lacks."""
    fed: SourceStatus = source_module(journal).source_status(journal, target, state, position)
    module, folder = target_module(journal)
    try:
        written = module.read_checkpoint(folder, name)
    except TargetBusy:  # somebody works on what is not in the journal
        written = None
    own, at = (written.state, written.position) if written is not None else (None, None)
    found: SourceStatus = source_module(source).source_status(source, name, own, at)
    return replace(
        found,
        problem=found.problem or fed.problem,
        lag_bytes=found.lag_bytes if found.has_backlog or not fed.has_backlog else fed.lag_bytes,
        has_backlog=found.has_backlog or fed.has_backlog,
        lines={**found.lines, **fed.lines},
    )


def _problems(report: dict[str, Any], found: SourceStatus, max_lag: float) -> Iterator[str]:
    """What an operator has to know of at once, a sentence each."""
    if found.problem is not None:
        yield found.problem
    if report["position"] is None:
        yield "Nothing was ever applied."
    if report["is_red"]:
        yield f"{'It fails' if report['running'] else 'The last run has failed'}: {report['failure']}"
    if (published := report["publication"]) is not None and published["problem"] is not None:
        yield f"{published['file']} is not as new as it should be: {published['problem']}"
    if (serving := report["serving"]) is not None and serving["problem"] is not None:
        yield serving["problem"]
    if (stall := report["stall"]) is not None:
        yield f"The {stall['stage']} does not move on ({stall['doing']})."
    verification = report["verification"] or {}
    if verification.get("different") or verification.get("shapes"):
        again = "`cdc repair SOURCE TARGET --from-verify REPORT` reads these rows again"
        yield f"The last verification has found differences: {again}."
    if held := sorted(name for name, entry in report["tables"].items() if entry["state"] == State.HELD):
        back = f"`cdc resync SOURCE TARGET --tables {held[0]}`"
        yield f"Tables are held, and their changes are skipped: {', '.join(held)}. Once that is mended: {back}"
    if report["running"]:
        if (report["lag_seconds"] or 0) > max_lag:
            yield f"It is {report['lag_seconds']:.0f} s behind."
    elif found.has_backlog and time.time() - report["stopped_at"] > max_lag:
        behind = (
            f"{report['lag_bytes']:,} bytes of log are" if report["lag_bytes"] is not None else "A part of the log is"
        )
        yield f"Nobody runs it, and {behind} not applied: `cdc run SOURCE TARGET` goes on."


def _target_side(source: str, target: str, name: str) -> tuple[dict[str, Any], str | None, Position | None]:
    """From the target, with the source's state, or, while a pipeline has it open, from what that pipeline says."""
    module, path = target_module(target)
    try:
        # A pipeline that waits before its next try has let go of its target, and is not stopped (O12).
        if _running(target, name) or is_served(control_socket(target, name)):
            raise TargetBusy("A pipeline of this machine writes to it.")
        checkpoint = module.read_checkpoint(path, name)
        state = checkpoint.state if checkpoint is not None else None
        if state is not None:
            refuse_other(target, name, pipeline_of(source, state, name))
        tables = _standings(source, target, name, state) if state is not None else {}
    except TargetBusy:  # it may begin to run between two looks, too
        running = _running(target, name)
        said = running or last_said(target, name)  # it has just opened it, and says nothing yet
        tables = {
            table: {"state": entry["state"], "reason": entry["reason"], "different": entry["different"]}
            for table, entry in said.get("tables", {}).items()
        }
        return (
            {
                "running": True,
                "stopped_at": None,
                "phase": running.get("phase"),
                "position": said.get("durable"),
                "lag_bytes": running.get("lag_bytes"),
                "lag_seconds": running.get("lag_seconds"),
                "failure": running.get("failure"),
                "is_red": running.get("is_red", False),
                "verification": running.get("verification"),
                "stall": stall_of(running),
                "publication": running.get("publication"),
                "serving": running.get("serving"),
                "tables": tables,
            },
            None,
            None,
        )
    position, last = checkpoint.position if checkpoint is not None else None, _last_run(target, name)
    return (
        {
            "running": False,
            "stopped_at": last.get("written_at", 0.0),
            "phase": "stopped",
            "position": checkpoint.position.text if checkpoint is not None else None,
            "lag_bytes": None,
            "lag_seconds": None,
            "failure": last.get("failure"),
            "is_red": last.get("is_red", False),
            "verification": None,
            "stall": None,
            "publication": None,
            "serving": None,
            "tables": tables,
        },
        state,
        position,
    )


def _standings(source: str, target: str, name: str, state: str) -> dict[str, dict[str, Any]]:
    """How the tables of a pipeline that nobody runs stand, by its checkpoint and its target."""
    connector, (module, path) = source_module(source), target_module(target)
    held = held_tables(state)
    if kind_of(source) != JOURNAL:
        state = source_state(state)  # a target that is fed from a journal can be asked about its database as well
    standings: dict[TableName, Standing] = connector.table_standings(state)
    names: dict[int, TableName] = connector.table_names(state)
    for identity, marked in module.read_marks(path, name).items():
        if (table := names.get(identity)) in standings and standings[table].state is State.FOLLOWING:
            standings[table] = marked
    return {
        str(table): {"state": standing.state, "reason": standing.reason, "different": None}
        for table, standing in (standings | held).items()
    }


def _running(target: str, name: str) -> dict[str, Any]:
    """What the process that runs a pipeline has said last; empty if there is no such process, or it has ended this run.

    Raises:
        UsageError: that process runs another pipeline (O28).
    """
    content = read_status(target, name)
    if content.get("phase") == "stopped":
        return {}
    refuse_other(target, name, content.get("pipeline", name))
    return content


def _last_run(target: str, name: str) -> dict[str, Any]:
    """What the last run of a pipeline said when it ended; nothing if another one ran there since."""
    content = last_said(target, name)
    if content.get("pipeline") != name:
        return {}
    if content.get("phase") != "stopped":
        content |= {"failure": "It ended without a word: it was killed, or its disk is full.", "is_red": True}
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
