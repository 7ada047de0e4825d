"""Journals between real servers and their targets: killed at any moment, fanned out, built again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from cdc.demo.shop import Workload
from cdc.journal.folder import Folder
from cdc.journal.inspect import verify_files
from cdc.journal.reader import Reader
from cdc.journal.retention import read_readers
from cdc.model.segment import Changes
from cdc.model.selection import Selection
from cdc.runs import compare_tables
from integration.conftest import Database, MySqlDatabase
from integration.mysql_work import make_tables, start_work
from integration.processes import Process, cdc, start
from integration.test_kill import make_shop
from tests.seeds import chosen_at_random

ROUNDS = int(os.environ.get("CDC_KILL_ROUNDS", "4"))
POINTS = ("journal.written", "journal.synced", "journal.file_full", "target.before_commit", "backfill.part")
AnyDatabase = Database | MySqlDatabase


@pytest.fixture(params=["postgres", "mariadb"])
def shop(request: pytest.FixtureRequest) -> AnyDatabase:
    """A shop on each server."""
    if request.param == "postgres":
        database: Database = request.getfixturevalue("database")
        make_shop(database, customers=500)
        return database
    other: MySqlDatabase = request.getfixturevalue("on_mariadb")
    make_tables(other, 500)
    return other


def fan_out(database: AnyDatabase, folder: Path, *arguments: str, fault: str = "") -> Process:
    """`cdc run` with a journal and two targets."""
    to = ("--to", f"duckdb:{folder / 'a.duckdb'}", "--to", f"duckdb:{folder / 'b.duckdb'}")
    journal = ("--name", database.name, "--journal", str(folder / "j"))
    return start("run", database.dsn, *journal, *to, *arguments, CDC_FAULT=fault)


def finish(process: Process, code: int = 0) -> str:
    said = process.communicate(timeout=120)[1]
    assert process.returncode == code, said
    return said


def assert_same(database: AnyDatabase, target: Path) -> None:
    chosen = Selection((f"{database.name}.*",)) if isinstance(database, MySqlDatabase) else Selection()
    found = compare_tables(database.dsn, f"duckdb:{target}", chosen)
    assert len(found) > 2
    assert all(table.equal for table in found), found


def execute(database: AnyDatabase, *statements: str) -> None:
    with database.connect() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def start_load(database: AnyDatabase, seed: int) -> Workload:
    if isinstance(database, MySqlDatabase):
        return start_work(database, seed)  # type: ignore[return-value]
    work = Workload(database.dsn, rate=500, seed=seed)
    work.start()
    return work


def content(target: Path) -> dict[str, object]:
    """Every table of a file, with its columns, and its rows in order."""
    with duckdb.connect(str(target), read_only=True) as connection:
        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema <> '_cdc' "
            "AND table_catalog = current_database() ORDER BY ALL"
        ).fetchall()
        return {
            f"{schema}.{table}": (
                connection.execute(f'DESCRIBE "{schema}"."{table}"').fetchall(),
                connection.execute(f'SELECT * FROM "{schema}"."{table}" ORDER BY ALL').fetchall(),
            )
            for schema, table in tables
        }


def recorded(folder: Path) -> list[tuple[int, int, str]]:
    """(order of the commit, ordinal, table) of each change that a journal holds, in its own order of transactions."""
    reader, found = Reader(Folder(folder), 0), []
    while (record := reader.read()) is not None:
        segment = record[1]
        for step in segment.steps:
            if isinstance(step, Changes) and not step.batch.copied:
                orders = segment.transactions.order[step.batch.transaction].tolist()
                table = str(step.batch.schema.table)
                found += [(order, at, table) for order, at in zip(orders, step.batch.ordinal.tolist(), strict=True)]
    return found


def last_commit(folder: Path) -> tuple[str, int]:
    """The position of the last checkpoint that has transactions, and when the last of these was."""
    reader, found = Reader(Folder(folder), 0), ("", 0)
    while (header := reader.peek()) is not None:
        if header.checkpoint is not None and header.committed_at is not None:
            found = (header.checkpoint.text, header.committed_at[-1])
        reader.skip()
    return found


@pytest.mark.long
def test_killed_at_any_moment(shop: AnyDatabase, tmp_path: Path) -> None:
    """B-10, C-04, D-01, D-13, D-19, D-23: the process dies while it copies, records, feeds, and while tables come. Both
    targets hold what the source does, nothing is recorded twice, and a target that is built again from the journal is
    the same each time."""
    rng = chosen_at_random()
    for number in range(ROUNDS):
        work = start_load(shop, number + 1)
        fault = f"{rng.choice(POINTS)}:{rng.randint(1, 4)}" if number % 2 else ""
        process = fan_out(shop, tmp_path, fault=fault)
        if number == 2:
            execute(
                shop, "CREATE TABLE later (id int PRIMARY KEY, v text)", "INSERT INTO later VALUES (1, 'a'), (2, 'b')"
            )
        try:
            process.wait(rng.uniform(1.0, 3.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        said = process.communicate()[1]
        assert process.returncode == -signal.SIGKILL, said
        work.stop()
    finish(fan_out(shop, tmp_path, "--until-caught-up"))  # if every one of them died while it copied, it copies now
    work = start_load(shop, ROUNDS + 1)
    time.sleep(0.5)
    work.stop()
    finish(fan_out(shop, tmp_path, "--until-caught-up"))
    assert_same(shop, tmp_path / "a.duckdb")
    assert_same(shop, tmp_path / "b.duckdb")

    assert [error for _, error in verify_files(Folder(tmp_path / "j"))] == [None] * len(Folder(tmp_path / "j").files())
    changes = recorded(tmp_path / "j")
    assert len(set(changes)) == len(changes) > 0
    orders = [order for order, _, _ in changes]
    assert len({(order, table) for order, _, table in changes}) >= len(set(orders)) > 1

    for name in ("c", "d"):
        target = tmp_path / f"{name}.duckdb"
        done = cdc("rebuild", f"journal:{tmp_path / 'j'}", f"duckdb:{target}")
        assert done.returncode == 0, done.stderr
        assert_same(shop, target)
    assert content(tmp_path / "c.duckdb") == content(tmp_path / "d.duckdb")


def test_as_it_was(shop: AnyDatabase, tmp_path: Path) -> None:
    """`cdc rebuild --until` a position or a time gives what the source held then, and the target can go on from there."""
    finish(fan_out(shop, tmp_path, "--until-caught-up"))
    moments: list[tuple[str, str, dict[str, object]]] = []
    for number in range(2):
        work = start_load(shop, number + 1)
        time.sleep(0.5)
        work.stop()
        finish(fan_out(shop, tmp_path, "--until-caught-up"))
        position, micros = last_commit(tmp_path / "j")
        when = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=micros)
        moments.append((position, when.isoformat(), content(tmp_path / "a.duckdb")))
        if isinstance(shop, MySqlDatabase):
            time.sleep(1.1)  # binlogs know commits by the second
    for number, (position, when, held) in enumerate(moments):
        for kind, until in (("p", position), ("t", when)):
            target = tmp_path / f"{kind}{number}.duckdb"
            done = cdc("rebuild", f"journal:{tmp_path / 'j'}", f"duckdb:{target}", "--until", until)
            assert done.returncode == 0, done.stderr
            assert content(target) == held
    for kind in ("p", "t"):
        target = tmp_path / f"{kind}0.duckdb"
        done = cdc("run", f"journal:{tmp_path / 'j'}", f"duckdb:{target}", "--until-caught-up")
        assert done.returncode == 0, done.stderr
        assert_same(shop, target)
    refused = cdc("rebuild", f"journal:{tmp_path / 'j'}", f"duckdb:{tmp_path / 'x.duckdb'}", "--until", "1999-01-01")
    assert refused.returncode == 2
    assert "does not reach 1999" in refused.stderr


def test_a_target_that_fails_holds_up_nobody(database: Database, tmp_path: Path) -> None:
    """D-13: the others and the source go on; the process says so, and ends with that in the end."""
    make_shop(database, customers=100)
    (tmp_path / "b.duckdb").mkdir()
    said = finish(fan_out(database, tmp_path, "--until-caught-up"), code=2)
    assert "b.duckdb is not fed just now" in said
    assert_same(database, tmp_path / "a.duckdb")
    (tmp_path / "b.duckdb").rmdir()
    finish(fan_out(database, tmp_path, "--until-caught-up"))
    assert_same(database, tmp_path / "b.duckdb")


def test_a_budget_that_is_used_up_turns_status_red(database: Database, tmp_path: Path) -> None:
    """E-08, D-13: nothing is written beyond it while a target is down; the server keeps its log, and the run goes on when
    the target is not waited for any more."""
    make_shop(database, customers=100)
    journal, a = f"journal:{tmp_path / 'j'}", f"duckdb:{tmp_path / 'a.duckdb'}"
    command = ("run", database.dsn, journal, "--name", database.name)
    assert cdc(*command, "--until-caught-up").returncode == 0
    assert cdc("run", journal, a, "--until-caught-up").returncode == 0
    execute(database, "UPDATE shop.customers SET balance = balance + 1")
    assert cdc(*command, "--until-caught-up").returncode == 0  # which the target has still to apply
    held = sum(path.stat().st_size for path in (tmp_path / "j").glob("*.arrows"))
    process = start(*command, "--journal-budget", "1kB", "--journal-age", "0s")
    status = ("status", database.dsn, journal, "--name", database.name, "--json")
    try:
        execute(database, "UPDATE shop.customers SET balance = balance + 1")
        for _ in range(100):
            done = cdc(*status)
            report = json.loads(done.stdout)
            if report["is_red"]:
                break
            time.sleep(0.2)
        assert (done.returncode, report["healthy"]) == (1, False)
        assert f"it waits for {a} at record" in report["failure"]
        assert sum(path.stat().st_size for path in (tmp_path / "j").glob("*.arrows")) == held
    finally:
        process.kill()
        process.communicate()
    assert cdc("journal", "forget", str(tmp_path / "j"), a).returncode == 0
    assert cdc(*command, "--until-caught-up").returncode == 0
    assert cdc(*status).returncode == 0
    done = cdc("rebuild", journal, f"duckdb:{tmp_path / 'b.duckdb'}")
    assert done.returncode == 0, done.stderr
    assert_same(database, tmp_path / "b.duckdb")


def is_coming(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether the feed has not made its target yet, or not copied all tables."""
    return done.returncode == 2 or any(table["trouble"] for table in json.loads(done.stdout)["tables"])


