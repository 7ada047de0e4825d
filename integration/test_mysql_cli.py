"""The commands over MySQL and MariaDB, as a user types them."""

from __future__ import annotations

import json
import time
from pathlib import Path

from integration.conftest import MySqlDatabase, make_replica
from integration.processes import cdc, start


def test_commands(my: MySqlDatabase, tmp_path: Path) -> None:
    """B-31, E-03: check, run, status and teardown; a bare table name is one of the DSN's database; no password anywhere."""
    my.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text)",
        "CREATE TABLE u (id int PRIMARY KEY)",
        "INSERT INTO t VALUES (1, 'x')",
    )
    target = f"duckdb:{tmp_path / my.name}.duckdb"
    said = [found := cdc("check", my.dsn)]
    assert found.returncode == 0, found.stderr
    said.append(found := cdc("run", my.dsn, target, "--tables", "t", "--until-caught-up"))
    assert found.returncode == 0, found.stderr
    my.execute("INSERT INTO t VALUES (2, 'y')")
    said.append(found := cdc("status", my.dsn, target, "--json"))
    report = json.loads(found.stdout)
    assert report["healthy"]
    assert report["lag_bytes"] > 0
    assert {table: entry["state"] for table, entry in report["tables"].items()} == {f"{my.name}.t": "following"}
    assert report["log"]["file"].startswith("binlog.")
    said.append(found := cdc("run", my.dsn, target, "--tables", "t", "--until-caught-up"))
    said.append(found := cdc("status", my.dsn, target))
    assert "kept log" in found.stdout
    said.append(found := cdc("run", my.dsn, target, "--tables", "nothing", "--until-caught-up"))
    assert found.returncode == 2
    said.append(found := cdc("teardown", my.dsn, target, "--yes"))
    assert found.returncode == 0, found.stderr
    for one in said:
        assert "secret" not in one.stdout + one.stderr


def dumps(database: MySqlDatabase) -> set[object]:
    """Connections to the server that follow its log."""
    query = "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"
    return {number for (number,) in database.execute(query)}


def test_tail(my: MySqlDatabase) -> None:
    """B-24, B-48: events with whole rows before and after, in commit order, and where in the log they are."""
    my.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text, d decimal(5,2), f double, b blob)",
        "INSERT INTO t VALUES (1, 'x', 1.5, 0.1, x'00ff')",
    )
    rows = ["--op", "insert,update,delete,truncate"]  # MariaDB has the statements as well
    before = dumps(my)
    process = start("tail", my.dsn, *rows)
    while not dumps(my) - before:
        assert process.poll() is None
        time.sleep(0.05)
    my.execute(
        "UPDATE t SET id = 2, v = 'é' WHERE id = 1",
        "TRUNCATE t",
        "INSERT INTO t VALUES (3, NULL, 2, 1e300, NULL)",
        "ALTER TABLE t ADD n int",
        "INSERT INTO t (id, n) VALUES (4, 4)",
    )
    lines = [json.loads(process.stdout.readline()) for _ in range(4)]
    process.terminate()
    process.wait(20)
    update, truncate, insert, last = lines
    assert [line["op"] for line in lines] == ["update", "truncate", "insert", "insert"]
    assert update["before"] == {"id": 1, "v": "x", "d": "1.50", "f": 0.1, "b": "\\x00ff"}
    assert update["after"] == {"id": 2, "v": "é", "d": "1.50", "f": 0.1, "b": "\\x00ff"}
    assert insert["after"] == {"id": 3, "v": None, "d": "2.00", "f": 1e300, "b": None}
    assert last["after"]["n"] == 4
    assert truncate["table"] == f"{my.name}.t"
    assert len({line["position"] for line in lines}) == 4
    assert ("-" if my.flavor == "mariadb" else ":") in update["position"]


def test_a_file_named_like_the_database(my: MySqlDatabase, tmp_path: Path) -> None:
    """DuckDB calls a file by its name, which is then also that of the schema in it."""
    my.execute("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    replica = make_replica(my, tmp_path)
    assert replica.path.stem == my.name
    replica.catch_up()
    replica.assert_equal()
