"""Tables that come into the selection and leave it while the pipeline follows the log."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cdc.connectors import make_observer, target_module
from cdc.engine.pipeline import Pipeline
from cdc.model.standing import State
from cdc.options import Options
from cdc.runs import open_pipeline
from integration.conftest import Database, MySqlDatabase, Replica, make_replica
from integration.processes import cdc
from integration.test_kill import start


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


class Writer(threading.Thread):
    """Changes rows of some tables, until it is asked to stop."""

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

    def state_of(name: str) -> State:
        return next(entry.state for table, entry in pipeline.view().tables.items() if table.name == name)

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
            assert state_of("b") is State.COPYING  # it is about to be
            connection.execute("COMMIT")
        wait_until(lambda: state_of("b") is State.FOLLOWING)

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
        first.run_beside(lambda _: wait_until(lambda: published(database, replica) and '"b"' in state_of(first)))
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


def state_of(pipeline: Pipeline) -> str:
    """The source's state in the checkpoint of a pipeline that runs."""
    return pipeline.errand(lambda stage: stage.checkpoint.state if stage.checkpoint is not None else "", patience=60)


def published(database: Database, replica: Replica) -> bool:
    members = f"SELECT 1 FROM pg_publication_tables WHERE pubname = 'cdc_{replica.options.name}' AND tablename = 'b'"
    return bool(database.execute(members))


def test_killed_while_a_table_comes(database: Database, tmp_path: Path) -> None:
    """C-04, C-07, D-19: with changes of keys meanwhile, of which what is kept in mind is lost; the copy begins again."""
    fill(database, "a")
    replica = make_replica(database, tmp_path)
    replica.catch_up()
    fill(database, "b")
    process = start(replica, "backfill.part")
    writer = Writer(database, "a", "b")
    writer.start()
    said = process.communicate(timeout=120)[1]
    writer.stop()
    assert process.returncode == -signal.SIGKILL, said
    replica.catch_up()
    replica.assert_equal()


def test_a_table_that_leaves_and_comes_back(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """C-07: it is left as it is, and copied again when it is selected again, with another shape meanwhile."""
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


def test_a_table_that_is_renamed_out_of_the_selection(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """C-07: it leaves, and the target keeps what it has of it; the others go on, and so does the next run."""
    fill(anywhere, "a")
    fill(anywhere, "b")
    replica = make_replica(anywhere, tmp_path, "a", "b")
    replica.catch_up()
    for statement in ("ALTER TABLE b RENAME TO other", "UPDATE a SET v = 7 WHERE id = 7"):
        anywhere.execute(statement)
    replica.catch_up()
    assert replica.query("SELECT v FROM a WHERE id = 7") == [(7,)]
    kept = "other" if isinstance(anywhere, Database) else "b"  # MySQL's log has the name that is not meant
    assert replica.query(f"SELECT count(*) FROM {kept}") == [(600,)]
    anywhere.execute("DELETE FROM other")
    anywhere.execute("UPDATE a SET v = 8 WHERE id = 7")
    replica.catch_up()
    replica.assert_equal()


def test_a_run_that_catches_up_waits_for_newcomers(my: MySqlDatabase, tmp_path: Path) -> None:
    """C-07: a table counts as copied for the reader a moment before the target learns that its rows are to come."""
    fill(my, "a")
    replica = make_replica(my, tmp_path)
    replica.catch_up()
    fill(my, "b")
    done = cdc(
        "run",
        my.dsn,
        replica.target,
        "--until-caught-up",
        "--name",
        replica.options.name,
        CDC_FAULT="copy.adopted=delay:1.5",
    )
    assert done.returncode == 0, done.stderr
    assert "fault point copy.adopted: delay" in done.stderr
    replica.assert_equal()


@pytest.mark.parametrize(
    "newcomer",
    [
        "CREATE TABLE t1 (id int PRIMARY KEY)",
        'CREATE SCHEMA "Public"; CREATE TABLE "Public".t2 (id int PRIMARY KEY)',
        'CREATE TABLE t2 (id int PRIMARY KEY, a int, "A" int)',
    ],
)
def test_a_newcomer_whose_name_is_taken(database: Database, replica: Replica, newcomer: str) -> None:
    """P17: it is left out by itself, with the reason, until its name is free; the rest goes on as if nothing was."""
    database.execute('CREATE TABLE "T1" (id int PRIMARY KEY); INSERT INTO "T1" VALUES (1)')
    replica.catch_up()
    database.execute(f'{newcomer}; CREATE TABLE other (id int PRIMARY KEY); INSERT INTO "T1" VALUES (2)')
    for _ in range(2):
        pipeline = open_pipeline(database.dsn, replica.target, replica.options)
        pipeline.run()
        tables = {str(name): table for name, table in pipeline.view().tables.items()}
        left_out = {name for name, table in tables.items() if table.state is State.LEFT_OUT}
        assert len(left_out) == 1
        assert "in case only" in tables[left_out.pop()].reason
        assert {name for name, table in tables.items() if table.state is State.FOLLOWING} == {
            "public.T1",
            "public.other",
        }
        assert replica.query('SELECT id FROM "T1" ORDER BY id') == [(1,), (2,)]


def test_a_newcomer_whose_name_becomes_free(database: Database, replica: Replica) -> None:
    """P17: as soon as the other table has another name, also if no row of it comes."""
    database.execute('CREATE TABLE "T1" (id int PRIMARY KEY); INSERT INTO "T1" VALUES (1)')
    replica.catch_up()
    database.execute("CREATE TABLE t1 (id int PRIMARY KEY, v text); INSERT INTO t1 VALUES (5, 'x')")
    replica.catch_up()
    database.execute('ALTER TABLE "T1" RENAME TO first')
    replica.catch_up()
    replica.catch_up()
    assert replica.query("SELECT * FROM t1") == [(5, "x")]
    assert replica.query("SELECT * FROM first") == [(1,)]
