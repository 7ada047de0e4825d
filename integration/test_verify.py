"""`cdc verify`, `repair` and `resync`: what is different is found to the row, and set right, while both sides go on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from cdc.demo import mysql_shop, shop
from integration.conftest import Database, MySqlDatabase, Replica, make_replica

TABLES = {
    "ints": ("id int PRIMARY KEY, v text", "{i}, 'v{i}'"),
    "pairs": ("a int, b varchar(20), v int, PRIMARY KEY (a, b)", "{i} % 7, 'b{i}', {i}"),
    "names": ("n varchar(40) PRIMARY KEY, v int", "'é name {i}', {i}"),
    "keyless": ("a int, b varchar(20)", "{i} % 5, 'x'"),
}
ROWS = 40


def create(database: Database | MySqlDatabase) -> None:
    for name, (columns, row) in TABLES.items():
        database.execute(f"CREATE TABLE {name} ({columns})")
        if isinstance(database, Database) and name == "keyless":
            database.execute("ALTER TABLE keyless REPLICA IDENTITY FULL")
        for number in range(ROWS):
            database.execute(f"INSERT INTO {name} VALUES ({row.format(i=number)})")


def cdc(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cdc", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def ends(replica: Replica) -> tuple[str, ...]:
    return replica.database.dsn, replica.target, "--name", replica.options.name


@contextmanager
def running(replica: Replica, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`cdc run` as a process that follows the log."""
    command = [sys.executable, "-m", "cdc", "run", *ends(replica), *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        status = Path(f"{replica.path}.cdc.json")
        try:
            for _ in range(600):
                if status.exists() and json.loads(status.read_bytes())["phase"] == "streaming":
                    break
                assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
                time.sleep(0.1)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
            status.unlink(missing_ok=True)


def tamper(replica: Replica, *statements: str) -> None:
    """Change the target behind the pipeline's back."""
    schema = replica.database.name if isinstance(replica.database, MySqlDatabase) else "public"
    with duckdb.connect(str(replica.path)) as connection:
        connection.execute(f'USE "{replica.path.stem}"."{schema}"')
        for statement in statements:
            connection.execute(statement)


DAMAGE = [
    "UPDATE ints SET v = 'CANARY' WHERE id = 3",
    "DELETE FROM ints WHERE id = 5",
    "INSERT INTO ints VALUES (-1, 'ghost')",
    "UPDATE pairs SET v = NULL WHERE a = 2 AND b = 'b2'",
    "DELETE FROM names WHERE n = 'é name 7'",
    "DELETE FROM keyless WHERE rowid = 4",
]
FOUND = {
    ("ints", "3", "different"),
    ("ints", "5", "source only"),
    ("ints", "-1", "target only"),
    ("pairs", "2/b2", "different"),
    ("names", "é name 7", "source only"),
    ("keyless", "", "source only"),
}


def found(report: dict[str, list[dict[str, object]]]) -> set[tuple[str, str, str]]:
    return {
        (table["name"], "/".join((difference["key"] or {}).values()), difference["found"])  # type: ignore[misc]
        for table in report["tables"]
        for difference in table["differences"]  # type: ignore[attr-defined]
    }


@pytest.mark.parametrize("alive", [False, True], ids=["stopped", "running"])
def test_damage_is_found_and_repaired(anywhere: Database | MySqlDatabase, tmp_path: Path, alive: bool) -> None:
    """E-04, C-07: each damaged row and nothing else is found, whether a pipeline runs or not; values only if asked for."""
    create(anywhere)
    replica = make_replica(anywhere, tmp_path)
    replica.catch_up()
    assert cdc("verify", *ends(replica)).returncode == 0
    tamper(replica, *DAMAGE)

    def check() -> None:
        told = cdc("verify", *ends(replica), "--json")
        assert told.returncode == 1, told.stderr
        assert "CANARY" not in told.stdout + told.stderr
        assert found(json.loads(told.stdout)) == FOUND
        assert "CANARY" in cdc("verify", *ends(replica), "--show-values", "--tables", "ints").stdout
        report = tmp_path / "report.json"
        report.write_text(told.stdout)
        repaired = cdc("repair", *ends(replica), "--from-verify", str(report))
        assert repaired.returncode == 0, repaired.stderr
        again = cdc("verify", *ends(replica))
        assert again.returncode == 0, again.stdout + again.stderr

    if alive:
        with running(replica):
            check()
    else:
        check()
    anywhere.execute("UPDATE ints SET v = 'later' WHERE id IN (3, 5)")
    replica.catch_up()
    replica.assert_equal()


def test_identical_under_load(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """C-01, D-05: while the application writes and the pipeline follows, nothing that is equal ever looks different."""
    replica = make_replica(anywhere, tmp_path)
    if isinstance(anywhere, Database):
        with anywhere.connect() as connection:
            shop.create(connection, customers=2000)
        workload: shop.Workload | mysql_shop.Workload = shop.Workload(anywhere.dsn, rate=500)
    else:
        with anywhere.connect() as connection:
            mysql_shop.create(connection)
        workload = mysql_shop.Workload(anywhere.server.arguments(anywhere.name), 500)
    replica.catch_up()
    workload.start()
    with running(replica):
        for _ in range(3):
            told = cdc("verify", *ends(replica))
            assert told.returncode == 0, told.stdout + told.stderr
        before = workload.transactions
        told = cdc("resync", *ends(replica), "--table", "*.*")
        assert told.returncode == 0, told.stderr
        told = cdc("verify", *ends(replica))
        assert told.returncode == 0, told.stdout + told.stderr
        assert workload.transactions > before
    workload.stop()
    replica.catch_up()
    replica.assert_equal()


def test_a_damaged_table_that_stops_the_pipeline(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """A-42, D-08: a row that is missing stops the pipeline when it is updated; a resync makes it go on, others untouched."""
    create(anywhere)
    replica = make_replica(anywhere, tmp_path)
    replica.catch_up()
    tamper(replica, "DELETE FROM ints WHERE id = 5", "DELETE FROM pairs WHERE b = 'b3'")
    anywhere.execute("UPDATE ints SET v = 'w' WHERE id = 5")
    anywhere.execute("UPDATE ints SET id = id + 100 WHERE id IN (5, 6, 7)")
    stopped = cdc("run", *ends(replica), "--until-caught-up")
    assert stopped.returncode == 3, stopped.stderr
    assert "ints" in stopped.stderr
    synced = cdc("resync", *ends(replica), "--table", "ints")
    assert synced.returncode == 0, synced.stderr
    told = cdc("verify", *ends(replica), "--json")
    assert found(json.loads(told.stdout)) == {("pairs", "3/b3", "source only")}
    schema = anywhere.name if isinstance(anywhere, MySqlDatabase) else "public"
    assert cdc("repair", *ends(replica), "--table", f"{schema}.pairs", "--where", "b = 'b3'").returncode == 0
    assert cdc("verify", *ends(replica)).returncode == 0


def test_what_cannot_be_asked_for(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """E-12: each mistake ends with 2 and a sentence."""
    create(anywhere)
    replica = make_replica(anywhere, tmp_path)
    missing = cdc("verify", *ends(replica))
    assert missing.returncode == 2
    assert "not the target of a pipeline" in missing.stderr
    replica.catch_up()
    for arguments in (
        ("verify", *ends(replica), "--tables", "nothing"),
        ("repair", *ends(replica)),
        ("repair", *ends(replica), "--table", "nothing"),
        ("repair", *ends(replica), "--from-verify", str(tmp_path / "nothing")),
        ("resync", *ends(replica), "--table", "nothing"),
    ):
        told = cdc(*arguments)
        assert told.returncode == 2, (arguments, told.stderr)
        assert "Traceback" not in told.stderr


def test_verification_in_the_background(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """E-01: a run that verifies says in its status and log what it found, and is healthy only while all is identical."""
    create(anywhere)
    replica = make_replica(anywhere, tmp_path)
    replica.catch_up()

    def verification() -> dict[str, object]:
        with running(replica, "--verify-every", "2s"):
            for _ in range(600):
                told = json.loads(cdc("status", *ends(replica), "--json").stdout)
                if told["verification"]:
                    return told  # type: ignore[no-any-return]
                time.sleep(0.2)
        raise AssertionError("nothing was verified")

    told = verification()
    assert told["healthy"]
    assert told["verification"]["rows"] == ROWS * len(TABLES)  # type: ignore[index]
    tamper(replica, "DELETE FROM ints WHERE id = 5")
    told = verification()
    assert not told["healthy"]
    assert list(told["verification"]["different"].values()) == [1]  # type: ignore[index]
