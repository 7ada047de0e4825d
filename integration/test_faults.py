"""The sweep of the fault points: whatever happens wherever a step is half done, both sides are equal afterwards.

By default a process is killed at some points of the source and some of the pipeline and the target, and others fail in the
other ways; each commit has its own choice. CDC_SEED makes another one; CDC_FAULT_MATRIX=full makes it all points in all
ways.

Status is asked at each moment: before, as long as the process runs, once it has failed, while there is a backlog, and
after both sides are equal.
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
from integration.fault_scenes import Case, Ended, Scene, Server, cases, fanned_out
from integration.processes import cdc
from tests.seeds import SEED

IS_FULL = os.environ.get("CDC_FAULT_MATRIX") == "full"
OF_THE_DISK = ("nospace", "ioerror", "full")
STALL_TIMEOUT = 6.0  # seconds; a machine that is busy keeps a thread that lives from running for a while
_rng = random.Random(SEED)


def chosen(source: str, *, own: int, target: int, more: int = 2, others: int = 3) -> list[Case]:
    """The cases of a run: so many points of the source, and of the pipeline and the target; so many of those that pass a
    point at another time; and so many that fail in other ways than by a kill."""
    points, again = cases(source)
    if IS_FULL:
        return [case.of(kind) for case in [*points, *again] for kind in KINDS]
    shared = [case for case in points if case.is_shared]
    killed = _rng.sample([case for case in points if not case.is_shared], own) + _rng.sample(shared, target)
    softly = [case.of(_rng.choice(("raise", "fail", "delay"))) for case in _rng.sample([*points, *again], others)]
    softly += [_rng.choice([*points, *again]).of(kind) for kind in OF_THE_DISK]
    # One hang at the source's side; the target's takes 12 times as long, and has a test of its own.
    readers = [case for case in points if case.name.startswith("stream.")]
    hanging = [case.of("hang") for case in _rng.sample(readers, others and 1)]
    return [*killed, *_rng.sample(again, more), *softly, *hanging]


def chosen_fanned_out(source: str, number: int) -> list[Case]:
    """The same where a journal feeds two targets; nothing hangs there that does not hang elsewhere."""
    there = [case.of(kind) for case in fanned_out(source) for kind in KINDS if kind != "hang"]
    return there if IS_FULL else _rng.sample(there, number)


def test_no_point_is_left_out() -> None:
    swept = {case.name for source in ("postgres", "mariadb", "mysql") for case in cases(source)[0]}
    # Those of Kafka, of journals and of copies for readers are in tests of their own.
    assert swept == {name for name in POINTS if not name.startswith(("kafka.", "journal.", "versioned.", "publish."))}


class Stage:
    """The scenes that follow, which are used again as long as nothing went wrong in them."""

    def __init__(self) -> None:
        self._scenes: dict[tuple[int, bool], Scene] = {}

    def take(self, server: Server, folder: Path, *, is_fanned_out: bool) -> Scene:
        scene = self._scenes.pop((id(server), is_fanned_out), None)
        if scene is None:
            scene = Scene(server, folder, is_fanned_out=is_fanned_out)
            scene.assert_recovers()
        return scene

    def give_back(self, scene: Scene) -> None:
        self._scenes[id(scene.database.server), scene.is_fanned_out] = scene

    def clear(self) -> None:
        for scene in self._scenes.values():
            scene.remove()


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.clear()


def play(case: Case, server: Server, stage: Stage, folder: Path, *, is_fanned_out: bool = False) -> None:
    """One process that fails as the case says, and what comes after."""
    print(f"CDC_SEED={SEED}")
    if case.scene == "first":
        scene = Scene(server, folder, is_fanned_out=is_fanned_out)
    else:
        scene = stage.take(server, folder, is_fanned_out=is_fanned_out)
        scene.stir()
        scene.assert_red()
        if case.name.startswith(("copy.", "setup.", "membership.", "backfill.")):
            scene.give_something_to_copy(new=case.name != "copy.again")
    goes_on = case.kind not in ("kill", "hang")
    patience = ("--stall-timeout", f"{STALL_TIMEOUT if case.kind == 'hang' else 120}s")
    with scene.under_load():
        if case.before:
            assert scene.run(case.before).code == -signal.SIGKILL
        # It may have caught up before it passes there so often, or before a statement of the load makes it doubt.
        if goes_on and (":" in case.point or case.name == "healing.part"):
            is_repeated = case.kind == "raise" and case.name != "healing.part"  # which tries again by itself
            words = [f"fault point {case.name}", *(["Trying again"] if is_repeated else [])]
            ended = scene.run_until(words, case.setting, *patience)
        elif goes_on or case.name == "target.before_close":
            ended = scene.run(case.setting, *patience, "--until-caught-up")
        else:
            ended = scene.run(case.setting, *patience)
    (assert_fan_out_failed if is_fanned_out else assert_failed_as_meant)(case, ended)
    scene.leave_a_backlog()
    scene.assert_red()
    if ended.code > 0 and case.kind not in ("full", "hang"):  # these leave it unsaid, as a kill does
        assert_says_why(scene, ended)
    scene.assert_recovers()
    if case.scene == "first":
        scene.remove()
    else:
        stage.give_back(scene)


def assert_failed_as_meant(case: Case, ended: Ended) -> None:
    assert ended.reached(case.name, case.kind), f"{case} was not reached:\n{ended.said}"
    assert "Traceback" not in ended.said, ended.said
    if case.kind == "kill":
        assert ended.code == -signal.SIGKILL, ended.said
    elif case.kind == "hang":
        assert ended.code == 1, ended.said
        assert f"The {'applier' if case.is_of_the_target else 'reader'} has not moved on" in ended.said
        assert "faults.py" in ended.said  # where it hangs
    elif case.kind == "delay":
        assert ended.code == 0, ended.said
    elif case.kind == "raise":
        # What works beside the pipeline begins again without a word.
        is_beside = case.name in ("healing.part", "backfill.part")
        assert ended.code or "Trying again" in ended.said or is_beside, ended.said
        assert ended.code in (0, 1), ended.said
        assert ended.code == 0 or is_before_a_first_success(case), ended.said
    elif case.kind == "full":
        assert ended.code in (0, 3), ended.said  # 0 if nothing had to be written after it
        assert ended.code == 0 or "There is no space left for " in ended.said, ended.said
    elif case.kind in ("nospace", "ioerror"):
        words = "There is no space left for " if case.kind == "nospace" else "The system cannot read or write "
        is_lost = not case.is_of_the_target and "the connection was lost" in ended.said
        assert ended.code == (0 if is_lost else 3), ended.said
        assert ("Trying again" if is_lost else words) in ended.said, ended.said
    else:
        assert ended.code == 1, ended.said
        assert "failed for good" in ended.said


def assert_fan_out_failed(case: Case, ended: Ended) -> None:
    """What a feed fails with is tried again while the writer goes on; what the writer fails with ends all."""
    assert ended.reached(case.name, case.kind), f"{case} was not reached:\n{ended.said}"
    assert "Traceback" not in ended.said, ended.said
    if case.kind == "kill":
        assert ended.code == -signal.SIGKILL, ended.said
    elif case.kind == "delay":
        assert ended.code == 0, ended.said
    elif case.kind == "full":
        assert ended.code in (0, 3), ended.said
        assert ended.code == 0 or "There is no space left for " in ended.said, ended.said
    else:
        code, words = FAN_OUT_FAILS[case.kind]
        assert ended.code in (0, code), ended.said
        assert words in ended.said, ended.said
        goes_on = ("is not fed just now", "Trying again", "It ends here, as asked")
        assert ended.code or any(words in ended.said for words in goes_on), ended.said


FAN_OUT_FAILS = {
    "raise": (1, "failed."),
    "fail": (1, "failed for good"),
    "nospace": (3, "There is no space left for "),
    "ioerror": (3, "The system cannot read or write "),
}


def assert_says_why(scene: Scene, ended: Ended) -> None:
    """A run that has failed turns status red at once, with the words that it has ended with (O14)."""
    problems = [problem for report in scene.status(3600.0).values() for problem in report["problems"]]
    failures = [problem.partition("has failed: ")[2] for problem in problems if "has failed: " in problem]
    assert failures, (problems, ended.said)
    assert any(f"Error: {failure}" in ended.said for failure in failures), (failures, ended.said)


def is_before_a_first_success(case: Case) -> bool:
    """A failure is reported at once there, even one that may go away."""
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


@pytest.mark.parametrize("case", chosen("postgres", own=12, target=8), ids=str)
def test_postgres(case: Case, postgres: Server, stage: Stage, tmp_path: Path) -> None:
    """C-04, D-01, D-15, D-19, D-20, E-01."""
    play(case, postgres, stage, tmp_path)


@pytest.mark.parametrize("case", chosen("mariadb", own=8, target=3), ids=str)
def test_mariadb(case: Case, mariadb: Server, stage: Stage, tmp_path: Path) -> None:
    """B-10, C-04, D-01, D-15, D-19, D-20, E-01."""
    play(case, mariadb, stage, tmp_path)


@pytest.mark.parametrize("case", chosen_fanned_out("postgres", 3), ids=str)
def test_fan_out_from_postgres(case: Case, postgres: Server, stage: Stage, tmp_path: Path) -> None:
    """D-19, E-01, O11, O12, O27: a journal and two targets in one process."""
    play(case, postgres, stage, tmp_path, is_fanned_out=True)


@pytest.mark.parametrize("case", chosen_fanned_out("mariadb", 1), ids=str)
def test_fan_out_from_mariadb(case: Case, mariadb: Server, stage: Stage, tmp_path: Path) -> None:
    """D-19, E-01, O11, O12, O27."""
    play(case, mariadb, stage, tmp_path, is_fanned_out=True)


@pytest.mark.parametrize("case", [*_rng.sample(cases("mysql")[0], 3), Case("copy.locked", "first")], ids=str)
def test_mysql(case: Case, mysql: Server, stage: Stage, tmp_path: Path) -> None:
    """B-10, C-04, C-10, D-19: it shares the code with MariaDB."""
    play(case, mysql, stage, tmp_path)


POINTS_OF_AN_OPEN_TARGET = [
    case.name
    for case in cases("postgres")[0]
    if case.is_of_the_target and case.scene == "follow" and case.name != "pipeline.before_open"
]  # a process that has opened nothing has not said yet that it runs


def test_status_is_red_while_the_target_hangs(postgres: Server, tmp_path: Path) -> None:
    """E-01: the probe tells what does not move on, and since when. That the process ends in the end is in the matrix,
    and in tests/test_liveness.py: a target has 12 times as long as is good for a test."""
    point = _rng.choice(POINTS_OF_AN_OPEN_TARGET)
    print(f"CDC_SEED={SEED}: {point}")
    scene = Scene(postgres, tmp_path)
    scene.replica.catch_up()
    scene.stir()
    ends = ("--until-caught-up",) if point == "target.before_close" else ()
    began = time.time()
    process = scene.start(f"{point}=hang", "--stall-timeout", f"{STALL_TIMEOUT}s", *ends)
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
    assert Ended(process.wait(), said).reached(point, "hang"), said
    assert report["running"]
    assert not report["healthy"]
    assert report["stall"]["stage"] == "applier", (report, said)
    assert began < report["stall"]["since"] < time.time() - STALL_TIMEOUT
    assert done.returncode == 1
    assert "applier since 20" in in_words
    assert "The applier has not moved on" in said
    scene.assert_recovers()
    scene.remove()
