"""Histories in ClickHouse: what their views say, against what the source was."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import orjson
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from cdc.errors import NotKnown, TablesHeld, UsageError
from cdc.model.change import Op, Transactions
from cdc.model.segment import Changes, Gap, Reset, Segment
from cdc.options import Options
from cdc.runs import open_pipeline
from cdc.tables.versioned.target import VersionedTarget
from cdc.target import Mode, TargetSettings
from cdc.targets.clickhouse import open_histories, target_factory
from cdc.testing.batches import batch
from cdc.testing.conformance.work import Work, at, keyed, transactions
from integration.clickhouse import PrivateClickHouse
from integration.conftest import Database, MySqlDatabase
from integration.processes import cdc, start


@pytest.fixture(scope="module")
def house() -> Iterator[PrivateClickHouse]:
    with PrivateClickHouse() as server:
        yield server


class Past:
    """A database, and the histories of its tables."""

    def __init__(self, source: Database | MySqlDatabase, house: PrivateClickHouse) -> None:
        self.source, self.name, self.house = source, source.name, house
        self.target = house.dsn(source.name)

    def run(self, *statements: str) -> str:
        """Follow statements, each of which is a transaction; returns the position of the last commit."""
        for statement in statements:
            self.source.execute(statement)
        options = Options(self.name, until_caught_up=True, mode=Mode.HISTORY)
        open_pipeline(self.source.dsn, self.target, options).run()
        ((position,),) = self.rows("SELECT argMax(position, position_order) FROM `{}_cdc`.commits")
        return str(position)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query answers in which `{}` stands before the name of a database."""
        return self.house.rows(query.format(f"{self.name}_"))

    def versions(self, columns: str, table: str) -> list[tuple[Any, ...]]:
        """Versions in the order in which they began."""
        order = "_cdc_valid_from, _cdc_ordinal NULLS LAST"
        return self.rows(f"SELECT {columns} FROM `{{}}public_history`.{table} ORDER BY {order}, id")

    def as_of(self, place: str, table: str) -> list[tuple[Any, ...]]:
        return self.rows(f"SELECT * FROM `{{}}public`.{table}_as_of(at = '{place}') ORDER BY id")

    def verify(self) -> None:
        done = cdc("verify", self.source.dsn, self.target, "--name", self.name)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_version_is_there(database: Database, house: PrivateClickHouse) -> None:
    """A-38, A-39, A-41, H1: nothing is folded, keys move and are swapped, values that the log left out are those of the
    version before, and a truncate ends all."""
    past = Past(database, house)
    begin = past.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text, big text)",
        "ALTER TABLE t ALTER big SET STORAGE EXTERNAL",
        "INSERT INTO t SELECT i, 'v' || i, repeat('x', 9000) FROM generate_series(1, 3) i",
    )
    second = past.run(
        "UPDATE t SET v = 'a' WHERE id = 1; UPDATE t SET v = 'b' WHERE id = 1; DELETE FROM t WHERE id = 2",
        "UPDATE t SET id = 4 WHERE id = 1",
        "INSERT INTO t VALUES (2, 'again', 'y')",
    )
    ((first,),) = past.rows("SELECT DISTINCT _cdc_valid_to_position FROM `{}public_history`.t WHERE v = 'a'")
    whole = past.versions("id, v, length(big), _cdc_op, _cdc_ended_by, _cdc_valid_to = _cdc_valid_from", "t")
    assert whole == [
        (1, "v1", 9000, "copy", "update", 0),
        (2, "v2", 9000, "copy", "delete", 0),
        (3, "v3", 9000, "copy", None, None),
        (1, "a", 9000, "update", "update", 1),
        (1, "b", 9000, "update", "update", 0),
        (4, "b", 9000, "update", None, None),
        (2, "again", 1, "insert", None, None),
    ]
    assert [row[:2] for row in past.as_of(begin, "t")] == [(1, "v1"), (2, "v2"), (3, "v3")]
    assert [row[:2] for row in past.as_of(first, "t")] == [(1, "b"), (3, "v3")]
    now = [(2, "again"), (3, "v3"), (4, "b")]
    assert [row[:2] for row in past.as_of(second, "t")] == now
    ((identity,),) = database.execute("SELECT 't'::regclass::oid::text")
    place = f"`{past.name}__cdc_rows`.`{identity}`"
    past.house.rows(f"INSERT INTO {place} SELECT * FROM {place}")  # as an insert that comes late does
    assert past.versions("id, v, length(big), _cdc_op, _cdc_ended_by, _cdc_valid_to = _cdc_valid_from", "t") == whole
    with open_histories(past.target.removeprefix("clickhouse:")) as histories:
        known = histories.table("t")
        answer = [(event.op, event.changed, event.row and event.row["v"]) for event in histories.versions(known, ["1"])]
        assert answer == [
            ("copy", ("id", "v", "big"), "v1"),
            ("update", ("v",), "a"),
            ("update", ("v",), "b"),
            ("moved", (), None),
        ]
        old, new = histories.place(known, first), histories.place(known, second)
        _, rows = histories.as_of(known, old)
        assert [(row["id"], row["v"]) for row in rows] == [(1, "b"), (3, "v3")]
        there = [(was and was["id"], is_there and is_there["id"]) for was, is_there in histories.diff(known, old, new)]
        assert there == [(1, None), (None, 2), (None, 4)]
        with pytest.raises(UsageError, match="before this history begins"):
            histories.place(known, "2020-01-01")
    done = cdc("history", past.target, "t", "2", "--json")
    assert [orjson.loads(line)["op"] for line in done.stdout.splitlines()] == ["copy", "delete", "insert"], done.stderr
    ((lsn,),) = database.execute("SELECT pg_current_wal_lsn()::text")
    past.run("TRUNCATE t", "INSERT INTO t VALUES (3, 'new', '')")
    assert [row[:2] for row in past.as_of(lsn, "t")] == now
    assert past.rows("SELECT id, v FROM `{}public`.t_at_checkpoint") == [(3, "new")]
    ended = past.rows("SELECT id, v FROM `{}public_history`.t WHERE _cdc_ended_by = 'truncate' ORDER BY id")
    assert ended == now
    stamps = "countIf(_cdc_valid_from_position = ''), countIf(_cdc_transaction IS NULL <> (_cdc_op = 'copy'))"
    assert past.rows(f"SELECT {stamps} FROM `{{}}public_history`.t") == [(0, 0)]


