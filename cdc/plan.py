"""What a run would do on its source and its targets, found out without changing anything there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from cdc.connectors import (
    JOURNAL,
    KeepsLog,
    database_module,
    kind_of,
    known_as,
    make_observer,
    source_module,
    target_module,
)
from cdc.errors import CdcError, TargetBusy
from cdc.files.disk import no_system_errors
from cdc.journal.observer import source_state
from cdc.logs import without_password
from cdc.model.position import Checkpoint
from cdc.model.schema import TableName, TableSchema
from cdc.observer import Observer
from cdc.options import Options
from cdc.sources.findings import Severity
from cdc.whereabouts import pipeline_of, read_status, refuse_other


class Begins(StrEnum):
    """How a run begins."""

    NEW = "new"  # with a copy
    GOES_ON = "goes on"  # from the target's checkpoint
    RUNS = "runs"  # another process has it


class Action(StrEnum):
    """What becomes of a table."""

    COPY = "copy"  # and then follow
    FOLLOW = "follow"
    HELD = "held"  # it is one of the pipeline's, and something has to be mended
    LEAVE_OUT = "leave out"
    LET_GO = "let go"  # it is followed no longer; its rows stay in the target


@dataclass(frozen=True, slots=True)
class PlannedTable:
    """One table of the source.

    Attributes:
        rows: that would be copied, by the source's estimate; None if it is not copied.
        reason: why, where that is not plain.
    """

    table: str
    action: Action
    rows: int | None = None
    reason: str = ""


@dataclass(slots=True)
class Plan:
    """What a run would do.

    Attributes:
        makes: what would be made, in words, on the source first.
        problems: what an operator has to do before, a sentence each.
        warnings: what somebody should know.
    """

    pipeline: str
    source: str
    targets: list[str]
    begins: Begins = Begins.NEW
    makes: list[str] = field(default_factory=list)
    tables: list[PlannedTable] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows that would be copied, by the source's estimates."""
        return sum(table.rows or 0 for table in self.tables)


class _Known(NamedTuple):
    """The tables of a pipeline that was there before, by their names in words; those that are held with the reason."""

    followed: Mapping[str, TableName] = MappingProxyType({})
    held: Mapping[str, str] = MappingProxyType({})


def plan(source: str, targets: Sequence[str], options: Options) -> Plan:
    """Look at both ends.

    Args:
        targets: the first is what the source's changes go to; a journal may feed others.
    """
    found = Plan(options.name, without_password(source), [without_password(target) for target in targets])
    try:
        with no_system_errors():
            checkpoint = _look_at_target(found, source, targets[0], options)
            for target in targets[1:]:
                _look_at_feed(found, target, options)
            if kind_of(source) != JOURNAL:
                _look_at_source(found, source, targets[0], options, checkpoint)
    except CdcError as error:
        found.problems.append(_said(error))
    return found


def _look_at_target(found: Plan, source: str, target: str, options: Options) -> Checkpoint | None:
    """Its checkpoint; None if there is none yet, or another process has the target open."""
    module, place = target_module(target)
    if read_status(target, options.name).get("phase", "stopped") != "stopped":
        found.begins = Begins.RUNS
        return None
    try:
        checkpoint = module.read_checkpoint(place, options.name)
    except TargetBusy as error:
        found.begins = Begins.RUNS
        found.warnings.append(error.message)
        return None
    if checkpoint is None:
        found.makes.append(without_password(target))
        return None
    refuse_other(target, options.name, pipeline_of(source, checkpoint.state, options.name))
    found.begins = Begins.GOES_ON
    return checkpoint


def _look_at_feed(found: Plan, target: str, options: Options) -> None:
    module, place = target_module(target)
    try:
        if module.read_checkpoint(place, options.name) is None:
            found.makes.append(without_password(target))
    except TargetBusy as error:
        found.warnings.append(error.message)


def _look_at_source(found: Plan, source: str, target: str, options: Options, checkpoint: Checkpoint | None) -> None:
    module = database_module(source)
    if found.begins is Begins.NEW:
        made = module.source_removals(source, options.name, None)
        found.problems += [
            f"The {removal.what} is there, and no target goes with it. If it is of a pipeline that is gone: "
            f"cdc teardown SOURCE --name {options.name}"
            for removal in made
        ]
        for finding in module.check_source(source, options.selection):
            said = f"{finding.subject}: {finding.message} {finding.fix or ''}".rstrip()
            if finding.severity is Severity.FATAL:
                found.problems.append(said)
            elif finding.severity is Severity.WARNING:
                found.warnings.append(said)
    elif checkpoint is not None:
        known_name = known_as(source, target, options.name)
        status = source_module(source).source_status(source, known_name, checkpoint.state, checkpoint.position)
        if status.problem is not None:
            found.problems.append(status.problem)
    with closing(make_observer(source, options)) as observer:
        known = _Known()
        if checkpoint is not None:
            state = source_state(checkpoint.state)
            held = {str(schema.table): why for schema, why in observer.held(state).items()}
            known = _Known({str(schema.table): schema.table for schema in observer.followed(state)}, held)
        elif found.begins is Begins.RUNS:
            said = read_status(target, options.name).get("tables", {})
            known = _Known({name: TableName(*name.split(".", 1)) for name in said})
        found.tables = sorted(_tables(target, options, known, observer), key=lambda table: table.table)
    if found.begins is Begins.NEW and isinstance(module, KeepsLog):
        keyless = any(table.action is Action.COPY and table.reason for table in found.tables)
        found.makes = [*module.makes(options.name, keyless=keyless), *found.makes]


def _tables(target: str, options: Options, known: _Known, observer: Observer) -> Iterator[PlannedTable]:
    """What becomes of the tables that are meant, and of those that were."""
    selection = replace(options.selection, default_schema=observer.default_schema)
    selected = observer.selected(selection)
    coming: dict[TableSchema, str] = {}
    for table in selected:
        name = str(table.schema.table)
        is_followed = table.left_out is None or (options.include_keyless and table.has_inserts)
        if name in known.held:
            yield PlannedTable(name, Action.HELD, reason=known.held[name])
        elif not is_followed:
            yield PlannedTable(name, Action.LEAVE_OUT, reason=table.left_out or "")
        elif name in known.followed:
            yield PlannedTable(name, Action.FOLLOW)
        else:
            coming[table.schema] = f"inserts and truncates only: {table.left_out}" if table.left_out is not None else ""
    module, _ = target_module(target)
    refused = module.set_apart(coming, known.followed.values())
    for schema, only in coming.items():
        if (why := refused.get(schema.table)) is not None:
            yield PlannedTable(str(schema.table), Action.LEAVE_OUT, reason=why)
        else:
            yield PlannedTable(str(schema.table), Action.COPY, observer.rows_estimated(schema), only)
    for name, table_name in known.followed.items():
        if not selection.matches(table_name):
            yield PlannedTable(name, Action.LET_GO, reason="it is not selected any more; its rows stay in the target")


def _said(error: CdcError) -> str:
    return f"{error.message} {error.hint or ''}".rstrip()
