"""What PostgreSQL's catalog says about tables and publications."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import psycopg

from cdc.model.schema import Column, TableName, TableSchema
from cdc.sources.postgres.keys import Leaf, Obstacle, carries_whole_rows, find_obstacle
from cdc.sources.postgres.relation import Relation, RelationColumn
from cdc.sources.postgres.session import of_type, readable
from cdc.sources.postgres.types import TypeInfo, logical_type

Connection = psycopg.Connection[tuple[object, ...]]

# INCLUDE columns are no part of the key, and a deferrable key identifies nothing (RelationGetIndexList in relcache.c).
# An index of a partitioned table that not all of its leaves have is not valid.
_TABLES = """
SELECT c.oid::int8, n.nspname, c.relname, c.relkind::text, c.relreplident::text,
       greatest(c.reltuples, 0)::int8,
       coalesce((i.indkey::int2[])[0:i.indnkeyatts - 1], '{}')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indimmediate AND i.indisvalid
     AND CASE c.relreplident WHEN 'i' THEN i.indisreplident WHEN 'n' THEN false ELSE i.indisprimary END
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND {filter}
ORDER BY n.nspname, c.relname
"""

_COLUMNS = """
SELECT a.attrelid::int8, a.attnum, a.attname, a.atttypid::int8, a.atttypmod, a.attndims, a.attnotnull,
       format_type(a.atttypid, a.atttypmod), a.attgenerated <> ''
FROM pg_attribute a
WHERE a.attrelid = ANY(%s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
"""

# Not by pg_partition_tree(), which locks what it finds.
_LEAVES = """
WITH RECURSIVE tree(root, leaf) AS (
    SELECT c.oid, c.oid FROM pg_class c WHERE c.oid = ANY(%s::oid[])
    UNION ALL
    SELECT tree.root, h.inhrelid FROM tree
    JOIN pg_class p ON p.oid = tree.leaf AND p.relkind = 'p' JOIN pg_inherits h ON h.inhparent = p.oid
)
SELECT tree.root::int8, n.nspname, c.relname, CASE c.relkind WHEN 'f' THEN 'f' ELSE c.relpersistence END::text,
       c.relreplident::text,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum = ANY((i.indkey::int2[])[0:i.indnkeyatts - 1])),
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> '')
FROM tree
JOIN pg_class c ON c.oid = tree.leaf AND c.relkind IN ('r', 'f')
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indimmediate AND i.indisvalid
     AND CASE c.relreplident WHEN 'i' THEN i.indisreplident WHEN 'd' THEN i.indisprimary ELSE false END
ORDER BY n.nspname, c.relname
"""

# A true array has no array type of its own; int2vector and oidvector, written without braces, have one.
_TYPES = """
SELECT t.oid::int8,
       CASE WHEN t.typtype = 'd' THEN 'd'
            WHEN t.typcategory = 'A' AND t.typelem <> 0 AND t.typarray = 0 THEN 'A' ELSE '' END,
       t.typelem::int8, t.typbasetype::int8, t.typtypmod, t.typndims, t.typdelim::text
