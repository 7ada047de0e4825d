"""`cdc run --publish FILE`: a copy of the DuckDB file that others read while the pipeline writes, always whole, always
at a commit. The readers are other processes, which have nothing but DuckDB."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import duckdb
import pytest

from cdc.faults import POINTS
from cdc.files.copier import spare_of
from integration.conftest import Database, MySqlDatabase, Replica, make_replica
from integration.processes import Process, cdc, start
from tests.seeds import SEED

_READER = str(Path(__file__).with_name("published_reader.py"))
ACCOUNTS, EACH = 200, 1000
OURS = [name for name in POINTS if name.startswith("publish.")]
_rng = random.Random(SEED)


def make_bank(database: Database | MySqlDatabase) -> None:
    for statement in (
        "CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL, sent int NOT NULL)",
        "CREATE TABLE transfers (id int PRIMARY KEY, amount int NOT NULL)",
        f"INSERT INTO accounts VALUES {', '.join(f'({number}, {EACH}, 0)' for number in range(ACCOUNTS))}",
    ):
        database.execute(statement)


class Bank:
    """Moves money between accounts, a transaction each, for as long as it is entered."""

    def __init__(self, database: Database | MySqlDatabase) -> None:
        self._database = database
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.made = 0

    def __enter__(self) -> Bank:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with self._database.connect() as session:
            while not self._stop.is_set():
                one, other = _rng.sample(range(ACCOUNTS), 2)
                amount = _rng.randint(1, 9)
                for statement in (
                    "BEGIN",
                    f"UPDATE accounts SET balance = balance - {amount}, sent = sent + {amount} WHERE id = {one}",
                    f"INSERT INTO transfers VALUES ({self.made}, {amount})",
                    f"UPDATE accounts SET balance = balance + {amount} WHERE id = {other}",
                    "COMMIT",
                ):
                    session.cursor().execute(statement)
                self.made += 1
                time.sleep(0.002)


def schema_of(database: Database | MySqlDatabase) -> str:
    return database.name if isinstance(database, MySqlDatabase) else "public"


def _take(written: IO[str], lines: list[list[str]]) -> None:
    for line in written:
        lines.append(line.split())  # one by one: somebody looks at them meanwhile


@contextmanager
def reading(file: Path, database: Database | MySqlDatabase, *hold: str) -> Iterator[list[list[str]]]:
    """What another process reads meanwhile, a line each time."""
    command = (sys.executable, _READER, str(file), schema_of(database), *hold)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines: list[list[str]] = []
    taking = threading.Thread(target=_take, args=(process.stdout, lines))
    taking.start()
    try:
        yield lines
    finally:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0
        taking.join()


def positions_of(lines: list[list[str]]) -> set[str]:
    return {line[0] for line in list(lines)}


def assert_whole(lines: list[list[str]]) -> None:
    """Never an error, never half of a transfer, and never back."""
    assert len(lines) > 5
    assert [line for line in lines if line[0] == "error"] == []
    for line in lines:
        assert line[1] == str(ACCOUNTS * EACH), line
        assert line[3] == ("None" if line[2] == "0" else line[4]), line
    positions = [int(line[0]) for line in lines]
    assert positions == sorted(positions)


@contextmanager
def publishing(replica: Replica, file: Path, *options: str, **environment: str) -> Iterator[Process]:
    process = start(*arguments(replica, file), *options, **environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)


def arguments(replica: Replica, file: Path) -> tuple[str, ...]:
    name = ("--name", replica.options.name)
    return ("run", replica.database.dsn, replica.target, *name, "--publish", str(file), "--publish-every", "0.3s")


def status(replica: Replica) -> dict[str, Any]:
    """What the process has said of its copy last."""
    with suppress(FileNotFoundError):
        found: dict[str, Any] = json.loads(Path(f"{replica.path}.cdc.json").read_bytes())["publication"] or {}
        return found
    return {}


def wait_for_copy(file: Path, process: Process) -> None:
    wait_until(file.exists, process)


def wait_until(condition: Any, process: Process) -> None:
    until = time.monotonic() + 40
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


def content(path: Path, database: Database | MySqlDatabase) -> list[Any]:
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{path}' AS copy (READ_ONLY)")
        names = [f"{schema_of(database)}.{table}" for table in BOTH]
        found = [connection.execute(f"SELECT * FROM copy.{name} ORDER BY ALL").fetchall() for name in names]
        return [*found, connection.execute("SELECT position FROM copy._cdc.checkpoint").fetchall()]


BOTH = ("accounts", "transfers")


def test_readers_in_other_processes(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """D-01: they open the copy again and again while money moves and the pipeline is killed at random moments; one
    of them has a copy open all the time, into which nothing may be written."""
    print(f"CDC_SEED={SEED}")
    make_bank(anywhere)
    replica, file = make_replica(anywhere, tmp_path), tmp_path / "read.duckdb"
    with Bank(anywhere), publishing(replica, file) as process:
        wait_for_copy(file, process)
        with reading(file, anywhere) as again, reading(file, anywhere, "hold") as held:
            time.sleep(_rng.uniform(0.5, 1.5))
            process.kill()
            process.wait()
            for _ in range(2):
                with publishing(replica, file) as another:
                    time.sleep(_rng.uniform(1.2, 2))
                    another.kill()
    done = cdc(*arguments(replica, file), "--until-caught-up")
    assert done.returncode == 0, done.stderr
    assert_whole(again)
    assert_whole(held)
    assert len({tuple(line) for line in held}) == 1
    assert content(file, anywhere) == content(replica.path, anywhere)
    assert sorted(path.name for path in tmp_path.iterdir() if "read" in path.name) == [".read.duckdb.spare", file.name]


@pytest.fixture(scope="module")
def swept(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A pipeline that has published once, which the sweep goes on with."""
    postgres.create_database("published")
    database = Database(postgres, "published")
    make_bank(database)
    replica = make_replica(database, tmp_path_factory.mktemp("published"))
    done = cdc(*arguments(replica, replica.path.with_name("read.duckdb")), "--until-caught-up")
    assert done.returncode == 0, done.stderr
    yield replica
    database.remove()


