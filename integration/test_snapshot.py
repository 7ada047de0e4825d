"""The copy: in parallel, under load, and where tables change under its hands."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cdc.demo.shop import Workload, create
from cdc.model.segment import Segment
from cdc.options import Options
from cdc.source import Link
from cdc.sources.postgres import copy as copying
from cdc.sources.postgres.source import PostgresSource
from integration.conftest import Database, Replica, make_replica


def test_parallel_readers_share_the_snapshot_under_load(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C-01, C-02, C-03: many small pieces, read by several sessions while rows come, go and change their keys."""
    monkeypatch.setattr(copying, "CHUNK_PAGES", 2)
    monkeypatch.setattr(copying, "BATCH_BYTES", 2000)
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        create(connection, customers=20000)
    workload = Workload(database.dsn, rate=3000)
    workload.start()
    replica = make_replica(database, tmp_path, workers=4)
    replica.catch_up()
    workload.stop()
    assert workload.changes > 100
    replica.catch_up()
    replica.assert_equal()


def test_the_copy_alone_is_one_moment(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C-02: two tables whose sum never changes have that sum in the copy, whatever session read which piece."""
    monkeypatch.setattr(copying, "CHUNK_PAGES", 1)
    database.execute("CREATE TABLE a (id int PRIMARY KEY, v int); CREATE TABLE b (id int PRIMARY KEY, v int)")
    database.execute(
        "INSERT INTO a SELECT i, 10 FROM generate_series(1, 20000) i; INSERT INTO b SELECT i, 10 FROM generate_series(1, 20000) i"
    )
    stop = threading.Event()

    def move() -> None:
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            number = 0
            while not stop.is_set():
                number = number % 20000 + 1
                with connection.transaction():
                    connection.execute("UPDATE a SET v = v - 1 WHERE id = %s", (number,))
                    connection.execute("UPDATE b SET v = v + 1 WHERE id = %s", (20001 - number,))

    def no_stream(self: PostgresSource, link: Link) -> Iterator[Segment]:
        return iter(())

    monkeypatch.setattr(PostgresSource, "stream", no_stream)
    mover = threading.Thread(target=move)
    mover.start()
    replica = make_replica(database, tmp_path, workers=4)
    replica.options = Options(name=database.name, workers=4)
    try:
        replica.catch_up()
    finally:
        stop.set()
        mover.join()
    assert replica.query("SELECT (SELECT sum(v) FROM a) + (SELECT sum(v) FROM b)") == [(400000,)]


@pytest.mark.parametrize(
    "change",
    [
        "TRUNCATE t; INSERT INTO t SELECT i, 'new' FROM generate_series(1, 50) i",
        "ALTER TABLE t ADD COLUMN w int DEFAULT 3",
        "ALTER TABLE t RENAME v TO w",
        "ALTER TABLE t DROP COLUMN v; ALTER TABLE t ADD COLUMN v int",
        "ALTER TABLE t ALTER v TYPE varchar USING v || '!'",
        "VACUUM FULL t",
    ],
)
def test_a_table_that_changes_while_it_is_copied(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """C-08: after the snapshot was taken, before the rows are read; it is copied again, and never in mixed shapes."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY)")
    database.execute("INSERT INTO t SELECT i, 'old' FROM generate_series(1, 1000) i; INSERT INTO u VALUES (1)")
    read = copying.SnapshotReader.read
    done: list[bool] = []

    def change_first(self: object, *arguments: object) -> object:
        if not done:
            done.append(True)
            with psycopg.connect(database.dsn, autocommit=True) as connection:
                for statement in change.split("; "):
                    connection.execute(statement.encode())
        return read(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(copying.SnapshotReader, "read", change_first)
    replica = make_replica(database, tmp_path)
    replica.catch_up()
    database.execute("INSERT INTO t (id) VALUES (5000); INSERT INTO u VALUES (2)")
    replica.catch_up()
    replica.assert_equal()


def test_nothing_is_copied_twice(database: Database, replica: Replica) -> None:
    """C-12: after the copy the tables are not read any more; a role that may not read them can go on."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT i FROM generate_series(1, 100) i")
    replica.catch_up()
    seen = database.execute(
        "SELECT pg_stat_force_next_flush(), seq_scan + coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = 't'"
    )
    database.execute("INSERT INTO t VALUES (1000)")
    replica.catch_up()
    again = database.execute(
        "SELECT pg_stat_force_next_flush(), seq_scan + coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = 't'"
    )
    assert seen[0][1] == again[0][1]
    replica.assert_equal()


def test_inherited_tables_are_tables_of_their_own(database: Database, replica: Replica) -> None:
    """C-09: a parent's copy has the parent's rows only."""
    database.execute(
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (extra text, PRIMARY KEY (id)) INHERITS (parent); "
        "INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 'x')"
    )
    replica.catch_up()
    assert replica.query("SELECT id FROM parent") == [(1,)]
    assert replica.query("SELECT id FROM child") == [(2,)]
    database.execute("INSERT INTO parent VALUES (3); INSERT INTO child VALUES (4)")
    replica.catch_up()
    assert replica.query("SELECT id FROM parent ORDER BY 1") == [(1,), (3,)]
    assert replica.query("SELECT id FROM child ORDER BY 1") == [(2,), (4,)]


def test_many_columns(database: Database, replica: Replica) -> None:
    """C-09: as many as PostgreSQL allows."""
    columns = ", ".join(f"c{i} int" for i in range(1599))
    database.execute(f"CREATE TABLE wide (id int PRIMARY KEY, {columns}); INSERT INTO wide (id, c5) VALUES (1, 5)")
    replica.catch_up()
    database.execute("INSERT INTO wide (id, c1598) VALUES (2, 7); UPDATE wide SET c0 = 1 WHERE id = 1")
    replica.catch_up()
    assert replica.query("SELECT id, c0, c5, c1598 FROM wide ORDER BY id") == [(1, 1, 5, None), (2, None, None, 7)]
