"""What PostgreSQL's catalog says about tables and publications."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psycopg

from cdc.model.schema import Column, TableName, TableSchema
from cdc.sources.postgres.pgoutput import Relation, RelationColumn
from cdc.sources.postgres.session import readable, told
from cdc.sources.postgres.types import TypeInfo, logical_type

Connection = psycopg.Connection[tuple[object, ...]]

# INCLUDE columns are no part of the key, and a deferrable key identifies nothing (RelationGetIndexList in relcache.c).
# Generated columns are left out: pgoutput does not send them by default, so the copy does not either.
_TABLES = """
SELECT c.oid::int8, n.nspname, c.relname, c.relkind::text, c.relreplident::text,
       greatest(c.reltuples, 0)::int8,
       coalesce((i.indkey::int2[])[0:i.indnkeyatts - 1], '{}')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indimmediate
     AND CASE c.relreplident WHEN 'i' THEN i.indisreplident WHEN 'n' THEN false ELSE i.indisprimary END
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND {filter}
ORDER BY n.nspname, c.relname
"""

_COLUMNS = """
SELECT a.attrelid::int8, a.attnum, a.attname, a.atttypid::int8, a.atttypmod, a.attndims, a.attnotnull,
       format_type(a.atttypid, a.atttypmod)
FROM pg_attribute a
WHERE a.attrelid = ANY(%s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attrelid, a.attnum
"""

# A true array has no array type of its own; int2vector and oidvector, written without braces, have one.
_TYPES = """
SELECT t.oid::int8,
       CASE WHEN t.typtype = 'd' THEN 'd'
            WHEN t.typcategory = 'A' AND t.typelem <> 0 AND t.typarray = 0 THEN 'A' ELSE '' END,
       t.typelem::int8, t.typbasetype::int8, t.typtypmod, t.typndims, t.typdelim::text
FROM pg_type t WHERE t.typtype <> 'c'
"""

_FINGERPRINT = """
SELECT p.pubname, concat_ws(' ', p.oid::text || ':' || p.xmin::text,
       (SELECT string_agg(r.prrelid::text || ':' || r.xmin::text, ' ' ORDER BY r.prrelid)
        FROM pg_publication_rel r WHERE r.prpubid = p.oid))
FROM pg_publication p WHERE p.pubname = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class Table:
    """One table as it is now.

    Attributes:
        schema: its shape.
        relation: the same as the log describes it.
        kind: pg_class.relkind: r ordinary, p partitioned.
        rows_estimated: from the last ANALYZE.
    """

    schema: TableSchema
    relation: Relation
    kind: str
    rows_estimated: int

    @property
    def has_identity(self) -> bool:
        """Whether the log identifies the rows that are updated or deleted (A-35)."""
        return bool(self.schema.key) or self.schema.full_before


def user_tables(connection: Connection) -> list[Table]:
    """All permanent tables outside of the system schemas; partitions only as their root (A-44)."""
    condition = (
        "NOT c.relispartition AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'"
    )
    return _tables(connection, condition, ())


def tables_by_oid(connection: Connection, oids: Iterable[int]) -> dict[int, Table]:
    """Those of the tables that exist now."""
    return {table.schema.identity: table for table in _tables(connection, "c.oid = ANY(%s::oid[])", (list(oids),))}


@readable()
def _tables(connection: Connection, condition: str, parameters: tuple[object, ...]) -> list[Table]:
    query = _TABLES.replace("{filter}", condition if parameters else condition.replace("%", "%%"))
    found = _rows(connection, query, parameters)
    types = type_infos(connection)
    columns: dict[int, list[tuple[object, ...]]] = {}
    for row in _rows(connection, _COLUMNS, ([row[0] for row in found],)):
        columns.setdefault(told(row[0], int), []).append(row)
    return [_table(row, columns.get(told(row[0], int), []), types) for row in found]


def _table(row: tuple[object, ...], attributes: list[tuple[object, ...]], types: dict[int, TypeInfo]) -> Table:
    oid, namespace, name, kind, identity, rows, numbers = row
    key = told(numbers, list)
    full = identity == "f"
    columns, described = [], []
    for _, attnum, column, type_oid, modifier, dimensions, not_null, source_type in attributes:
        columns.append(
            Column(
                name=str(column),
                source_type=str(source_type),
                type=logical_type(types, told(type_oid, int), told(modifier, int), told(dimensions, int)),
                identity=told(attnum, int),
                key=key.index(attnum) if attnum in key else None,
                nullable=not not_null,
            )
        )
        described.append(RelationColumn(str(column), told(type_oid, int), told(modifier, int), full or attnum in key))
    table = TableName(str(namespace), str(name))
    return Table(
        schema=TableSchema(table, told(oid, int), tuple(columns), full),
        relation=Relation(told(oid, int), table.schema, table.name, str(identity), tuple(described)),
        kind=str(kind),
        rows_estimated=told(rows, int),
    )


@readable()
def type_infos(connection: Connection) -> dict[int, TypeInfo]:
    """pg_type by oid, without the row types of tables."""
    infos = (
        TypeInfo(
            told(oid, int),
            str(category),
            told(element, int),
            told(base, int),
            told(modifier, int),
            told(dimensions, int),
            str(delimiter),
        )
        for oid, category, element, base, modifier, dimensions, delimiter in _rows(connection, _TYPES, ())
    )
    return {info.oid: info for info in infos}


@readable()
def publication_fingerprint(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    """For each publication that exists: its identity and versions, and those of its membership rows.

    A table that is taken out and put in again leaves the same membership but other row versions, and a gap in the
    stream that nothing else shows (A-33, A-52).
    """
    return {str(name): str(text) for name, text in _rows(connection, _FINGERPRINT, (list(names),))}


def without_tables(fingerprint: str, oids: Iterable[int]) -> str:
    """A fingerprint as if some tables were not in the publication."""
    left_out = tuple(f"{oid}:" for oid in oids)
    publication, *members = fingerprint.split(" ")
    return " ".join([publication, *(member for member in members if not left_out or not member.startswith(left_out))])


@readable()
def missing_values(connection: Connection, oid: int) -> dict[int, tuple[bool, str | None]]:
    """Per attnum: whether the column has a default, and the value that rows older than the column have (A-48).

    ADD COLUMN with a constant default rewrites nothing: pg_attribute.attmissingval holds the value for old rows.
    """
    query = """
        SELECT a.attnum, a.atthasdef, CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END
        FROM pg_attribute a WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
    """
    return {
        told(attnum, int): (bool(default), None if value is None else str(value))
        for attnum, default, value in _rows(connection, query, (oid,))
    }


def _rows(connection: Connection, query: str, parameters: tuple[object, ...]) -> list[tuple[object, ...]]:
    return connection.execute(query.encode(), parameters).fetchall()
