"""ClickHouse as a target: the views are the source's tables, value by value.

What is compared are the values that psycopg and pymysql read from the source, and ClickHouse's own client from the
target. The server is ClickHouse's engine behind its HTTP interface; what that leaves out is in docs/clickhouse.md.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
import pytest
from hypothesis import Phase, given, settings

from cdc.demo.server import PrivatePostgres
from cdc.demo.shop import Workload
from cdc.errors import TargetBusy, UsageError
from cdc.options import Options
from cdc.runs import have_done, open_pipeline
from cdc.target import Mode, TargetSettings
from cdc.targets.clickhouse import target_factory
from integration.clickhouse import PrivateClickHouse
from integration.conftest import Database, MySqlDatabase, make_database
from integration.mysql_work import make_tables
from integration.processes import cdc, start
from integration.test_kill import make_shop
from integration.test_types import SETUP, TYPES, rows_of_all_types
from tests.seeds import chosen_at_random

_TYPES = (
    "CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(10,2), d date, at timestamptz, l timestamp, u uuid, b bytea, "
    "f double precision, r real, ok boolean, s smallint, g bigint, big text)",
    "ALTER TABLE t ALTER big SET STORAGE EXTERNAL",
    "INSERT INTO t SELECT i, E'\"v,\\n\\t' || i, i * 1.5, '2024-02-29', now(), '2024-02-29 12:00:00.000001', "
    "gen_random_uuid(), '\\x00ff', 0.1, 1.1, true, -7, 1 << 40, repeat('x', 9000) FROM generate_series(1, 300) i",
    "INSERT INTO t (id, d, n, f, at, v) VALUES (9001, '1900-01-01', -0.01, 'Infinity', '1970-01-01', ''), "
    "(9002, NULL, NULL, '-0', NULL, NULL)",
)
# Bytes and 32-bit floats, which the two clients show in their own ways.
_THEIRS = {"t": "* REPLACE (lower(hex(b)) AS b)"}
# What ClickHouse holds as text.
_OURS = {
    "t": "id, v, n, d, at, l, u, encode(b, 'hex') AS b, f, r::float8, ok, s, g, big",
    "customers": "id, name, email, tags::text, balance, is_active, created_at",
    "products": "sku, title, price, attributes::text, description, weight",
    "orders": "id, customer_id, status, placed_on, ship_within::text, note",
}


@pytest.fixture(scope="module")
def house() -> Iterator[PrivateClickHouse]:
    with PrivateClickHouse() as server:
        yield server


class Copy:
    """A database, and the databases that it is copied to."""

    def __init__(self, source: Database | MySqlDatabase, house: PrivateClickHouse) -> None:
        self.source, self.name, self.house = source, source.name, house
        self.target = house.dsn(source.name)

    def run(self, mode: Mode | None = None) -> None:
        open_pipeline(self.source.dsn, self.target, Options(self.name, until_caught_up=True, mode=mode)).run()

    def verify(self) -> None:
        done = cdc("verify", self.source.dsn, self.target, "--name", self.name)
        assert done.returncode == 0, done.stdout + done.stderr

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query answers in which `{}` stands before the name of a database."""
        return self.house.rows(query.format(f"{self.name}_"))

    def ours(self, query: str) -> list[tuple[Any, ...]]:
        """What the source answers."""
        with psycopg.connect(self.source.dsn, options="-c timezone=UTC") as connection:
            return [tuple(map(_plain, row)) for row in connection.execute(query.encode()).fetchall()]

    def assert_equal(self, *tables: str) -> None:
        """Every row of the source, and no other."""
        for table in tables:
            schema, _, name = table.rpartition(".")
            theirs = self.rows(f"SELECT {_THEIRS.get(name, '*')} FROM `{{}}{schema or 'public'}`.`{name}`")
            ours = self.ours(f"SELECT {_OURS.get(name, '*')} FROM {table}")
            assert sorted(theirs, key=repr) == sorted(ours, key=repr), table


