"""What `cdc status` says where nobody replicates, or where something is lost: never that all is well."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from cdc.demo.server import PrivatePostgres
from integration.conftest import Database, MySqlDatabase, Replica, make_replica
from integration.looks import status_now
from integration.processes import Process, cdc, start


def status(dsn: str, target: str, name: str, *options: str) -> dict[str, Any]:
    done = cdc("status", dsn, target, "--name", name, "--json", *options)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if report["healthy"] else 1), done.stderr
    assert report["healthy"] == (not report["problems"]) == (report["health"] != "red")
    return report


def status_of(replica: Replica, *options: str) -> dict[str, Any]:
    return status(replica.database.dsn, replica.target, replica.options.name, *options)


def wait_for_phase(dsn: str, target: str, name: str, phase: str) -> dict[str, Any]:
    for _ in range(150):
        report = status(dsn, target, name)
        if report["phase"] == phase:
            return report
        time.sleep(0.2)
    raise AssertionError({name: value for name, value in report.items() if name != "slot"})


def ended(process: Process) -> tuple[int, str]:
    said = process.communicate(timeout=60)[1]
    return process.returncode or 0, said


@pytest.fixture
def one(database: Database, tmp_path: Path) -> Replica:
    """A table that is followed, by a pipeline that does not run."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')")
    replica = make_replica(database, tmp_path)
    replica.catch_up()
    return replica


KINDS = ["duckdb:{}/x.duckdb", "jsonl:{}/x.jsonl", "journal:{}/j"]


