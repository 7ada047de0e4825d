"""A DuckDB file as a `cdc.tables.engine.Engine`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
from sqlglot import exp, parse_one

from cdc.errors import CdcError
from cdc.files.durable import DurableNames
from cdc.files.inode import Inode
from cdc.model.arrays import TEXT
from cdc.model.parts import BUCKETS
from cdc.model.schema import Column, Kind, TableName, TableSchema
from cdc.tables import sql
from cdc.tables.codec import Codec
from cdc.tables.engine import Abilities, Input, Reading, Readings
from cdc.tables.table import TargetTable
from cdc.targets.duckdb.codecs import TEXT_CODEC, codec_for, codec_of
from cdc.targets.duckdb.connection import classify, open_file
from cdc.targets.duckdb.room import Room

# Types among which a value is the same if it comes back from the other as it was.
_FAMILIES = (
    {"SMALLINT", "INTEGER", "BIGINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE", "DECIMAL"},
    {"DATE", "TIMESTAMP"},
)


class _Question(NamedTuple):
    """Which columns have a value in the visible rows that has to be read with care.

    Attributes:
        names: of the columns that may have one.
        query: says of each whether it does; empty if there is no such column.
    """

    names: list[str]
    query: str


class DuckDbEngine:
    """One file. DuckDB's lock on it is the lease (D-17).

    Args:
        memory: bytes of buffers.
    """

    product = "DuckDB"
    abilities = Abilities(sees_case=False, row_id="rowid")
    failures: tuple[type[Exception], ...] = (duckdb.Error, UnicodeDecodeError, OSError)
    text = TEXT_CODEC

    def __init__(self, path: Path, memory: int, *, read_only: bool = False) -> None:
        self.place = str(path)
        self.address = f"duckdb:{path}"  # as a command has it
        self.copies = 1
        self.connection: duckdb.DuckDBPyConnection
        self.inode: Inode
        self._path = path
        self._memory = memory
        self._read_only = read_only
        self._names = DurableNames(path.resolve(), path.with_name(f"{path.name}.wal"))
        self._rows = pa.table({})
        self._room: Room
        self._questions: dict[tuple[tuple[str, str], ...], _Question] = {}

    def open(self) -> None:
        self.connection = open_file(self._path, self._memory, read_only=self._read_only)
        self.inode = Inode.at(self._path)
        self._room = Room(self.connection, self._memory)

    def begin(self) -> None:
        self.connection.execute("BEGIN TRANSACTION")

    def commit(self, note: str = "") -> None:
        self.connection.execute("COMMIT")
        self._names.sync()

    def rollback(self) -> None:
        self.connection.execute("ROLLBACK")

    def close(self) -> None:
        self.connection.close()

    def meaning(self, failure: Exception) -> CdcError:
        return classify(failure, self._path)

    def is_taken(self, failure: Exception) -> bool:
        return isinstance(failure, duckdb.CatalogException)

    # --- statements -------------------------------------------------------------------------------------------------

    def render(self, statement: exp.Expr) -> str:
        return statement.sql(dialect=sql.DIALECT)

    def run(self, statement: exp.Expr | str, values: Sequence[object] = ()) -> int:
        answer = self._execute(statement, values).fetchone()
        return answer[0] if answer is not None and isinstance(answer[0], int) else 0

    def ask(self, query: exp.Expr | str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self._execute(query, values).fetchall()

    def numbers(self, query: exp.Expr | str) -> list[np.ndarray]:
        return [np.asarray(column, dtype=np.int64) for column in self._execute(query).fetchnumpy().values()]

    def _execute(self, statement: exp.Expr | str, values: Sequence[object] = ()) -> duckdb.DuckDBPyConnection:
        """Run a statement that may read ROWS.

        DuckDB finds them as the variable of that name. Registered, they would be held until the end of the transaction,
        and a large one would hold all of its log in memory (A-63).
        """
        _cdc_rows = self._rows
        text = statement if isinstance(statement, str) else self.render(statement)
        return self.connection.execute(text, list(values)) if values else self.connection.execute(text)

    def columns(self, table: TableName) -> dict[str, str]:
        # Asked of each table that changes: `duckdb_columns()` would go through those of all tables (P25).
        try:
            described = self.ask(exp.Describe(this=sql.table(table)))
        except duckdb.CatalogException:
            return {}
        return {str(name): str(kind) for name, kind, *_ in described}

    def names(self) -> set[TableName]:
        query = "SELECT lower(table_schema), lower(table_name) FROM information_schema.tables"
        return {TableName(*found) for found in self.ask(f"{query} WHERE table_catalog = current_database()")}

    def made(self, table: TableName, key: Sequence[str]) -> None:
        """An index would make applying slower: what is looked up is joined with all keys."""

    def changed(self, value: exp.Expression, held: Codec, to: Codec) -> exp.Expression | None:
        names = {codec.sql_type.partition("(")[0] for codec in (held, to)}
        return sql.try_cast(value, to.type) if any(names <= family for family in _FAMILIES) else None

    def retype(self, table: TableName, column: str, codec: Codec, using: exp.Expression) -> None:
        self.run(sql.retype_column(table, column, codec.type, using))

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
        """An error in a conversion would end the whole transaction, so that it must be ruled out before."""
        readings = {name: Reading.FAST if rows.data[name].type == TEXT else Reading.NATIVE for name in rows.columns}
        texts = {name: index for name, index in rows.columns.items() if readings[name] is Reading.FAST}
        question = self._question(table, texts)
        with self.visible(rows):
            answer = self.ask(question.query) if question.query else []
            suspects = [name for name, found in zip(question.names, answer[0], strict=True) if found] if answer else []
            misfits = self._misfits(table, rows, suspects)
        for name in suspects:
            readings[name] = Reading.CAREFUL
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
        codec, text = table.codecs[index], sql.column(name, "s")
        if reading is Reading.NATIVE:
            own = codec_for(table.schema.columns[index].type)
            value = sql.cast(text, own.type)
            return own.render(value) if codec is not own and codec.is_text else value
        return codec.careful(text) if reading is Reading.CAREFUL else codec.parse(text)

    def _misfits(self, table: TargetTable, rows: Input, suspects: Sequence[str]) -> list[str]:
        """Those of some columns of which a visible row has a value that the table's column cannot hold."""
        if not suspects:
            return []
        conditions = [table.codecs[rows.columns[name]].misfit(sql.column(name, "s")) for name in suspects]
        (answer,) = self.ask(_any_of(conditions))
        return [name for name, found in zip(suspects, answer, strict=True) if found]

    def _question(self, table: TargetTable, texts: dict[str, int]) -> _Question:
        """Made once for columns of some types: to build it took longer than a small segment takes to apply (O50)."""
        key = tuple((name, table.codecs[index].sql_type) for name, index in texts.items())
        if (question := self._questions.get(key)) is None:
            suspicions = {
                name: suspicion
                for name, index in texts.items()
                if (suspicion := table.codecs[index].suspect(sql.column(name, "s"))) is not None
            }
            query = self.render(_any_of(list(suspicions.values()))) if suspicions else ""
            question = self._questions[key] = _Question(list(suspicions), query)
        return question

    # --- digests ----------------------------------------------------------------------------------------------------

    def digest_text(self, column: Column, codec: Codec) -> exp.Expression:
        """The source's text, or its bits as a double for a float: two servers may write another text for one."""
        value = sql.column(column.name)
        if column.type.kind in (Kind.FLOAT32, Kind.FLOAT64):
            bits = sql.cast(sql.cast(sql.cast(value, "DOUBLE"), "BIT"), "VARCHAR")
            return exp.Case().when(exp.func("isnan", value), sql.literal("NaN")).else_(bits)
        if column.type.kind is Kind.VECTOR and not codec.is_text:
            return _little_endian_hex(value)
        return codec.render(value)

    def byte_length(self, text: exp.Expression) -> exp.Expression:
        return exp.Anonymous(this="strlen", expressions=[text])

    def concatenated(self, texts: Sequence[exp.Expression]) -> exp.Expression:
        return exp.Anonymous(this="concat", expressions=list(texts))

    def hashed(self, text: exp.Expression, digits: int) -> exp.Expression:
        digest = exp.Anonymous(this="sha256", expressions=[text])
        first = exp.Anonymous(this="left", expressions=[digest, exp.convert(digits)])
        return sql.cast(self.concatenated([sql.literal("0x"), first]), "UBIGINT")

    def bucket(self, hashed: exp.Expression) -> exp.Expression:
        return exp.BitwiseAnd(this=hashed, expression=sql.cast(exp.Literal.number(BUCKETS - 1), "UBIGINT"))

    def total(self, hashed: exp.Expression) -> exp.Expression:
        return sql.cast(exp.Sum(this=sql.cast(hashed, "HUGEINT")), "VARCHAR")

    # --- room -------------------------------------------------------------------------------------------------------

    def make_room(self, schema: TableSchema) -> None:
        self._room.for_columns(schema, self.copies)

    def before_changes(self, schema: TableSchema) -> None:
        self._room.for_changes(schema, self.copies)

    def committed(self) -> None:
        self._room.committed()


def _any_of(conditions: Sequence[exp.Expression]) -> exp.Expr:
    """One row that says of each condition whether any row of ROWS fulfils it."""
    return exp.select(*(exp.func("bool_or", condition) for condition in conditions)).from_(sql.rows())


def _little_endian_hex(floats: exp.Expression) -> exp.Expression:
    """The bytes of a list of 32-bit floats, as little-endian machines have them."""
    template = parse_one(
        "array_to_string(list_transform(list_transform(floats_, lambda e: hex(CAST(CAST(e AS BIT) AS BLOB))), "
        "lambda h: concat(substr(h, 7, 2), substr(h, 5, 2), substr(h, 3, 2), substr(h, 1, 2))), '')",
        dialect=sql.DIALECT,
    )
    filled = template.transform(
        lambda node: floats.copy() if isinstance(node, exp.Column) and node.name == "floats_" else node
    )
    assert isinstance(filled, exp.Expression)
    return filled
