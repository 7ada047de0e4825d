"""ClickHouse is held to what every target of tables has to do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from cdc.connectors import target_factory
from cdc.model.schema import TableName
from cdc.options import Options
from cdc.target import Mode, Target
from cdc.targets.clickhouse import ABILITIES
from cdc.targets.clickhouse.store import quoted
from cdc.testing import conformance
from integration.clickhouse import PrivateClickHouse
from tests.conformance.test_conformance import ROUNDS, some
from tests.seeds import SEED

_numbers = count()


@pytest.fixture(scope="module")
def house() -> Iterator[PrivateClickHouse]:
    with PrivateClickHouse() as server:
        yield server


@pytest.mark.parametrize("check", some(conformance.checks(ABILITIES, rounds=ROUNDS, seed=SEED)), ids=str)
def test_clickhouse(check: conformance.Check, house: PrivateClickHouse) -> None:
    prefix = f"place{next(_numbers)}"
    dsn = house.dsn(prefix)

    def occupy(table: TableName) -> None:
        database = quoted(f"{prefix}_{table.schema}")
        house.rows(f"CREATE DATABASE IF NOT EXISTS {database}")
        house.rows(f"CREATE TABLE {database}.{quoted(table.name)} (theirs Int32) ENGINE = Memory")

    def make(mode: Mode | None) -> Target:
        return target_factory("postgresql://source/shop", dsn, Options("conformance", mode=mode))()

    check(conformance.Place(ABILITIES, make, None, occupy))
