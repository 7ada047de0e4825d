"""History on real servers: as of every commit, each table is what it was in the source."""

from __future__ import annotations

import json
import random
import re
import signal
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from cdc.errors import UsageError
from cdc.runs import have_done
from cdc.target import Mode
from integration.conftest import Database, MySqlDatabase, Replica, make_replica
from integration.processes import cdc
from integration.test_cli import in_words
from integration.test_kill import start
from tests.seeds import chosen_at_random

ROUNDS = 3
_KNOWN = 15  # transactions of which it has to be known what there was
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
    width: int = 200
    tokens: int = 0

    def __post_init__(self) -> None:
        self.is_postgres = isinstance(self.database, Database)
        self.connection: Any = (
            psycopg.connect(self.database.dsn, autocommit=True, prepare_threshold=None)
            if self.is_postgres
            else self.database.connect()
        )

    def execute(self, statement: str) -> Any:
        cursor = self.connection.cursor()
        cursor.execute(statement)
        return cursor

    def transaction(self, *, of_rows: bool = False) -> None:
        """A few statements over both tables, or one that cannot be among others, and what there is afterwards.

        Args:
            of_rows: no statement empties or alters a table.
        """
        kind = 0.5 if of_rows else self.rng.random()
        if kind < 0.06:
            self.columns += 1
            self.execute(f"ALTER TABLE t ADD COLUMN x{self.columns} int DEFAULT {self.columns}")
            return
        if kind > 0.94:
            self.execute(self.rewrite())
            return
        if not self.is_postgres:  # clocks step, and sessions say other times
            self.execute(f"SET timestamp = {time.time() - self.rng.choice([0, 0, 5, 3600]):.3f}")
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
        place = int(number) if self.is_postgres else self.place()
        self.states[place] = {table: self.rows(table) for table in ("t", "c")}

    def place(self) -> str:
        """The GTID of the last commit."""
        if isinstance(self.database, MySqlDatabase) and self.database.flavor == "mariadb":
            return str(self.execute("SELECT @@last_gtid").fetchone()[0])
        uuid, _, numbers = self.execute("SELECT @@global.gtid_executed").fetchone()[0].rpartition(":")
        return f"{uuid}:{numbers.rpartition('-')[2]}"

    def rewrite(self) -> str:
        """A statement that forces a new copy, or a look at all rows; some of them change rows in silence."""
        self.width += 1
        if self.is_postgres:
            return self.rng.choice(
                [
                    "ALTER TABLE t ALTER v TYPE text USING v || '!'",
                    f"ALTER TABLE t ALTER v TYPE varchar({self.width})",
                    "ALTER TABLE c ALTER b TYPE text USING upper(b)",
                ]
            )
        return self.rng.choice(
            [
                "ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (id)",
                f"ALTER TABLE t MODIFY v varchar({self.width})",
                f"ALTER TABLE t MODIFY v varchar({self.width}) AFTER big",
                "ALTER TABLE t MODIFY v text",
                "ALTER TABLE c CONVERT TO CHARACTER SET utf8mb4",
            ]
        )

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


@pytest.fixture(params=["postgres", "mysql", "mariadb"])
def source(request: pytest.FixtureRequest) -> Database | MySqlDatabase:
    if request.param == "postgres":
        made: Database = request.getfixturevalue("database")
        made.execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;"
            "CREATE TABLE c (a int, b text); ALTER TABLE c REPLICA IDENTITY FULL"
        )
        return made
    other: MySqlDatabase = request.getfixturevalue(f"on_{request.param}")
    other.execute("CREATE TABLE t (id int PRIMARY KEY, v text, big text)", "CREATE TABLE c (a int, b text)")
    return other


@pytest.fixture
def history(source: Database | MySqlDatabase, tmp_path: Path) -> Replica:
    return make_replica(source, tmp_path, mode=Mode.HISTORY)


def schema_of(replica: Replica) -> str:
    return replica.database.name if isinstance(replica.database, MySqlDatabase) else "public"


def counted(rows: Rows, names: list[str]) -> Counter[tuple[object, ...]]:
    return Counter(tuple(row[name] for name in names) for row in rows)


