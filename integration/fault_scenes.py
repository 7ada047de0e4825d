"""What the sweep of fault points plays on: a source under load, and a replica that is behind by just what reaches each
point."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from cdc.demo.shop import Workload
from cdc.faults import POINTS
from integration.conftest import Database, MySqlDatabase, make_replica
from integration.mysql_work import make_tables, start_work
from integration.test_kill import make_shop

Server = PrivatePostgres | PrivateMySql
_numbers = count(1)


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it had said."""

    code: int
    said: str

    def reached(self, point: str, kind: str) -> bool:
        return f"fault point {point}: {kind}" in self.said


class Scene:
    """A database of its own, with tables for everything that can happen to one, and its replica."""

    def __init__(self, server: Server, folder: Path) -> None:
        name = f"faults_{next(_numbers)}"
        server.create_database(name)
        self.is_postgres = isinstance(server, PrivatePostgres)
        self.database = Database(server, name) if isinstance(server, PrivatePostgres) else MySqlDatabase(server, name)
        self.replica = make_replica(self.database, folder)
        self._stirred = 0
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

    def give_something_to_copy(self, *, new: bool) -> None:
        """A table that comes after the first copy; or, of MySQL and MariaDB, where such a one comes by parts, one whose
        rows a statement rewrites."""
        n = self._stirred
        if new or self.is_postgres:
            self._execute(f"CREATE TABLE later_{n} (id int PRIMARY KEY)", f"INSERT INTO later_{n} VALUES (1), (2)")
        else:
            self._execute(f"ALTER TABLE rewritten MODIFY id {'bigint' if n % 2 else 'int'} NOT NULL")

    @contextmanager
    def under_load(self) -> Iterator[None]:
        """Transactions go on meanwhile."""
        seed = next(_numbers)
        if isinstance(self.database, Database):
            work = Workload(self.database.dsn, rate=1000, seed=seed)
            work.start()
        else:
            work = start_work(self.database, seed)  # type: ignore[assignment]
        try:
            yield
        finally:
            work.stop()

    def start(self, fault: str, *arguments: str) -> subprocess.Popen[str]:
        """`cdc run` as a process of its own."""
        replica = self.replica
        name = ("--name", replica.options.name, "--workers", "2")
        command = [sys.executable, "-m", "cdc", "run", replica.database.dsn, replica.target, *name, *arguments]
        return subprocess.Popen(
            command, env=os.environ | {"CDC_FAULT": fault}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def run(self, fault: str, *arguments: str) -> Ended:
        """The same until it ends by itself."""
        process = self.start(fault, *arguments)
        try:
            said = process.communicate(timeout=120)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            said = process.communicate()[1]
            raise AssertionError(f"{fault} has not ended the process:\n{said}") from None
        return Ended(process.returncode, said)

    def run_until(self, word: str, fault: str, *arguments: str) -> Ended:
        """The same until it says something, or ends by itself."""
        process = self.start(fault, *arguments)
        limit = threading.Timer(120, process.kill)
        limit.start()
        said = ""
        assert process.stderr is not None
        for line in process.stderr:
            said += line
            if word in line:
                process.terminate()
        limit.cancel()
        return Ended(process.wait(60), said)

    def assert_recovers(self) -> None:
        """Started again, it comes to hold what the source does."""
        self.replica.catch_up()
        self.replica.assert_equal()


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
    "postgres": ("copy.locked", "copy.again", "copy.adopted", "kafka.", "journal."),
    "mariadb": ("setup.", "membership.", "stream.before_feedback", "copy.locked", "kafka.", "journal."),
    "mysql": ("setup.", "membership.", "stream.before_feedback", "kafka.", "journal."),
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
    Case("copy.rows"),
    Case("copy.chunk:3", "first"),
    Case("copy.after_segment:2", "first"),
    Case("stream.segment:2"),
    Case("target.before_commit", "first"),
    Case("target.before_commit:3", "first"),
    Case("target.before_commit:2"),
    Case("target.after_commit:2", "first"),
    Case("target.after_commit:2"),
]


def cases(source: str) -> tuple[list[Case], list[Case]]:
    """Every point that can be passed there, and some that are passed at another time as well."""
    special = {case.name for case in SPECIAL}
    plain = [Case(name, "first" if name.startswith(FIRST) else "follow") for name in POINTS if name not in special]

    def there(those: list[Case]) -> list[Case]:
        return [case for case in those if not case.point.startswith(ELSEWHERE[source])]

    return there([*plain, *SPECIAL]), there(MORE)
