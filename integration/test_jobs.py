"""Jobs that open a pipeline of their own run it with the options of `cdc run`."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cdc.jobs import requests as jobs
from cdc.model.selection import Selection
from cdc.options import Options
from cdc.runs import have_done
from integration.conftest import Database, MySqlDatabase, make_replica
from integration.processes import cdc, start

_KEYLESS = (
    "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE k (v int); INSERT INTO t VALUES (1); INSERT INTO k VALUES (1)"
)
_VERIFY = {"tables": ("*.*",), "exclude": (), "sample": 1.0, "max_rate": None, "with_values": False}


def members(database: Database) -> set[object]:
    """What the pipeline's publications hold."""
    return {table for _, table in database.execute("SELECT pubname, tablename FROM pg_publication_tables")}


def asked(database: Database, target: str) -> dict[str, Any]:
    """What `cdc verify` asks of a pipeline that nobody runs."""
    return have_done(database.dsn, target, Options(database.name), "verify", _VERIFY, lambda _: None)


@pytest.fixture
def takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verification goes on for long enough that the pipeline looks after its tables, and does what is due."""

    def slowly(pipeline: Any, observer: Any, arguments: Any, progress: Any) -> Any:
        pipeline.rest(1.5)
        return jobs.verify(pipeline, observer, arguments, progress)

    monkeypatch.setitem(jobs.JOBS, "verify", slowly)  # type: ignore[arg-type]


@pytest.mark.usefixtures("takes_long")
def test_keyless_tables_stay_in_the_publication(database: Database, tmp_path: Path) -> None:
    """O5: a pipeline made with --include-keyless, verified while nobody runs it; what only looks changes nothing."""
    database.execute(_KEYLESS)
    replica = make_replica(database, tmp_path, include_keyless=True)
    replica.catch_up()
    assert members(database) == {"t", "k"}
    database.execute("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO k VALUES (2)")
    found = asked(database, replica.target)
    assert {table["table"] for table in found["tables"]} == {"public.t", "public.k", "public.later"}
    assert members(database) == {"t", "k"}
    replica.catch_up()
    assert members(database) == {"t", "k", "later"}
    replica.assert_equal()


@pytest.mark.usefixtures("takes_long")
def test_a_state_without_the_options_of_its_run(database: Database, tmp_path: Path) -> None:
    """O5: a pipeline of an older version is followed as it is."""
    database.execute(_KEYLESS)
    replica = make_replica(database, tmp_path, include_keyless=True)
    replica.catch_up()
    forget(replica.path)
    asked(database, replica.target)
    assert members(database) == {"t", "k"}


def forget(path: Path) -> None:
    """Take out of a target's checkpoint what an older version does not write."""
    import duckdb

    with duckdb.connect(str(path)) as connection:
        ((text,),) = connection.execute("SELECT state FROM _cdc.checkpoint").fetchall()
        state = json.loads(text)
        del state["told"]
        connection.execute("UPDATE _cdc.checkpoint SET state = ?", [json.dumps(state)])


