"""Tables of MySQL and MariaDB that get another name while a run begins, or while nobody listens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cdc.sources.mysql import source
from cdc.target import Mode
from integration.conftest import MySqlDatabase, Replica, make_replica

LONG = "INSERT INTO pad (v) VALUES (REPEAT('x', 2000000))"  # so much log that what follows comes in another segment


def make_tables(database: MySqlDatabase) -> None:
    database.execute("CREATE TABLE pad (id int AUTO_INCREMENT PRIMARY KEY, v longtext)")
    for name in "tar":
        database.execute(
            f"CREATE TABLE {name} (id int PRIMARY KEY, v int)", f"INSERT INTO {name} VALUES (1, 1), (2, 2)"
        )


def assert_same_tables(replica: Replica) -> None:
    """No table is left under a name that the source has no more."""
    replica.assert_equal()
    schema = replica.database.name
    query = f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{schema}'"
    assert {name for (name,) in replica.query(query)} == {name for (name,) in replica.database.execute(query)}


def past_of(replica: Replica, table: str) -> list[tuple[object, ...]]:
    query = f"SELECT v, _cdc_op FROM {replica.database.name}_history.{table} WHERE id = 1 ORDER BY _cdc_valid_from"
    return replica.query(query)


@pytest.mark.parametrize("mode", Mode)
def test_renamed_while_nobody_listens(on_mariadb: MySqlDatabase, tmp_path: Path, mode: Mode) -> None:
    """B-43: a plain rename, one behind a statement that makes the table be copied again, and one whose name is taken."""
    make_tables(on_mariadb)
    replica = make_replica(on_mariadb, tmp_path, mode=mode, segment_bytes=1000)
    replica.catch_up()
    on_mariadb.execute(
        *(f"UPDATE {name} SET v = 10 WHERE id = 1" for name in "tar"),
        "ALTER TABLE a MODIFY v bigint",
        "UPDATE a SET v = 11 WHERE id = 1",
        LONG,
        *(f"RENAME TABLE {name} TO {name}2" for name in "tar"),
        "CREATE TABLE r (id int PRIMARY KEY)",
        "INSERT INTO r VALUES (5)",
        *(f"UPDATE {name}2 SET v = 20 WHERE id = 1" for name in "tar"),
        *(f"DELETE FROM {name}2 WHERE id = 2" for name in "tar"),
    )
    replica.catch_up()
    assert_same_tables(replica)
    if mode is Mode.HISTORY:
        for table in ("t2", "r2"):
            assert past_of(replica, table) == [(1, "copy"), (10, "update"), (20, "update")]
        assert past_of(replica, "a2") == [(1, "copy"), (10, "update"), (11, "update"), (20, "update")]
    if mode is Mode.SOFT_DELETE:
        for table in ("t2", "a2", "r2"):
            assert replica.query(f"SELECT v FROM {table} WHERE _cdc_deleted_at IS NOT NULL") == [(2,)]


def test_renamed_while_a_run_begins(my: MySqlDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B-43: before the source looks which tables there are, and before its copy begins, they get other names."""
    make_tables(my)
    number = 0

    def rename() -> None:
        nonlocal number
        my.execute(*(f"RENAME TABLE {name}{number or ''} TO {name}{number + 1}" for name in "tar"))
        number += 1
        my.execute(f"UPDATE t{number} SET v = v + 1 WHERE id = 1")

    def after_renames(function: Callable[..., object]) -> Callable[..., object]:
        """The same, with a rename before and after its first two calls."""
        calls = 0

        def called(*arguments: object) -> object:
            nonlocal calls
            calls += 1
            if calls > 2:
                return function(*arguments)
            rename()
            found = function(*arguments)
            rename()
            return found

        return called

    replica = make_replica(my, tmp_path, mode=Mode.HISTORY, segment_bytes=1000)

    def run() -> None:
        with monkeypatch.context() as patched:
            for name in ("user_tables", "named_tables"):
                patched.setattr(source, name, after_renames(getattr(source, name)))
            replica.catch_up()

    run()
    replica.catch_up()
    before = {name: past_of(replica, f"{name}{number}") for name in "tar"}
    my.execute("CREATE TABLE n (id int PRIMARY KEY)", f"ALTER TABLE a{number} MODIFY v bigint", LONG)
    run()
    assert number > 8
    replica.catch_up()
    assert_same_tables(replica)
    for name, past in before.items():
        assert past_of(replica, f"{name}{number}")[: len(past)] == past
