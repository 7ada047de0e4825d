"""What the sweep of fault points plays on: a source under load, and a replica that is behind by just what reaches each
point."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count, cycle
from pathlib import Path
from typing import Any

from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from cdc.demo.shop import Workload
from cdc.faults import POINTS
from integration.conftest import Database, MySqlDatabase, make_replica
from integration.looks import status_now
from integration.mysql_work import make_tables, start_work
from integration.processes import Process, start
from integration.test_kill import make_shop

Server = PrivatePostgres | PrivateMySql
_numbers = count(1)
_LOOK_EVERY = 0.8  # seconds


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it had said."""

    code: int
    said: str

    def reached(self, point: str, kind: str) -> bool:
        return f"fault point {point}: {kind}" in self.said


class Scene:
    """A database of its own, with tables for everything that can happen to one, and its replica."""

    def __init__(self, server: Server, folder: Path, *, is_fanned_out: bool = False) -> None:
        name = f"faults_{next(_numbers)}"
        server.create_database(name)
        self.is_postgres = isinstance(server, PrivatePostgres)
        self.database = Database(server, name) if isinstance(server, PrivatePostgres) else MySqlDatabase(server, name)
        self.replica = make_replica(self.database, folder)
        self.replicas = [self.replica]
        self._ends: tuple[str, ...] = (self.replica.target,)
        self.targets = [self.replica.target]  # what comes from the database, at once or through a journal
        self._fed: list[tuple[str, str]] = []  # journal and target
        self._stirred = 0
        self.is_under_load = False
        if is_fanned_out:
            self._fan_out(folder)
        full = "REPLICA IDENTITY FULL"
        if isinstance(self.database, Database):
            make_shop(self.database, customers=500)
        else:
            make_tables(self.database, 500)
        self._execute(
            "CREATE TABLE stirred (id int PRIMARY KEY, v int)",
            "INSERT INTO stirred VALUES (1, 1), (2, 2)",
            "CREATE TABLE emptied (id int PRIMARY KEY)",
            "INSERT INTO emptied VALUES (1)",
            "CREATE TABLE loose (a int, b int)",
            *([f"ALTER TABLE loose {full}"] if self.is_postgres else ["CREATE TABLE rewritten (id int PRIMARY KEY)"]),
            *([] if self.is_postgres else ["INSERT INTO rewritten VALUES (1), (2)"]),
        )

    def _fan_out(self, folder: Path) -> None:
        """A second target, and a journal before both."""
        other, journal = replace(self.replica, path=folder / "other.duckdb"), f"journal:{folder / 'journal'}"
        self.replicas.append(other)
        self._ends = ("--journal", journal, *(word for replica in self.replicas for word in ("--to", replica.target)))
        self.targets = [journal, *(replica.target for replica in self.replicas)]
        self._fed = [(journal, replica.target) for replica in self.replicas]

    @property
    def is_fanned_out(self) -> bool:
        return bool(self._fed)

    def status(self, max_lag: float = 0.0) -> dict[str, dict[str, Any]]:
        """What status says of each target."""
        return {target: self.status_of(target, max_lag) for target in self.targets}

    def status_of(self, target: str, max_lag: float = 0.0) -> dict[str, Any]:
        return status_now(self.database.dsn, target, self.replica.options.name, max_lag)

    def assert_red(self) -> None:
        """No target is called healthy: nobody works on what is there."""
        reports = self.status()
        assert not [report for report in reports.values() if report["healthy"] or report["running"]], reports

    def assert_green(self) -> None:
        """All of them are, and each target is by what its journal says."""
        reports = list(self.status().values())
        reports += [status_now(journal, target, self.replica.options.name) for journal, target in self._fed]
        red = [report for report in reports if report["health"] != "green"]
        assert not red, red

    @contextmanager
    def watched(self, process: Process) -> Iterator[None]:
        """Status is asked again and again as long as a process runs and somebody changes the source."""
        watch = _Watch(self, process)
        watch.start()
        try:
            yield
        finally:
            watch.is_over.set()
            watch.join()
        if watch.failure is not None:
            raise watch.failure

    def _execute(self, *statements: str) -> None:
        with self.database.connect() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def remove(self) -> None:
        self.database.remove()

    def stir(self) -> None:
        """Put something into the log that takes each way through the program: another shape, a value that its type has
        no place for, a truncate, rows without a key, rows that are new and rows that change."""
        self._stirred = n = self._stirred + 1
        odd = ("numeric(8,2)", "'NaN'") if self.is_postgres else ("date", "'0000-00-00'")
        self._execute(
            *([] if self.is_postgres else ["SET SESSION sql_mode = ''"]),
            f"ALTER TABLE stirred ADD COLUMN c{n} int DEFAULT 7, ADD COLUMN w{n} {odd[0]}",
            "TRUNCATE TABLE emptied",
            f"INSERT INTO emptied VALUES ({n}), ({n + 1})",
            "INSERT INTO loose VALUES (1, 1), (1, 1), (2, 2)",
            "UPDATE loose SET b = b + 1 WHERE a = 1",
            "DELETE FROM loose WHERE a = 2",
            "UPDATE stirred SET v = v + 1",
            f"INSERT INTO stirred (id, v, w{n}) VALUES ({n + 2}, {n}, {odd[1]})",
        )

    def leave_a_backlog(self) -> None:
        """Change something that nobody works on."""
        self._execute("UPDATE stirred SET v = v + 1")

    def give_something_to_copy(self, *, new: bool) -> None:
        """A table that comes after the first copy; or, of MySQL and MariaDB, one whose rows a statement rewrites."""
        n = self._stirred
        if new or self.is_postgres:
            self._execute(f"CREATE TABLE later_{n} (id int PRIMARY KEY)", f"INSERT INTO later_{n} VALUES (1), (2)")
        else:
            # Whichever of the two it has: the other one converts its values, so that it is copied again.
            to = "ALTER TABLE rewritten CONVERT TO CHARACTER SET {}"
            self._execute(*(to.format(charset) for charset in ("latin1", "utf8mb4")))

    @contextmanager
    def under_load(self) -> Iterator[None]:
        """Transactions go on meanwhile."""
        seed = next(_numbers)
        if isinstance(self.database, Database):
            work = Workload(self.database.dsn, rate=500, seed=seed)
            work.start()
        else:
            work = start_work(self.database, seed)  # type: ignore[assignment]
        self.is_under_load = True
        try:
            yield
        finally:
            self.is_under_load = False
            work.stop()

    def start(self, fault: str, *arguments: str) -> Process:
        """`cdc run` as a process of its own."""
        name = ("--name", self.replica.options.name, "--workers", "2")
        return start("run", self.database.dsn, *self._ends, *name, *arguments, CDC_FAULT=fault)

    def run(self, fault: str, *arguments: str) -> Ended:
        """The same until it ends by itself."""
        process = self.start(fault, *arguments)
        try:
            with self.watched(process):
                said = process.communicate(timeout=120)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            said = process.communicate()[1]
            raise AssertionError(f"{fault} has not ended the process:\n{said}") from None
        return Ended(process.wait(), said)

    def run_until(self, words: Sequence[str], fault: str, *arguments: str) -> Ended:
        """The same until it has said these words, one after the other, or ends by itself."""
        process = self.start(fault, *arguments)
        limit = threading.Timer(120, process.kill)
        limit.start()
        said, left = "", list(words)
        assert process.stderr is not None
        with self.watched(process):
            for line in process.stderr:
                said += line
                if left and left[0] in line:
                    del left[0]
                    if not left:
                        process.terminate()
        limit.cancel()
        return Ended(process.wait(60), said)

    def assert_recovers(self) -> None:
        """Started again, it comes to hold what the source does, and status says so."""
        ended = self.run("", "--until-caught-up")
        assert ended.code == 0, ended.said
        self.assert_green()
        for replica in self.replicas:
            replica.assert_equal()


