"""Row events of one table to columns of changes, whatever images they carry. Sans I/O, in lockstep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import pyarrow as pa

from cdc.errors import DecodeError
from cdc.model.change import ABSENT, Op, Rows
from cdc.model.schema import TableSchema
from cdc.sources.lockstep import Buffer
from cdc.sources.mysql.defaults import Default, filled
from cdc.sources.mysql.events import DELETES, HEADER, ROWS_V1, UPDATES, WRITES, Event
from cdc.sources.mysql.replaces import REPLACE, UNCERTAIN
from cdc.sources.mysql.rows import Field, Image, chosen_rows, joined_fields, no_values, same_values, walk_rows
from cdc.sources.mysql.tablemap import Wire, WireColumn
from cdc.sources.mysql.types import SourceType
from cdc.sources.mysql.values import Converter, column_array, patched

_OP = np.zeros(256, dtype=np.uint8)
_OP[list(WRITES)], _OP[list(UPDATES)], _OP[list(DELETES)] = Op.INSERT, Op.UPDATE, Op.DELETE


@dataclass(frozen=True, slots=True)
class Plan:
    """How to read the rows of a table map.

    Attributes:
        schema: the table that they are rows of.
        wire: the columns of a row image.
        places: for each column of the schema, which of `wire` it is. Columns that the server hides are nobody's (B-46).
        sources: the types of the schema's columns.
        defaults: of the schema's columns, where they are known.
        row_end: which of `wire` says when a row of a system-versioned table ceased to be (B-47).
        bases: of generated columns, by which of `wire` they are, those that their values depend on.
    """

    schema: TableSchema
    wire: tuple[WireColumn, ...]
    places: tuple[int, ...]
    sources: tuple[SourceType, ...]
    defaults: tuple[Default | None, ...]
    row_end: int | None = None
    bases: dict[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TableRows:
    """Changes of one table in log order: as in a `ChangeBatch`, and int64[n], which event each is from.

    Attributes:
        doubted: bool[n], those that the log does not have whole: what they lack is marked as unchanged, and may be not.
        doubts: why, in words that follow the name of the table.
    """

    event: np.ndarray
    op: np.ndarray
    after: Rows | None
    after_row: np.ndarray
    before: Rows | None
    before_row: np.ndarray
    doubted: np.ndarray
    doubts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows of events of one kind that carry the same columns: by place, fields before and after.

    Attributes:
        is_new: each is a new row, also where it takes the place of another one: what it lacks has its default.
        doubts: what is not certain about them.
        doubted: bool[n], which of them that is said of; None before that is known.
    """

    event: np.ndarray
    op: Op
    before: dict[int, Field]
    after: dict[int, Field]
    is_new: bool = False
    doubts: tuple[str, ...] = ()
    doubted: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.event)


class Replaced(Protocol):
    """What tells which updates are a REPLACE."""

    def __call__(self, event: np.ndarray) -> np.ndarray:
        """uint8[n]: for updates that lack columns, by the indexes of their events (int64[n]): ORDINARY, REPLACE or
        UNCERTAIN."""


def decode_rows(
    buffer: Buffer,
    start: np.ndarray,
    end: np.ndarray,
    kind: np.ndarray,
    plan: Plan,
    converter: Converter,
    replaced: Replaced | None = None,
) -> TableRows:
    """Decode row events.

    Args:
        start, end, kind: int64[m], where each event is and its type; all of the table that the plan is for.
        replaced: asked about updates that lack columns, where a REPLACE is logged as one (MariaDB).

    Raises:
        DecodeError: an event is damaged, or carries too little to apply it.
    """
    groups = list(_groups(buffer, start, end, kind, plan))
    if plan.row_end is not None:
        groups = [now for group in groups for now in _of_now(buffer, group, plan.row_end, plan.wire[plan.row_end])]
    if replaced is not None:
        groups = [part for group in groups for part in _replaces_apart(group, plan, replaced)]
    groups = [_with_doubts(buffer, group, plan) for group in groups]
    event = np.concatenate([group.event for group in groups])
    op = np.concatenate([np.full(len(group), group.op, dtype=np.uint8) for group in groups])
    after_row, after = _after(buffer, groups, plan, converter)
    before_row, before = _before(buffer, groups, plan, converter)
    doubted = np.concatenate([_doubted(group) for group in groups])
    doubts = tuple(dict.fromkeys(doubt for group in groups if _doubted(group).any() for doubt in group.doubts))
    if (event[1:] >= event[:-1]).all():
        return TableRows(event, op, after, after_row, before, before_row, doubted, doubts)
    order = np.argsort(event, kind="stable")
    return TableRows(
        event[order], op[order], after, after_row[order], before, before_row[order], doubted[order], doubts
    )