def test_a_table_that_was_renamed(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """O5: the selection is that of the run, and not the names that tables had."""
    anywhere.execute("CREATE TABLE a (id int PRIMARY KEY)")
    anywhere.execute("INSERT INTO a VALUES (1)")
    replica = make_replica(anywhere, tmp_path)
    replica.catch_up()
    anywhere.execute("ALTER TABLE a RENAME TO b")
    anywhere.execute("INSERT INTO b VALUES (2)")
    found = have_done(anywhere.dsn, replica.target, Options(anywhere.name), "verify", _VERIFY, lambda _: None)
    assert [table["name"] for table in found["tables"]] == ["b"], found
    assert found["identical"]
    replica.catch_up()
    replica.assert_equal()


def test_the_options_of_a_run_count_for_the_jobs_after_it(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """O5: also where nothing has happened since, and the table that is not meant any more is not followed."""
    anywhere.execute("CREATE TABLE a (id int PRIMARY KEY)")
    anywhere.execute("CREATE TABLE b (id int PRIMARY KEY)")
    replica = make_replica(anywhere, tmp_path)
    replica.catch_up()
    less = replace(replica, options=replace(replica.options, selection=Selection((), ("*.b",))))
    less.catch_up()
    found = have_done(anywhere.dsn, replica.target, Options(anywhere.name), "verify", _VERIFY, lambda _: None)
    assert [table["name"] for table in found["tables"]] == ["a"]


def test_events_are_written_as_they_were(database: Database, tmp_path: Path) -> None:
    """O6: `cdc resync` of files in Debezium's format, while nobody runs the pipeline, and a run that says no format."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    path = tmp_path / "audit.jsonl"
    ends = (database.dsn, f"jsonl:{path}", "--name", database.name)
    assert cdc("run", *ends, "--format", "debezium", "--until-caught-up").returncode == 0
    done = cdc("resync", *ends, "--tables", "t")
    assert (done.returncode, done.stdout) == (0, "public.t: copied again\n"), done
    database.execute("INSERT INTO t VALUES (2)")
    assert cdc("run", *ends, "--until-caught-up").returncode == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    changes = [line["op"] for line in lines if "op" in line]  # the others tell of shapes
    assert [op for op in changes if op != "t"] == ["r", "r", "c"], lines
    refused = cdc("run", *ends, "--format", "json", "--until-caught-up")
    assert refused.returncode == 2
    assert "holds events as debezium" in refused.stderr


def test_a_pipeline_of_another_environment(database: Database, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """O8: asked with another XDG_RUNTIME_DIR and TMPDIR than the pipeline has, and after somebody has tidied up there."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    folder = Path(tempfile.mkdtemp(prefix="t"))  # whose name is short enough for a socket's
    request.addfinalizer(lambda: shutil.rmtree(folder))
    theirs, ours = folder / "theirs", folder / "ours"
    theirs.mkdir()
    ours.mkdir()
    ends = (database.dsn, f"duckdb:{tmp_path}/x.duckdb")
    environment = {"XDG_RUNTIME_DIR": str(ours), "TMPDIR": str(ours)}
    running = start("run", *ends, XDG_RUNTIME_DIR="", TMPDIR=str(theirs))
    try:
        socket = wait_for(lambda: next(theirs.rglob("*.sock"), None))
        wait_for(lambda: cdc("status", *ends, "--json", **environment).stdout.count('"phase":"streaming"'))
        verified = cdc("verify", *ends, **environment)
        assert verified.returncode == 0, verified.stderr
        socket.unlink()
        wait_for(socket.exists)
        assert cdc("verify", *ends, **environment).returncode == 0
    finally:
        running.terminate()
        assert running.wait(20) == 0


T = TypeVar("T")


def wait_for(condition: Callable[[], T | None]) -> T:
    until = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


@pytest.mark.parametrize("is_running", [False, True])
def test_a_target_of_another_pipeline(anywhere: Database | MySqlDatabase, tmp_path: Path, is_running: bool) -> None:
    """O28, O44: what is asked under a name that the target does not have is refused, and nothing of it is done."""
    anywhere.execute("CREATE TABLE t (id int PRIMARY KEY)")
    replica = make_replica(anywhere, tmp_path)
    replica.catch_up()
    ends = (anywhere.dsn, replica.target, "--name")
    process = start("run", *ends, anywhere.name) if is_running else None
    try:
        while (
            process is not None
            and json.loads(cdc("status", *ends, anywhere.name, "--json").stdout)["phase"] != "streaming"
        ):
            time.sleep(0.1)
        for job in (("verify",), ("resync", "--tables", "*"), ("repair", "--table", "t")):
            done = cdc(job[0], *ends, "other", *job[1:])
            assert (done.returncode, done.stdout) == (2, ""), done.stderr
            assert f"belongs to the pipeline '{anywhere.name}'" in done.stderr
    finally:
        if process is not None:
            process.terminate()
            assert process.wait(60) == 0
    assert replica.query(f'SELECT count(*) FROM "{replica.path.stem}"._cdc.copying') == [(0,)]
