"""`cdc repair`: which rows a condition means, what it may not say, and what a repair that fails leaves behind."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlglot

from cdc.connectors import make_observer
from cdc.engine.stage import Stage
from cdc.errors import UsageError
from cdc.jobs.requests import repair
from cdc.runs import open_pipeline
from cdc.targets.duckdb.target import DuckDbTarget
from integration.conftest import Database, MySqlDatabase, Replica, make_replica
from integration.test_backup import wait_until_applied
from integration.test_verify import cdc, ends, running, tamper
from tests.seeds import SEED, some

NAMES = ("anna", "Anna", "ANNA ", "bob", "Bób", "", "a_b", "zoë")
COLUMNS = ("id", "n", "code", "name", "amount", "at")
QUOTED = ", ".join(f'"{name}"' for name in COLUMNS)  # at is a word of DuckDB
ROUNDS = int(os.environ.get("CDC_REPAIR_ROUNDS", "5"))

Row = tuple[str | None, ...]


KEYS: dict[str, tuple[str, ...]] = {
    "by_number": ("id",),
    "by_name": ("name",),
    "by_pair": ("code", "id"),
    "keyless": (),
}


class Tables:
    """The same columns with a number, a text and a pair as the key, and with none."""

    def __init__(self, replica: Replica, seed: int) -> None:
        self.replica = replica
        self.database = replica.database
        self.random = random.Random(seed)
        self.is_postgres = isinstance(self.database, Database)
        self.schema = "public" if isinstance(self.database, Database) else self.database.name

    def create(self) -> None:
        amount = "numeric" if self.is_postgres else "decimal(20, 5)"
        for table, key in KEYS.items():
            columns = f"id int, n int, code char(4), name varchar(20), amount {amount}, at {self.timestamp}"
            primary = f", PRIMARY KEY ({', '.join(key)})" if key else ""
            self.database.execute(f"CREATE TABLE {table} ({columns}{primary})")
            if self.is_postgres and not key:
                self.database.execute(f"ALTER TABLE {table} REPLICA IDENTITY FULL")
            ids = range(1, 41) if "name" not in key else range(1, 4)
            names = {"name": ("anna", "bob", "zoë")} if "name" in key else {}
            for number in ids:
                row = self.row(number)
                if names:
                    row["name"] = f"'{names['name'][number - 1]}'"
                self.database.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(row.values())})")

    @property
    def timestamp(self) -> str:
        return "timestamp" if self.is_postgres else "datetime"

    def row(self, number: int) -> dict[str, str]:
        """A row at random, as SQL."""
        choice = self.random.choice
        return {
            "id": str(number),
            "n": choice(["NULL", *map(str, range(-6, 13))]),
            "code": choice(["'ab'", "'a'", "'AB'", "'abcd'", "''"]),
            "name": f"'{choice(NAMES)}'",
            "amount": choice(["NULL", "9.5", "10", "9.50", "1.5", "100.25", "-3"]),
            "at": choice(["NULL", "'2001-02-03 04:05:06'", "'2199-01-01 00:00:00'"]),
        }

    def damage(self, table: str) -> list[str]:
        """Statements for the target: rows that lack, that are too many, that are there twice, or are others."""
        statements = []
        for _ in range(self.random.randint(3, 8)):
            new = self.row(self.random.randint(1, 60))
            if new["code"] != "NULL" and self.is_postgres:
                new["code"] = f"rpad({new['code']}, 4, ' ')"
            there = f"{self.schema}.{table}"
            which = f"rowid IN (SELECT rowid FROM {there} ORDER BY hash(rowid + {self.random.randint(0, 99)}) LIMIT 1)"
            statements.append(
                self.random.choice(
                    [
                        f"DELETE FROM {there} WHERE {which}",
                        f"INSERT INTO {there} ({QUOTED}) VALUES ({', '.join(new[name] for name in COLUMNS)})",
                        f"INSERT INTO {there} ({QUOTED}) SELECT {QUOTED} FROM {there} WHERE {which}",
                        *(f'UPDATE {there} SET "{name}" = {new[name]} WHERE {which}' for name in COLUMNS[1:]),
                    ]
                )
            )
        return statements

    def condition(self, depth: int = 2) -> str:
        choice, k = self.random.choice, self.random.randint(-2, 4)
        if depth and self.random.random() < 0.6:
            left, right = self.condition(depth - 1), self.condition(depth - 1)
            return choice([f"({left}) AND ({right})", f"{left} OR {right}", f"NOT ({left})"])
        text = choice(["anna", "ANNA", "anna ", "bob", "ab"])
        common = [
            f"n / 4 = {k}",
            f"n % 3 = {k}",
            f"n BETWEEN {k} AND {k + 3}",
            f"n IN ({k}, NULL)",
            "n IS NULL",
            f"id - n <> {k}",
            "code = 'ab'",
            f"name = '{text}'",
            "name < 'B'",
            "name LIKE 'a%'",
            "name LIKE 'a\\_%'" if self.is_postgres else "name LIKE 'a\\\\_%'",
            f"lower(name) = '{text}'",
            "code || name = 'abbob'" if self.is_postgres else "concat(code, name) = 'abbob'",
            "amount > 9.5",
            "amount = 9.50",
            "at > now()",
            "at < now() AND id > 5",
        ]
        own = ["name ~ '^a'", "name ILIKE 'A%'", "CAST(n AS text) LIKE '1%'", "name IS DISTINCT FROM 'bob'"]
        return choice(common + (own if self.is_postgres else [f"n DIV 4 = {k}", "name <=> 'anna'", "n <> '1'"]))

    def source_rows(self, table: str, where: str | None = None) -> list[Row]:
        query = f"SELECT {', '.join(COLUMNS)} FROM {table}" + (f" WHERE {where}" if where else "")
        return [_texts(row) for row in self.database.execute(query)]

    def target_rows(self, table: str, where: str | None = None) -> list[Row]:
        query = f"SELECT {QUOTED} FROM {self.schema}.{table}"
        if where:
            dialect = "postgres" if self.is_postgres else "mysql"
            (theirs,) = sqlglot.transpile(where, read=dialect, write="duckdb")
            query += f" WHERE {theirs.replace('amount', 'TRY_CAST(amount AS DOUBLE)')}"
        return [_texts(row) for row in self.on_target(query)]

    def on_target(self, *statements: str) -> list[tuple[object, ...]]:
        """Run statements behind the pipeline's back, between two transactions; the rows of the last one."""

        def run(stage: Stage) -> list[tuple[object, ...]]:
            assert isinstance(stage.target, DuckDbTarget)
            return [stage.target._file.connection.execute(statement).fetchall() for statement in statements][-1]

        return self.pipeline.errand(run, patience=60)

    def repair(self, table: str, where: str | None) -> None:
        repair(self.pipeline, self.observer, {"table": f"{self.schema}.{table}", "where": where}, lambda _: None)

    def caught_up(self) -> None:
        """Wait until the target has what the source has now."""
        self.database.execute("INSERT INTO marks SELECT coalesce(max(id), 0) + 1 FROM marks")
        (found,) = self.database.execute("SELECT count(*) FROM marks")
        for _ in range(600):
            if self.on_target(f"SELECT count(*) FROM {self.schema}.marks") == [found]:
                return
            time.sleep(0.1)
        raise AssertionError("it does not follow")

    @contextmanager
    def followed(self) -> Iterator[None]:
        """While a pipeline of this process follows the log."""
        self.database.execute("CREATE TABLE marks (id int PRIMARY KEY)")
        options = replace(self.replica.options, until_caught_up=False)
        self.pipeline = open_pipeline(self.database.dsn, self.replica.target, options)
        thread = threading.Thread(target=self.pipeline.run, daemon=True)
        with closing(make_observer(self.database.dsn, options)) as self.observer:
            thread.start()
            try:
                self.caught_up()
                yield
            finally:
                self.pipeline.stop()
                thread.join(60)