def _groups(buffer: Buffer, start: np.ndarray, end: np.ndarray, kind: np.ndarray, plan: Plan) -> Iterator[_Group]:
    """Walk the events by their kind and the columns that they carry (binlog_row_image, B-24)."""
    at = start + HEADER + 8
    second = ~np.isin(kind, ROWS_V1)
    extra = np.where(second, buffer.at("<u2")[at], 0).astype(np.int64)  # of partitions and the like; counts itself
    at += extra
    _refuse(second & (extra < 2) | (at >= end), buffer, start, plan)
    count = len(plan.wire)
    width = (count + 7) // 8
    said = buffer.bytes[at].astype(np.int64)
    long = said == 0xFC
    said[long] = buffer.at("<u2")[at[long] + 1]
    if (said != count).any():
        raise DecodeError(f"Rows of {plan.schema.table} have another number of columns than its table map.")
    bitmap = at + np.where(long, 3, 1)
    op = _OP[kind]
    for number in np.unique(kind).tolist():
        which = np.flatnonzero(kind == number)
        is_update = op[which[0]] == Op.UPDATE
        maps = width * (2 if is_update else 1)
        _refuse(bitmap[which] + maps >= end[which], buffer, start[which], plan)  # no event is without a row
        bits = buffer.bytes[bitmap[which][:, None] + np.arange(maps)]
        if (bits == bits[0]).all():  # nearly always
            distinct, member = bits[:1], np.zeros(len(which), dtype=np.int64)
        else:
            distinct, member = np.unique(bits, axis=0, return_inverse=True)
        for index, row in enumerate(distinct):
            chosen = which[member.reshape(-1) == index]
            images = [Image(_present(row[i : i + width], count)) for i in range(0, maps, max(width, 1))]
            if not any(image.present for image in images):
                raise DecodeError(
                    f"Changes of {plan.schema.table} were logged without any of its columns.",
                    hint="Set binlog_row_image = FULL for all sessions. `cdc resync SOURCE TARGET "
                    "--tables TABLE` then copies it again.",
                )
            partial = number == Event.PARTIAL_UPDATE_ROWS
            walked = walk_rows(buffer, bitmap[chosen] + maps, end[chosen], plan.wire, images, partial=partial)
            found = Op(int(op[which[0]]))
            yield _Group(
                chosen[walked.event],
                found,
                before={} if found is Op.INSERT else walked.images[0],
                after={} if found is Op.DELETE else walked.images[-1],
                is_new=found is Op.INSERT,
            )


def _refuse(wrong: np.ndarray, buffer: Buffer, start: np.ndarray, plan: Plan) -> None:
    if wrong.any():
        end = int(buffer.at("<u4")[start[np.argmax(wrong)] + 13])
        raise DecodeError(f"A row event of {plan.schema.table} that ends at {end} is damaged: it ends before its rows.")


@contextmanager
def _naming(plan: Plan, index: int) -> Iterator[None]:
    """Let errors say of which column they are."""
    try:
        yield
    except DecodeError as error:
        where = f"{plan.schema.table}.{plan.schema.columns[index].name}"
        raise DecodeError(f"{where}: {error.message}", hint=error.hint) from error


