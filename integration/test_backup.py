"""Backups of a target, as docs/operating.md tells to make them: what is restored is a state that the source was in, and a
run goes on from it, or says that it cannot."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from cdc.jobs.control import is_served
from cdc.whereabouts import own_socket
from integration.conftest import Database, MySqlDatabase, Replica, make_replica
from integration.processes import Process, cdc, start


class Writer:
    """Commits transactions, each with one row in `a` and one in `b`, for as long as it is entered."""

    def __init__(self, database: Database | MySqlDatabase) -> None:
        self._database = database
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.committed = 0

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with self._database.connect() as session:
            while not self._stop.is_set():
                for statement in (
                    "BEGIN",
                    f"INSERT INTO a VALUES ({self.committed})",
                    f"INSERT INTO b VALUES ({self.committed})",
                    "COMMIT",
                ):
                    session.cursor().execute(statement)
                self.committed += 1

    def wait(self, more: int) -> None:
        """Until it has committed so many more."""
        wanted, until = self.committed + more, time.monotonic() + 30
        while self.committed < wanted:
            assert time.monotonic() < until
            time.sleep(0.01)


@contextmanager
def running(replica: Replica, **environment: str) -> Iterator[Process]:
    """A process that follows, and is ended in order."""
    process = start("run", replica.database.dsn, replica.target, "--name", replica.options.name, **environment)
    until = time.monotonic() + 30
    while '"phase":"streaming"' not in status(replica):
        assert time.monotonic() < until, process.poll()
        time.sleep(0.1)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def status(replica: Replica) -> str:
    return cdc("status", replica.database.dsn, replica.target, "--name", replica.options.name, "--json").stdout


def begun(database: Database | MySqlDatabase, folder: Path) -> Replica:
    for table in ("a", "b"):
        database.execute(f"CREATE TABLE {table} (id int PRIMARY KEY)")
    return make_replica(database, folder)


def assert_consistent(path: Path, database: Database | MySqlDatabase) -> int:
    """A file has whole transactions, from the first one on without a gap; how many there are."""
    schema = database.name if isinstance(database, MySqlDatabase) else "public"
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"ATTACH '{path}' AS copy")
        a, b = (
            connection.execute(f"SELECT count(*), max(id) FROM copy.{schema}.{table}").fetchone()
            for table in ("a", "b")
        )
    assert a == b
    assert a is not None
    assert a[0] == 0 or a[0] == a[1] + 1
    return int(a[0])


def restore(replica: Replica, *files: Path) -> None:
    """Put copies in the place of the target's file and, if there is one, its WAL."""
    replica.path.unlink()
    replica.path.with_name(f"{replica.path.name}.wal").unlink(missing_ok=True)
    for file, name in zip(files, (replica.path.name, f"{replica.path.name}.wal"), strict=False):
        shutil.copy(file, replica.path.with_name(name))


def refusal(replica: Replica) -> str:
    done = cdc("run", replica.database.dsn, replica.target, "--name", replica.options.name, "--until-caught-up")
    assert done.returncode == 3, done.stderr
    return done.stderr


