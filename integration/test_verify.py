"""`cdc verify`, `repair` and `resync`: what is different is found to the row, and set right, while both sides go on."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb
import pytest

from cdc.connectors import make_observer
from cdc.demo import mysql_shop, shop
from cdc.jobs.verify import TableReport, Verifier, Wishes
from cdc.model.selection import Selection
from cdc.runs import have_done, open_pipeline
from integration.conftest import Database, MySqlDatabase, Replica, make_replica
from integration.processes import Process, cdc, start

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


def ends(replica: Replica) -> tuple[str, ...]:
    return replica.database.dsn, replica.target, "--name", replica.options.name


@contextmanager
def running(replica: Replica, *arguments: str, env: Mapping[str, str] = MappingProxyType({})) -> Iterator[Process]:
    """`cdc run` as a process that follows the log."""
    with start("run", *ends(replica), *arguments, **env) as process:
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
        answer = cdc("verify", *ends(replica), "--json")
        assert answer.returncode == 1, answer.stderr
        assert "CANARY" not in answer.stdout + answer.stderr
        assert found(json.loads(answer.stdout)) == FOUND
        assert "CANARY" in cdc("verify", *ends(replica), "--show-values", "--tables", "ints").stdout
        report = tmp_path / "report.json"
        report.write_text(answer.stdout)
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
            answer = cdc("verify", *ends(replica))
            assert answer.returncode == 0, answer.stdout + answer.stderr
        before = workload.transactions
        answer = cdc("resync", *ends(replica), "--tables", "*.*")
        assert answer.returncode == 0, answer.stderr
        answer = cdc("verify", *ends(replica))
        assert answer.returncode == 0, answer.stdout + answer.stderr
        assert workload.transactions > before
    workload.stop()
    replica.catch_up()
    replica.assert_equal()


def test_a_damaged_table_that_stops_the_pipeline(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """A-42, D-08: with `--on-table-error stop`, a row that is missing stops the pipeline when it is updated; a resync makes
    it go on, others untouched."""
    create(anywhere)
    replica = make_replica(anywhere, tmp_path)
    replica.catch_up()
    tamper(replica, "DELETE FROM ints WHERE id = 5", "DELETE FROM pairs WHERE b = 'b3'")
    anywhere.execute("UPDATE ints SET v = 'w' WHERE id = 5")
    anywhere.execute("UPDATE ints SET id = id + 100 WHERE id IN (5, 6, 7)")
    stopped = cdc("run", *ends(replica), "--until-caught-up", "--on-table-error", "stop")
    assert stopped.returncode == 3, stopped.stderr
    assert "ints" in stopped.stderr
    synced = cdc("resync", *ends(replica), "--tables", "ints")
    assert synced.returncode == 0, synced.stderr
    answer = cdc("verify", *ends(replica), "--json")
    assert found(json.loads(answer.stdout)) == {("pairs", "3/b3", "source only")}
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
        ("resync", *ends(replica), "--tables", "nothing"),
    ):
        answer = cdc(*arguments)
        assert answer.returncode == 2, (arguments, answer.stderr)
        assert "Traceback" not in answer.stderr


def test_verification_in_the_background(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """E-01: a run that verifies says in its status and log what it found, and is healthy only while all is identical."""
    create(anywhere)
    replica = make_replica(anywhere, tmp_path)
    replica.catch_up()

    def verification() -> dict[str, object]:
        with running(replica, "--verify-every", "2s"):
            for _ in range(600):
                answer = json.loads(cdc("status", *ends(replica), "--json").stdout)
                if answer["verification"]:
                    return answer  # type: ignore[no-any-return]
                time.sleep(0.2)
        raise AssertionError("nothing was verified")

    answer = verification()
    assert answer["healthy"]
    assert answer["verification"]["rows"] == ROWS * len(TABLES)  # type: ignore[index]
    tamper(replica, "DELETE FROM ints WHERE id = 5")
    answer = verification()
    assert not answer["healthy"]
    assert list(answer["verification"]["different"].values()) == [1]  # type: ignore[index]


def reported(answer: subprocess.CompletedProcess[str], table: str) -> dict[str, Any]:
    assert answer.stdout, answer.stderr
    (entry,) = [entry for entry in json.loads(answer.stdout)["tables"] if entry["name"] == table]
    return entry  # type: ignore[no-any-return]


def create_alike(database: Database | MySqlDatabase, count: int) -> None:
    """Tables `t0`, `t1` and so on, with a row each."""
    for number in range(count):
        database.execute(f"CREATE TABLE t{number} (id int PRIMARY KEY, v varchar(20))")
        database.execute(f"INSERT INTO t{number} VALUES (1, '7')")


OF_THE_TARGET: list[tuple[str, dict[str, str]]] = [
    ("ALTER TABLE {t} DROP COLUMN v", {"v": "missing"}),
    ("ALTER TABLE {t} ADD COLUMN extra int", {"extra": "INTEGER"}),
    ("ALTER TABLE {t} ALTER COLUMN id TYPE double", {"id": "DOUBLE"}),
    ("ALTER TABLE {t} RENAME COLUMN v TO w", {"v": "missing", "w": "VARCHAR"}),
    ("DROP TABLE {t}", {"(table)": "missing"}),
    ("ALTER TABLE {t} ALTER COLUMN id TYPE varchar", {}),  # which is how cdc holds what an integer cannot
    ("SELECT * FROM {t}", {}),
]


def test_a_target_of_another_shape(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """D-08: a column that is missing, too much, or of another type in the target is named, and ends with 1."""
    create_alike(anywhere, len(OF_THE_TARGET))
    replica = make_replica(anywhere, tmp_path)
    replica.catch_up()
    tamper(replica, *(statement.format(t=f"t{number}") for number, (statement, _) in enumerate(OF_THE_TARGET)))
    answer = cdc("verify", *ends(replica), "--json")
    shown = cdc("verify", *ends(replica))
    assert answer.returncode == shown.returncode == 1, answer.stderr
    for number, (statement, expected) in enumerate(OF_THE_TARGET):
        entry = reported(answer, f"t{number}")
        assert {e["what"]: e["target"] or "missing" for e in entry["shape"]} == expected, statement
        assert entry["identical"] == (not expected)
        for name, text in expected.items():
            assert f"t{number}: {name}: source" in shown.stdout
            assert f"target {text}" in shown.stdout


OF_THE_SOURCE: list[tuple[str, set[str]]] = [
    ("ALTER TABLE {t} ADD later bigint", {"later"}),
    ("ALTER TABLE {t} ADD later bigint DEFAULT 5", {"later"}),
    ("ALTER TABLE {t} DROP COLUMN v", {"v"}),
    ("ALTER TABLE {t} RENAME COLUMN v TO w", {"v", "w"}),
    ("DROP TABLE {t}", {"(table)"}),
    ("ALTER TABLE {t} ADD UNIQUE (v)", set()),
]
OF_POSTGRES: list[tuple[str, set[str]]] = [
    ("ALTER TABLE {t} DROP CONSTRAINT {t}_pkey", {"(key)"}),
    ("ALTER TABLE {t} ALTER COLUMN v TYPE varchar(3)", set()),
    ("ALTER TABLE {t} ALTER COLUMN v TYPE numeric USING 7", {"v"}),
    ("ALTER TABLE {t} ADD g int GENERATED ALWAYS AS (id + 1) STORED", set()),
]
OF_MYSQL: list[tuple[str, set[str]]] = [
    ("ALTER TABLE {t} DROP PRIMARY KEY", {"(key)"}),
    ("ALTER TABLE {t} RENAME TO {t}_moved", {"(table)"}),
    ("ALTER TABLE {t} MODIFY v int", {"v"}),
    ("ALTER TABLE {t} MODIFY v varbinary(20)", {"v"}),
    ("ALTER TABLE {t} MODIFY v varchar(30)", set()),
]


@pytest.mark.loses_shapes
def test_a_source_of_another_shape(
    anywhere: Database | MySqlDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M7, M20: whatever change of shape the pipeline has missed, verify names the column instead of saying identical."""
    monkeypatch.setattr("cdc.sources.mysql.tables.FollowedTables.statement", lambda *_: [])
    monkeypatch.setattr("cdc.jobs.verify._TRIES_OF_A_SHAPE", 1)
    statements = OF_THE_SOURCE + (OF_POSTGRES if isinstance(anywhere, Database) else OF_MYSQL)
    create_alike(anywhere, len(statements))
    replica = make_replica(anywhere, tmp_path)
    replica.catch_up()
    assert all(entry["identical"] for entry in verified(replica).values())
    monkeypatch.setattr("cdc.sources.postgres.shapes.Shapes.look", lambda _: False)
    for number, (statement, _) in enumerate(statements):
        anywhere.execute(statement.format(t=f"t{number}"))
    found = verified(replica)
    for number, (statement, expected) in enumerate(statements):
        entry = found[f"t{number}"]
        assert {difference["what"] for difference in entry["shape"]} == expected, statement
        assert entry["identical"] == (not expected), (statement, entry["trouble"])