@pytest.mark.parametrize("how", ["removed", "replaced"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_target_that_is_taken_away(database: Database, tmp_path: Path, kind: str, how: str) -> None:
    """O9: the run ends with 3 before the source lets go of anything more, written to or idle."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    target, name = kind.format(tmp_path), database.name
    path = Path(target.partition(":")[2])
    process = start("run", database.dsn, target, "--name", name)
    try:
        wait_for_phase(database.dsn, target, name, "streaming")
        path.rename(tmp_path / "elsewhere")
        if how == "replaced":
            (shutil.copytree if (tmp_path / "elsewhere").is_dir() else shutil.copy)(tmp_path / "elsewhere", path)
        else:
            database.execute("INSERT INTO t VALUES (2)")
        code, said = ended(process)
    finally:
        process.kill()
    assert code == 3, said
    assert "while it was being written" in said
    assert not status(database.dsn, target, name)["healthy"]


def test_a_backlog_that_nobody_works_on(one: Replica, database: Database) -> None:
    """O27: a pipeline that is stopped is healthy as long as it has nothing to do, or had until a moment ago."""
    assert status_of(one, "--max-lag", "0s")["healthy"]
    assert status_of(one, "--require-running")["problems"] == ["Nobody runs it."]
    database.execute(
        "CREATE TABLE others AS SELECT generate_series(1, 1000)"
    )  # of no publication, before it is looked at
    assert status_of(one, "--max-lag", "0s")["healthy"]
    database.execute("UPDATE t SET v = 'b'")
    assert status_of(one, "--max-lag", "1h")["healthy"] is False  # nobody knows since when it is stopped
    with_file = start("run", database.dsn, one.target, "--name", one.options.name)
    wait_for_phase(database.dsn, one.target, one.options.name, "streaming")
    with_file.terminate()
    assert ended(with_file)[0] == 0
    database.execute("UPDATE t SET v = 'c'")
    assert status_of(one, "--max-lag", "1h")["healthy"]
    (problem,) = status_of(one, "--max-lag", "0s")["problems"]
    assert problem.startswith("Nobody runs it, and ")
    one.catch_up()
    assert status_of(one, "--max-lag", "0s")["healthy"]


def test_a_backlog_of_mysql(my: MySqlDatabase, tmp_path: Path) -> None:
    """O27: the same by the binlog."""
    my.execute("CREATE TABLE t (id int PRIMARY KEY)")
    replica = make_replica(my, tmp_path)
    replica.catch_up()
    assert status_of(replica, "--max-lag", "0s")["healthy"]
    my.execute("INSERT INTO t VALUES (1)")
    (problem,) = status_of(replica, "--max-lag", "0s")["problems"]
    assert problem.startswith("Nobody runs it, and ")


def test_a_target_from_an_older_copy(one: Replica, database: Database) -> None:
    """O10: `run` refuses it, and status says so."""
    shutil.copy(one.path, older := one.path.with_name("older"))
    for value in ("b", "c"):
        database.execute(f"UPDATE t SET v = '{value}'")
        one.catch_up()
    os.replace(older, one.path)
    done = cdc("run", database.dsn, one.target, "--name", one.options.name, "--until-caught-up")
    assert done.returncode == 3
    report = status_of(one)
    assert report["problems"][0].startswith("A run would end: ")


def test_another_name(one: Replica, database: Database, tmp_path: Path) -> None:
    """O28: status is per pipeline, and a second run that is refused leaves the first one's alone."""
    process = start("run", database.dsn, one.target, "--name", one.options.name)
    try:
        before = wait_for_phase(database.dsn, one.target, one.options.name, "streaming")
        refused = cdc("run", database.dsn, one.target, "--name", one.options.name)
        assert refused.returncode != 0
        time.sleep(1.2)
        after = status_of(one)
        assert (after["phase"], after["failure"], after["running"]) == ("streaming", None, True)
        assert after["tables"] == before["tables"]
        other = cdc("status", database.dsn, one.target, "--name", "other", "--json")
        assert other.returncode == 2
        assert f"--name {one.options.name}" in other.stderr
    finally:
        process.terminate()
        ended(process)


def test_a_source_that_is_down(tmp_path: Path) -> None:
    """O13, O29: the target's side is in the JSON, and the time goes on for which nothing is heard of the source."""
    with PrivatePostgres(18) as server:
        server.create_database("shop")
        database = Database(server, "shop")
        database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
        replica = make_replica(database, tmp_path, name="shop")
        replica.catch_up()
        process = start("run", database.dsn, replica.target, "--name", "shop")
        try:
            wait_for_phase(database.dsn, replica.target, "shop", "streaming")
            server.stop(signal.SIGQUIT)
            time.sleep(4)
            report = status_of(replica, "--max-lag", "2s")
            assert report["source"]["error"]
            assert report["problems"][0].startswith("The source cannot be asked: ")
            assert 2 < report["lag_seconds"] < 60
            assert any("s behind" in problem for problem in report["problems"])
            assert report["tables"]["public.t"]["state"] == "following"
        finally:
            process.terminate()
            ended(process)
        report = status_of(replica)
        assert (report["running"], report["tables"]["public.t"]["state"]) == (False, "following")


def test_a_run_that_has_failed(one: Replica, database: Database) -> None:
    """O14: the reason of the last run's end stands in status, until another run has gone on."""
    with duckdb.connect(str(one.path)) as connection:
        connection.execute("ALTER TABLE public.t DROP COLUMN v")
    database.execute("UPDATE t SET v = 'b'")
    command = ("run", database.dsn, one.target, "--name", one.options.name, "--until-caught-up")
    assert cdc(*command, "--on-table-error", "stop").returncode == 3
    report = status_of(one)
    assert not report["running"]
    assert "columns of public.t" in report["failure"]
    assert report["problems"][0].startswith("The last run has failed: ")
    with duckdb.connect(str(one.path)) as connection:
        connection.execute("ALTER TABLE public.t ADD COLUMN v text")
    assert cdc(*command).returncode == 0
    assert status_of(one)["problems"] == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk(database: Database, small_disk: Path, kind: str) -> None:
    """O14, O15, O42: the run says that there is no space, and so does status, without a traceback or a write."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')")
    target, name = kind.format(small_disk), database.name
    assert cdc("run", database.dsn, target, "--name", name, "--until-caught-up").returncode == 0
    values = "SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 10) WHERE n > 0"
    database.execute(f"INSERT INTO t SELECT n, ({values}) FROM generate_series(2, 80000) n")
    done = cdc("run", database.dsn, target, "--name", name, "--until-caught-up")
    assert done.returncode == 3, done.stderr
    assert "space" in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert "report this" not in done.stderr
    report = status(database.dsn, target, name)
    assert any("The last run has failed: " in problem for problem in report["problems"])


def test_a_damaged_file(one: Replica, database: Database) -> None:
    """O43: it is named, and the ways back are listed."""
    with duckdb.connect(str(one.path)) as connection:
        connection.execute("CHECKPOINT")
    with one.path.open("r+b") as file:
        for at in range(12288 + 100, one.path.stat().st_size, 262144):  # in each of DuckDB's blocks
            file.seek(at)
            file.write(b"damaged!")
    database.execute("UPDATE t SET v = 'b'")
    done = cdc("run", database.dsn, one.target, "--name", one.options.name, "--until-caught-up")
    assert done.returncode == 3, done.stderr
    assert f"{one.path} is damaged" in done.stderr
    assert "report this" not in done.stderr


def test_a_slot_in_danger(tmp_path: Path) -> None:
    """O41: a slot whose log the server may let go of at its next checkpoint is no healthy one."""
    with PrivatePostgres(18, settings={"max_slot_wal_keep_size": "16MB", "max_wal_size": "1GB"}) as server:
        server.create_database("shop")
        database = Database(server, "shop")
        database.execute("CREATE TABLE t (id int PRIMARY KEY)")
        replica = make_replica(database, tmp_path, name="shop")
        replica.catch_up()
        assert status_of(replica)["problems"] == []
        for _ in range(3):
            database.execute("SELECT pg_logical_emit_message(false, '', 'x'); SELECT pg_switch_wal()")
        report = status_of(replica)
        assert report["slot"]["wal_status"] == "unreserved"
        assert any("max_slot_wal_keep_size" in problem for problem in report["problems"])


def test_the_last_line(one: Replica, database: Database) -> None:
    """O30: a run that has caught up says so by the position that it has come to."""
    database.execute("INSERT INTO t SELECT n FROM generate_series(2, 5000) n")
    done = cdc("-v", "run", database.dsn, one.target, "--name", one.options.name, "--until-caught-up")
    last, word = done.stderr.strip().splitlines()[-2:]
    ((position,),) = one.query("SELECT position FROM _cdc.checkpoint")
    assert f"durable={position}" in last
    assert "phase=stopped" in last
    assert f"Caught up, and ended at {position}." in word


def test_a_target_of_several_that_fails(database: Database, tmp_path: Path) -> None:
    """O11, O12: it is red while the others are not, is tried again, and is fed once what was wrong is mended."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    fine, failing, name = f"duckdb:{tmp_path / 'a.duckdb'}", f"jsonl:{tmp_path / 'b.jsonl'}", database.name
    (tmp_path / "b.jsonl").write_text("somebody else's\n")
    command = ("run", database.dsn, "--journal", str(tmp_path / "j"), "--to", fine, "--to", failing, "--name", name)
    process = start(*command)
    try:
        wait_for_phase(database.dsn, fine, name, "streaming")
        assert status(database.dsn, fine, name)["healthy"]
        assert not status(database.dsn, failing, name)["healthy"]
        (tmp_path / "b.jsonl").unlink()
        wait_for_phase(database.dsn, failing, name, "streaming")
        assert status(database.dsn, failing, name)["healthy"]
    finally:
        process.terminate()
        code, said = ended(process)
    assert code == 0, said
    assert said.count("b.jsonl is not fed just now") == 1


def test_a_target_that_is_just_being_opened(database: Database, tmp_path: Path) -> None:
    """O28: the run that has it open has said nothing yet; it is known which pipeline that is, and how far it was."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    target = f"duckdb:{tmp_path}/x.duckdb"
    assert cdc("run", database.dsn, target, "--name", database.name, "--until-caught-up").returncode == 0
    before = status(database.dsn, target, database.name)
    code = (
        f"import duckdb, sys; held = duckdb.connect({str(tmp_path / 'x.duckdb')!r}); print('open', flush=True); input()"
    )
    opened = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert opened.stdout is not None
        assert opened.stdout.readline() == b"open\n"
        report = json.loads(cdc("status", database.dsn, target, "--json").stdout)
        assert (report["name"], report["position"]) == (database.name, before["position"])
        assert report["tables"].keys() == before["tables"].keys()
        assert report["running"]
    finally:
        opened.communicate(b"\n")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", ["pipeline.before_open", "handoff.after_take"])
def test_a_disk_that_fails(database: Database, tmp_path: Path, kind: str, point: str) -> None:
    """O14: also where the target could not even be opened, status says why at once, and no table is blamed for it."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    target, name = kind.format(tmp_path), database.name
    command = ("run", database.dsn, target, "--name", name, "--until-caught-up")
    assert cdc(*command).returncode == 0
    database.execute("INSERT INTO t VALUES (2)")
    done = cdc(*command, CDC_FAULT=f"{point}=ioerror")
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    (problem,) = status(database.dsn, target, name, "--max-lag", "1h")["problems"]
    assert problem.startswith("The last run has failed: The system cannot read or write ")
    assert cdc(*command).returncode == 0
    assert status(database.dsn, target, name, "--max-lag", "0s")["problems"] == []


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ("target.before_insert=ioerror", "The system cannot read or write "),
        ("target.before_insert=nospace", "There is no space left for "),
    ],
)
def test_a_disk_is_no_table(one: Replica, database: Database, of: str, said: str) -> None:
    """O14: what a disk fails with while a table is written holds no table: the run ends, and goes on where it was."""
    database.execute("UPDATE t SET v = 'b'; INSERT INTO t VALUES (2, 'c')")
    command = ("run", database.dsn, one.target, "--name", one.options.name, "--until-caught-up")
    done = cdc(*command, CDC_FAULT=of)
    assert done.returncode == 3, done.stderr
    assert "held" not in done.stderr
    assert f"Error: {said}{one.path}" in done.stderr
    assert cdc(*command).returncode == 0
    assert status_of(one, "--max-lag", "0s")["health"] == "green"
    one.assert_equal()


