"""The rows of an answer as people and programs read them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import duckdb
import orjson
import pyarrow as pa


def as_texts(rows: pa.Table) -> list[tuple[str | None, ...]]:
    """Each value as DuckDB writes it."""
    return _projected(rows, [f"CAST(#{place} AS VARCHAR)" for place in range(1, rows.num_columns + 1)])


def as_csv(rows: pa.Table) -> bytes:
    """With a first line of names."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(rows.column_names)
    writer.writerows(as_texts(rows))
    return content.getvalue().encode()


def as_json_lines(rows: pa.Table, types: Sequence[str]) -> bytes:
    """One object a line, with values as DuckDB's `to_json` writes them."""
    values = [
        f"CAST(#{place} AS VARCHAR)" if kind == "JSON" else f"CAST(to_json(#{place}) AS VARCHAR)"
        for place, kind in enumerate(types, 1)
    ]
    found = _projected(rows, values)
    return b"".join(
        orjson.dumps(
            {
                name: None if value is None else orjson.Fragment(value)
                for name, value in zip(rows.column_names, row, strict=True)
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for row in found
    )


def _projected(rows: pa.Table, values: Sequence[str]) -> list[tuple[Any, ...]]:
    numbered = rows.rename_columns([f"c{place}" for place in range(rows.num_columns)])
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.from_arrow(numbered).project(", ".join(values)).fetchall()
