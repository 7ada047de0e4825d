"""Places of this program's targets, each with a reader that shares no code with it."""

from __future__ import annotations

from pathlib import Path

import duckdb

from cdc.model.schema import TableName, TableSchema
from cdc.target import Mode, TargetAbilities
from cdc.targets.duckdb.target import DuckDbTarget
from cdc.testing import MemoryTarget
from cdc.testing.conformance import Place, Texts
from tests.conformance.spelling import asked, speller

_MEMORY = 128 << 20
MEMORY = TargetAbilities("memory", "tables", modes=(Mode.MIRROR,), keyless=(Mode.MIRROR,), is_durable=False)


def memory() -> Place:
    """A target in memory, which is the same one however often it is opened."""
    target = MemoryTarget()

    def make(mode: Mode | None) -> MemoryTarget:
        MEMORY.refuse_mode(mode)
        return target

    def read(schema: TableSchema) -> list[Texts] | None:
        table = target.tables.get(schema.identity)
        return table.rows() if table is not None else None

    return Place(MEMORY, make, read)


def duckdb_file(folder: Path, abilities: TargetAbilities) -> Place:
    """A file, read by DuckDB and spelled by Python."""
    path = folder / "conformance_target.duckdb"

    def read(schema: TableSchema) -> list[Texts] | None:
        with duckdb.connect(str(path), read_only=True) as connection:
            return duckdb_rows(connection, schema)

    def occupy(table: TableName) -> None:
        with duckdb.connect(str(path)) as connection:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(table.schema)}")
            connection.execute(f"CREATE TABLE {quoted(table.schema)}.{quoted(table.name)} (theirs INTEGER)")

    def read_as_of(schema: TableSchema, position: str) -> list[Texts]:
        with duckdb.connect(str(path), read_only=True) as connection:
            return duckdb_rows(connection, schema, position) or []

    return Place(abilities, lambda mode: DuckDbTarget(path, _MEMORY, mode), read, occupy, read_as_of)


def duckdb_rows(
    connection: duckdb.DuckDBPyConnection, schema: TableSchema, position: str | None = None
) -> list[Texts] | None:
    """The rows of a table as they are now, or were at a position; deleted ones, which a soft delete keeps, are none of
    them."""
    connection.execute("SET TimeZone = 'UTC'")
    name = f"{quoted(schema.table.schema)}.{quoted(schema.table.name)}"
    try:
        described = dict(row[:2] for row in connection.execute(f"DESCRIBE {name}").fetchall())
    except duckdb.CatalogException:
        return None
    kinds = [described[column.name] for column in schema.columns]
    columns = [asked(quoted(column.name), kind) for column, kind in zip(schema.columns, kinds, strict=True)]
    spellers = [speller(kind) for kind in kinds]
    live = "WHERE _cdc_deleted_at IS NULL" if "_cdc_deleted_at" in described else ""
    if position is not None:
        name = f"{quoted(schema.table.schema)}.{quoted(f'{schema.table.name}_as_of')}('{position}')"
    rows = connection.execute(f"SELECT {', '.join(columns)} FROM {name} {live}").fetchall()
    return [tuple(spell(value) for spell, value in zip(spellers, row, strict=True)) for row in rows]


def quoted(name: str) -> str:
    """A name as it stands in a statement."""
    return '"' + name.replace('"', '""') + '"'