class _Watch(threading.Thread):
    """Asks status while a process runs: whoever is not at work is not healthy, since there is work."""

    def __init__(self, scene: Scene, process: Process) -> None:
        super().__init__(daemon=True)
        self.is_over = threading.Event()
        self.failure: BaseException | None = None
        self._scene = scene
        self._process = process

    def run(self) -> None:
        try:
            # One end at a time: what asks takes from the processor what the scene needs.
            for target in cycle(self._scene.targets):
                if self.is_over.wait(_LOOK_EVERY):
                    return
                was_there = self._process.poll() is None
                report = self._scene.status_of(target)
                assert was_there or not report["running"], (target, report)
                assert report["running"] or not (report["healthy"] and self._scene.is_under_load), (target, report)
        except BaseException as error:  # which nobody else would see
            self.failure = error


@dataclass(frozen=True)
class Case:
    """One point on one source.

    Attributes:
        point: with the passing, as in `name:2`.
        scene: `first` (nothing is copied yet) or `follow` (a log to be read).
        before: a fault that has to kill the process before, so that the point is reached.
        beside: another fault in the same run, for the same reason.
    """

    point: str
    scene: str = "follow"
    before: str = ""
    beside: str = ""
    kind: str = "kill"

    @property
    def name(self) -> str:
        return self.point.partition(":")[0]

    @property
    def is_of_the_target(self) -> bool:
        """Whether it is the target's time that passes there, of which there is more."""
        ours = ("target.", "handoff.after_take", "handoff.before_applied", "pipeline.before_open")
        return self.point.startswith(ours)

    @property
    def is_shared(self) -> bool:
        """Whether the point lies outside of the source."""
        return self.point.startswith(("pipeline.", "handoff.", "target."))

    @property
    def setting(self) -> str:
        return ",".join(filter(None, (f"{self.point}={self.kind}", self.beside)))

    def of(self, kind: str) -> Case:
        return replace(self, kind=kind)

    def __str__(self) -> str:
        return re.sub(r"[^\w.:=-]", "-", f"{self.setting}-{self.scene}")


