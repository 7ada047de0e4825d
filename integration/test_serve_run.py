"""`cdc run --publish --serve`: a child process serves the copy while the pipeline goes on, whatever readers do to it; and
`cdc query`, `history`, `as-of` and `diff` ask the process that has the file open (O32)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from integration.conftest import Database, Replica, make_database, make_replica
from integration.processes import Process, cdc, start
from integration.serving import free_ports, wait_for_port


@dataclass
class Running:
    """A pipeline that serves."""

    replica: Replica
    process: Process
    port: int
    copy: Path

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            f"host=127.0.0.1 port={self.port} dbname=shop user=me", autocommit=True, connect_timeout=10
        )

    def view(self) -> dict[str, Any]:
        with suppress(FileNotFoundError):
            found: dict[str, Any] = json.loads(Path(f"{self.replica.path}.cdc.json").read_bytes())
            return found
        return {}

    def wait(self, condition: Callable[[], object]) -> None:
        until = time.monotonic() + 40
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)

    def insert(self, number: int) -> None:
        self.replica.database.execute(f"INSERT INTO items VALUES ({number}, 'new')")


@pytest.fixture(scope="module")
def running(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    for database in make_database(postgres):
        yield from _run(database, tmp_path_factory.mktemp("serve"))


def _run(database: Database, folder: Path) -> Iterator[Running]:
    database.execute("CREATE TABLE items (id int PRIMARY KEY, name text)")
    database.execute("INSERT INTO items SELECT i, 'first' FROM generate_series(1, 100) i")
    replica = make_replica(database, folder)
    copy = folder / "copy.duckdb"
    (port,) = free_ports(1)
    serve = ("--publish", str(copy), "--publish-every", "0.3s", "--serve", f"pg://127.0.0.1:{port}")
    limits = ("--serve-memory", "64MB", "--serve-timeout", "5s", "--mode", "history")
    process = start("run", database.dsn, replica.target, "--name", replica.options.name, *serve, *limits)
    try:
        found = Running(replica, process, port, copy)
        wait_for_port(port)
        found.wait(copy.exists)
        yield found
    finally:
        process.terminate()
        process.wait(60)


def count(running: Running) -> object:
    with running.connect() as connection:
        row = connection.execute("SELECT count(*) FROM items").fetchone()
        assert row is not None
        return row[0]


def test_readers_see_what_was_committed(running: Running) -> None:
    running.insert(1001)

    running.wait(lambda: count(running) == _at_the_source(running))
    assert running.view()["serving"]["addresses"] == [f"pg://127.0.0.1:{running.port}"]


def _at_the_source(running: Running) -> object:
    return running.replica.database.execute("SELECT count(*) FROM items")[0][0]


def test_a_child_that_is_killed_is_started_again(running: Running) -> None:
    running.wait(lambda: (running.view().get("serving") or {}).get("pid"))
    before = running.view()["serving"]
    os.kill(before["pid"], signal.SIGKILL)

    running.wait(lambda: running.view()["serving"]["pid"] not in (before["pid"], None))
    after = running.view()["serving"]
    assert after["restarts"] == before["restarts"] + 1
    assert "by signal 9" in after["problem"]
    status = cdc("status", running.replica.database.dsn, running.replica.target, "--name", running.replica.options.name)
    assert "has ended by signal 9" in status.stdout
    wait_for_port(running.port)
    running.insert(1002)
    running.wait(lambda: count(running) == _at_the_source(running))


def test_a_memory_hog_does_not_stop_the_pipeline(running: Running) -> None:
    """Heavy readers inside the writing process ended it in three of three runs; here they end a query, or the child."""
    for query in (
        "SELECT list(range || repeat('x', 500)) FROM range(3000000)",
        "SELECT string_agg(repeat('x', 1000000), '') FROM range(2000)",
        "SELECT count(*) FROM range(100000000) a JOIN range(100000000) b ON hash(a.range) = hash(b.range)",
        "SELECT repeat('x', 100000000) FROM range(100)",
    ):
        wait_for_port(running.port)
        with pytest.raises(psycopg.Error), running.connect() as connection:
            connection.execute(query.encode()).fetchall()
    running.insert(1003)
    wait_for_port(running.port)
    running.wait(lambda: _count_if_served(running) == _at_the_source(running))
    assert running.process.poll() is None


def _count_if_served(running: Running) -> object:
    with suppress(psycopg.OperationalError):
        return count(running)
    return None


# --- cdc query ------------------------------------------------------------------------------------------------------


def query(running: Running, sql: str, *options: str) -> subprocess.CompletedProcess[str]:
    return cdc("query", running.replica.target, sql, *options)


def test_a_question_sees_what_is_applied(running: Running) -> None:
    """It is answered by the process that has the file open, and sees what no copy has yet."""
    running.insert(1004)
    running.wait(
        lambda: '"n":1}' in query(running, "SELECT count(*) AS n FROM items WHERE id = 1004", "--format", "json").stdout
    )

    ran = query(running, "SELECT id, name FROM items ORDER BY id", "--limit", "2", "--format", "csv")
    assert ran.stdout == "id,name\n1,first\n2,first\n"
    assert "There are more than these 2 rows" in ran.stderr
    assert "first" in query(running, "SELECT name FROM public.items WHERE id = 1").stdout


def test_an_answer_as_arrow(running: Running) -> None:
    command = [
        sys.executable,
        "-m",
        "cdc",
        "query",
        running.replica.target,
        "SELECT id FROM items",
        "--format",
        "arrow",
    ]
    ran = subprocess.run(command, capture_output=True, timeout=60, check=True)

    assert pa.ipc.open_stream(ran.stdout).read_all().num_rows == len(
        running.replica.database.execute("SELECT id FROM items")
    )


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DELETE FROM items", "Nothing is written here"),
        ("EXPLAIN ANALYZE DELETE FROM items", "Nothing is written here"),
        ("SELECT 1; SELECT 2", "One statement"),
        ("SELECT count(*) FROM range(1000000000000)", "longer than 1 s"),
        ("SELECT list(range || repeat('x', 500)) FROM range(3000000)", ""),
        ("SELECT repeat('x', 1000000) FROM range(100)", "larger than 32 MB"),
        ("SELECT * FROM read_blob('{file}')", "read_blob() is not answered"),
        ("FROM '{file}'", "would be a file"),
        ("SELECT (SELECT count(*) FROM read_text('{file}'))", "read_text() is not answered"),
        ("FROM read_duckdb('{file}')", "read_duckdb() is not answered"),
        ("FROM query('SELECT 1')", "query() is not answered"),
        ('FROM "{file}".csv', "There is no table"),
        ('FROM (SUMMARIZE "{file}".csv)', "There is no table"),
        ("SELECT json_serialize_plan('FROM read_csv(''{file}.csv'')')", "json_serialize_plan() is not answered"),
        ("SELECT IF(range > 50000, error('late'), 1) FROM range(100000)", "late"),
        ("ATTACH '{file}' AS again", "Nothing is written here"),
        ("SELECT nothing", "nothing"),
    ],
)
def test_a_question_that_is_refused(running: Running, sql: str, said: str) -> None:
    """What writes, takes too much, or opens a file: the target's own would lose its lock (fcntl(2)). The pipeline goes
    on, and still has its file to itself."""
    file = str(running.replica.path)
    Path(f"{file}.csv").write_text("a\n1\n")
    ran = query(running, sql.format(file=file), "--timeout", "1s", "--limit", "100000")

    assert (ran.returncode, said in ran.stderr) == (2, True), ran
    assert "Traceback" not in ran.stderr
    assert running.process.poll() is None
    script = f"import duckdb; duckdb.connect({file!r})"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode != 0


def test_the_past_of_a_file_that_is_open(running: Running) -> None:
    """O32: the pipeline answers, for nobody else can open the file."""
    database, target = running.replica.database, running.replica.target
    database.execute("INSERT INTO items VALUES (2000, 'one')")
    database.execute("UPDATE items SET name = 'two' WHERE id = 2000")
    history: list[dict[str, Any]] = []

    def has_both() -> bool:
        ran = cdc("history", target, "items", "2000", "--json")
        history[:] = [json.loads(line) for line in ran.stdout.splitlines()]
        return len(history) == 2

    running.wait(has_both)
    assert [event["row"]["name"] for event in history] == ["one", "two"]
    then = cdc("as-of", target, "items", history[0]["position"], "--format", "csv")
    assert "2000,one" in then.stdout.splitlines()
    changed = cdc("diff", target, "items", history[0]["position"], history[1]["position"], "--json")
    assert json.loads(changed.stdout)["after"]["name"] == "two"
    missing = cdc("history", target, "nothing", "1")
    assert missing.returncode == 2
    assert "nothing" in missing.stderr


# --- ends -----------------------------------------------------------------------------------------------------------


def test_the_child_ends_with_its_parent(database: Database, tmp_path: Path) -> None:
    """Also with one that is killed: nobody serves what nobody renews."""
    for running in _run(database, tmp_path):
        running.wait(lambda found=running: (found.view().get("serving") or {}).get("pid"))
        child = running.view()["serving"]["pid"]
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(30)
        until = time.monotonic() + 20
        while _lives(child):
            assert time.monotonic() < until
            time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--serve", "127.0.0.1:5433"), "--serve needs --publish"),
        (("--publish", "copy.duckdb", "--serve", "nonsense"), "is no address"),
        (("--publish", "copy.duckdb", "--serve", "0.0.0.0:5433"), "needs TLS and a password"),
        (("--publish", "copy.duckdb", "--serve-memory", "1GB"), "need --serve"),
        (
            ("--publish", "copy.duckdb", "--serve", "pg://127.0.0.1:5433", "--serve-tls-cert", "x.pem"),
            "belong together",
        ),
    ],
)
def test_what_a_run_refuses(database: Database, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    ran = cdc("run", database.dsn, f"duckdb:{tmp_path}/x.duckdb", *options)

    assert ran.returncode == 2
    assert said in ran.stderr
    assert not list(tmp_path.iterdir())


def test_an_address_that_is_taken(database: Database, tmp_path: Path) -> None:
    """A run says so before it makes anything, once it is not the address of a child that is about to end."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"pg://127.0.0.1:{taken.getsockname()[1]}"
        publish = ("--publish", str(tmp_path / "copy.duckdb"), "--serve", address)
        ran = cdc("run", database.dsn, f"duckdb:{tmp_path}/x.duckdb", *publish)
    assert ran.returncode == 2
    assert f"{address} cannot be listened at" in ran.stderr
    assert not list(tmp_path.iterdir())
    assert database.execute("SELECT count(*) FROM pg_publication") == [(0,)]
