"""A DuckDB in memory that reads Arrow tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from cdc.errors import InvariantError


class Memory:
    """One connection. A query may read the rows that come with it as `cdc.typed.fitting.ROWS`.

    Its errors are InvariantErrors: what is asked is made here. The one exception are conditions of users.
    """

    def __init__(self) -> None:
        self._connection = duckdb.connect(":memory:")
        self._connection.execute("SET TimeZone = 'UTC'")

    def close(self) -> None:
        """May be called twice."""
        self._connection.close()

    def ask(self, query: str, rows: pa.Table | None = None) -> list[tuple[Any, ...]]:
        """What a query answers."""
        _cdc_rows = rows  # DuckDB finds it as the variable of that name
        with _said():
            return self._connection.execute(query).fetchall()

    def table(self, query: str, rows: pa.Table) -> pa.Table:
        """The same as an Arrow table."""
        _cdc_rows = rows
        with _said():
            return self._connection.sql(query).to_arrow_table()


@contextmanager
def _said() -> Iterator[None]:
    """Messages of DuckDB may hold values of rows, so that they are not passed on."""
    try:
        yield
    except duckdb.Error as error:
        raise InvariantError(f"DuckDB could not run a statement: {type(error).__name__}.") from error
