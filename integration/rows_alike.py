"""Source and target compared by what their own drivers read of each, in Python: no line of cdc has a part in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from integration.conftest import Database, MySqlDatabase

_POSTGRES = """
    SELECT relname::text, (SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
    FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
"""
_MYSQL = """
    SELECT table_name, column_name FROM information_schema.columns
    WHERE table_schema = database() ORDER BY table_name, ordinal_position
"""


def assert_alike(database: Database | MySqlDatabase, path: Path, *left_out: str) -> int:
    """Each table has the same rows in both; how many there are. Nobody may have the target open."""
    schema = database.name if isinstance(database, MySqlDatabase) else "public"
    rows = 0
    with database.connect() as source, source.cursor() as cursor, duckdb.connect(str(path), read_only=True) as target:
        for table, columns in _tables(cursor, is_mysql=isinstance(database, MySqlDatabase)).items():
            if table in left_out:
                continue
            cursor.execute(f"SELECT {', '.join(columns)} FROM {table}")
            ours = sorted(map(repr, cursor.fetchall()))
            held = f'FROM "{path.stem}"."{schema}".{table}'  # a schema may have the name of the file
            theirs = sorted(map(repr, target.execute(f"SELECT {', '.join(columns)} {held}").fetchall()))
            assert ours == theirs, table
            rows += len(ours)
    return rows


def _tables(cursor: Any, *, is_mysql: bool) -> dict[str, list[str]]:
    cursor.execute(_MYSQL if is_mysql else _POSTGRES)
    if not is_mysql:
        return dict(cursor.fetchall())
    tables: dict[str, list[str]] = {}
    for table, column in cursor.fetchall():
        tables.setdefault(table, []).append(column)
    return tables
