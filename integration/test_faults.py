"""The sweep of the fault points: whatever happens wherever a step is half done, both sides are equal afterwards.

By default a process is killed at every point on PostgreSQL, on MariaDB at every one of the source and some of the
target, and a choice of points fails in the other ways. CDC_FAULT_SEED makes another choice; CDC_FAULT_MATRIX=full makes
it all points in all ways.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc import faults
from cdc.errors import PublicationChanged
from cdc.faults import KINDS, POINTS
from integration.conftest import Database, make_replica
from integration.fault_scenes import Case, Ended, Scene, Server, cases
from integration.test_cli import cdc

# One choice for everybody who does not ask for another: the gate tells of a commit, not of its luck; the long form plays
# them all.
SEED = int(os.environ.get("CDC_FAULT_SEED", "1"))
IS_FULL = os.environ.get("CDC_FAULT_MATRIX") == "full"
STALL_TIMEOUT = 6.0  # seconds; a machine that is busy keeps a thread that lives from running for a while
_rng = random.Random(SEED)


def chosen(source: str, *, target: int | None = None, more: int = 2, others: int = 3) -> list[Case]:
    """The cases of a run: all points of the source; of the pipeline and the target so many (None for all); so many of
    those that pass a point at another time; and so many that fail in other ways than by a kill."""
    points, again = cases(source)
    if IS_FULL:
        return [case.of(kind) for case in [*points, *again] for kind in KINDS]
    shared = [case for case in points if case.is_shared]
    killed = [case for case in points if not case.is_shared]
    killed += shared if target is None else _rng.sample(shared, target)
    softly = [case.of(_rng.choice(("raise", "fail", "delay"))) for case in _rng.sample([*points, *again], others)]
    # One hang at the source's side; the target's takes 12 times as long, and has a test of its own.
    hanging = [case.of("hang") for case in _rng.sample([c for c in points if not c.is_of_the_target], others and 1)]
    return [*killed, *_rng.sample(again, more), *softly, *hanging]


def test_no_point_is_left_out() -> None:
    swept = {case.name for source in ("postgres", "mariadb", "mysql") for case in cases(source)[0]}
    # Those of Kafka and of journals are in tests of their own.
    assert swept == {name for name in POINTS if not name.startswith(("kafka.", "journal."))}


class Stage:
    """The scenes that follow, which are used again as long as nothing went wrong in them."""

    def __init__(self) -> None:
        self.scenes: dict[int, Scene] = {}

    def take(self, server: Server, folder: Path) -> Scene:
        scene = self.scenes.pop(id(server), None)
        if scene is None:
            scene = Scene(server, folder)
            scene.replica.catch_up()
        return scene


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    for scene in stage.scenes.values():
        scene.remove()


def play(case: Case, server: Server, stage: Stage, folder: Path) -> None:
    """One process that fails as the case says, and what comes after."""
    print(f"CDC_FAULT_SEED={SEED}")
    if case.scene == "first":
        scene = Scene(server, folder)
    else:
        scene = stage.take(server, folder)
        scene.stir()
        if case.name.startswith(("copy.", "setup.", "membership.", "backfill.")):
            scene.give_something_to_copy(new=case.name not in ("copy.again", "copy.rows"))
    goes_on = case.kind in ("raise", "fail", "delay")
    patience = ("--stall-timeout", str(STALL_TIMEOUT if case.kind == "hang" else 120))
    with scene.under_load():
        if case.before:
            assert scene.run(case.before).code == -signal.SIGKILL
        if goes_on and ":" in case.point:  # it may have caught up before it passes there so often
            ended = scene.run_until("Trying again" if case.kind == "raise" else "fault point", case.setting, *patience)
        elif goes_on or case.name == "target.before_close":
            ended = scene.run(case.setting, *patience, "--until-caught-up")
        else:
            ended = scene.run(case.setting, *patience)
    assert_failed_as_meant(case, ended)
    scene.assert_recovers()
    if case.scene == "first":
        scene.remove()
    else:
        stage.scenes[id(server)] = scene


def assert_failed_as_meant(case: Case, ended: Ended) -> None:
    assert ended.reached(case.name, case.kind), f"{case} was not reached:\n{ended.said}"
    if case.kind == "kill":
        assert ended.code == -signal.SIGKILL, ended.said
    elif case.kind == "hang":
        assert ended.code == 1, ended.said
        assert f"The {'applier' if case.is_of_the_target else 'reader'} has not moved on" in ended.said
        assert "faults.py" in ended.said  # where it hangs
    elif case.kind == "delay":
        assert ended.code == 0, ended.said
    elif case.kind == "raise":
        assert (ended.code, "Trying again" in ended.said) in ((0, True), (1, False), (1, True)), ended.said
        assert ended.code == 0 or is_before_a_first_success(case), ended.said
    else:
        assert ended.code == 1, ended.said
        assert "failed for good" in ended.said


def is_before_a_first_success(case: Case) -> bool:
    """A failure is told at once there, even one that may go away."""
    return case.point in ("pipeline.before_open", "pipeline.between_opens", "target.opened", "target.before_state")


@pytest.mark.parametrize("keyless", [False, True])
def test_a_table_that_came_later_was_published_already(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keyless: bool
) -> None:
    """C-07: a run that ends between publishing it and the checkpoint does not take that for somebody's else."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    replica = make_replica(database, tmp_path, include_keyless=True)
    replica.catch_up()
    database.execute(f"CREATE TABLE u (id int{'' if keyless else ' PRIMARY KEY'}); INSERT INTO u VALUES (1)")
    with monkeypatch.context() as armed:
        armed.setattr(faults, "_armed", faults.parse("membership.changed=fail"))
        with pytest.raises(faults.FaultLasting):
            replica.catch_up()
    database.execute("INSERT INTO t VALUES (2); INSERT INTO u VALUES (2)")
    replica.catch_up()
    replica.assert_equal()
    database.execute(f"CREATE TABLE v (id int PRIMARY KEY); ALTER PUBLICATION cdc_{database.name} ADD TABLE v")
    with pytest.raises(PublicationChanged):  # but somebody else's is
        make_replica(database, tmp_path, "t", "u", include_keyless=True).catch_up()


