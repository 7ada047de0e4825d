"""The commands as a user meets them: what they print, what they end with, and what they never say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import duckdb
import psycopg
import pytest

from cdc.demo.server import PrivatePostgres
from integration.conftest import Database
from integration.processes import COMMAND, cdc

CANARY = "s3cr3t-canary"


def typed(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command with an interpreter of its own, as a user starts it."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False)


def in_words(done: subprocess.CompletedProcess[str]) -> str:
    """All that was said; no traceback, and no password, whatever happened (E-03)."""
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert CANARY not in said
    return said


@pytest.mark.parametrize(
    ("source", "target", "code", "said"),
    [
        ("nonsense", "duckdb:x.duckdb", 2, "not a DSN"),
        ("mongodb://h/d", "duckdb:x.duckdb", 2, "not a source"),
        ("{dsn}", "x.parquet", 2, "not a target"),
        ("{dsn}", "duckdb:", 2, "names no file"),
        ("{dsn}", "duckdb:/no/such/folder/x.duckdb", 2, "no folder"),
        ("{dsn}", "duckdb:{passwd}", 2, "not a DuckDB file"),
        ("{typo}", "duckdb:x.duckdb", 2, "does not exist"),
        (f"postgresql://nobody:{CANARY}@127.0.0.1:{{port}}/postgres", "duckdb:x.duckdb", 2, "nobody"),
        (f"postgresql://u:{CANARY}@127.0.0.1:1/d", "duckdb:x.duckdb", 1, "refused"),
        (f"postgresql://u:{CANARY}%zz@127.0.0.1/d", "duckdb:x.duckdb", 2, "not a PostgreSQL DSN"),
    ],
)
def test_bad_input(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, target: str, code: int, said: str
) -> None:
    """E-03, E-12: one message, a hint, an exit code."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "passwd").write_text("root:x:0:0:root\n" * 500)
    typo = database.server.dsn(f"{database.name}typo")
    values = {"dsn": database.dsn, "typo": typo, "port": str(database.server.port), "passwd": str(tmp_path / "passwd")}
    done = cdc("run", source.format(**values), target.format(**values))
    assert said in in_words(done)
    assert done.returncode == code


def test_more_bad_input(database: Database, tmp_path: Path) -> None:
    """E-12: tables with a suggestion, names, flags."""
    database.execute("CREATE TABLE customers (id int PRIMARY KEY)")
    target = f"duckdb:{tmp_path}/x.duckdb"
    for arguments, said in (
        (["--tables", "custmers"], "customers"),
        (["--name", "Not A Name"], "cannot name a pipeline"),
        (["--bogus"], "No such option"),
        (["--workers", "none"], "workers"),
    ):
        done = cdc("run", database.dsn, target, *arguments)
        assert said in in_words(done), arguments
        assert done.returncode == 2, arguments
    assert not (tmp_path / "x.duckdb").exists() or database.execute("SELECT count(*) FROM pg_replication_slots") != []


def test_a_wrong_password_is_not_said(tmp_path: Path) -> None:
    """E-03: by URL, by keyword, and by environment."""
    with PrivatePostgres(18) as server:
        server.execute(f"CREATE ROLE app LOGIN REPLICATION PASSWORD 'right-{CANARY}'")
        target = f"duckdb:{tmp_path}/x.duckdb"
        for dsn, environment in (
            (f"postgresql://app:{CANARY}@127.0.0.1:{server.port}/postgres", {}),
            (f"postgresql://127.0.0.1:{server.port}/postgres?user=app&password={CANARY}", {}),
            (f"postgresql://app@127.0.0.1:{server.port}/postgres", {"PGPASSWORD": CANARY}),
        ):
            for command in (["run", dsn, target], ["check", dsn], ["tail", dsn], ["status", dsn, target]):
                done = cdc(*command, **environment)
                assert "password authentication failed" in in_words(done)
                assert done.returncode == 2