def test_a_target_that_a_full_disk_did_not_let_begin(database: Database, tmp_path: Path) -> None:
    """O15: what is left of it is no DuckDB file, and is not there once there is space again."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    replica = make_replica(database, tmp_path)
    command = ("run", database.dsn, replica.target, "--name", replica.options.name, "--until-caught-up")
    done = cdc(*command, CDC_FAULT="pipeline.before_open=full")
    assert done.returncode == 3, done.stderr
    assert "There is no space left for " in done.stderr
    done = cdc(*command)
    assert done.returncode == 0, done.stderr
    replica.assert_equal()


def test_a_backlog_behind_a_journal(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """O27: what a journal has and its target lacks is a backlog, whether one asks about the journal or the database; and
    so is what the journal itself lacks."""
    anywhere.execute("CREATE TABLE t (id int PRIMARY KEY)")
    journal, fed, name = f"journal:{tmp_path / 'j'}", f"duckdb:{tmp_path / 'x.duckdb'}", anywhere.name
    into_journal = ("run", anywhere.dsn, journal, "--name", name, "--until-caught-up")
    out_of_it = ("run", journal, fed, "--name", name, "--until-caught-up")

    def health(source: str, target: str) -> str:
        return str(status(source, target, name, "--max-lag", "0s")["health"])

    def has_caught_up() -> tuple[str, str, str]:
        return health(anywhere.dsn, journal), health(journal, fed), health(anywhere.dsn, fed)

    assert cdc(*into_journal).returncode == cdc(*out_of_it).returncode == 0
    assert has_caught_up() == ("green", "green", "green")
    anywhere.execute("INSERT INTO t VALUES (1)")
    assert has_caught_up() == ("red", "green", "red")
    assert cdc(*into_journal).returncode == 0
    assert has_caught_up() == ("green", "red", "red")
    assert cdc(*out_of_it).returncode == 0
    assert has_caught_up() == ("green", "green", "green")


def test_a_disk_that_fails_under_one_of_several_targets(database: Database, tmp_path: Path) -> None:
    """O11, O14: that target is red with the reason while the others are not, until it has been fed again."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    one, journal, name = f"duckdb:{tmp_path / 'a.duckdb'}", f"journal:{tmp_path / 'j'}", database.name
    lines = f"jsonl:{tmp_path / 'b.jsonl'}"  # where no rows are inserted
    command = ("run", database.dsn, "--journal", str(tmp_path / "j"), "--to", one, "--to", lines, "--name", name)
    process = start(*command, CDC_FAULT="target.before_insert=ioerror")
    try:
        wait_for_phase(database.dsn, lines, name, "streaming")
        for _ in range(100):
            failing = status(database.dsn, one, name)
            if failing["failure"]:
                break
            time.sleep(0.05)
        assert any(f"cannot read or write {tmp_path / 'a.duckdb'}" in problem for problem in failing["problems"])
        assert status(database.dsn, journal, name)["healthy"]
        assert status(database.dsn, lines, name)["healthy"]
        wait_for_phase(database.dsn, one, name, "streaming")
        assert status(database.dsn, one, name)["healthy"]
    finally:
        process.terminate()
        code, said = ended(process)
    assert code == 0, said
    assert said.count("a.duckdb is not fed just now") == 1
    assert "Traceback" not in said
    for target in (one, lines, journal):  # it was ended in order
        assert status(database.dsn, target, name, "--max-lag", "0s")["problems"] == []


