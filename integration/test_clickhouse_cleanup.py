"""Deleted rows of a mirror in ClickHouse go for good, and nothing brings one of them back (D-17, D-18).

What comes late are rows of the server's own, kept before they were deleted: the insert of a process that nobody waits
for any longer. The comparison reads both sides by their own clients.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Thread

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from cdc import faults
from cdc.errors import TargetBusy, Unavailable
from cdc.jobs import tidying
from cdc.options import Options
from cdc.runs import open_pipeline
from cdc.tables.versioned import cleanup
from cdc.tables.versioned.target import VersionedTarget
from cdc.target import Mode, TargetSettings
from cdc.targets.clickhouse import target_factory
from cdc.targets.clickhouse.address import Server, busy, meaning
from cdc.targets.clickhouse.store import ClickHouseStore
from integration.clickhouse import PrivateClickHouse
from integration.conftest import Database
from integration.processes import cdc, start
from integration.test_clickhouse import Copy, execute

_COLUMNS = "id, v, length(big), left(big, 1), n"


@pytest.fixture(scope="module")
def house() -> Iterator[PrivateClickHouse]:
    with PrivateClickHouse() as server:
        yield server


@pytest.fixture(autouse=True)
def _few_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "_MANY", 10)
    monkeypatch.setattr(cleanup, "_UNDER_WAY", 0.0)


class Cleaned(Copy):
    """A table `t` of which most rows were deleted, as late rows of `late` have them still."""

    def __init__(self, source: Database, house: PrivateClickHouse, mode: Mode | None = None) -> None:
        super().__init__(source, house)
        execute(
            source,
            "CREATE TABLE t (id int PRIMARY KEY, v text, big text, n int)",
            "ALTER TABLE t ALTER big SET STORAGE EXTERNAL",
            "INSERT INTO t SELECT i, i::text, repeat('x', 3000), 0 FROM generate_series(1, 1000) i",
        )
        self.run(mode)
        ((identity,),) = source.execute("SELECT 't'::regclass::oid::text")
        self.place = f"`{self.name}__cdc_rows`.`{identity}`"
        house.rows(
            f"CREATE TABLE `{self.name}_public`.late ENGINE = MergeTree ORDER BY id AS SELECT * FROM {self.place}"
        )
        execute(
            source,
            "DELETE FROM t WHERE id <= 800",
            "UPDATE t SET v = 'changed' WHERE id > 900",
            "INSERT INTO t VALUES (5, 'again', 'y', 1)",
        )
        self.run()

    def come_late(self) -> None:
        self.house.rows(f"INSERT INTO {self.place} SELECT * FROM `{self.name}_public`.late")

    def open(self) -> VersionedTarget:
        target = target_factory(self.target.removeprefix("clickhouse:"), TargetSettings("p", "postgresql", 1 << 28))()
        target.open()
        return target

    def clean(self, rounds: int = 2) -> None:
        target = self.open()
        try:
            for _ in range(rounds):
                while target.tidy():
                    pass
        finally:
            target.close()

    @property
    def deleted(self) -> int:
        ((count,),) = self.house.rows(f"SELECT count() FROM {self.place} FINAL WHERE _cdc_deleted")
        return int(count)

    def assert_same(self) -> None:
        theirs = self.rows(f"SELECT {_COLUMNS} FROM `{{}}public`.t")
        ours = self.ours(f"SELECT {_COLUMNS} FROM t")
        assert set(theirs) ^ set(ours) == set()
        assert len(theirs) == len(ours)


def test_what_comes_late(database: Database, house: PrivateClickHouse) -> None:
    """Older rows that arrive before are merged away first, and those that arrive afterwards are refused; also by a
    table that was written again or copied again since."""
    copy = Cleaned(database, house)
    copy.come_late()
    assert copy.deleted == 799
    copy.clean(rounds=1)
    copy.assert_same()
    assert copy.deleted == 799
    copy.clean()
    copy.assert_same()
    assert copy.deleted == 0
    for change in ("UPDATE t SET n = 3 WHERE id > 950", "ALTER TABLE t ALTER n TYPE bigint", None):
        if change is None:
            done = cdc("resync", database.dsn, copy.target, "--name", copy.name, "--tables", "public.t")
            assert done.returncode == 0, done.stdout + done.stderr
        else:
            execute(database, change)
        copy.run()
        with pytest.raises(DatabaseError, match="VIOLATED_CONSTRAINT") as refused:
            copy.come_late()
        copy.assert_same()
    server = Server.parse(copy.target.removeprefix("clickhouse:"))
    answer = meaning(refused.value, server)
    assert (type(answer), str(answer)) == (TargetBusy, str(busy(server)))
    copy.verify()


def test_an_insert_that_is_under_way(
    database: Database, house: PrivateClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is removed before everything has come that had begun when the table did not refuse it yet."""
    monkeypatch.setattr(cleanup, "_UNDER_WAY", 1.0)
    copy = Cleaned(database, house)
    target = copy.open()
    target.tidy()
    house.rows(f"ALTER TABLE {copy.place} DROP CONSTRAINT _cdc_floor")  # as an insert sees it that began before
    copy.come_late()
    target.tidy()
    assert copy.deleted == 799
    copy.assert_same()
    time.sleep(1)
    target.tidy()
    target.close()
    assert copy.deleted == 0
    copy.assert_same()


