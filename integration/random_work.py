"""Work that a random mind thinks of, for a server of any kind, into tables of any kind; compared at quiet points."""

from __future__ import annotations

import itertools
import os
import tempfile
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from cdc.demo.server import PrivatePostgres
from integration.clickhouse import PrivateClickHouse
from integration.conftest import Database, MySqlDatabase
from integration.copies import Copy, InClickHouse, InDuckDb, InLake, InPostgres
from integration.other_duckdb import installed
from integration.recording import Recording, failing

Make = Callable[..., Copy]  # of a database, a folder and options

_ROUNDS = int(os.environ.get("CDC_WORK_ROUNDS", "4"))
KINDS = ("DuckDB", "PostgreSQL", "DuckLake", "ClickHouse")
keys = st.integers(1, 6)
texts = st.one_of(st.none(), st.sampled_from(["", "x", "NULL", 'a,b{}"\\', "é😀", "long " * 1000]))
# Each of them is passed by every target, or by none, when there is work to do.
_POINTS = st.sampled_from(
    [
        "stream.before_decode",
        "handoff.after_take",
        "target.begun",
        "target.before_insert",
        "target.truncated",
        "target.evolve",
        "target.before_checkpoint",
        "target.before_commit",
        "target.after_commit",
        "stream.before_feedback",
    ]
)


class RandomWork(RuleBasedStateMachine):
    """Statements in and out of transactions, changes of shape, restarts, kills; equal whenever everything is applied.

    Attributes:
        copies: makes a copy.
    """

    server: Any
    copies: Make
    tables: tuple[str, ...] = ("t", "c")
    databases = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.columns = itertools.count()
        self.in_transaction = False

    def follow(self, database: Database | MySqlDatabase, **options: int) -> None:
        """Begin with the tables that there are."""
        self.database = database
        self.copy = type(self).copies(database, Path(self.folder.name), **options)
        self.recording = Recording(database)
        self.copy.catch_up()
        self.connection = database.connect()

    @abstractmethod
    def run(self, query: str, *values: object) -> None:
        """Run a statement, which may fail."""

    @rule(key=keys, text=texts)
    def update(self, key: int, text: str | None) -> None:
        self.run("UPDATE t SET v = %s WHERE id = %s", text, key)

    @rule(key=keys, to=keys)
    def move(self, key: int, to: int) -> None:
        self.run("UPDATE t SET id = %s WHERE id = %s", to, key)

    @rule(key=keys)
    def delete(self, key: int) -> None:
        self.run("DELETE FROM t WHERE id %% 10 = %s", key)

    @precondition(lambda self: "c" in self.tables)
    @rule(key=keys, text=texts)
    def count(self, key: int, text: str | None) -> None:
        self.run("INSERT INTO c VALUES (%s, %s), (%s, %s)", key, text, key, text)

    @precondition(lambda self: not self.in_transaction)
    @rule()
    def begin_transaction(self) -> None:
        self.connection.cursor().execute("BEGIN")
        self.in_transaction = True

    @precondition(lambda self: self.in_transaction)
    @rule(how=st.sampled_from(["COMMIT", "ROLLBACK"]))
    def end_transaction(self, how: str) -> None:
        self.connection.cursor().execute(how)
        self.in_transaction = False

    @precondition(lambda self: not self.in_transaction)
    @rule(point=_POINTS)
    def crash(self, point: str) -> None:
        self.copy.crash(point)

    @precondition(lambda self: not self.in_transaction)
    @rule()
    def compare(self) -> None:
        self.copy.catch_up()
        self.copy.assert_equal(*self.tables)

    def teardown(self) -> None:
        if not hasattr(self, "connection"):
            return
        failure = failing()
        try:
            if self.in_transaction:
                self.end_transaction("COMMIT")
            with self.recording.closing(failure):
                if failure is None:
                    self.compare()
        finally:
            self.connection.close()
            self.database.remove()
            self.folder.cleanup()


def copies_of(kind: str, request: pytest.FixtureRequest) -> Make:
    """What makes copies of a kind, with the server that they need."""
    if kind == "PostgreSQL":
        copies: PrivatePostgres = request.getfixturevalue("copies")
        return lambda database, _folder, **options: InPostgres(database, copies, **options)
    if kind == "ClickHouse":
        house: PrivateClickHouse = request.getfixturevalue("house")
        return lambda database, _folder, **options: InClickHouse(database, house, **options)
    if kind == "DuckLake":
        lakes = installed("ducklake.txt")
        return lambda database, folder, **_options: InLake(database, folder, lakes)
    return InDuckDb


def work_at_random(machine: type[RandomWork], server: object, kind: str, request: pytest.FixtureRequest) -> None:
    """Let a machine work with copies of a kind."""
    tables = ("t",) if kind == "ClickHouse" else ("t", "c")  # which needs a key

    class OfKind(machine):  # type: ignore[misc,valid-type]
        pass

    OfKind.server, OfKind.tables, OfKind.copies = server, tables, staticmethod(copies_of(kind, request))
    # Each run into a lake is an interpreter of its own, and ClickHouse makes a file of every insert.
    examples = -(-_ROUNDS // 2) if kind in ("DuckLake", "ClickHouse") else _ROUNDS
    run_state_machine_as_test(
        OfKind, settings=settings(max_examples=examples, stateful_step_count=25, deadline=None, phases=[Phase.generate])
    )
