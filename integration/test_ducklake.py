"""DuckLake as a target: the tables of a lake are the source's, whatever has its catalogue, and others read meanwhile.

The extension is one of DuckDB 1.5.5, the newest that the package index has it for, in a folder of its own.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.demo.server import PrivatePostgres
from cdc.demo.shop import Workload
from cdc.errors import UsageError
from cdc.targets.ducklake.address import parse
from cdc.targets.ducklake.lease import lease_of
from cdc.whereabouts import read_status
from integration.conftest import Database
from integration.object_store import BUCKET, PrivateObjectStore
from integration.other_duckdb import OtherDuckDb, installed
from integration.test_kill import make_shop
from tests.seeds import SEED, chosen_at_random, one_of

_READER = str(Path(__file__).with_name("lake_reader.py"))
_DURABLE = str(Path(__file__).with_name("lake_durable.py"))


@pytest.fixture(scope="session")
def lakes() -> OtherDuckDb:
    return installed("ducklake.txt")


@pytest.fixture(scope="module")
def catalogues() -> Iterator[PrivatePostgres]:
    """A server for catalogues, another one than the source's, as it should be."""
    with PrivatePostgres(18) as server:
        yield server


class Lake:
    """A database and its lake."""

    def __init__(self, lakes: OtherDuckDb, database: Database, target: str, address: str) -> None:
        self.lakes, self.database, self.target, self.address = lakes, database, target, address
        self.options = ("--name", database.name)

    def catch_up(self, *options: str) -> None:
        done = self.lakes.cdc("run", self.database.dsn, self.target, *self.options, "--until-caught-up", *options)
        assert done.returncode == 0, done.stderr

    def verify(self) -> None:
        done = self.lakes.cdc("verify", self.database.dsn, self.target, *self.options)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, *options: str) -> subprocess.Popen[str]:
        """A process that has copied what was there, and follows."""
        process = self.lakes.start("run", self.database.dsn, self.target, *self.options, *options)
        until = time.monotonic() + 60
        while self.status.get("phase") != "streaming":
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until, self.status
            time.sleep(0.1)
        return process

    @property
    def status(self) -> Mapping[str, Any]:
        """What the process that runs it has said last."""
        return read_status(self.target, self.database.name)

    def rows(self, table: str, columns: str) -> list[str]:
        """What another program reads there."""
        return self.lakes.python(_READER, self.address, "rows", table, columns).splitlines()

    def assert_equal(self, table: str, columns: str) -> None:
        """Every value is the source's, as the two drivers of the two databases have them."""
        with psycopg.connect(self.database.dsn) as source:
            found = source.execute(f"SELECT {columns} FROM {table}".encode()).fetchall()
        assert self.rows(table, columns) == sorted(map(repr, found))


def make_lake(kind: str, lakes: OtherDuckDb, database: Database, catalogues: PrivatePostgres, folder: Path) -> Lake:
    if kind == "postgresql":
        dsn = catalogues.create_database(f"lake_{database.name}")
        target = f"ducklake:{dsn}{'&' if '?' in dsn else '?'}data={folder / 'data'}"
        return Lake(lakes, database, target, f"ducklake:postgres:{dsn}")
    prefix = "sqlite:" if kind == "sqlite" else ""
    address = f"ducklake:{prefix}{folder / 'catalogue'}"
    return Lake(lakes, database, address, address)


def run(database: Database, *statements: str) -> None:
    for statement in statements:
        database.execute(statement)


@pytest.fixture(params=one_of("file", "sqlite", "postgresql"))
def lake(
    request: pytest.FixtureRequest,
    lakes: OtherDuckDb,
    database: Database,
    catalogues: PrivatePostgres,
    tmp_path: Path,
) -> Lake:
    """With a catalogue of a kind of each in turn, as the commits go."""
    return make_lake(request.param, lakes, database, catalogues, tmp_path)


