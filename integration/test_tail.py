"""`cdc tail`: what is chosen, where it begins, and that nothing is emitted twice."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from integration.audit import assert_in_order
from integration.conftest import Database, MySqlDatabase
from integration.processes import cdc, start
from integration.test_cli import in_words

ROWS = "INSERT INTO t VALUES (1, 5.50, 'a'), (2, 120, NULL), (3, 7, 'it''s')"


def tail(database: Database | MySqlDatabase, *arguments: str) -> list[dict[str, Any]]:
    """The events, without the shapes of tables."""
    return [event for event in lines(database, *arguments) if event.get("op") != "schema"]


def lines(database: Database | MySqlDatabase, *arguments: str) -> list[dict[str, Any]]:
    done = cdc("tail", database.dsn, "--until-caught-up", *arguments)
    assert done.returncode == 0, in_words(done)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_is_chosen(database: Database) -> None:
    """--op, --where and --tables together; a choice changes nothing about the events that are left."""
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, price numeric(8,2), note text); CREATE TABLE u (id int PRIMARY KEY)"
    )
    slots = [("--slot", name) for name in ("all", "ops", "where", "both", "wrong")]
    for slot in slots:
        assert tail(database, *slot) == []
    database.execute(
        f"{ROWS}; UPDATE t SET price = price + 100 WHERE id <> 2; DELETE FROM t WHERE id = 1; INSERT INTO u VALUES (1)"
    )
    everything = tail(database, *slots[0])
    assert [event["op"] for event in everything] == ["insert"] * 3 + ["update"] * 2 + ["delete", "insert"]
    assert tail(database, *slots[1], "--op", "update,delete") == everything[3:6]
    chosen = tail(
        database, *slots[2], "--tables", "public.t", "--where", "price > 100 and (note is null or note like '%''%')"
    )
    assert [(e["op"], e["key"]["id"]) for e in chosen] == [("insert", 2), ("update", 3)]
    for event in chosen:  # the total is of the tables that are listened to
        assert {**event, "total": 7} in everything
    assert [e["id"] for e in tail(database, *slots[3], "--where", "id = 1", "--op", "delete")] == [everything[5]["id"]]
    done = cdc("tail", database.dsn, "--until-caught-up", *slots[4], "--where", "price > 1")
    assert "does not fit public.u" in in_words(done)
    assert done.returncode == 2
    for wrong in (
        ["--op", "upsert"],
        ["--where", "price >"],
        ["--format", "xml"],
        ["--from", "yesterday"],
        ["--from", "0/1"],
    ):
        done = cdc("tail", database.dsn, "--until-caught-up", *wrong)
        assert done.returncode == 2, wrong


def test_from_a_place_of_a_slot(database: Database) -> None:
    """--from goes back no farther than the slot was read, and without a slot nowhere."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    for slot in ("one", "two"):
        assert tail(database, "--slot", slot) == []
    for number in range(4):
        database.execute(f"INSERT INTO t VALUES ({number})")
        time.sleep(0.01)
    events = tail(database, "--slot", "one")
    assert tail(database, "--slot", "two", "--from", events[2]["committed_at"]) == events[2:]
    refused = cdc("tail", database.dsn, "--until-caught-up", "--slot", "one", "--from", events[2]["position"])
    assert "is gone" in in_words(refused)
    assert refused.returncode == 2
    assert cdc("tail", database.dsn, "--until-caught-up", "--from", events[2]["position"]).returncode == 2
    assert (
        cdc("tail", database.dsn, "--until-caught-up", "--slot", "new", "--from", events[2]["position"]).returncode == 2
    )


def test_from_a_place_of_a_binlog(my: MySqlDatabase) -> None:
    """--from takes a file and a byte, GTIDs and a time; every event as it was, with the same identity."""
    my.execute("CREATE TABLE t (id int PRIMARY KEY, v varchar(20))")
    rows = ("--op", "insert,update,delete")  # MariaDB has the statements as well
    at = my.execute("SHOW BINARY LOG STATUS" if my.flavor == "mysql" else "SHOW MASTER STATUS")[0]
    begin = f"{at[0]}:{at[1]}"
    time.sleep(1.1)  # a binlog has full seconds
    moment = datetime.now(UTC).isoformat()
    time.sleep(1.1)
    my.execute(
        "INSERT INTO t VALUES (1, 'a')",
        "UPDATE t SET v = 'b'",
        "FLUSH BINARY LOGS",
        "INSERT INTO t VALUES (2, 'c'), (3, 'd')",
        "DELETE FROM t WHERE id < 3",
    )
    events = tail(my, *rows, "--tables", "t", "--from", begin)
    assert [(e["op"], e["key"]["id"]) for e in events] == [
        ("insert", 1),
        ("update", 1),
        ("insert", 2),
        ("insert", 3),
        ("delete", 1),
        ("delete", 2),
    ]
    assert_in_order(events)
    assert tail(my, *rows, "--tables", "t", "--from", moment) == events
    # A GTID names what is known already: the one of the first transaction leaves that out.
    assert tail(my, *rows, "--tables", "t", "--from", events[0]["position"]) == events[1:]
    assert tail(my, *rows, "--tables", "t", "--from", datetime.now(UTC).isoformat()) == []
    for wrong in ("nowhere.000001:4", "x", "1999-01-01T00:00:00Z"):
        assert cdc("tail", my.dsn, "--until-caught-up", "--from", wrong).returncode in (2, 3), wrong