def _of_now(buffer: Buffer, group: _Group, place: int, column: WireColumn) -> Iterator[_Group]:
    """Changes to the rows of now, out of those to a table that keeps its past rows as well (B-47).

    Rows of the past come as inserts, and go as deletes. A row that is deleted is updated: it becomes one of the past.
    """
    if group.op is Op.UPDATE and place in group.after:
        stays = _is_now(buffer, group.after[place], column)
        was = _is_now(buffer, group.before[place], column) if place in group.before else np.ones(len(stays), dtype=bool)
        yield _part(group, stays & was, Op.UPDATE)
        yield _part(group, ~stays & was, Op.DELETE)
        return
    field = group.after.get(place) or group.before.get(place)
    yield _part(group, _is_now(buffer, field, column), group.op) if field is not None else group


def _is_now(buffer: Buffer, field: Field, column: WireColumn) -> np.ndarray:
    """Whether a row's end is the latest moment that there is: of a TIMESTAMP(6), or of a transaction's number."""
    if column.wire is Wire.LONGLONG:
        found: np.ndarray = buffer.at("<u8")[field.start] == np.uint64(0xFFFFFFFFFFFFFFFF)
        return found
    second = buffer.at(">u4")[field.start]
    latest: np.ndarray = (second == 0x7FFFFFFF) | (second == 0xFFFFFFFF)  # until MariaDB 11.5, and since
    return latest


def _part(group: _Group, which: np.ndarray, op: Op) -> _Group:
    def chosen(fields: dict[int, Field]) -> dict[int, Field]:
        return {place: chosen_rows(field, which) for place, field in fields.items()}

    return replace(
        group,
        event=group.event[which],
        op=op,
        before=chosen(group.before),
        after={} if op is Op.DELETE else chosen(group.after),
    )


def _replaces_apart(group: _Group, plan: Plan, replaced: Replaced) -> Iterator[_Group]:
    """Updates, and those that are a REPLACE."""
    wanted = [place for place, source in zip(plan.places, plan.sources, strict=True) if not source.generated]
    if group.op is not Op.UPDATE or all(place in group.after or place in group.before for place in wanted):
        yield group
        return
    kinds = replaced(group.event)
    for kind in np.unique(kinds).tolist():
        doubts = ("an update of it may be a REPLACE",) if kind == UNCERTAIN else ()
        yield replace(_part(group, kinds == kind, Op.UPDATE), is_new=kind == REPLACE, doubts=doubts)


def _with_doubts(buffer: Buffer, group: _Group, plan: Plan) -> _Group:
    """With the columns that are not known of some rows: those of new rows that have neither a value nor a default, and
    generated ones, which MariaDB leaves out although they change (M19).

    A generated column stays what it is only where the log shows that all it depends on does.
    """
    lacking: list[str] = []
    doubted = np.full(len(group), bool(group.doubts))
    for column, place, source, default in zip(
        plan.schema.columns, plan.places, plan.sources, plan.defaults, strict=True
    ):
        if not source.generated:
            is_lost = group.is_new and default is None and place not in group.after
            lacks = np.full(len(group), is_lost)
        elif group.op is Op.DELETE:
            lacks = np.full(len(group), not plan.schema.key and place not in group.before)
        else:
            lacks = np.full(len(group), place not in group.after)
            bases = plan.bases.get(place, ())
            if bases and all(base in group.before and base in group.after for base in bases):
                lacks &= ~np.logical_and.reduce(
                    [same_values(buffer, group.before[base], group.after[base]) for base in bases]
                )
            if group.op is Op.UPDATE and not plan.schema.key:
                lacks |= place not in group.before
        if lacks.any():
            lacking.append(column.name)
            doubted |= lacks
    doubts = (f"changes of it were logged without {', '.join(lacking)}",) if lacking else ()
    return replace(group, doubts=(*group.doubts, *doubts), doubted=doubted)


def _doubted(group: _Group) -> np.ndarray:
    return group.doubted if group.doubted is not None else np.zeros(len(group), dtype=bool)


def _present(bits: np.ndarray, count: int) -> tuple[int, ...]:
    return tuple(np.flatnonzero(np.unpackbits(bits, bitorder="little")[:count]).tolist())


