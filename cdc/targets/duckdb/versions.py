"""What history and soft delete share: finding rows that versions end, completing new ones, comparing with copies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from sqlglot import exp

from cdc.errors import UsageError
from cdc.model.arrays import TEXT, take
from cdc.model.change import ABSENT, ChangeBatch, Op
from cdc.model.gathered import Gathered, gather
from cdc.model.schema import TableSchema
from cdc.targets.duckdb import sql
from cdc.targets.duckdb.digest import row_text
from cdc.targets.duckdb.rows import Input, Reading, RowStatements, numbered, read, read_key
from cdc.targets.duckdb.table import OURS, TargetTable

ROW = "_cdc_row"  # of ROWS: the rowid of a row of the table
COPIED = exp.Table(this=exp.to_identifier("_cdc_copied"))
_NUMBER, _TEXT, _NTH = "number", "text_", "nth_"
_LABELS = pa.array(["copy", *(op.label for op in Op), "drop"])  # by the numbers of `Op`, which begin at 1
COPY, DROP = 0, 5


def labels(op: np.ndarray) -> pa.Array:
    """Names of what happened; null where negative."""
    return take(_LABELS, op)


def refuse_reserved(schema: TableSchema) -> None:
    """Raise UsageError for columns whose names are needed for what is kept beside the source's own columns."""
    for column in schema.columns:
        name = column.name.lower()
        if name.startswith(OURS) or name == "rowid":
            raise UsageError(
                f"{schema.table} has a column {column.name!r}; names that begin with {OURS}, and rowid, are needed "
                "where more than the rows as they are now is kept.",
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
    """Statements over versions of rows, whose places in a table are known by their rowid.

    A rowid means the same row until the transaction ends, as long as no column is given another type: columns are
    widened first.
    """

    def fit(self, table: TargetTable, changes: Gathered) -> dict[str, Reading]:
        """How the values of the new rows are to be read; widens what cannot hold them."""
        rows = Input(numbered("c", range(len(changes.after))), {f"c{i}": a for i, a in enumerate(changes.after)})
        with self.visible(rows.data):
            return self.readings(table, rows)

    def rows_with(self, table: TargetTable, keys: list[pa.Array]) -> tuple[np.ndarray, np.ndarray]:
        """Which rows have some keys: the key's place in `keys` and the rowid of each, sorted; the oldest is first."""
        of = table.schema.key or range(len(table.schema.columns))
        data = {f"k{i}": key for i, key in enumerate(keys)} | {_NUMBER: pa.array(np.arange(len(keys[0])))}
        rows = Input(numbered("k", of), data)
        with self.visible(rows.data):
            readings = self.readings(table, rows) if table.schema.key else _careful(rows)
            statement = ("find", *readings.values())
            if statement not in table.statements:
                row_id = exp.column("rowid", table="t")
                query = (
                    exp.select(sql.column(_NUMBER, "s"), exp.alias_(row_id, ROW))
                    .from_(sql.rows())
                    .join(sql.table(table.name, "t"), on=_same(table, rows, readings))
                    .order_by(sql.column(_NUMBER, "s"), row_id)
                )
                table.statements[statement] = sql.render(query.where(table.live.copy()) if table.live else query)
            found = self.execute(table.statements[statement]).fetchnumpy()
        return np.asarray(found[_NUMBER], dtype=np.int64), np.asarray(found[ROW], dtype=np.int64)

    def values(self, table: TargetTable, columns: Iterable[int], readings: dict[str, Reading]) -> list[exp.Expr]:
        """The values of ROWS for some columns of a table, under their names."""
        rows = Input(numbered("c", range(len(table.schema.columns))), {})
        names = [column.name for column in table.schema.columns]
        return [exp.alias_(read(table, rows, f"c{i}", readings), names[i], quoted=True) for i in columns]

    def completed(
        self, table: TargetTable, masks: Sequence[int], readings: dict[str, Reading], ours: Iterable[str]
    ) -> str:
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
            .join(sql.table(table.name, "t"), on=exp.EQ(this=exp.column("rowid", table="t"), expression=_row_id()))
        )
        return sql.create_temporary(sql.COMPLETED, query)

    def set_aside(self, table: TargetTable, batches: Sequence[ChangeBatch]) -> None:
        """Copied rows as a temporary table COPIED."""
        if not batches:
            nothing = exp.select(*(sql.column(column.name) for column in table.schema.columns))
            self._connection.execute(sql.create_temporary(COPIED, nothing.from_(sql.table(table.name)).limit(0)))
            return
        changes = gather(batches)
        readings = self.fit(table, changes)
        columns = [take(column, changes.after_row) for column in changes.after]
        with self.visible({f"c{i}": column for i, column in enumerate(columns)}):
            values = self.values(table, range(len(columns)), readings)
            self.execute(sql.create_temporary(COPIED, exp.select(*values).from_(sql.rows())))

    def compare(self, table: TargetTable, candidates: exp.Select) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which rows are the same as copied ones, value by value.

        Args:
            candidates: rows with all of the table's columns, and their rowid as ROW.

        Returns:
            rowids of the candidates that are the same as one of COPIED, of those that are not, and of those of COPIED
            that are not the same as one of them.
        """
        copied = exp.select("*", exp.alias_(exp.column("rowid"), ROW)).from_(COPIED.copy())
        held, came = (_numbered(table, rows) for rows in (candidates, copied))
        same = [exp.EQ(this=sql.column(name, "h"), expression=sql.column(name, "c")) for name in (_TEXT, _NTH)]
        query = (
            exp.select(
                exp.alias_(exp.func("coalesce", sql.column(ROW, "h"), exp.convert(ABSENT)), "held"),
                exp.alias_(exp.func("coalesce", sql.column(ROW, "c"), exp.convert(ABSENT)), "came"),
            )
            .from_(held.subquery("h"))
            .join(came.subquery("c"), on=exp.and_(*same), join_type="full")
        )
        found = self._connection.execute(sql.render(query)).fetchnumpy()
        there, came_as = (np.asarray(found[name], dtype=np.int64) for name in ("held", "came"))
        is_same = (there != ABSENT) & (came_as != ABSENT)
        return there[is_same], there[came_as == ABSENT], came_as[there == ABSENT]

    def drop_aside(self) -> None:
        """Forget the copied rows."""
        self._connection.execute(sql.drop_temporary(COPIED))

    def part(self, table: TargetTable, part: exp.Condition) -> exp.Select:
        """Rows of a table as candidates to compare."""
        return exp.select("*", exp.alias_(exp.column("rowid"), ROW)).from_(sql.table(table.name)).where(part)


def _numbered(table: TargetTable, rows: exp.Select) -> exp.Select:
    """The text of each row, and which of the rows with that text it is."""
    text = row_text(table, table.schema.columns)
    texts = exp.select(sql.column(ROW), exp.alias_(text, _TEXT)).from_(rows.subquery("rows_"))
    nth = exp.Window(this=exp.RowNumber(), partition_by=[sql.column(_TEXT)])
    return exp.select(sql.column(ROW), sql.column(_TEXT), exp.alias_(nth, _NTH)).from_(texts.subquery("texts"))


def _careful(rows: Input) -> dict[str, Reading]:
    return {name: Reading.CAREFUL if rows.data[name].type == TEXT else Reading.NATIVE for name in rows.columns}


def _same(table: TargetTable, rows: Input, readings: dict[str, Reading]) -> exp.Condition:
    """Keys are the same as values; whole rows as texts, in which NULL is one, too (A-46)."""
    if table.schema.key:
        pairs = read_key(table, rows, readings)
        return exp.and_(*(exp.EQ(this=sql.column(name, "t"), expression=value) for name, value in pairs))
    return exp.and_(
        *(
            exp.NullSafeEQ(
                this=codec.render(read(table, rows, f"k{i}", readings)),
                expression=codec.render(sql.column(column.name, "t")),
            )
            for i, (column, codec) in enumerate(zip(table.schema.columns, table.codecs, strict=True))
        )
    )


def _row_id() -> exp.Column:
    return sql.column(ROW, "s")


def joined_by_row(of: exp.Table, columns: Iterable[exp.Expression]) -> exp.Select:
    """Columns of the rows t of a table whose rowids are in ROWS s."""
    same = exp.EQ(this=exp.column("rowid", table="t"), expression=_row_id())
    aliased = of.copy()
    aliased.set("alias", exp.TableAlias(this=sql.name("t")))
    return exp.select(*columns).from_(sql.rows()).join(aliased, on=same)


def delete_rows(table: exp.Table) -> str:
    """Delete the rows whose rowids are in ROWS."""
    chosen = exp.select(sql.column(ROW)).from_(sql.rows())
    among = exp.In(this=exp.column("rowid"), query=chosen.subquery())
    return sql.render(exp.Delete(this=table, where=exp.Where(this=among)))
