"""What identifies rows in the log: every shape of a table, on every version, under the application's own statements."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from cdc import faults
from cdc.connectors import source_module
from cdc.demo.server import PrivatePostgres
from cdc.errors import TablesHeld, UsageError
from cdc.model.schema import TableName
from cdc.model.selection import Selection
from cdc.model.standing import Standing, State
from cdc.runs import have_done, open_pipeline
from integration.conftest import Database, Replica, make_replica
from integration.test_membership import wait_until
from integration.test_versions import SOME_POSTGRES

Connection = psycopg.Connection[tuple[object, ...]]

GENERATED = {
    "plain": "",
    "stored": ", g int GENERATED ALWAYS AS (a + b) STORED",
    "virtual": ", g int GENERATED ALWAYS AS (a + b) VIRTUAL",
}
KEYS = {
    "none": "",
    "key": "ALTER TABLE {0} ADD PRIMARY KEY (a);",
    "wide": "ALTER TABLE {0} ADD PRIMARY KEY (a, g);",
    "deferred": "ALTER TABLE {0} ADD PRIMARY KEY (a) DEFERRABLE;",
    "unique": "CREATE UNIQUE INDEX {0}_own ON {0} (a);",
    "both": "ALTER TABLE {0} ADD PRIMARY KEY (a); CREATE UNIQUE INDEX {0}_own ON {0} (b, a);",
    "made": "CREATE UNIQUE INDEX {0}_own ON {0} (a, g);",
    "partial": "CREATE UNIQUE INDEX {0}_own ON {0} (a) WHERE b > 0;",
    "expression": "CREATE UNIQUE INDEX {0}_own ON {0} ((a + 1));",
    "including": "CREATE UNIQUE INDEX {0}_own ON {0} (a) INCLUDE (b);",
}
IDENTITIES = {
    "default": "",
    "full": "ALTER TABLE {0} REPLICA IDENTITY FULL;",
    "nothing": "ALTER TABLE {0} REPLICA IDENTITY NOTHING;",
    "index": "ALTER TABLE {0} REPLICA IDENTITY USING INDEX {1}_own;",
}
STATEMENTS = [
    "INSERT INTO {0} (a, b, big) SELECT i + 10, 1, repeat(md5(i::text), 100) FROM generate_series(1, 2) i",
    "UPDATE {0} SET b = b + 1 WHERE a <> 2",
    "UPDATE {0} SET a = a + 20 WHERE a = 3",
    "BEGIN; UPDATE {0} SET b = -b WHERE a = 23; UPDATE {0} SET b = b * 10; COMMIT",
    "DELETE FROM {0} WHERE a = 1",
    "UPDATE {0} SET big = NULL WHERE a = 11",
]


def make_tables(database: Database) -> list[str]:
    """Every shape that this server knows, with three rows each; the names of the tables."""
    with database.connect() as connection:
        return list(_make_tables(connection))


def _make_tables(connection: Connection) -> Iterator[str]:
    for generated, key, identity in product(GENERATED, KEYS, IDENTITIES):
        name = f"t_{generated}_{key}_{identity}"
        shape = f"CREATE TABLE {name} (a int NOT NULL, b int NOT NULL, big text{GENERATED[generated]});"
        statements = KEYS[key] + IDENTITIES[identity].replace("{1}", "{0}")
        if try_to(connection, shape + statements.format(name) + long(name) + rows(name)):
            yield name
    keys = ["none", "key", "wide", "both"]
    for generated, key, identity, of_leaf in product(["plain", "stored"], keys, IDENTITIES, IDENTITIES):
        name = f"p_{generated}_{key}_{identity}_{of_leaf}"
        leaf = f"{name}_1"
        shape = (
            f"CREATE TABLE {name} (a int NOT NULL, b int NOT NULL, big text{GENERATED[generated]}) "
            f"PARTITION BY RANGE (a); CREATE TABLE {leaf} (big text, b int NOT NULL, a int NOT NULL{GENERATED[generated]});"
            + (KEYS[key].format(leaf) if "own" in KEYS[key] else "")
            + f"ALTER TABLE {name} ATTACH PARTITION {leaf} FOR VALUES FROM (0) TO (15);"
            + f"CREATE TABLE {name}_2 PARTITION OF {name} FOR VALUES FROM (15) TO (50);"
            + (KEYS[key].format(name))
            + IDENTITIES[identity].replace("{1}", "{0}").format(name)
            + IDENTITIES[of_leaf].format(leaf, leaf)
            + (IDENTITIES[of_leaf].format(f"{name}_2", "") if of_leaf != "index" else "")
        )
        if try_to(connection, shape + long(leaf) + long(f"{name}_2") + rows(name)):
            yield name


def long(name: str) -> str:
    return f"ALTER TABLE {name} ALTER big SET STORAGE EXTERNAL;"


def rows(name: str) -> str:
    return f"INSERT INTO {name} (a, b, big) SELECT i, i, repeat(md5(i::text), 100) FROM generate_series(1, 3) i;"


def try_to(connection: Connection, statements: str) -> bool:
    """False for a shape that the server does not know: such a column, such an index as an identity."""
    unknown = errors.SyntaxError, errors.UndefinedColumn, errors.UndefinedObject
    with suppress(*unknown, errors.WrongObjectType, errors.FeatureNotSupported):
        connection.execute(statements.encode())
        return True
    return False


def can_be_published(database: Database, name: str) -> bool:
    """What the server itself says: whether an update of the published table fails."""
    with database.connect() as connection:
        connection.execute("BEGIN")
        try:
            connection.execute(
                f"CREATE PUBLICATION probe FOR TABLE {name} WITH (publish_via_partition_root = true); "
                f"UPDATE {name} SET b = b; DELETE FROM {name}".encode()
            )
        except (errors.ObjectNotInPrerequisiteState, errors.InvalidColumnReference):
            return False
        finally:
            connection.execute("ROLLBACK")
    return True


def work(database: Database, names: list[str]) -> None:
    """The application, which must never fail."""
    with database.connect() as connection:
        for name in names:
            for statement in STATEMENTS:
                connection.execute(statement.format(name).encode())


@pytest.mark.parametrize("version", SOME_POSTGRES)
def test_every_shape(version: int, tmp_path: Path) -> None:
    """P9, P10, P11, P22, P23, A-35, A-36: the application's statements work as before, what can be followed is, and equal."""
    with PrivatePostgres(version) as server:
        server.create_database("v")
        database = Database(server, "v")
        names = make_tables(database)
        assert len(names) > 100
        publishable = {name for name in names if can_be_published(database, name)}
        findings = source_module(database.dsn).check_source(database.dsn, Selection())
        left_out = {f.subject.removeprefix("public.") for f in findings if "left out" in f.message}
        replica = make_replica(database, tmp_path)
        replica.catch_up()
        work(database, names)
        replica.catch_up()
        followed = {
            str(name)
            for (name,) in replica.query("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'public'")
        }
        assert followed == set(names) - left_out
        assert followed <= publishable
        # A key that the log does not name, or other columns in a leaf than in its table, are all that keeps a table out.
        for name in publishable - followed:
            assert "_wide_" in name or "_made_" in name or name.startswith("p_"), name
        for name in followed:
            query = f"SELECT a, b, big FROM {name} ORDER BY a, b"
            assert replica.query(query) == database.execute(query), name


