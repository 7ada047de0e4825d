"""How fresh a replica is, by what it says itself: `_cdc.freshness`, in every target that keeps tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from cdc.demo.server import PrivatePostgres
from cdc.errors import TablesHeld
from cdc.options import Options
from cdc.runs import open_pipeline
from cdc.target import Mode
from integration.clickhouse import PrivateClickHouse
from integration.conftest import Database, MySqlDatabase, Replica
from integration.other_duckdb import OtherDuckDb, installed
from integration.processes import cdc

COLUMNS = ["schema_name", "table_name", "state", "reason", "position", "committed_at", "applied_at"]
_MOMENTS = ("committed_at, applied_at", "committed_at::text, applied_at::text")  # without Python's module for zones
QUERY = f"SELECT {', '.join(COLUMNS)} FROM _cdc.freshness ORDER BY schema_name, table_name"
_READER = str(Path(__file__).with_name("lake_reader.py"))

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def copies() -> Iterator[PrivatePostgres]:
    with PrivatePostgres(18) as server:
        yield server


@pytest.fixture(scope="session")
def lakes() -> OtherDuckDb:
    return installed("ducklake.txt")


def run(database: Database | MySqlDatabase, target: str, mode: Mode | None = None) -> None:
    open_pipeline(database.dsn, target, Options(database.name, until_caught_up=True, mode=mode)).run()


def in_duckdb(path: Path) -> Rows:
    """As another program reads it: DuckDB alone, which has the pipeline's file under the name that it likes."""
    with duckdb.connect(str(path), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.execute(QUERY.replace(*_MOMENTS))
        return [_row(row) for row in found.fetchall()]


def in_postgres(dsn: str) -> Rows:
    with psycopg.connect(dsn) as connection:
        return [_row(row) for row in connection.execute(QUERY).fetchall()]


def in_clickhouse(house: PrivateClickHouse, prefix: str) -> Rows:
    return [_row(row) for row in house.rows(QUERY.replace("_cdc.", f"{prefix}__cdc."))]


def _row(values: Any) -> dict[str, Any]:
    return dict(zip(COLUMNS, [*values[:5], *map(_moment, values[5:])], strict=True))


def _moment(value: Any) -> Any:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


def assert_fresh(database: Database | MySqlDatabase, follow: Callable[[], None], look: Callable[[], Rows]) -> None:
    """A copy has no commit yet; a commit has its time and its position, and the same ones for every table."""
    for table in "ab":
        database.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v int)")
        database.execute(f"INSERT INTO {table} VALUES (1, 1)")
    follow()
    assert [(row["table_name"], row["state"], row["reason"]) for row in look()] == [
        ("a", "following", ""),
        ("b", "following", ""),
    ]
    before = datetime.now(UTC) - timedelta(seconds=2)  # MySQL's log has whole seconds
    database.execute("UPDATE a SET v = 2")
    follow()
    rows = look()
    assert len({(row["position"], row["committed_at"], row["applied_at"]) for row in rows}) == 1
    assert before < rows[0]["committed_at"] <= rows[0]["applied_at"] + timedelta(seconds=1)
    assert rows[0]["applied_at"] < datetime.now(UTC) + timedelta(seconds=2)
    assert rows[0]["position"]


@pytest.mark.parametrize("mode", [Mode.MIRROR, Mode.HISTORY, Mode.SOFT_DELETE])
def test_in_duckdb(database: Database, tmp_path: Path, mode: Mode) -> None:
    path = tmp_path / "shop.duckdb"
    assert_fresh(database, lambda: run(database, f"duckdb:{path}", mode), lambda: in_duckdb(path))


def test_from_mysql_and_mariadb(my: MySqlDatabase, tmp_path: Path) -> None:
    path = tmp_path / "shop.duckdb"
    assert_fresh(my, lambda: run(my, f"duckdb:{path}"), lambda: in_duckdb(path))


def test_in_postgres(database: Database, copies: PrivatePostgres) -> None:
    dsn = copies.create_database(f"fresh_{database.name}")
    assert_fresh(database, lambda: run(database, dsn), lambda: in_postgres(dsn))


def test_in_clickhouse(database: Database, house: PrivateClickHouse) -> None:
    assert_fresh(
        database,
        lambda: run(database, house.dsn(database.name)),
        lambda: in_clickhouse(house, database.name),
    )


def test_in_a_lake(database: Database, lakes: OtherDuckDb, tmp_path: Path) -> None:
    address = f"ducklake:{tmp_path / 'catalogue'}"

    def follow() -> None:
        done = lakes.cdc("run", database.dsn, address, "--name", database.name, "--until-caught-up")
        assert done.returncode == 0, done.stderr

    def look() -> Rows:
        _, *rows = lakes.python(_READER, address, "answer", QUERY.replace(*_MOMENTS)).splitlines()
        return [_row(json.loads(row)) for row in rows]

    assert_fresh(database, follow, look)


def test_tables_that_are_not_simply_followed(database: Database, copies: PrivatePostgres, tmp_path: Path) -> None:
    """A table that is held says so with the commit from which its changes are missing, and no more once it is copied
    again; one that the source has dropped says that."""
    dsn = copies.create_database(f"held_{database.name}")
    for table in "abc":
        database.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v int); INSERT INTO {table} VALUES (1, 1)")
    run(database, dsn)
    with psycopg.connect(dsn, autocommit=True) as theirs:
        theirs.execute("ALTER TABLE a RENAME v TO w")
    database.execute("UPDATE a SET v = 2")
    with pytest.raises(TablesHeld):
        run(database, dsn)
    assert [(row["table_name"], row["state"], bool(row["reason"])) for row in in_postgres(dsn)] == [
        ("a", "held", True),
        ("b", "following", False),
        ("c", "following", False),
    ]
    _resync(database, dsn)
    assert {row["state"] for row in in_postgres(dsn)} == {"following"}


def _resync(database: Database, target: str) -> None:
    done = cdc("resync", database.dsn, target, "--name", database.name, "--tables", "public.a")
    assert done.returncode == 0, done.stderr


def test_a_target_of_an_older_version(replica: Replica) -> None:
    """It gets the table when it is opened again, and knows the time of its next commit."""
    replica.database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    replica.catch_up()
    with duckdb.connect(str(replica.path)) as connection:
        connection.execute("DROP VIEW _cdc.freshness")
        connection.execute("DROP TABLE _cdc.apart")
        connection.execute("ALTER TABLE _cdc.checkpoint DROP COLUMN committed_at")
    replica.catch_up()
    assert [row["committed_at"] for row in in_duckdb(replica.path)] == [None]
    replica.database.execute("INSERT INTO t VALUES (1)")
    replica.catch_up()
    assert None not in [row["committed_at"] for row in in_duckdb(replica.path)]
