"""Any work that a random mind can think of, on a real server, compared at quiet points."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import psycopg
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cdc.demo.server import PrivatePostgres
from integration.conftest import Database, Replica, make_replica
from integration.recording import Recording, failing

keys = st.integers(1, 6)
texts = st.one_of(st.none(), st.sampled_from(["", "x", "NULL", 'a,b{}"\\', "é😀", "long " * 1000]))
numbers = st.one_of(st.none(), st.sampled_from(["0", "-1.50", "NaN", "12345678.99"]))
added = st.sampled_from(["int", "int DEFAULT 7", "text DEFAULT 'd'", "date", "numeric(6,2) DEFAULT 1.5", "text[]"])


class RandomWork(RuleBasedStateMachine):
    """Statements in and out of transactions, changes of shape, restarts; equal whenever everything is applied."""

    server: PrivatePostgres
    databases = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.columns = itertools.count()
        self.in_transaction = False

    @initialize(full=st.booleans(), part=st.booleans())
    def begin(self, full: bool, part: bool) -> None:
        name = f"random_{next(self.databases)}"
        self.server.create_database(name)
        self.database = Database(self.server, name)
        self.database.execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(10,2)); ALTER TABLE t ALTER v SET STORAGE EXTERNAL;"
            "CREATE TABLE c (a int, b text); ALTER TABLE c REPLICA IDENTITY FULL;"
            + ("ALTER TABLE t REPLICA IDENTITY FULL;" if full else "")
        )
        size = {"segment_bytes": 2000} if part else {}  # so that nearly every transaction comes in parts
        self.replica: Replica = make_replica(self.database, Path(self.folder.name), **size)
        self.recording = Recording(self.database)
        self.replica.catch_up()
        self.connection = psycopg.connect(self.database.dsn, autocommit=True)

    def run(self, query: str, *values: object) -> None:
        try:
            with self.connection.transaction():
                self.connection.execute(query.encode(), values or None)
        except (psycopg.errors.UniqueViolation, psycopg.errors.NumericValueOutOfRange):
            pass

    @rule(key=keys, text=texts, number=numbers)
    def insert(self, key: int, text: str | None, number: str | None) -> None:
        self.run("INSERT INTO t (id, v, n) VALUES (%s, %s, %s)", key, text, number)

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
        self.run("UPDATE t SET id = id + 10 WHERE id < 10")

    @rule(key=keys)
    def delete(self, key: int) -> None:
        self.run("DELETE FROM t WHERE id %% 10 = %s", key)

    @rule(key=keys, text=texts)
    def count(self, key: int, text: str | None) -> None:
        self.run("INSERT INTO c VALUES (%s, %s), (%s, %s)", key, text, key, text)

    @rule(key=keys, text=texts)
    def recount(self, key: int, text: str | None) -> None:
        self.run("UPDATE c SET b = %s WHERE ctid = (SELECT min(ctid) FROM c WHERE a = %s)", text, key)
        self.run("DELETE FROM c WHERE ctid = (SELECT max(ctid) FROM c WHERE a = %s)", key)

    @rule(table=st.sampled_from(["t", "c", "t, c"]))
    def truncate(self, table: str) -> None:
        self.run(f"TRUNCATE {table}")

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
    def begin_transaction(self) -> None:
        self.connection.execute("BEGIN")
        self.in_transaction = True

    @precondition(lambda self: self.in_transaction)
    @rule(how=st.sampled_from(["COMMIT", "ROLLBACK"]))
    def end_transaction(self, how: str) -> None:
        self.connection.execute(how.encode())
        self.in_transaction = False

    @precondition(lambda self: not self.in_transaction)
    @rule()
    def compare(self) -> None:
        # A new shape arrives with the next row.
        self.database.execute("INSERT INTO t (id) VALUES (-1); DELETE FROM t WHERE id = -1")
        self.replica.catch_up()
        self.replica.assert_equal()
        at = self.replica.query("SELECT position_order FROM _cdc.checkpoint")
        slot = self.database.execute(
            "SELECT (confirmed_flush_lsn - '0/0'::pg_lsn)::int8 FROM pg_replication_slots "
            f"WHERE slot_name = 'cdc_{self.replica.options.name}'"
        )
        assert slot[0][0] <= at[0][0]  # type: ignore[operator] # never ahead of the target (A-05)

    def teardown(self) -> None:
        if not hasattr(self, "connection"):
            return
        failure = failing()
        try:
            if self.in_transaction:
                self.connection.execute("COMMIT")
            with self.recording.closing(failure):
                if failure is None:
                    self.compare()
        finally:
            self.connection.close()
            self.database.remove()
            self.folder.cleanup()


def test_random_work(postgres: PrivatePostgres) -> None:
    """A-37 to A-50, D-02 to D-05, D-25 by a mind that does not know what we thought of."""
    RandomWork.server = postgres
    run_state_machine_as_test(
        RandomWork, settings=settings(max_examples=5, stateful_step_count=20, deadline=None, phases=[Phase.generate])
    )