# What an application does to a followed table -> what takes the table out, and what helps.
LATER = {
    "leaf": (
        "CREATE TABLE {0} (a int, b int) PARTITION BY RANGE (a); ALTER TABLE {0} REPLICA IDENTITY FULL; "
        "CREATE TABLE {0}_1 PARTITION OF {0} FOR VALUES FROM (0) TO (10); ALTER TABLE {0}_1 REPLICA IDENTITY FULL",
        "CREATE TABLE {0}_2 PARTITION OF {0} FOR VALUES FROM (10) TO (20)",
        "ALTER TABLE {0}_2 REPLICA IDENTITY FULL",
    ),
    "silent": (
        "CREATE TABLE {0} (a int PRIMARY KEY, b int) PARTITION BY RANGE (a); "
        "CREATE TABLE {0}_1 PARTITION OF {0} FOR VALUES FROM (0) TO (20)",
        "ALTER TABLE {0}_1 REPLICA IDENTITY NOTHING",
        "ALTER TABLE {0}_1 REPLICA IDENTITY DEFAULT",
    ),
    "virtual": (
        "CREATE TABLE {0} (a int PRIMARY KEY, b int); ALTER TABLE {0} REPLICA IDENTITY FULL",
        "ALTER TABLE {0} ADD COLUMN g int GENERATED ALWAYS AS (a + b) VIRTUAL",
        "ALTER TABLE {0} REPLICA IDENTITY DEFAULT",
    ),
    "keyless": (
        "CREATE TABLE {0} (a int PRIMARY KEY, b int)",
        "ALTER TABLE {0} DROP CONSTRAINT {0}_pkey",
        "ALTER TABLE {0} ADD PRIMARY KEY (a)",
    ),
    "indexless": (
        "CREATE TABLE {0} (a int NOT NULL, b int); CREATE UNIQUE INDEX {0}_own ON {0} (a); "
        "ALTER TABLE {0} REPLICA IDENTITY USING INDEX {0}_own",
        "DROP INDEX {0}_own",
        "ALTER TABLE {0} REPLICA IDENTITY FULL",
    ),
}