def test_a_lost_connection_tells_nothing_twice(database: Database) -> None:
    """D-05: the slot knows later than we do how far we were."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    assert tail(database, "--slot", "kept") == []
    running = start("tail", database.dsn, "--slot", "kept")
    database.execute("INSERT INTO t VALUES (-1)")
    assert [json.loads(running.stdout.readline())["op"] for _ in range(2)] == ["schema", "insert"]
    for number in range(20):
        database.execute(f"INSERT INTO t VALUES ({number})")
        assert json.loads(running.stdout.readline())["key"] == {"id": number}
        if number % 5 == 2:
            database.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'kept'"
            )
    running.terminate()
    assert running.wait(20) == 0


@pytest.mark.parametrize("form", ["json", "debezium", "cloudevents"])
def test_formats_are_lines(database: Database, form: str) -> None:
    """Each event is one line of JSON."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    assert tail(database, "--slot", "kept") == []
    database.execute("INSERT INTO t VALUES (1, E'a\\nb')")
    assert len(lines(database, "--slot", "kept", "--format", form)) == 2  # the shape of the table, and the row


def test_notes(database: Database) -> None:
    """What applications write with pg_logical_emit_message comes in its place; the ordinals of changes do not move."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    assert tail(database, "--slot", "kept") == []
    database.execute(
        "BEGIN; SELECT pg_logical_emit_message(true, 'who', 'ann'); INSERT INTO t VALUES (1); "
        "SELECT pg_logical_emit_message(true, 'why', '\\x00ff'::bytea), pg_logical_emit_message(true, 'why', 'more'); "
        "INSERT INTO t VALUES (2); SELECT pg_logical_emit_message(true, 'end', ''); COMMIT"
    )
    database.execute("SELECT pg_logical_emit_message(true, 'alone', '{\"a\": 1}')")
    events = tail(database, "--slot", "kept")
    assert [(e["op"], e.get("prefix"), e.get("content"), e["ordinal"]) for e in events] == [
        ("note", "who", "ann", 0),
        ("insert", None, None, 0),
        ("note", "why", "\\x00ff", 1),
        ("note", "why", "more", 1),
        ("insert", None, None, 1),
        ("note", "end", "", 2),
        ("note", "alone", '{"a": 1}', 0),
    ]
    assert len({event["id"] for event in events}) == len(events)
    assert {event["transaction"] for event in events[:6]} == {events[0]["transaction"]}


def test_notes_of_a_binlog(my: MySqlDatabase) -> None:
    """The text of each statement comes before the first of its changes; of tables that are not meant, none does."""
    my.execute("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE u (id int PRIMARY KEY)")
    at = my.execute("SHOW BINARY LOG STATUS" if my.flavor == "mysql" else "SHOW MASTER STATUS")[0]
    texts = ("INSERT INTO t VALUES (1), (2)", "INSERT INTO u VALUES (7)", "DELETE FROM t WHERE id = 2")
    my.execute(
        *([] if my.flavor == "mariadb" else ["SET binlog_rows_query_log_events = ON"]), "BEGIN", *texts, "COMMIT"
    )
    events = tail(my, "--tables", "t", "--from", f"{at[0]}:{at[1]}")
    assert [(e["op"], e.get("content"), e["ordinal"]) for e in events] == [
        ("note", texts[0], 0),
        ("insert", None, 0),
        ("insert", None, 1),
        ("note", texts[2], 2),
        ("delete", None, 2),
    ]
    assert len({event["id"] for event in events}) == len(events)
    messages = tail(my, "--tables", "t", "--from", f"{at[0]}:{at[1]}", "--format", "debezium", "--op", "note")
    assert [bytes.fromhex(message["message"]["content"]).decode() for message in messages] == [texts[0], texts[2]]


def test_a_session_that_logs_less(my: MySqlDatabase) -> None:
    """B-24: what it leaves out of the old row is not there; it is no reason to stop, nor is it a null."""
    my.execute("CREATE TABLE t (id int PRIMARY KEY, a int, b int)", "INSERT INTO t VALUES (1, 5, NULL), (2, 6, 7)")
    at = my.execute("SHOW BINARY LOG STATUS" if my.flavor == "mysql" else "SHOW MASTER STATUS")[0]
    my.execute(
        "UPDATE t SET a = 50 WHERE id = 1",
        "SET SESSION binlog_row_image = 'MINIMAL'",
        "UPDATE t SET b = 70 WHERE id = 2",
        "DELETE FROM t WHERE id = 1",
    )
    events = tail(my, "--op", "update,delete", "--tables", "t", "--from", f"{at[0]}:{at[1]}")
    assert [(e["op"], e["before"], e["before_image"], e["after"], e["unchanged"]) for e in events] == [
        ("update", {"id": 1, "a": 5, "b": None}, "full", {"id": 1, "a": 50, "b": None}, []),
        ("update", {"id": 2}, "partial", {"id": 2, "b": 70}, ["a"]),
        ("delete", {"id": 1}, "partial", None, []),
    ]
