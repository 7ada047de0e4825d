"""The oldest DuckDB that the package admits, beside the one that is installed: a target that one has written, continued by
the other."""

from __future__ import annotations

import subprocess
from pathlib import Path

import duckdb
import pytest

from integration import processes
from integration.conftest import Database, make_replica
from integration.other_duckdb import OtherDuckDb, installed
from tests.seeds import one_of

_TABLES = """
CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(10,2), d date, at timestamptz, j jsonb, u uuid, b bytea, i interval,
  a int[], s text[], f double precision, ok boolean);
CREATE TABLE e (id int PRIMARY KEY);
INSERT INTO e VALUES (1)
"""
_ROW = (
    "INSERT INTO t VALUES ({0}, 'é😀', -0.01, '2024-02-29', '2026-01-31 12:00:00.5+02', '{{\"a\": [1, null]}}',"
    " '00112233-4455-6677-8899-aabbccddeeff', '\\x00ff', '1 mon -2 days 03:00:00.000001', '{{1,NULL,3}}', '{{a,\"b,c\"}}',"
    " 0.1, true)"
)


@pytest.fixture(scope="session")
def oldest() -> OtherDuckDb:
    """The oldest DuckDB, made once for all checkouts."""
    return installed("oldest-duckdb.txt")


def cdc(*arguments: str, oldest: OtherDuckDb | None = None) -> subprocess.CompletedProcess[str]:
    """`cdc` with this DuckDB or the other one."""
    return processes.cdc(*arguments) if oldest is None else oldest.cdc(*arguments)


@pytest.mark.parametrize("mode", one_of("mirror", "history", "soft-delete"))
def test_a_target_of_another_duckdb(database: Database, tmp_path: Path, oldest: OtherDuckDb, mode: str) -> None:
    """E-15: made by the older one, continued by the newer one, and by the older one again; all values are the source's."""
    follow_by_turns(database, tmp_path, oldest, mode)


def test_a_file_of_duckdb_1(database: Database, tmp_path: Path, oldest: OtherDuckDb) -> None:
    """E-15: somebody's file, in the format of DuckDB 1, is followed into, and keeps its format and what else is in it."""
    path = tmp_path / f"{database.name}.duckdb"
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"ATTACH '{path}' AS file (STORAGE_VERSION 'v1.0.0')")
        connection.execute("CREATE TABLE file.mine AS SELECT 1 AS one")
    follow_by_turns(database, tmp_path, oldest, "mirror")
    with duckdb.connect(str(path), read_only=True) as connection:
        query = "SELECT tags['storage_version'], one FROM duckdb_databases(), mine WHERE NOT internal"
        assert connection.execute(query).fetchall() == [("v1.0.0+", 1)]


def follow_by_turns(database: Database, folder: Path, oldest: OtherDuckDb, mode: str) -> None:
    """Run four times on one target, by the older DuckDB and by the newer one."""
    database.execute(_TABLES)
    replica = make_replica(database, folder)
    work = [
        [_ROW.format(1), _ROW.format(2)],
        ["UPDATE t SET v = 'x' WHERE id = 1", _ROW.format(3), "TRUNCATE e", "ALTER TABLE t ADD COLUMN w int DEFAULT 7"],
        ["DELETE FROM t WHERE id = 1", "UPDATE t SET n = 'NaN', w = 8 WHERE id = 2", "ALTER TABLE t DROP COLUMN ok"],
        ["UPDATE t SET id = 20 WHERE id = 2", "UPDATE t SET d = NULL", "INSERT INTO e VALUES (2)"],
    ]
    for number, statements in enumerate(work):
        for statement in statements:
            database.execute(statement)
        by = oldest if number % 2 == 0 else None
        options = ("--name", database.name, "--mode", mode, "--until-caught-up")
        done = cdc("run", database.dsn, replica.target, *options, oldest=by)
        assert done.returncode == 0, done.stderr
        replica.assert_equal()
    verified = cdc("verify", database.dsn, replica.target, "--name", database.name, oldest=oldest)
    assert verified.returncode == 0, verified.stderr
    if mode == "history":
        asked = ("history", replica.target, "t", "20", "--json")
        assert cdc(*asked).stdout == cdc(*asked, oldest=oldest).stdout != ""


def test_it_is_another_duckdb(oldest: OtherDuckDb) -> None:
    """E-15: what is said to run on the older one does."""
    said = oldest.python("-c", "import duckdb; print(duckdb.__version__)")
    assert said.strip() == oldest.version != duckdb.__version__