def test_a_read_only_folder(database: Database, tmp_path: Path) -> None:
    """E-10."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    folder = tmp_path / "read-only"
    folder.mkdir()
    folder.chmod(0o555)
    if os.geteuid() == 0:
        folder = Path("/proc")  # root may write anywhere else
    done = cdc("run", database.dsn, f"duckdb:{folder}/x.duckdb")
    assert "cannot be" in in_words(done)
    assert done.returncode == 2


def test_check_finds_nothing_or_everything(database: Database) -> None:
    """A-17, A-35, A-53, E-13: all at once, each with its SQL, and it changes nothing."""
    database.execute(
        """
        CREATE TABLE good (id int PRIMARY KEY); CREATE TABLE keyless (a int); CREATE UNLOGGED TABLE fast (id int PRIMARY KEY);
        CREATE VIEW seen AS SELECT 1 AS a; CREATE MATERIALIZED VIEW kept AS SELECT 1 AS a;
        CREATE TABLE silent (id int PRIMARY KEY); ALTER TABLE silent REPLICA IDENTITY NOTHING;
        """
    )
    done = cdc("check", database.dsn)
    said = in_words(done)
    assert done.returncode == 0
    for words in (
        "public.keyless",
        'ALTER TABLE "public"."keyless" REPLICA IDENTITY FULL',
        "public.fast: Not replicated",
        "public.seen: Not replicated",
        "public.kept: Not replicated",
        "public.silent: It has REPLICA IDENTITY NOTHING",
        "Ready to replicate",
    ):
        assert words in said
    assert database.execute("SELECT count(*) FROM pg_publication") == [(0,)]

    database.execute(f"DROP ROLE IF EXISTS weak; CREATE ROLE weak LOGIN PASSWORD '{database.server.password}'")
    done = cdc("check", database.dsn.replace("postgres@", "weak@"))
    said = in_words(done)
    assert done.returncode == 3
    for words in ('ALTER ROLE "weak" WITH REPLICATION', "GRANT CREATE ON DATABASE", "GRANT SELECT ON", "OWNER TO"):
        assert words in said


def test_check_on_a_server_that_cannot(tmp_path: Path) -> None:
    """A-17, O35: wal_level and a full house; `run` refuses for the same reasons, with the same code, before it makes anything."""
    settings = {"wal_level": "replica", "max_replication_slots": "0", "max_wal_senders": "0"}
    with PrivatePostgres(18, settings=settings) as server:
        server.execute("CREATE TABLE t (id int PRIMARY KEY)")
        done = cdc("check", server.dsn())
        said = in_words(done)
        assert done.returncode == 3
        for words in ("SET wal_level = 'logical'", "SET max_replication_slots = 5", "SET max_wal_senders = 5"):
            assert words in said
        done = cdc("run", server.dsn(), f"duckdb:{tmp_path}/x.duckdb")
        assert "wal_level" in in_words(done)
        assert done.returncode == 3


def test_works_without_superuser(database: Database, tmp_path: Path) -> None:
    """E-13: the grants that `check` asks for are enough."""
    database.execute(
        f"""
        DROP ROLE IF EXISTS app; CREATE ROLE app LOGIN REPLICATION PASSWORD '{database.server.password}'; GRANT CREATE ON DATABASE {database.name} TO app;
        GRANT ALL ON SCHEMA public TO app; SET ROLE app; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
        """
    )
    dsn = database.dsn.replace("postgres@", "app@")
    assert "Ready" in in_words(cdc("check", dsn))
    target = f"duckdb:{tmp_path}/x.duckdb"
    for _ in range(2):
        done = cdc("run", dsn, target, "--until-caught-up")
        assert done.returncode == 0, in_words(done)
        database.execute("INSERT INTO t SELECT max(id) + 1 FROM t")
    assert cdc("teardown", dsn, target, "--yes").returncode == 0
    database.execute(
        f"REVOKE ALL ON SCHEMA public FROM app; DROP OWNED BY app; REVOKE ALL ON DATABASE {database.name} FROM app; DROP ROLE app"
    )


def test_status_and_teardown(database: Database, tmp_path: Path) -> None:
    """A-08, A-20, E-14: what the slot costs, what pins it, and that nothing is left and nothing else is taken."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION cdc_other FOR TABLE t")
    target = f"duckdb:{tmp_path}/x.duckdb"
    done = cdc("status", database.dsn, target)
    assert "missing" in in_words(done)
    assert cdc("run", database.dsn, target, "--until-caught-up").returncode == 0
    database.execute("INSERT INTO t SELECT i FROM generate_series(1, 10000) i")
    with psycopg.connect(database.dsn) as pin:
        pin.execute("INSERT INTO t VALUES (-1)")
        time.sleep(10.5)
        report = json.loads(cdc("status", database.dsn, target, "--json").stdout)
    assert report["running"] is False
    assert report["slot"]["wal_status"] == "reserved"
    assert report["lag_bytes"] > 100_000
    assert report["slot"]["retained_bytes"] >= report["lag_bytes"]
    assert "idle in transaction" in report["slot"]["pinned_by"]
    assert report["tables"]["public.t"]["state"] == "following"

    said = tmp_path / "said"
    with said.open("wb") as log:
        running = subprocess.Popen([*COMMAND, "run", database.dsn, target], stderr=log)
    try:
        for _ in range(100):
            time.sleep(0.1)
            report = json.loads(cdc("status", database.dsn, target, "--json").stdout)
            if report["running"] and report["phase"] == "streaming" and report["lag_bytes"] == 0:
                break
        assert report["running"]
        assert report["phase"] == "streaming"
        assert report["slot"]["holder"]
        refused = cdc("teardown", database.dsn, "--name", "x")
        assert "in use by PID" in in_words(refused)
        assert refused.returncode == 1
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
    assert not [line for line in said.read_text().splitlines() if " INFO " not in line]
    removed = in_words(cdc("teardown", database.dsn, target, "--yes"))
    for words in ("replication slot cdc_x", "publication cdc_x", "schema _cdc", "status file"):
        assert words in removed
    assert database.execute("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()") == []
    assert database.execute("SELECT pubname FROM pg_publication") == [("cdc_other",)]
    assert "not the target of a pipeline" in in_words(cdc("teardown", database.dsn, target))
    assert "nothing to remove" in in_words(cdc("teardown", database.dsn, "--name", "x"))


