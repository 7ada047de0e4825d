"""Many tables: neither the work for a table nor the memory grows with their number (P20, P21, P25, O45).

`CDC_TABLE_COUNT=5000` makes the long form.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cdc.sources.mysql.observer import MySqlObserver
from cdc.sources.mysql.state import SourceState as MySqlState
from cdc.sources.postgres.observer import PostgresObserver
from cdc.sources.postgres.state import SourceState as PostgresState
from integration.conftest import Database, MySqlDatabase, Replica, make_replica
from integration.memory import budget_mb, peak_mb

TABLES = int(os.environ.get("CDC_TABLE_COUNT", "300"))
AT_ONCE = 250  # tables in one query, or in one batch of statements
TABLE_MB = 0.5  # that one transaction takes for each table that it changes: a block of DuckDB, and what it points to
OF_MYSQL = 200
STATES = 40  # times that the state of all tables may be written in one copy


def make(database: Database | MySqlDatabase, numbers: Sequence[int]) -> None:
    """Tables of one row each."""
    for begin in range(0, len(numbers), AT_ONCE):
        work = [
            statement
            for n in numbers[begin : begin + AT_ONCE]
            for statement in (
                f"CREATE TABLE t{n} (id int PRIMARY KEY, v varchar(20), w int)",
                f"INSERT INTO t{n} VALUES ({n}, 'row', 0)",
            )
        ]
        run(database, work)


def run(database: Database | MySqlDatabase, statements: Sequence[str]) -> None:
    if isinstance(database, MySqlDatabase):
        database.execute(*statements)
    else:
        database.execute("; ".join(statements))


def assert_same(replica: Replica, numbers: Sequence[int]) -> None:
    """Row by row, of many tables in one query."""
    for begin in range(0, len(numbers), AT_ONCE):
        chosen = numbers[begin : begin + AT_ONCE]
        query = " UNION ALL ".join(f"SELECT {n} n, id, v, w FROM t{n}" for n in chosen) + " ORDER BY 1, 2"
        expected = [tuple(row) for row in replica.database.execute(query)]
        assert len(expected) >= len(chosen)
        assert replica.query(query) == expected


class Counted:
    """Calls of a method, with the lengths of what it gave where that is a text."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> None:
        self.calls = 0
        self.lengths: list[int] = []
        real = vars(owner)[method]

        def counting(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            answer = real(*arguments, **options)
            if isinstance(answer, str):
                self.lengths.append(len(answer))
            return answer

        monkeypatch.setattr(owner, method, counting)


def peak_of(replica: Replica) -> float:
    return peak_mb("run", replica.database.dsn, replica.target, "--name", replica.database.name, "--until-caught-up")


@pytest.mark.long
def test_a_first_start_with_many_tables(replica: Replica) -> None:
    """P21, O45: the copy of all tables, then changes of all of them in small transactions and in one, stay within the
    budget of memory."""
    numbers = range(TABLES)
    make(replica.database, numbers)
    assert peak_of(replica) < budget_mb()
    assert_same(replica, numbers)
    for begin in range(0, TABLES, AT_ONCE):
        chosen = numbers[begin : begin + AT_ONCE]
        changes = [
            f"UPDATE t{n} SET w = w + 1; COMMIT; BEGIN; INSERT INTO t{n} VALUES (-1, 'new', {n})" for n in chosen
        ]
        run(replica.database, ["BEGIN", *(f"{change}; COMMIT; BEGIN" for change in changes), "COMMIT"])
    assert peak_of(replica) < budget_mb() + TABLE_MB * TABLES
    touched = numbers[:1000]
    work = [f"UPDATE t{n} SET v = 'other' WHERE id = -1; DELETE FROM t{n} WHERE id <> -1" for n in touched]
    run(replica.database, ["BEGIN", *work, *(f"INSERT INTO t{n} VALUES ({n}, 'again', 1)" for n in touched), "COMMIT"])
    assert peak_of(replica) < budget_mb() + TABLE_MB * len(touched)
    assert_same(replica, numbers)


def test_the_state_is_written_a_bounded_number_of_times(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """P21: it has all tables, and was written for each of them that was done."""
    numbers = range(150)
    make(replica.database, numbers)
    dumps = Counted(monkeypatch, PostgresState, "dump")
    replica.catch_up()
    assert sum(dumps.lengths) <= STATES * max(dumps.lengths)
    assert_same(replica, numbers)


def test_many_tables_that_appear(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """P20: many tables come while the log is followed; many of them are read in one look."""
    make(replica.database, [0])
    replica.catch_up()
    numbers = range(1, 201)
    make(replica.database, numbers)
    replica.database.execute("CREATE TABLE large AS SELECT i AS id FROM generate_series(1, 60000) i")
    replica.database.execute("ALTER TABLE large ADD PRIMARY KEY (id)")
    looks = Counted(monkeypatch, PostgresObserver, "look")
    replica.catch_up()
    assert 1 <= looks.calls <= 30
    assert_same(replica, [0, *numbers])
    assert replica.query("SELECT count(*), sum(id) FROM large") == [(60000, 60000 * 60001 // 2)]


def test_one_of_many_new_tables_cannot_be_copied(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """P20: a batch that fails is copied one by one, so that the others come all the same."""
    make(replica.database, [0])
    replica.catch_up()
    make(replica.database, range(1, 11))
    real, failures = PostgresObserver.look, []

    def look(self: PostgresObserver, *schemas: Any, exact: bool = False) -> Any:
        if len(schemas) > 1:
            failures.append(len(schemas))
            from cdc.errors import TableChanged

            raise TableChanged("One of them has another shape.")
        return real(self, *schemas, exact=exact)

    monkeypatch.setattr(PostgresObserver, "look", look)
    replica.catch_up()
    assert failures
    assert_same(replica, range(11))


@pytest.fixture
def of_mysql(on_mysql: MySqlDatabase, tmp_path: Path) -> Replica:
    return make_replica(on_mysql, tmp_path)


@pytest.mark.long
def test_many_tables_of_mysql(of_mysql: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """P20, P21, P25: the same from MySQL: a first start, a transaction over all tables, and tables that appear."""
    numbers = range(OF_MYSQL)
    make(of_mysql.database, numbers)
    dumps = Counted(monkeypatch, MySqlState, "dump")
    of_mysql.catch_up()
    assert sum(dumps.lengths) <= STATES * max(dumps.lengths)
    work = [f"UPDATE t{n} SET w = w + 1" for n in numbers]
    run(of_mysql.database, ["BEGIN", *work, *(f"INSERT INTO t{n} VALUES (-1, 'new', {n})" for n in numbers), "COMMIT"])
    new = range(OF_MYSQL, OF_MYSQL + 100)
    make(of_mysql.database, new)
    looks = Counted(monkeypatch, MySqlObserver, "look")
    of_mysql.catch_up()
    assert 1 <= looks.calls <= 30
    assert_same(of_mysql, [*numbers, *new])
