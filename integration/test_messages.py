"""What a consumer of messages relies on: an order that compares as text, values that a key carries along as it moves,
and the shape of a table before its rows; from real servers, through Kafka, files and `cdc tail`."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

from cdc.options import Options
from cdc.runs import open_pipeline
from integration.audit import lines as read_lines
from integration.conftest import Database, MySqlDatabase
from integration.kafka import PrivateKafka, Record
from integration.processes import cdc, start
from integration.test_cli import in_words

Source = Database | MySqlDatabase
Row = dict[str, Any]

UNAVAILABLE = "__debezium_unavailable_value"
OLD_KEY, NEW_KEY = "__debezium.oldkey", "__debezium.newkey"


def run(source: Source, target: str, form: str) -> None:
    """Everything up to now."""
    open_pipeline(source.dsn, target, Options(source.name, format=form, until_caught_up=True)).run()


def execute(source: Source, *statements: str) -> None:
    with source.connect() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def rows(source: Source, query: str) -> list[tuple[Any, ...]]:
    with source.connect() as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return [tuple(row) for row in cursor.fetchall()]


def placed(records: list[Record]) -> list[tuple[str, Record]]:
    """Messages of all partitions in the order of the source's log; of one change in that of its messages."""
    at = {record: (json.loads(record.value)["source"]["sequence"], record) for record in records if record.value}
    ranks = {"d": 0, "c": 1}
    return sorted(at.values(), key=lambda e: (e[0], ranks.get(json.loads(e[1].value or b"")["op"], 0)))


def consumed(records: list[Record]) -> dict[str, Row]:
    """The rows that a consumer has who takes a row along to the key that a header names."""
    held: dict[str, Row] = {}
    moving: dict[bytes, Row] = {}
    for _, record in placed(records):
        event, headers = json.loads(record.value or b""), dict(record.headers)
        if event["op"] == "m":
            continue
        assert record.key is not None
        key = record.key.decode()
        if event["op"] == "d":
            old = held.pop(key)
            if NEW_KEY in headers:
                moving[record.key] = old
            continue
        old = moving.pop(headers[OLD_KEY]) if OLD_KEY in headers else held.get(key, {})
        held[key] = {name: old[name] if value == UNAVAILABLE else value for name, value in event["after"].items()}
    assert moving == {}
    return held


def test_values_that_a_key_carries_along(anywhere: Source, kafka: PrivateKafka) -> None:
    """A-37, A-39: rows go to other keys by statements that leave a large value out of the log; a consumer has it."""
    target, rng = f"kafka:{kafka.address('partitions=3')}", random.Random(1)
    large = ["ALTER TABLE t ALTER v SET STORAGE EXTERNAL"] if isinstance(anywhere, Database) else []
    values = [(number, f"{number} " + "x" * 3000) for number in range(40)]
    inserts = ", ".join(f"({number}, '{text}', 0)" for number, text in values)
    execute(anywhere, "CREATE TABLE t (id int PRIMARY KEY, v text, n int)", *large, f"INSERT INTO t VALUES {inserts}")
    run(anywhere, target, "debezium")
    keys, statements = list(range(40)), []
    for number in range(60):
        at = rng.randrange(len(keys))
        statements += ["BEGIN", f"UPDATE t SET id = {1000 + number}, n = n + 1 WHERE id = {keys[at]}"]
        keys[at] = 1000 + number
        statements.append(f"UPDATE t SET n = {number} WHERE id = {rng.choice(keys)}")
        if number % 5 == 0:
            statements.append(f"DELETE FROM t WHERE id = {keys.pop()}")
        statements.append("COMMIT")
    execute(anywhere, *statements)
    run(anywhere, target, "debezium")
    emitted = kafka.events(anywhere.name)
    places = [place for place, _ in placed(emitted)]
    assert len({len(place) for place in places}) == 1
    found = {(row["id"], row["v"], row["n"]) for row in consumed(emitted).values()}
    assert found == set(rows(anywhere, "SELECT id, v, n FROM t"))
    left_out = [record for record in emitted if record.value and UNAVAILABLE.encode() in record.value]
    assert bool(left_out) == isinstance(anywhere, Database)
    moved = [record for record in emitted if record.headers and record.value is None]
    assert len(moved) == 60
    assert {name for record in moved for name, _ in record.headers} == {NEW_KEY}


def columns(content: Row) -> list[Row]:
    """The columns that a message about a shape names."""
    found: list[Row] = (content["tableChanges"][0]["table"] if "tableChanges" in content else content)["columns"]
    return found


def named(content: Row) -> list[str]:
    return [column["name"] for column in columns(content)]


def fields(content: Row) -> set[str]:
    """The columns that an event of a row has."""
    return set((content["after"] or {}) | (content["before"] or {}))