def test_tail(database: Database) -> None:
    """A-37, A-66, A-68: every change once, in commit order, whole transactions, keys before and after; a slot that is kept goes on."""
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(5,2), ok boolean); CREATE TABLE u (a int, b text); ALTER TABLE u REPLICA IDENTITY FULL"
    )
    assert cdc("tail", database.dsn, "--slot", "audit", "--until-caught-up").stdout == ""
    database.execute("INSERT INTO t VALUES (1, 'a', 1.50, true)")
    database.execute(
        "SELECT pg_logical_emit_message(false, 'somebody', 'else'), pg_logical_emit_message(true, 'somebody', 'else')"
    )
    database.execute(
        "BEGIN; UPDATE t SET id = 2; INSERT INTO u VALUES (1, 'x'); DELETE FROM t; UPDATE u SET b = 'y'; TRUNCATE t, u; COMMIT"
    )
    lines = [
        json.loads(line)
        for line in cdc("tail", database.dsn, "--slot", "audit", "--until-caught-up").stdout.splitlines()
    ]
    lines = [e for e in lines if e["op"] != "schema"]
    (note,) = [e for e in lines if e["op"] == "note"]
    assert (note["prefix"], note["content"]) == ("somebody", "else")
    lines.remove(note)
    assert [(e["op"], e["table"], e["key"], e["before"], e["after"]) for e in lines[:5]] == [
        ("insert", "public.t", {"id": 1}, None, {"id": 1, "v": "a", "n": "1.50", "ok": True}),
        ("update", "public.t", {"id": 2}, {"id": 1}, {"id": 2, "v": "a", "n": "1.50", "ok": True}),
        ("insert", "public.u", None, None, {"a": 1, "b": "x"}),
        ("delete", "public.t", {"id": 2}, {"id": 2}, None),
        ("update", "public.u", None, {"a": 1, "b": "x"}, {"a": 1, "b": "y"}),
    ]
    assert sorted((e["op"], e["table"]) for e in lines[5:]) == [("truncate", "public.t"), ("truncate", "public.u")]
    assert [e["ordinal"] for e in lines] == [0, 0, 1, 2, 3, 4, 5]
    assert len({(e["position"], e["ordinal"]) for e in lines}) == len(lines)
    assert cdc("tail", database.dsn, "--slot", "audit", "--until-caught-up").stdout == ""

    running = subprocess.Popen([*COMMAND, "tail", database.dsn], stdout=subprocess.PIPE, text=True)
    while not database.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name LIKE 'cdc_tail%' AND active"):
        time.sleep(0.05)
    time.sleep(0.5)
    database.execute("INSERT INTO t VALUES (5)")
    assert running.stdout is not None
    assert [json.loads(running.stdout.readline())["key"] for _ in range(2)] == [
        None,
        {"id": 5},
    ]  # the shape comes first
    running.send_signal(signal.SIGINT)
    assert running.wait(20) == 0
    assert database.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name LIKE 'cdc_tail%'") == []
    assert database.execute("SELECT 1 FROM pg_publication WHERE pubname LIKE 'cdc_tail%'") == []


