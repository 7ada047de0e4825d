"""`cdc.open` on a real server: what it gives is what there was, and the examples of its documentation run."""

from __future__ import annotations

import datetime
import itertools
import re
import threading
import time
from decimal import Decimal
from pathlib import Path

import pytest

import cdc
from cdc.connectors import origin_of
from cdc.errors import CdcError, CheckpointUnreadable, UsageError
from cdc.faults import parse
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


def test_the_examples_of_the_documentation(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """O39: as they are written, one after the other, and the first of them twice."""
    monkeypatch.chdir(tmp_path)
    make_shop(database, customers=50)
    names = {"DSN": database.dsn}
    first, *others = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)
    for number, code in enumerate((first, first, *others)):
        exec(compile(code, f"{DOCUMENT.name}, example {max(number, 1)}", "exec"), names)
        if number < 2:
            (counted,) = database.execute("SELECT count(*) FROM shop.customers")
            assert names["totals"]["shop.customers"] == counted[0] + 8 * number  # type: ignore[index, operator]
            database.execute("UPDATE shop.customers SET id = id WHERE id < 9")
    assert names["frame"].height > 0  # type: ignore[attr-defined]


def test_rows_have_their_types_and_come_once(things: Database) -> None:
    """A copy, then what happened, from a checkpoint on; a value that its type cannot hold makes the column text; what
    the log left out is named (A-39)."""
    with cdc.open(things.dsn, name=things.name, until_caught_up=True) as stream:
        segments = []
        for segment in stream:
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
        found, answer = [], []
        for segment in stream:
            found += [row for table in segment.tables().values() for row in table.to_pylist()]
            answer += list(segment.events())
            segment.acknowledge()
    assert [row["_op"] for row in found] == ["update", "delete"]
    assert (found[0]["price"], found[0]["day"], found[0]["_unchanged"]) == ("NaN", "infinity", ["big"])
    assert [row["id"] for row in found] == [1, 2]
    assert [event.op for event in answer] == [Op.UPDATE, Op.DELETE, Op.TRUNCATE]
    assert answer[0].unchanged == ("big",)
    assert len({(event.position.text, event.ordinal) for event in answer}) == 3


def test_what_is_not_acknowledged_comes_again(things: Database) -> None:
    """A-05: nothing is acknowledged to the source that the program has not dealt with."""
    with cdc.open(things.dsn, name=things.name, until_caught_up=True) as stream:
        for segment in stream:
            segment.acknowledge()
            checkpoint = segment.checkpoint
    things.execute("INSERT INTO t (id) VALUES (3)")
    for _ in range(2):
        with cdc.open(things.dsn, name=things.name, resume=checkpoint) as stream:
            segment = next(stream)
            assert segment.tables()["public.t"].column("id").to_pylist() == [3]
    with cdc.open(things.dsn, name=things.name, resume=checkpoint) as stream:
        next(stream)
        with pytest.raises(UsageError, match="not acknowledged"):
            next(stream)


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
            for segment in stream:
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


def test_a_pattern_may_stand_alone(things: Database) -> None:
    """O39: one text is one pattern, not as many as it has letters."""
    things.execute("CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1)")
    with cdc.open(
        things.dsn, name=things.name, tables="public.*", exclude="public.other", until_caught_up=True
    ) as stream:
        found = set()
        for segment in stream:
            found |= set(segment.tables())
            segment.acknowledge()
    assert found == {"public.t"}


def test_advice_is_for_programs(things: Database) -> None:
    """O39: what a command line calls an option is called an argument here; commands stay commands."""
    with cdc.open(things.dsn, name=things.name, until_caught_up=True) as stream:
        for segment in stream:
            segment.acknowledge()
    with cdc.open(things.dsn, name=things.name) as stream, pytest.raises(CdcError) as caught:
        next(stream)
    hint = caught.value.hint or ""
    assert "another name=" in hint
    assert f"`cdc teardown SOURCE --name {things.name}`" in hint
    with cdc.open(things.dsn, name="no", tables="nothing") as stream, pytest.raises(CdcError) as caught:
        next(stream)
    assert "--" not in (caught.value.hint or "--").replace(f"`cdc teardown SOURCE --name {things.name}`", "")


def large(things: Database) -> None:
    things.execute("INSERT INTO t (id, big) SELECT i, repeat('x', 900) FROM generate_series(10, 2009) i")


def begun(things: Database) -> str:
    """The checkpoint after the copy."""
    with cdc.open(things.dsn, name=things.name, until_caught_up=True) as stream:
        for segment in stream:
            segment.acknowledge()
            checkpoint = segment.checkpoint
    assert checkpoint is not None
    return checkpoint


def test_leaving_in_the_middle_of_a_transaction(things: Database) -> None:
    """O24: both ends are let go of at once, whatever has been given and whatever waits."""
    checkpoint = begun(things)
    large(things)
    for parts in (1, 3):
        with cdc.open(things.dsn, name=things.name, resume=checkpoint, segment_bytes=100_000) as stream:
            for _ in range(parts):
                assert next(stream).checkpoint is None
            time.sleep(0.3)  # the next parts have come, and wait
            began = time.monotonic()
        assert time.monotonic() - began < 5
        active = "SELECT count(*) FROM pg_stat_replication WHERE application_name LIKE 'cdc%'"
        assert things.execute(active + f" AND application_name LIKE '%{things.name}%'") == [(0,)]
        assert [thread.name for thread in threading.enumerate() if thread.name in ("follow", "reader", "applier")] == []


def test_a_transaction_that_begins_again_says_so(things: Database) -> None:
    """O25: the connection is lost after some of its parts: they come once more, marked, and every row counts once."""
    checkpoint = begun(things)
    large(things)
    rows: list[int] = []
    marks = 0
    with cdc.open(things.dsn, name=things.name, resume=checkpoint, segment_bytes=100_000) as stream:
        for number, segment in enumerate(stream):
            if segment.begins_again:
                marks += 1
                rows = []
            rows += [value for table in segment.tables().values() for value in table.column("id").to_pylist()]
            if number == 2:
                things.execute(
                    "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
                    "WHERE database = current_database() AND active"
                )
            segment.acknowledge()
            if segment.checkpoint is not None and rows:
                break
    assert marks >= 1
    assert rows == list(range(10, 2010))


def test_a_copy_that_begins_again_says_so(things: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """O25: the same where a copy is cut off: a table that is given from its first row on is named."""
    large(things)
    monkeypatch.setattr("cdc.faults._armed", parse("copy.before_done=raise"))
    rows: list[int] = []
    emptied = 0
    with cdc.open(things.dsn, name=things.name, segment_bytes=50_000, until_caught_up=True) as stream:
        for segment in stream:
            if "public.t" in segment.emptied:
                emptied += 1
                rows = []
            for table in segment.tables().values():
                rows += table.column("id").to_pylist()
            segment.acknowledge()
    assert emptied == 2
    assert sorted(rows) == [1, 2, *range(10, 2010)]


@pytest.mark.parametrize(
    "form", ["postgresql://u@h/shop", "postgresql://u@h?dbname=shop", "postgresql://u@h/?dbname=shop"]
)
def test_the_database_is_known_by_any_form_of_dsn(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """O26: as libpq finds it."""
    assert origin_of(form) == ("postgresql", "shop")
    assert origin_of("postgresql://shop@h")[1] == "shop"
    assert origin_of("mysql://u@h/sh%6Fp?ssl_mode=required") == ("mysql", "shop")
    monkeypatch.setenv("PGDATABASE", "other")
    assert origin_of("postgresql://shop@h")[1] == "other"
    assert origin_of(form)[1] == "shop"
