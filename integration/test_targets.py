"""What one target has, and another has not: options, rules for names, and kinds of it."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from cdc.errors import UsageError
from cdc.model.standing import State
from cdc.options import Options
from cdc.runs import open_fanout, open_pipeline
from integration.conftest import Database
from integration.processes import cdc


@pytest.mark.parametrize(
    ("target", "option", "has"),
    [
        ("duckdb:x.duckdb", ("--format", "avro"), "--memory, --mode, --publish"),
        ("duckdb:x.duckdb", ("--rotate", "1MB"), "--memory, --mode, --publish"),
        ("duckdb:x.duckdb", ("--every", "10s"), "--memory, --mode, --publish"),
        ("duckdb:x.duckdb", ("--journal-budget", "1GB"), "--memory, --mode, --publish"),
        ("jsonl:x.jsonl", ("--mode", "history"), "--format, --rotate"),
        ("jsonl:x.jsonl", ("--memory", "1GB"), "--format, --rotate"),
        ("kafka://nowhere", ("--rotate", "1MB"), "--format"),
        ("journal:j", ("--format", "json"), "--journal-age, --journal-budget, --journal-size"),
    ],
)
def test_options_that_a_target_does_not_have(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, option: tuple[str, str], has: str
) -> None:
    """O34: refused at start, with those that it has, before anything is made."""
    monkeypatch.chdir(tmp_path)
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    done = cdc("run", database.dsn, target, *option, "--until-caught-up")
    assert done.returncode == 2, done.stderr
    assert f"{target} cannot use {option[0]}." in done.stderr
    assert f"{target} has {has}." in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_options_of_one_of_several_targets(database: Database, tmp_path: Path) -> None:
    """O34: what one of them has is for that one; what none has is refused."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    lines, tables = f"jsonl:{tmp_path}/a.jsonl", f"duckdb:{tmp_path}/b.duckdb"
    several = ("run", database.dsn, "--journal", str(tmp_path / "several"), "--to", lines, "--to", tables)
    said = cdc(*several, "--format", "debezium", "--mode", "history", "--journal-age", "1d", "--until-caught-up")
    assert said.returncode == 0, said.stderr
    assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[-1])["op"] == "r"
    with duckdb.connect(str(tmp_path / "b.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT mode FROM _cdc.mode").fetchall() == [("history",)]
    done = cdc("run", database.dsn, "--journal", str(tmp_path / "j"), "--to", lines, "--mode", "history")
    assert done.returncode == 2
    assert "--mode" in done.stderr
    assert not (tmp_path / "j").exists()


@pytest.mark.parametrize("target", ["sqlite:x.db", "sqlite:x.duckdb", "x.db:y.db", "http://h/x.db", "parquet:x"])
def test_kinds_of_target_that_there_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """O34: said as what it is, whatever the file's name ends with."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="not a target that cdc knows") as refused:
        open_pipeline("postgresql://nowhere/x", target, Options())
    assert "duckdb:FILE" in str(refused.value.hint)


def test_a_file_that_is_no_database_of_duckdb(database: Database, tmp_path: Path) -> None:
    """O34: another engine's file."""
    import sqlite3

    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("CREATE TABLE t (v int)")
    connection.close()
    done = cdc("run", database.dsn, str(tmp_path / "x.db"), "--until-caught-up")
    assert done.returncode == 2, done.stderr
    assert "report this" not in done.stderr


CASES = 'CREATE TABLE t (id int PRIMARY KEY, a int, "A" int); CREATE TABLE "T" (id int PRIMARY KEY)'


@pytest.mark.parametrize("target", ["jsonl:x.jsonl", "journal:j"])
def test_names_that_differ_in_case_only(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """O7: tables and columns like that go to every target that sees case, at first and later on."""
    monkeypatch.chdir(tmp_path)
    database.execute(CASES + "; INSERT INTO t VALUES (1, 2, 3)")
    options = Options(database.name, until_caught_up=True)
    open_pipeline(database.dsn, target, options).run()
    database.execute('CREATE TABLE u (id int PRIMARY KEY, a int, "A" int); CREATE TABLE "U" (id int PRIMARY KEY)')
    pipeline = open_pipeline(database.dsn, target, options)
    pipeline.run()
    states = {name.name: table.state for name, table in pipeline.view().tables.items()}
    assert states == dict.fromkeys(("t", "T", "u", "U"), State.FOLLOWING)


def test_check_says_for_which_target(database: Database) -> None:
    """O7: it does not stop replication, but into DuckDB."""
    database.execute(CASES)
    done = cdc("check", database.dsn)
    assert done.returncode == 0
    assert "such a target refuses them" in done.stdout


def test_one_feed_of_several_cannot_take_a_table(database: Database, tmp_path: Path) -> None:
    """O7: DuckDB holds the table; the lines have it."""
    database.execute(CASES + "; INSERT INTO t VALUES (1, 2, 3)")
    lines, tables = f"jsonl:{tmp_path}/a.jsonl", f"duckdb:{tmp_path}/b.duckdb"
    done = cdc(
        "run", database.dsn, "--journal", str(tmp_path / "j"), "--to", lines, "--to", tables, "--until-caught-up"
    )
    assert done.returncode == 1, done.stderr
    assert "held" in done.stderr
    answer = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert {event["table"] for event in answer} == {"public.t", "public.T"}
    assert {"id": 1, "a": 2, "A": 3} in [event.get("after") for event in answer]


def test_a_busy_file_of_a_fan_out(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """O33: somebody reads the file for a while, when the feed begins; it is fed as soon as he is done."""
    monkeypatch.setattr("cdc.engine.fanout._AGAIN_IN", 0.2)
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    path = tmp_path / "x.duckdb"
    options = Options(database.name)
    reader = Reader(path)
    fanout = open_fanout(database.dsn, f"journal:{tmp_path}/j", [f"duckdb:{path}"], options)
    running = threading.Thread(target=fanout.run, args=(lambda thread: thread.join(),))
    running.start()
    try:
        wait_for(lambda: fanout.failures)
        reader.close()
        wait_for(lambda: not fanout.failures and rows_of(fanout) == 1)
    finally:
        fanout.stop()
        running.join()
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT id FROM public.t").fetchall() == [(1,)]


def rows_of(fanout: Any) -> int:
    """How many rows the feeds have been given."""
    return sum(feed.view().rows_copied for feed in fanout._feeds.values())


def wait_for(condition: Any) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


class Reader:
    """Another process that has a file of DuckDB open to read it."""

    def __init__(self, path: Path) -> None:
        import subprocess
        import sys

        duckdb.connect(str(path)).close()
        code = "import duckdb, sys; kept = duckdb.connect(sys.argv[1], read_only=True); print(flush=True); input()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def close(self) -> None:
        self._process.communicate(b"\n")