def test_row_values_never_reach_the_log(database: Database, tmp_path: Path) -> None:
    """E-04: neither in what is said nor in errors."""
    database.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, v numeric(8,2), w text); INSERT INTO t VALUES (1, 'NaN', '{CANARY}')"
    )
    target = f"duckdb:{tmp_path}/x.duckdb"
    done = cdc("--verbose", "run", database.dsn, target, "--until-caught-up")
    assert done.returncode == 0
    assert "kept as text" in in_words(done)
    database.execute(
        f"INSERT INTO t VALUES (2, 1, '{CANARY}'); ALTER TABLE t ALTER w TYPE int USING 1; UPDATE t SET w = 5"
    )
    done = cdc("run", database.dsn, target, "--until-caught-up", "--on-table-error", "stop")
    assert "public.t.w" in in_words(done)
    assert done.returncode == 3
    done = cdc("run", database.dsn, target, "--until-caught-up")
    assert "copied again" in in_words(done)
    assert done.returncode == 0


def test_version_and_help() -> None:
    assert typed("--version").stdout.startswith("cdc 0.")
    said = typed("--help").stdout
    for command in ("run", "check", "status", "tail", "teardown", "demo", "--install-completion"):
        assert command in said


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first thing that a user runs."""
    monkeypatch.chdir(tmp_path)
    done = typed("demo", "--seconds", "3", "--rate", "1000")
    said = in_words(done)
    assert done.returncode == 0, said
    assert said.count("equal") >= 4
    assert "DIFFERENT" not in said


def test_selection_by_patterns(database: Database, tmp_path: Path) -> None:
    """--tables and --exclude."""
    database.execute(
        "CREATE SCHEMA a; CREATE TABLE a.x (id int PRIMARY KEY); CREATE TABLE a.y (id int PRIMARY KEY); CREATE TABLE z (id int PRIMARY KEY)"
    )
    target = f"duckdb:{tmp_path}/x.duckdb"
    done = cdc("run", database.dsn, target, "-t", "a.*", "-x", "a.y", "--until-caught-up")
    assert done.returncode == 0, in_words(done)
    with duckdb.connect(str(tmp_path / "x.duckdb"), read_only=True) as connection:
        found = connection.execute("SELECT schema_name, table_name FROM duckdb_tables() WHERE schema_name <> '_cdc'")
        assert found.fetchall() == [("a", "x")]
