"""Any work that a random mind can think of, on PostgreSQL, into each kind of tables."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from cdc.demo.server import PrivatePostgres
from integration.conftest import Database
from integration.random_work import KINDS, RandomWork, keys, texts, work_at_random
from tests.seeds import some

numbers = st.one_of(st.none(), st.sampled_from(["0", "-1.50", "NaN", "12345678.99"]))
added = st.sampled_from(["int", "int DEFAULT 7", "text DEFAULT 'd'", "date", "numeric(6,2) DEFAULT 1.5", "text[]"])


class OnPostgres(RandomWork):
    server: PrivatePostgres

    @initialize(full=st.booleans(), part=st.booleans())
    def begin(self, full: bool, part: bool) -> None:
        name = f"random_{next(self.databases)}"
        self.server.create_database(name)
        database = Database(self.server, name)
        database.execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(10,2)); ALTER TABLE t ALTER v SET STORAGE EXTERNAL;"
            + ("ALTER TABLE t REPLICA IDENTITY FULL;" if full else "")
        )
        if "c" in self.tables:
            database.execute("CREATE TABLE c (a int, b text); ALTER TABLE c REPLICA IDENTITY FULL")
        self.follow(database, **({"segment_bytes": 2000} if part else {}))  # nearly every transaction comes in parts

    def run(self, query: str, *values: object) -> None:
        try:
            with self.connection.transaction():
                self.connection.execute(query.encode(), values or None)
        except (psycopg.errors.UniqueViolation, psycopg.errors.NumericValueOutOfRange):
            pass

    @rule(key=keys, text=texts, number=numbers)
    def insert(self, key: int, text: str | None, number: str | None) -> None:
        self.run("INSERT INTO t (id, v, n) VALUES (%s, %s, %s)", key, text, number)

    @rule(number=numbers)
    def update_all(self, number: str | None) -> None:
        self.run("UPDATE t SET n = %s", number)

    @rule()
    def shift(self) -> None:
        self.run("UPDATE t SET id = id + 10 WHERE id < 10")

    @precondition(lambda self: "c" in self.tables)
    @rule(key=keys, text=texts)
    def recount(self, key: int, text: str | None) -> None:
        self.run("UPDATE c SET b = %s WHERE ctid = (SELECT min(ctid) FROM c WHERE a = %s)", text, key)
        self.run("DELETE FROM c WHERE ctid = (SELECT max(ctid) FROM c WHERE a = %s)", key)

    @rule(chosen=st.integers(0, 2))
    def truncate(self, chosen: int) -> None:
        self.run(f"TRUNCATE {', '.join(self.tables) if chosen == 2 else self.tables[chosen % len(self.tables)]}")

    # One change of shape between two looks at the catalog: several at once may be ambiguous, and then rightly stop.
    @precondition(lambda self: not self.in_transaction)
    @rule(kind=added)
    def add_column(self, kind: str) -> None:
        self.run(f"ALTER TABLE t ADD COLUMN x{next(self.columns)} {kind}")
        self.compare()

    @precondition(lambda self: not self.in_transaction)
    @rule()
    def drop_column(self) -> None:
        found = self.database.execute(
            "SELECT max(attname::text) FROM pg_attribute "
            "WHERE attrelid = 't'::regclass AND attnum > 0 AND attname ~ '^x' AND NOT attisdropped"
        )
        if found[0][0]:
            self.run(f"ALTER TABLE t DROP COLUMN {found[0][0]}")
            self.compare()

    @precondition(lambda self: not self.in_transaction)
    @rule()
    def compare(self) -> None:
        # A new shape arrives with the next row.
        self.database.execute("INSERT INTO t (id) VALUES (-1); DELETE FROM t WHERE id = -1")
        super().compare()
        slot = self.database.execute(
            "SELECT (confirmed_flush_lsn - '0/0'::pg_lsn)::int8 FROM pg_replication_slots "
            f"WHERE slot_name = 'cdc_{self.database.name}'"
        )
        assert slot[0][0] <= self.copy.durable  # type: ignore[operator] # never ahead of the target (A-05)


@pytest.mark.parametrize("kind", some(KINDS, 1, "work on PostgreSQL"))
def test_random_work(kind: str, postgres: PrivatePostgres, request: pytest.FixtureRequest) -> None:
    """A-37 to A-50, D-01 to D-05, D-25 by a mind that does not know what we thought of."""
    work_at_random(OnPostgres, postgres, kind, request)
