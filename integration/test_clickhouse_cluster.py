"""ClickHouse with `cluster=NAME`: what is sent to it.

The engine that the tests have can be no member of a cluster, so its front takes ON CLUSTER and Replicated out again. What
is held here: each statement is one to ClickHouse's own parser, as it was sent; none that has to reach all replicas lacks
ON CLUSTER; and what is left of them without does what it does on one server. That replicas come to be alike is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from clickhouse_connect import get_client

from cdc.errors import UsageError
from cdc.model.schema import TableName
from cdc.tables.versioned import cleanup
from cdc.target import Mode, TargetSettings
from cdc.targets.clickhouse import target_factory, target_removals
from cdc.targets.clickhouse.address import Server
from cdc.targets.clickhouse.store import ClickHouseStore
from integration.clickhouse import PrivateClickHouse
from integration.conftest import Database
from integration.test_clickhouse import Copy, execute

_CHANGES_TABLES = re.compile(r"(CREATE|DROP|ALTER|RENAME|EXCHANGE)\b")
# A table of keys that one session asks for is where that session is. Replicas take mutations and merges from each other.
_OF_ONE_REPLICA = re.compile(r"(CREATE TABLE|DROP TABLE IF EXISTS) `\w+`\.`keys_\w+`|ALTER TABLE \S+ DELETE WHERE")
_READS_AND_WRITES = {"insert_quorum": "auto", "insert_quorum_parallel": "0", "select_sequential_consistency": "1"}


@pytest.fixture(scope="module")
def house() -> Iterator[PrivateClickHouse]:
    with PrivateClickHouse() as server:
        yield server


def test_what_is_sent_to_a_cluster(
    database: Database, house: PrivateClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies, changes, shapes, deleted rows that are removed, and the end of it."""
    monkeypatch.setattr(cleanup, "_MANY", 10)
    monkeypatch.setattr(cleanup, "_UNDER_WAY", 0.0)
    copy = Copy(database, house)
    copy.target = house.dsn(database.name, cluster="one_shard")
    execute(
        database,
        "CREATE TABLE t (id int PRIMARY KEY, v text, n int)",
        "INSERT INTO t SELECT i, repeat('x', 3000), i FROM generate_series(1, 100) i",
    )
    copy.run()
    for changes in (
        ("UPDATE t SET n = 0 WHERE id < 20", "DELETE FROM t WHERE id > 40", "UPDATE t SET id = -id WHERE id < 10"),
        (
            "ALTER TABLE t ADD w int DEFAULT 7, DROP n",
            "ALTER TABLE t RENAME v TO vv",
            "UPDATE t SET w = 8 WHERE id < 20",
        ),
        ("ALTER TABLE t ALTER w TYPE bigint", "UPDATE t SET w = 9 WHERE id < 30", "ALTER TABLE t RENAME TO u"),
    ):
        execute(database, *changes)
        copy.run()
    place = copy.target.removeprefix("clickhouse:")
    target = target_factory(place, TargetSettings("p", "postgresql", 1 << 28))()
    target.open()
    target.tidy()
    target.tidy()
    target.close()
    execute(database, "TRUNCATE u", "INSERT INTO u SELECT i, 'y', 1 FROM generate_series(1, 10) i")
    copy.run()
    shown = copy.rows("SELECT id, vv, w FROM `{}public`.u ORDER BY id")
    assert shown == copy.ours("SELECT id, vv, w FROM u ORDER BY id")
    _exchange_after_a_crash(ClickHouseStore(Server.parse(place)))
    for removal in target_removals(place, copy.name):
        removal.remove()
    changed = {"EXCHANGE TABLES", "RENAME TABLE", "ALTER TABLE", "DROP VIEW", "DROP DATABASE", "OPTIMIZE TABLE"}
    _hold(house.statements(), house.port, changed)


def test_each_statement_of_a_history(database: Database, house: PrivateClickHouse) -> None:
    """Its tables and views are made on all replicas as well."""
    copy = Copy(database, house)
    copy.target = house.dsn(database.name, cluster="one_shard")
    execute(database, "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    copy.run(Mode.HISTORY)
    execute(
        database, "DELETE FROM t WHERE id = 1", "ALTER TABLE t ALTER id TYPE bigint", "INSERT INTO t VALUES (3, 'c')"
    )
    copy.run()
    assert copy.rows("SELECT id FROM `{}public`.t_at_checkpoint ORDER BY id") == [(2,), (3,)]
    _hold(house.statements(), house.port, {"EXCHANGE TABLES", "CREATE OR", "CREATE TABLE"})


def test_a_cluster_that_does_not_fit(database: Database, house: PrivateClickHouse) -> None:
    """E-11: said before anything is made."""
    copy = Copy(database, house)
    execute(database, "CREATE TABLE t (id int PRIMARY KEY)")
    for cluster, why in (("two_shards", "has 2 shards"), ("nowhere", "knows no cluster nowhere")):
        copy.target = house.dsn(database.name, cluster=cluster)
        with pytest.raises(UsageError, match=why):
            copy.run()
    assert house.rows(f"SELECT name FROM system.databases WHERE startsWith(name, '{database.name}')") == []


def _exchange_after_a_crash(store: ClickHouseStore) -> None:
    """A table whose place is free takes it."""
    there, new = TableName("public", "there"), TableName("public", "new")
    store.open()
    store.make(new, {"id": store.text}, ["id"], "mark")
    store.exchange(there, new)
    assert (store.mark(there), store.mark(new)) == ("mark", None)
    store.close()


def _hold(sent: list[tuple[str, dict[str, str]]], port: int, changes: set[str]) -> None:
    assert {" ".join(statement.split()[:2]) for statement, _ in sent} >= changes
    client = get_client(host="127.0.0.1", port=port, autogenerate_session_id=False)
    try:
        for statement in {re.sub(r"\d{3,}|[0-9a-f]{32}", "1", statement) for statement, _ in sent}:
            if "{at:String}" not in statement:  # the engine takes no such statement as a value; it has run it, though
                client.query("SELECT formatQuery({statement:String})", parameters={"statement": statement})
    finally:
        client.close()
    ours = [(statement, settings) for statement, settings in sent if settings.keys() >= _READS_AND_WRITES.keys()]
    for statement, settings in ours:
        assert {name: settings[name] for name in _READS_AND_WRITES} == _READS_AND_WRITES
        if _CHANGES_TABLES.match(statement) and not _OF_ONE_REPLICA.match(statement):
            assert statement.count(" ON CLUSTER `one_shard`") == 1, statement
        assert not re.search(r"ENGINE = (?!Replicated|Memory)", statement), statement
    assert {statement for statement, _ in sent if _CHANGES_TABLES.match(statement)} == {
        statement for statement, _ in ours if _CHANGES_TABLES.match(statement)
    }