CASES = [f"{name}=kill" for name in OURS] + [
    f"{name}={kind}" for name, kind in zip(_rng.sample(OURS, 4), ("raise", "fail", "nospace", "ioerror"), strict=True)
]


@pytest.mark.parametrize("fault", CASES)
def test_a_crash_at_any_step(swept: Replica, fault: str) -> None:
    """D-19, D-20: whatever is half done, readers find a whole copy that is not older than the one before, and the
    next run renews it. What fails of a copy does not end the pipeline."""
    file, (name, kind) = swept.path.with_name("read.duckdb"), fault.split("=")
    before = duckdb_order(file)
    with Bank(swept.database) as bank:
        first = bank.made
        wait_until_made(bank, first + 5)
    swept.database.execute(f"DELETE FROM transfers; UPDATE accounts SET balance = {EACH}, sent = 0")
    with reading(file, swept.database) as lines:
        if kind == "kill" and name != "publish.block":
            process = start(*arguments(swept, file), CDC_FAULT=fault)
            assert process.wait(60) == -signal.SIGKILL, process.communicate()
        else:
            process = start(*arguments(swept, file), CDC_FAULT=fault)
            assert process.stderr is not None
            said = next((line for line in process.stderr if "is not renewed" in line), "")
            assert str(file) in said
            process.terminate()
            assert process.wait(60) == 0
        until = time.monotonic() + 30
        while len(lines) <= 5:
            assert time.monotonic() < until
            time.sleep(0.05)
    assert_whole(lines)
    assert duckdb_order(file) >= before
    done = cdc(*arguments(swept, file), "--until-caught-up")
    assert done.returncode == 0, done.stderr
    assert content(file, swept.database) == content(swept.path, swept.database)


def wait_until_made(bank: Bank, number: int) -> None:
    until = time.monotonic() + 20
    while bank.made < number:
        assert time.monotonic() < until
        time.sleep(0.01)


def duckdb_order(file: Path) -> int:
    with duckdb.connect(str(file), read_only=True) as connection:
        ((order,),) = connection.execute("SELECT position_order FROM _cdc.checkpoint").fetchall()
        return int(order)


