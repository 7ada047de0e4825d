"""Schema changes of every kind, on real servers, under a pipeline that follows, stands still or is killed.

CDC_SCHEMA_CHANGES is the number of statements at random; CDC_SEED repeats the ones that a failure has printed.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from integration.schema_changes import mysql_tables, postgres_tables
from integration.schema_changes.known import known
from integration.schema_changes.mysql import MySqlWork
from integration.schema_changes.postgres import PostgresWork
from integration.schema_changes.round import Outcome, When, begun, play, replay, shrunk
from integration.schema_changes.script import Group
from integration.schema_changes.servers import MySql, Postgres, Server
from tests.seeds import SEED, some

STATEMENTS = int(os.environ.get("CDC_SCHEMA_CHANGES", "30"))  # at random, for each server and way to run them
_IN_ONE_SCHEMA = 30
_EXPLAINED_WITHIN = 120.0  # seconds, to find the least statements that fail

Make = Callable[[], Server]


_KINDS = ["postgresql-18", "postgresql-15", "mysql", "mariadb", "mariadb-sid"]


@pytest.fixture(scope="module", params=some(_KINDS, 2, "changes of shape"))
def private(request: pytest.FixtureRequest) -> Iterator[PrivatePostgres | PrivateMySql]:
    """A server of each kind in turn."""
    kind, _, version = request.param.partition("-")
    with PrivatePostgres(int(version)) if kind == "postgresql" else PrivateMySql(request.param) as server:
        yield server


@pytest.mark.loses_shapes
@pytest.mark.parametrize("when", [When.FOLLOWING, When.STANDING])
def test_known(private: PrivatePostgres | PrivateMySql, when: When) -> None:
    """P1 to P8, P13, P14, M1 to M10, M16, M19: what was wrong once, all of it under one pipeline."""
    make = maker(private, when)
    server = make()
    scripts = known(server.kind, server.version)
    expect_equal(make, server, [begun(server, script) for script in scripts], when)


@pytest.mark.loses_shapes
@pytest.mark.parametrize("when", list(When))
def test_at_random(private: PrivatePostgres | PrivateMySql, when: When) -> None:
    """P1 to P8, P13, P14, M1 to M10, M16, M19 by statements that nobody has chosen."""
    make = maker(private, when)
    server = make()
    count = max(1, STATEMENTS // _IN_ONE_SCHEMA)
    seeds = [SEED + 1000 * list(When).index(when) + number for number in range(count)]
    expect_equal(make, server, [at_random(server, seed, STATEMENTS // count) for seed in seeds], when)


def maker(private: PrivatePostgres | PrivateMySql, when: When) -> Make:
    """What gives places for schemas on a server, whose log says less where nobody follows it meanwhile (M7)."""
    if isinstance(private, PrivatePostgres):
        return lambda: Postgres(private)
    return lambda: MySql(private, names_columns=when is not When.STANDING)


def at_random(server: Server, seed: int, count: int) -> Group:
    """Random statements in a schema of their own."""
    session = server.session(server.make())
    if server.kind == "postgresql":
        work = PostgresWork(seed, count, server.version)
        return Group(f"seed {seed}", session, postgres_tables.SETUP, work)
    return Group(f"seed {seed}", session, mysql_tables.SETUP, MySqlWork(seed, count, server.kind))


def expect_equal(make: Make, server: Server, groups: Sequence[Group], when: When) -> None:
    """Fails with the groups that were wrong, each alone and with as few statements as were found soon."""
    try:
        outcome = play(server, groups, when, random.Random(SEED))
    finally:
        for group in groups:
            group.close()
        server.close()
    assert any(group.taken for group in groups)
    assert outcome.is_good, explained(make, groups, when, outcome)


def explained(make: Make, groups: Sequence[Group], when: When, outcome: Outcome) -> str:
    """What went wrong, by group; if the pipeline ended, each group tells alone whether it was the cause."""
    until = time.monotonic() + _EXPLAINED_WITHIN
    answer = [
        f"CDC_SEED={SEED} CDC_SCHEMA_CHANGES={STATEMENTS}, {when.value}: {outcome.ended or 'there are differences'}"
    ]
    answer += [
        alone
        for group in groups
        if outcome.ended is not None or group.name in outcome.different
        if (alone := tried_alone(make, group, when, outcome.different.get(group.name, []), until)) is not None
    ]
    return "\n\n".join(answer)


def tried_alone(make: Make, group: Group, when: When, different: list[str], until: float) -> str | None:
    """How a group fails by itself, in the cheapest way that it does; None if it does not and nothing of it differed."""
    script = group.replayable
    for way in (When.STANDING, when):
        if time.monotonic() > until:
            break
        outcome = replay(make, script, way)
        if not outcome.is_good:
            script = shrunk(make, script, way, until)
            outcome = replay(make, script, way)
            said = outcome.ended or "; ".join(outcome.different.get(group.name, []))
            return "\n    ".join([f"{group.name}, alone, {way.value}: {said}", *script.statements])
    if not different:
        return None
    return "\n    ".join([f"{group.name}, among the others: {'; '.join(different)}", *script.statements])