def _plain(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


def execute(database: Database, *statements: str) -> None:
    for statement in statements:
        database.execute(statement)


def test_types_and_shapes(database: Database, house: PrivateClickHouse) -> None:
    """A-41, A-50, A-70: keys that move, values that the log leaves out, and shapes that change."""
    copy = Copy(database, house)
    execute(database, *_TYPES)
    copy.run()
    copy.assert_equal("t")
    execute(
        database,
        "UPDATE t SET v = 'new' WHERE id < 50",
        "UPDATE t SET id = -id WHERE id % 7 = 0",
        "DELETE FROM t WHERE id BETWEEN 100 AND 120",
    )
    copy.run()
    copy.assert_equal("t")
    copy.verify()
    execute(
        database,
        "ALTER TABLE t ALTER n TYPE numeric(14,2), ALTER s TYPE bigint, ADD COLUMN w int DEFAULT 7, DROP COLUMN l",
        "ALTER TABLE t RENAME v TO vv",
        "ALTER TABLE t RENAME f TO v",
        "ALTER TABLE t ADD COLUMN x numeric(5,1) DEFAULT 1.5",
        "UPDATE t SET w = 8, vv = NULL, s = 1 << 40 WHERE id = 1",
        "CREATE TABLE later (id int PRIMARY KEY, m int)",
        "INSERT INTO later VALUES (1, 2)",
        "CREATE TABLE gone (id int PRIMARY KEY)",
    )
    copy.run()
    copy.assert_equal("later")
    columns = "id, vv, n, d, at, u, {} AS b, v, {} AS r, ok, s, g, big, w, x"
    theirs = copy.rows(f"SELECT {columns.format('lower(hex(b))', 'r')} FROM `{{}}public`.t ORDER BY id")
    assert theirs == copy.ours(f"SELECT {columns.format('encode(b, $$hex$$)', 'r::float8')} FROM t ORDER BY id")
    execute(
        database,
        "TRUNCATE later",
        "INSERT INTO later VALUES (3, 4)",
        "ALTER TABLE later RENAME TO other",
        "ALTER TABLE gone RENAME TO later",
        "INSERT INTO later VALUES (5)",
        "ALTER TABLE other ALTER id TYPE bigint",
        "INSERT INTO other VALUES (1::bigint << 40, 5)",
    )
    copy.run()
    copy.assert_equal("other", "later")
    copy.verify()


@settings(max_examples=2, deadline=None, phases=[Phase.generate])
@given(rows_of_all_types)
def test_any_value_arrives(
    postgres: PrivatePostgres, house: PrivateClickHouse, rows: list[tuple[str | None, ...]]
) -> None:
    """A-70 to A-77: every type, by copy and by log, against the texts of the source's own SQL."""
    for database in make_database(postgres):
        copy = Copy(database, house)
        columns = [f"c{number} {kind}" for number, kind in enumerate(TYPES)]
        execute(database, SETUP, f"CREATE TABLE everything (id int PRIMARY KEY, {', '.join(columns)})")
        places = ", ".join(f"%s::text::{kind}" for kind in TYPES)
        numbered = list(enumerate(rows))
        for half in (numbered[::2], numbered[1::2]):
            with psycopg.connect(database.dsn) as connection:
                for number, row in half:
                    connection.execute(f"INSERT INTO everything VALUES (%s, {places})".encode(), [number, *row])
            copy.run()
        copy.verify()


def test_what_has_no_place_becomes_text(database: Database, house: PrivateClickHouse) -> None:
    """A-70, A-71, A-72: ClickHouse would clamp, wrap or forget these without a word."""
    copy = Copy(database, house)
    execute(
        database,
        "CREATE TABLE odd (id numeric(30,0) PRIMARY KEY, d date, at timestamptz, n numeric(12,2), free numeric, a int[], j json)",
        "INSERT INTO odd VALUES (1, '2024-02-29', '2024-02-29 12:00+00', 1.25, 1.005, '{1,NULL}', '{\"a\":null,\"a\":1.10}')",
    )
    copy.run()
    execute(
        database,
        "INSERT INTO odd VALUES (2, 'infinity', '-infinity', 'NaN', 'NaN', '{}', '[1]')",
        "INSERT INTO odd VALUES (3, '0044-03-15 BC', '0044-03-15 12:00:00+00 BC', -0.01, 'Infinity', NULL, 'null')",
        "INSERT INTO odd VALUES (4, '9999-12-31', '294276-01-01 00:00:00+00', NULL, NULL, NULL, NULL)",
    )
    copy.run()
    texts = "SELECT id::text, d::text, at::text, n::text, free::text, a::text, j::text FROM odd ORDER BY id"
    assert copy.rows("SELECT toString(id), d, at, n, free, a, j FROM `{}public`.odd ORDER BY odd.id") == copy.ours(
        texts
    )
    copy.verify()


def test_killed_under_load(database: Database, house: PrivateClickHouse) -> None:
    """C-04, D-01, D-18: the process dies at any moment, the server does, and inserts are cut, lost and refused."""
    copy = Copy(database, house)
    make_shop(database, customers=200)
    rng = chosen_at_random()
    workload = Workload(database.dsn, rate=200)
    workload.start()
    house.fail(50)
    try:
        for number in range(3):
            process = start("run", database.dsn, copy.target, "--name", copy.name)
            time.sleep(rng.uniform(2, 5))
            if number == 1:
                house.kill()
                house.start()
                house.fail(50)
                time.sleep(2)
            assert process.poll() is None, process.communicate()
            process.kill()
            process.wait()
    finally:
        house.fail(0)
        workload.stop()
    copy.run()
    copy.assert_equal("shop.customers", "shop.products", "shop.orders", "shop.order_lines")
    copy.verify()


def test_from_mysql(my: MySqlDatabase, house: PrivateClickHouse) -> None:
    """C-04, D-01, A-70: under load, killed; what ClickHouse has no place for makes a column a text."""
    copy = Copy(my, house)
    make_tables(my, 300)
    my.execute("DROP TABLE notes")  # it has no key
    my.execute(
        "SET SESSION sql_mode = ''",
        "CREATE TABLE odd (id int PRIMARY KEY, d date, b blob, f double, u bigint unsigned, t time, n decimal(12,4), s text)",
        "INSERT INTO odd VALUES (1, '2024-02-29', X'00FF', 0.1, 18446744073709551615, '12:00:00', -0.5, 'a\"b\\n'), "
        "(2, NULL, NULL, 1e300, 0, '-838:59:59', NULL, '')",
    )
    copy.run()
    my.execute("SET SESSION sql_mode = ''", "INSERT INTO odd (id, d) VALUES (3, '0000-00-00')")
    process = start("run", my.dsn, copy.target, "--name", copy.name)
    for number in range(30):
        my.execute(f"UPDATE accounts SET balance = balance + {number} WHERE id % 7 = {number % 7}")
        my.execute(
            f"UPDATE accounts SET id = id + 1000 WHERE id = {number}", f"DELETE FROM accounts WHERE id = {50 + number}"
        )
        time.sleep(0.1)
    process.kill()
    process.wait()
    copy.run()
    copy.verify()
    shown = "SELECT id, {}, {}, {}, {}, s FROM {}odd ORDER BY id"
    theirs = my.execute(shown.format("CAST(d AS CHAR)", "HEX(b)", "CAST(u AS CHAR)", "CAST(n AS DOUBLE)", ""))
    ours = shown.format("d", "hex(b)", "toString(u)", "toFloat64(n)", f"`{{}}{my.name}`.")
    assert copy.rows(ours) == [tuple(row) for row in theirs]
    accounts = "SELECT count(*), sum(id), sum(balance) FROM {}accounts"
    assert copy.rows(accounts.format(f"`{{}}{my.name}`.")) == [tuple(row) for row in my.execute(accounts.format(""))]


def test_soft_delete(database: Database, house: PrivateClickHouse) -> None:
    """A-41: rows that were deleted stay with their values, and say when and where that was."""
    copy = Copy(database, house)
    execute(
        database,
        "CREATE TABLE t (id int PRIMARY KEY, v text)",
        "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')",
    )
    copy.run(Mode.SOFT_DELETE)
    execute(
        database,
        "DELETE FROM t WHERE id = 2",
        "UPDATE t SET id = 30 WHERE id = 3",
        "INSERT INTO t VALUES (2, 'again')",
        "DELETE FROM t WHERE id = 4",
    )
    copy.run()
    live = "SELECT id, v FROM `{}public`.t WHERE _cdc_deleted_at IS NULL ORDER BY 1"
    assert copy.rows(live) == [(1, "a"), (2, "again"), (30, "c")]
    gone = "SELECT id, v, _cdc_deleted_position <> '' FROM `{}public`.t WHERE _cdc_deleted_at IS NOT NULL ORDER BY 1"
    assert copy.rows(gone) == [(3, "c", 1), (4, "d", 1)]
    copy.verify()
    execute(database, "TRUNCATE t", "INSERT INTO t VALUES (1, 'new')")
    copy.run()
    assert copy.rows(live) == [(1, "new")]
    # Rows that are gone keep what they were.
    assert copy.rows("SELECT count(), countIf(v = '') FROM `{}public`.t WHERE _cdc_deleted_at IS NOT NULL") == [(4, 0)]


def test_a_wrong_row_is_found_and_set_right(database: Database, house: PrivateClickHouse) -> None:
    """A comparison names the rows that somebody changed, and repair reads these again."""
    copy = Copy(database, house)
    execute(
        database,
        "CREATE TABLE plain (id int PRIMARY KEY, v text)",
        "INSERT INTO plain SELECT i, i FROM generate_series(1, 5000) i",
    )
    copy.run()
    ((identity,),) = database.execute("SELECT 'plain'::regclass::oid::text")
    place = f"`{copy.name}__cdc_rows`.`{identity}`"
    copy.house.rows(
        f"INSERT INTO {place} SELECT * REPLACE ('wrong' AS v, _cdc_version + 1 AS _cdc_version) "
        f"FROM {place} WHERE id = 7"
    )
    copy.house.rows(
        f"INSERT INTO {place} SELECT * REPLACE (true AS _cdc_deleted, _cdc_version + 1 AS _cdc_version) "
        f"FROM {place} WHERE id = 8"
    )
    copy.house.rows(f"INSERT INTO {place} SELECT * REPLACE (-1 AS id) FROM (SELECT * FROM {place} WHERE id = 9)")
    done = cdc("verify", database.dsn, copy.target, "--name", copy.name)
    assert done.returncode != 0
    assert all(text in done.stdout for text in ("7", "8", "-1")), done.stdout
    done = cdc("repair", database.dsn, copy.target, "--name", copy.name, "--table", "public.plain")
    assert done.returncode == 0, done.stdout + done.stderr
    copy.run()
    copy.verify()
    copy.assert_equal("plain")
    done = cdc("resync", database.dsn, copy.target, "--name", copy.name, "--tables", "public.plain")
    assert done.returncode == 0, done.stdout + done.stderr
    execute(database, "DELETE FROM plain WHERE id < 10", "UPDATE plain SET v = 'after' WHERE id = 10")
    copy.run()
    copy.assert_equal("plain")


def test_a_clock_that_goes_back(database: Database, house: PrivateClickHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-06: rows that are read again at the same place of the log, by a machine whose clock was put back meanwhile."""
    copy = Copy(database, house)
    execute(database, "CREATE TABLE plain (id int PRIMARY KEY, v text)", "INSERT INTO plain VALUES (1, 'right')")
    copy.run()
    now, options = time.time, Options(copy.name, until_caught_up=True)
    ((identity,),) = database.execute("SELECT 'plain'::regclass::oid::text")
    damage = f"ALTER TABLE `{copy.name}__cdc_rows`.`{identity}` UPDATE v = 'wrong' WHERE 1 SETTINGS mutations_sync = 1"
    for hours in (2, 1, 0):
        monkeypatch.setattr("time.time", lambda hours=hours: now() + 3600 * hours)
        copy.house.rows(damage)
        arguments = {"table": "public.plain", "where": None}
        have_done(database.dsn, copy.target, options, "repair", arguments, lambda _: None)
        copy.assert_equal("plain")


def test_a_copy_that_begins_again(database: Database, house: PrivateClickHouse) -> None:
    """D-01: people read what there was until the new copy is whole; it is written to under its own name before."""
    copy = Copy(database, house)
    execute(
        database,
        "CREATE TABLE plain (id int PRIMARY KEY, v text)",
        "INSERT INTO plain SELECT i, repeat('x', 100) FROM generate_series(1, 50000) i",
    )
    process = start("run", database.dsn, copy.target, "--name", copy.name, CDC_FAULT="target.before_checkpoint:1")
    assert process.wait(60) == -signal.SIGKILL
    copy.run()
    copy.assert_equal("plain")
    execute(database, "UPDATE plain SET v = 'y' WHERE id % 100 = 0", "DELETE FROM plain WHERE id % 100 = 1")
    copy.run()
    copy.assert_equal("plain")
    copy.verify()


def test_one_writer(database: Database, house: PrivateClickHouse) -> None:
    """D-17: the lease is renewed while a pipeline runs; another one is refused by name, and one that lost it ends."""
    copy = Copy(database, house)
    execute(database, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    copy.run()
    target = target_factory(copy.target.removeprefix("clickhouse:"), TargetSettings("p", "postgresql", 1 << 28))()
    target.open()
    with pytest.raises(TargetBusy, match="another pipeline writes to"):
        copy.run()
    lease = f"`{copy.name}__cdc`.lease"
    house.rows(f"INSERT INTO {lease} SELECT max(epoch) + 1, 'x', 'elsewhere', 1, true, now64(3) FROM {lease}")
    with pytest.raises(TargetBusy, match="another pipeline writes to"):
        target.suspect(1, "")
    target.close()
    copy.run()


def test_what_is_refused(database: Database, house: PrivateClickHouse) -> None:
    """E-11, O34: said before anything is made, with what helps."""
    copy = Copy(database, house)
    execute(database, "CREATE TABLE t (id int PRIMARY KEY)")
    for wrong in ("clickhouse://", "clickhouse://host/shop", "clickhouse://host?nothing=1", "clickhouse://host:x"):
        with pytest.raises(UsageError):
            open_pipeline(database.dsn, wrong, Options(copy.name)).run()
    execute(database, "CREATE TABLE keyless (a int)", "ALTER TABLE keyless REPLICA IDENTITY FULL")
    with pytest.raises(UsageError, match="no key"):
        copy.run()
    house.rows(f"CREATE DATABASE IF NOT EXISTS `{copy.name}_public`")
    house.rows(f"CREATE TABLE `{copy.name}_public`.t (mine Int32) ENGINE = Memory")
    execute(database, "DROP TABLE keyless")
    with pytest.raises(UsageError, match="which this pipeline did not make"):
        copy.run()
