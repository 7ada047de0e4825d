"""How a pipeline is, by the source's account and the target's, and what an operator has to know of at once.

`cdc status` asks from outside (`look`). The process that runs a pipeline judges by what the pipeline says itself
(`account_of`), by the same rules (`judged`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from cdc.connectors import JOURNAL, kind_of, known_as, source_module, target_module
from cdc.errors import CdcError, TargetBusy, UsageError
from cdc.jobs.control import is_served
from cdc.journal.observer import held_tables, journal_of, source_state
from cdc.model.position import Position
from cdc.model.schema import TableName
from cdc.model.standing import Standing, State
from cdc.source import SourceStatus
from cdc.whereabouts import control_socket, last_said, pipeline_of, read_status, refuse_other

if TYPE_CHECKING:  # a command that asks for the status loads no engine
    from cdc.engine.views import PipelineView

_RENEWED_WITHIN = 60.0  # seconds that the renewal of a published copy may take beside its interval, with no word of it
_SILENT_FOR = 30.0  # seconds without a new status file after which a process counts as hung


def look(
    source: str, target: str, name: str, max_lag: float, *, require_running: bool
) -> tuple[dict[str, Any], Mapping[str, str]]:
    """What is to be said of a pipeline as JSON, and the lines about its source."""
    report, state, position = _target_side(source, target, name)
    found = _source_side(source, target, name, state, position)
    report = {"name": name, **report}
    if found.lag_bytes is not None:
        report["lag_bytes"] = found.lag_bytes
    return judged(report, found, max_lag, require_running=require_running), found.lines


def judged(
    report: dict[str, Any],
    found: SourceStatus,
    max_lag: float,
    *,
    require_running: bool = False,
    unobserved: str | None = None,
) -> dict[str, Any]:
    """A report with what the source says, and with whether all is well.

    Its `health` is red if there are problems, amber while tables are copied or suspect, otherwise green.

    Args:
        unobserved: why nobody knows how it is now, if that is so.
    """
    report = {**report, found.kind: dict(found.details)}
    of_tables = list(_problems_of_tables(report))
    # Messages of servers, which some of them quote, end without a full stop.
    problems = [f"{text.removesuffix('.')}." for text in _problems(report, found, max_lag)] + of_tables
    if require_running and not report["running"]:
        problems.append("Nobody runs it.")
    if unobserved is not None:
        problems.append(f"{unobserved}.")
    states = {entry["state"] for entry in report["tables"].values()}
    is_settled = not states & {State.SUSPECT, State.COPYING}
    report |= {"problems": problems, "problems_of_tables": of_tables, "healthy": not problems}
    report["health"] = "red" if problems else "green" if is_settled else "amber"
    return report


def account_of(view: PipelineView) -> dict[str, Any]:
    """What a pipeline says of itself."""
    return asdict(replace(view, tables={})) | {
        "durable": view.durable.text if view.durable else None,
        "source_position": view.source_position.text if view.source_position else None,
        "tables": {str(table): asdict(entry) for table, entry in list(view.tables.items())},
    }


def by_its_account(now: Mapping[str, Any], last: Mapping[str, Any], stopped_at: float | None = None) -> dict[str, Any]:
    """A report by what a pipeline says now, and for what does not change by what it has said last.

    Args:
        stopped_at: when it has ended, if it has; seconds since the Unix epoch.
    """
    return {
        "running": stopped_at is None,
        "stopped_at": stopped_at,
        "phase": now.get("phase"),
        "position": last.get("durable"),
        "lag_bytes": now.get("lag_bytes"),
        "lag_seconds": now.get("lag_seconds"),
        "failure": now.get("failure"),
        "is_red": now.get("is_red", False),
        "remedy": now.get("remedy"),
        "verification": now.get("verification"),
        "stall": stall_of(now),
        "publication": now.get("publication"),
        "serving": now.get("serving"),
        "tables": {
            table: {"state": entry["state"], "reason": entry["reason"], "different": entry["different"]}
            for table, entry in last.get("tables", {}).items()
        },
    }


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
    is_unknown = report["position"] is None  # it has not opened the target yet, or nothing is there
    cannot_begin = is_unknown and report["running"] and report["failure"] is not None
    if cannot_begin:
        yield f"It cannot begin: {report['failure']}"
    elif is_unknown and report["phase"] not in ("opening", "copying"):
        yield "Nothing was ever applied."
    if report["is_red"] and not cannot_begin:
        yield f"{'It fails' if report['running'] else 'The last run has failed'}: {report['failure']}"
    if (published := report["publication"]) is not None and (why := _why_old(published, report)) is not None:
        yield f"{published['file']} is not as new as it should be: {why}"
    if (serving := report["serving"]) is not None and serving["problem"] is not None:
        yield serving["problem"]
    if (stall := report["stall"]) is not None:
        yield f"The {stall['stage']} does not move on ({stall['doing']})."
    if report["running"]:
        if (report["lag_seconds"] or 0) > max_lag:
            yield f"It is {report['lag_seconds']:.0f} s behind."
    elif found.has_backlog and time.time() - report["stopped_at"] > max_lag:
        behind = (
            f"{report['lag_bytes']:,} bytes of log are" if report["lag_bytes"] is not None else "A part of the log is"
        )
        yield f"Nobody runs it, and {behind} not applied: `cdc run SOURCE TARGET` goes on."


def _why_old(published: Mapping[str, Any], report: Mapping[str, Any]) -> str | None:
    """Why the copy that others read is not as new as it should be: by its own account, or since it is not renewed while
    the log is followed, as where what copies it hangs."""
    if published["problem"] is not None or published["at"] is None or report["phase"] != "streaming":
        problem: str | None = published["problem"]
        return problem
    age = time.time() - published["at"]
    return f"It was renewed {age:.0f} s ago." if age > 2 * published["every"] + _RENEWED_WITHIN else None


def _problems_of_tables(report: dict[str, Any]) -> Iterator[str]:
    """The same of tables that differ or are held, while the others may be well."""
    verification = report["verification"] or {}
    if verification.get("different") or verification.get("shapes"):
        again = "`cdc repair SOURCE TARGET --from-verify REPORT` reads these rows again"
        yield f"The last verification has found differences: {again}."
    if held := sorted(name for name, entry in report["tables"].items() if entry["state"] == State.HELD):
        back = f"`cdc resync SOURCE TARGET --tables {held[0]}`"
        yield f"Tables are held, and their changes are skipped: {', '.join(held)}. Once that is mended: {back}."


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
        # It has just opened it, and says nothing yet.
        return by_its_account(running, running or last_said(target, name)), None, None
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
            "remedy": last.get("remedy"),
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
        said = "It ended without a word: it was killed, or its disk is full."
        content |= {"failure": said, "is_red": True, "remedy": None}
    return content


def stall_of(running: Mapping[str, Any]) -> dict[str, Any] | None:
    """What does not move on by the pipeline's own account; or the process itself, which should write every second."""
    stall: dict[str, Any] | None = running.get("stall")
    written = running.get("written_at")
    if written is not None and time.time() - written > _SILENT_FOR:
        seconds = time.time() - written
        stall = {"stage": "process", "doing": "it writes no status", "since": written, "seconds": seconds}
    return stall