def test_killed_under_load(lake: Lake) -> None:
    """C-04, D-01, D-19: the process dies at any moment, while it copies too; the lake is the source in the end."""
    make_shop(lake.database, customers=300)
    rng = chosen_at_random()
    workload = Workload(lake.database.dsn, rate=200)
    workload.start()
    for _ in range(2):
        process = lake.lakes.start("run", lake.database.dsn, lake.target, *lake.options, "--every", "0s")
        time.sleep(rng.uniform(1.5, 5))
        process.kill()
        process.communicate()
    workload.stop()
    lake.catch_up()
    lake.verify()
    lake.assert_equal("shop.orders", "id, customer_id, status, placed_on")
    lake.assert_equal("shop.customers", "id, name, balance, is_active")


def places(answers: Sequence[Sequence[str]]) -> set[str]:
    """Up to where in the log the answers were."""
    return {answer[2] for answer in answers}


def test_others_read_whole_transactions(
    lakes: OtherDuckDb, database: Database, catalogues: PrivatePostgres, tmp_path: Path
) -> None:
    """D-01, D-24: while a pipeline writes, is killed and begins again, a reader finds the sum over two tables that no
    transaction of the source changes, at place after place."""
    lake = make_lake("postgresql", lakes, database, catalogues, tmp_path)
    run(
        database,
        "CREATE TABLE a (id int PRIMARY KEY, v int)",
        "CREATE TABLE b (id int PRIMARY KEY, v int)",
        "INSERT INTO a SELECT i, 100 FROM generate_series(1, 50) i",
        "INSERT INTO b SELECT i, 100 FROM generate_series(1, 50) i",
    )
    lake.catch_up()
    query = (
        "SELECT (SELECT sum(v) FROM public.a) + (SELECT sum(v) FROM public.b), (SELECT count(*) FROM public.a), "
        "(SELECT position_order FROM _cdc.checkpoint)"
    )
    answers: list[list[str]] = []
    reader = lakes.python_in_background(_READER, lake.address, "sums", query)
    listener = threading.Thread(
        target=lambda: answers.extend(line.split() for line in reader.stdout or ()), daemon=True
    )
    listener.start()
    rng = random.Random(SEED)
    with psycopg.connect(database.dsn, autocommit=True) as source:
        for _ in range(2):
            wanted, until = len(places(answers)) + rng.randint(2, 4), time.monotonic() + 60
            process = lakes.start("run", database.dsn, lake.target, *lake.options, "--every", "0s")
            while len(places(answers)) < wanted and time.monotonic() < until:
                amount, of, to = rng.randrange(100), rng.randrange(1, 51), rng.randrange(1, 51)
                with source.transaction():
                    source.execute("UPDATE a SET v = v - %s WHERE id = %s", [amount, of])
                    source.execute("UPDATE b SET v = v + %s WHERE id = %s", [amount, to])
                time.sleep(0.02)
            process.kill()
            process.communicate()
            assert len(places(answers)) >= wanted
    assert reader.poll() is None
    reader.kill()
    listener.join()
    assert {(total, count) for total, count, _ in answers} == {("10000", "50")}
    lake.catch_up()
    lake.assert_equal("public.a", "id, v")