def test_looking_at_it_all_while_it_runs(database: Database, tmp_path: Path) -> None:
    """Verification reaches a target through the journal; status and `cdc journal` say how far each one is."""
    make_shop(database, customers=100)
    process = fan_out(database, tmp_path)
    a, journal = f"duckdb:{tmp_path / 'a.duckdb'}", f"journal:{tmp_path / 'j'}"
    work = start_load(database, 1)
    try:
        until = time.monotonic() + 60
        while is_coming(done := cdc("verify", database.dsn, a, "--json")) and time.monotonic() < until:
            time.sleep(0.2)
        assert done.returncode == 0, (done.stdout, done.stderr)
        assert json.loads(done.stdout)["identical"]
        work.stop()
        assert '"healthy":true' in cdc("status", database.dsn, journal, "--name", database.name, "--json").stdout
        assert a in cdc("journal", "info", str(tmp_path / "j")).stdout.replace("\n", "")
    finally:
        process.send_signal(signal.SIGTERM)
        finish(process)
    assert cdc("journal", "verify", str(tmp_path / "j")).returncode == 0
    refused = cdc("verify", database.dsn, a)
    assert refused.returncode == 2
    assert "no process feeds it now" in refused.stderr
    assert len(read_readers(Folder(tmp_path / "j"))) == 2
    assert cdc("teardown", journal, a, "--yes").returncode == 0
    assert [reader.name for reader in read_readers(Folder(tmp_path / "j"))] == [f"duckdb:{tmp_path / 'b.duckdb'}"]


def test_what_does_not_fit_together_is_said(tmp_path: Path) -> None:
    """Commands that make no sense end with 2 and what to write instead."""
    target = str(tmp_path / "a.duckdb")
    for arguments, said in (
        (("run", "journal:j"), "There is no target"),
        (("run", "journal:j", target, "--to", "b.duckdb"), "--to needs --journal"),
        (("run", "postgresql://nobody@localhost:1/x", target, "--journal", "j"), "targets are named by --to"),
        (("run", f"journal:{tmp_path}", target), "There is no journal"),
        (("run", "journal:j", "journal:k", "--name", "x"), "cannot be made from a journal"),
        (("rebuild", "j", target), "is not a journal"),
        (("journal", "info", str(tmp_path)), "There is no journal"),
        (("journal", "prune", str(tmp_path)), "Neither --age nor --size is given"),
    ):
        done = cdc(*arguments)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