def test_only_what_changed_is_written(database: Database, tmp_path: Path) -> None:
    """A few rows of many: into the copy before the last one go the blocks that are different; a hard link to it, as tools
    for backups make them, keeps what it has."""
    make_bank(database)
    database.execute("CREATE TABLE large (id int PRIMARY KEY, v text)")
    database.execute("INSERT INTO large SELECT n, md5(n::text) || md5((-n)::text) FROM generate_series(1, 200000) n")
    replica, file = make_replica(database, tmp_path), tmp_path / "read.duckdb"
    with publishing(replica, file) as process:
        seen = set()
        for round_ in range(4):
            database.execute(f"UPDATE accounts SET sent = {round_ + 1} WHERE id = 1")
            wait_until(lambda: first_account(file) == round_ + 1, process)  # noqa: B023
            wait_until(lambda: status(replica).get("position") == position_of(file), process)
            seen.add(os.stat(file).st_ino)
        said = status(replica)
        assert said["size"] == file.stat().st_size > 4 << 20
        assert said["problem"] is None
        assert 0 < said["written"] < said["size"] / 2
        assert len(seen) == 2  # two files in turn
        os.link(spare_of(file), tmp_path / "kept.duckdb")
        kept = (tmp_path / "kept.duckdb").read_bytes()
        database.execute("UPDATE accounts SET sent = 99 WHERE id = 1")
        wait_until(lambda: first_account(file) == 99, process)
    assert (tmp_path / "kept.duckdb").read_bytes() == kept
    done = cdc("status", database.dsn, replica.target, "--name", replica.options.name)
    assert done.returncode == 0, done.stdout


def first_account(file: Path) -> int | None:
    if not file.exists():
        return None
    with duckdb.connect(str(file), read_only=True) as connection:
        found = connection.execute("SELECT sent FROM public.accounts WHERE id = 1").fetchone()
        return int(found[0]) if found is not None else None


def position_of(file: Path) -> str:
    with duckdb.connect(str(file), read_only=True) as connection:
        ((position,),) = connection.execute("SELECT DISTINCT position FROM _cdc.freshness").fetchall()
        return str(position)


@pytest.mark.parametrize("mode", ["history", "soft-delete"])
def test_other_modes(database: Database, tmp_path: Path, mode: str) -> None:
    """What is kept beside the rows is in the copy, with its views and functions."""
    make_bank(database)
    replica, file = make_replica(database, tmp_path), tmp_path / "read.duckdb"
    for _ in range(2):
        done = cdc(*arguments(replica, file), "--until-caught-up", "--mode", mode)
        assert done.returncode == 0, done.stderr
        database.execute("UPDATE accounts SET sent = 5 WHERE id = 1; DELETE FROM accounts WHERE id = 2")
    query = (
        "SELECT count(*) FROM public_history.accounts"
        if mode == "history"
        else "SELECT count(_cdc_deleted_at) FROM public.accounts"
    )
    with duckdb.connect(str(file), read_only=True) as copy:
        assert copy.execute(query).fetchall() == [(ACCOUNTS + 1 if mode == "history" else 1,)]
    if mode == "history":
        done = cdc("history", f"duckdb:{file}", "accounts", "1", "--json")
        assert len(done.stdout.splitlines()) == 2, done.stderr