def test_from_mysql(my: MySqlDatabase, house: PrivateClickHouse) -> None:
    """A-41, H1: positions are GTIDs, one statement moves all keys, and a table that is dropped ends."""
    past = Past(my, house)
    past.run("CREATE TABLE t (id int PRIMARY KEY, v varchar(9))", "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (-3, 'c')")
    past.run("UPDATE t SET v = 'x' WHERE id = 1", "UPDATE t SET id = -id ORDER BY id", "DELETE FROM t WHERE id = 3")
    view = f"`{{}}{my.name}_history`.t"
    whole = past.rows(
        f"SELECT id, v, _cdc_op, _cdc_ended_by FROM {view} ORDER BY _cdc_valid_from, _cdc_ordinal NULLS FIRST, id"
    )
    assert whole == [
        (-3, "c", "copy", "update"),
        (1, "a", "copy", "update"),
        (2, "b", "copy", "update"),
        (1, "x", "update", "update"),
        (3, "c", "update", "delete"),
        (-1, "x", "update", None),
        (-2, "b", "update", None),
    ]
    ((moved,),) = past.rows(f"SELECT DISTINCT _cdc_valid_from_position FROM {view} WHERE id = 3")
    as_of = f"SELECT id FROM `{{}}{my.name}`.t_as_of(at = '{moved}') ORDER BY id"
    assert past.rows(as_of) == [(-2,), (-1,), (3,)]
    past.run("DROP TABLE t", "CREATE TABLE other (id int PRIMARY KEY)")
    assert past.rows(f"SELECT id FROM {view} WHERE _cdc_ended_by = 'drop' ORDER BY id") == [(-2,), (-1,)]
    assert past.rows(as_of) == [(-2,), (-1,), (3,)]
    assert past.rows(f"SELECT count() FROM `{{}}{my.name}`.t") == [(0,)]