FROM pg_type t WHERE t.typtype <> 'c'
"""
# A server has some hundred types, of which tables have a few, with those that these are made of.
_TYPES_OF = f"""
WITH RECURSIVE used(oid) AS (
    SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = ANY(%s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT part.oid FROM used JOIN pg_type t ON t.oid = used.oid
    CROSS JOIN LATERAL (VALUES (t.typelem), (t.typbasetype)) AS part(oid) WHERE part.oid <> 0
) {_TYPES} AND t.oid IN (SELECT used.oid FROM used)
"""

# A row of pg_publication_rel is never updated: what is taken out and put in again has another oid.
_FINGERPRINT = """
SELECT p.pubname,
       concat_ws(' ',
                 concat_ws(':', p.oid::text, p.pubowner::text, p.xmin::text, md5((to_jsonb(p) - 'pubowner')::text)),
                 (SELECT string_agg(concat_ws(':', r.prrelid::text, md5(to_jsonb(r)::text)), ' ' ORDER BY r.prrelid)
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
        obstacle: why its changes cannot be followed, or its updates and deletes alone; None if they can.
    """

    schema: TableSchema
    relation: Relation
    kind: str
    rows_estimated: int
    obstacle: Obstacle | None = None

    @property
    def has_identity(self) -> bool:
        """Whether the log identifies the rows that are updated or deleted (A-35)."""
        return self.obstacle is None


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
    oids = [row[0] for row in found]
    columns: dict[int, list[tuple[object, ...]]] = defaultdict(list)
    for row in _rows(connection, _COLUMNS, (oids,)):
        columns[of_type(row[0], int)].append(row)
    leaves = _leaves(connection, oids)
    types, version = _types(connection, _TYPES_OF, (oids,)), connection.info.server_version
    return [_table(row, columns[of_type(row[0], int)], leaves[of_type(row[0], int)], types, version) for row in found]


def _leaves(connection: Connection, oids: list[object]) -> dict[int, list[Leaf]]:
    leaves: dict[int, list[Leaf]] = defaultdict(list)
    for root, namespace, name, kind, identity, index, generated in _rows(connection, _LEAVES, (oids,)):
        table = TableName(str(namespace), str(name))
        leaf = Leaf(
            table, str(kind), str(identity), frozenset(of_type(index, list)), frozenset(of_type(generated, list))
        )
        leaves[of_type(root, int)].append(leaf)
    return leaves


def _table(
    row: tuple[object, ...],
    attributes: list[tuple[object, ...]],
    leaves: list[Leaf],
    types: dict[int, TypeInfo],
    version: int,
) -> Table:
    oid, namespace, name, kind, identity, rows, numbers = row
    table = TableName(str(namespace), str(name))
    index = of_type(numbers, list)
    names = frozenset(str(column) for _, attnum, column, *_ in attributes if attnum in index)
    generated = {str(column) for _, _, column, *_, is_generated in attributes if is_generated}
    obstacle = find_obstacle(table, str(identity), names, leaves, version)
    # A key that lacks one of its columns is no key. Without an identity it is of no use.
    key = [] if obstacle is not None or names & generated else index
    columns, described = [], []
    for _, attnum, column, type_oid, modifier, dimensions, not_null, source_type, is_generated in attributes:
        if is_generated:
            continue  # pgoutput does not send them by default, so the copy does not either
        columns.append(
            Column(
                name=str(column),
                source_type=str(source_type),
                type=logical_type(types, of_type(type_oid, int), of_type(modifier, int), of_type(dimensions, int)),
                identity=of_type(attnum, int),
                key=key.index(attnum) if attnum in key else None,
                nullable=not not_null,
            )
        )
        is_flagged = identity == "f" or attnum in index
        described.append(RelationColumn(str(column), of_type(type_oid, int), of_type(modifier, int), is_flagged))
    whole = obstacle is None and carries_whole_rows(str(identity), leaves)
    return Table(
        schema=TableSchema(table, of_type(oid, int), tuple(columns), whole),
        relation=Relation(of_type(oid, int), table.schema, table.name, str(identity), tuple(described)),
        kind=str(kind),
        rows_estimated=of_type(rows, int),
        obstacle=obstacle,
    )


@readable()
def type_infos(connection: Connection) -> dict[int, TypeInfo]:
    """pg_type by oid, without the row types of tables."""
    return _types(connection, _TYPES, ())


def _types(connection: Connection, query: str, parameters: tuple[object, ...]) -> dict[int, TypeInfo]:
    infos = (
        TypeInfo(
            of_type(oid, int),
            str(category),
            of_type(element, int),
            of_type(base, int),
            of_type(modifier, int),
            of_type(dimensions, int),
            str(delimiter),
        )
        for oid, category, element, base, modifier, dimensions, delimiter in _rows(connection, query, parameters)
    )
    return {info.oid: info for info in infos}


@readable()
def publication_fingerprint(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    """For each publication that exists: its identity, owner, version and options, and the same of its membership.

    A table that is taken out and put in again leaves the same membership, and options that are changed and changed back
    the same options, but both leave a gap in the stream that nothing else shows (A-33, A-52).
    """
    return {str(name): str(text) for name, text in _rows(connection, _FINGERPRINT, (list(names),))}


def is_same_publication(before: str, after: str) -> bool:
    """Whether two fingerprints differ in nothing, or in the owner: to give a publication away makes a version, too."""
    (was, *members), (now, *members_now) = before.split(" "), after.split(" ")
    (oid, owner, version, options), (oid_now, owner_now, version_now, options_now) = was.split(":"), now.split(":")
    is_given_away = owner != owner_now
    same = (oid, options, members) == (oid_now, options_now, members_now)
    return same and (version == version_now or is_given_away)


def of_owner(fingerprint: str, now: str) -> str:
    """A fingerprint with the owner and the version that the publication has now."""
    return " ".join([now.split(" ", 1)[0], *fingerprint.split(" ")[1:]])


def without_tables(fingerprint: str, oids: Iterable[int]) -> str:
    """A fingerprint as if some tables were not in the publication."""
    left_out = tuple(f"{oid}:" for oid in oids)
    publication, *members = fingerprint.split(" ")
    return " ".join([publication, *(member for member in members if not left_out or not member.startswith(left_out))])


@readable()
def missing_values(connection: Connection, oid: int, leaves: Iterable[int]) -> dict[int, dict[int, str]]:
    """Per attnum of a table and oid of a leaf: the value that the leaf's rows have if they are older than the column.

    ADD COLUMN with a constant default rewrites nothing: pg_attribute.attmissingval holds the value for old rows (A-48).
    A partitioned table has none of its own, and each leaf may number its columns otherwise (P8).
    """
    query = """
        SELECT a.attnum::int4, l.attrelid::int8, (l.attmissingval::text::text[])[1]
        FROM pg_attribute a JOIN pg_attribute l ON l.attname = a.attname
        WHERE a.attrelid = %s AND a.attnum > 0 AND l.attrelid = ANY(%s::oid[]) AND l.atthasmissing
    """
    found: dict[int, dict[int, str]] = {}
    for attnum, leaf, value in _rows(connection, query, (oid, list(leaves))):
        found.setdefault(of_type(attnum, int), {})[of_type(leaf, int)] = of_type(value, str)
    return found


@readable()
def dropped_columns(connection: Connection, oid: int) -> set[int]:
    """The numbers of the columns that a table has no more."""
    query = "SELECT attnum::int4 FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND attisdropped"
    return {of_type(attnum, int) for (attnum,) in _rows(connection, query, (oid,))}


@readable()
def generated_columns(connection: Connection, oid: int) -> list[str]:
    """The names of a table's columns that the server works out, which a pipeline leaves out (docs/types.md)."""
    query = """
        SELECT attname::text FROM pg_attribute
        WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attgenerated <> '' ORDER BY attnum
    """
    return [str(name) for (name,) in _rows(connection, query, (oid,))]


def _rows(connection: Connection, query: str, parameters: tuple[object, ...]) -> list[tuple[object, ...]]:
    return connection.execute(query.encode(), parameters).fetchall()
