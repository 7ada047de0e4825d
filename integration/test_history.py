"""History on real servers: as of every commit, each table is what it was in the source."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from cdc.config import have_done
from cdc.errors import UsageError
from cdc.target import Mode
from integration.conftest import Database, MySqlDatabase, Replica, make_replica
from integration.test_kill import start

ROUNDS = 3
Rows = list[dict[str, Any]]


@dataclass
class Writer:
    """The only one who writes to a database, so that what it reads after a commit is what that commit left.

    Attributes:
        states: by what the commit is found by in the target: the rows of each table.
    """

    database: Database | MySqlDatabase
    rng: random.Random
    states: dict[object, dict[str, Rows]] = field(default_factory=dict)
    columns: int = 0
    tokens: int = 0

    def __post_init__(self) -> None:
        self.is_postgres = isinstance(self.database, Database)
        self.connection: Any = (
            psycopg.connect(self.database.dsn, autocommit=True) if self.is_postgres else self.database.connect()
        )

    def execute(self, statement: str) -> Any:
        cursor = self.connection.cursor()
        cursor.execute(statement)
        return cursor

    def transaction(self) -> None:
        """A few statements over both tables, or one that cannot be among others, and what there is afterwards."""
        kind = self.rng.random()
        if kind < 0.06:
            self.columns += 1
            self.execute(f"ALTER TABLE t ADD COLUMN x{self.columns} int DEFAULT {self.columns}")
            return
        self.execute("BEGIN")
        if kind < 0.12:
            self.execute("TRUNCATE t")  # which commits, on MariaDB
        else:
            for _ in range(self.rng.randint(1, 5)):
                self.execute(self.statement())
            if self.rng.random() < 0.2:
                self.swap()
        self.tokens += 1
        self.execute(f"INSERT INTO c VALUES ({self.tokens % 3}, 'token')")
        number = self.execute("SELECT pg_current_xact_id()::text").fetchone()[0] if self.is_postgres else None
        self.execute("COMMIT")
        place = int(number) if self.is_postgres else self.execute("SELECT @@last_gtid").fetchone()[0]
        self.states[place] = {table: self.rows(table) for table in ("t", "c")}

    def statement(self) -> str:
        key, value = self.rng.randrange(6), self.rng.randrange(1000)
        free = f"SELECT {key}, 'v{value}', '{self.rng.randbytes(2000).hex()}'"
        return self.rng.choice(
            [
                f"INSERT INTO t (id, v, big) {free} WHERE NOT EXISTS (SELECT 1 FROM t WHERE id = {key})",
                f"INSERT INTO t (id, v, big) {free} WHERE NOT EXISTS (SELECT 1 FROM t WHERE id = {key})",
                f"UPDATE t SET v = 'u{value}' WHERE id = {key}",
                f"UPDATE t SET v = 'u{value}' WHERE id > {key}",
                f"UPDATE t SET id = id + 10 WHERE id = {key} AND NOT EXISTS (SELECT 1 FROM s WHERE id = {key} + 10)",
                f"DELETE FROM t WHERE id = {key}",
                f"DELETE FROM c WHERE a = {value % 3}",
                f"UPDATE c SET b = 'w{value % 5}' WHERE a = {value % 3}",
            ]
        ).replace("FROM s WHERE", "FROM (SELECT id FROM t) s WHERE")

    def swap(self) -> None:
        """Two keys change places, by way of a third."""
        for old, new in ((1, 99), (2, 1), (99, 2)):
            self.execute(f"UPDATE t SET id = {new} WHERE id = {old}")

    def rows(self, table: str) -> Rows:
        cursor = self.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@pytest.fixture(params=["postgres", "mariadb"])
def source(request: pytest.FixtureRequest) -> Database | MySqlDatabase:
    if request.param == "postgres":
        made: Database = request.getfixturevalue("database")
        made.execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;"
            "CREATE TABLE c (a int, b text); ALTER TABLE c REPLICA IDENTITY FULL"
        )
        return made
    other: MySqlDatabase = request.getfixturevalue("on_mariadb")
    other.execute("CREATE TABLE t (id int PRIMARY KEY, v text, big text)", "CREATE TABLE c (a int, b text)")
    return other


@pytest.fixture
def history(source: Database | MySqlDatabase, tmp_path: Path) -> Replica:
    return make_replica(source, tmp_path, mode=Mode.HISTORY)


def schema_of(replica: Replica) -> str:
    return replica.database.name if isinstance(replica.database, MySqlDatabase) else "public"


def counted(rows: Rows, names: list[str]) -> Counter[tuple[object, ...]]:
    return Counter(tuple(row[name] for name in names) for row in rows)


def test_as_of_every_commit(history: Replica) -> None:
    """A-41, A-46, D-01, D-03, D-05, D-19: random work on two tables while `cdc run` is killed again and again."""
    rng = random.Random()
    writer = Writer(history.database, rng)
    for _ in range(5):
        writer.transaction()
    history.catch_up()
    writer.states.clear()
    for number in range(ROUNDS):
        process = start(history, "", "--mode", "history")
        until = time.monotonic() + rng.uniform(1.0, 2.5)
        while time.monotonic() < until:
            writer.transaction()
            time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"round {number} ended by itself: {process.stderr.read()!r}"  # type: ignore[union-attr]
    # PostgreSQL tells of a new column with the next change.
    writer.execute("INSERT INTO t (id, v) VALUES (1000, 'last')")
    history.catch_up()
    history.assert_equal()
    assert len(writer.states) > 20
    with duckdb.connect(str(history.path), read_only=True) as connection:
        connection.execute(f'USE "{history.path.stem}"."{schema_of(history)}"')
        by = "transaction" if writer.is_postgres else "position"
        orders = dict(connection.execute(f"SELECT {by}, position_order FROM _cdc_history.commits").fetchall())
        for place, tables in writer.states.items():
            for table, rows in tables.items():
                found = connection.execute(f"FROM {table}_as_of(?)", [orders[place]])
                names = [column[0] for column in found.description]
                there = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
                known = names if not rows else [name for name in names if name in rows[0]]
                assert counted(there, known) == counted(rows, known), f"{table} as of {place}"


def test_a_new_copy_keeps_the_past(history: Replica) -> None:
    """A-42: repair and resync end and begin versions of the rows that differ, and of no others; verify compares."""
    database = history.database
    database.execute("INSERT INTO t VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', 'z')")
    history.catch_up()
    database.execute("UPDATE t SET v = 'a2' WHERE id = 1")
    history.catch_up()
    schema = schema_of(history)
    with duckdb.connect(str(history.path)) as connection:
        ours = connection.execute("SELECT 'current_' || identity FROM _cdc_history.tables WHERE table_name = 't'")
        stored = f"_cdc_history.{ours.fetchone()[0]}"  # type: ignore[index]
        connection.execute(f"UPDATE {stored} SET v = 'damaged' WHERE id = 2; DELETE FROM {stored} WHERE id = 3")
        connection.execute(f"INSERT INTO {stored} BY NAME SELECT 4 AS id, 'invented' AS v, 1 AS _cdc_valid_from")
    options = replace(history.options, mode=None)
    asked = {"tables": [], "exclude": [], "sample": 1.0, "max_rate": None, "with_values": False}
    report = have_done(database.dsn, history.target, options, "verify", asked, lambda _: None)
    assert {table["table"]: table["different"] for table in report["tables"]} == {f"{schema}.c": 0, f"{schema}.t": 3}
    have_done(database.dsn, history.target, options, "resync", {"tables": [f"{schema}.t"]}, lambda _: None)
    history.assert_equal()
    query = f"SELECT id, v, _cdc_op, _cdc_ended_by FROM {schema}_history.t ORDER BY id, _cdc_valid_to NULLS LAST"
    with duckdb.connect(str(history.path), read_only=True) as connection:
        assert connection.execute(query).fetchall() == [
            (1, "a", "copy", "update"),
            (1, "a2", "update", None),
            (2, "damaged", "copy", "copy"),
            (2, "b", "copy", None),
            (3, "c", "copy", None),
            (4, "invented", None, "copy"),
        ]


def test_deleted_rows_are_marked(source: Database | MySqlDatabase, tmp_path: Path) -> None:
    """D-25: by a delete and by TRUNCATE; who comes back is not; verify compares the others."""
    source.execute("DROP TABLE c")
    source.execute("INSERT INTO t VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', 'z')")
    replica = make_replica(source, tmp_path, mode=Mode.SOFT_DELETE)
    replica.catch_up()
    source.execute("DELETE FROM t WHERE id = 1")
    replica.catch_up()
    rows = "SELECT id, v, _cdc_deleted_at IS NULL FROM t ORDER BY id"
    assert replica.query(rows) == [(1, "a", False), (2, "b", True), (3, "c", True)]
    replica.assert_equal()
    source.execute("TRUNCATE t")
    source.execute("INSERT INTO t VALUES (1, 'again', 'x')")
    replica.catch_up()
    assert replica.query(rows) == [(1, "again", True), (2, "b", False), (3, "c", False)]
    replica.assert_equal()


def test_the_mode_stays(source: Database | MySqlDatabase, tmp_path: Path) -> None:
    """E-12: another mode than the file's is refused, none is the file's own, and no table is without its name."""
    replica = make_replica(source, tmp_path, mode=Mode.HISTORY)
    replica.catch_up()
    for other in (Mode.MIRROR, Mode.SOFT_DELETE):
        with pytest.raises(UsageError, match="keeps its tables as history"):
            replace_mode(replica, other).catch_up()
    source.execute("INSERT INTO t VALUES (1, 'a', 'x')")
    replace_mode(replica, None).catch_up()
    replica.assert_equal()
    refused = make_replica(source, tmp_path / "..", name=f"{replica.options.name}_2", mode=Mode.SOFT_DELETE)
    with pytest.raises(UsageError, match=r"\.c has no key"):
        refused.catch_up()


def replace_mode(replica: Replica, mode: Mode | None) -> Replica:
    return replace(replica, options=replace(replica.options, mode=mode))


def told(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "cdc", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_commands(history: Replica) -> None:
    """E-12: `cdc history`, `as-of` and `diff` say who changed what when, at positions and at times."""
    database = history.database
    database.execute("INSERT INTO t VALUES (1, 'a', 'x'), (2, 'b', NULL)")
    history.catch_up()
    for statement in ("UPDATE t SET v = 'a2' WHERE id = 1", "DELETE FROM t WHERE id = 2", "UPDATE t SET id = 3"):
        database.execute(statement)
    history.catch_up()
    events = lines(told("history", history.target, "t", "1", "--json"))
    assert [(event["op"], event["changed"]) for event in events] == [
        ("copy", ["id", "v", "big"]),
        ("update", ["v"]),
        ("moved", []),
    ]
    assert events[1]["row"] == {"id": 1, "v": "a2", "big": "x"}
    assert "a2" in told("history", history.target, "t", "1")
    copied, updated = events[0]["position"], events[1]["position"]
    assert lines(told("as-of", history.target, "t", updated, "--format", "json")) == [
        {"id": 1, "v": "a2", "big": "x"},
        {"id": 2, "v": "b", "big": None},
    ]
    assert (
        told("as-of", history.target, f"{schema_of(history)}.t", "2999-01-01", "--format", "csv")
        == "id,v,big\n3,a2,x\n"
    )
    assert told("as-of", history.target, "t", "1999-01-01", "--format", "csv") == "id,v,big\n"
    changes = lines(told("diff", history.target, "t", copied, "2999-01-01", "--json"))
    assert [(change["change"], (change["after"] or change["before"])["id"]) for change in changes] == [
        ("removed", 1),
        ("removed", 2),
        ("added", 3),
    ]
    assert "->" in told("diff", history.target, "t", copied, updated)
    wrong = subprocess.run(
        [sys.executable, "-m", "cdc", "as-of", history.target, "t", "tomorrow"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode == 2
    assert "neither a position" in wrong.stderr


MY_TYPES = {
    "n": ("decimal(10,2)", "decimal(20,4)"),
    "i": ("int", "bigint"),
    "u": ("smallint unsigned", "int unsigned"),
    "d": ("int", "decimal(30,10)"),
    "f": ("float", "double"),
    "a": ("date", "datetime"),
    "t": ("int", "varchar(20)"),
}


@pytest.mark.parametrize("mode", [Mode.HISTORY, Mode.SOFT_DELETE])
def test_a_column_that_grew_keeps_its_past(on_mysql: MySqlDatabase, tmp_path: Path, mode: Mode) -> None:
    """B-42: the statement rewrites the table, which is copied anew; rows that are there no more have their values."""
    columns = ", ".join(f"{name} {was}" for name, (was, _) in MY_TYPES.items())
    on_mysql.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, {columns})",
        "INSERT INTO t VALUES (1, 1.5, 1, 1, 1, 0.1, '2026-01-01', 1), (2, 2.5, 2, 2, 2, 2, '2026-01-02', 2)",
    )
    replica = make_replica(on_mysql, tmp_path, mode=mode)
    replica.catch_up()
    on_mysql.execute("DELETE FROM t WHERE id = 2", "UPDATE t SET n = 9.75, i = 9, t = 9")
    replica.catch_up()
    on_mysql.execute(
        "ALTER TABLE t " + ", ".join(f"MODIFY {name} {becomes}" for name, (_, becomes) in MY_TYPES.items())
    )
    on_mysql.execute("UPDATE t SET n = 1234567890123.4567, i = 5000000000, t = 'nine'")
    replica.catch_up()
    replica.assert_equal()
    names = "CAST(n AS DOUBLE), i, u, CAST(d AS DOUBLE), round(f, 5), CAST(a AS VARCHAR), t"
    if mode is Mode.SOFT_DELETE:
        assert replica.query(f"SELECT {names} FROM t WHERE id = 2") == [(2.5, 2, 2, 2, 2, "2026-01-02 00:00:00", "2")]
        return
    versions = f"SELECT id, {names} FROM {on_mysql.name}_history.t ORDER BY id, _cdc_valid_from, _cdc_ordinal"
    assert replica.query(versions) == [
        (1, 1.5, 1, 1, 1, 0.1, "2026-01-01 00:00:00", "1"),
        (1, 9.75, 9, 1, 1, 0.1, "2026-01-01 00:00:00", "9"),
        (1, 1234567890123.4567, 5000000000, 1, 1, 0.1, "2026-01-01 00:00:00", "nine"),
        (2, 2.5, 2, 2, 2, 2, "2026-01-02 00:00:00", "2"),
    ]


def test_keys_on_the_command_line(database: Database, tmp_path: Path) -> None:
    """E-12: negative numbers, UUIDs, texts that look like numbers or options, several columns, hostile names."""
    uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
    hostile = """it's "one", a.b"""
    quoted = hostile.replace('"', '""')
    database.execute(
        "CREATE TABLE u (id uuid PRIMARY KEY); CREATE TABLE x (a int, b text, PRIMARY KEY (b, a)); CREATE SCHEMA u;"
        f'CREATE TABLE "{quoted}" (id int PRIMARY KEY); CREATE TABLE u.x (id int PRIMARY KEY);'
        'CREATE TABLE "u.x" (id int PRIMARY KEY); INSERT INTO "u.x" VALUES (6); INSERT INTO u.x VALUES (7);'
        f"INSERT INTO u VALUES ('{uuid}'); INSERT INTO x VALUES (-5, '007'), (1, '--json');"
        f'INSERT INTO "{quoted}" VALUES (-5)'
    )
    replica = make_replica(database, tmp_path, mode=Mode.HISTORY)
    replica.catch_up()
    for table, *key in (
        ("u", uuid),
        ("u", uuid.upper()),
        ("public.x", "007", "-5"),
        ("public.x", "--", "--json", "1"),
        (hostile, "-5"),
        (f"public.{hostile}", "-5"),
        ("u.x", "7"),
        ("public.u.x", "6"),
    ):
        events = lines(told("history", "--json", replica.target, table, *key))
        assert [event["op"] for event in events] == ["copy"], (table, key)
    for key, message in (
        (["7", "-5"], "No row of public.x has ever had that key"),
        (["-5"], "The key of public.x is (b, a), not 1 values."),
    ):
        arguments = [sys.executable, "-m", "cdc", "history", replica.target, "public.x", *key]
        refused = subprocess.run(arguments, capture_output=True, text=True, check=False)
        said = " ".join(refused.stderr.split())
        assert (refused.returncode, message in said, "Hint:" in said) == (2, True, True), refused.stderr
