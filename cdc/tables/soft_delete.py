"""Soft delete: a mirror whose rows stay when they are deleted, with the time and the place of that beside them."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np
import pyarrow as pa
from sqlglot import exp

from cdc import faults
from cdc.errors import UsageError
from cdc.model.arrays import take
from cdc.model.change import ABSENT, ChangeBatch
from cdc.model.gathered import Gathered, gather
from cdc.model.parts import Part
from cdc.model.schema import TableName, TableSchema
from cdc.model.segment import Evolve
from cdc.model.versions import last_of_keys, trace
from cdc.tables import sql
from cdc.tables.digest import part_condition
from cdc.tables.engine import Engine
from cdc.tables.layout import refuse_foreign, refusing_foreign
from cdc.tables.moments import Moments
from cdc.tables.table import TargetTable, create, evolve, held_columns, inspect, rename, reshape
from cdc.tables.versions import COPIED, ROW, Held, VersionStatements, joined_by_row, new_rows, refuse_reserved
from cdc.target import HeldColumn
from cdc.typed.fitting import Readings

DELETED = {"_cdc_deleted_at": "TIMESTAMP WITH TIME ZONE", "_cdc_deleted_position": "VARCHAR"}


class SoftDelete(VersionStatements):
    """Keeps tables with their deleted rows (see `cdc.tables.layout.Layout`).

    Of each key there is one row: the one that has it, or the last one that had.
    """

    places = 1

    def record(self, moments: Moments) -> None:
        pass

    def find(self, schema: TableSchema) -> TargetTable:
        table = _with_live(inspect(self._engine, schema, ours=DELETED))
        table.had_rows = True
        return table

    def columns(self, schema: TableSchema) -> list[HeldColumn]:
        return held_columns(self._engine, schema, ours=DELETED)

    def make(self, schema: TableSchema, known_as: TableName | None, moments: Moments, *, by_parts: bool) -> TargetTable:
        _refuse_shape(self._engine, schema)
        faults.point("target.reset")
        with refusing_foreign(self._engine, schema.table):
            if known_as is None:
                return _with_live(create(self._engine, schema, ours=DELETED))
            if known_as != schema.table:
                rename(self._engine, known_as, schema.table)
        table = _with_live(reshape(self._engine, schema, schema.table, None))
        table.stored, table.had_rows = None, True
        if not by_parts:
            self._mark(table, part_condition(self._engine, table, Part()), moments, 0)
        return table

    def refuse(self, schema: TableSchema, taken: Set[TableName]) -> None:
        _refuse_shape(self._engine, schema)
        refuse_foreign(self._engine, schema.table, taken)

    def evolve(self, table: TargetTable, step: Evolve) -> TargetTable:
        _refuse_shape(self._engine, step.new)
        return evolve(self._engine, table, step.new, step.fill)

    def truncate(self, table: TargetTable, moments: Moments, transaction: int, ordinal: int) -> None:
        self._mark(table, part_condition(self._engine, table, Part()), moments, transaction)

    def write(self, table: TargetTable, batches: Sequence[ChangeBatch], moments: Moments) -> None:
        if not batches[0].copied:
            self._follow(table, gather(batches), moments)
            return
        if not table.had_rows:
            changes = gather(batches)
            self.insert(table, [take(column, changes.after_row) for column in changes.after])
            return
        self.set_aside(table, batches)
        (row_ids,) = self._engine.numbers(exp.select(sql.row_id()).from_(COPIED.copy()))
        self._put_copied(table, row_ids)
        self.drop_aside()

    def drop(self, table: TargetTable, moments: Moments, transaction: int) -> None:
        self.truncate(table, moments, transaction, 0)

    def copied(self, schema: TableSchema, moments: Moments) -> None:
        pass

    def unknown_from(self, identity: int, order: int, reason: str, *, is_doubt: bool, is_skipped: bool) -> None:
        pass

    def known_at(self, identity: int, moments: Moments) -> None:
        pass

    def replace(self, table: TargetTable, part: Part, batches: Sequence[ChangeBatch], moments: Moments) -> None:
        self.set_aside(table, batches)
        _, gone, came = self.compare(table, self.part(table, part_condition(self._engine, table, part)))
        with self._engine.visible(new_rows({ROW: pa.array(gone)})):
            chosen = exp.select(sql.column(ROW)).from_(sql.rows())
            self._mark(table, exp.In(this=sql.row_id(), query=chosen.subquery()), moments, 0)
        self._put_copied(table, came)
        self.drop_aside()

    def _mark(self, table: TargetTable, which: exp.Condition, moments: Moments, transaction: int) -> None:
        """Rows go, all at one moment."""
        _, position, at, _ = (column[0].as_py() for column in moments.at(np.array([transaction])))
        time = sql.cast(sql.literal(at.isoformat()), DELETED["_cdc_deleted_at"])
        sets = [
            exp.EQ(this=sql.column(name), expression=value)
            for name, value in zip(DELETED, (time, sql.literal(position)), strict=True)
        ]
        self._engine.run(exp.Update(this=sql.table(table.name), expressions=sets, where=exp.Where(this=which)))

    def _put_copied(self, table: TargetTable, row_ids: np.ndarray) -> None:
        """Rows that were set aside take the place of those with their keys."""
        columns = [column.name for column in table.schema.columns]
        with self._engine.visible(new_rows({ROW: pa.array(row_ids)})):
            self._engine.run(_delete_same_keys(table))
            query = joined_by_row(COPIED, [sql.column(name, "t") for name in columns])
            faults.point("target.before_insert")
            self._engine.run(sql.insert_named(table.name, columns, query))

    def _follow(self, table: TargetTable, changes: Gathered, moments: Moments) -> None:
        readings = self.fit(table, changes)
        held = Held(self, table)
        versions = trace(changes, held, in_part=table.is_lenient)
        if len(versions.missed):
            table.missed |= set(self.key_texts(table, [take(column, versions.missed) for column in versions.keys]))
        last = last_of_keys(changes, versions)
        origin = np.full(len(last.deleted_by), ABSENT)
        lends = last.source != ABSENT
        source = last.source[lends]
        origin[lends] = held.row_ids(versions.ending_key[source], versions.ending_place[source])
        deleted = np.where(last.deleted_by == ABSENT, ABSENT, changes.transaction[last.deleted_by]).astype(np.int64)
        _, position, time, _ = moments.at(deleted)
        masks = [index for index, value in enumerate(last.value) if (value == ABSENT).any()]
        data = {f"c{i}": take(column, last.value[i]) for i, column in enumerate(changes.after)}
        data |= {f"u{index}": pa.array(last.value[index] == ABSENT) for index in masks}
        data |= dict(zip(DELETED, (time, position), strict=True)) | {ROW: pa.array(origin)}
        if masks:
            with self._engine.visible(new_rows(data), table):
                self._engine.run(self.completed(table, masks, readings, DELETED))
        self.delete_keys(table, last.keys)
        faults.point("target.between_merges")
        with self._engine.visible(new_rows(data), table):
            inserted = self._engine.run(self._insert(table, readings))
        if masks:
            names = [*(column.name for column in table.schema.columns), *DELETED]
            query = exp.select(*map(sql.column, names)).from_(sql.COMPLETED.copy())
            inserted += self._engine.run(sql.insert_named(table.name, names, query))
            self._engine.run(sql.drop_temporary(sql.COMPLETED))
        self.verify_all_came(table, inserted, len(origin))

    def _insert(self, table: TargetTable, readings: Readings) -> str:
        key = ("put", *readings.values())
        if key not in table.statements:
            values = self.values(table, range(len(table.schema.columns)), readings)
            ours = [sql.column(name, "s") for name in DELETED]
            whole = exp.EQ(this=sql.column(ROW, "s"), expression=exp.convert(ABSENT))
            query = exp.select(*values, *ours).from_(sql.rows()).where(whole)
            names = [*(column.name for column in table.schema.columns), *DELETED]
            table.statements[key] = self._engine.render(sql.insert_named(table.name, names, query))
        return table.statements[key]


def _with_live(table: TargetTable) -> TargetTable:
    table.live = exp.Is(this=sql.column("_cdc_deleted_at"), expression=exp.Null())
    return table


def _refuse_shape(engine: Engine, schema: TableSchema) -> None:
    refuse_reserved(engine, schema)
    if not schema.key:
        raise UsageError(
            f"{schema.table} has no key, and without one a deleted row cannot be found again.",
            hint="Give the table a key, leave it out with --exclude, or use --mode history.",
        )


def _delete_same_keys(table: TargetTable) -> exp.Expr:
    """Delete the rows that have the key of one of COPIED that ROWS names."""
    names = [table.schema.columns[index].name for index in table.schema.key]
    keys = joined_by_row(COPIED, [sql.column(name, "t") for name in names])
    key: exp.Expression = exp.Tuple(expressions=[sql.column(name) for name in names])
    among = exp.In(this=key if len(names) > 1 else sql.column(names[0]), query=keys.subquery())
    return exp.Delete(this=sql.table(table.name), where=exp.Where(this=among))