@pytest.mark.long
def test_as_of_every_commit(history: Replica, caplog: pytest.LogCaptureFixture) -> None:
    """A-41, A-46, D-01, D-03, D-05, D-19, H1, H4: random work on two tables, statements that rewrite them and clocks that
    step, while `cdc run` is killed again and again: every answer is right, and where there is none, a table was
    rewritten."""
    rng = chosen_at_random()
    writer = Writer(history.database, rng)
    for _ in range(5):
        writer.transaction()
    history.catch_up()
    writer.states.clear()
    said: list[str] = []
    for number in range(ROUNDS):
        process = start(history, "", "--mode", "history")
        until = time.monotonic() + rng.uniform(0.6, 1.8)
        while time.monotonic() < until:
            writer.transaction()
            time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        assert process.stderr is not None
        said.append(process.stderr.read())
        assert process.wait() == -signal.SIGKILL, f"round {number} ended by itself: {said[-1]!r}"
    history.catch_up()  # by now everything has been compared: what comes is known
    for _ in range(_KNOWN):
        writer.transaction(of_rows=True)
    # PostgreSQL tells of a new column with the next change.
    writer.execute("INSERT INTO t (id, v) VALUES (1000, 'last')")
    history.catch_up()
    history.assert_equal()
    assert len(writer.states) > 20
    # Where a TRUNCATE took the old rows away before anybody had looked, nothing tells any more what they got.
    unknown = set(re.findall(r"what older rows hold in (\w+) is not known", "\n".join([*said, caplog.text])))
    with duckdb.connect(str(history.path), read_only=True) as connection:
        connection.execute(f'USE "{history.path.stem}"."{schema_of(history)}"')
        by = "transaction" if writer.is_postgres else "position"
        positions = dict(connection.execute(f"SELECT {by}, position FROM _cdc_history.commits").fetchall())
        answered = 0
        for place, tables in writer.states.items():
            for table, rows in tables.items():
                try:
                    found = connection.execute(f"FROM {table}_as_of(?)", [positions[place]])
                except duckdb.InvalidInputException as error:
                    if "it is not known" in str(error):
                        continue
                    raise
                answered += 1
                names = [column[0] for column in found.description]
                there = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
                known = [name for name in names if name not in unknown and (not rows or name in rows[0])]
                assert counted(there, known) == counted(rows, known), f"{table} as of {place}"
    # Of the ones before, each may be unknown: PostgreSQL does not say when a table was rewritten, only that it was since
    # somebody looked last; and a copy that is killed again and again leaves a long gap.
    assert answered >= _KNOWN


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


def printed(*arguments: str) -> str:
    done = cdc(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_commands(history: Replica) -> None:
    """E-12, H2, H3, O31: `cdc history`, `as-of` and `diff` say who changed what when, at positions and at times, and of
    when that is; what is not known is an error."""
    database = history.database
    database.execute("INSERT INTO t VALUES (1, 'a', 'x'), (2, 'b', NULL)")
    history.catch_up()
    for statement in ("UPDATE t SET v = 'a2' WHERE id = 1", "DELETE FROM t WHERE id = 2", "UPDATE t SET id = 3"):
        database.execute(statement)
    history.catch_up()
    events = lines(printed("history", history.target, "t", "1", "--json"))
    assert [(event["op"], event["changed"]) for event in events] == [
        ("copy", ["id", "v", "big"]),
        ("update", ["v"]),
        ("moved", []),
    ]
    assert events[1]["row"] == {"id": 1, "v": "a2", "big": "x"}
    assert "a2" in printed("history", history.target, "t", "1")
    copied, updated = events[0]["position"], events[1]["position"]
    assert lines(printed("as-of", history.target, "t", updated, "--format", "json")) == [
        {"id": 1, "v": "a2", "big": "x"},
        {"id": 2, "v": "b", "big": None},
    ]
    now = f"@{time.time():.6f}"
    assert printed("as-of", history.target, f"{schema_of(history)}.t", now, "--format", "csv") == "id,v,big\n3,a2,x\n"
    for moment, said in (("1999-01-01", f"begins: at {copied}"), ("2999-01-01", "in the future"), ("2026", "neither")):
        for asked in (["as-of", history.target, "t", moment], ["diff", history.target, "t", moment, now]):
            refused = cdc(*asked)
            assert (refused.returncode, refused.stdout) == (2, "")
            assert said in in_words(refused)
    changes = lines(printed("diff", history.target, "t", copied, now, "--json"))
    assert [(change["change"], (change["after"] or change["before"])["id"]) for change in changes] == [
        ("removed", 1),
        ("removed", 2),
        ("added", 3),
    ]
    assert "->" in printed("diff", history.target, "t", copied, updated)
    wrong = cdc("as-of", history.target, "t", "tomorrow")
    assert wrong.returncode == 2
    assert "neither a time nor a position" in wrong.stderr
    answered = cdc("as-of", history.target, "t", time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()))
    assert f"As of {time.strftime('%Y-%m-%d', time.gmtime())}" in answered.stderr


