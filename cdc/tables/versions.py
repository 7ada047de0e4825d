"""What history and soft delete share: finding rows that versions end, completing new ones, comparing with copies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from sqlglot import exp

from cdc.errors import UsageError
from cdc.model.arrays import take
from cdc.model.change import ABSENT, ChangeBatch, Op
from cdc.model.gathered import Gathered, gather
from cdc.model.schema import TableSchema
from cdc.tables import sql
from cdc.tables.digest import row_text
from cdc.tables.engine import Database, Input
from cdc.tables.rows import RowStatements, numbered
from cdc.tables.table import OURS, TargetTable
from cdc.typed.fitting import Readings

ROW = "_cdc_row"  # of ROWS: the row id of a row of the table
COPIED = exp.Table(this=exp.to_identifier("_cdc_copied"))
_NUMBER, _TEXT, _NTH = "number", "text_", "nth_"
_LABELS = pa.array(["copy", *(op.label for op in Op), "drop"])  # by the numbers of `Op`, which begin at 1
COPY, DROP = 0, 5


def labels(op: np.ndarray) -> pa.Array:
    """Names of what happened; null where negative."""
    return take(_LABELS, op)


def refuse_reserved(engine: Database, schema: TableSchema) -> None:
    """Raise UsageError for columns whose names are needed for what is kept beside the source's own columns."""
    row_id = engine.abilities.row_id
    for column in schema.columns:
        name = column.name.lower()
        if name.startswith(OURS) or name == row_id:
            raise UsageError(
                f"{schema.table} has a column {column.name!r}; names that begin with {OURS}"
                f"{f', and {row_id},' if row_id else ''} are needed where more than the rows as they are now is kept.",
                hint="Leave the table out with --exclude, rename the column, or keep a mirror.",
            )


class Held:
    """Finds the rows that have some keys when `cdc.model.versions.trace` asks, and remembers which they are."""

    def __init__(self, statements: VersionStatements, table: TargetTable) -> None:
        self._statements = statements
        self._table = table
        self._first = np.empty(0, dtype=np.int64)
        self._row_ids = np.empty(0, dtype=np.int64)

    def __call__(self, numbers: np.ndarray, keys: list[pa.Array]) -> np.ndarray:
        if not len(numbers):
            return np.empty(0, dtype=np.int64)
        of, self._row_ids = self._statements.rows_with(self._table, keys)
        counts = np.bincount(of, minlength=len(numbers))
        self._first = np.zeros(int(numbers.max()) + 1, dtype=np.int64)
        self._first[numbers] = np.cumsum(counts) - counts
        return counts

    def row_ids(self, key: np.ndarray, place: np.ndarray) -> np.ndarray:
        """The rows at places of keys, by their numbers."""
        return self._row_ids[self._first[key] + place] if len(key) else self._row_ids[:0]