def _texts(row: tuple[object, ...]) -> Row:
    return tuple(None if value is None else str(value) for value in row)


def by_key(rows: list[Row], key: tuple[str, ...]) -> dict[Row, Counter[Row]]:
    found: dict[Row, Counter[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[COLUMNS.index(name)] for name in key), Counter())[row] += 1
    return found


@pytest.mark.parametrize("table", some(list(KEYS), 2, "conditions"))
def test_rows_that_fulfil_a_condition_on_either_side(
    anywhere: Database | MySqlDatabase, tmp_path: Path, table: str
) -> None:
    """O1: whatever two servers take a condition to mean, rows that fulfil it on either side become what they are in the
    source, none is there twice, and no other one is touched."""
    print(f"CDC_SEED={SEED}")
    tables = Tables(make_replica(anywhere, tmp_path), SEED)
    tables.create()
    key = KEYS[table]
    meant = 0
    with tables.followed():
        for number in range(10 * ROUNDS):
            if number >= ROUNDS and (meant or not key):
                break
            tables.on_target(*tables.damage(table))
            where = tables.condition()
            print(where)
            before = by_key(tables.target_rows(table), key)
            source = by_key(tables.source_rows(table), key)
            fulfil = {*by_key(tables.source_rows(table, where), key), *by_key(tables.target_rows(table, where), key)}
            tables.repair(table, where)
            after = by_key(tables.target_rows(table), key)
            if not key:
                assert after == (source if fulfil else before), where
                continue
            for one in {*before, *source, *after}:
                assert after.get(one) == (source if one in fulfil else before).get(one), (where, one)
            meant += len(fulfil)
        assert meant or not key
        tables.repair(table, None)
        assert by_key(tables.target_rows(table), key) == by_key(tables.source_rows(table), key)
        anywhere.execute(f"UPDATE {table} SET n = 77 WHERE n < 3")
        anywhere.execute(f"DELETE FROM {table} WHERE n > 6")
        tables.caught_up()
        assert by_key(tables.target_rows(table), key) == by_key(tables.source_rows(table), key)


