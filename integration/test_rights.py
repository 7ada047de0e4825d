"""A role that may not do everything: what it may not read or publish is held, with what helps, and the rest goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cdc.model.schema import TableName
from cdc.model.standing import State
from cdc.runs import open_pipeline
from integration.conftest import Database, make_replica
from integration.test_membership import wait_until

# A table that appears -> what helps; {0} is the role.
LATER = {
    "strange": ("CREATE TABLE strange (id int PRIMARY KEY)", "ALTER TABLE strange OWNER TO {0}"),
    "granted": (
        "CREATE TABLE granted (id int PRIMARY KEY); GRANT SELECT ON granted TO {0}",
        "ALTER TABLE granted OWNER TO {0}",
    ),
    "hidden": (
        "CREATE TABLE hidden (id int PRIMARY KEY); ALTER TABLE hidden OWNER TO {0}; "
        "ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; ALTER TABLE hidden FORCE ROW LEVEL SECURITY; "
        "CREATE POLICY few ON hidden FOR SELECT USING (id > 1)",
        "ALTER TABLE hidden NO FORCE ROW LEVEL SECURITY",
    ),
    "closed": (
        "CREATE SCHEMA closed; CREATE TABLE closed.closed (id int PRIMARY KEY); ALTER TABLE closed.closed OWNER TO {0}",
        "GRANT USAGE ON SCHEMA closed TO {0}",
    ),
}
HELPS = {
    "strange": 'GRANT SELECT ON "public"."strange" TO',
    "granted": 'ALTER TABLE "public"."granted" OWNER TO',
    "hidden": "WITH BYPASSRLS",
    "closed": 'GRANT USAGE ON SCHEMA "closed" TO',
}


@pytest.fixture
def weak(database: Database) -> Iterator[str]:
    """A role that may replicate, and owns one table."""
    name = f"weak_{database.name}"
    database.execute(
        f"CREATE ROLE {name} LOGIN REPLICATION PASSWORD '{database.server.password}'; "
        f"GRANT CREATE ON DATABASE {database.name} TO {name}; "
        f"CREATE TABLE own (id int PRIMARY KEY); ALTER TABLE own OWNER TO {name}"
    )
    yield name
    database.execute(
        f"DROP PUBLICATION cdc_{database.name}; REASSIGN OWNED BY {name} TO postgres; DROP OWNED BY {name}"
    )
    database.execute(f"DROP ROLE {name}")


@pytest.mark.parametrize("while_it_runs", [True, False])
def test_tables_that_appear(database: Database, weak: str, tmp_path: Path, while_it_runs: bool) -> None:
    """P24: one of another owner, without a grant, or with row level security is held; nothing else stops."""
    replica = make_replica(database, tmp_path)
    dsn = database.dsn.replace("postgres@", f"{weak}@")
    open_pipeline(dsn, replica.target, replica.options).run()
    names = {name: TableName("closed" if name == "closed" else "public", name) for name in LATER}

    def make() -> None:
        for name, (made, _) in LATER.items():
            schema = names[name].schema
            database.execute(f"{made.format(weak)}; INSERT INTO {schema}.{name} SELECT generate_series(1, 3)")
        database.execute("INSERT INTO own VALUES (1)")

    if not while_it_runs:
        make()
    pipeline = open_pipeline(dsn, replica.target, replace(replica.options, until_caught_up=False))

    def meanwhile(thread: threading.Thread) -> None:
        wait_until(lambda: pipeline.view().phase == "streaming")
        if while_it_runs:
            make()
        wait_until(lambda: pipeline.held.keys() == set(names.values()))
        for name, table in names.items():
            assert HELPS[name] in pipeline.held[table]
        wait_until(lambda: pipeline.view().rows_applied >= 1)
        for _, helps in LATER.values():
            database.execute(helps.format(weak))
        wait_until(lambda: all(pipeline.view().tables[table].state is State.FOLLOWING for table in names.values()))
        assert not pipeline.held
        database.execute("INSERT INTO strange VALUES (9)")
        assert thread.is_alive()

    pipeline.run_beside(meanwhile)
    open_pipeline(dsn, replica.target, replica.options).run()
    for table in ("own", "strange", "granted", "hidden"):
        query = f"SELECT id FROM {table} ORDER BY id"
        assert replica.query(query) == database.execute(query)
    assert replica.query("SELECT count(*) FROM closed.closed") == [(3,)]