def verified(replica: Replica) -> dict[str, dict[str, Any]]:
    """What a verification by this process says of each table."""
    wishes = {"tables": [], "exclude": [], "sample": 1.0, "max_rate": None, "with_values": False}
    options = replace(replica.options, until_caught_up=False)
    answer = have_done(replica.database.dsn, replica.target, options, "verify", wishes, lambda _: None)
    return {entry["name"]: entry for entry in answer["tables"]}


def test_a_shape_that_came_with_the_log(database: Database, tmp_path: Path) -> None:
    """A-51: the log has a new column with the next row only, the catalog at once: all is identical all the time."""
    create(database)
    replica = make_replica(database, tmp_path, "*.ints", "*.pairs")
    replica.catch_up()
    database.execute("ALTER TABLE ints ADD extra int DEFAULT 3")
    assert cdc("verify", *ends(replica)).returncode == 0
    assert replica.query("SELECT DISTINCT extra FROM ints") == [(3,)]
    database.execute("UPDATE ints SET v = 'x' WHERE id = 1")
    assert cdc("verify", *ends(replica)).returncode == 0


def test_what_is_left_out_by_rule(database: Database, tmp_path: Path) -> None:
    """B-45: a generated column of PostgreSQL is no difference, and neither is a table that the log cannot identify; both
    are listed."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED)")
    database.execute("INSERT INTO t VALUES (1, 2)")
    database.execute("CREATE TABLE loose (v int)")
    replica = make_replica(database, tmp_path)
    replica.catch_up()
    with running(replica):
        answer = cdc("verify", *ends(replica), "--json")
        assert answer.returncode == 0, answer.stderr
        assert reported(answer, "t")["left_out"] == ["twice"]
        assert reported(answer, "loose")["left_out"]
        shown = cdc("verify", *ends(replica)).stdout
        assert "twice" in shown
        assert "loose" in shown


def test_a_table_that_is_meant_and_does_not_come(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """M20, M21: one that the run does not follow is no difference, and to ask for it by its name is a mistake."""
    create(anywhere)
    replica = make_replica(anywhere, tmp_path, "*.ints", "*.pairs")
    replica.catch_up()
    with running(replica, "--tables", "*.ints,*.pairs"):
        assert cdc("verify", *ends(replica)).returncode == 0
    schema = anywhere.name if isinstance(anywhere, MySqlDatabase) else "public"
    answer = cdc("verify", *ends(replica), "--tables", f"*.ints,{schema}.names", "--json")
    assert answer.returncode == 2
    assert f"No table that is followed matches '{schema}.names'" in answer.stderr
    assert cdc("verify", *ends(replica)).returncode == 0


def test_a_running_pipeline_knows_what_it_is_meant_to_follow(
    anywhere: Database | MySqlDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M13, M21: a table that should have come and did not is reported without being asked for."""
    monkeypatch.setattr("cdc.jobs.verify._TRIES", 8)
    create(anywhere)
    replica = make_replica(anywhere, tmp_path, "*.ints", "*.pairs")
    replica.catch_up()
    options = replace(replica.options, until_caught_up=False)
    pipeline = open_pipeline(anywhere.dsn, replica.target, options)
    pipeline.meant = Selection(exclude=("*.keyless",))
    reports: list[TableReport] = []
    with closing(make_observer(anywhere.dsn, options)) as observer:
        pipeline.run_beside(lambda _: reports.extend(Verifier(pipeline, observer).verify(Wishes())))
    assert {report.table.name for report in reports if not report.is_identical} == {"names"}


def test_a_shape_in_the_background(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """E-01: status is red, and names the column, after a verification in the background that found another shape."""
    create(anywhere)
    replica = make_replica(anywhere, tmp_path)
    replica.catch_up()
    tamper(replica, "ALTER TABLE ints ADD COLUMN extra int")
    with running(replica, "--verify-every", "2s"):
        for _ in range(600):
            answer = json.loads(cdc("status", *ends(replica), "--json").stdout)
            if answer["verification"]:
                break
            time.sleep(0.2)
        shown = cdc("status", *ends(replica))
    assert not answer["healthy"]
    assert shown.returncode == 1
    assert "extra" in shown.stdout
