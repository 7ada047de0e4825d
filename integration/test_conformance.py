"""Targets that need a server or another DuckDB are held to what every target has to do (`cdc.testing.conformance`)."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from cdc.connectors import target_factory
from cdc.demo.server import PrivatePostgres
from cdc.model.schema import TableName, TableSchema
from cdc.options import Options
from cdc.target import Mode, Target
from cdc.targets import postgres as postgres_target
from cdc.testing import conformance
from cdc.testing.conformance import Place, Texts, holding
from integration.other_duckdb import installed
from tests.conformance.places import quoted
from tests.conformance.test_conformance import ROUNDS, some
from tests.seeds import SEED

_numbers = itertools.count(1)
_SPELLED = "-c timezone=UTC -c extra_float_digits=1 -c datestyle=ISO -c intervalstyle=postgres -c bytea_output=hex"
_SOURCES = ("postgresql://source/shop", "mysql://source/shop")  # by which the types of columns are chosen
# PostgreSQL sends no values that its own types refuse: what it sends is integration/test_types.py's.
_OF_VALUES = (holding.holds_values, holding.finds_rows_by_any_key)
POSTGRES = postgres_target.ABILITIES


def database(dsn: str, source: str) -> Place:
    """A database, read through libpq, in the server's own spelling of every value."""

    def make(mode: Mode | None) -> Target:
        return target_factory(source, dsn, Options("conformance", mode=mode))()

    def read(schema: TableSchema) -> list[Texts] | None:
        name = _named(schema.table)
        with psycopg.connect(dsn, options=_SPELLED) as connection:
            live = " WHERE _cdc_deleted_at IS NULL" if "_cdc_deleted_at" in _columns(connection, name) else ""
            return _rows(connection, schema, f"{name}{live}")

    def recall(schema: TableSchema, position: str) -> list[Texts]:
        function = replace(schema.table, name=f"{schema.table.name}_as_of")
        with psycopg.connect(dsn, options=_SPELLED) as connection:
            found = _rows(connection, schema, f"{_named(function)}('{position}')")
            assert found is not None, connection.pgconn.error_message
            return found

    def occupy(table: TableName) -> None:
        with psycopg.connect(dsn) as connection:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(table.schema)}".encode())
            connection.execute(f"CREATE TABLE {_named(table)} (theirs integer)".encode())

    return Place(POSTGRES, make, read, occupy, recall)


def _named(table: TableName) -> str:
    return f"{quoted(table.schema)}.{quoted(table.name)}"


def _rows(connection: psycopg.Connection[tuple[object, ...]], schema: TableSchema, of: str) -> list[Texts] | None:
    """The texts that libpq has of some columns; None if there is no such table."""
    columns = ", ".join(quoted(column.name) for column in schema.columns)
    found = connection.pgconn.exec_(f"SELECT {columns} FROM {of}".encode())
    if found.error_message:
        return None
    return [
        tuple(
            None if (value := found.get_value(row, column)) is None else value.decode()
            for column in range(found.nfields)
        )
        for row in range(found.ntuples)
    ]


def _columns(connection: psycopg.Connection[tuple[object, ...]], name: str) -> list[object]:
    query = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s)"
    return [row[0] for row in connection.execute(query, [name]).fetchall()]


@pytest.mark.parametrize("check", some(conformance.checks(POSTGRES, rounds=ROUNDS, seed=SEED)), ids=str)
def test_postgres(check: conformance.Check, postgres: PrivatePostgres) -> None:
    """D-01, D-05, D-17, A-41, A-46, A-50: with the types of its own, and those that a source of another kind means."""
    sources = _SOURCES if ROUNDS > 1 else _SOURCES[SEED % 2 :][:1]
    if check.body in _OF_VALUES:
        sources = _SOURCES[1:]
    for source in sources:
        check(database(postgres.create_database(f"conformance_{os.getpid()}_{next(_numbers)}"), source))


def test_lake() -> None:
    """D-01, D-05, D-17, A-41, A-46, A-50: DuckLake, in a Python of the DuckDB that has the extension."""
    file = str(Path(__file__).with_name("lake_conformance.py"))
    said = installed("ducklake.txt").python("-m", "pytest", "-q", "--timeout", "600", "-p", "no:cacheprovider", file)
    assert " passed" in said
