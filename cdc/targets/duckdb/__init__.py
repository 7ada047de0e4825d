"""DuckDB: an embedded file that holds the tables, and the checkpoint in the same transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from cdc.model.position import Checkpoint
from cdc.model.schema import TableSchema
from cdc.targets.duckdb.connection import mapped_errors, open_file
from cdc.targets.duckdb.digest import digest
from cdc.targets.duckdb.state import SCHEMA, drop, read_file
from cdc.targets.duckdb.table import actual_columns
from cdc.targets.duckdb.target import DuckDbTarget


def digest_tables(path: str, schemas: Iterable[TableSchema]) -> dict[TableSchema, tuple[int, int] | None]:
    """Row count and digest of each table that the file holds; None for a table that it does not."""
    connection = open_file(Path(path), 256 << 20, read_only=True)
    try:
        with mapped_errors(Path(path)):
            return {
                schema: digest(connection, schema) if actual_columns(connection, schema.table) else None
                for schema in schemas
            }
    finally:
        connection.close()


def read_checkpoint(path: str) -> Checkpoint | None:
    """The checkpoint of a file that no pipeline has open; raises TargetBusy if one does."""
    return read_file(Path(path))


def teardown_target(path: str) -> list[str]:
    """Remove the state of a pipeline from a file; its tables stay. Says what was removed."""
    file = Path(path)
    if not file.exists():
        return []
    connection = open_file(file, 64 << 20)
    try:
        with mapped_errors(file):
            return [f"schema {SCHEMA} in {file}"] if drop(connection) else []
    finally:
        connection.close()


def target_factory(path: str, *, memory: int) -> Callable[[], DuckDbTarget]:
    """What opens the target."""
    return lambda: DuckDbTarget(Path(path), memory)
