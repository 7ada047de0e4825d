"""DuckLake is held to what every target has to do, by a Python that has a DuckDB with the extension: see
`integration/test_conformance.py`, which starts it."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from cdc.connectors import target_factory
from cdc.model.schema import TableName, TableSchema
from cdc.options import Options
from cdc.target import Mode, Target
from cdc.targets.ducklake import ABILITIES
from cdc.testing import conformance
from cdc.testing.conformance import Place, Texts
from integration.lake_reader import attached
from tests.conformance.places import duckdb_rows, quoted
from tests.conformance.test_conformance import ROUNDS
from tests.seeds import SEED


def lake(folder: Path) -> Place:
    """A lake whose catalogue is a file, read by DuckDB and spelled by Python."""
    address = f"ducklake:{folder / 'catalogue'}"

    def make(mode: Mode | None) -> Target:
        return target_factory("postgresql://source/shop", address, Options("conformance", mode=mode))()

    def read(schema: TableSchema) -> list[Texts] | None:
        with attached(address) as connection:
            return duckdb_rows(connection, schema)

    def recall(schema: TableSchema, position: str) -> list[Texts]:
        with attached(address) as connection:
            return duckdb_rows(connection, schema, position) or []

    def occupy(table: TableName) -> None:
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH '{address}' AS lake (DATA_PATH '{folder / 'catalogue.files'}/')")
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS lake.{quoted(table.schema)}")
            connection.execute(f"CREATE TABLE lake.{quoted(table.schema)}.{quoted(table.name)} (theirs INTEGER)")

    return Place(ABILITIES, make, read, occupy, recall)


CHECKS = conformance.checks(ABILITIES, rounds=ROUNDS, seed=SEED)


@pytest.mark.parametrize("check", CHECKS if ROUNDS > 1 else CHECKS[SEED % 12 :: 12], ids=str)  # a lake takes its time
def test_lake(check: conformance.Check, tmp_path: Path) -> None:
    check(lake(tmp_path))
