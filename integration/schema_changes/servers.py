"""The servers that schema changes are run on: how to make, ask and describe what is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import psycopg
import pymysql

from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from integration.schema_changes.comparison import Kind, Row, SourceTable

_Rows = list[tuple[Any, ...]]


class Refused(Exception):
    """The server did not take a statement."""


class Session(Protocol):
    """A connection that uses one schema."""

    schema: str

    def run(self, statement: str) -> _Rows:
        """Rows of a statement, or of the last one of several; raises Refused."""
        ...

    def let_go(self) -> None:
        """Give back what a statement has locked for the session, before a pipeline has to catch up."""
        ...

    def close(self) -> None: ...


class Server(Protocol):
    """A server with schemas that one pipeline follows."""

    name: str
    kind: str
    version: tuple[int, int]
    dsn: str
    selection: list[str]

    def session(self, schema: str) -> Session: ...

    def make(self) -> str:
        """A new schema's name."""
        ...

    def tables(self, schemas: Iterable[str]) -> list[SourceTable]: ...

    def close(self) -> None:
        """Remove everything."""
        ...


class PostgresSession:
    """Each text is run as it is: one with several statements and no BEGIN is one transaction."""

    def __init__(self, dsn: str, schema: str) -> None:
        self.schema = schema
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._connection.execute(f"SET search_path = {schema}; SET lock_timeout = '60s'".encode())

    def run(self, statement: str) -> _Rows:
        try:
            cursor = self._connection.execute(statement.encode())
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            if self._connection.closed:
                raise
            self._connection.execute("ROLLBACK")
            raise Refused(str(error)) from error

    def let_go(self) -> None:
        self.run("ROLLBACK")

    def close(self) -> None:
        self._connection.close()


