"""What can be asked of a pipeline that runs: verify, repair, resync, where it is; arguments and answers are JSON.

So it makes no difference whether the asker is the process of the pipeline or sits at the other end of its socket.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from cdc.backfill import Backfill
from cdc.errors import UsageError
from cdc.model.parts import Condition, Key
from cdc.model.schema import TableName, TableSchema
from cdc.observer import Observer
from cdc.pipeline import Pipeline
from cdc.selection import Selection
from cdc.stage import Stage
from cdc.verify import Finding, TableReport, Verifier, Wishes, comparable_target, replaceable_target, sum_up

log = logging.getLogger(__name__)

Values = dict[str, Any]
Progress = Callable[[Values], None]

_LOOK_EVERY = 0.1  # seconds


def verify(pipeline: Pipeline, observer: Observer, arguments: Values, progress: Progress) -> Values:
    """Compare tables.

    Args:
        arguments: `tables`, `exclude`, `sample`, `max_rate`, `with_values` (see `cdc.verify.Wishes`).
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
    """Read rows anew: those that a verification found, or those of one table that fulfil a condition.

    Args:
        arguments: `tables` as in the answer of `verify`; or `table` and `where`, which may be None.
    """
    pipeline.errand(comparable_target, patience=60.0)
    followed = Verifier(pipeline, observer).tables(Selection())
    backfill = Backfill(pipeline, observer)
    done = []
    for schema, keys in _wanted(followed, arguments, observer):
        if keys is None:
            condition = Condition(where, observer.dialect) if (where := arguments.get("where")) else None
            rows = backfill.repair_where(schema, condition)
        else:
            rows = backfill.repair_rows(schema, keys)
        log.info("repaired %s: %d rows read anew", schema.table, rows)
        done.append({"table": str(schema.table), "rows": rows})
        progress(done[-1])
    return {"tables": done}


def resync(pipeline: Pipeline, observer: Observer, arguments: Values, progress: Progress) -> Values:
    """Copy whole tables anew, part by part.

    Args:
        arguments: `tables`, names or patterns.
    """
    tables = Selection(tuple(arguments["tables"]), (), observer.default_schema)
    schemas = list(Verifier(pipeline, observer).tables(tables))
    for schema in schemas:
        pipeline.errand(partial(_copy_parts, schema), patience=60.0)
    done = []
    for schema in schemas:
        while schema.identity in pipeline.copying:
            if not pipeline.is_running:
                raise UsageError(
                    f"The pipeline ended before {schema.table} was copied.", hint="It goes on when it runs again."
                )
            pipeline.rest(_LOOK_EVERY)
        done.append({"table": str(schema.table)})
        progress(done[-1])
    return {"tables": done}


def position(pipeline: Pipeline, _observer: Observer, _arguments: Values, _progress: Progress) -> Values:
    """How far the target is: everything up to there is durable."""
    durable = pipeline.view().durable
    return {"order": durable.order if durable else None, "text": durable.text if durable else None}


JOBS: Mapping[str, Callable[[Pipeline, Observer, Values, Progress], Values]] = {
    "verify": verify,
    "repair": repair,
    "resync": resync,
    "position": position,
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
        raise UsageError(f"The pipeline does not follow a table {name}.", hint="`cdc status` lists those that it does.")
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
        "differences": [_difference(report.schema, finding) for finding in report.findings],
    }


def _difference(schema: TableSchema, finding: Finding) -> Values:
    names = [schema.columns[index].name for index in schema.key]
    told: Values = {
        "key": dict(zip(names, finding.difference.key, strict=True)) if names else None,
        "found": finding.difference.found,
        "rows": finding.difference.copies,
        "position": finding.position.text,
    }
    if finding.source is not None or finding.target is not None:
        told |= {"source": finding.source, "target": finding.target}
    return told