def test_a_backlog_while_somebody_has_the_slot_for_a_moment(one: Replica, database: Database) -> None:
    """A-10, O27: the walsender of a process that was just killed does not work on a backlog."""
    database.execute("UPDATE t SET v = 'b'")
    name = f"cdc_{one.options.name}"
    start_it = f"START_REPLICATION SLOT {name} LOGICAL 0/0 (proto_version '1', publication_names '{name}')"
    lingering = psycopg.connect(database.dsn, autocommit=True, replication="database")
    assert lingering.pgconn.exec_(start_it.encode()).status == psycopg.pq.ExecStatus.COPY_BOTH
    ends = threading.Timer(0.7, lingering.close)
    ends.start()
    try:
        (problem,) = status_now(database.dsn, one.target, one.options.name)["problems"]
    finally:
        ends.join()
    assert problem.startswith("Nobody runs it, and ")


def test_a_run_under_a_wrong_name(one: Replica, database: Database) -> None:
    """O28: who mistakes a target for his own leaves what it says of its own last run, and reads whose it is."""
    database.execute("UPDATE t SET v = 'b'")
    command = ("run", database.dsn, one.target, "--until-caught-up")
    assert cdc(*command, "--name", one.options.name, CDC_FAULT="handoff.after_take=fail").returncode == 1
    before = status_of(one, "--max-lag", "1h")["problems"]
    assert before == ["The last run has failed: The fault point handoff.after_take failed for good."]
    assert cdc(*command, "--name", "other").returncode == 2
    assert status_of(one, "--max-lag", "1h")["problems"] == before
    other = cdc("status", database.dsn, one.target, "--name", "other", "--json")
    assert other.returncode == 2
    assert f"--name {one.options.name}" in other.stderr


