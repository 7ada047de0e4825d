"""Tables that come into the selection and leave it while the pipeline follows the log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from cdc.config import Options, make_observer, open_pipeline, target_module
from integration.conftest import Database, MySqlDatabase, Replica, make_replica


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


class Writer(threading.Thread):
    """Changes rows of some tables, for as long as it is not told to stop."""

    def __init__(self, database: Database | MySqlDatabase, *tables: str) -> None:
        super().__init__()
        self._database = database
        self._tables = tables
        self._stop_asked = threading.Event()
        self.rounds = 0

    def run(self) -> None:
        with self._database.connect() as connection, connection.cursor() as cursor:
            while not self._stop_asked.is_set():
                number = self.rounds % 300
                for table in self._tables:
                    cursor.execute(f"UPDATE {table} SET v = v + 1 WHERE id = {number}")
                    cursor.execute(f"UPDATE {table} SET id = id + 100000 WHERE id = {number + 300}")
                    cursor.execute(f"INSERT INTO {table} VALUES ({-self.rounds - 1}, 0)")
                    cursor.execute(f"DELETE FROM {table} WHERE id = {-self.rounds + 50}")
                connection.commit()
                self.rounds += 1

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()


def fill(database: Database | MySqlDatabase, table: str) -> None:
    database.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v int)")
    rows = ", ".join(f"({number}, {number})" for number in range(600))
    database.execute(f"INSERT INTO {table} VALUES {rows}")


def test_a_table_that_comes_while_others_are_followed(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """C-07, C-03: it is copied under load, with changes of its keys, while the other one goes on; both are equal then."""
    fill(anywhere, "a")
    replica = make_replica(anywhere, tmp_path)
    replica.catch_up()
    pipeline = open_pipeline(anywhere.dsn, replica.target, without_end(replica))
    name = "public.b" if isinstance(anywhere, Database) else f"{anywhere.name}.b"

    def meanwhile(thread: threading.Thread) -> None:
        wait_until(lambda: pipeline.view().phase == "streaming")
        fill(anywhere, "b")
        writer = Writer(anywhere, "a", "b")
        writer.start()
        wait_until(lambda: any(str(table) == name for table in pipeline.view().tables))
        wait_until(lambda: not pipeline.copying)
        before = pipeline.view().rows_applied
        wait_until(lambda: pipeline.view().rows_applied > before)
        writer.stop()
        assert thread.is_alive()

    pipeline.run_beside(meanwhile)
    replica.catch_up()
    replica.assert_equal()


def without_end(replica: Replica) -> Options:
    return replace(replica.options, until_caught_up=False)


def test_a_transaction_that_is_older_than_the_publication(database: Database, tmp_path: Path) -> None:
    """A-34: what it did to the table is not sent, so that the copy waits until it has ended; the others do not."""
    fill(database, "a")
    replica = make_replica(database, tmp_path)
    replica.catch_up()
    pipeline = open_pipeline(database.dsn, replica.target, without_end(replica))

    def meanwhile(_: threading.Thread) -> None:
        wait_until(lambda: pipeline.view().phase == "streaming")
        fill(database, "b")
        with database.connect() as connection:
            connection.execute("BEGIN; UPDATE b SET v = -1 WHERE id < 10; INSERT INTO b VALUES (-1, -1)")
            wait_until(lambda: published(database, replica))
            before = pipeline.view().rows_applied
            database.execute("UPDATE a SET v = 0 WHERE id < 10")
            wait_until(lambda: pipeline.view().rows_applied >= before + 10)
            assert not pipeline.copying
            assert not any(table.name == "b" for table in pipeline.view().tables)
            connection.execute("COMMIT")
        wait_until(lambda: any(table.name == "b" for table in pipeline.view().tables))
        wait_until(lambda: not pipeline.copying)

    pipeline.run_beside(meanwhile)
    replica.catch_up()
    replica.assert_equal()


def test_a_run_that_begins_while_a_table_waits(database: Database, tmp_path: Path) -> None:
    """A-34, C-07: with an old transaction open, the other tables are followed; the new one comes when it has ended."""
    fill(database, "a")
    replica = make_replica(database, tmp_path)
    replica.catch_up()
    fill(database, "b")
    entries = "SELECT state FROM _cdc.checkpoint"
    with database.connect() as connection:
        connection.execute("BEGIN; UPDATE b SET v = -1 WHERE id < 10")
        first = open_pipeline(database.dsn, replica.target, without_end(replica))
        # Published, and in the checkpoint: what remains is to wait for the transaction.
        first.run_beside(lambda _: wait_until(lambda: published(database, replica) and first.view().lag_bytes == 0))
        assert '"b"' in str(replica.query(entries))
        second = open_pipeline(database.dsn, replica.target, without_end(replica))

        def meanwhile(_: threading.Thread) -> None:
            wait_until(lambda: second.view().phase == "streaming")
            database.execute("UPDATE a SET v = 0 WHERE id < 10")
            wait_until(lambda: second.view().rows_applied >= 10)
            assert not any(
                table.name == "b" for table in second.view().tables if second.view().tables[table].rows_copied
            )
            connection.execute("COMMIT")
            wait_until(lambda: any(table.name == "b" for table in second.view().tables) and not second.copying)

        second.run_beside(meanwhile)
    replica.catch_up()
    replica.assert_equal()


def published(database: Database, replica: Replica) -> bool:
    members = f"SELECT 1 FROM pg_publication_tables WHERE pubname = 'cdc_{replica.options.name}' AND tablename = 'b'"
    return bool(database.execute(members))


def test_killed_while_a_table_comes(database: Database, tmp_path: Path) -> None:
    """C-04, C-07, D-19: with changes of keys meanwhile, of which what is kept in mind is lost; the copy begins again."""
    fill(database, "a")
    replica = make_replica(database, tmp_path)
    replica.catch_up()
    fill(database, "b")
    command = [sys.executable, "-m", "cdc", "run", database.dsn, replica.target, "--name", replica.options.name]
    process = subprocess.Popen(command, env=os.environ | {"CDC_FAULT": "backfill.part"}, stderr=subprocess.PIPE)
    writer = Writer(database, "a", "b")
    writer.start()
    said = process.communicate(timeout=120)[1]
    writer.stop()
    assert process.returncode == -signal.SIGKILL, said
    replica.catch_up()
    replica.assert_equal()


def test_a_table_that_leaves_and_comes_back(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """C-07: it is left as it is, and copied anew when it is selected again, with another shape meanwhile."""
    fill(anywhere, "a")
    fill(anywhere, "b")
    both = make_replica(anywhere, tmp_path)
    both.catch_up()
    one = make_replica(anywhere, tmp_path, "a")
    one.catch_up()
    for statement in ("DELETE FROM b WHERE id > 5", "ALTER TABLE b ADD COLUMN w int"):
        anywhere.execute(statement)
    anywhere.execute("UPDATE a SET v = 7 WHERE id = 7")
    one.catch_up()
    one.assert_equal()
    assert one.query("SELECT count(*) FROM b") == [(600,)]
    module, path = target_module(one.target)
    with closing(make_observer(anywhere.dsn, one.options)) as observer:
        state = module.read_checkpoint(path, one.options.name).state
        assert [schema.table.name for schema in observer.followed(state)] == ["a"]
    both.catch_up()
    both.assert_equal()