@pytest.mark.parametrize("case", chosen("postgres"), ids=str)
def test_postgres(case: Case, postgres: Server, stage: Stage, tmp_path: Path) -> None:
    """C-04, D-01, D-15, D-19, D-20, E-01."""
    play(case, postgres, stage, tmp_path)


@pytest.mark.parametrize("case", chosen("mariadb", target=3), ids=str)
def test_mariadb(case: Case, mariadb: Server, stage: Stage, tmp_path: Path) -> None:
    """B-10, C-04, D-01, D-15, D-19, D-20, E-01."""
    play(case, mariadb, stage, tmp_path)


@pytest.mark.parametrize("case", [*_rng.sample(cases("mysql")[0], 3), Case("copy.locked", "first")], ids=str)
def test_mysql(case: Case, mysql: Server, stage: Stage, tmp_path: Path) -> None:
    """B-10, C-04, C-10, D-19: it shares the code with MariaDB."""
    play(case, mysql, stage, tmp_path)


def test_status_is_red_while_the_target_hangs(postgres: Server, tmp_path: Path) -> None:
    """E-01: the probe tells what does not move on, and since when. That the process ends in the end is in the matrix,
    and in tests/test_liveness.py: a target has 12 times as long as is good for a test."""
    point = _rng.choice(
        [case.name for case in cases("postgres")[0] if case.is_of_the_target and case.scene == "follow"]
    )
    print(f"CDC_FAULT_SEED={SEED}: {point}")
    scene = Scene(postgres, tmp_path)
    scene.replica.catch_up()
    scene.stir()
    ends = ("--until-caught-up",) if point == "target.before_close" else ()
    began = time.time()
    process = scene.start(f"{point}=hang", "--stall-timeout", str(STALL_TIMEOUT), *ends)
    status = ("status", scene.database.dsn, scene.replica.target, "--name", scene.replica.options.name)
    assert process.stderr is not None
    said = ""
    try:
        while "fault point" not in said and (line := process.stderr.readline()):
            said += line
        for _ in range(200):
            done = cdc(*status, "--json")
            report = json.loads(done.stdout)
            if report["stall"] is not None or process.poll() is not None:
                break
            time.sleep(0.2)
        in_words = cdc(*status).stdout
    finally:
        process.kill()
        said += process.communicate()[1]
    assert Ended(process.returncode, said).reached(point, "hang"), said
    assert report["running"]
    assert not report["healthy"]
    assert report["stall"]["stage"] == "applier", (report, said)
    assert began < report["stall"]["since"] < time.time() - STALL_TIMEOUT
    assert done.returncode == 1
    assert "applier since 20" in in_words
    assert "The applier has not moved on" in said
    scene.assert_recovers()
    scene.remove()
