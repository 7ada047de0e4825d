"""What information_schema knows of tables: only ever asked about now, never about an event of the past (B-41)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cdc.errors import UsageError
from cdc.model.schema import Column, TableName, TableSchema
from cdc.model.selection import Selection
from cdc.sources.mysql.connection import Connection, reads_answers
from cdc.sources.mysql.defaults import Default, of_column
from cdc.sources.mysql.engines import TRANSACTIONAL, engine_trouble
from cdc.sources.mysql.rights import unreadable
from cdc.sources.mysql.state import Generated, TableState
from cdc.sources.mysql.types import logical_type, source_type

SYSTEM_SCHEMAS = ("mysql", "information_schema", "performance_schema", "sys")
_QUOTED = re.compile(r"`((?:[^`]|``)*)`")
_TABLES = """
SELECT table_schema, table_name, table_type, engine, coalesce(table_rows, 0), coalesce(table_collation, '')
FROM information_schema.tables
WHERE table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') AND {where} ORDER BY table_schema, table_name
"""
_COLUMNS = """
SELECT table_schema, table_name, column_name, column_type, character_set_name, is_nullable,
       coalesce(generation_expression, ''), extra, column_default
FROM information_schema.columns WHERE {where} ORDER BY table_schema, table_name, ordinal_position
"""
_COLUMNS_56 = _COLUMNS.replace("coalesce(generation_expression, '')", "''")
_KEYS = """
SELECT table_schema, table_name, index_name, column_name, sub_part IS NOT NULL, nullable, index_type
FROM information_schema.statistics WHERE non_unique = 0 AND {where}
ORDER BY table_schema, table_name, index_name <> 'PRIMARY', index_name, seq_in_index
"""


@dataclass(frozen=True, slots=True)
class Table:
    """One table as it is now.

    Attributes:
        schema: its shape; its identity is 0.
        engine: in lower case.
        charset: of text columns that name none.
        rows_estimated: a guess of the engine.
        row_end: the column that ends a row's time, if the table is system-versioned; '' if it is the server's own.
        defaults: of columns, as far as they are constants.
        generated: columns, as far as it is certain what they depend on.
        trouble: why it cannot be followed, if it cannot.
        key_index: the index whose columns are the key; '' if there is none.
        hidden: how many columns the server keeps for itself behind these.
        computes: it has columns that are worked out of others.
    """

    schema: TableSchema
    engine: str
    charset: str
    rows_estimated: int
    row_end: str | None = None
    defaults: tuple[Default, ...] = ()
    generated: tuple[Generated, ...] = ()
    trouble: str | None = None
    key_index: str = ""
    hidden: int = 0
    computes: bool = False

    @property
    def name(self) -> TableName:
        return self.schema.table

    @property
    def is_transactional(self) -> bool:
        return self.engine in TRANSACTIONAL

    def identified(self, identity: int) -> Table:
        """The same as the table that a pipeline has this number for."""
        return replace(self, schema=replace(self.schema, identity=identity))

    def certain(self, before: Table) -> Table:
        """The same with those defaults only that it had before as well: in the meantime is the place that matters."""
        return replace(self, defaults=tuple(default for default in self.defaults if default in before.defaults))

    def followed(self, start: int, *, copied: bool) -> TableState:
        """What a pipeline knows of it that begins with it as it is now."""
        number = len(self.schema.columns) + 1
        return TableState(
            self.schema,
            self.charset,
            start,
            copied,
            number,
            self.row_end,
            self.defaults,
            key_index=self.key_index,
            hidden=self.hidden,
            generated=self.generated,
            computes=self.computes,
        )


def user_tables(connection: Connection, database: str) -> list[Table]:
    """All tables of a database, or of all but the system's."""
    if database:
        return _readable(connection, _tables(connection, "table_schema = %s", [database]))
    marks = ", ".join(["%s"] * len(SYSTEM_SCHEMAS))
    return _readable(connection, _tables(connection, f"table_schema NOT IN ({marks})", SYSTEM_SCHEMAS))


def named_tables(connection: Connection, names: Iterable[TableName]) -> dict[TableName, Table]:
    """Those of the tables that exist now."""
    found = [
        table
        for name in names
        for table in _tables(connection, "table_schema = %s AND table_name = %s", [name.schema, name.name])
    ]
    return {table.name: table for table in _readable(connection, found)}


def _readable(connection: Connection, tables: Sequence[Table]) -> list[Table]:
    """Tables, with what keeps the user from reading them whole as their trouble."""
    refused = unreadable(connection, [table.name for table in tables])
    return [replace(table, trouble=table.trouble or refused.get(table.name)) for table in tables]


@reads_answers
def has_column_grants(connection: Connection, name: TableName) -> bool:
    """Whether the user was granted single columns of a table, so that others may be out of sight."""
    user, _, host = str(connection.value("SELECT CURRENT_USER()")).rpartition("@")
    return bool(
        connection.query(
            "SELECT 1 FROM information_schema.column_privileges WHERE privilege_type = 'SELECT' AND table_schema = %s "
            "AND table_name = %s AND grantee = %s LIMIT 1",
            name.schema,
            name.name,
            f"'{user}'@'{host}'",
        )
    )


def is_of_server(name: str) -> bool:
    """Whether a table is one that a server makes for itself while it alters another."""
    return name.startswith("#sql")


