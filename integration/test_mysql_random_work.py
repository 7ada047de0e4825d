"""Any work that a random mind can think of, on MySQL and MariaDB, compared at quiet points."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pymysql
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from cdc.demo.mysql import PrivateMySql
from integration.conftest import MySqlDatabase, Replica, make_replica
from integration.recording import Recording, failing

keys = st.integers(1, 6)
texts = st.one_of(st.none(), st.sampled_from(["", "x", "NULL", 'a,b{}"\\', "é😀", "long " * 1000]))
numbers = st.one_of(st.none(), st.sampled_from(["0", "-1.50", "12345678.99"]))
added = st.sampled_from(
    ["int", "int NOT NULL DEFAULT 7", "varchar(9) DEFAULT 'd'", "date", "decimal(6,2) DEFAULT 1.5", "json"]
)
places = st.sampled_from(["", " FIRST", " AFTER id"])


class RandomWork(RuleBasedStateMachine):
    """Statements in and out of transactions, row images, changes of shape, restarts; equal whenever all is applied."""

    server: PrivateMySql
    databases = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.columns = itertools.count()
        self.in_transaction = False

    @initialize(part=st.booleans())
    def begin(self, part: bool) -> None:
        name = f"random_{next(self.databases)}"
        self.server.create_database(name)
        self.database = MySqlDatabase(self.server, name)
        self.database.execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text, n decimal(10,2))", "CREATE TABLE c (a int, b text)"
        )
        size = {"segment_bytes": 1000} if part else {}  # so that nearly every transaction comes in parts
        self.replica: Replica = make_replica(self.database, Path(self.folder.name), **size)
        self.recording = Recording(self.database)
        self.replica.catch_up()
        self.connection = self.database.connect()

    def run(self, query: str, *values: object) -> None:
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(query, values or None)
        except (pymysql.err.IntegrityError, pymysql.err.DataError):
            pass

    @rule(key=keys, text=texts, number=numbers)
    def insert(self, key: int, text: str | None, number: str | None) -> None:
        self.run("INSERT INTO t (id, v, n) VALUES (%s, %s, %s)", key, text, number)

    @rule(key=keys, text=texts)
    def replace(self, key: int, text: str | None) -> None:
        self.run("REPLACE INTO t (id, v, n) VALUES (%s, %s, 1)", key, text)

    @rule(key=keys, text=texts)
    def update(self, key: int, text: str | None) -> None:
        self.run("UPDATE t SET v = %s WHERE id = %s", text, key)

    @rule(number=numbers)
    def update_all(self, number: str | None) -> None:
        self.run("UPDATE t SET n = %s", number)

    @rule(key=keys, to=keys)
    def move(self, key: int, to: int) -> None:
        self.run("UPDATE t SET id = %s WHERE id = %s", to, key)

    @rule()
    def shift(self) -> None:
        self.run("UPDATE t SET id = id + 10 WHERE id < 10 ORDER BY id DESC")

    @rule(key=keys)
    def delete(self, key: int) -> None:
        self.run("DELETE FROM t WHERE id %% 10 = %s", key)

    @rule(key=keys, text=texts)
    def count(self, key: int, text: str | None) -> None:
        self.run("INSERT INTO c VALUES (%s, %s), (%s, %s)", key, text, key, text)

    @rule(key=keys, text=texts)
    def recount(self, key: int, text: str | None) -> None:
        self.run("UPDATE c SET b = %s WHERE a = %s LIMIT 1", text, key)
        self.run("DELETE FROM c WHERE a = %s LIMIT 1", key)

    @rule(image=st.sampled_from(["FULL", "MINIMAL", "NOBLOB"]))
    @precondition(lambda self: not self.in_transaction)
    def choose_image(self, image: str) -> None:
        self.run(f"SET SESSION binlog_row_image = '{image}'")

    @rule(name=st.sampled_from("ab"))
    @precondition(lambda self: self.in_transaction)
    def savepoint(self, name: str) -> None:
        self.run(f"SAVEPOINT {name}")
        self.run("INSERT INTO t (id) VALUES (77)")
        self.run(f"ROLLBACK TO {name}")

    @precondition(lambda self: not self.in_transaction)
    @rule(table=st.sampled_from(["t", "c"]))
    def truncate(self, table: str) -> None:
        self.run(f"TRUNCATE {table}")

    @precondition(lambda self: not self.in_transaction)
    @rule(kind=added, place=places)
    def add_column(self, kind: str, place: str) -> None:
        self.run(f"ALTER TABLE t ADD COLUMN x{next(self.columns)} {kind}{place}")

    @precondition(lambda self: not self.in_transaction)
    @rule(kind=st.sampled_from(["RENAME COLUMN %s TO y%s", "DROP COLUMN %s /* %s */", "MODIFY %s text /* %s */"]))
    def change_column(self, kind: str) -> None:
        found = self.database.execute(
            "SELECT max(column_name) FROM information_schema.columns "
            f"WHERE table_schema = '{self.database.name}' AND table_name = 't' AND column_name LIKE 'x%'"
        )
        if found[0][0]:
            self.run("ALTER TABLE t " + kind % (found[0][0], next(self.columns)))

    @precondition(lambda self: not self.in_transaction)
    @rule()
    def rename(self) -> None:
        self.run("RENAME TABLE t TO s, c TO r, s TO t, r TO c")

    @precondition(lambda self: not self.in_transaction)
    @rule()
    def begin_transaction(self) -> None:
        self.run("BEGIN")
        self.in_transaction = True

    @precondition(lambda self: self.in_transaction)
    @rule(how=st.sampled_from(["COMMIT", "ROLLBACK"]))
    def end_transaction(self, how: str) -> None:
        self.run(how)
        self.in_transaction = False

    @precondition(lambda self: not self.in_transaction)
    @rule()
    def compare(self) -> None:
        self.replica.catch_up()
        self.replica.assert_equal()

    def teardown(self) -> None:
        if not hasattr(self, "connection"):
            return
        failure = failing()
        try:
            if self.in_transaction:
                self.run("COMMIT")
            with self.recording.closing(failure):
                if failure is None:
                    self.compare()
        finally:
            self.connection.close()
            self.database.remove()
            self.folder.cleanup()


def work_at_random(server: PrivateMySql) -> None:
    RandomWork.server = server
    run_state_machine_as_test(
        RandomWork, settings=settings(max_examples=5, stateful_step_count=25, deadline=None, phases=[Phase.generate])
    )


def test_random_work_on_mysql(mysql: PrivateMySql) -> None:
    """B-24, B-41, B-42, B-48 by a mind that does not know what we thought of."""
    work_at_random(mysql)


def test_random_work_on_mariadb(mariadb: PrivateMySql) -> None:
    """The same for MariaDB: B-24, B-41, B-42, B-48."""
    work_at_random(mariadb)
