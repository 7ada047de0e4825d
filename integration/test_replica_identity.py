"""A table's replica identity is switched while the log is followed: each row is found by what the log has of it (A-36)."""

from __future__ import annotations

import pytest

from integration.conftest import Database, make_database, make_replica
from integration.test_slot_hazards import Running

TABLE = """
CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL, v text, big text);
CREATE SEQUENCE ids START 10000;
CREATE UNIQUE INDEX by_code ON t (code);
ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
INSERT INTO t SELECT i, 'c' || i, 'v' || i, repeat(i::text, 3000) FROM generate_series(1, 40) i;
"""
IDENTITIES = {
    "default": "DEFAULT",
    "full": "FULL",
    "index": "USING INDEX by_code",
}
# Each leaves the large value alone: the log has it neither in the old row nor in the new one, unless that is FULL.
CHANGES = """
UPDATE t SET v = v || '+' WHERE id % 2 = 0;
UPDATE t SET code = code || '{mark}' WHERE id % 3 = 0;
UPDATE t SET id = id + 1000 WHERE id % 7 = 0 AND id < 1000;
UPDATE t SET id = id - 1000, code = code || '*', v = NULL WHERE id BETWEEN 1001 AND 9999 AND id % 4 = 0;
DELETE FROM t WHERE id = (SELECT min(id) FROM t);
INSERT INTO t SELECT nextval('ids'), 'new {mark}', NULL, repeat('{mark}', 3000);
"""


def row_by_row(database: Database) -> list[tuple[object, ...]]:
    return database.execute("SELECT id, code, v, big FROM t ORDER BY id")


@pytest.mark.parametrize("server", ["postgres", "postgres16"])
@pytest.mark.parametrize("follows", [True, False], ids=["followed", "afterwards"])
def test_switched_in_mid_stream(server: str, follows: bool, request: pytest.FixtureRequest, tmp_path: object) -> None:
    """A-36: from each identity to each other one, in transactions of their own and in the middle of one."""
    for database in make_database(request.getfixturevalue(server)):
        database.execute(TABLE)
        replica = make_replica(database, tmp_path)  # type: ignore[arg-type]
        replica.catch_up()
        if follows:
            with Running(replica) as running:
                switch_about(database)
                running.wait_for(lambda: running.pipeline.view().rows_applied > 0)
        else:
            switch_about(database)
        replica.catch_up()
        assert replica.query("SELECT id, code, v, big FROM t ORDER BY id") == row_by_row(database)
        replica.assert_equal()


def switch_about(database: Database) -> None:
    """Every pair of identities in both directions, with changes before, between and after."""
    mark = 0
    for before in IDENTITIES.values():
        for after in IDENTITIES.values():
            database.execute(f"ALTER TABLE t REPLICA IDENTITY {before}; {CHANGES.format(mark=f'a{mark}')}")
            with database.connect() as session, session.transaction():
                session.execute(CHANGES.format(mark=f"b.{mark}").encode())
                session.execute(f"ALTER TABLE t REPLICA IDENTITY {after}".encode())
                session.execute(CHANGES.format(mark=f"c.{mark}").encode())
            database.execute(CHANGES.format(mark=f"d.{mark}"))
            mark += 1


def test_the_index_of_an_identity_is_made_again(database: Database, tmp_path: object) -> None:
    """A-36: without its index the application's own updates fail, whatever cdc does; with another one all goes on."""
    database.execute(TABLE)
    replica = make_replica(database, tmp_path)  # type: ignore[arg-type]
    database.execute("ALTER TABLE t REPLICA IDENTITY USING INDEX by_code")
    replica.catch_up()
    database.execute("UPDATE t SET code = 'x' || code WHERE id < 10; INSERT INTO t VALUES (99, 'y', 'z', NULL)")
    database.execute("DROP INDEX by_code; INSERT INTO t VALUES (100, 'inserted', NULL, NULL)")
    database.execute("CREATE UNIQUE INDEX by_code ON t (code); ALTER TABLE t REPLICA IDENTITY USING INDEX by_code")
    database.execute("UPDATE t SET code = code || '!', id = id + 500 WHERE id > 20; DELETE FROM t WHERE id = 3")
    replica.catch_up()
    assert replica.query("SELECT id, code, v, big FROM t ORDER BY id") == row_by_row(database)
    replica.assert_equal()