def test_a_backup_of_a_target_that_is_written(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """O51: `cdc backup` while the pipeline follows. MySQL and MariaDB have the log; PostgreSQL's slot has gone on, and the
    run says so, unless a copy of the slot was made before."""
    replica = begun(anywhere, tmp_path)
    copy, kept = tmp_path / "copies" / "shop.duckdb", f"cdc_{replica.options.name}"
    copy.parent.mkdir()
    with running(replica) as process, Writer(anywhere) as writer:
        writer.wait(20)
        if isinstance(anywhere, Database):
            anywhere.execute(f"SELECT pg_copy_logical_replication_slot('{kept}', '{kept}_backup')")
        count = backups = 0
        while backups < 3 or (count <= 20 and backups < 60):  # the run may have only begun
            writer.wait(5)
            done = cdc("backup", replica.target, str(copy))
            assert done.returncode == 0, done.stderr
            assert "as of " in done.stdout
            assert sorted(path.name for path in copy.parent.iterdir()) == ["shop.duckdb"]
            count = assert_consistent(copy, anywhere)
            backups += 1
        assert count > 20
        # The lock is still there: it would be gone if the process itself had read the file.
        with pytest.raises(duckdb.IOException, match="lock"):
            duckdb.connect(str(replica.path), read_only=True)
        writer.wait(50)
        assert process.poll() is None
    replica.catch_up()
    replica.assert_equal()
    restore(replica, copy)
    if isinstance(anywhere, Database):
        assert "beyond the target's" in refusal(replica)
        assert assert_consistent(replica.path, anywhere) == count
        assert "beyond the target's" in status(replica)
        anywhere.execute(f"SELECT pg_drop_replication_slot('{kept}')")
        anywhere.execute(f"SELECT pg_copy_logical_replication_slot('{kept}_backup', '{kept}')")
    replica.catch_up()
    replica.assert_equal()


def test_a_copy_of_both_files_at_one_moment(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """O51: what a snapshot of the file system has: here of a process that stands still, at any moment of its work."""
    replica = begun(anywhere, tmp_path)
    if isinstance(anywhere, Database):
        anywhere.execute("CREATE TABLE other (id int PRIMARY KEY)")
    wal = replica.path.with_name(f"{replica.path.name}.wal")
    counts = []
    # Small segments, each of which is a commit; and a checkpoint of DuckDB's now and then.
    with running(replica) as process, Writer(anywhere) as writer:
        for number in range(8):
            writer.wait(7)
            process.send_signal(signal.SIGSTOP)
            folder = tmp_path / str(number)
            folder.mkdir()
            for file in (replica.path, wal):
                if file.exists():
                    shutil.copy(file, folder)
            process.send_signal(signal.SIGCONT)
            shutil.copytree(folder, tmp_path / f"looked_at_{number}")
            counts.append(assert_consistent(tmp_path / f"looked_at_{number}" / replica.path.name, anywhere))
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]
    replica.catch_up()
    last = tmp_path / "7"
    restore(replica, *(last / file.name for file in (replica.path, wal) if (last / file.name).exists()))
    if isinstance(anywhere, Database):
        assert "beyond the target's" in refusal(replica)
    else:
        replica.catch_up()
        replica.assert_equal()


@pytest.mark.parametrize("by", ["cp", "cdc backup"])
def test_a_copy_while_nobody_runs(anywhere: Database | MySqlDatabase, tmp_path: Path, by: str) -> None:
    """O51: stopped, copied, started; here of a process that was killed, with what is in its WAL."""
    replica = begun(anywhere, tmp_path)
    anywhere.execute("INSERT INTO a VALUES (0)")
    anywhere.execute("INSERT INTO b VALUES (0)")
    with running(replica) as process:
        process.kill()
    wal = replica.path.with_name(f"{replica.path.name}.wal")
    assert wal.exists()
    if by == "cp":
        copies = [Path(shutil.copy(file, tmp_path / f"copy_of_{file.name}")) for file in (replica.path, wal)]
    else:
        copies = [tmp_path / "copy.duckdb"]
        done = cdc("backup", replica.target, str(copies[0]))
        assert done.returncode == 0, done.stderr
        assert "as of " in done.stdout
    restore(replica, *copies)
    replica.catch_up()
    replica.assert_equal()
    assert assert_consistent(replica.path, anywhere) == 1


def test_a_log_that_is_gone(my: MySqlDatabase, tmp_path: Path) -> None:
    """O51, B-01: the log was purged since the backup was made: the run says so, and changes nothing."""
    replica = begun(my, tmp_path)
    my.execute("INSERT INTO a VALUES (0)", "INSERT INTO b VALUES (0)")
    replica.catch_up()
    assert cdc("backup", replica.target, str(tmp_path / "copy.duckdb")).returncode == 0
    my.execute("INSERT INTO a VALUES (1)", "INSERT INTO b VALUES (1)")
    replica.catch_up()
    my.execute("FLUSH BINARY LOGS")
    replica.catch_up()
    until = time.monotonic() + 30
    while len(files := my.execute("SHOW BINARY LOGS")) > 1:  # what a session of before still reads is not purged
        assert time.monotonic() < until
        my.execute(f"PURGE BINARY LOGS TO '{files[-1][0]}'")
        time.sleep(0.1)
    restore(replica, tmp_path / "copy.duckdb")
    said = refusal(replica)
    assert "purged" in said or "any more" in said
    assert assert_consistent(replica.path, my) == 1


def test_a_target_that_a_journal_feeds(database: Database, tmp_path: Path) -> None:
    """O51: the journal has what came after the backup, whatever the source's slot has let go of."""
    replica = begun(database, tmp_path)
    ends = ("--journal", str(tmp_path / "journal"), "--to", replica.target, "--name", replica.options.name)

    def run() -> None:
        done = cdc("run", database.dsn, *ends, "--until-caught-up")
        assert done.returncode == 0, done.stderr

    database.execute("INSERT INTO a VALUES (0); INSERT INTO b VALUES (0)")
    run()
    process = start("run", database.dsn, *ends)
    try:
        until = time.monotonic() + 30
        while not is_served(own_socket(replica.target, replica.options.name)):  # nobody has the file open yet
            assert time.monotonic() < until
            time.sleep(0.05)
        done = cdc("backup", replica.target, str(tmp_path / "copy.duckdb"))
        assert done.returncode == 0, done.stderr
    finally:
        process.terminate()
        assert process.wait(30) == 0
    database.execute("INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)")
    run()
    restore(replica, tmp_path / "copy.duckdb")
    database.execute("INSERT INTO a VALUES (2); INSERT INTO b VALUES (2)")
    run()
    replica.assert_equal()
    assert assert_consistent(replica.path, database) == 3


@pytest.mark.parametrize("kind", ["jsonl", "journal"])
def test_a_copy_of_files_that_are_only_added_to(on_mysql: MySqlDatabase, tmp_path: Path, kind: str) -> None:
    """O51: events and journals, while they are written: first what says how far they go, then the rest, which is cut off."""
    for table in ("a", "b"):
        on_mysql.execute(f"CREATE TABLE {table} (id int PRIMARY KEY)")
    live, copy = tmp_path / "live", tmp_path / "copy"
    live.mkdir()
    copy.mkdir()
    target = f"{kind}:{{}}/events.jsonl" if kind == "jsonl" else f"{kind}:{{}}"
    first = ("events.jsonl.checkpoint",) if kind == "jsonl" else ("manifest.json", "durable.json")
    options = ("--rotate", "8kB") if kind == "jsonl" else ()
    process = start("run", on_mysql.dsn, target.format(live), "--name", "copied", *options)
    with Writer(on_mysql) as writer:
        try:
            writer.wait(300)
            for name in first:
                shutil.copy(live / name, copy)
            writer.wait(20)
            for file in live.iterdir():
                if file.name not in first and file.is_file():
                    shutil.copy(file, copy)
            writer.wait(20)
        finally:
            process.terminate()
            assert process.wait(30) == 0
    done = cdc("run", on_mysql.dsn, target.format(copy), "--name", "copied", "--until-caught-up")
    assert done.returncode == 0, done.stderr
    if kind == "journal":
        assert cdc("journal", "verify", str(copy)).returncode == 0
        rebuilt = make_replica(on_mysql, tmp_path)
        assert cdc("rebuild", target.format(copy), rebuilt.target).returncode == 0
        rebuilt.assert_equal()
        return
    lines = [line for file in sorted(copy.glob("events.jsonl*")) if is_lines(file) for line in read_lines(file)]
    events = [(line["table"].split(".")[1], line["key"]["id"]) for line in lines if line["op"] in ("copy", "insert")]
    (rows,) = on_mysql.execute("SELECT count(*) FROM a")
    assert sorted(events) == [(table, number) for table in ("a", "b") for number in range(rows[0])]


def is_lines(file: Path) -> bool:
    return not file.name.endswith((".checkpoint", ".lock", ".json"))


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_wal_of_another_state_is_refused(on_mysql: MySqlDatabase, tmp_path: Path) -> None:
    """O51: a backup that was put beside the WAL of a later state would lose what lies between, without a word."""
    replica = begun(on_mysql, tmp_path)
    replica.catch_up()
    copy = tmp_path / "copy.duckdb"
    with running(replica) as process:
        assert cdc("backup", replica.target, str(copy)).returncode == 0
        on_mysql.execute("INSERT INTO a VALUES (0)", "INSERT INTO b VALUES (0)")
        assert cdc("backup", replica.target, str(tmp_path / "later.duckdb")).returncode == 0
        wal = replica.path.with_name(f"{replica.path.name}.wal")
        keep_with_wal(replica, on_mysql, process, wal)
        process.kill()
    assert wal.exists()
    shutil.copy(copy, replica.path)
    said = refusal(replica)
    assert f"{wal} does not belong to {replica.path}" in said
    wal.unlink()
    replica.catch_up()
    replica.assert_equal()


def keep_with_wal(replica: Replica, database: MySqlDatabase, process: Process, wal: Path) -> None:
    """The process stands still in a moment in which something lies in the WAL: DuckDB may have just made a checkpoint."""
    for number in range(1, 100):
        database.execute(f"INSERT INTO a VALUES ({number})", f"INSERT INTO b VALUES ({number})")
        wait_until_applied(replica)
        process.send_signal(signal.SIGSTOP)
        if wal.exists():
            return
        process.send_signal(signal.SIGCONT)


def wait_until_applied(replica: Replica) -> None:
    until = time.monotonic() + 30
    while '"lag_bytes":0' not in status(replica):
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.parametrize("what", ["missing folder", "folder", "itself", "wal", "not a file"])
def test_where_no_copy_goes(database: Database, tmp_path: Path, what: str) -> None:
    """O51: said before anything is done; nothing is changed."""
    replica = begun(database, tmp_path)
    replica.catch_up()
    (tmp_path / "x.duckdb.wal").touch()
    target, file, said = {
        "missing folder": (replica.target, tmp_path / "nowhere" / "x.duckdb", "There is no folder"),
        "folder": (replica.target, tmp_path, "is a folder"),
        "itself": (replica.target, replica.path, "is the target itself"),
        "wal": (replica.target, tmp_path / "x.duckdb", "DuckDB would apply its content"),
        "not a file": (f"jsonl:{tmp_path}/x.jsonl", tmp_path / "y.jsonl", "is not one DuckDB file"),
    }[what]
    before = replica.path.read_bytes()
    done = cdc("backup", target, str(file))
    assert done.returncode == 2
    assert said in done.stderr
    assert replica.path.read_bytes() == before
    assert not (tmp_path / "x.duckdb").exists()
