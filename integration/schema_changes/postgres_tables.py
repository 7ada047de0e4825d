"""Tables of PostgreSQL that schemas begin with, values for columns, and what is there now."""

from __future__ import annotations

import random

from integration.schema_changes.servers import Session
from integration.schema_changes.shapes import Column, Table

SETUP = (
    "CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad'); CREATE DOMAIN positive AS int DEFAULT 5 CHECK (VALUE > 0); "
    "CREATE DOMAIN token AS uuid DEFAULT gen_random_uuid(); CREATE TYPE point2 AS (x int, y text)",
    "CREATE TABLE t (id int PRIMARY KEY, a text, b varchar(10), n int, m mood, d numeric(8,2))",
    "INSERT INTO t SELECT i, 'a' || i, 'b' || i, i * 2, 'ok', i + 0.5 FROM generate_series(1, 12) i",
    "CREATE TABLE u (id bigint PRIMARY KEY, a text, b varchar(10), n int, c point2, l int[])",
    "INSERT INTO u SELECT i, 'u' || i, NULL, i, ROW(i, 'y'::text)::point2, ARRAY[i, i + 1] FROM generate_series(1, 8) i",
    "CREATE TABLE k (a int, b text, m mood[]); ALTER TABLE k REPLICA IDENTITY FULL; "
    "INSERT INTO k VALUES (1, 'x', '{sad}'), (1, 'x', '{sad}'), (2, NULL, '{ok,glad}')",
    "CREATE TABLE p (id int PRIMARY KEY, v int, w text) PARTITION BY RANGE (id); "
    "CREATE TABLE p0 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (10) TO (20); "
    "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (20) TO (60); "
    "INSERT INTO p SELECT i, i, 'w' || i FROM generate_series(0, 39) i",
)

_COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull, a.attgenerated <> '', a.attidentity = 'a',
       ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = a.atttypid ORDER BY e.enumsortorder),
       EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisprimary AND a.attnum = ANY(x.indkey))
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') ORDER BY c.relname, a.attnum
"""
_TABLES = """
SELECT c.relname, c.relkind::text, (SELECT p.relname FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
       WHERE i.inhrelid = c.oid AND c.relispartition)
FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1
"""
TYPES = (
    "int", "bigint", "smallint", "text", "varchar(5)", "varchar(30)", "char(4)", "numeric(6,1)", "numeric(12,4)", "numeric",
    "boolean", "date", "timestamp", "timestamptz", "uuid", "jsonb", "bytea", "real", "double precision", "interval",
    "mood", "mood[]", "positive", "token", "point2", "int[]", "text[]",
)  # fmt: skip
DEFAULTS = {
    "int": ["7", "(random() * 100)::int", "length(current_user)"],
    "bigint": ["-1", "(random() * 1e9)::bigint"],
    "text": ["'d'", "''", "gen_random_uuid()::text", "'it''s, a \"d\"'"],
    "boolean": ["true"],
    "date": ["'2020-02-29'", "current_date"],
    "timestamp": ["'2001-02-03 04:05:06'", "clock_timestamp()"],
    "timestamptz": ["now()", "clock_timestamp()"],
    "uuid": ["gen_random_uuid()", "'00000000-0000-0000-0000-000000000001'"],
    "jsonb": ["'{\"a\": [1]}'"],
    "bytea": ["'\\x00ff'"],
    "mood": ["'ok'"],
    "mood[]": ["'{sad,ok}'"],
    "numeric(12,4)": ["1.5", "random()"],
    "int[]": ["'{1,2}'", "ARRAY[1, NULL]"],
    "positive": ["9"],
}


def value(rng: random.Random, column: Column) -> str:
    """A literal of a column's type; DEFAULT for a type that this does not know."""
    if column.is_nullable and rng.random() < 0.15:
        return "NULL"
    kind, number = column.type, rng.randrange(60)
    if column.labels:
        return f"'{rng.choice(column.labels)}'"
    if column.is_integer or kind.startswith(("numeric", "real", "double", "positive")):
        return str(number + (1 if kind == "positive" else 0))
    if column.is_text:
        return f"'{'xyzé'[number % 4]}{number % 100}'"
    known = {
        "boolean": "true" if number % 2 else "false",
        "date": f"'2024-01-{number % 28 + 1:02}'",
        "uuid": f"'00000000-0000-0000-0000-0000000000{number:02}'",
        "jsonb": f"'{{\"k\": {number}}}'",
        "bytea": f"'\\x{number:02}'",
        "interval": f"'{number} days 01:00:00'",
        "integer[]": f"'{{{number},NULL}}'",
        "text[]": f"'{{a{number},\"b,c\"}}'",
        "point2": f"ROW({number}, 'y')" if number % 2 else "NULL",
    }
    if kind.startswith("timestamp"):
        return f"'2024-05-{number % 28 + 1:02} 10:{number:02}:00.5'"
    return known.get(kind, "DEFAULT")


def look(session: Session) -> list[Table]:
    """The tables of a session's schema as they are now."""
    columns: dict[str, list[Column]] = {}
    keys: dict[str, list[str]] = {}
    for table, name, kind, nullable, generated, always, labels, in_key in session.run(_COLUMNS):
        columns.setdefault(table, []).append(
            Column(name, kind, nullable, generated or always, generated, tuple(labels))
        )
        if in_key:
            keys.setdefault(table, []).append(name)
    found = session.run(_TABLES)
    return [
        Table(
            name,
            kind,
            parent,
            tuple(other for other, _, of in found if of == name),
            tuple(keys.get(name, ())),
            tuple(columns.get(name, ())),
        )
        for name, kind, parent in found
    ]