_POSTGRES_TABLES = """
SELECT c.oid::int8, n.nspname, c.relname, c.relkind::text, c.relreplident::text, c.relpersistence::text,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary),
       EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
               WHERE i.indrelid = c.oid AND a.attgenerated <> ''
                 AND CASE c.relreplident WHEN 'd' THEN i.indisprimary ELSE i.indisreplident END)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname = ANY(%s) ORDER BY 2, 3
"""
_POSTGRES_COLUMNS = """
WITH RECURSIVE base AS (
    SELECT oid, oid AS of FROM pg_type
    UNION ALL SELECT t.typbasetype, b.of FROM base b JOIN pg_type t ON t.oid = b.oid WHERE t.typtype = 'd')
SELECT a.attname, format_type(t.oid, NULL), t.typcategory::text, a.attgenerated <> ''
FROM pg_attribute a JOIN base b ON b.of = a.atttypid JOIN pg_type t ON t.oid = b.oid AND t.typtype <> 'd'
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_POSTGRES_KINDS = {
    "bytea": Kind.BYTES,
    "character": Kind.PRINTED,
    "inet": Kind.PRINTED,
    "real": Kind.FLOAT,
    "double precision": Kind.FLOAT,
    "interval": Kind.SPAN,
}
_POSTGRES_CATEGORIES = {"N": Kind.NUMBER, "D": Kind.MOMENT, "A": Kind.LIST}
_POSTGRES_TEXTS = {"money", "oid", "time with time zone", "xml"}


class Postgres:
    """A database of its own."""

    kind = "postgresql"
    _made = 0

    def __init__(self, server: PrivatePostgres) -> None:
        Postgres._made += 1
        self._server = server
        self.name = f"changes_{Postgres._made}"
        self.dsn = server.create_database(self.name)
        self.selection: list[str] = []
        self._schemas = 0
        number = int(str(server.execute("SHOW server_version_num")[0][0]))
        self.version = (number // 10000, number % 10000)

    def session(self, schema: str) -> PostgresSession:
        return PostgresSession(self.dsn, schema)

    def make(self) -> str:
        self._schemas += 1
        schema = f"s{self._schemas}"
        self._server.execute(f"CREATE SCHEMA {schema}", self.name)
        return schema

    def tables(self, schemas: Iterable[str]) -> list[SourceTable]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("SET TimeZone = 'UTC'; SET extra_float_digits = 1")
            return [self._table(connection, row) for row in connection.execute(_POSTGRES_TABLES, (list(schemas),))]

    def _table(self, connection: psycopg.Connection[Any], row: tuple[Any, ...]) -> SourceTable:
        oid, schema, name, relkind, identity, persistence, has_key, is_known_by_generated = row
        columns: dict[str, Kind] = {}
        generated = set()
        for column, kind, category, is_generated in connection.execute(_POSTGRES_COLUMNS, (oid,)):
            known = Kind.TEXT if kind in _POSTGRES_TEXTS else _POSTGRES_CATEGORIES.get(category, Kind.TEXT)
            columns[column] = _POSTGRES_KINDS.get(kind, known)
            generated |= {column} if is_generated else set()
        only = "ONLY " if relkind == "r" else ""

        def read(names: list[str], there: Mapping[str, str]) -> list[Row]:
            values = ", ".join(_in_postgres(name, columns[name], there[name]) for name in names)
            with psycopg.connect(self.dsn, autocommit=True) as reader:
                reader.execute("SET TimeZone = 'UTC'; SET extra_float_digits = 1")
                return reader.execute(f'SELECT {values} FROM {only}"{schema}"."{name}"'.encode()).fetchall()

        excuse = "it is unlogged" if persistence == "u" else None
        if identity == "n" or (identity == "d" and not has_key):
            excuse = "nothing identifies its rows"
        if is_known_by_generated:
            excuse = "the log leaves out what identifies its rows"
        if identity == "f" and generated and self.version >= (18, 0):
            excuse = "the server refuses to change its rows while it is published"
        return SourceTable(schema, name, columns, frozenset(generated), excuse, read)

    def close(self) -> None:
        with psycopg.connect(self._server.dsn(), autocommit=True) as connection:
            for (slot,) in connection.execute("SELECT slot_name FROM pg_replication_slots").fetchall():
                connection.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
            connection.execute(f"DROP DATABASE {self.name} WITH (FORCE)".encode())


def _in_postgres(name: str, kind: Kind, there: str) -> str:
    column = '"' + name.replace('"', '""') + '"'
    if kind is Kind.BYTES:
        return f"encode({column}, 'hex')"
    if kind is Kind.PRINTED:
        return f"CASE WHEN {column} IS NOT NULL THEN format('%s', {column}) END"
    if kind is Kind.LIST and there.endswith("]"):
        return f"array_to_json({column})::text"
    return f"{column}::float8::text" if kind is Kind.FLOAT else f"{column}::text"


class MySqlSession:
    """Sends each text as it is, statement by statement."""

    def __init__(self, server: PrivateMySql, schema: str) -> None:
        self.schema = schema
        self._connection: Any = server.connect(schema)
        self.run("SET lock_wait_timeout = 60")

    def run(self, statement: str) -> _Rows:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall())
        except pymysql.err.MySQLError as error:
            if not self._connection.open:
                raise
            raise Refused(str(error)) from error

    def let_go(self) -> None:
        self.run("UNLOCK TABLES")

    def close(self) -> None:
        self._connection.close()


_MYSQL_KINDS = dict.fromkeys("tinyint smallint mediumint int bigint decimal year".split(), Kind.NUMBER)
_MYSQL_KINDS |= dict.fromkeys(["float", "double"], Kind.FLOAT) | {"bit": Kind.BITS, "time": Kind.SPAN}
_MYSQL_KINDS |= dict.fromkeys(["date", "datetime", "timestamp"], Kind.MOMENT)
_MYSQL_KINDS |= dict.fromkeys("binary varbinary tinyblob blob mediumblob longblob".split(), Kind.BYTES)


class MySql:
    """Databases whose names begin alike, on MySQL or MariaDB.

    Args:
        names_columns: the log says what columns are called, which is not either server's default.
    """

    _made = 0

    def __init__(self, server: PrivateMySql, *, names_columns: bool = True) -> None:
        MySql._made += 1
        least = "NO_LOG" if server.flavor == "mariadb" else "MINIMAL"
        server.execute(f"SET GLOBAL binlog_row_metadata = {'FULL' if names_columns else least}")
        self._server = server
        self._schemas: list[str] = []
        self.kind = server.flavor
        self.name = f"changes_{MySql._made}"
        self.dsn = server.dsn()
        self.selection = [f"{self.name}_*.*"]
        major, minor = str(server.execute("SELECT version()")[0][0]).split(".")[:2]
        self.version = (int(major), int(minor))

    def session(self, schema: str) -> MySqlSession:
        return MySqlSession(self._server, schema)

    def make(self) -> str:
        schema = f"{self.name}_{len(self._schemas)}"
        self._server.create_database(schema)
        self._schemas.append(schema)
        return schema

    def tables(self, schemas: Iterable[str]) -> list[SourceTable]:
        found = []
        for schema in schemas:
            names = self._server.execute(
                "SELECT table_name FROM information_schema.tables "
                f"WHERE table_schema = '{schema}' AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY 1"
            )
            found += [self._table(schema, str(name)) for (name,) in names]
        return found

    def _table(self, schema: str, table: str) -> SourceTable:
        columns = {
            str(name): _MYSQL_KINDS.get(str(kind).lower(), Kind.TEXT)
            for name, kind in self._server.execute(
                "SELECT column_name, data_type FROM information_schema.columns "
                f"WHERE table_schema = '{schema}' AND table_name = '{table}' ORDER BY ordinal_position"
            )
        }

        def read(names: list[str], _: Mapping[str, str]) -> list[Row]:
            values = ", ".join(_in_mysql(name, columns[name]) for name in names)
            return self._server.execute("SET time_zone = '+00:00'", f"SELECT {values} FROM `{schema}`.`{table}`")

        return SourceTable(schema, table, columns, frozenset(), None, read)

    def close(self) -> None:
        self._server.execute(*[f"DROP DATABASE IF EXISTS `{schema}`" for schema in self._schemas])


def _in_mysql(name: str, kind: Kind) -> str:
    column = "`" + name.replace("`", "``") + "`"
    if kind is Kind.BYTES:
        return f"HEX({column})"
    if kind is Kind.BITS:
        return f"CAST({column} + 0 AS CHAR)"
    return f"CAST(CAST({column} AS DOUBLE) AS CHAR)" if kind is Kind.FLOAT else f"CAST({column} AS CHAR)"