@pytest.mark.parametrize("mode", ["history", "soft-delete"])
def test_modes(lakes: OtherDuckDb, database: Database, catalogues: PrivatePostgres, tmp_path: Path, mode: str) -> None:
    """A-50, H4: what a lake keeps beside the rows as they are now; shapes that change; a value that no type of DuckDB
    has a place for, for which the column becomes text: another one takes its place."""
    lake = make_lake("sqlite", lakes, database, catalogues, tmp_path)
    run(
        database,
        "CREATE TABLE t (id int PRIMARY KEY, n numeric(10, 2), v text)",
        "INSERT INTO t VALUES (1, 1.5, 'a'), (2, 2.5, 'b'), (3, NULL, NULL)",
    )
    lake.catch_up("--mode", mode)
    run(
        database, "UPDATE t SET v = 'x' WHERE id = 1", "DELETE FROM t WHERE id = 2", "UPDATE t SET id = 30 WHERE id = 3"
    )
    lake.catch_up()
    run(
        database,
        "ALTER TABLE t ADD COLUMN w int DEFAULT 7",
        "INSERT INTO t VALUES (4, 'NaN', 'c', 8)",
        "ALTER TABLE t RENAME COLUMN v TO u",
        "UPDATE t SET u = 'y' WHERE id = 1",
    )
    lake.catch_up()
    lake.verify()
    now = ["('1', '1.50', 'y', '7')", "('30', None, None, '7')", "('4', 'NaN', 'c', '8')"]
    live = "" if mode == "history" else " WHERE _cdc_deleted_at IS NULL"
    texts = ", ".join(f"{name}::text" for name in ("id", "n", "u", "w"))
    assert lake.rows(f"public.t{live}", texts) == now
    if mode == "soft-delete":
        assert lake.rows("public.t WHERE _cdc_deleted_at IS NOT NULL", "id") == ["(2,)", "(3,)"]
        return
    asked = lakes.cdc("history", lake.target, "t", "1", "--json")
    assert [line.count('"op":"update"') for line in asked.stdout.splitlines()] == [0, 1, 1], asked