FIRST = ("pipeline.", "setup.", "copy.", "target.opened", "target.before_state", "target.reset")
ELSEWHERE = {
    "postgres": ("copy.locked", "copy.again", "copy.adopted", "kafka.", "journal.", "versioned.", "publish."),
    "mariadb": (
        "setup.",
        "membership.",
        "stream.before_feedback",
        "copy.locked",
        "kafka.",
        "journal.",
        "versioned.",
        "publish.",
    ),
    "mysql": ("setup.", "membership.", "stream.before_feedback", "kafka.", "journal.", "versioned.", "publish."),
}
# Points that need more than a scene, and other passings of the same.
SPECIAL = [
    Case("pipeline.before_open:2", beside="stream.segment=raise"),
    Case("setup.half_dropped", "first", before="setup.after_slot"),
    Case("membership.announced"),
    Case("membership.changed"),
    Case("backfill.part"),
    Case("copy.adopted"),
    Case("copy.again"),
]
MORE = [
    Case("copy.chunk:3", "first"),
    Case("stream.segment:2"),
    Case("target.before_commit", "first"),
    Case("target.before_commit:3", "first"),
    Case("target.before_commit:2"),
    Case("target.after_commit:2", "first"),
    Case("target.after_commit:2"),
]


# Whose feeds, and whose writer, pass these points.
_FANNED_OUT = (
    "pipeline.between_opens",
    "handoff.",
    "stream.",
    "target.",
    "journal.written",
    "journal.synced",
    "copy.before",
)


def fanned_out(source: str) -> list[Case]:
    """The points that several targets pass which are fed from one journal."""
    there = [
        Case(name, "first" if name.startswith(FIRST) else "follow") for name in POINTS if name.startswith(_FANNED_OUT)
    ]
    return [case for case in there if case.name not in ELSEWHERE[source]]


def cases(source: str) -> tuple[list[Case], list[Case]]:
    """Every point that can be passed there, and some that are passed at another time as well."""
    special = {case.name for case in SPECIAL}
    plain = [Case(name, "first" if name.startswith(FIRST) else "follow") for name in POINTS if name not in special]

    def there(those: list[Case]) -> list[Case]:
        return [case for case in those if not case.point.startswith(ELSEWHERE[source])]

    return there([*plain, *SPECIAL]), there(MORE)