def is_followed(replica: Replica, name: str, suffix: str = "") -> bool:
    members = "SELECT 1 FROM pg_publication_tables WHERE pubname = 'cdc_{}{}' AND tablename = '{}'"
    return bool(replica.database.execute(members.format(replica.options.name, suffix, name)))


@pytest.mark.parametrize("include_keyless", [False, True])
def test_an_identity_that_goes(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture, include_keyless: bool
) -> None:
    """P9, P22, A-36: the table leaves the publication within seconds, the rest goes on; with an identity it comes back."""
    database.execute("CREATE TABLE rest (a int PRIMARY KEY, b int)")
    for name, (made, _, _) in LATER.items():
        database.execute(f"{made.format(name)}; INSERT INTO {name} VALUES (1, 1), (2, 2), (3, 3)")
    replica = make_replica(database, tmp_path, include_keyless=include_keyless)
    replica.catch_up()
    pipeline = open_pipeline(database.dsn, replica.target, replace(replica.options, until_caught_up=False))

    def meanwhile(thread: threading.Thread) -> None:
        wait_until(lambda: pipeline.view().phase == "streaming")
        for name, (_, goes, _) in LATER.items():
            database.execute(goes.format(name))
        began = time.monotonic()
        wait_until(lambda: not any(is_followed(replica, name) for name in LATER))
        assert time.monotonic() - began < 30
        for name in LATER:
            database.execute(
                f"UPDATE {name} SET b = b + 1; DELETE FROM {name} WHERE a = 2; INSERT INTO {name} VALUES (12, 0)"
            )
        database.execute("INSERT INTO rest VALUES (1, 1)")
        if include_keyless:
            wait_until(lambda: all(is_followed(replica, name, "_inserts") for name in LATER))
        for name, (_, _, helps) in LATER.items():
            database.execute(helps.format(name))
        wait_until(lambda: all(is_followed(replica, name) for name in LATER))
        database.execute("UPDATE leaf SET b = b + 1; INSERT INTO rest VALUES (2, 2)")
        assert thread.is_alive()

    pipeline.run_beside(meanwhile)
    replica.catch_up()
    becomes = "followed only for its inserts" if include_keyless else "held"
    for name in LATER:
        assert f"public.{name} is {becomes}" in caplog.text
    for name in ("rest", *LATER):
        query = f"SELECT a, b FROM {name} ORDER BY a"
        assert replica.query(query) == database.execute(query), name


def standing(replica: Replica, name: str) -> Standing:
    """How a table stands, after a run up to now."""
    pipeline = open_pipeline(replica.database.dsn, replica.target, replica.options)
    with suppress(TablesHeld):
        pipeline.run()
    table = pipeline.view().tables[TableName("public", name)]
    return Standing(State(table.state), table.reason)


def test_a_table_that_is_held_for_its_identity(database: Database, tmp_path: Path) -> None:
    """P22: it stays held over restarts and a wish to copy it again, until an identity or --exclude ends that."""
    made, goes, helps = LATER["silent"]
    database.execute("CREATE TABLE rest (a int PRIMARY KEY, b int); CREATE TABLE never (a int, b int)")
    database.execute(made.format("silent") + "; INSERT INTO silent VALUES (1, 1)")
    replica = make_replica(database, tmp_path)
    assert standing(replica, "silent").state is State.FOLLOWING
    never = standing(replica, "never")
    assert never.state is State.LEFT_OUT
    assert 'ALTER TABLE "public"."never" ADD PRIMARY KEY' in never.reason
    database.execute(goes.format("silent"))
    for round_ in range(3):
        found = standing(replica, "silent")
        assert found.state is State.HELD
        assert 'ALTER TABLE "public"."silent_1" REPLICA IDENTITY DEFAULT' in found.reason
        database.execute(f"UPDATE silent SET b = b + 1; INSERT INTO rest VALUES ({round_}, 0)")
        if round_ == 1:
            with pytest.raises(UsageError, match="is held: Its partition"):
                have_done(database.dsn, replica.target, replica.options, "resync", {"tables": ["public.silent"]}, print)
    assert replica.query("SELECT b FROM silent") == [(1,)]
    others = replace(replica, options=replace(replica.options, selection=Selection((), ("public.silent",))))
    others.catch_up()
    assert standing(others, "rest").state is State.FOLLOWING
    assert standing(replica, "silent").state is State.LEFT_OUT  # as one that is new
    database.execute(helps.format("silent"))
    assert standing(replica, "silent").state is State.FOLLOWING
    database.execute(
        "UPDATE silent SET b = b + 1; INSERT INTO never VALUES (1, 1); ALTER TABLE never ADD PRIMARY KEY (a)"
    )
    assert standing(replica, "never").state is State.FOLLOWING
    for name in ("rest", "silent", "never"):
        query = f"SELECT a, b FROM {name} ORDER BY a"
        assert replica.query(query) == database.execute(query)


