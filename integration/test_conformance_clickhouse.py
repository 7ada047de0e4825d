"""ClickHouse is held to what every target of tables has to do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import count
from typing import Any

import pytest

from cdc.connectors import target_factory
from cdc.model.schema import Kind, TableName, TableSchema
from cdc.options import Options
from cdc.target import Mode, Target
from cdc.targets.clickhouse import ABILITIES
from cdc.targets.clickhouse.spelling import literal, quoted
from cdc.testing import conformance
from integration.clickhouse import PrivateClickHouse
from tests.conformance.spelling import double, single
from tests.seeds import SEED

ROUNDS = int(os.environ.get("CDC_CONFORMANCE_ROUNDS", "1"))
_numbers = count()
_ALWAYS = {"survives_being_killed", "holds_values"}


def some(checks: list[conformance.Check]) -> list[conformance.Check]:
    """In the short form every sixteenth check, which each commit chooses, and always those that find most."""
    return [
        check
        for number, check in enumerate(checks)
        if ROUNDS > 1 or (number + SEED) % 16 == 0 or (check.mode is Mode.MIRROR and check.body.__name__ in _ALWAYS)
    ]


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

    def read(schema: TableSchema) -> list[conformance.Texts] | None:
        return rows_of(house, f"{prefix}_{schema.table.schema}", schema)

    def recall(schema: TableSchema, position: str) -> list[conformance.Texts]:
        return rows_of(house, f"{prefix}_{schema.table.schema}", schema, position) or []

    check(conformance.Place(ABILITIES, make, read, occupy, recall))


def rows_of(
    house: PrivateClickHouse, database: str, schema: TableSchema, position: str | None = None
) -> list[conformance.Texts] | None:
    """The rows of a view as they are now, or were at a position, spelled by Python."""
    at = f"database = {literal(database)} AND table = {literal(schema.table.name)}"
    kinds = dict(house.rows(f"SELECT name, type FROM system.columns WHERE {at}"))
    if not kinds:
        return None
    found = {
        name: kind.removeprefix("Nullable(").removesuffix(")") if "Nullable" in kind else kind
        for name, kind in kinds.items()
    }
    listed = [asked(quoted(column.name), found[column.name], column.type.kind) for column in schema.columns]
    live = "WHERE _cdc_deleted_at IS NULL" if "_cdc_deleted_at" in kinds else ""
    view = quoted(schema.table.name)
    if position is not None:
        view = f"{quoted(f'{schema.table.name}_as_of')}(at = {literal(position)})"
    rows = house.rows(f"SELECT {', '.join(listed)} FROM {quoted(database)}.{view} {live}")
    spellers = [speller(found[column.name], column.type.kind) for column in schema.columns]
    return [
        tuple(None if value is None else spell(value) for spell, value in zip(spellers, row, strict=True))
        for row in rows
    ]


def asked(column: str, kind: str, means: Kind) -> str:
    """What to ask for, of a column of a type."""
    if kind.startswith("Float"):
        return column
    return f"hex({column})" if means is Kind.BYTES else f"toString({column})"


def speller(kind: str, means: Kind) -> Callable[[Any], str]:
    """What makes the source's text of what ClickHouse answers."""
    if kind.startswith("Float"):
        return single if kind == "Float32" else double
    if kind == "Bool":
        return lambda value: value[0]
    if kind.startswith("Decimal"):
        scale = int(kind.rpartition(", ")[2].rstrip(")"))
        return lambda value: f"{Decimal(value):.{scale}f}"
    if kind.startswith("DateTime64"):
        return lambda value: value.rstrip("0").rstrip(".") + ("+00" if means is Kind.TIMESTAMPTZ else "")
    return (lambda value: f"\\x{value.lower()}") if means is Kind.BYTES else str