INJECTED = {
    "postgres": [
        "1=1)) TO STDOUT; COMMIT; BEGIN READ WRITE; DELETE FROM victim; COMMIT; --",
        "true; DELETE FROM victim",
        "true) OR (SELECT count(*) FROM victim) > 0 -- ) (",
        "EXISTS (WITH gone AS (DELETE FROM victim RETURNING 1) SELECT 1 FROM gone)",
        "id IN (SELECT id FROM victim FOR UPDATE)",
        "wipe()",
        "id = 1 OR wipe()",
        "nextval('numbers') > 0",
        "id = $1",
        "",
        "*",
        "DELETE FROM victim",
        "id = E'\\\\'' ; DELETE FROM victim; --'",
    ],
    "mysql": [
        "1=1) UNION SELECT 1; DELETE FROM victim; -- ",
        "true; DELETE FROM victim",
        "1=1) OR (1=1",
        "id IN (SELECT id FROM victim FOR UPDATE)",
        "(SELECT 'x' INTO OUTFILE '/tmp/cdc_injected')",
        "wipe()",
        "@a := 1",
        "id = ?",
        "",
        "DELETE FROM victim",
        "id = '\\\\' ; DELETE FROM victim; -- '",
    ],
}


def test_a_condition_is_one_expression(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """O2: what ends the statement, starts another one, writes, or locks is a usage error, and the source is as it was;
    what a server would take out of a comment is not sent at all."""
    anywhere.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    anywhere.execute("CREATE TABLE victim (id int PRIMARY KEY)")
    anywhere.execute("INSERT INTO t VALUES (1, 1), (2, 2)")
    anywhere.execute("INSERT INTO victim VALUES (1), (2)")
    if isinstance(anywhere, Database):
        anywhere.execute(
            "CREATE FUNCTION wipe() RETURNS bool LANGUAGE plpgsql AS 'BEGIN DELETE FROM victim; RETURN true; END'"
        )
        anywhere.execute("CREATE SEQUENCE numbers")
    else:
        anywhere.server.execute("SET GLOBAL log_bin_trust_function_creators = 1")
        anywhere.execute("CREATE FUNCTION wipe() RETURNS int MODIFIES SQL DATA BEGIN DELETE FROM victim; RETURN 1; END")
    tables = Tables(make_replica(anywhere, tmp_path), 0)
    with tables.followed():
        for where in INJECTED["postgres" if isinstance(anywhere, Database) else "mysql"]:
            with pytest.raises(UsageError):
                tables.repair("t", where)
            assert len(anywhere.execute("SELECT * FROM victim")) == 2, where
        tables.on_target(f"DELETE FROM {tables.schema}.t")
        tables.repair("t", "v = 1 /*! ) OR (wipe() */ -- \n AND id = 1")
        assert len(anywhere.execute("SELECT * FROM victim")) == 2
        assert tables.on_target(f"SELECT * FROM {tables.schema}.t") == [(1, 1)]


FAILS = ["nothing = 1", "v > 'x' + 1", "name = 5", "no_such_function(v)", "v = 1 AND 1 / (v - 1) = 1", "v = )"]


def test_a_repair_that_fails_leaves_all_as_it_was(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """O3: a condition that a server cannot decide is an error of the repair: 2, the target as before, the run goes on."""
    anywhere.execute("CREATE TABLE t (id int PRIMARY KEY, v int, name varchar(20), amount numeric)")
    anywhere.execute("INSERT INTO t VALUES (1, 1, 'a', 12.5), (2, 2, 'b', 7)")
    replica = make_replica(anywhere, tmp_path)
    replica.catch_up()
    tamper(replica, "UPDATE t SET v = 77, name = 'wrong'")
    schema = anywhere.name if isinstance(anywhere, MySqlDatabase) else "public"
    with running(replica) as process:
        failed = 0
        for where in FAILS:
            answer = cdc("repair", *ends(replica), "--table", f"{schema}.t", "--where", where)
            # MySQL compares everything with everything, and DuckDB with it a good deal.
            assert answer.returncode in ((2,) if isinstance(anywhere, Database) else (0, 2)), (where, answer.stderr)
            failed += answer.returncode == 2
            assert "Traceback" not in answer.stderr
            anywhere.execute(f"INSERT INTO t VALUES ({FAILS.index(where) + 10}, 0, 'later', 0)")
        assert failed >= 3
        assert cdc("repair", *ends(replica), "--table", f"{schema}.t", "--where", "amount > 9.5").returncode == 0
        assert process.poll() is None
    replica.catch_up()
    assert len(replica.query("SELECT * FROM t WHERE name = 'later'")) == len(FAILS)
    assert replica.query("SELECT v, name FROM t WHERE id = 1") == [(1, "a")]
    if isinstance(anywhere, Database):
        assert replica.query("SELECT v, name FROM t WHERE id = 2") == [(77, "wrong")]


@pytest.mark.parametrize("mode", ["mirror", "soft-delete", "history"])
@pytest.mark.parametrize("where", [None, "v > 0"], ids=["whole", "where"])
def test_an_error_between_delete_and_insert(database: Database, tmp_path: Path, mode: str, where: str | None) -> None:
    """O4: rows that were taken out are there again if those in their place do not come; the run goes on."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    database.execute("INSERT INTO t SELECT n, n FROM generate_series(1, 9) n")
    replica = make_replica(database, tmp_path)
    command = [sys.executable, "-m", "cdc", "run", *ends(replica), "--until-caught-up", "--mode", mode]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    if mode != "history":
        tamper(replica, "UPDATE t SET v = 77 WHERE id = 3")
    fault = "target.before_insert=raise" if mode != "history" else "target.before_insert:2=raise"
    with running(replica, env={"CDC_FAULT": fault}) as process:
        arguments = ("--table", "public.t", *(("--where", where) if where else ()))
        answer = cdc("repair", *ends(replica), *arguments)
        assert mode == "history" or answer.returncode == 1, answer.stderr
        database.execute("INSERT INTO t VALUES (10, 10)")
        wait_until_applied(replica)
        assert process.poll() is None
    replica.catch_up()
    expected = [(n, 77 if n == 3 and mode != "history" else n) for n in range(1, 11)]
    assert replica.query("SELECT id, v FROM t ORDER BY id") == expected
    assert cdc("repair", *ends(replica), "--table", "public.t").returncode == 0
    assert replica.query("SELECT id, v FROM t ORDER BY id") == [(n, n) for n in range(1, 11)]


def test_an_error_in_a_resync(database: Database, tmp_path: Path) -> None:
    """O4: a copy by parts whose first part fails begins again, and nothing is lost meanwhile."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    database.execute("INSERT INTO t SELECT n, n FROM generate_series(1, 9) n")
    replica = make_replica(database, tmp_path)
    replica.catch_up()
    tamper(replica, "UPDATE t SET v = 77 WHERE id = 3", "DELETE FROM t WHERE id = 4")
    with running(replica, env={"CDC_FAULT": "target.before_insert=raise"}) as process:
        answer = cdc("resync", *ends(replica), "--tables", "t")
        assert answer.returncode == 0, answer.stderr
        assert process.poll() is None
    assert replica.query("SELECT id, v FROM t ORDER BY id") == [(n, n) for n in range(1, 10)]
    assert os.environ.get("CDC_FAULT") is None
