"""A DuckDB file that is open: who asks only in texts, as `cdc status` does, loads DuckDB and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from cdc.errors import CdcError
from cdc.model.schema import TableName
from cdc.tables.names import CATALOG
from cdc.targets.duckdb.connection import classify, open_file
from cdc.targets.duckdb.product import PRODUCT

if TYPE_CHECKING:
    from sqlglot import exp


class DuckDbFile:
    """One file. DuckDB's lock on it is the lease (D-17).

    Args:
        memory: bytes of buffers.
    """

    product = PRODUCT
    failures: tuple[type[Exception], ...] = (duckdb.Error, UnicodeDecodeError, OSError)

    def __init__(self, path: Path, memory: int, *, read_only: bool = False) -> None:
        self.place = str(path)
        self.connection: duckdb.DuckDBPyConnection
        self._path = path
        self._memory = memory
        self._read_only = read_only

    def open(self) -> None:
        self.connection = open_file(self._path, self._memory, read_only=self._read_only)

    def close(self) -> None:
        self.connection.close()

    def meaning(self, failure: Exception) -> CdcError:
        return classify(failure, self._path)

    def render(self, statement: exp.Expr) -> str:
        return statement.sql(dialect="duckdb")

    def run(self, statement: exp.Expr | str, values: Sequence[object] = ()) -> int:
        answer = self._execute(statement, values).fetchone()
        return answer[0] if answer is not None and isinstance(answer[0], int) else 0

    def ask(self, query: exp.Expr | str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self._execute(query, values).fetchall()

    def columns(self, table: TableName) -> dict[str, str]:
        # Asked of each table that changes: `duckdb_columns()` would go through those of all tables (P25).
        try:
            described = self.ask(f"DESCRIBE {named(table)}")
        except duckdb.CatalogException:
            return {}
        return {str(name): str(kind) for name, kind, *_ in described}

    def _execute(self, statement: exp.Expr | str, values: Sequence[object] = ()) -> duckdb.DuckDBPyConnection:
        text = statement if isinstance(statement, str) else self.render(statement)
        return self.connection.execute(text, list(values)) if values else self.connection.execute(text)


def named(table: TableName) -> str:
    """A table's name in statements."""
    return ".".join('"{}"'.format(part.replace('"', '""')) for part in (CATALOG, table.schema, table.name))
