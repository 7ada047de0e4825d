"""A first start that does not come off leaves nothing on the source (P18)."""

from __future__ import annotations

import threading
from pathlib import Path

import duckdb
import pytest

from cdc import faults
from cdc.errors import CdcError, UsageError
from cdc.runs import open_pipeline
from cdc.target import Mode
from integration.conftest import Database, Replica, make_replica

GOOD = "CREATE TABLE good (id int PRIMARY KEY); INSERT INTO good VALUES (1)"
# What the target would refuse -> the table of the source, and how the target keeps tables.
REFUSED = {
    "rowid": ("CREATE TABLE {0} (rowid int); ALTER TABLE {0} REPLICA IDENTITY FULL", Mode.MIRROR),
    "schema": ("CREATE SCHEMA _cdc; CREATE TABLE _cdc.{0} (id int PRIMARY KEY)", Mode.MIRROR),
    "history": ("CREATE TABLE {0} (id int PRIMARY KEY, _cdc_valid_to int)", Mode.HISTORY),
    "keyless": ("CREATE TABLE {0} (a int); ALTER TABLE {0} REPLICA IDENTITY FULL", Mode.SOFT_DELETE),
    "foreign": ("CREATE TABLE {0} (id int PRIMARY KEY)", Mode.MIRROR),
}


def what_is_there(database: Database) -> list[tuple[object, ...]]:
    return database.execute(
        "SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database() "
        "UNION ALL SELECT pubname::text FROM pg_publication"
    )


@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_target_refuses(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """P18: nothing is made on the source, not even for a moment; without the table the target is as good as new."""
    made, mode = REFUSED[kind]
    database.execute(f"{GOOD}; {made.format('bad')}")
    replica = make_replica(database, tmp_path, mode=mode)
    if kind == "foreign":
        with duckdb.connect(str(replica.path)) as connection:
            connection.execute("CREATE SCHEMA IF NOT EXISTS public; CREATE TABLE public.bad (mine int)")
    with monkeypatch.context() as armed:
        armed.setattr(faults, "_armed", faults.parse("setup.before_publication=fail"))
        for _ in range(2):
            with pytest.raises(UsageError):
                replica.catch_up()
            assert what_is_there(database) == []
    replica = make_replica(database, tmp_path, "good", mode=mode)
    replica.catch_up()
    assert replica.query("SELECT id FROM good") == [(1,)]
    database.execute("INSERT INTO good VALUES (2)")
    replica.catch_up()
    assert replica.query("SELECT id FROM good ORDER BY id") == [(1,), (2,)]


@pytest.mark.parametrize(
    ("point", "stays"),
    [
        ("setup.before_slot", False),
        ("setup.after_slot", False),
        ("copy.before_reset", False),
        ("target.before_commit:2", True),  # whether the target has it cannot be known here
        ("target.after_commit:2", True),
        ("copy.chunk", True),
    ],
)
def test_a_failure_at_any_moment(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, stays: bool
) -> None:
    """P18, A-11: it is undone unless the target may have a place in the slot's log; the next start goes on either way."""
    database.execute(GOOD)
    replica = make_replica(database, tmp_path)
    with monkeypatch.context() as armed:
        armed.setattr(faults, "_armed", faults.parse(f"{point}=fail"))
        with pytest.raises(CdcError):
            replica.catch_up()
    assert bool(what_is_there(database)) == stays
    replica.catch_up()
    replica.assert_equal()


def test_a_stop_while_the_slot_waits(database: Database, replica: Replica) -> None:
    """P18: an open transaction keeps the slot from being made; who gives up then leaves nothing."""
    database.execute(GOOD)
    with database.connect() as connection:
        connection.execute("BEGIN; INSERT INTO good VALUES (2)")
        pipeline = open_pipeline(database.dsn, replica.target, replica.options)
        thread = threading.Thread(target=pipeline.run)
        thread.start()
        while not database.execute("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE_REPLICATION_SLOT%'"):
            assert thread.is_alive()
        pipeline.stop()
        thread.join(30)
        assert not thread.is_alive()
        assert what_is_there(database) == []
        connection.execute("COMMIT")
    replica.catch_up()
    replica.assert_equal()