def test_a_table_that_cannot_be_merged(
    database: Database, house: PrivateClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deleted row stays where an older row of its key is in another part: the server says that it was stopped, or has
    merged nothing and does not say so, as where space is short."""
    copy = Cleaned(database, house)
    copy.come_late()
    house.rows(f"SYSTEM STOP MERGES {copy.place}")
    with pytest.raises(Unavailable):
        copy.clean()
    with monkeypatch.context() as without:
        without.setattr(ClickHouseStore, "merge", lambda *_: None)
        without.setattr(
            ClickHouseStore, "remove_deleted", lambda *_: pytest.fail("It removes them.")
        )  # which would wait
        copy.clean()
    assert copy.deleted == 799
    copy.assert_same()
    house.rows(f"SYSTEM START MERGES {copy.place}")
    copy.clean()
    assert copy.deleted == 0
    copy.assert_same()


def test_a_crash(database: Database, house: PrivateClickHouse) -> None:
    """At each step; changes go on before the next try."""
    copy = Cleaned(database, house)
    copy.come_late()
    for number, point in enumerate(["versioned.floor_kept", "versioned.merged", "versioned.removed"]):
        with faults.armed(f"{point}=raise"), pytest.raises(faults.FaultPassing):
            copy.clean()
        house.kill()
        house.start()
        copy.assert_same()
        execute(
            database,
            f"INSERT INTO t VALUES ({10 + number}, 'again', 'y', 1)",
            f"DELETE FROM t WHERE id IN ({9 + number}, {999 - number})",
        )
        copy.run()
        copy.assert_same()
    copy.clean()
    assert copy.deleted < 10  # too few for another round
    copy.assert_same()


def test_between_a_crash_and_what_is_applied_again(database: Database, house: PrivateClickHouse) -> None:
    """What lies beyond the checkpoint stays, by which it is known how far the changes came: the values that the log
    leaves out are looked up once only."""
    copy = Cleaned(database, house)
    execute(
        database,
        "DELETE FROM t WHERE id BETWEEN 801 AND 850",
        "UPDATE t SET id = -id WHERE id > 990",
        "UPDATE t SET n = 7 WHERE id BETWEEN 851 AND 900",
        "DELETE FROM t WHERE id = 900",
    )
    process = start("run", database.dsn, copy.target, "--name", copy.name, CDC_FAULT="target.before_checkpoint")
    assert process.wait(60) < 0
    before = copy.deleted
    assert before > 799
    copy.clean()
    assert copy.deleted == before - 799
    copy.run()
    copy.assert_same()
    copy.verify()


def test_deleted_rows_that_are_shown(database: Database, house: PrivateClickHouse) -> None:
    """A-41: nothing is removed where deleted rows can be read."""
    copy = Cleaned(database, house, Mode.SOFT_DELETE)
    copy.clean()
    assert copy.deleted == 799


def test_while_there_is_nothing_to_apply(
    database: Database, house: PrivateClickHouse, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipeline does it by itself, and says so."""
    monkeypatch.setattr(tidying, "_EVERY", 0.2)
    copy = Cleaned(database, house)
    pipeline = open_pipeline(database.dsn, copy.target, Options(copy.name))

    def wait(run: Thread) -> None:
        until = time.monotonic() + 30
        while copy.deleted and run.is_alive() and time.monotonic() < until:
            time.sleep(0.1)
        execute(database, "DELETE FROM t WHERE id = 5", "UPDATE t SET n = 9 WHERE id = 950")

    with caplog.at_level("INFO"):
        pipeline.run_beside(wait)
    assert "public.t: 799 deleted rows were removed" in caplog.text
    copy.run()
    assert copy.deleted == 1
    copy.assert_same()
