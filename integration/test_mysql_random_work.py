"""Any work that a random mind can think of, on MySQL and MariaDB, into each kind of tables."""

from __future__ import annotations

import pymysql
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from cdc.demo.mysql import PrivateMySql
from integration.conftest import MySqlDatabase
from integration.random_work import KINDS, RandomWork, keys, texts, work_at_random
from tests.seeds import some

numbers = st.one_of(st.none(), st.sampled_from(["0", "-1.50", "12345678.99"]))
added = st.sampled_from(
    ["int", "int NOT NULL DEFAULT 7", "varchar(9) DEFAULT 'd'", "date", "decimal(6,2) DEFAULT 1.5", "json"]
)
places = st.sampled_from(["", " FIRST", " AFTER id"])


class OnMySql(RandomWork):
    server: PrivateMySql

    @initialize(part=st.booleans())
    def begin(self, part: bool) -> None:
        name = f"random_{next(self.databases)}"
        self.server.create_database(name)
        database = MySqlDatabase(self.server, name)
        database.execute("CREATE TABLE t (id int PRIMARY KEY, v text, n decimal(10,2))")
        if "c" in self.tables:
            database.execute("CREATE TABLE c (a int, b text)")
        self.follow(database, **({"segment_bytes": 1000} if part else {}))  # nearly every transaction comes in parts

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

    @rule(number=numbers)
    def update_all(self, number: str | None) -> None:
        self.run("UPDATE t SET n = %s", number)

    @rule()
    def shift(self) -> None:
        self.run("UPDATE t SET id = id + 10 WHERE id < 10 ORDER BY id DESC")

    @precondition(lambda self: "c" in self.tables)
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
    @rule(chosen=st.integers(0, 1))
    def truncate(self, chosen: int) -> None:
        self.run(f"TRUNCATE {self.tables[chosen % len(self.tables)]}")

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

    @precondition(lambda self: not self.in_transaction and "c" in self.tables)
    @rule()
    def rename(self) -> None:
        self.run("RENAME TABLE t TO s, c TO r, s TO t, r TO c")


@pytest.mark.parametrize("kind", some(KINDS, 1, "work on MySQL"))
def test_random_work_on_mysql(kind: str, mysql: PrivateMySql, request: pytest.FixtureRequest) -> None:
    """B-24, B-41, B-42, B-48, D-01 by a mind that does not know what we thought of."""
    work_at_random(OnMySql, mysql, kind, request)


@pytest.mark.parametrize("kind", some(KINDS, 1, "work on MariaDB"))
def test_random_work_on_mariadb(kind: str, mariadb: PrivateMySql, request: pytest.FixtureRequest) -> None:
    """The same for MariaDB: B-24, B-41, B-42, B-48, D-01."""
    work_at_random(OnMySql, mariadb, kind, request)
