"""What can be asked of a pipeline that runs: verify, repair, resync, where it is; arguments and answers are JSON.

So it makes no difference whether the asker is the process of the pipeline or sits at the other end of its socket.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from cdc.connectors import has_reached
from cdc.engine.pipeline import Pipeline
from cdc.engine.stage import Stage
from cdc.errors import Unavailable, UsageError
from cdc.jobs.answers import LONGEST_QUESTION, written
from cdc.jobs.backfill import Backfill
from cdc.jobs.condition import read_condition
from cdc.jobs.past import look_back
from cdc.jobs.verify import Finding, TableReport, Verifier, Wishes, comparable_target, replaceable_target, sum_up
from cdc.model.parts import Key
from cdc.model.position import Checkpoint
from cdc.model.schema import LogicalType, TableName, TableSchema
from cdc.model.selection import Selection
from cdc.model.standing import State
from cdc.observer import Observer
from cdc.target import InOneFile, QueryWishes, Questioned

log = logging.getLogger(__name__)

Values = dict[str, Any]
Progress = Callable[[Values], None]

_LOOK_EVERY = 0.1  # seconds
_SOON = 0.02  # seconds between looks for somebody who waits
_SAY_EVERY, _HURRY = 1.0, 1.0


def verify(pipeline: Pipeline, observer: Observer, arguments: Values, progress: Progress) -> Values:
    """Compare tables.

    Args:
        arguments: `tables`, `exclude`, `sample`, `max_rate`, `with_values` (see `cdc.jobs.verify.Wishes`).
    """
    wishes = Wishes(
        tables=Selection(tuple(arguments["tables"]), tuple(arguments["exclude"]), observer.default_schema),
        sample=arguments["sample"],
        max_rate=arguments["max_rate"],
        with_values=arguments["with_values"],
    )
    verifier = Verifier(pipeline, observer, lambda report: progress(_in_short(report)))
    reports = verifier.verify(wishes)
    return {"identical": sum_up(reports), "tables": [_table(report) for report in reports]}


def repair(pipeline: Pipeline, observer: Observer, arguments: Values, progress: Progress) -> Values:
    """Read rows again: those that a verification found, or those of one table that fulfil a condition.

    Args:
        arguments: `tables` as in the answer of `verify`; or `table` and `where`, which may be None.
    """
    where = arguments.get("where")
    condition = read_condition(where, observer.dialect) if where is not None else None
    pipeline.errand(comparable_target, patience=60.0)
    followed = Verifier(pipeline, observer).tables(Selection())
    backfill = Backfill(pipeline, observer)
    done = []
    for schema, keys in _wanted(followed, arguments, observer):
        rows = backfill.repair_where(schema, condition) if keys is None else backfill.repair_rows(schema, keys)
        log.info("repaired %s: %d rows read again", schema.table, rows)
        done.append({"table": str(schema.table), "rows": rows})
        progress(done[-1])
    return {"tables": done}


def resync(pipeline: Pipeline, observer: Observer, arguments: Values, progress: Progress) -> Values:
    """Copy whole tables again, part by part; the way back for those that are held.

    Args:
        arguments: `tables`, names or patterns.
    """
    tables = Selection(tuple(arguments["tables"]), (), observer.default_schema)
    held = pipeline.errand(partial(_held, observer, tables), patience=60.0)
    followed = list(Verifier(pipeline, observer).tables(tables, besides=held))
    begun = {schema: pipeline.resets[schema.identity] for schema in [*held, *followed]}
    for schema in followed:
        # A table that is another one than the one in the log is taken in as it is now (M15).
        if _is_the_same(observer, schema):
            pipeline.errand(partial(_copy_parts, schema), patience=60.0)
            del begun[schema]
        else:
            pipeline.copy_again(schema.identity)
    for schema in held:
        pipeline.copy_again(schema.identity)
    done = []
    for schema in [*followed, *held]:
        _wait_for(pipeline, schema, held.get(schema), begun.get(schema))
        done.append({"table": str(schema.table)})
        progress(done[-1])
    return {"tables": done}


def _held(observer: Observer, tables: Selection, stage: Stage) -> dict[TableSchema, str]:
    state = stage.checkpoint.state if stage.checkpoint is not None else None
    held = observer.held(state) if state is not None else {}
    return {schema: reason for schema, reason in held.items() if tables.matches(schema.table)}


def _is_the_same(observer: Observer, schema: TableSchema) -> bool:
    """Whether a table of the source has the columns and the key now that the pipeline knows."""
    with observer.look(schema) as look:
        now = look.shape(schema)
    return now is not None and _shape(now) == _shape(schema)


def _shape(schema: TableSchema) -> list[tuple[str, LogicalType, int | None]]:
    return [(column.name, column.type, column.key) for column in schema.columns]


def _wait_for(pipeline: Pipeline, schema: TableSchema, was_held_for: str | None, resets: int | None) -> None:
    """Wait until a table has been copied again.

    Args:
        was_held_for: the reason, if it is held.
        resets: how often it had begun to be copied before, if the source is to begin with it.

    Raises:
        UsageError: the pipeline ended before, or the table is held again.
    """
    known_reason = was_held_for
    while True:
        is_unheard, standing = pipeline.is_unheard(schema.identity), pipeline.standing(schema.identity)
        if is_unheard:  # since the pipeline has begun again, for another table
            known_reason = was_held_for
        has_begun = resets is None or pipeline.resets[schema.identity] > resets
        if standing.state is State.FOLLOWING and has_begun:
            return
        if not pipeline.is_running:
            raise UsageError(
                f"The pipeline ended before {schema.table} was copied.",
                hint="The work goes on when the pipeline runs again.",
            )
        if standing.state is State.HELD and standing.reason != known_reason:
            raise UsageError(f"{schema.table} is held: {standing.reason}")
        if standing.state is not State.HELD and not is_unheard:
            known_reason = None  # from here on every reason is a new one
        pipeline.rest(_LOOK_EVERY)


def position(pipeline: Pipeline, _observer: Observer, _arguments: Values, _progress: Progress) -> Values:
    """How far the target is: everything up to there is durable."""
    durable = pipeline.view().durable
    return {"order": durable.order if durable else None, "text": durable.text if durable else None}


def wait(pipeline: Pipeline, _observer: Observer, arguments: Values, progress: Progress) -> Values:
    """Wait until everything up to a position is in the target.

    Args:
        arguments: `position`, as the source writes it, and `timeout`, in seconds.
    """
    began = said = time.monotonic()
    known: Checkpoint | None = None
    while True:
        checkpoint = pipeline.checkpoint
        if checkpoint is not None and checkpoint is not known and has_reached(checkpoint, arguments["position"]):
            held = sorted(map(str, pipeline.held))
            return {"reached": True, "position": checkpoint.position.text, "held": held}
        known, now = checkpoint, time.monotonic()
        if now - began >= arguments["timeout"]:
            return {"reached": False} | _how_far(pipeline)
        if not pipeline.is_running:
            raise Unavailable(
                "The pipeline ended before the command was done.", hint="The work goes on when the pipeline runs again."
            )
        if now - said >= _SAY_EVERY:  # which fails if nobody waits any more
            progress(_how_far(pipeline))
            said = now
        pipeline.hurry(_HURRY)
        pipeline.rest(_SOON)


def _how_far(pipeline: Pipeline) -> Values:
    view = pipeline.view()
    durable = view.durable.text if view.durable is not None else None
    return {"position": durable, "phase": view.phase, "lag_seconds": view.lag_seconds, "failure": view.failure}


def backup(pipeline: Pipeline, _observer: Observer, arguments: Values, _progress: Progress) -> Values:
    """Copy the target's file between two transactions.

    Args:
        arguments: `file`, where the copy goes.
    """

    def copy(stage: Stage) -> Values:
        if not isinstance(stage.target, InOneFile):
            raise UsageError("The target is not one file, so it cannot be copied.")
        stage.target.back_up(Path(arguments["file"]), stage.alive)
        position = stage.checkpoint.position if stage.checkpoint is not None else None
        return {"position": position.text if position is not None else None}

    return pipeline.errand(copy, patience=60.0)


def query(pipeline: Pipeline, _observer: Observer, arguments: Values, _progress: Progress) -> Values:
    """Answer a question in SQL between two transactions.

    Args:
        arguments: `sql`, `limit` and `seconds` (see `cdc.target.QueryWishes`).
    """
    wishes = QueryWishes(arguments["sql"], arguments["limit"], min(arguments["seconds"], LONGEST_QUESTION))

    def ask(stage: Stage) -> Values:
        if not isinstance(stage.target, Questioned):
            raise UsageError(
                "This target answers every process itself.",
                hint="Run the command again: no process keeps others from this target.",
            )
        return written(stage.target.query(wishes))

    return pipeline.errand(ask, patience=wishes.seconds)


JOBS: Mapping[str, Callable[[Pipeline, Observer, Values, Progress], Values]] = {
    "verify": verify,
    "repair": repair,
    "resync": resync,
    "position": position,
    "backup": backup,
    "past": look_back,
    "query": query,
    "wait": wait,
}


def _copy_parts(schema: TableSchema, stage: Stage) -> None:
    replaceable_target(stage).copy_parts(schema)


def _wanted(
    followed: Iterable[TableSchema], arguments: Values, observer: Observer
) -> Iterable[tuple[TableSchema, Sequence[Key] | None]]:
    """The tables to repair, each with the keys of the rows, or None for those that a condition tells."""
    by_name = {schema.table: schema for schema in followed}
    if "table" in arguments:
        yield _known(by_name, _name(arguments["table"], observer.default_schema)), None
        return
    for entry in arguments["tables"]:
        differences = entry["differences"]
        if not differences:
            continue
        schema = _known(by_name, TableName(entry["schema"], entry["name"]))
        if not schema.key or len(differences) < entry["different"]:
            yield schema, None  # rows without a name, or more of them than were listed
            continue
        names = [schema.columns[index].name for index in schema.key]
        yield schema, [tuple(difference["key"][name] for name in names) for difference in differences]


def _known(by_name: Mapping[TableName, TableSchema], name: TableName) -> TableSchema:
    if name not in by_name:
        raise UsageError(
            f"The pipeline does not follow a table {name}.",
            hint="`cdc status SOURCE TARGET` lists the tables that it follows.",
        )
    return by_name[name]


def _name(text: str, default_schema: str) -> TableName:
    schema, dot, name = text.partition(".")
    return TableName(schema, name) if dot else TableName(default_schema, schema)


def _in_short(report: TableReport) -> Values:
    return {
        "table": str(report.table),
        "rows": report.rows,
        "different": report.different,
        "trouble": report.trouble,
    }


def _table(report: TableReport) -> Values:
    return {
        **_in_short(report),
        "schema": report.table.schema,
        "name": report.table.name,
        "identical": report.is_identical,
        "parts": report.parts,
        "parts_seen": report.parts_seen,
        "first_position": report.first.text if report.first else None,
        "last_position": report.last.text if report.last else None,
        "shape": [asdict(difference) for difference in report.shape],
        "left_out": report.left_out,
        "differences": [_difference(report.schema, finding) for finding in report.findings],
    }


def _difference(schema: TableSchema, finding: Finding) -> Values:
    names = [schema.columns[index].name for index in schema.key]
    entry: Values = {
        "key": dict(zip(names, finding.difference.key, strict=True)) if names else None,
        "found": finding.difference.found,
        "rows": finding.difference.copies,
        "position": finding.position.text,
    }
    if finding.source is not None or finding.target is not None:
        entry |= {"source": finding.source, "target": finding.target}
    return entry