def test_one_writer(lake: Lake) -> None:
    """D-17: a second pipeline is refused by name, and the first goes on."""
    run(lake.database, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    lake.catch_up()
    process = lake.start()
    try:
        second = lake.lakes.cdc("run", lake.database.dsn, lake.target, *lake.options, "--until-caught-up")
        assert second.returncode == 1, second.stderr  # it may be tried again
        assert "open in another process" in second.stderr or "another pipeline writes to this lake" in second.stderr
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def test_small_files_are_put_together(
    lakes: OtherDuckDb, database: Database, catalogues: PrivatePostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-11: the files that many small commits leave become few, those with deleted rows as well."""
    lake = make_lake("sqlite", lakes, database, catalogues, tmp_path)
    lake.target += "?keep=0"
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    lake.catch_up()
    program = (
        "import sys, time\n"
        "from cdc.targets.ducklake import engine\n"
        "engine._UPKEEP_EVERY, engine._INLINED_ROWS = 1.0, 0\n"
        "from cdc.cli import main\n"
        "sys.argv = ['cdc', *sys.argv[1:]]\n"
        "main()\n"
    )
    command = ("run", database.dsn, lake.target, *lake.options, "--every", "0s")
    process = lakes.python_in_background("-c", program, *command)
    for number in range(30):
        database.execute(f"INSERT INTO t SELECT {number} * 10 + i, 'x' FROM generate_series(1, 10) i")
        time.sleep(0.1)
        database.execute("UPDATE t SET v = v || 'y' WHERE random() < 0.4")
        time.sleep(0.1)
    time.sleep(1)
    database.execute("INSERT INTO t VALUES (1000, 'x')")
    time.sleep(2)
    process.terminate()
    process.communicate()
    files = list((tmp_path / "catalogue.files" / "public").rglob("*.parquet"))
    assert 0 < len(files) < 10, len(files)
    lake.assert_equal("public.t", "id, v")


@pytest.mark.parametrize(("kind", "what"), [("file", "catalogue"), ("sqlite", "catalogue.files")])
def test_a_lake_that_is_taken_away(
    lakes: OtherDuckDb, database: Database, catalogues: PrivatePostgres, tmp_path: Path, kind: str, what: str
) -> None:
    """O9: the run ends with 3, whichever half of the lake is gone, and the slot keeps what is not there."""
    lake = make_lake(kind, lakes, database, catalogues, tmp_path)
    run(database, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    process = lake.start()
    path = tmp_path / what
    try:
        path.rename(tmp_path / "elsewhere")
        if kind == "sqlite":
            (shutil.copytree if path.suffix else shutil.copy)(tmp_path / "elsewhere", path)
        run(database, "INSERT INTO t SELECT generate_series(2, 5000)")  # so many that they go into a file
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 3, said
    assert str(path) in said
    assert "while it was being written" in said
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    (tmp_path / "elsewhere").rename(path)
    lake.catch_up()
    lake.assert_equal("public.t", "id")


def test_rows_are_durable_before_the_catalogue_has_them(lake: Lake) -> None:
    """O23: DuckDB does not sync the files that it writes: each is synced with its name before a commit that adds it,
    those of the upkeep as well."""
    run(lake.database, "CREATE TABLE t (id int PRIMARY KEY, v text)", "CREATE TABLE u (id int PRIMARY KEY)")
    for changes in (
        ["INSERT INTO t SELECT i, 'x' FROM generate_series(1, 9000) i"],
        ["DELETE FROM t WHERE id < 3000", "UPDATE t SET v = 'y'", "INSERT INTO u VALUES (1)"],
        ["INSERT INTO u VALUES (2)", "UPDATE t SET v = 'z' WHERE id = 4000"],
    ):
        run(lake.database, *changes)
        said = lake.lakes.python(_DURABLE, "run", lake.database.dsn, lake.target, *lake.options, "--until-caught-up")
        assert int(said.split()[-1]) > 0
    lake.verify()


def test_a_backup(lakes: OtherDuckDb, database: Database, catalogues: PrivatePostgres, tmp_path: Path) -> None:
    """O51: the catalogue is copied first, then the rows, while a pipeline writes; a run goes on from both."""
    lake = make_lake("sqlite", lakes, database, catalogues, tmp_path)
    run(
        database,
        "CREATE TABLE t (id int PRIMARY KEY, v int)",
        "INSERT INTO t SELECT i, 0 FROM generate_series(1, 3000) i",
    )
    process = lake.start()
    slot = f"'cdc_{database.name}'"
    run(database, f"SELECT pg_copy_logical_replication_slot({slot}, 'kept')")
    with closing(sqlite3.connect(tmp_path / "catalogue")) as catalogue, closing(sqlite3.connect(tmp_path / "b")) as to:
        for number in range(1, 11):
            run(database, f"UPDATE t SET v = {number} WHERE id % 2 = {number % 2}")
            if number == 5:
                catalogue.backup(to)
    shutil.copytree(tmp_path / "catalogue.files", tmp_path / "b.files")
    process.terminate()
    process.communicate()
    shutil.rmtree(tmp_path / "catalogue.files")
    for suffix in ("", ".files"):
        (tmp_path / f"b{suffix}").rename(tmp_path / f"catalogue{suffix}")
    run(
        database, f"SELECT pg_drop_replication_slot({slot})", f"SELECT pg_copy_logical_replication_slot('kept', {slot})"
    )
    lake.catch_up()
    lake.verify()
    lake.assert_equal("public.t", "id, v")


def test_commits_are_so_far_apart(
    lakes: OtherDuckDb, database: Database, catalogues: PrivatePostgres, tmp_path: Path
) -> None:
    """D-11: there are no more snapshots than `--every` allows for, and neither a look nor an end waits for the next."""
    lake = make_lake("sqlite", lakes, database, catalogues, tmp_path)
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    lake.catch_up()

    def snapshots() -> int:
        return len(lake.rows("ducklake_snapshots('lake')", "snapshot_id"))

    process = lake.start("--every", "2s")
    before, began = snapshots(), time.monotonic()
    number = 0
    while time.monotonic() - began < 8:
        number += 1
        database.execute(f"INSERT INTO t VALUES ({number})")
        time.sleep(0.05)
    made, seconds = snapshots() - before, time.monotonic() - began
    assert 2 <= made <= seconds / 2 + 1
    process.terminate()
    process.communicate()
    process = lake.start("--every", "1h")
    try:
        for _ in range(2):
            number += 1
            database.execute(f"INSERT INTO t VALUES ({number})")
            lake.verify()
        database.execute("INSERT INTO t VALUES (0)")
    finally:
        process.terminate()
        process.communicate(timeout=60)
    lake.catch_up("--every", "1h")
    lake.assert_equal("public.t", "id")


def test_rows_in_a_store_of_objects(
    lakes: OtherDuckDb, database: Database, catalogues: PrivatePostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are put there, changed and found by another program; who we are to the store is not said, nor is it
    in the catalogue; and a store that is gone is waited for."""
    with PrivateObjectStore() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        lake = make_lake("sqlite", lakes, database, catalogues, tmp_path)
        lake.target += f"?data=s3://{BUCKET}/shop"
        run(
            database,
            "CREATE TABLE t (id int PRIMARY KEY, v text)",
            "INSERT INTO t SELECT i, 'x' FROM generate_series(1, 5000) i",
        )
        lake.catch_up()
        run(database, "DELETE FROM t WHERE id < 2000", "UPDATE t SET v = 'y' WHERE id < 4000")
        lake.catch_up()
        lake.verify()
        lake.assert_equal("public.t", "id, v")
        assert not (tmp_path / "catalogue.files").exists()
        process = lake.start("-v")
        store.stop()
        run(database, "UPDATE t SET v = 'z'")
        until = time.monotonic() + 60
        while "store of the rows does not answer correctly" not in str(lake.status.get("failure")):
            assert time.monotonic() < until, lake.status
            time.sleep(0.1)
        said = str(lake.status)
        process.terminate()
        said += "".join(process.communicate())
    secret = store.environment["AWS_SECRET_ACCESS_KEY"]
    assert secret not in said
    assert secret.encode() not in (tmp_path / "catalogue").read_bytes()


@pytest.mark.parametrize("kind", ["file"])  # the others gave exact values
def test_numbers_come_back(
    lakes: OtherDuckDb, database: Database, catalogues: PrivatePostgres, tmp_path: Path, kind: str
) -> None:
    """A-70: floating-point numbers are the source's to the last digit, few rows as well, which DuckLake may keep as text."""
    lake = make_lake(kind, lakes, database, catalogues, tmp_path)
    run(
        database,
        "CREATE TABLE t (id int PRIMARY KEY, d float8, f float4)",
        "INSERT INTO t SELECT i, random() * 10 ^ (i % 7 - 3), random() * 10 ^ (i % 7 - 3) FROM generate_series(1, 500) i",
    )
    lake.catch_up()
    run(database, "UPDATE t SET d = random(), f = random() WHERE id % 2 = 0")
    lake.catch_up()
    lake.assert_equal("public.t", "id, d, f::float8")


def test_a_catalogue_that_does_not_let_in(catalogues: PrivatePostgres, tmp_path: Path) -> None:
    """A wrong password, or a database that is not there, is for somebody to mend, and not to be tried again."""
    address = catalogues.dsn("nobody_made_it").partition("?")[0]
    for wrong, said in (
        (f"{address}?passfile={catalogues.passfile}&data={tmp_path}", 'database "nobody_made_it" does not exist'),
        (f"{address.replace('postgres@', 'postgres:wrong@')}?data={tmp_path}", "password authentication failed"),
    ):
        with pytest.raises(UsageError, match=said) as refused:
            lease_of(parse(wrong)).take()
        assert "wrong" not in refused.value.message


def test_a_file_of_rows_that_is_gone(lakes: OtherDuckDb, database: Database, tmp_path: Path) -> None:
    """D-08: it concerns its table alone, and copying that again puts it right."""
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, i FROM generate_series(1, 2000) i"
    )
    database.execute("CREATE TABLE other (id int PRIMARY KEY)")
    ends = (database.dsn, f"ducklake:{tmp_path / 'x.ducklake'}", "--name", database.name)
    assert lakes.cdc("run", *ends, "--until-caught-up").returncode == 0
    for file in tmp_path.glob("**/t/*.parquet"):
        file.unlink()
    database.execute("UPDATE t SET v = 0 WHERE id = 5; INSERT INTO other VALUES (1)")
    done = lakes.cdc("run", *ends, "--until-caught-up")
    assert done.returncode == 1
    assert "public.t: ducklake:" in done.stderr
    assert "a file of rows that the catalogue names is gone" in done.stderr
    assert lakes.cdc("resync", *ends, "--tables", "public.t").returncode == 0
    done = lakes.cdc("verify", *ends)
    assert done.returncode == 0, done.stdout + done.stderr
