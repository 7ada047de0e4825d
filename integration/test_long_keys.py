"""Keys that PostgreSQL stores out of line: the new row leaves them out, and the old one has them (P12)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cdc.demo.server import PrivatePostgres
from cdc.options import Options
from cdc.runs import open_pipeline
from cdc.target import Mode
from integration.audit import read, replay
from integration.conftest import Database, make_replica
from integration.test_versions import SOME_POSTGRES

# What identifies the rows of a table (k text, l int, v int, big text), by its name.
SHAPES = {
    "one": "ALTER TABLE one ADD PRIMARY KEY (k)",
    "two": "ALTER TABLE two ADD PRIMARY KEY (l, k)",
    "whole": "ALTER TABLE whole ADD PRIMARY KEY (k); ALTER TABLE whole REPLICA IDENTITY FULL",
    "by_index": "CREATE UNIQUE INDEX own ON by_index (k, l); ALTER TABLE by_index REPLICA IDENTITY USING INDEX own",
    "keyless": "ALTER TABLE keyless REPLICA IDENTITY FULL",
}
CHANGES = [
    "UPDATE {0} SET v = v + 1; UPDATE {0} SET v = v + 1",
    "UPDATE {0} SET l = l + 10 WHERE l < 3",
    "UPDATE {0} SET k = k || '-moved', v = 0 WHERE v % 2 = 0",
    "UPDATE {0} SET big = big || '.' WHERE l IN (4, 5)",
    "BEGIN; DELETE FROM {0} WHERE l = 6; UPDATE {0} SET v = v * 2; INSERT INTO {0} VALUES ({1}, 6, 6, 'again'); COMMIT",
    "UPDATE {0} SET k = 'short' || l WHERE l > 10; UPDATE {0} SET v = v + 1",
]
LONG = "repeat(md5(i::text), 70)"  # 2,240 bytes


@pytest.fixture
def filled(database: Database) -> Database:
    fill(database)
    return database


def fill(database: Database) -> None:
    """A table of each shape, and one of partitions."""
    for name, identified in SHAPES.items():
        database.execute(f"CREATE TABLE {name} (k text NOT NULL, l int NOT NULL, v int, big text); {identified}")
    database.execute(
        "CREATE TABLE parts (k text NOT NULL, l int, v int, big text, PRIMARY KEY (l, k)) PARTITION BY RANGE (l); "
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (8); "
        "CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (8) TO (1000)"
    )
    for name in (*SHAPES, "parts_1", "parts_2"):
        database.execute(f"ALTER TABLE {name} ALTER k SET STORAGE EXTERNAL, ALTER big SET STORAGE EXTERNAL")
    for name in (*SHAPES, "parts"):
        database.execute(f"INSERT INTO {name} SELECT {LONG}, i, i, {LONG} || i FROM generate_series(1, 9) i")


def work(database: Database) -> None:
    for name in (*SHAPES, "parts"):
        for change in CHANGES:
            database.execute(change.format(name, LONG.replace("i::text", "'6'")))


def rows(database: Database, name: str) -> list[tuple[object, ...]]:
    return sorted(database.execute(f"SELECT k, l, v, big FROM {name}"))  # type: ignore[type-var]


@pytest.mark.parametrize("version", SOME_POSTGRES)
def test_a_mirror(version: int, tmp_path: Path) -> None:
    """P12, A-38: several changes of one row in one segment, changes of keys with a part that stays among them."""
    with PrivatePostgres(version) as server:
        server.create_database("v")
        database = Database(server, "v")
        fill(database)
        replica = make_replica(database, tmp_path)
        replica.catch_up()
        work(database)
        replica.catch_up()
        for name in (*SHAPES, "parts"):
            assert sorted(replica.query(f"SELECT k, l, v, big FROM {name}")) == rows(database, name)  # type: ignore[type-var]


def test_history(filled: Database, tmp_path: Path) -> None:
    """P12: what is valid now is what the source has, and the same work makes as many versions of each table."""
    replica = make_replica(filled, tmp_path, mode=Mode.HISTORY)
    replica.catch_up()
    work(filled)
    replica.catch_up()
    for name in (*SHAPES, "parts"):
        assert sorted(replica.query(f"SELECT k, l, v, big FROM {name}")) == rows(filled, name)  # type: ignore[type-var]
    counts = {replica.query(f"SELECT count(*) FROM public_history.{name}")[0] for name in SHAPES}
    assert len(counts) == 1


def test_events(filled: Database, tmp_path: Path) -> None:
    """P12: every event has its key; applied one after the other they make the source's rows."""
    path = tmp_path / "audit.jsonl"
    for step in (lambda: None, lambda: work(filled)):
        step()
        open_pipeline(filled.dsn, f"jsonl:{path}", Options(name=filled.name, until_caught_up=True)).run()
    found = replay([event for event in read(path) if event["table"] != "public.keyless"])
    for name in (*SHAPES.keys() - {"keyless"}, "parts"):
        held = [(row["k"], row["l"], row["v"], row["big"]) for row in found[f"public.{name}"].values()]
        assert sorted(held) == rows(filled, name)


def test_debezium(filled: Database, tmp_path: Path) -> None:
    """P12: no key is the placeholder of a value that the log left out."""
    path = tmp_path / "audit.jsonl"
    options = Options(name=filled.name, until_caught_up=True, format="debezium")
    for step in (lambda: None, lambda: work(filled)):
        step()
        open_pipeline(filled.dsn, f"jsonl:{path}", options).run()
    updates = [row for row in map(json.loads, path.read_bytes().splitlines()) if row.get("op") == "u"]
    assert len(updates) > 100
    assert {row["after"]["k"] == "__debezium_unavailable_value" for row in updates} == {False}
