"""Reading what one has just written: `cdc wait`, and `Replica.wait_for` in programs."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

import cdc as program
from cdc.demo.server import PrivatePostgres
from cdc.errors import NotReached, UsageError
from integration.conftest import Database, MySqlDatabase, Replica, make_replica
from integration.processes import Process, cdc, start
from integration.test_backup import status

# As docs/reading.md tells applications to ask, after their commit and in the same session.
RECIPES = {
    "postgres": "SELECT pg_current_wal_lsn()::text",
    "mysql": "SELECT @@global.gtid_executed",
    "mariadb": "SELECT @@last_gtid",
}
NEVER = {"postgres": "FFFFFF/0", "mysql": "3e11fa47-71ca-11e1-9e33-c80aa9429562:7", "mariadb": "0-1-999999999"}


def kind_of(database: Database | MySqlDatabase) -> str:
    return database.flavor if isinstance(database, MySqlDatabase) else "postgres"


def written(database: Database | MySqlDatabase, number: int) -> str:
    """Commit a row, and the position that the application has for it."""
    with database.connect() as session, session.cursor() as cursor:
        for statement in ("BEGIN", f"INSERT INTO t VALUES ({number})", "COMMIT"):
            cursor.execute(statement)
        cursor.execute(RECIPES[kind_of(database)])
        ((position,),) = cursor.fetchall()
        return str(position)


@contextmanager
def running(replica: Replica, *options: str) -> Iterator[Process]:
    process = start("run", replica.database.dsn, replica.target, "--name", replica.options.name, *options)
    until = time.monotonic() + 30
    while '"phase":"streaming"' not in status(replica):
        assert time.monotonic() < until, process.poll()
        time.sleep(0.1)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(30)


def waited(replica: Replica, *options: str) -> Any:
    return cdc("wait", replica.database.dsn, replica.target, "--name", replica.options.name, *options)


def rows_of(file: Path, schema: str) -> set[int]:
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{file}' AS copy (READ_ONLY)")
        return {row[0] for row in connection.execute(f"SELECT id FROM copy.{schema}.t").fetchall()}


def test_a_program_reads_what_it_has_written(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """By the position that the server gave it: in the copy that others read, and, once nobody runs it, in the file."""
    anywhere.execute("CREATE TABLE t (id int PRIMARY KEY)")
    replica, file = make_replica(anywhere, tmp_path), tmp_path / "read.duckdb"
    schema = anywhere.name if isinstance(anywhere, MySqlDatabase) else "public"
    reader = program.Replica(replica.target)
    with running(replica, "--publish", str(file), "--publish-every", "0.2s") as process:
        for number in range(4):
            position = written(anywhere, number)
            reader.wait_for(position, 30)
            reader.wait_for(position, 30, published=True)
            assert number in rows_of(file, schema)
        done = waited(replica)
        assert done.returncode == 0, done.stderr
        # Nothing that is followed lies between, so that the log alone moves on.
        began = time.monotonic()
        elsewhere(anywhere)
        done = waited(replica, "--timeout", "8s")
        assert done.returncode == 0, done.stderr
        assert time.monotonic() - began < 8
        done = waited(replica, "--for", NEVER[kind_of(anywhere)], "--timeout", "0.5s")
        assert done.returncode == 1
        assert "has not reached" in done.stderr
        assert "it is at" in done.stderr
        done = waited(replica, "--for", "nonsense")
        assert done.returncode == 2, done.stderr
        done = waited(replica, "--published", "--timeout", "20s")
        assert done.returncode == 0, done.stderr
        position = written(anywhere, 10)
        reader.wait_for(position, 30)
        process.send_signal(signal.SIGSTOP)  # a process that hangs does not answer, and is not waited for any longer
        with pytest.raises(NotReached):
            reader.wait_for(NEVER[kind_of(anywhere)], 0.5)
    assert reader.wait_for(position, 0)
    assert 10 in rows_of(replica.path, schema)
    position = written(anywhere, 11)
    began = time.monotonic()
    for is_published in (False, True):
        with pytest.raises(NotReached, match="no process runs"):
            reader.wait_for(position, 60, published=is_published)
    done = waited(replica, "--for", position)
    assert done.returncode == 1
    assert "no process runs its pipeline" in done.stderr
    assert time.monotonic() - began < 20
    replica.catch_up()
    assert waited(replica).returncode == 0


def elsewhere(database: Database | MySqlDatabase) -> None:
    """Something that the pipeline does not follow."""
    if isinstance(database, MySqlDatabase):
        database.execute("CREATE DATABASE IF NOT EXISTS elsewhere", "CREATE TABLE IF NOT EXISTS elsewhere.x (a int)")
        database.execute("INSERT INTO elsewhere.x VALUES (1)")
    else:
        database.execute("CREATE TEMPORARY TABLE x (a int); INSERT INTO x SELECT generate_series(1, 1000)")


def test_a_file_and_a_byte(my: MySqlDatabase, tmp_path: Path) -> None:
    """As SHOW BINARY LOG STATUS has it, whether the server has GTIDs or not; a file of another name is of another server."""
    my.execute("CREATE TABLE t (id int PRIMARY KEY)")
    replica = make_replica(my, tmp_path)
    replica.catch_up()
    reader = program.Replica(replica.target)
    ((file, offset, *_),) = my.execute("SHOW MASTER STATUS" if my.flavor == "mariadb" else "SHOW BINARY LOG STATUS")
    assert reader.wait_for(f"{file}:{offset}", 0)
    my.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(NotReached):
        reader.wait_for(f"{file}:{offset + 1}", 0)
    with pytest.raises(UsageError, match="whose name is not that of the log"):
        reader.wait_for("other.000001:4", 0)
    with pytest.raises(UsageError, match="not a position"):
        reader.wait_for("0/16B3748", 0)


def test_a_target_that_a_journal_feeds(database: Database, tmp_path: Path) -> None:
    """Positions in a journal are the source's."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    replica = make_replica(database, tmp_path)
    ends = ("run", database.dsn, "--journal", str(tmp_path / "journal"), "--to", replica.target)
    process = start(*ends, "--name", replica.options.name)
    try:
        until = time.monotonic() + 30
        while not Path(f"{replica.path}.cdc.json").exists():
            assert time.monotonic() < until
            time.sleep(0.1)
        position = written(database, 1)
        done = waited(replica, "--for", position)
        assert done.returncode == 0, done.stderr
        done = waited(replica)
        assert done.returncode == 0, done.stderr
    finally:
        process.terminate()
        assert process.wait(30) == 0
    assert rows_of(replica.path, "public") == {1}
    assert program.Replica(replica.target).wait_for(position, 0)


def test_a_server_as_a_target(database: Database, copies: PrivatePostgres) -> None:
    """It can be read while it is written, so that nothing but the position says what is there: while the pipeline runs,
    and by what the server has, whichever machine runs it."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    target = copies.create_database(f"wait_{database.name}")
    process = start("run", database.dsn, target, "--name", database.name)
    reader = program.Replica(target, name=database.name)
    try:
        for number in range(3):
            reader.wait_for(written(database, number), 40)
            with psycopg.connect(target) as session:
                assert number in {row[0] for row in session.execute("SELECT id FROM t").fetchall()}
    finally:
        process.terminate()
        assert process.wait(30) == 0
    position = written(database, 9)
    with pytest.raises(NotReached, match="has not reached"):
        reader.wait_for(position, 0.3)


def test_no_copy_is_published(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    replica = make_replica(database, tmp_path)
    replica.catch_up()
    done = waited(replica, "--published")
    assert done.returncode == 2
    assert "publishes no copy" in done.stderr
