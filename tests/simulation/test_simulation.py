"""Thousands of schedules on a virtual clock: any work, any fault, any moment to die, and what must hold at every step.

Each commit has schedules of its own (tests/seeds.py).

CDC_SCHEDULES=20000 pytest tests/simulation        for longer
CDC_SCHEDULE=postgres:417 pytest tests/simulation  exactly that one again
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.seeds import SEED
from tests.simulation import mysql, postgres
from tests.simulation.run import Schedule, Server
from tests.simulation.targets import DuckDb, Memory, Probed
from tests.simulation.world import World

SCHEDULES = int(os.environ.get("CDC_SCHEDULES", "150"))
ONE = os.environ.get("CDC_SCHEDULE")
ENOUGH = 5  # times that anything must have happened in the shortest run

SOURCES: dict[str, tuple[Callable[[World, int, int], Server], Callable[[], AbstractContextManager[None]]]] = {
    "postgres": (postgres.PostgresServer, postgres.scripted),
    "mysql": (mysql.MySqlServer, mysql.scripted),
}
BOTH = """
change: insert | change: update | change: delete | change: truncate | change: reshape | change: key moved
change: keys swapped
reshape: add | reshape: add with default | reshape: drop | reshape: rename | reshape: rename table
transaction: rows | transaction: large | transaction: swap | transaction: truncate | transaction: reshape
transaction: empty | transaction: aborted | transaction: several tables
fault: reject | fault: fail after write | fault: hold | fault: slow | fault: repeat
server: refuses | server: cut
outcome: crashed | outcome: ended | outcome: everything arrived | outcome: gave up | outcome: stopped for a person
outcome: asked to stop | outcome: tried again | outcome: part of a transaction | outcome: paused | outcome: copied
outcome: changed while copied | outcome: nothing but a position | outcome: session | view: late
"""
OWN = {
    "postgres": """
        change: message | reshape: widen | server: cut inside a message | server: terminated | server: shut down
        server: slot busy | server: keepalive inside a transaction | outcome: acknowledged | outcome: heartbeat
    """,
    "mysql": """
        reshape: rewrite | server: mariadb | server: mysql | server: says an error | server: ends | server: silent
        outcome: waits for a prepared transaction | transaction: of two phases
    """,
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def run(kind: str, seed: str, make_target: Callable[[], Probed] = Memory, *, skew: float | None = None) -> Schedule:
    """One schedule; a failure says how to have it again."""
    make_server, scripted = SOURCES[kind]
    with scripted():
        schedule = Schedule(f"{kind}:{seed}", make_server, make_target, skew=skew)
        try:
            schedule.run()
        except BaseException as error:
            error.add_note(f"once more with CDC_SCHEDULE='{kind}:{seed}'")
            raise
        finally:
            schedule.target.remove()
    return schedule


def seeds(kind: str, prefix: str, count: int) -> list[str]:
    """So many seeds, or the one that CDC_SCHEDULE names, if it is one of these."""
    if ONE is None:
        return [f"{prefix}{number}" for number in range(SEED, SEED + count)]
    of, _, seed = ONE.partition(":")
    return [seed] if of == kind and seed.startswith("file ") == bool(prefix) else []


@pytest.mark.long
@pytest.mark.timeout(300 + SCHEDULES // 2)
@pytest.mark.parametrize("kind", list(SOURCES))
def test_the_target_is_always_a_state_of_the_source(kind: str) -> None:
    """A-05, A-06, A-62, A-66, A-67, A-68, B-10, B-12, B-28, C-08, D-05, D-14, D-15, D-22, E-02.

    Whatever is rejected, written and not answered, held, late or repeated, wherever connections break and the process
    dies: no acknowledgement is ahead of the target, the target is a state of the source, and everything arrives once.
    """
    coverage: Counter[str] = Counter()
    for seed in seeds(kind, "", SCHEDULES):
        coverage += run(kind, seed).coverage
    wanted = {name.strip() for name in f"{BOTH} | {OWN[kind]}".replace("\n", "|").split("|")} - {""}
    rare = {name: coverage[name] for name in sorted(wanted) if coverage[name] < ENOUGH}
    if SCHEDULES >= 2000 and ONE is None:
        assert rare == {}, "the schedules do not cover this any more"
    assert set(coverage) - wanted == set(), "this happens, and nobody makes sure that it goes on to"


@pytest.mark.timeout(300 + SCHEDULES // 2)
@pytest.mark.parametrize("kind", list(SOURCES))
def test_so_is_the_real_target(kind: str) -> None:
    """D-01, D-05, D-14, D-15: fewer of the same schedules, into a DuckDB file."""
    for seed in seeds(kind, "file ", max(1, SCHEDULES // 50)):
        run(kind, seed, DuckDb)


@pytest.mark.parametrize("kind", list(SOURCES))
def test_a_seed_is_a_schedule(kind: str) -> None:
    """The same seed gives the same steps, or no failure could be had again."""
    for seed in ("one", "two", "three"):
        first, second = run(kind, seed), run(kind, seed)
        assert (first.world.steps, first.world.time) == (second.world.steps, second.world.time)
        assert first.coverage == second.coverage
        assert first.target.changes == second.target.changes


@pytest.mark.parametrize("kind", list(SOURCES))
def test_the_lag_does_not_know_this_machines_clock(kind: str) -> None:
    """E-02: ten minutes early or late, the figures are those of the source's clock."""
    seen = 0
    for number in range(200):
        seed = SEED + number
        right = run(kind, f"skew {seed}", skew=0.0).lags
        assert run(kind, f"skew {seed}", skew=600.0).lags == right
        assert run(kind, f"skew {seed}", skew=-600.0).lags == right
        seen += sum(seconds > 0 for _, seconds in right)
        if number >= 5 and seen > 20:  # many schedules are never late
            break
    assert seen > 20
