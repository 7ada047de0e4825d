"""A web shop of more than 60 tables: loaded before and during a run, worked with and migrated, and equal in the end.

On PostgreSQL, and on one of MySQL and MariaDB.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from integration.schema_changes.follower import Follower
from integration.schema_changes.round import compared
from integration.schema_changes.servers import MySql, Postgres, Server, Session
from integration.shop import Shop
from tests.seeds import one_of

_TABLES = 60
_BETWEEN = 6  # pieces of work between two migrations


@pytest.fixture(params=one_of("postgres", "mysql", "mariadb"))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One of them, of which each commit has its own."""
    private = request.getfixturevalue(request.param)
    made: Server = Postgres(private) if isinstance(private, PrivatePostgres) else MySql(private)
    assert isinstance(private, PrivatePostgres | PrivateMySql)
    yield made
    made.close()


@pytest.mark.long
@pytest.mark.loses_shapes
def test_a_web_shop(server: Server, tmp_path: Path) -> None:
    """P3, P4, P5, P6, P7, P8, P13, M1, M3, M5, M8: one shop is there before the run and is migrated while `cdc run` follows;
    another one comes during the run and is migrated while it stands still."""
    shop, follower, rng = Shop(server.kind), Follower(server, tmp_path), random.Random(13)
    before, during = (server.session(server.make()) for _ in range(2))
    load(shop, before)
    assert len(server.tables([before.schema])) >= _TABLES
    try:
        follower.start()
        work(shop, before, rng)
        load(shop, during)
        migrate(shop, before, rng)
        follower.stop()
        migrate(shop, during, rng)
        follower.start()
        for session in (before, during):
            work(shop, session, rng)
        follower.stop()
        standings = follower.catch_up()
    finally:
        follower.give_up()
        before.close()
        during.close()

    assert compared(server, [before.schema, during.schema], follower.path, standings) == {}


def load(shop: Shop, session: Session) -> None:
    """All tables with rows."""
    for text in [*shop.schema, *shop.rows, *shop.rows]:
        session.run(text)


def work(shop: Shop, session: Session, rng: random.Random) -> None:
    """Some of what the application does all day."""
    for text in rng.sample(shop.work, _BETWEEN):
        session.run(text)


def migrate(shop: Shop, session: Session, rng: random.Random) -> None:
    """One migration after the other, with work in between."""
    for text in shop.migrations:
        session.run(text)
        work(shop, session, rng)
