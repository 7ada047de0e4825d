"""`cdc.open` on a real server: what it gives is what there was, and the examples of its documentation run."""

from __future__ import annotations

import datetime
import itertools
import re
import threading
from decimal import Decimal
from pathlib import Path

import pytest

import cdc
from cdc.errors import CheckpointUnreadable, UsageError
from cdc.model.change import Op
from integration.conftest import Database
from integration.test_kill import make_shop

DOCUMENT = Path(__file__).parents[1] / "docs" / "python.md"


@pytest.fixture
def things(database: Database) -> Database:
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, price numeric(12,2), at timestamptz, day date, flag boolean, big text); "
        "ALTER TABLE t ALTER big SET STORAGE EXTERNAL; "
        "INSERT INTO t VALUES (1, 12.50, '2024-01-01 00:00+00', '2024-02-03', true, repeat('x', 9000)), (2, NULL, NULL, "
        "NULL, false, NULL)",
    )
    return database


def test_the_examples_of_the_documentation(database: Database) -> None:
    """As they are written, one after the other."""
    make_shop(database, customers=50)
    names = {"DSN": database.dsn}
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)):
        exec(compile(code, f"{DOCUMENT.name}, example {number + 1}", "exec"), names)
        if number == 0:
            (counted,) = database.execute("SELECT count(*) FROM shop.customers")
            assert names["totals"]["shop.customers"] == counted[0]  # type: ignore[index]
            database.execute("UPDATE shop.customers SET id = id WHERE id < 9")
    assert names["frame"].height > 0  # type: ignore[attr-defined]


def test_rows_have_their_types_and_come_once(things: Database) -> None:
    """A copy, then what happened, from a checkpoint on; a value that its type cannot hold makes the column text; what
    the log left out is named (A-39)."""
    with cdc.open(things.dsn, name=things.name, until_caught_up=True) as stream:
        segments = []
        for segment in stream.follow():
            segments.append(segment)
            segment.acknowledge()
    (rows,) = [table for segment in segments for table in segment.tables().values()]
    assert rows.column("_op").to_pylist() == ["copy", "copy"]
    by_id = {row["id"]: row for row in rows.to_pylist()}
    assert by_id[1]["price"] == Decimal("12.50")
    assert by_id[1]["at"] == datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    assert (by_id[1]["day"], by_id[1]["flag"]) == (datetime.date(2024, 2, 3), True)
    assert (by_id[2]["price"], by_id[2]["_position"]) == (None, None)

    for statement in (
        "UPDATE t SET price = 'NaN', day = 'infinity' WHERE id = 1",
        "DELETE FROM t WHERE id = 2",
        "TRUNCATE t",
    ):
        things.execute(statement)
    checkpoint = [segment.checkpoint for segment in segments if segment.checkpoint is not None][-1]
    with cdc.open(things.dsn, name=things.name, resume=checkpoint, until_caught_up=True) as stream:
        found, told = [], []
        for segment in stream.follow():
            found += [row for table in segment.tables().values() for row in table.to_pylist()]
            told += list(segment.events())
            segment.acknowledge()
    assert [row["_op"] for row in found] == ["update", "delete"]
    assert (found[0]["price"], found[0]["day"], found[0]["_unchanged"]) == ("NaN", "infinity", ["big"])
    assert [row["id"] for row in found] == [1, 2]
    assert [event.op for event in told] == [Op.UPDATE, Op.DELETE, Op.TRUNCATE]
    assert told[0].unchanged == ("big",)
    assert len({(event.position.text, event.ordinal) for event in told}) == 3


def test_what_is_not_acknowledged_comes_again(things: Database) -> None:
    """A-05: the source is told of nothing that the program has not dealt with."""
    with cdc.open(things.dsn, name=things.name, until_caught_up=True) as stream:
        for segment in stream.follow():
            segment.acknowledge()
            checkpoint = segment.checkpoint
    things.execute("INSERT INTO t (id) VALUES (3)")
    for _ in range(2):
        with cdc.open(things.dsn, name=things.name, resume=checkpoint) as stream:
            segment = next(stream.follow())
            assert segment.tables()["public.t"].column("id").to_pylist() == [3]
    with cdc.open(things.dsn, name=things.name, resume=checkpoint) as stream:
        follow = stream.follow()
        next(follow)
        with pytest.raises(UsageError, match="not acknowledged"):
            next(follow)


def test_only_from_now_on(things: Database) -> None:
    """Without a snapshot, and with nothing that stays."""
    enough = threading.Event()

    def write() -> None:
        for number in itertools.count(10):  # the first of them may come before there is a slot
            things.execute(f"INSERT INTO t (id) VALUES ({number})")
            if enough.wait(0.05):
                return

    with cdc.open(things.dsn, snapshot=False) as stream:
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for segment in stream.follow():
                if "public.t" in segment.tables():
                    break
                segment.acknowledge()
        finally:
            enough.set()
            writer.join()
        assert segment.tables()["public.t"].column("_op").to_pylist()[0] == "insert"
    assert things.execute("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == [(0,)]


def test_what_cannot_be_opened_is_said(things: Database) -> None:
    with pytest.raises(UsageError):
        cdc.open("nothing")
    with pytest.raises(CheckpointUnreadable):
        cdc.open(things.dsn, resume="{}")