SHAPES = [
    ("ALTER TABLE t RENAME COLUMN v TO w", "INSERT INTO t VALUES (2, 'b')"),
    (
        "ALTER TABLE t ADD n int",
        "UPDATE t SET n = 1 WHERE id = 1",
        "ALTER TABLE t DROP COLUMN w",
        "INSERT INTO t VALUES (3, 3)",
    ),
    (),
    ("DELETE FROM t WHERE id = 1",),
]
COLUMNS = [["id", "v"], ["id", "w"], ["id", "w", "n"], ["id", "n"]]


def test_shapes_in_kafka(anywhere: Source, kafka: PrivateKafka) -> None:
    """A-50, A-51, D-23: a reader of the topic of shapes knows each message's, and after a restart the last one."""
    target = f"kafka:{kafka.address()}"
    execute(anywhere, "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a')")
    run(anywhere, target, "debezium")
    for statements in SHAPES:
        execute(anywhere, *statements)
        run(anywhere, target, "debezium")
    shapes = kafka.read(f"{anywhere.name}.schema")
    contents = [json.loads(record.value or b"") for record in shapes]
    assert [named(content) for content in contents] == COLUMNS
    assert len({record.key for record in shapes}) == 1  # so that the last one is what stays
    identities = [{column["name"]: column["identity"] for column in columns(content)} for content in contents]
    assert identities[0]["v"] == identities[1]["w"]  # it is the same column
    events = [json.loads(record.value) for record in kafka.events(anywhere.name) if record.value]
    emitted = [fields(event) for event in events if event["op"] in ("c", "r", "u")]
    assert [set(names) for names in COLUMNS] == sorted(emitted, key=emitted.index)


def test_shapes_in_files(anywhere: Source, tmp_path: Path) -> None:
    """A-50, A-51, D-23: a line before the first of a shape, and none again when the pipeline is started again."""
    path = tmp_path / "audit.jsonl"
    execute(anywhere, "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a')")
    run(anywhere, f"jsonl:{path}", "json")
    for statements in SHAPES:
        execute(anywhere, *statements)
        run(anywhere, f"jsonl:{path}", "json")
    assert shapes_in_order(read_lines(path)) == COLUMNS


def test_a_shape_that_changes_while_it_is_followed(anywhere: Source, tmp_path: Path) -> None:
    """A-50: what has no tables cannot be compared with the source, which is no reason to hold a table back."""
    path = tmp_path / "audit.jsonl"
    execute(anywhere, "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a')")
    follower = start("run", anywhere.dsn, f"jsonl:{path}", "--name", anywhere.name)

    def wait_for(key: int) -> None:
        until = time.monotonic() + 20
        while {"id": key} not in [event["key"] for event in emitted()]:
            assert follower.poll() is None
            assert time.monotonic() < until, emitted()
            time.sleep(0.05)

    def emitted() -> list[Row]:
        return read_lines(path) if path.exists() else []

    wait_for(1)
    for number in (2, 3):
        execute(anywhere, f"ALTER TABLE t ADD c{number} int", f"INSERT INTO t (id) VALUES ({number})")
        wait_for(number)
        time.sleep(0.5)  # so that the comparison of tables whose shape has changed has looked for them
    follower.terminate()
    _, said = follower.communicate(timeout=60)
    assert follower.returncode == 0, said
    assert "held" not in said
    assert [len(names) for names in shapes_in_order(emitted())] == [2, 3, 4]


def shapes_in_order(emitted: list[Row]) -> list[list[str]]:
    """The shapes that lines describe, each row after its own."""
    shapes: list[list[str]] = []
    for event in emitted:
        if event["op"] == "schema":
            shapes.append(named(event))
        elif event["op"] not in ("note", "reset"):
            assert fields(event) <= set(shapes[-1])
            assert event["op"] == "delete" or fields(event) == set(shapes[-1])
    return shapes


def test_shapes_in_a_tail(database: Database) -> None:
    """A-50, A-51: before the first line of each; a choice of operations may have them or not."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    for slot in ("all", "chosen", "rows"):
        assert tail(database, slot) == []
    database.execute("INSERT INTO t VALUES (1, 'a')")
    for statements in SHAPES:
        execute(database, *statements)
    assert shapes_in_order(tail(database, "all")) == COLUMNS
    assert [event["op"] for event in tail(database, "chosen", "--op", "schema,delete")] == ["schema"] * 4 + ["delete"]
    assert [event["op"] for event in tail(database, "rows", "--where", "id = 1")] == ["insert", "update", "delete"]
    database.execute("INSERT INTO t VALUES (9)")
    assert shapes_in_order(tail(database, "all")) == COLUMNS[-1:]  # a reader that starts has it again


def tail(database: Database, slot: str, *arguments: str) -> list[Row]:
    done = cdc("tail", database.dsn, "--until-caught-up", "--slot", slot, *arguments)
    assert done.returncode == 0, in_words(done)
    return [json.loads(line) for line in done.stdout.splitlines()]
