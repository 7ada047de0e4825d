"""ClickHouse is held to what every target of tables has to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count

import pytest

from cdc.model.schema import TableName
from cdc.target import Mode, TargetAbilities, TargetSettings
from cdc.targets.clickhouse import target_factory
from cdc.targets.clickhouse.store import quoted
from cdc.testing import conformance
from integration.clickhouse import PrivateClickHouse
from tests.seeds import SEED

ROUNDS = int(os.environ.get("CDC_CONFORMANCE_ROUNDS", "1"))
ABILITIES = TargetAbilities(
    "ClickHouse", "tables", (Mode.MIRROR, Mode.SOFT_DELETE), compares=True, is_atomic=False, notices_drift=False
)
_numbers = count()


@pytest.fixture(scope="module")
def house() -> Iterator[PrivateClickHouse]:
    with PrivateClickHouse() as server:
        yield server


@pytest.mark.parametrize("check", conformance.checks(ABILITIES, rounds=ROUNDS, seed=SEED), ids=str)
def test_clickhouse(check: conformance.Check, house: PrivateClickHouse) -> None:
    prefix = f"place{next(_numbers)}"
    place = house.dsn(prefix).removeprefix("clickhouse:")

    def occupy(table: TableName) -> None:
        database = quoted(f"{prefix}_{table.schema}")
        house.rows(f"CREATE DATABASE IF NOT EXISTS {database}")
        house.rows(f"CREATE TABLE {database}.{quoted(table.name)} (theirs Int32) ENGINE = Memory")

    def make(mode: Mode | None):
        return target_factory(place, TargetSettings("conformance", "postgresql", 128 << 20, mode=mode))()

    check(conformance.Place(ABILITIES, make, None, occupy))
