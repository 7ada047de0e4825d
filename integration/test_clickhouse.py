"""ClickHouse as a target: the views are the source's tables, value by value.

What is compared are the values that psycopg and pymysql read from the source, and ClickHouse's own client from the
target. The server is ClickHouse's engine behind its HTTP interface; what that leaves out is in docs/clickhouse.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
import pytest

from cdc.errors import TargetBusy, UsageError
from cdc.options import Options
from cdc.runs import open_pipeline
from cdc.target import Mode
from integration.clickhouse import PrivateClickHouse
from integration.conftest import Database
from integration.processes import cdc, start

_TYPES = (
    "CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(10,2), d date, at timestamptz, l timestamp, u uuid, b bytea, "
    "f double precision, r real, ok boolean, s smallint, g bigint, big text)",
    "ALTER TABLE t ALTER big SET STORAGE EXTERNAL",
    "INSERT INTO t SELECT i, E'\"v,\\n\\t' || i, i * 1.5, '2024-02-29', now(), '2024-02-29 12:00:00.000001', "
    "gen_random_uuid(), '\\x00ff', 0.1, 1.1, true, -7, 1 << 40, repeat('x', 9000) FROM generate_series(1, 300) i",
    "INSERT INTO t (id, d, n, f, at, v) VALUES (9001, '1900-01-01', -0.01, 'Infinity', '1970-01-01', ''), "
    "(9002, NULL, NULL, '-0', NULL, NULL)",
)
# Bytes and 32-bit floats, which the two clients show in their own ways.
_THEIRS = {"t": "* REPLACE (lower(hex(b)) AS b)"}
_OURS = {"t": "id, v, n, d, at, l, u, encode(b, 'hex') AS b, f, r::float8, ok, s, g, big"}


@pytest.fixture(scope="module")
def house() -> Iterator[PrivateClickHouse]:
    with PrivateClickHouse() as server:
        yield server


class Copy:
    """A database, and the databases that it is copied to."""

    def __init__(self, source: Database, house: PrivateClickHouse) -> None:
        self.source, self.name, self.house = source, source.name, house
        self.target = house.dsn(source.name)

    def run(self, mode: Mode | None = None) -> None:
        open_pipeline(self.source.dsn, self.target, Options(self.name, until_caught_up=True, mode=mode)).run()

    def verify(self) -> None:
        done = cdc("verify", self.source.dsn, self.target, "--name", self.name)
        assert done.returncode == 0, done.stdout + done.stderr

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query answers in which `{}` stands before the name of a database."""
        return self.house.rows(query.format(f"{self.name}_"))

    def assert_equal(self, *tables: str) -> None:
        """Every row of the source, and no other."""
        for table in tables:
            schema, _, name = table.rpartition(".")
            theirs = self.rows(f"SELECT {_THEIRS.get(name, '*')} FROM `{{}}{schema or 'public'}`.`{name}` ORDER BY 1")
            with psycopg.connect(self.source.dsn, options="-c timezone=UTC") as connection:
                ours = connection.execute(f"SELECT {_OURS.get(name, '*')} FROM {table} ORDER BY 1".encode()).fetchall()
            assert theirs == [tuple(map(_plain, row)) for row in ours], table


def _plain(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


def execute(database: Database, *statements: str) -> None:
    for statement in statements:
        database.execute(statement)


def test_types_and_shapes(database: Database, house: PrivateClickHouse) -> None:
    """A-41, A-50, A-70: keys that move, values that the log leaves out, and shapes that change."""
    copy = Copy(database, house)
    execute(database, *_TYPES)
    copy.run()
    copy.assert_equal("t")
    execute(
        database,
        "UPDATE t SET v = 'new' WHERE id < 50",
        "UPDATE t SET id = -id WHERE id % 7 = 0",
        "DELETE FROM t WHERE id BETWEEN 100 AND 120",
    )
    copy.run()
    copy.assert_equal("t")
    copy.verify()