def test_what_is_not_known_is_an_error(database: Database, house: PrivateClickHouse) -> None:
    """H1: places before the history begins, of the future, and what is no place at all."""
    past = Past(database, house)
    past.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    past.run("INSERT INTO t VALUES (2)")
    for place, words in (
        ("2020-01-01", "before this history begins"),
        ("@1", "before this history begins"),
        ("2099-01-01", "in the future"),
        ("FFFF/0", "in the future"),
        ("42", "neither a position"),
        ("yesterday", "neither a position"),
    ):
        with pytest.raises(DatabaseError, match=words):
            past.as_of(place, "t")
    time.sleep(1.1)  # a time means the last commit up to then, and copies are of whole seconds
    ((now,),) = past.rows("SELECT formatDateTime(now('UTC'), '%Y-%m-%dT%H:%i:%S+00:00')")
    assert past.as_of(now, "t") == [(1,), (2,)]
    with pytest.raises(TablesHeld, match="t would have the same name"):
        past.run("CREATE TABLE t_as_of (id int PRIMARY KEY)")


def test_copies_and_shapes(database: Database, house: PrivateClickHouse) -> None:
    """A-50, H9: rows that a new copy finds again go on without a new version, the others end and begin there; columns
    that change keep all versions at their places."""
    past = Past(database, house)
    past.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text, n int)",
        "INSERT INTO t SELECT i, 'v', i FROM generate_series(1, 5) i",
    )
    before = past.run("UPDATE t SET v = 'w' WHERE id = 1")
    ((identity,),) = database.execute("SELECT 't'::regclass::oid::text")
    place = f"`{past.name}__cdc_rows`.`{identity}`"
    spoil = f"INSERT INTO {place} SELECT * REPLACE ({{}}, _cdc_version + 1 AS _cdc_version) FROM {place} WHERE id = "
    for wrong, key in (("'wrong' AS v", 2), ("true AS _cdc_deleted", 3)):
        past.house.rows(f"{spoil.format(wrong)}{key}")
    done = cdc("repair", database.dsn, past.target, "--name", past.name, "--table", "public.t")
    assert done.returncode == 0, done.stdout + done.stderr
    done = cdc("resync", database.dsn, past.target, "--name", past.name, "--tables", "public.t")
    assert done.returncode == 0, done.stdout + done.stderr
    past.run("DELETE FROM t WHERE id = 5")
    past.verify()
    assert past.rows("SELECT id, count() FROM `{}public_history`.t GROUP BY id ORDER BY id") == [
        (1, 2),
        (2, 3),
        (3, 2),
        (4, 1),
        (5, 1),
    ]
    past.run("ALTER TABLE t ADD COLUMN w int DEFAULT 7", "DELETE FROM t WHERE id = 3")
    past.run(
        "ALTER TABLE t ALTER n TYPE bigint",
        "ALTER TABLE t RENAME v TO vv",
        "UPDATE t SET n = 1::bigint << 40 WHERE id = 4",
        "ALTER TABLE t RENAME TO u",
    )
    past.verify()
    versions = past.versions("id, vv, n, w, _cdc_op, _cdc_ended_by", "u")
    assert [version[1:] for version in versions if version[0] == 4] == [
        ("v", 4, 7, "copy", "update"),
        ("v", 1 << 40, 7, "update", None),
    ]
    spoilt = [(1, "w", 1), (2, "wrong", 2), (4, "v", 4), (5, "v", 5)]
    assert [row[:3] for row in past.as_of(before, "u")] == spoilt
    assert past.rows("SELECT name FROM system.tables WHERE database = '{}public' ORDER BY name") == [
        ("u",),
        ("u_as_of",),
        ("u_at_checkpoint",),
    ]