@pytest.mark.parametrize("include_keyless", [False, True])
@pytest.mark.parametrize("kind", ["unlogged", "foreign"])
def test_a_partition_that_the_log_lacks(
    database: Database, tmp_path: Path, kind: str, *, include_keyless: bool
) -> None:
    """A-44, P8: its rows would change without an event. The table is left out, or held if it was followed, until the
    partition is another one; inserts are not in the log either."""
    values = "FOR VALUES FROM (10) TO (20)"
    comes = {
        "unlogged": f"CREATE UNLOGGED TABLE {{0}}_2 PARTITION OF {{0}} {values}; INSERT INTO {{0}} VALUES (11, 0)",
        "foreign": f"CREATE FOREIGN TABLE {{0}}_2 PARTITION OF {{0}} {values} SERVER elsewhere",
    }[kind]
    goes = {"unlogged": "ALTER TABLE {0}_2 SET LOGGED", "foreign": "ALTER TABLE {0} DETACH PARTITION {0}_2"}[kind]
    database.execute("CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing")
    parts = "PARTITION BY RANGE (a); CREATE TABLE {0}_1 PARTITION OF {0} FOR VALUES FROM (0) TO (10)"
    for name in ("early", "late"):  # a foreign table can be no partition of one with a key
        database.execute(
            f"CREATE TABLE {name} (a int NOT NULL, b int) {parts.format(name)}; INSERT INTO {name} VALUES (1, 1)"
        )
        database.execute(f"ALTER TABLE {name} REPLICA IDENTITY FULL; ALTER TABLE {name}_1 REPLICA IDENTITY FULL")
    database.execute("CREATE TABLE rest (a int PRIMARY KEY)")
    database.execute(comes.format("early"))
    replica = make_replica(database, tmp_path, include_keyless=include_keyless)
    found = standing(replica, "early")
    assert found.state is State.LEFT_OUT
    assert "Its partition public.early_2 is" in found.reason
    assert standing(replica, "late").state is State.FOLLOWING
    database.execute(comes.format("late"))
    found = standing(replica, "late")
    assert found.state is State.HELD
    assert {"unlogged": 'TABLE "public"."late_2" SET LOGGED', "foreign": 'DETACH PARTITION "public"."late_2"'}[
        kind
    ] in found.reason
    assert standing(replica, "rest").state is State.FOLLOWING
    for name in ("early", "late"):
        database.execute(goes.format(name))
        if kind == "unlogged":
            database.execute(f"ALTER TABLE {name}_2 REPLICA IDENTITY FULL")
        database.execute(f"UPDATE {name} SET b = b + 1")
    for name in ("early", "late"):
        assert standing(replica, name).state is State.FOLLOWING
        query = f"SELECT a, b FROM {name} ORDER BY a"
        assert replica.query(query) == database.execute(query)


@pytest.mark.parametrize("include_keyless", [False, True])
@pytest.mark.parametrize("point", ["membership.announced", "membership.changed"])
@pytest.mark.parametrize("comes_back", [False, True])
def test_a_run_that_ends_while_an_identity_goes(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    *,
    include_keyless: bool,
    comes_back: bool,
) -> None:
    """P22, C-07: whatever had been done, the next run finishes it, and no change is lost."""
    made, goes, helps = LATER["keyless"]
    database.execute(made.format("t") + "; INSERT INTO t VALUES (1, 1)")
    database.execute("CREATE TABLE rest (a int PRIMARY KEY, b int)")
    replica = make_replica(database, tmp_path, include_keyless=include_keyless)
    replica.catch_up()
    if comes_back:
        database.execute(goes.format("t"))
        standing(replica, "t")
    database.execute((helps if comes_back else goes).format("t"))
    with monkeypatch.context() as armed:
        armed.setattr(faults, "_armed", faults.parse(f"{point}=fail"))
        with pytest.raises(faults.FaultLasting):
            replica.catch_up()
    database.execute("INSERT INTO t VALUES (2, 2); INSERT INTO rest VALUES (1, 1)")
    standing(replica, "t")
    database.execute("UPDATE t SET b = b + 1")
    database.execute((goes if comes_back else helps).format("t"))
    standing(replica, "t")
    database.execute("INSERT INTO t VALUES (3, 3)")
    if comes_back:
        database.execute(helps.format("t"))
    replica.catch_up()
    database.execute("UPDATE t SET b = b * 10")
    replica.catch_up()
    for name in ("t", "rest"):
        query = f"SELECT a, b FROM {name} ORDER BY a"
        assert replica.query(query) == database.execute(query)
