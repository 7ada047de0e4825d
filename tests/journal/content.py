"""What a DuckDB file holds, as text that can be compared."""

from __future__ import annotations

import hashlib
from pathlib import Path

import duckdb


def digests(path: Path) -> dict[str, str]:
    """Of each table its columns and rows, whatever their order."""
    with duckdb.connect(str(path), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        tables = connection.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE schema_name NOT LIKE '\\_cdc%' ESCAPE '\\'"
        ).fetchall()
        found = {}
        for schema, table in tables:
            rows = connection.execute(f'SELECT * FROM "{path.stem}"."{schema}"."{table}"')
            text = [repr([column[:2] for column in rows.description]), *sorted(map(repr, rows.fetchall()))]
            found[f"{schema}.{table}"] = hashlib.sha256("\n".join(text).encode()).hexdigest()
        return found
