"""PostgreSQL tables that take each other's names, go, and come again under a name that is known."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cdc.target import Mode
from integration.conftest import Database, Replica, make_replica

ROUNDS = 3
MODES = [Mode.MIRROR, Mode.HISTORY]


def create(database: Database, *names: str) -> None:
    for name in names:
        database.execute(
            f"CREATE TABLE {name} (id int PRIMARY KEY, v text); INSERT INTO {name} VALUES (1, '{name} 1'), (2, '{name} 2')"
        )


@pytest.fixture(params=MODES)
def three(database: Database, tmp_path: Path, request: pytest.FixtureRequest) -> Replica:
    """Three tables that were copied."""
    create(database, "a", "b", "c")
    replica = make_replica(database, tmp_path, mode=request.param)
    replica.catch_up()
    return replica


def test_tables_that_swap_names(three: Replica) -> None:
    """A-50: of two and of three, of which one has a row afterwards; the others have their names with it."""
    work = three.database
    work.execute("UPDATE a SET v = 'was a' WHERE id = 1; UPDATE b SET v = 'was b' WHERE id = 1")
    work.execute("ALTER TABLE a RENAME TO x; ALTER TABLE b RENAME TO a; ALTER TABLE x RENAME TO b")
    work.execute("INSERT INTO b VALUES (3, 'in the one that was a')")
    three.catch_up()
    three.assert_equal()
    work.execute(
        "ALTER TABLE a RENAME TO x; ALTER TABLE b RENAME TO a; ALTER TABLE c RENAME TO b; ALTER TABLE x RENAME TO c; "
        "DELETE FROM b WHERE id = 1"
    )
    three.catch_up()
    three.assert_equal()


def test_a_table_that_takes_the_place_of_another(three: Replica) -> None:
    """A-50: `a` becomes `a_old`, and has no row any more; what is `a` now is copied."""
    work = three.database
    work.execute("ALTER TABLE a RENAME TO a_old; CREATE TABLE a (id int PRIMARY KEY, n numeric)")
    work.execute("INSERT INTO a SELECT i, i FROM generate_series(1, 50) i")
    three.catch_up()
    three.assert_equal()
    work.execute("UPDATE a_old SET v = 'late'; UPDATE a SET n = 0 WHERE id > 10")
    three.catch_up()
    three.assert_equal()


def test_a_table_that_is_dropped(three: Replica) -> None:
    """A-50, H7: what the log has of it is applied, its rows stay (in a history as versions that have ended), the others go
    on; one of its name is another table."""
    work = three.database
    oid = work.execute("SELECT 'a'::regclass::oid::int8")[0][0]
    work.execute("INSERT INTO a VALUES (3, 'last')")
    work.execute("DROP TABLE a; INSERT INTO b VALUES (3, 'goes on')")
    three.catch_up()
    three.assert_equal()
    is_history = three.options.mode is Mode.HISTORY
    kept = "public_history." if is_history else ""
    assert three.query("SELECT count(*) FROM a") == [(0 if is_history else 3,)]
    assert three.query(f"SELECT count(*) FROM {kept}a") == [(3,)]
    create(work, "a")
    three.catch_up()
    three.assert_equal()
    assert three.query(f"SELECT v FROM {kept}a_dropped_{oid} ORDER BY id") == [("a 1",), ("a 2",), ("last",)]
    work.execute("DROP TABLE a, b, c")
    three.catch_up()


def test_names_at_random(database: Database, tmp_path: Path) -> None:
    """A-50, A-51: any work with names, between runs and while the log lies behind; equal in the end."""
    for number in range(ROUNDS):
        rng = random.Random(number)
        names = {"a", "b", "c", "d"}
        create(database, *names)
        replica = make_replica(database, tmp_path, name=f"{database.name}_{number}")
        replica.catch_up()
        for step in range(25):
            one, other = rng.sample(sorted(names), 2)
            fresh = f"n{step}"
            what = rng.choice(["rename", "swap", "drop", "replace", "row", "row", "row", "row", "catch_up"])
            if what == "rename":
                database.execute(f"ALTER TABLE {one} RENAME TO {fresh}")
                names = names - {one} | {fresh}
            elif what == "swap":
                database.execute(
                    f"ALTER TABLE {one} RENAME TO x; ALTER TABLE {other} RENAME TO {one}; ALTER TABLE x RENAME TO {other}"
                )
            elif what == "drop" and len(names) > 3:
                database.execute(f"DROP TABLE {one}")
                names.remove(one)
            elif what == "replace":
                database.execute(f"ALTER TABLE {one} RENAME TO {fresh}")
                create(database, one)
                names.add(fresh)
            elif what == "row":
                database.execute(
                    f"INSERT INTO {one} VALUES ({step + 10}, 'step {step}'); DELETE FROM {other} WHERE id = 1"
                )
            else:
                replica.catch_up()
        for name in names:
            database.execute(f"INSERT INTO {name} VALUES (-1, 'last')")
        replica.catch_up()
        assert len(replica.compare()) == len(names), f"seed {number}"
        replica.assert_equal()
        database.execute("".join(f"DROP TABLE {name};" for name in names))
        database.execute(f"SELECT pg_drop_replication_slot('cdc_{replica.options.name}')")
