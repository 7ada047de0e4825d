"""Names that try to be something else, through every command, on all three sources: exact, or refused by name."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from pathlib import Path

import duckdb
import psycopg
import pytest

from cdc.errors import TablesHeld, UsageError
from cdc.model.standing import State
from cdc.runs import open_pipeline
from integration.conftest import Database, MySqlDatabase, make_replica
from integration.processes import cdc
from integration.test_cli import in_words

# Names that both kinds of server allow.
NAMES = [
    'se"lect; drop table x--',
    "we`ird",
    "it's",
    "a.b",
    "a.b.c",
    "new\nline\ttab",
    "%s %d %(x)s",
    "{} {0}",
    "$1",
    "back\\slash",
    "1digit",
    "select",
    "*",
    "?",
    "[red]bold[/red] [/]",
    "\x1b[31mred",
    "a,b",
    "rowid",
    "_cdc_rows",
    "_cdc_target",
    "temp",
    "main",
    "s",
    "t",
    "n" * 63,
]
OF_POSTGRES = ["😀 emoji", "trailing space ", "Ünïcödé", "é" * 31]
OF_MYSQL = ["Ünïcödé", "é" * 31]
SCHEMAS = ["temp", "main", "system", "_cdc_target", 'sch"ema; drop--', "a.b", "😀"]


def quoted(name: str, quote: str) -> str:
    return quote + name.replace(quote, quote * 2) + quote


def commands_work(database: Database | MySqlDatabase, target: str, *names: str) -> None:
    """check, status for people and for machines, and teardown."""
    check = cdc("check", database.dsn)
    assert check.returncode == 0, in_words(check)
    status = cdc("status", database.dsn, target, "--name", database.name)
    assert status.returncode == 0, in_words(status)
    assert "\x1b" not in check.stdout + status.stdout
    report = json.loads(cdc("status", database.dsn, target, "--name", database.name, "--json").stdout)
    assert set(names) <= set(report["tables"])
    done = cdc("teardown", database.dsn, target, "--name", database.name, "--yes")
    assert done.returncode == 0, in_words(done)
    assert "schema _cdc in" in done.stdout


def test_postgresql(database: Database, tmp_path: Path) -> None:
    """E-06: schemas, tables, columns and labels, with every kind of change and a change of shape."""
    names = NAMES + OF_POSTGRES

    def q(name: str) -> str:
        return quoted(name, '"')

    with psycopg.connect(database.dsn, autocommit=True) as connection:

        def execute(query: str) -> None:
            connection.execute(query.encode())

        columns = ", ".join(f"{q(name)} text" for name in names)
        labels = ", ".join(quoted(name, "'") for name in names)
        mood = q("mood; x") + "." + q('m"ood')
        execute(f"CREATE SCHEMA {q('mood; x')}; CREATE TYPE {mood} AS ENUM ({labels})")
        for schema in SCHEMAS:
            execute(f"CREATE SCHEMA {q(schema)}; CREATE TABLE {q(schema)}.t (id int PRIMARY KEY, v text)")
            execute(f"INSERT INTO {q(schema)}.t VALUES (1, 'x')")
        for name in names:
            execute(
                f"CREATE TABLE {q(name)} ({q('i' + name[:60])} int PRIMARY KEY, {q(name)} text, e {mood});"
                f"INSERT INTO {q(name)} VALUES (1, 'x', {quoted(name, chr(39))}), (2, 'y', NULL), (3, NULL, NULL)"
            )
        execute(f"CREATE TABLE wide (id int PRIMARY KEY, {columns}); INSERT INTO wide VALUES (1{', 1' * len(names)})")
        loose = columns.replace('"rowid" text', '"r" text')
        execute(f"CREATE TABLE loose ({loose}); ALTER TABLE loose REPLICA IDENTITY FULL")
        execute(f"INSERT INTO loose VALUES (1{', 1' * (len(names) - 1)}), (1{', 1' * (len(names) - 1)})")
        replica = make_replica(database, tmp_path)
        replica.catch_up()
        replica.assert_equal()
        for name in names:
            table, key, column = q(name), q("i" + name[:60]), q(name)
            execute(
                f"UPDATE {table} SET {key} = 10, {column} = 'moved' WHERE {key} = 1; DELETE FROM {table} WHERE {key} = 2;"
                f"INSERT INTO {table} VALUES (4, 'new', {quoted(name, chr(39))}); UPDATE wide SET {column} = 'w', id = id + 1;"
                f"ALTER TABLE {table} ADD COLUMN {q('z' + name[:62])} text DEFAULT {quoted(name, chr(39))}; UPDATE {table} SET e = NULL WHERE {key} = 3"
            )
        for schema in SCHEMAS:
            execute(f"UPDATE {q(schema)}.t SET v = 'z'; INSERT INTO {q(schema)}.t VALUES (2, 'y')")
        execute('DELETE FROM loose WHERE ctid = (SELECT min(ctid) FROM loose); UPDATE loose SET "a.b" = NULL')
        replica.catch_up()
        replica.assert_equal()
        for name in names:
            execute(
                f"TRUNCATE {q(name)}; INSERT INTO {q(name)} VALUES (5); ALTER TABLE {q(name)} RENAME TO {q('x' + name[:62])}"
            )
            execute(f"INSERT INTO {q('x' + name[:62])} VALUES (6)")
        replica.catch_up()
        replica.assert_equal()
    assert len(replica.compare()) == len(names) + len(SCHEMAS) + 2
    with duckdb.connect(str(replica.path), read_only=True) as target:
        found = target.execute("SELECT count(*) FROM duckdb_tables() WHERE schema_name <> '_cdc'").fetchall()
    assert found == [(len(names) + len(SCHEMAS) + 2,)]
    commands_work(database, replica.target, "public.wide", "public.x[red]bold[/red] [/]")


def test_mysql_and_mariadb(my: MySqlDatabase, tmp_path: Path) -> None:
    """E-06: databases, tables, columns and labels, with every kind of change and statements that name them."""
    names = NAMES + OF_MYSQL

    def q(name: str) -> str:
        return quoted(name, "`")

    def text(name: str) -> str:
        return "'" + name.replace("\\", "\\\\").replace("'", "''") + "'"

    columns = ", ".join(f"{q(name)} varchar(99)" for name in names)
    labels = ", ".join(text(name) for name in names if "," not in name)
    for name in names:
        my.execute(
            f"CREATE TABLE {q(name)} ({q('i' + name[:60])} int PRIMARY KEY, {q(name)} text, e enum({labels}))",
            f"INSERT INTO {q(name)} VALUES (1, 'x', {text(name)}), (2, 'y', NULL), (3, NULL, NULL)".replace(
                "'a,b'", "NULL"
            ),
        )
    my.execute(f"CREATE TABLE wide (id int PRIMARY KEY, {columns})", f"INSERT INTO wide VALUES (1{', 1' * len(names)})")
    replica = make_replica(my, tmp_path)
    replica.catch_up()
    replica.assert_equal()
    for name in names:
        table, key, column = q(name), q("i" + name[:60]), q(name)
        my.execute(
            f"UPDATE {table} SET {key} = 10, {column} = 'moved' WHERE {key} = 1",
            f"DELETE FROM {table} WHERE {key} = 2",
            f"UPDATE wide SET {column} = 'w', id = id + 1",
            f"ALTER TABLE {table} ADD COLUMN {q('z' + name[:60])} int DEFAULT 7 AFTER {column}",
            f"UPDATE {table} SET e = NULL WHERE {key} = 3",
        )
    replica.catch_up()
    replica.assert_equal()
    for name in names:
        my.execute(
            f"TRUNCATE {q(my.name)}.{q(name)}",
            f"INSERT INTO {q(name)} ({q('i' + name[:60])}) VALUES (5)",
            f"RENAME TABLE {q(name)} TO {q('x' + name[:60])}",
            f"ALTER TABLE {q('x' + name[:60])} CHANGE {q('z' + name[:60])} {q('y' + name[:60])} int",
            f"INSERT INTO {q('x' + name[:60])} ({q('i' + name[:60])}) VALUES (6)",
        )
    replica.catch_up()
    replica.assert_equal()
    assert len(replica.compare()) == len(names) + 1
    commands_work(my, replica.target, f"{my.name}.wide", f"{my.name}.x[red]bold[/red] [/]")


@pytest.mark.parametrize("name", ["temp", "a.b", "we`ird; drop--", "%s", "main", "_cdc_target", "Ünï"])
def test_databases_of_mysql(my: MySqlDatabase, tmp_path: Path, name: str) -> None:
    """E-06: a database's name is a schema's in the target, where some names mean something else."""
    from urllib.parse import quote

    quoted_name = quoted(name, "`")
    my.server.execute(f"CREATE DATABASE {quoted_name}")
    try:
        table = f"{quoted_name}.`a.t`"
        my.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v text)", f"INSERT INTO {table} VALUES (1, 'x')")
        odd = MySqlDatabase(my.server, quote(name))
        replica = make_replica(odd, tmp_path, name=my.name)
        replica.catch_up()
        replica.assert_equal()
        my.execute(
            f"INSERT INTO {table} VALUES (2, 'y')", f"ALTER TABLE {table} ADD n int", f"UPDATE {table} SET n = id"
        )
        replica.catch_up()
        replica.assert_equal()
        assert [table.source_rows for table in replica.compare()] == [2]
        my.execute(f"DROP TABLE {table}", f"CREATE TABLE {quoted_name}.`*` (id int PRIMARY KEY)")
        my.execute(f"DROP TABLE {quoted_name}.`*`", f"CREATE TABLE {table} (id int PRIMARY KEY)")
        replica.catch_up()
        replica.assert_equal()
    finally:
        my.server.execute(f"DROP DATABASE {quoted_name}")


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (
            ['CREATE TABLE "T" (id int PRIMARY KEY)', "CREATE TABLE t (id int PRIMARY KEY)"],
            ["public.T", "public.t", "case"],
        ),
        (
            [
                'CREATE SCHEMA "A"; CREATE TABLE "A".x (id int PRIMARY KEY)',
                "CREATE SCHEMA a; CREATE TABLE a.y (id int PRIMARY KEY)",
            ],
            ["A", "a", "case"],
        ),
        (['CREATE TABLE c (id int PRIMARY KEY, "V" int, v int)'], ["V", "v"]),
        (["CREATE SCHEMA _cdc; CREATE TABLE _cdc.t (id int PRIMARY KEY)"], ["_cdc", "cdc's own"]),
        (["CREATE TABLE r (rowid int, v int); ALTER TABLE r REPLICA IDENTITY FULL"], ["public.r", "rowid"]),
    ],
)
def test_names_that_the_target_cannot_tell_apart(
    database: Database, tmp_path: Path, statements: list[str], said: list[str]
) -> None:
    """E-06, E-07, P17: refused before anything is copied, both of them named; one that comes later is set apart, and the
    others go on."""
    database.execute("CREATE TABLE fine (id int PRIMARY KEY); INSERT INTO fine VALUES (1)")
    replica = make_replica(database, tmp_path)
    replica.catch_up()
    for statement in statements:
        database.execute(statement)
    pipeline = open_pipeline(database.dsn, replica.target, replica.options)
    with suppress(TablesHeld):
        pipeline.run()
    views = pipeline.view().tables.items()
    apart = " ".join(f"{name}: {view.reason}" for name, view in views if view.state in (State.HELD, State.LEFT_OUT))
    assert all(word in apart for word in said), apart
    assert replica.query("SELECT id FROM fine") == [(1,)]
    replica.path.unlink()
    cdc("teardown", database.dsn, "--name", database.name, "--yes")
    with pytest.raises(UsageError) as first:
        replica.catch_up()
    assert all(word in str(first.value) for word in said), str(first.value)


def test_dots_are_no_borders(database: Database, tmp_path: Path) -> None:
    """E-07: a."b.c" and "a.b".c are written alike and are two tables; a pattern means no more than it says."""
    database.execute(
        """
        CREATE SCHEMA a; CREATE SCHEMA "a.b"; CREATE TABLE a."b.c" (id int PRIMARY KEY); CREATE TABLE "a.b".c (v text PRIMARY KEY);
        INSERT INTO a."b.c" VALUES (1); INSERT INTO "a.b".c VALUES ('x');
        CREATE TABLE "t[12]" (id int PRIMARY KEY); CREATE TABLE t1 (id int PRIMARY KEY);
        """
    )
    replica = make_replica(database, tmp_path)
    replica.catch_up()
    replica.assert_equal()
    assert len(replica.compare()) == 4
    (tmp_path / "chosen").mkdir()
    cdc("teardown", database.dsn, "--name", database.name, "--yes")
    chosen = make_replica(database, tmp_path / "chosen", "t[12]")
    chosen.catch_up()
    assert [table.table.name for table in chosen.compare()] == ["t[12]"]


@pytest.mark.parametrize(
    "name", ["it's; drop.duckdb", 'quo"te.duckdb', "two words 😀.duckdb", "%s{}$1.duckdb", "-x.duckdb", "a:b.duckdb"]
)
def test_files(database: Database, tmp_path: Path, name: str) -> None:
    """E-06: a target's file may be called anything; so may its status file."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    target = f"duckdb:{tmp_path}/{name}"
    done = cdc("run", database.dsn, target, "--until-caught-up", "--name", database.name)
    assert done.returncode == 0, in_words(done)
    assert (tmp_path / name).exists()
    assert (tmp_path / f"{name}.cdc.json").exists()
    report = json.loads(cdc("status", database.dsn, target, "--name", database.name, "--json").stdout)
    assert report["healthy"]


@pytest.mark.parametrize("name", ["a b", "x;y", "é", 'q"', "a.b", "A", "", "x" * 41, "a/b", "$(id)"])
def test_pipelines(database: Database, tmp_path: Path, name: str) -> None:
    """E-06: a pipeline's name is a slot's, which may have few characters; others are refused."""
    done: subprocess.CompletedProcess[str] = cdc("run", database.dsn, f"duckdb:{tmp_path}/x.duckdb", "--name", name)
    assert done.returncode == 2
    assert "cannot name a pipeline" in in_words(done)
