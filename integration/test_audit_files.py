"""`jsonl:FILE`: every event once, in commit order, and all of them together are what the source holds."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from cdc.demo.shop import Workload
from cdc.model.selection import Selection
from cdc.options import Options
from cdc.runs import open_pipeline
from integration import processes
from integration.audit import assert_in_order, files, read, replay
from integration.conftest import Database, MySqlDatabase, make_database, make_my
from integration.mysql_work import make_tables, start_work
from integration.processes import Process, cdc
from integration.test_cli import in_words
from integration.test_kill import make_shop
from tests.seeds import chosen_at_random

ROUNDS = int(os.environ.get("CDC_KILL_ROUNDS", "5"))


def run(database: Database | MySqlDatabase, path: Path, *tables: str, **options: Any) -> None:
    """Until everything that the source has now is emitted."""
    chosen = Options(name=database.name, selection=Selection(tables), until_caught_up=True, **options)
    open_pipeline(database.dsn, f"jsonl:{path}", chosen).run()


def start(database: Database | MySqlDatabase, path: Path, *arguments: str, fault: str = "") -> Process:
    ends = (database.dsn, f"jsonl:{path}", "--name", database.name)
    return processes.start("run", *ends, *arguments, CDC_FAULT=fault)


def source_rows(database: Database | MySqlDatabase, folder: Path) -> dict[str, dict[str, Any]]:
    """What the source holds now, by a copy of it alone."""
    path = folder / f"oracle-{random.getrandbits(32):x}.jsonl"
    name = f"oracle_{random.getrandbits(32):x}"
    open_pipeline(database.dsn, f"jsonl:{path}", Options(name=name, until_caught_up=True)).run()
    assert {event["op"] for event in read(path)} <= {"copy", "reset"}
    cdc("teardown", database.dsn, "--name", name, "--yes")
    return replay(read(path))


@pytest.mark.parametrize("source", ["postgres", "mariadb"])
def test_kill_at_random_moments(source: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """D-23, D-05, D-18, D-19: no gap, nothing twice, in commit order; replayed, the events are the source's tables."""
    server = request.getfixturevalue(source)
    for database in make_database(server) if source == "postgres" else make_my(server):
        if isinstance(database, Database):
            make_shop(database, customers=500)
        else:
            make_tables(database, 500)
        path, rng = tmp_path / "audit.jsonl", chosen_at_random()
        for number in range(ROUNDS):
            work: Any
            if isinstance(database, Database):
                work = Workload(database.dsn, rate=1000, seed=number + 1)
                work.start()
            else:
                work = start_work(database, number + 1)
            process = start(database, path)
            time.sleep(rng.uniform(0.1, 1.2))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, process.stderr.read()  # type: ignore[union-attr]
            work.stop()
            if number in (ROUNDS // 2, ROUNDS - 1):
                run(database, path, rotate_bytes=1 << 14)
        events = read(path)
        assert_in_order(events)
        keyed = {event["table"] for event in events if event["key"] is not None}
        expected = source_rows(database, tmp_path)
        found = replay([event for event in events if event["table"] in keyed])
        assert {t: rows for t, rows in found.items() if rows} == {
            t: rows for t, rows in expected.items() if rows and t in keyed
        }
        assert len(files(path)) > 1, "no file was followed by another one"


@pytest.mark.parametrize("source", ["postgres", "mariadb"])
def test_tables_that_come_later(source: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Their rows are emitted part by part, and a table that comes again says so first; status knows, verify refuses."""
    server = request.getfixturevalue(source)
    for database in make_database(server) if source == "postgres" else make_my(server):
        path = tmp_path / "audit.jsonl"
        full = ["ALTER TABLE loose REPLICA IDENTITY FULL"] if source == "postgres" else []
        execute(database, "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a'), (2, 'b')")
        run(database, path)
        execute(
            database,
            *("CREATE TABLE later (id int PRIMARY KEY, v text)", "INSERT INTO later VALUES (1, 'x'), (2, 'y')"),
            *("CREATE TABLE loose (a int, b int)", *full, "INSERT INTO loose VALUES (1, 1), (1, 1)"),
            *("UPDATE t SET id = 3 WHERE id = 1", "DELETE FROM t WHERE id = 2"),
        )
        run(database, path)
        execute(database, "UPDATE later SET v = 'z' WHERE id = 1", "INSERT INTO loose VALUES (2, 2)")
        run(database, path)
        assert_in_order(read(path))
        events = [event for event in read(path) if event["op"] != "note"]
        assert (source == "mariadb") == any(event["op"] == "note" for event in read(path))
        moved = next(event for event in events if event["op"] == "update" and event["table"].endswith(".t"))
        before = {"id": 1} if source == "postgres" else {"id": 1, "v": "a"}  # a binlog has whole rows
        assert (moved["before"], moved["key"]) == (before, {"id": 3})
        assert replay_of(events, "t") == {'{"id": 3}': {"id": 3, "v": "a"}}
        assert replay_of(events, "later") == {'{"id": 1}': {"id": 1, "v": "z"}, '{"id": 2}': {"id": 2, "v": "y"}}
        loose = [event for event in events if event["table"].endswith(".loose")]
        begin = max(index for index, event in enumerate(loose) if event["op"] == "reset")
        answer = [event["after"] for event in loose[begin:] if event["op"] in ("copy", "insert")]
        assert answer == [{"a": 1, "b": 1}, {"a": 1, "b": 1}, {"a": 2, "b": 2}]

        target, name = f"jsonl:{path}", ("--name", database.name)
        assert cdc("resync", database.dsn, target, *name, "--tables", f"{schema_of(database)}.later").returncode == 0
        again = [event for event in read(path) if event["op"] != "note"][len(events) :]
        assert [event["op"] for event in again] == ["reset", "copy", "copy"]
        assert replay_of(read(path), "later") == replay_of(events, "later")
        assert json.loads(cdc("status", database.dsn, target, *name, "--json").stdout)["healthy"]
        refused = cdc("verify", database.dsn, target, *name)
        assert "cannot be compared" in in_words(refused)
        assert refused.returncode == 2


def execute(database: Database | MySqlDatabase, *statements: str) -> None:
    with database.connect() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def schema_of(database: Database | MySqlDatabase) -> str:
    return "public" if isinstance(database, Database) else database.name


def replay_of(events: list[Any], table: str) -> Any:
    return next(rows for name, rows in replay(events).items() if name.endswith(f".{table}"))