class VersionStatements(RowStatements):
    """Statements over versions of rows, whose places in a table are known by their row ids.

    A row id means the same row until the transaction ends, as long as no column is given another type: columns are
    widened first.

    Attributes:
        age: columns that say which of two rows that have all values in common is the older one.
    """

    age: tuple[str, ...] = ()

    def fit(self, table: TargetTable, changes: Gathered) -> Readings:
        """How the values of the new rows are to be read; widens what cannot hold them."""
        return self._engine.fit(table, new_rows({f"c{i}": column for i, column in enumerate(changes.after)}))

    def rows_with(self, table: TargetTable, keys: list[pa.Array]) -> tuple[np.ndarray, np.ndarray]:
        """Which rows have some keys: the key's place in `keys` and the row id of each, sorted; the oldest is first."""
        of = table.schema.key or range(len(table.schema.columns))
        data = {f"k{i}": key for i, key in enumerate(keys)} | {_NUMBER: pa.array(np.arange(len(keys[0])))}
        rows = Input(numbered("k", of), data)
        readings = self._engine.fit(table, rows) if table.schema.key else self._engine.careful(rows)
        with self._engine.visible(rows, table):
            statement = ("find", *readings.values())
            if statement not in table.statements:
                row_id = sql.row_id("t")
                age = [] if table.schema.key else [sql.column(name, "t") for name in self.age]
                query = (
                    exp.select(sql.column(_NUMBER, "s"), exp.alias_(row_id, ROW))
                    .from_(sql.rows())
                    .join(sql.table(table.name, "t"), on=self._same(table, rows, readings))
                    .order_by(sql.column(_NUMBER, "s"), *age, row_id)
                )
                found = query.where(table.live.copy()) if table.live else query
                table.statements[statement] = self._engine.render(found)
            numbers, row_ids = self._engine.numbers(table.statements[statement])
        return numbers, row_ids

    def values(self, table: TargetTable, columns: Iterable[int], readings: Readings) -> list[exp.Expr]:
        """The values of ROWS for some columns of a table, under their names."""
        rows = Input(numbered("c", range(len(table.schema.columns))), {})
        names = [column.name for column in table.schema.columns]
        return [exp.alias_(self.read(table, rows, f"c{i}", readings), names[i], quoted=True) for i in columns]

    def completed(self, table: TargetTable, masks: Sequence[int], readings: Readings, ours: Iterable[str]) -> exp.Expr:
        """The statement that sets those of ROWS aside that lack values, with these from the rows that they continue.

        Args:
            masks: the columns i of which ROWS has the mask `u{i}`.
            ours: further columns of ROWS.
        """
        values = self.values(table, range(len(table.schema.columns)), readings)
        for index in masks:
            name = table.schema.columns[index].name
            mask, there = sql.column(f"u{index}", "s"), sql.column(name, "t")
            given = exp.Case().when(mask, there).else_(values[index].unalias())
            values[index] = exp.alias_(given, name, quoted=True)
        query = (
            exp.select(*values, *(sql.column(name, "s") for name in ours))
            .from_(sql.rows())
            .join(sql.table(table.name, "t"), on=exp.EQ(this=sql.row_id("t"), expression=_row_id()))
        )
        return sql.create_temporary(sql.COMPLETED, query)

    def set_aside(self, table: TargetTable, batches: Sequence[ChangeBatch]) -> None:
        """Copied rows as a temporary table COPIED."""
        if not batches:
            nothing = exp.select(*(sql.column(column.name) for column in table.schema.columns))
            self._engine.run(sql.create_temporary(COPIED, nothing.from_(sql.table(table.name)).limit(0)))
            return
        changes = gather(batches)
        readings = self.fit(table, changes)
        columns = [take(column, changes.after_row) for column in changes.after]
        with self._engine.visible(new_rows({f"c{i}": column for i, column in enumerate(columns)}), table):
            values = self.values(table, range(len(columns)), readings)
            self._engine.run(sql.create_temporary(COPIED, exp.select(*values).from_(sql.rows())))

    def compare(self, table: TargetTable, candidates: exp.Select) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which rows are the same as copied ones, value by value.

        Args:
            candidates: rows with all of the table's columns, and their row ids as ROW.

        Returns:
            row ids of the candidates that are the same as one of COPIED, of those that are not, and of those of COPIED
            that are not the same as one of them.
        """
        copied = exp.select("*", exp.alias_(sql.row_id(), ROW)).from_(COPIED.copy())
        held, came = (self._numbered(table, rows) for rows in (candidates, copied))
        same = [exp.EQ(this=sql.column(name, "h"), expression=sql.column(name, "c")) for name in (_TEXT, _NTH)]
        query = (
            exp.select(
                exp.alias_(exp.func("coalesce", sql.column(ROW, "h"), exp.convert(ABSENT)), "held"),
                exp.alias_(exp.func("coalesce", sql.column(ROW, "c"), exp.convert(ABSENT)), "came"),
            )
            .from_(held.subquery("h"))
            .join(came.subquery("c"), on=exp.and_(*same), join_type="full")
        )
        there, came_as = self._engine.numbers(query)
        is_same = (there != ABSENT) & (came_as != ABSENT)
        return there[is_same], there[came_as == ABSENT], came_as[there == ABSENT]

    def drop_aside(self) -> None:
        """Forget the copied rows."""
        self._engine.run(sql.drop_temporary(COPIED))

    def part(self, table: TargetTable, part: exp.Condition) -> exp.Select:
        """Rows of a table as candidates to compare."""
        return exp.select("*", exp.alias_(sql.row_id(), ROW)).from_(sql.table(table.name)).where(part)

    def _numbered(self, table: TargetTable, rows: exp.Select) -> exp.Select:
        """The text of each row, and which of the rows with that text it is."""
        text = row_text(self._engine, table, table.schema.columns)
        texts = exp.select(sql.column(ROW), exp.alias_(text, _TEXT)).from_(rows.subquery("rows_"))
        nth = exp.Window(this=exp.RowNumber(), partition_by=[sql.column(_TEXT)])
        return exp.select(sql.column(ROW), sql.column(_TEXT), exp.alias_(nth, _NTH)).from_(texts.subquery("texts"))

    def _same(self, table: TargetTable, rows: Input, readings: Readings) -> exp.Condition:
        """Keys are the same as values; whole rows as texts, in which NULL is one, too (A-46)."""
        if table.schema.key:
            pairs = self.read_key(table, rows, readings)
            return exp.and_(*(exp.EQ(this=sql.column(name, "t"), expression=value) for name, value in pairs))
        return exp.and_(
            *(
                exp.NullSafeEQ(
                    this=codec.render(self.read(table, rows, f"k{i}", readings)),
                    expression=codec.render(sql.column(column.name, "t")),
                )
                for i, (column, codec) in enumerate(zip(table.schema.columns, table.codecs, strict=True))
            )
        )


def new_rows(data: dict[str, pa.Array]) -> Input:
    """The columns `c{i}` of ROWS are those of a table, the others are further ones."""
    return Input({name: int(name[1:]) for name in data if name[0] == "c" and name[1:].isdigit()}, data)


def _row_id() -> exp.Column:
    return sql.column(ROW, "s")


def joined_by_row(of: exp.Table, columns: Iterable[exp.Expression]) -> exp.Select:
    """Columns of the rows t of a table whose row ids are in ROWS s."""
    same = exp.EQ(this=sql.row_id("t"), expression=_row_id())
    aliased = of.copy()
    aliased.set("alias", exp.TableAlias(this=sql.name("t")))
    return exp.select(*columns).from_(sql.rows()).join(aliased, on=same)


def delete_rows(table: exp.Table) -> exp.Expr:
    """Delete the rows whose row ids are in ROWS."""
    chosen = exp.select(sql.column(ROW)).from_(sql.rows())
    among = exp.In(this=sql.row_id(), query=chosen.subquery())
    return exp.Delete(this=table, where=exp.Where(this=among))