def test_one_state_of_all_tables_after_kills(database: Database, house: PrivateClickHouse) -> None:
    """A-46, C-04, D-01: what two tables have together is the same at every commit, and at the checkpoint at any moment,
    while the process is killed and inserts are cut, lost and refused; no version comes twice."""
    past = Past(database, house)
    past.run(
        "CREATE TABLE a (id int PRIMARY KEY, n int)",
        "CREATE TABLE b (id int PRIMARY KEY, n int)",
        "INSERT INTO a SELECT i, 100 FROM generate_series(0, 9) i",
        "INSERT INTO b SELECT i, 100 FROM generate_series(0, 9) i",
    )
    random, looks, commits = Random(1), 0, 0
    checkpoint = "SELECT content FROM `{}_cdc`.records FINAL WHERE name = 'checkpoint'"
    together = "SELECT (SELECT sum(n) FROM `{0}public`.a{1}) + (SELECT sum(n) FROM `{0}public`.b{1})"
    house.fail(50)
    for _ in range(2):
        process = start("run", database.dsn, past.target, "--name", past.name)
        for number in range(20):
            one, other, much = random.randrange(10), random.randrange(10), random.randrange(9)
            database.execute(
                f"WITH w AS (UPDATE a SET n = n - {much} WHERE id = {one}) UPDATE b SET n = n + {much} WHERE id = {other}"
            )
            commits += 1
            if number % 5 == 0:
                before = past.rows(checkpoint)
                total = past.house.rows(together.format(f"{past.name}_", "_at_checkpoint"))
                if past.rows(checkpoint) == before:
                    assert total == [(2000,)]
                    looks += 1
        process.kill()
        process.wait()
    house.fail(0)
    past.run()
    assert looks
    past.verify()
    positions = [row[0] for row in past.rows("SELECT position FROM `{}_cdc`.commits WHERE transaction IS NOT NULL")]
    assert len(positions) == commits
    for position in random.sample(positions, 5):
        assert past.house.rows(together.format(f"{past.name}_", f"_as_of(at = '{position}')")) == [(2000,)]
    for table in ("a", "b"):
        counted = past.rows(
            f"SELECT countIf(_cdc_op = 'update'), countIf(_cdc_valid_to IS NULL) FROM `{{}}public_history`.{table}"
        )
        assert counted == [(commits, 10)]


def test_a_gap_and_half_a_transaction(house: PrivateClickHouse) -> None:
    """H4: a place in a gap is an error up to the end of a copy that began later; what is beyond the checkpoint is not
    shown at the checkpoint, nor as of a place."""
    work = Work(Random(2), keyed(), is_filled=True)
    (table,) = work.tables
    dsn = house.dsn("gap").removeprefix("clickhouse:")

    def opened() -> VersionedTarget:
        target = target_factory(dsn, TargetSettings("p", "postgresql", 1 << 28, mode=Mode.HISTORY))()
        target.open()
        return target

    def count(view: str) -> int:
        return int(house.rows(f"SELECT count() FROM gap_conformance.orders{view}")[0][0])

    target = opened()
    target.apply(work.copies()[0])
    for segment in work.copies()[1:]:
        target.apply(segment)
    copied = str(work.order)
    new = batch(table.schema, [(Op.INSERT, None, ("99", *[None] * 5))])
    target.apply(Segment([Changes(new)], transactions([work.order + 5]), None))
    assert (count(""), count("_at_checkpoint")) == (7, 6)
    with pytest.raises(DatabaseError, match="neither a position"):
        count(f"_as_of(at = '{work.order + 5}')")
    target.close()
    target = opened()
    target.apply(Segment([Changes(new)], transactions([work.order + 5]), at(work.order + 6)))
    assert count("_at_checkpoint") == 7
    target.apply(
        Segment([Gap(table.schema, "a test says so", 0)], transactions([work.order + 10]), at(work.order + 11))
    )
    target.close()
    target = opened()
    target.apply(Segment([], transactions([work.order + 15]), at(work.order + 16)))
    assert count(f"_as_of(at = '{work.order + 5}')") == 7
    for place in (10, 15):
        with pytest.raises(DatabaseError, match="not known what this table held"):
            count(f"_as_of(at = '{work.order + place}')")
    with open_histories(dsn) as histories, pytest.raises(NotKnown, match="a test says so"):
        histories.place(histories.table("orders"), f"0/{work.order + 16:X}")
    rows = replace(batch(table.schema, [(Op.INSERT, None, ("99", *[None] * 5))]), copied=True)
    target.apply(Segment([Reset(table.schema), Changes(rows)], Transactions.none(), at(work.order + 20)))
    with pytest.raises(DatabaseError, match="not known what this table held"):
        count(f"_as_of(at = '{work.order + 20}')")
    target.apply(Segment([], transactions([work.order + 25]), at(work.order + 26)))
    target.close()
    assert count(f"_as_of(at = '{work.order + 25}')") == 1
    assert count(f"_as_of(at = '{copied}')") == 6
    ended = house.rows("SELECT count() FROM gap_conformance_history.orders WHERE _cdc_ended_by = 'copy'")
    assert ended == [(6,)]