def _after(
    buffer: Buffer, groups: Sequence[_Group], plan: Plan, converter: Converter
) -> tuple[np.ndarray, Rows | None]:
    chosen = [group for group in groups if group.op is not Op.DELETE]
    places = _numbered(groups, [group.op is not Op.DELETE for group in groups])
    if not sum(map(len, chosen)):
        return places, None
    columns, masks = [], []
    for index, (place, source) in enumerate(zip(plan.places, plan.sources, strict=True)):
        column, default = plan.schema.columns[index], plan.defaults[index]
        fields, absent, missing = [], [], []
        for group in chosen:
            is_lost = group.is_new or source.generated  # the value before says nothing
            field = group.after.get(place) or (None if is_lost else group.before.get(place))
            has_default = field is None and group.is_new and default is not None
            fields.append(field or no_values(len(group)))
            missing.append(np.full(len(group), has_default))
            absent.append(np.full(len(group), field is None and not has_default and group.op is Op.UPDATE))
        joined = joined_fields(fields)
        with _naming(plan, index):
            if joined.partial is not None and joined.partial.any():
                old = joined_fields([group.before.get(place) or no_values(len(group)) for group in chosen])
                columns.append(patched(buffer, joined, old))
            else:
                columns.append(column_array(buffer, joined, plan.wire[place], source, converter))
        if default is not None:
            columns[-1] = filled(columns[-1], np.concatenate(missing), column, default)
        mask = np.concatenate(absent)
        masks.append(mask if mask.any() else None)
    return places, Rows(tuple(columns), tuple(masks))


def _before(
    buffer: Buffer, groups: Sequence[_Group], plan: Plan, converter: Converter
) -> tuple[np.ndarray, Rows | None]:
    """Old rows: whole ones if there is no key; if all of them are emitted, as much as the log has; else the keys of
    those that went or got another one."""
    schema = plan.schema
    wanted = [index for index in range(len(plan.places)) if schema.full_before or index in schema.key]
    needed = schema.key or wanted
    kept, fields, absent = [], [], []
    for group in groups:
        if group.op is Op.INSERT:
            kept.append(np.zeros(len(group), dtype=bool))
            continue
        for index in needed:
            if plan.places[index] not in group.before and not plan.sources[index].generated:
                raise DecodeError(
                    f"A change of {schema.table} was logged without the old value of {schema.columns[index].name}.",
                    hint="Set binlog_row_image = FULL for all sessions. `cdc resync SOURCE TARGET "
                    "--tables TABLE` then copies it again.",
                )
        keeps = np.ones(len(group), dtype=bool)
        if group.op is Op.UPDATE and not schema.full_before:
            for index in wanted:
                place = plan.places[index]
                if place in group.after:
                    keeps &= same_values(buffer, group.before[place], group.after[place])
                elif group.is_new:
                    keeps[:] = False  # it has the default now
            keeps = ~keeps
        kept.append(keeps)
        found = [group.before.get(plan.places[index]) for index in wanted]
        fields.append([chosen_rows(field or no_values(len(group)), keeps) for field in found])
        absent.append([np.full(int(keeps.sum()), field is None) for field in found])
    keeps = np.concatenate(kept)
    count = int(keeps.sum())
    row = np.where(keeps, np.cumsum(keeps) - 1, ABSENT)
    if count == 0:
        return row, None
    columns: list[pa.Array] = []
    masks: list[np.ndarray | None] = []
    for index, (place, source) in enumerate(zip(plan.places, plan.sources, strict=True)):
        at = wanted.index(index) if index in wanted else None
        field = joined_fields([part[at] for part in fields]) if at is not None else no_values(count)
        mask = np.concatenate([part[at] for part in absent]) if at is not None else np.zeros(count, dtype=bool)
        masks.append(mask if mask.any() else None)
        with _naming(plan, index):
            columns.append(column_array(buffer, field, plan.wire[place], source, converter))
    return row, Rows(tuple(columns), tuple(masks))


def _numbered(groups: Sequence[_Group], has_row: Sequence[bool]) -> np.ndarray:
    """For each change, the number of its row among those of the groups that have one."""
    has = np.concatenate([np.full(len(group), flag) for group, flag in zip(groups, has_row, strict=True)])
    return np.where(has, np.cumsum(has) - 1, ABSENT)
