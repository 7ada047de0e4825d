"""History: every version of every row. Nothing is folded; what ends is moved, never changed.

The versions that are current and those that are past are two tables, named by the source's number for the table, so
that ending a version costs what it costs in a mirror however long the past is, and the past is only added to. What a
user reads are views of them (`cdc.tables.published`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import partial

import numpy as np
import pyarrow as pa
from sqlglot import exp

from cdc import faults
from cdc.errors import RowDrift
from cdc.model.arrays import take
from cdc.model.change import ABSENT, ChangeBatch, Op
from cdc.model.gathered import Gathered, gather
from cdc.model.parts import Part
from cdc.model.schema import TableName, TableSchema
from cdc.model.segment import Evolve
from cdc.model.versions import Versions, trace
from cdc.tables import sql
from cdc.tables.digest import part_condition
from cdc.tables.engine import Engine
from cdc.tables.layout import refuse_foreign
from cdc.tables.moments import Moments
from cdc.tables.places import NOT_YET
from cdc.tables.published import (
    BEGIN,
    END,
    Registry,
    publish,
    refuse_taken,
    stored,
    unpublish,
    views,
)
from cdc.tables.rows import MERGE_ROWS
from cdc.tables.table import TargetTable, create, evolve, held_columns, inspect, reshape
from cdc.tables.versions import (
    COPIED,
    COPY,
    DROP,
    ROW,
    Held,
    VersionStatements,
    delete_rows,
    joined_by_row,
    labels,
    new_rows,
    refuse_reserved,
)
from cdc.target import HeldColumn
from cdc.typed.fitting import Readings

_AGE = ("_cdc_valid_to", "_cdc_valid_from")  # of two versions of one key, the later one has the larger numbers
_NTH = "_cdc_nth"
Make = Callable[[TargetTable, Readings], exp.Expr]


class History(VersionStatements):
    """Keeps the versions of tables (see `cdc.tables.layout.Layout`)."""

    places = 2
    age = ("_cdc_valid_from", "_cdc_ordinal")

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._registry = Registry(engine)

    def record(self, moments: Moments) -> None:
        self._registry.commits(moments)
        if moments.transactions is not None:
            self._registry.copies_end(int(moments.order[0]))

    def find(self, schema: TableSchema) -> TargetTable:
        table = inspect(self._engine, schema, current(schema), BEGIN)
        table.past, table.views = past(schema), views(schema.table)
        table.had_rows = self._registry.copied_since(schema) is not None
        return table

    def columns(self, schema: TableSchema) -> list[HeldColumn]:
        return held_columns(self._engine, schema, current(schema), BEGIN)

    def make(self, schema: TableSchema, known_as: TableName | None, moments: Moments, *, by_parts: bool) -> TargetTable:
        refuse_reserved(self._engine, schema)
        self.record(moments)
        if known_as != schema.table:
            refuse_taken(self._engine, schema.table)
        if known_as is None:
            create(self._engine, schema, past(schema), {**BEGIN, **END}, is_past=True)
            table = create(self._engine, schema, current(schema), BEGIN)
            table.past, table.views = past(schema), views(schema.table)
        else:
            if known_as != schema.table:
                unpublish(self._engine, known_as)
            table = reshape(self._engine, schema, current(schema), past(schema), views(schema.table))
            if not by_parts:
                self._end_all(table, _stamp(END, moments, np.zeros(1, dtype=np.int64), labels(np.array([COPY]))))
                self._registry.copy_begins(schema, int(moments.order[0]))
                table.had_rows = True
        self._registry.nothing_is_skipped(schema.identity)
        faults.point("target.reset")
        publish(self._engine, table)
        if known_as is None:
            self._registry.begin(schema, NOT_YET if by_parts else int(moments.order[0]))
        else:
            self._registry.name(schema)
        return table

    def refuse(self, schema: TableSchema, taken: Set[TableName]) -> None:
        refuse_reserved(self._engine, schema)
        for name in views(schema.table):
            refuse_foreign(self._engine, name, taken)

    def evolve(self, table: TargetTable, step: Evolve) -> TargetTable:
        refuse_reserved(self._engine, step.new)
        if step.old.table != step.new.table:
            unpublish(self._engine, step.old.table)
            refuse_taken(self._engine, step.new.table)
            table.views = views(step.new.table)
        made = evolve(self._engine, table, step.new, step.fill)
        publish(self._engine, made)
        self._registry.name(step.new)
        return made

    def truncate(self, table: TargetTable, moments: Moments, transaction: int, ordinal: int) -> None:
        at, place = np.array([transaction]), pa.array([ordinal])
        self._end_all(table, _stamp(END, moments, at, labels(np.array([Op.TRUNCATE])), place))

    def drop(self, table: TargetTable, moments: Moments, transaction: int) -> None:
        self.record(moments)
        at = np.array([transaction])
        self._end_all(table, _stamp(END, moments, at, labels(np.array([DROP]))))
        self._registry.nothing_is_skipped(table.schema.identity)
        self._registry.known_at(table.schema.identity, int(moments.order[transaction]))
        self._registry.is_whole(table.schema, int(moments.order[transaction]))

    def write(self, table: TargetTable, batches: Sequence[ChangeBatch], moments: Moments) -> None:
        codecs = list(table.codecs)
        if batches[0].copied:
            self._copy(table, batches, moments)
        else:
            self._follow(table, gather(batches), moments)
        if codecs != table.codecs:
            publish(self._engine, table)

    def replace(self, table: TargetTable, part: Part, batches: Sequence[ChangeBatch], moments: Moments) -> None:
        codecs = list(table.codecs)
        self.set_aside(table, batches)
        _, gone, came = self.compare(table, self.part(table, part_condition(self._engine, table, part)))
        if len(gone) or len(came):
            self._registry.differed(table.schema.identity)
        at, what = np.zeros(len(gone), dtype=np.int64), labels(np.full(len(gone), COPY))
        self._end(table, gone, _stamp(END, moments, at, what))
        self._begin_copied(table, came, moments)
        self.drop_aside()
        if codecs != table.codecs:
            publish(self._engine, table)

    def copied(self, schema: TableSchema, moments: Moments) -> None:
        self.known_at(schema.identity, moments)
        self._registry.is_whole(schema, int(moments.order[0]))

    def unknown_from(self, identity: int, order: int, reason: str, *, is_doubt: bool, is_skipped: bool) -> None:
        self._registry.unknown_from(identity, order, reason, is_doubt=is_doubt, is_skipped=is_skipped)

    def known_at(self, identity: int, moments: Moments) -> None:
        self.record(moments)
        self._registry.known_at(identity, int(moments.order[0]))

    # --- following the log ------------------------------------------------------------------------------------------

    def _follow(self, table: TargetTable, changes: Gathered, moments: Moments) -> None:
        readings = self.fit(table, changes)
        held = Held(self, table)
        versions = trace(changes, held, in_part=table.is_lenient)
        if table.schema.key and len(versions.missed):
            table.missed |= set(self.key_texts(table, [take(column, versions.missed) for column in versions.keys]))
        data = {f"c{i}": take(column, versions.value[i]) for i, column in enumerate(changes.after)}
        stamp = partial(_change_stamp, changes, moments)
        data |= stamp(BEGIN, versions.beginning) | stamp(END, versions.ended_by)
        masks = _add_origins(held, versions, data)
        if masks:
            with self._engine.visible(new_rows(data), table):
                self._engine.run(self._statement(table, ("complete", *masks), readings, self._complete(masks)))
        self._end(table, held.row_ids(versions.ending_key, versions.ending_place), stamp(END, versions.ending))
        faults.point("target.between_merges")
        with self._engine.visible(new_rows(data), table):
            for is_past in (True, False) if (versions.ended_by != ABSENT).any() else (False,):
                self._engine.run(self._statement(table, ("insert", is_past), readings, self._insert(is_past)))
        if masks:
            for is_past in (True, False):
                self._engine.run(_insert_completed(table, is_past))
            self._engine.run(sql.drop_temporary(sql.COMPLETED))

    def _statement(self, table: TargetTable, what: tuple[object, ...], readings: Readings, make: Make) -> str:
        """A statement over the values of ROWS, made once for each way to read them."""
        key = (*what, *readings.values())
        if key not in table.statements:
            table.statements[key] = self._engine.render(make(table, readings))
        return table.statements[key]

    def _complete(self, masks: Sequence[int]) -> Make:
        return lambda table, readings: self.completed(table, masks, readings, [*BEGIN, *END])

    def _insert(self, is_past: bool) -> Make:
        """What inserts those of ROWS that are past, or current, and lack no value."""

        def make(table: TargetTable, readings: Readings) -> exp.Expr:
            values = self.values(table, range(len(table.schema.columns)), readings)
            names = (*BEGIN, *(END if is_past else ()))
            ours = [sql.column(name, "s") for name in names]
            whole = exp.EQ(this=sql.column(ROW, "s"), expression=exp.convert(ABSENT))
            chosen = exp.select(*values, *ours).from_(sql.rows()).where(exp.and_(whole, _is_past(is_past, "s")))
            into = [*(column.name for column in table.schema.columns), *names]
            return sql.insert_named(_into(table, is_past), into, chosen)

        return make

    def _end(self, table: TargetTable, row_ids: np.ndarray, stamps: dict[str, pa.Array]) -> None:
        """Move versions from the current ones to the past."""
        if table.past is None or not len(row_ids):
            return
        if "move" not in table.statements:
            names = list(self._engine.columns(table.name))  # also of columns that the source has no more
            ended = [*(sql.column(name, "t") for name in names), *(sql.column(name, "s") for name in END)]
            move = sql.insert_named(table.past, [*names, *END], joined_by_row(sql.table(table.name), ended))
            table.statements["move"] = self._engine.render(move)
            table.statements["moved"] = self._engine.render(delete_rows(sql.table(table.name)))
        for start in range(0, len(row_ids), MERGE_ROWS):
            data = {name: column.slice(start, MERGE_ROWS) for name, column in stamps.items()}
            with self._engine.visible(new_rows(data | {ROW: pa.array(row_ids[start : start + MERGE_ROWS])})):
                self._engine.run(table.statements["move"])
                self._expect(table, table.statements["moved"], min(MERGE_ROWS, len(row_ids) - start))

    def _end_all(self, table: TargetTable, stamp: dict[str, pa.Array]) -> None:
        """Move all versions, at one moment."""
        assert table.past is not None
        names = list(self._engine.columns(table.name))
        ended = [*(sql.column(name, "t") for name in names), *(sql.column(name, "s") for name in END)]
        with self._engine.visible(new_rows(stamp)):
            everything = exp.select(*ended).from_(sql.table(table.name, "t")).join(sql.rows(), join_type="cross")
            self._engine.run(sql.insert_named(table.past, [*names, *END], everything))
        self._engine.run(sql.delete_all(table.name))

    def _expect(self, table: TargetTable, statement: exp.Expr | str, count: int) -> None:
        """Run a statement that changes exactly so many rows."""
        if self._engine.run(statement) != count:
            raise RowDrift(
                f"{table.schema.table} in the target has other rows than a moment ago.",
                hint=f"Read it again: `cdc resync SOURCE TARGET --tables {table.schema.table}`.",
            )

    # --- copies -----------------------------------------------------------------------------------------------------

    def _copy(self, table: TargetTable, batches: Sequence[ChangeBatch], moments: Moments) -> None:
        """Rows of a copy. Where the table had versions that ended with this copy, those that it finds again go on."""
        if not table.had_rows:
            self._begin(table, gather(batches), moments)
            return
        self.set_aside(table, batches)
        same, _, came = self.compare(table, self._candidates(table))
        self._go_on(table, same)
        self._begin_copied(table, came, moments)
        self.drop_aside()

    def _begin(self, table: TargetTable, changes: Gathered, moments: Moments) -> None:
        """Copied rows are new versions, all of one moment: as columns of ROWS it would cost more than they do."""
        readings = self.fit(table, changes)
        stamp = _stamp(BEGIN, moments, np.zeros(1, dtype=np.int64), labels(np.array([COPY])))
        data = {f"c{i}": take(column, changes.after_row) for i, column in enumerate(changes.after)}
        with self._engine.visible(new_rows(data), table):
            faults.point("target.before_insert")
            values = self.values(table, range(len(table.schema.columns)), readings)
            ours = [sql.constant(stamp[name][0].as_py(), kind) for name, kind in BEGIN.items()]
            names = [*(column.name for column in table.schema.columns), *BEGIN]
            begun = exp.select(*values, *ours).from_(sql.rows())
            self._engine.run(sql.insert_named(table.name, names, begun))

    def _candidates(self, table: TargetTable) -> exp.Select:
        """The versions that ended when this copy, or one before it that was cut off, began; of each key the last."""
        assert table.past is not None
        ended = exp.and_(
            exp.EQ(this=sql.column("_cdc_ended_by"), expression=sql.literal("copy")),
            exp.GTE(
                this=sql.column("_cdc_valid_to"), expression=exp.convert(self._registry.copied_since(table.schema))
            ),
        )
        of_past = exp.alias_(sql.row_id(), ROW)
        if not table.schema.key:
            return exp.select("*", of_past).from_(sql.table(table.past)).where(ended)
        newest = exp.Window(
            this=exp.RowNumber(),
            partition_by=[sql.column(name) for name in table.key],
            order=exp.Order(expressions=[exp.Ordered(this=sql.column(name), desc=True) for name in _AGE]),
        )
        numbered = exp.select("*", of_past, exp.alias_(newest, _NTH)).from_(sql.table(table.past)).where(ended)
        return (
            exp.select("*")
            .from_(numbered.subquery("ended"))
            .where(exp.EQ(this=sql.column(_NTH), expression=exp.convert(1)))
        )

    def _go_on(self, table: TargetTable, row_ids: np.ndarray) -> None:
        """Versions of the past are current again."""
        if table.past is None or not len(row_ids):
            return
        kept = [name for name in self._engine.columns(table.past) if name not in END]
        with self._engine.visible(new_rows({ROW: pa.array(row_ids)})):
            rows = joined_by_row(sql.table(table.past), [sql.column(name, "t") for name in kept])
            self._engine.run(sql.insert_named(table.name, kept, rows))
            self._expect(table, delete_rows(sql.table(table.past)), len(row_ids))

    def _begin_copied(self, table: TargetTable, row_ids: np.ndarray, moments: Moments) -> None:
        """Rows that were set aside are new versions."""
        if not len(row_ids):
            return
        at = np.zeros(len(row_ids), dtype=np.int64)
        stamps = _stamp(BEGIN, moments, at, labels(np.full(len(row_ids), COPY)))
        names = [column.name for column in table.schema.columns]
        with self._engine.visible(new_rows(stamps | {ROW: pa.array(row_ids)})):
            columns = [sql.column(name, "t") for name in names]
            ours = [sql.column(name, "s") for name in BEGIN]
            begun = joined_by_row(COPIED, [*columns, *ours])
            self._engine.run(sql.insert_named(table.name, [*names, *BEGIN], begun))


def current(schema: TableSchema) -> TableName:
    """Where the current versions of a table are."""
    return stored(schema.identity)[0]


def past(schema: TableSchema) -> TableName:
    """Where the past ones are."""
    return stored(schema.identity)[1]


def _stamp(
    names: Sequence[str] | dict[str, str],
    moments: Moments,
    at: np.ndarray,
    what: pa.Array,
    ordinal: pa.Array | None = None,
) -> dict[str, pa.Array]:
    """Columns that say when and by what versions began, or ended."""
    order, position, time, transaction = moments.at(at)
    place = ordinal if ordinal is not None else pa.nulls(len(at), pa.int64())
    return dict(zip(names, (order, position, time, what, transaction, place), strict=True))


def _change_stamp(changes: Gathered, moments: Moments, names: dict[str, str], which: np.ndarray) -> dict[str, pa.Array]:
    """The same for changes (int64[n]); null where negative."""
    is_there = which != ABSENT
    at = np.where(is_there, changes.transaction[which], ABSENT).astype(np.int64)
    what = labels(np.where(is_there, changes.op[which].astype(np.int64), ABSENT))
    return _stamp(names, moments, at, what, take(pa.array(changes.ordinal), which))


def _add_origins(held: Held, versions: Versions, data: dict[str, pa.Array]) -> list[int]:
    """Add to ROWS which version lends each the values that the log left out; says which columns these are of."""
    lacking = np.flatnonzero(versions.origin != ABSENT)
    source, origin = versions.origin[lacking], np.full(len(versions.origin), ABSENT)
    origin[lacking] = held.row_ids(versions.ending_key[source], versions.ending_place[source])
    data[ROW] = pa.array(origin)
    masks = [index for index, value in enumerate(versions.value) if (value == ABSENT).any()]
    data.update({f"u{index}": pa.array(versions.value[index] == ABSENT) for index in masks})
    return masks


def _insert_completed(table: TargetTable, is_past: bool) -> exp.Expr:
    ours = BEGIN | END if is_past else BEGIN
    names = [*(column.name for column in table.schema.columns), *ours]
    query = exp.select(*map(sql.column, names)).from_(sql.COMPLETED.copy()).where(_is_past(is_past))
    return sql.insert_named(_into(table, is_past), names, query)


def _into(table: TargetTable, is_past: bool) -> TableName:
    assert table.past is not None
    return table.past if is_past else table.name


def _is_past(is_past: bool, alias: str | None = None) -> exp.Expression:
    is_null = exp.Is(this=sql.column("_cdc_valid_to", alias), expression=exp.Null())
    return exp.Not(this=is_null) if is_past else is_null
