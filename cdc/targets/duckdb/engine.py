"""A DuckDB file as a `cdc.tables.engine.Engine`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from sqlglot import exp

from cdc.files.durable import DurableNames
from cdc.files.inode import Inode
from cdc.model.arrays import TEXT
from cdc.model.schema import Column, TableName, TableSchema
from cdc.tables import sql
from cdc.tables.engine import Abilities, Input
from cdc.tables.table import TargetTable
from cdc.targets.duckdb.file import DuckDbFile
from cdc.targets.duckdb.product import SEES_CASE
from cdc.targets.duckdb.room import Room
from cdc.typed.codec import Codec
from cdc.typed.codecs import TEXT_CODEC, codec_for, codec_of
from cdc.typed.digests import DuckDbDigests
from cdc.typed.fitting import Fitting, Reading, Readings, read

# Types among which a value is the same if it comes back from the other as it was.
_FAMILIES = (
    {"SMALLINT", "INTEGER", "BIGINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE", "DECIMAL"},
    {"DATE", "TIMESTAMP"},
)


_OF_JSON = {
    *("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
    *("FLOAT", "DOUBLE"),
}
_AT_ONCE = 10_000  # rows
_PARSED = 1_000  # statements


@lru_cache(_PARSED)
def _parsed(text: str) -> duckdb.Statement:
    """A statement, parsed once: for a small segment that takes as long as all the rest of it (O50)."""
    (parsed,) = duckdb.extract_statements(text)
    return parsed


class DuckDbEngine(DuckDbFile, DuckDbDigests):
    """One file. DuckDB's lock on it is the lease (D-17).

    Args:
        memory: bytes of buffers.
    """

    abilities = Abilities(sees_case=SEES_CASE, row_id="rowid")
    text = TEXT_CODEC

    def __init__(self, path: Path, memory: int, *, read_only: bool = False) -> None:
        super().__init__(path, memory, read_only=read_only)
        self.address = f"duckdb:{path}"  # as a command has it
        self.copies = 1
        self.inode: Inode
        self._names = DurableNames(path.resolve(), path.with_name(f"{path.name}.wal"))
        self._rows = pa.table({})
        self._room: Room
        self._fitting = Fitting()

    def open(self) -> None:
        super().open()
        self.inode = Inode.at(self._path)
        self._room = Room(self.connection, self._memory)

    def beside(self, connection: duckdb.DuckDBPyConnection) -> DuckDbEngine:
        """The same file by another connection to it, to read."""
        engine = DuckDbEngine(self._path, self._memory, read_only=True)
        engine.connection = connection
        return engine

    def begin(self) -> None:
        self._execute("BEGIN TRANSACTION")

    def commit(self, note: str = "") -> None:
        self._execute("COMMIT")
        self._names.sync()

    def rollback(self) -> None:
        self.connection.execute("ROLLBACK")

    def is_taken(self, failure: Exception) -> bool:
        return isinstance(failure, duckdb.CatalogException)

    # --- statements -------------------------------------------------------------------------------------------------

    def numbers(self, query: exp.Expr | str) -> list[np.ndarray]:
        return [np.asarray(column, dtype=np.int64) for column in self._execute(query).fetchnumpy().values()]

    def _execute(self, statement: exp.Expr | str, values: Sequence[object] = ()) -> duckdb.DuckDBPyConnection:
        """Run a statement that may read ROWS.

        DuckDB finds them as the variable of that name. Registered, they would be held until the end of the transaction,
        and a large one would hold all of its log in memory (A-63).
        """
        _cdc_rows = self._rows
        parsed = _parsed(statement if isinstance(statement, str) else self.render(statement))
        return self.connection.execute(parsed, list(values)) if values else self.connection.execute(parsed)

    def names(self) -> set[TableName]:
        query = "SELECT lower(table_schema), lower(table_name) FROM information_schema.tables"
        return {TableName(*found) for found in self.ask(f"{query} WHERE table_catalog = current_database()")}

    def made(self, table: TableName, key: Sequence[str], *, is_unique: bool) -> None:
        """An index would make applying slower: what is looked up is joined with all keys."""

    def changed(self, value: exp.Expression, held: Codec, to: Codec) -> exp.Expression | None:
        names = {codec.sql_type.partition("(")[0] for codec in (held, to)}
        return sql.try_cast(value, to.type) if any(names <= family for family in _FAMILIES) else None

    def retype(
        self, table: TableName, column: str, codec: Codec, using: exp.Expression, views: Sequence[TableName]
    ) -> None:
        self.run(sql.retype_column(table, column, codec.type, using))

    # --- the past ---------------------------------------------------------------------------------------------------

    def micros(self, time: exp.Expression) -> exp.Expression:
        return exp.Anonymous(this="epoch_us", expressions=[time])

    def shown(self, micros: exp.Expression) -> exp.Expression:
        time = exp.Anonymous(this="make_timestamp", expressions=[micros])
        return exp.Anonymous(this="strftime", expressions=[time, sql.literal("%Y-%m-%d %H:%M:%S.%f+00")])

    def as_json(self, value: exp.Expression, sql_type: str) -> exp.Expression:
        return value if sql_type in _OF_JSON else sql.cast(value, "VARCHAR")

    def is_written(self, column: str, sql_type: str, text: str) -> exp.Condition:
        """A UUID may be written in other ways than DuckDB's."""
        if sql_type == "UUID":
            return exp.EQ(this=sql.column(column), expression=sql.try_cast(sql.literal(text), sql_type))
        return exp.EQ(this=sql.cast(sql.column(column), "VARCHAR"), expression=sql.literal(text))

    def each(self, query: exp.Expr) -> Iterator[tuple[Any, ...]]:
        answer = self._execute(query)
        while rows := answer.fetchmany(_AT_ONCE):
            yield from rows

    def make_view(self, view: TableName, query: exp.Query) -> None:
        self.run(exp.Create(kind="VIEW", this=sql.table(view), expression=query, replace=True))

    def make_lookup(self, function: TableName, text: str, number: str, query: exp.Query) -> None:
        self.run(
            f"CREATE OR REPLACE MACRO {self._named(function)}({text}, {number} := -1) AS (SELECT CASE WHEN _2 IS NULL "
            f"THEN _1 ELSE CAST(error(_2) AS BIGINT) END FROM ({self.render(query)}) AS _(_1, _2))"
        )

    def make_rows(self, function: TableName, parameter: str, columns: Mapping[str, Codec], query: exp.Query) -> None:
        self.run(f"CREATE OR REPLACE MACRO {self._named(function)}({parameter}) AS TABLE {self.render(query)}")

    def drop_rows(self, function: TableName) -> None:
        self.run(f"DROP MACRO TABLE IF EXISTS {self._named(function)}")

    def _named(self, function: TableName) -> str:
        return self.render(sql.table(function))

    # --- values -----------------------------------------------------------------------------------------------------

    def codec(self, column: Column) -> Codec:
        return codec_for(column.type)

    def codec_of(self, sql_type: str) -> Codec | None:
        return codec_of(sql_type)

    @contextmanager
    def visible(self, rows: Input, table: TargetTable | None = None) -> Iterator[None]:
        before, self._rows = self._rows, pa.table(rows.data)
        try:
            yield
        finally:
            self._rows = before

    def fit(self, table: TargetTable, rows: Input) -> Readings:
        codecs = {name: table.codecs[index] for name, index in rows.columns.items()}
        with self.visible(rows):
            readings, misfits = self._fitting.of(self.ask, codecs, rows.data)
        for name in misfits:
            if not table.codecs[rows.columns[name]].is_text:
                table.widen(self, rows.columns[name])
        for name, index in rows.columns.items():
            if table.codecs[index].is_text and readings[name] is not Reading.NATIVE:
                readings[name] = Reading.FAST
        return readings

    def careful(self, rows: Input) -> Readings:
        return {name: Reading.CAREFUL if rows.data[name].type == TEXT else Reading.NATIVE for name in rows.columns}

    def read(self, table: TargetTable, index: int, name: str, reading: Reading) -> exp.Expression:
        return read(table.codecs[index], codec_for(table.schema.columns[index].type), name, reading)

    # --- room -------------------------------------------------------------------------------------------------------

    def make_room(self, schema: TableSchema) -> None:
        self._room.for_columns(schema, self.copies)

    def before_changes(self, schema: TableSchema) -> None:
        self._room.for_changes(schema, self.copies)

    def committed(self, *, is_copy: bool) -> None:
        self._room.committed()
        if is_copy:
            self._room.copied()
