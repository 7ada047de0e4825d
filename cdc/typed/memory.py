"""A DuckDB in memory that reads Arrow tables."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa


class Memory:
    """One connection. A query may read the rows that come with it as `cdc.typed.fitting.ROWS`."""

    def __init__(self) -> None:
        self._connection = duckdb.connect(":memory:")
        self._connection.execute("SET TimeZone = 'UTC'")

    def close(self) -> None:
        """May be called twice."""
        self._connection.close()

    def ask(self, query: str, rows: pa.Table | None = None) -> list[tuple[Any, ...]]:
        """What a query answers."""
        _cdc_rows = rows  # DuckDB finds it as the variable of that name
        return self._connection.execute(query).fetchall()

    def table(self, query: str, rows: pa.Table) -> pa.Table:
        """The same as an Arrow table."""
        _cdc_rows = rows
        return self._connection.sql(query).to_arrow_table()
