"""`cdc tail --slot`: only what the reader has taken is acknowledged, and nothing that was left out."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest

from integration.conftest import Database, MySqlDatabase
from integration.processes import COMMAND, cdc
from integration.test_cli import in_words

TAIL = [*COMMAND, "tail"]


@pytest.fixture
def slot(database: Database) -> str:
    """A slot that was read up to now, of a table without rows."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    assert keys(database, "kept") == []
    return "kept"


def keys(database: Database, slot: str, *arguments: str) -> list[int]:
    """What comes from a slot."""
    done = cdc("tail", database.dsn, "--slot", slot, "--until-caught-up", *arguments)
    assert done.returncode == 0, in_words(done)
    return ids(done.stdout.splitlines())


def ids(lines: Iterable[str | bytes]) -> list[int]:
    """Of the rows that lines are about; one about a shape stands before them."""
    events = [json.loads(line) for line in lines]
    return [event["key"]["id"] for event in events if event["op"] != "schema"]


def confirmed(database: Database) -> list[tuple[object, ...]]:
    return database.execute("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'kept'")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_a_reader_has_not_taken_comes_again(database: Database, slot: str, unbuffered: str) -> None:
    """H10, H11: one who takes a part and dies gets all of the other transactions the next time, whatever fits into the
    pipe and however Python writes."""
    for number in range(300):
        database.execute(f"INSERT INTO t VALUES ({number}, repeat('x', 200))")
    database.execute("INSERT INTO t SELECT n, 'many' FROM generate_series(1000, 3000) n")
    command = [*TAIL, database.dsn, "--slot", slot, "--until-caught-up"]
    environment = os.environ | ({"PYTHONUNBUFFERED": unbuffered} if unbuffered else {})
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, bufsize=0)
    assert running.stdout is not None
    taken = running.stdout.read(20_000)
    running.stdout.close()
    running.wait(30)
    first = ids(taken.split(b"\n")[:-1])
    again = keys(database, slot)
    assert first == list(range(len(first)))
    assert set(first) | set(again) == {*range(300), *range(1000, 3001)}
    assert again == sorted(again)
    assert keys(database, slot) == []


def test_a_reader_who_waits_gets_all(database: Database, slot: str) -> None:
    """H10: nothing is lost in a raw stream to one who reads slowly."""
    database.execute("INSERT INTO t SELECT n, repeat('x', 100) FROM generate_series(1, 5000) n")
    running = subprocess.Popen(
        [*TAIL, database.dsn, "--slot", slot, "--until-caught-up"],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert running.stdout is not None
    assert ids(running.stdout) == list(range(1, 5001))
    assert running.wait(30) == 0


def test_a_place_of_the_future_is_refused(database: Database, slot: str) -> None:
    """H12, H3: by position and by time; the slot stays where it is, and so does what waits in it."""
    database.execute("INSERT INTO t VALUES (1, 'a')")
    before = confirmed(database)
    for begin, said in (("FFFF/0", "in the future"), ("2999-01-01", "in the future"), ("2026", "neither a time")):
        refused = cdc("tail", database.dsn, "--slot", slot, "--until-caught-up", "--from", begin)
        assert refused.returncode == 2
        assert said in in_words(refused)
    assert confirmed(database) == before
    assert keys(database, slot) == [1]


def test_what_is_left_out_is_not_acknowledged(database: Database, slot: str) -> None:
    """H12: `--from` looks at a part of what waits in a slot; all of it comes to the next one who does not say so."""
    for number in range(3):
        database.execute(f"INSERT INTO t VALUES ({number}, 'a')")
    before = confirmed(database)
    now = datetime.now(UTC).isoformat()
    assert keys(database, slot, "--from", now) == []
    middle = database.execute("SELECT pg_current_wal_lsn()")
    database.execute("INSERT INTO t VALUES (3, 'a')")
    assert keys(database, slot, "--from", str(middle[0][0])) == [3]
    assert confirmed(database) == before
    assert keys(database, slot) == [0, 1, 2, 3]


def test_a_slot_that_cannot_be_made_leaves_nothing(database: Database) -> None:
    """H13: where the server makes no slot (it has none left, or not of that name), no publication stays behind, and the
    next try is not refused for it."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    for _ in range(2):
        refused = cdc("tail", database.dsn, "--slot", "Mine", "--until-caught-up")
        assert refused.returncode != 0
        assert "invalid character" in in_words(refused)
    assert database.execute("SELECT count(*) FROM pg_publication") == [(0,)]


def test_a_place_of_the_future_of_a_binlog_is_refused(my: MySqlDatabase) -> None:
    """H12, H2: a byte, a GTID and a time that have not come yet; a time without a zone is UTC."""
    my.execute("CREATE TABLE t (id int PRIMARY KEY)")
    (at, *_) = my.execute("SHOW BINARY LOG STATUS" if my.flavor == "mysql" else "SHOW MASTER STATUS")
    gtid = f"{my.execute('SELECT @@server_uuid')[0][0]}:999999" if my.flavor == "mysql" else "0-1-999999"
    for begin in (f"{at[0]}:99999999", gtid, "2999-01-01"):
        refused = cdc("tail", my.dsn, "--until-caught-up", "--from", begin)
        assert refused.returncode == 2, begin
        assert "in the future" in in_words(refused)
    assert cdc("tail", my.dsn, "--until-caught-up", "--from", "20261129").returncode == 2