@pytest.mark.parametrize(
    "what",
    [
        "other database",
        "not made by us",
        "not duckdb",
        "folder",
        "missing folder",
        "itself",
        "itself, which is new",
        "link",
        "jsonl",
    ],
)
def test_what_is_refused(database: Database, tmp_path: Path, what: str) -> None:
    """Before anything is made, on the source or the target, and nothing is written to what is there."""
    make_bank(database)
    replica, file = make_replica(database, tmp_path), tmp_path / "read.duckdb"
    target, words = replica.target, "is not a copy of"
    if what == "other database":
        done = cdc("run", database.dsn, f"duckdb:{file}", "--name", f"{database.name}_other", "--until-caught-up")
        assert done.returncode == 0, done.stderr
    elif what == "not made by us":
        duckdb.connect(str(file)).execute("CREATE TABLE t (a int)").close()
    elif what == "not duckdb":
        file.write_text("nothing of the kind")
    elif what == "folder":
        file, words = tmp_path, "is a folder"
    elif what == "missing folder":
        file, words = tmp_path / "no" / "read.duckdb", "There is no folder"
    elif what == "itself":
        cdc("run", database.dsn, replica.target, "--name", replica.options.name, "--until-caught-up")
        file, words = replica.path, "is the target itself"
    elif what == "itself, which is new":
        file, words = replica.path, "is the target itself"
    elif what == "link":
        file.symlink_to(tmp_path / "elsewhere.duckdb")
        words = "is a link"
    else:
        target, words = f"jsonl:{tmp_path}/x.jsonl", "cannot use --publish"
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    done = cdc("run", database.dsn, target, "--name", replica.options.name, "--publish", str(file), "--until-caught-up")
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Hint" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    if what != "itself":
        slots = f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'cdc_{replica.options.name}'"
        assert database.execute(slots) == [(0,)]


def test_a_copy_that_somebody_writes(database: Database, tmp_path: Path) -> None:
    """A program that opens the copy for writing keeps it from being renewed. Status says so, and the copy stays as it is."""
    make_bank(database)
    replica, file = make_replica(database, tmp_path), tmp_path / "read.duckdb"
    with publishing(replica, file) as process:
        wait_for_copy(file, process)
        wal = Path(f"{file}.wal")
        wal.touch()
        before = os.stat(file).st_ino
        database.execute("UPDATE accounts SET sent = 7 WHERE id = 1")
        wait_until(lambda: str(wal) in (status(replica).get("problem") or ""), process)
        done = cdc("status", database.dsn, replica.target, "--name", replica.options.name)
        assert done.returncode == 1
        assert "is not as new as it should be" in done.stdout
        assert os.stat(file).st_ino == before
        wal.unlink()
        wait_until(lambda: first_account(file) == 7, process)
        wait_until(lambda: status(replica).get("problem") is None, process)


def test_a_copy_of_another_pipeline(database: Database, tmp_path: Path) -> None:
    """Two that publish to one file: the second to come finds the copy of the first, and leaves it as it is."""
    make_bank(database)
    replica, file, theirs = make_replica(database, tmp_path), tmp_path / "read.duckdb", tmp_path / "theirs.duckdb"
    other = ("--name", f"{database.name}_other", "--publish", str(theirs), "--until-caught-up")
    done = cdc("run", database.dsn, f"duckdb:{tmp_path / 'other.duckdb'}", *other)
    assert done.returncode == 0, done.stderr
    with publishing(replica, file) as process:
        wait_for_copy(file, process)
        wait_until(lambda: status(replica).get("position"), process)
        theirs.replace(file)
        before = file.read_bytes()
        database.execute("UPDATE accounts SET sent = 7 WHERE id = 1")
        wait_until(lambda: "is not a copy of" in (status(replica).get("problem") or ""), process)
        assert file.read_bytes() == before
        file.unlink()
        wait_until(lambda: first_account(file) == 7, process)


def test_a_journal_that_feeds_two(database: Database, tmp_path: Path) -> None:
    """One of two targets would be meant, and nobody has said which; with one DuckDB file among the targets it is that."""
    make_bank(database)
    ends = ("run", database.dsn, "--journal", str(tmp_path / "journal"), "--name", database.name, "--until-caught-up")
    one, file = tmp_path / "one.duckdb", tmp_path / "read.duckdb"
    publish = ("--publish", str(file))
    done = cdc(*ends, "--to", f"duckdb:{one}", "--to", f"duckdb:{tmp_path / 'two.duckdb'}", *publish)
    assert done.returncode == 2
    assert "of several targets" in done.stderr
    for _ in range(2):
        done = cdc(*ends, "--to", f"duckdb:{one}", "--to", f"jsonl:{tmp_path / 'x.jsonl'}", *publish)
        assert done.returncode == 0, done.stderr
    assert content(file, database) == content(one, database)
    shutil.rmtree(tmp_path / "journal")