def selected(tables: Sequence[Table], selection: Selection) -> list[Table]:
    """Those that a user means."""
    return [table for table in tables if selection.matches(table.name) and not is_of_server(table.name.name)]


@reads_answers
def _tables(connection: Connection, where: str, values: Sequence[str]) -> list[Table]:
    rows = connection.query(_TABLES.format(where=where), *values)
    if not rows:
        return []
    old = connection.version.flavor == "mysql" and connection.version.number < (5, 7)
    columns: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for row in connection.query((_COLUMNS_56 if old else _COLUMNS).format(where=where), *values):
        columns.setdefault((row[0], row[1]), []).append(row[2:])
    keys: dict[tuple[str, str], dict[str, list[tuple[Any, ...]]]] = {}
    for row in connection.query(_KEYS.format(where=where), *values):
        keys.setdefault((row[0], row[1]), {}).setdefault(row[2], []).append(row[3:])
    is_mariadb = connection.version.flavor == "mariadb"
    return [_table(row, columns.get(row[:2], []), keys.get(row[:2], {}), is_mariadb=is_mariadb) for row in rows]


def _table(
    row: tuple[Any, ...],
    attributes: list[tuple[Any, ...]],
    indexes: dict[str, list[tuple[Any, ...]]],
    *,
    is_mariadb: bool,
) -> Table:
    schema, name, kind, engine, estimate, collation = row
    row_end = _row_end(attributes) if kind == "SYSTEM VERSIONED" else None
    row_start = _row_end(attributes, "ROW START") if kind == "SYSTEM VERSIONED" else None
    key_index, key = _key(indexes, [row[0] for row in attributes], row_end)
    columns: list[Column] = []
    defaults: list[Default] = []
    trouble = engine_trouble((engine or "").lower())
    for column, column_type, charset, nullable, _, extra, default in attributes:
        if column in (row_start, row_end):
            continue
        text = f"{column_type} character set {charset}" if charset else str(column_type)
        # MariaDB leaves these out of row images, whatever happens to them: virtual ones where images are not FULL, and
        # from 11.8 on all of them wherever a row is changed or deleted.
        kind_of = next((kind for kind in ("virtual", "stored") if kind in extra.lower()), "") if is_mariadb else ""
        text += f" {kind_of}" if kind_of else ""
        try:
            parsed = source_type(text)
        except UsageError as error:
            trouble = trouble or f"{column}: {error.message}"
            continue
        columns.append(
            Column(
                name=column,
                source_type=text,
                type=logical_type(parsed),
                identity=len(columns) + 1,
                key=key.index(column) if column in key else None,
                nullable=nullable == "YES",
            )
        )
        if (found := of_column(columns[-1], default, extra, is_quoted=is_mariadb)) is not None:
            defaults.append(found)
    return Table(
        TableSchema(TableName(schema, name), 0, tuple(columns), full_before=not key),
        engine=(engine or "").lower(),
        charset=collation.split("_")[0],
        rows_estimated=int(estimate),
        row_end=(row_end or "") if kind == "SYSTEM VERSIONED" else None,
        defaults=tuple(defaults),
        generated=_generated(columns, {row[0]: row[4] for row in attributes}) if is_mariadb else (),
        trouble=trouble,
        key_index=key_index,
        hidden=_hidden(indexes, (engine or "").lower()),
        computes=any(row[4] or "generated" in row[5].lower() for row in attributes),
    )


def _generated(columns: Sequence[Column], expressions: Mapping[str, str]) -> tuple[Generated, ...]:
    """What MariaDB's generated columns depend on: their expressions have every column in backticks."""
    identities = {column.name.lower(): column.identity for column in columns}
    direct = {
        column.identity: {identities.get(name.replace("``", "`").lower(), 0) for name in _QUOTED.findall(expression)}
        for column in columns
        if source_type(column.source_type).generated and (expression := expressions.get(column.name))
    }
    found = []
    for column, named in direct.items():
        bases = set(named)
        for _ in direct:  # one may depend on another
            bases = {base for of in bases for base in direct.get(of, {of})}
        if bases and 0 not in bases and not bases & set(direct):
            found.append(Generated(column, tuple(sorted(bases))))
    return tuple(found)


def _row_end(attributes: list[tuple[Any, ...]], what: str = "ROW END") -> str | None:
    return next((row[0] for row in attributes if row[4] == what), None)


def _key(
    indexes: dict[str, list[tuple[Any, ...]]], readable: Sequence[str], row_end: str | None
) -> tuple[str, list[str]]:
    """The primary key, or else the first unique one whose columns are whole and never null: its name and columns.

    One that has a column which the user may not read is no key (M5): MySQL shows the index all the same.
    """
    for name, parts in indexes.items():
        columns = [column for column, *_ in parts if column not in (row_end, "row_end")]
        is_whole = all(c is not None and not cut and n != "YES" for c, cut, n, *_ in parts)
        if columns and (name == "PRIMARY" or is_whole) and set(columns) <= set(readable):
            return name, columns
    return "", []


def _hidden(indexes: dict[str, list[tuple[Any, ...]]], engine: str) -> int:
    """How many columns MariaDB adds for unique hashes (B-46), where the engine has none of its own.

    MySQL's log does not have those that it adds for indexes over expressions (seen with 9.7).
    """
    is_added = engine in TRANSACTIONAL | {"aria", "myisam"}
    return sum(parts[0][3] == "HASH" for parts in indexes.values()) if is_added else 0
