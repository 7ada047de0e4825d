"""A PostgreSQL database as a `cdc.tables.engine.Engine`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
from sqlglot import exp

from cdc.errors import CdcError, Unavailable, ValueRefused
from cdc.model.parts import BUCKETS
from cdc.model.schema import Column, Kind, TableName, TableSchema
from cdc.tables import sql
from cdc.tables.engine import Abilities, Input
from cdc.tables.table import TargetTable
from cdc.target import Keys
from cdc.targets.postgres.codecs import DIALECT, TEXT, codec_for, codec_of
from cdc.targets.postgres.connection import Server, Session, connect, meaning
from cdc.targets.postgres.keys import index_key, make_primary, quoted
from cdc.targets.postgres.lease import Lease
from cdc.targets.postgres.shown import drop_rows, make_lookup, make_rows, make_view
from cdc.targets.postgres.staging import stage
from cdc.targets.postgres.words import Rendered, filled, rendered, translated
from cdc.typed.codec import Codec
from cdc.typed.fitting import Reading, Readings

# The bytes of a list of 32-bit floats, as little-endian machines have them.
_LITTLE_ENDIAN = """
(SELECT string_agg(upper(encode(substr(b, 4, 1) || substr(b, 3, 1) || substr(b, 2, 1) || substr(b, 1, 1), 'hex')), ''
ORDER BY n) FROM (SELECT float4send(x) AS b, n FROM unnest(value_::float4[]) WITH ORDINALITY AS u (x, n)) AS s)
"""
_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""


_OF_JSON = {"boolean", "smallint", "integer", "bigint", "real", "double precision"}
_AT_ONCE = 10_000  # rows


class PostgresEngine:
    """One database.

    Args:
        keeps_types: the source is PostgreSQL as well, and columns have the types that they have there.

    Attributes:
        keys: how tables that are made from now on have their keys.
    """

    product = "PostgreSQL"
    abilities = Abilities(
        sees_case=True,
        row_id="ctid",
        longest_name=63,
        own_columns=frozenset({"ctid", "xmin", "cmin", "xmax", "cmax", "tableoid"}),
        others_build_on=True,
    )
    failures: tuple[type[Exception], ...] = (psycopg.Error,)
    text: Codec = TEXT

    def __init__(self, server: Server, *, keeps_types: bool, read_only: bool = False) -> None:
        self.place = self.address = str(server)
        self.copies = 1
        self.keys = Keys.INDEX
        self._server = server
        self._keeps_types = keeps_types
        self._read_only = read_only
        self._session: Session | None = None
        self._lease: Lease | None = None
        self._staged: Input | None = None  # what ROWS has, until a statement has read it

    @property
    def session(self) -> Session:
        """The session while the database is open."""
        if self._session is None:
            raise Unavailable(f"{self.place} is not open.")
        return self._session

    def open(self) -> None:
        self._session = connect(self._server)
        if self._read_only:
            return
        try:
            self._lease = Lease(self._server, self._session)
        except BaseException:
            self.close()
            raise

    def begin(self) -> None:
        if self._lease is None:
            raise Unavailable(f"{self.place} is not open.")
        self._lease.begin()

    def commit(self, note: str = "") -> None:
        self._staged = None
        self.session.execute("COMMIT")

    def rollback(self) -> None:
        self._staged = None
        self.session.execute("ROLLBACK")

    def close(self) -> None:
        if self._session is not None:
            if self._lease is not None:
                self._lease.release()
                self._lease = None
            self._session.close()
            self._session = None

    def meaning(self, failure: Exception) -> CdcError:
        return meaning(failure, self._server)

    def is_taken(self, failure: Exception) -> bool:
        return isinstance(failure, psycopg.errors.DuplicateTable | psycopg.errors.DuplicateObject)

    # --- statements -------------------------------------------------------------------------------------------------

    def render(self, statement: exp.Expr) -> str:
        return rendered(statement)

    def run(self, statement: exp.Expr | str, values: Sequence[object] = ()) -> int:
        return max(0, self._execute(statement, values).rowcount)

    def ask(self, query: exp.Expr | str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self._execute(query, values).fetchall()

    def numbers(self, query: exp.Expr | str) -> list[np.ndarray]:
        cursor = self._execute(query)
        found = cursor.fetchall()
        count = len(cursor.description or ())
        return [np.array(column, dtype=np.int64) for column in zip(*found, strict=True)] or [
            np.empty(0, dtype=np.int64) for _ in range(count)
        ]

    def _execute(self, statement: exp.Expr | str, values: Sequence[object] = ()) -> psycopg.Cursor[tuple[Any, ...]]:
        if isinstance(statement, Rendered):
            text = str(statement)
        else:
            text = translated(statement) if isinstance(statement, str) else self.render(statement)
        if "\0" in text:  # a default of MySQL, or a key to look for: libpq would send what is before it
            raise ValueRefused(
                f"A text has the character U+0000, which {self.product} cannot hold.",
                hint="Remove it in the source, also from defaults of columns; or leave the table out with --exclude.",
            )
        if values:
            return self.session.execute(text.encode(), list(values))
        return self.session.execute(text.encode(), None)

    def columns(self, table: TableName) -> dict[str, str]:
        return dict(self.session.execute(_COLUMNS, [quoted(table)]).fetchall())

    def names(self) -> set[TableName]:
        query = (
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
            "ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')"
        )
        return {TableName(*found) for found in self.session.execute(query).fetchall()}

    def made(self, table: TableName, key: Sequence[str], *, is_unique: bool) -> None:
        """Rows are found by their keys, without going through the table each time."""
        make = make_primary if is_unique and self.keys is Keys.PRIMARY else index_key
        make(self.session, table, key)

    def retype(
        self, table: TableName, column: str, codec: Codec, using: exp.Expression, views: Sequence[TableName]
    ) -> None:
        for view in views:
            self.run(sql.drop_view(view))
        self.run(sql.retype_column(table, column, codec.type, using))

    # --- the past ---------------------------------------------------------------------------------------------------

    def look_back(self) -> None:
        """Have all questions from here on answered as of this moment."""
        self.session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def micros(self, time: exp.Expression) -> exp.Expression:
        return filled("(extract(epoch FROM value_) * 1000000)::int8", time)

    def shown(self, micros: exp.Expression) -> exp.Expression:
        time = "timestamp 'epoch' + value_ * interval '1 microsecond'"
        return filled(f"to_char({time}, 'YYYY-MM-DD HH24:MI:SS.US+00')", micros)

    def as_json(self, value: exp.Expression, sql_type: str) -> exp.Expression:
        return value if sql_type in _OF_JSON else codec_of(sql_type).render(value)

    def is_written(self, column: str, sql_type: str, text: str) -> exp.Condition:
        """By the value, so that an index finds it."""
        return exp.EQ(this=sql.column(column), expression=codec_of(sql_type).careful(sql.literal(text)))

    def each(self, query: exp.Expr) -> Iterator[tuple[Any, ...]]:
        with self.session.cursor(name="cdc") as cursor:
            cursor.itersize = _AT_ONCE
            yield from cursor.execute(self.render(query).encode())

    def make_view(self, view: TableName, query: exp.Query) -> None:
        make_view(self.session, view, self.render(query))

    def make_lookup(self, function: TableName, text: str, number: str, query: exp.Query) -> None:
        make_lookup(self.session, function, text, number, self.render(query))

    def make_rows(self, function: TableName, parameter: str, columns: Mapping[str, Codec], query: exp.Query) -> None:
        types = {name: codec.type.sql(dialect=DIALECT) for name, codec in columns.items()}
        make_rows(self.session, function, parameter, types, self.render(query))

    def drop_rows(self, function: TableName) -> None:
        drop_rows(self.session, function)

    # --- values -----------------------------------------------------------------------------------------------------

    def codec(self, column: Column) -> Codec:
        return codec_for(column, keeps_types=self._keeps_types)

    def codec_of(self, sql_type: str) -> Codec | None:
        return codec_of(sql_type) if sql_type else None

    def changed(self, value: exp.Expression, held: Codec, to: Codec) -> exp.Expression | None:
        return to.careful(held.render(value))

    @contextmanager
    def visible(self, rows: Input, table: TargetTable | None = None) -> Iterator[None]:
        if rows is not self._staged:
            self._stage(rows, table)
        self._staged = None
        yield

    def _stage(self, rows: Input, table: TargetTable | None) -> None:
        stage(self.session, rows, table.schema if table is not None else None)

    def fit(self, table: TargetTable, rows: Input) -> Readings:
        """A text that a type does not take would end the whole transaction, so that it must be ruled out before."""
        suspicions = {
            name: suspicion
            for name, index in rows.columns.items()
            if (suspicion := table.codecs[index].suspect(sql.column(name, "s"))) is not None
        }
        if suspicions:
            self._stage(rows, table)
            self._staged = rows
            asked = [exp.func("bool_or", each) for each in suspicions.values()]
            (answer,) = self.ask(exp.select(*asked).from_(sql.rows()))
            for name, found in zip(suspicions, answer, strict=True):
                if found and not table.codecs[rows.columns[name]].is_text:
                    table.widen(self, rows.columns[name])
        return dict.fromkeys(rows.columns, Reading.FAST)

    def careful(self, rows: Input) -> Readings:
        return dict.fromkeys(rows.columns, Reading.CAREFUL)

    def read(self, table: TargetTable, index: int, name: str, reading: Reading) -> exp.Expression:
        codec, text = table.codecs[index], sql.column(name, "s")
        return codec.careful(text) if reading is Reading.CAREFUL else codec.parse(text)

    # --- digests ----------------------------------------------------------------------------------------------------

    def digest_text(self, column: Column, codec: Codec) -> exp.Expression:
        """The source's text, or its bits for floats: two servers may write another text for one."""
        value = sql.column(column.name)
        if column.type.kind in (Kind.FLOAT32, Kind.FLOAT64):
            bits = "('x' || encode(float8send(value_::float8), 'hex'))::bit(64)::text"
            return filled(f"CASE WHEN value_::float8 = 'NaN' THEN 'NaN' ELSE {bits} END", value)
        if column.type.kind is Kind.VECTOR:
            return filled(_LITTLE_ENDIAN, value)
        return codec.render(value)

    def byte_length(self, text: exp.Expression) -> exp.Expression:
        return filled("octet_length(convert_to(value_, 'UTF8'))", text)

    def concatenated(self, texts: Sequence[exp.Expression]) -> exp.Expression:
        listed = exp.Array(expressions=list(texts))
        return exp.Anonymous(this="array_to_string", expressions=[listed, sql.literal("")])

    def hashed(self, text: exp.Expression, digits: int) -> exp.Expression:
        bits = 4 * digits
        signed = f"('x' || substr(encode(sha256(convert_to(value_, 'UTF8')), 'hex'), 1, {digits}))::bit({bits})::int8"
        if bits < 64:
            return filled(signed, text)
        return filled(f"(({signed})::numeric + 18446744073709551616) % 18446744073709551616", text)

    def bucket(self, hashed: exp.Expression) -> exp.Expression:
        return filled(f"(value_ % {BUCKETS})::int4", hashed)

    def total(self, hashed: exp.Expression) -> exp.Expression:
        return filled("sum(value_)::text", hashed)

    # --- room -------------------------------------------------------------------------------------------------------

    def make_room(self, schema: TableSchema) -> None:
        pass

    def before_changes(self, schema: TableSchema) -> None:
        pass

    def committed(self, *, is_copy: bool) -> None:
        pass