def test_another_database_of_the_server(my: MySqlDatabase, tmp_path: Path) -> None:
    """O44: the log of a server goes on for each of its databases, but a target follows one of them."""
    my.execute("CREATE TABLE t (id int PRIMARY KEY)")
    replica = make_replica(my, tmp_path)
    replica.catch_up()
    elsewhere = replace(my, name=f"{my.name}_elsewhere")
    my.server.create_database(elsewhere.name)
    elsewhere.execute("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    try:
        ends = (elsewhere.dsn, replica.target, "--name", my.name)
        done = cdc("run", *ends, "--until-caught-up")
        assert done.returncode == 3, done.stderr
        assert f"is another database than '{my.name}'" in done.stderr
        assert status(elsewhere.dsn, replica.target, my.name)["problems"][0].startswith("A run would end: ")
        done = cdc("teardown", *ends, "--yes")
        assert done.returncode == 2, done.stderr
        assert "Nothing was removed." in done.stderr
        whole = my.dsn.replace(f"/{my.name}", "/")
        assert (
            cdc(
                "run", whole, replica.target, "--name", my.name, "--tables", f"{my.name}.*", "--until-caught-up"
            ).returncode
            == 0
        )
        done = cdc("run", my.dsn, replica.target, "--name", my.name, "--until-caught-up")
        assert done.returncode == 0, done.stderr
        assert status_of(replica, "--max-lag", "0s")["health"] == "green"
        replica.assert_equal()
    finally:
        elsewhere.remove()