def test_a_session_that_says_another_time(on_mariadb: MySqlDatabase, tmp_path: Path) -> None:
    """H1, H2: a forged commit has the time of the one before it, so that earlier times are answered as they were, in a
    history and from a journal; its own is kept. What follows one of the future is found by its position."""
    database = on_mariadb
    database.execute("CREATE TABLE a (id int PRIMARY KEY, v text)")
    journal, target = f"journal:{tmp_path / 'j'}", f"duckdb:{tmp_path / 'h.duckdb'}"

    def catch_up() -> None:
        printed("run", database.dsn, journal, "--until-caught-up", "--name", database.name)
        printed("run", journal, target, "--until-caught-up", "--mode", "history")

    catch_up()
    database.execute("INSERT INTO a VALUES (1, 'v1')")
    time.sleep(1.1)  # MariaDB's commits have full seconds
    before = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    time.sleep(1.1)
    database.execute("UPDATE a SET v = 'v2'")
    database.execute("SET timestamp = 1000000000", "UPDATE a SET v = 'forged'")
    catch_up()
    after = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())

    def as_of(moment: str) -> list[Any]:
        return [row["v"] for row in lines(printed("as-of", target, "a", moment, "--format", "json"))]

    def rebuilt(moment: str) -> list[Any]:
        path = tmp_path / f"{time.monotonic_ns()}.duckdb"
        printed("rebuild", f"duckdb:{path}", "--from", journal, "--until", moment)
        with duckdb.connect(str(path), read_only=True) as connection:
            return [row[0] for row in connection.execute(f'SELECT v FROM "{database.name}".a').fetchall()]

    assert as_of(before) == rebuilt(before) == ["v1"]
    assert as_of(after) == ["forged"]
    forged = lines(printed("history", target, "a", "1", "--json"))[-1]
    assert forged["time"].startswith("2001-09-09 01:46:40")
    with duckdb.connect(str(tmp_path / "h.duckdb"), read_only=True) as connection:
        known = "SELECT position FROM _cdc_history.times WHERE committed_at < time"
        assert (forged["position"],) in connection.execute(known).fetchall()

    database.execute("SET timestamp = 2000000000", "UPDATE a SET v = 'ahead'")
    catch_up()
    ahead = lines(printed("history", target, "a", "1", "--json"))[-1]
    now = f"@{time.time():.6f}"
    answered = cdc("as-of", target, "a", now)
    assert "The next one says that it is of the future" in answered.stderr
    assert as_of(now) == rebuilt(now) == ["forged"]
    assert as_of(ahead["position"]) == rebuilt(ahead["position"]) == ["ahead"]
    for moment in ("2015-01-01", "2001-09-10"):
        refused = cdc("as-of", target, "a", moment)
        assert "before this history begins" in in_words(refused)
        refused = cdc("rebuild", f"duckdb:{tmp_path / 'x.duckdb'}", "--from", journal, "--until", moment)
        assert "does not reach" in in_words(refused)


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
    """B-42: the statement rewrites the table, which is copied again; rows that are there no more have their values."""
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
        events = lines(printed("history", "--json", replica.target, table, *key))
        assert [event["op"] for event in events] == ["copy"], (table, key)
    for key, message in (
        (["7", "-5"], "No row of public.x has ever had that key"),
        (["-5"], "The key of public.x is (b, a), not 1 values."),
    ):
        refused = cdc("history", replica.target, "public.x", *key)
        said = " ".join(refused.stderr.split())
        assert (refused.returncode, message in said, "Hint:" in said) == (2, True, True), refused.stderr
