"""How tables stand: what is not certain is compared and set right by itself, and one table never stops the others."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from cdc.engine.pipeline import Pipeline
from cdc.errors import RowDrift, TablesHeld
from cdc.model.schema import TableName
from cdc.model.standing import State
from cdc.runs import open_pipeline, serve_jobs
from integration.conftest import Database, MySqlDatabase, Replica, make_replica
from integration.processes import cdc, start
from integration.test_membership import Writer, fill, wait_until


@contextmanager
def following(replica: Replica) -> Iterator[Pipeline]:
    """A pipeline that follows on a thread of its own, and takes jobs."""
    chosen = replace(replica.options, until_caught_up=False)
    pipeline = open_pipeline(replica.database.dsn, replica.target, chosen)
    serve_jobs(pipeline, replica.database.dsn, replica.target, chosen)
    failures: list[BaseException] = []

    def body() -> None:
        try:
            pipeline.run()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    try:
        wait_until(lambda: pipeline.view().phase == "streaming" or bool(failures))
        yield pipeline
    finally:
        pipeline.stop()
        thread.join()
    assert failures == []


def states(pipeline: Pipeline) -> dict[str, State]:
    return {name.name: table.state for name, table in pipeline.view().tables.items()}


def differing(pipeline: Pipeline, name: str) -> int:
    """Rows of a table that were found to differ when it was compared last."""
    return sum(entry.different or 0 for table, entry in pipeline.view().tables.items() if table.name == name)


def damage(replica: Replica, *statements: str) -> None:
    """Somebody else changes the target."""
    schema = replica.database.name if isinstance(replica.database, MySqlDatabase) else "public"
    with duckdb.connect(str(replica.path)) as connection:
        connection.execute(f'USE "{replica.path.stem}"."{schema}"')
        for statement in statements:
            connection.execute(statement)


def status(replica: Replica) -> tuple[int, dict[str, object]]:
    done = cdc("status", replica.database.dsn, replica.target, "--name", replica.options.name, "--json")
    return done.returncode, json.loads(done.stdout)


def test_a_drift_is_compared_and_set_right(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """A-42, P7: a change of a row that the target lacks makes the table suspect; all that differs is read again."""
    fill(anywhere, "a")
    replica = make_replica(anywhere, tmp_path)
    replica.catch_up()
    damage(replica, "DELETE FROM a WHERE id IN (5, 6, 500)", "UPDATE a SET v = -7 WHERE id = 8")
    anywhere.execute("UPDATE a SET v = 99 WHERE id = 5")
    pipeline = open_pipeline(anywhere.dsn, replica.target, replica.options)
    pipeline.run()
    replica.assert_equal()
    assert sum(table.different or 0 for table in pipeline.view().tables.values()) >= 3


def test_with_stop_a_drift_ends_the_run(database: Database, tmp_path: Path) -> None:
    """`--on-table-error stop` keeps what was before: the first error of a table ends the run."""
    fill(database, "a")
    replica = make_replica(database, tmp_path, holds_tables=False)
    replica.catch_up()
    damage(replica, "DELETE FROM a WHERE id = 5")
    database.execute("UPDATE a SET v = 99 WHERE id = 5")
    with pytest.raises(RowDrift):
        replica.catch_up()


def test_a_held_table_and_the_way_back(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """A table that the target cannot take is held and named; the others go on; status is red; resync brings it back."""
    fill(anywhere, "a")
    fill(anywhere, "b")
    replica = make_replica(anywhere, tmp_path)
    replica.catch_up()
    damage(replica, "ALTER TABLE a RENAME COLUMN v TO w")
    for table in ("a", "b"):
        anywhere.execute(f"UPDATE {table} SET v = 99 WHERE id = 5")
    with pytest.raises(TablesHeld) as held:
        replica.catch_up()
    assert held.value.exit_code == 1
    assert ".a" in str(held.value)
    assert replica.query("SELECT v FROM b WHERE id = 5") != [(5,)]
    code, report = status(replica)
    assert code == 1
    assert report["health"] == "red"
    named = {name.partition(".")[2]: entry for name, entry in report["tables"].items()}  # type: ignore[attr-defined]
    assert named["a"]["state"] == "held"
    assert "columns" in named["a"]["reason"]
    assert named["b"]["state"] == "following"
    name = TableName(anywhere.name if isinstance(anywhere, MySqlDatabase) else "public", "a")
    with following(replica) as pipeline:
        wait_until(lambda: states(pipeline).get("a") is State.HELD)
        done = cdc("resync", anywhere.dsn, replica.target, "--name", replica.options.name, "--tables", str(name))
        assert done.returncode == 0, done.stderr
        assert states(pipeline)["a"] is State.FOLLOWING
    replica.catch_up()
    replica.assert_equal()
    assert status(replica)[1]["health"] == "green"


def test_a_suspicion_survives_a_kill(database: Database, tmp_path: Path) -> None:
    """What is suspect is so in the target, with the checkpoint, until it was compared."""
    fill(database, "a")
    fill(database, "b")
    replica = make_replica(database, tmp_path)
    replica.catch_up()
    damage(replica, "DELETE FROM a WHERE id = 5", "DELETE FROM a WHERE id = 6")
    database.execute("UPDATE a SET v = 99 WHERE id = 5")
    arguments = ("run", database.dsn, replica.target, "--name", replica.options.name)
    assert cdc(*arguments, "--until-caught-up", CDC_FAULT="healing.part=kill").returncode == -9
    _, report = status(replica)
    assert report["tables"]["public.a"]["state"] == "suspect"  # type: ignore[index]
    assert [p for p in report["problems"] if "ended without a word" not in p] == []  # type: ignore[attr-defined]
    replica.catch_up()
    replica.assert_equal()


def test_healing_goes_on_under_load(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """A suspect table is compared while it changes, and so do the others; both are equal in the end."""
    fill(anywhere, "a")
    fill(anywhere, "b")
    replica = make_replica(anywhere, tmp_path)
    replica.catch_up()
    damage(replica, "DELETE FROM a WHERE id % 7 = 0", "INSERT INTO a VALUES (900000, 1)")
    writer = Writer(anywhere, "a", "b")
    writer.start()
    try:
        with following(replica) as pipeline:
            wait_until(lambda: (differing(pipeline, "a")) > 0)
            wait_until(lambda: states(pipeline)["a"] is State.FOLLOWING)
    finally:
        writer.stop()
    replica.catch_up()
    replica.assert_equal()


def test_a_rewrite_is_copied_again_online(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """A-50: a type that changes beyond what the log says: that one table is read again, the run goes on."""
    fill(anywhere, "a")
    fill(anywhere, "b")
    replica = make_replica(anywhere, tmp_path)
    replica.catch_up()
    if isinstance(anywhere, MySqlDatabase):
        anywhere.execute("ALTER TABLE a MODIFY v varchar(20)", "UPDATE a SET v = 'x' WHERE id = 5")
    else:
        anywhere.execute("ALTER TABLE a ALTER v TYPE text USING v::text || '!'")
        anywhere.execute("UPDATE a SET v = 'x' WHERE id = 5")
    anywhere.execute("UPDATE b SET v = 98 WHERE id = 5")
    replica.catch_up()
    replica.assert_equal()
    assert replica.query("SELECT v FROM a WHERE id = 5") == [("x",)]


def test_a_key_that_was_dropped_unseen(my: MySqlDatabase, tmp_path: Path) -> None:
    """M15: a resync takes the table as it is now: without the key that the log has not described, all rows are there."""
    fill(my, "a")
    replica = make_replica(my, tmp_path)
    replica.catch_up()
    my.execute("SET SESSION sql_log_bin = 0", "ALTER TABLE a DROP PRIMARY KEY", "INSERT INTO a VALUES (5, 50), (5, 50)")
    with following(replica):
        done = cdc("resync", my.dsn, replica.target, "--name", replica.options.name, "--tables", f"{my.name}.a")
        assert done.returncode == 0, done.stderr
    replica.catch_up()
    replica.assert_equal()
    assert replica.query("SELECT count(*) FROM a WHERE id = 5") == [(3,)]


def test_a_target_that_is_fed_from_a_journal(database: Database, tmp_path: Path) -> None:
    """A drift of one target of several is compared with the database and set right while the journal goes on."""
    fill(database, "a")
    replica = make_replica(database, tmp_path)
    journal = ("run", database.dsn, "--journal", str(tmp_path / "log"), "--to", replica.target, "--name", database.name)
    assert cdc(*journal, "--until-caught-up").returncode == 0
    damage(replica, "DELETE FROM a WHERE id IN (5, 6)", "UPDATE a SET v = -7 WHERE id = 8")
    database.execute("UPDATE a SET v = 99 WHERE id = 5")

    def healed() -> bool:
        tables = status(replica)[1]["tables"]
        return tables.get("public.a", {}).get("different") == 2  # type: ignore[attr-defined]

    with start(*journal) as process:
        try:
            wait_until(healed)
        finally:
            process.terminate()
    replica.assert_equal()
