"""A replica takes the place of its primary: the pipeline goes on there, exactly, or waits until it can."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pymysql
import pytest

from cdc.demo.mysql import PrivateMySql
from cdc.demo.mysql_shop import Workload
from cdc.engine.pipeline import Pipeline
from cdc.errors import CdcError, SourceBehind, SourceChanged
from cdc.options import Options
from cdc.runs import open_pipeline
from integration.conftest import MySqlDatabase, Replica, make_replica
from integration.mysql_work import make_tables, start_work
from integration.proxy import FaultProxy
from integration.test_mysql_hazards import FLAVORS, replicate, wait_for

DATABASE = "own"


@dataclass
class Pair:
    """A primary, its replica, and an address that leads to one of them."""

    primary: PrivateMySql
    replica: PrivateMySql
    address: FaultProxy

    @property
    def dsn(self) -> str:
        return self.primary.dsn(DATABASE).replace(str(self.primary.port), str(self.address.port))

    def of(self, server: PrivateMySql) -> MySqlDatabase:
        return MySqlDatabase(server, DATABASE)

    def words(self, statement: str) -> str:
        """A statement of replication as this server has it."""
        return statement.replace("REPLICA", "SLAVE") if self.primary.flavor == "mariadb" else statement

    def has_caught_up(self) -> bool:
        with suppress(pymysql.MySQLError):  # the database or a table has not come yet
            return everything(self.of(self.replica)) == everything(self.of(self.primary))
        return False

    def promote(self) -> None:
        """The primary is gone for good; the replica applies what it has got of it, and is a primary from now on."""
        self.primary.stop(signal.SIGKILL)
        wait_for(self._has_applied)
        self.replica.execute(self.words("STOP REPLICA"), self.words("RESET REPLICA ALL"))

    def _has_applied(self) -> bool:
        with self.replica.connect() as connection, connection.cursor(pymysql.cursors.DictCursor) as cursor:
            cursor.execute(self.words("SHOW REPLICA STATUS"))
            (said,) = cursor.fetchall()
        places = ("Exec_Master_Log_Pos", "Read_Master_Log_Pos")
        if self.primary.flavor == "mysql":
            places = ("Exec_Source_Log_Pos", "Read_Source_Log_Pos")
        return bool(said[places[0]] == said[places[1]])


@pytest.fixture(params=FLAVORS)
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setattr("cdc.engine.pipeline._LONGEST_WAIT", 0.5)
    more = {"log-slave-updates": "ON"} if request.param == "mariadb" else {}
    standby = {"server-id": "2", **more}
    with PrivateMySql(request.param) as primary, PrivateMySql(request.param, standby, primary.password) as replica:
        replicate(primary, replica)
        primary.create_database(DATABASE)
        with FaultProxy(primary.port) as address:
            yield Pair(primary, replica, address)


def everything(database: MySqlDatabase) -> dict[str, list[tuple[object, ...]]]:
    """All rows of the work's tables, in some order of theirs."""
    return {
        "accounts": database.execute("SELECT id, balance, note, changed FROM accounts ORDER BY id"),
        "entries": database.execute("SELECT a, b, v FROM entries ORDER BY CAST(a AS BINARY), b"),
        "notes": database.execute("SELECT n, CAST(v AS BINARY) FROM notes ORDER BY 1, 2"),
    }


def copied(replica: Replica) -> dict[str, list[tuple[object, ...]]]:
    """The same of a target."""
    return {
        "accounts": replica.query("SELECT id, balance, note, timezone('UTC', changed) FROM accounts ORDER BY id"),
        "entries": replica.query("SELECT a, b, v FROM entries ORDER BY encode(a), b"),
        "notes": replica.query("SELECT n, encode(v) FROM notes ORDER BY 1 NULLS FIRST, 2 NULLS FIRST"),
    }


@contextmanager
def following(pair: Pair, replica: Replica) -> Iterator[tuple[Pipeline, list[CdcError]]]:
    """A pipeline that follows the address."""
    options = Options(name=replica.options.name, selection=replica.options.selection)
    pipeline = open_pipeline(pair.dsn, replica.target, options)
    failures: list[CdcError] = []

    def body() -> None:
        try:
            pipeline.run()
        except CdcError as error:
            failures.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    try:
        yield pipeline, failures
    finally:
        pipeline.stop()
        thread.join()


def end(work: Workload) -> None:
    """A primary that is killed ends the work at it."""
    with suppress(pymysql.MySQLError, OSError):
        work.stop()


def test_promotion_under_load(pair: Pair, tmp_path: Path) -> None:
    """B-03, B-04, B-06, M24: the primary is killed while it is written to and followed; what the replica has got of it goes on
    being written to there, and the pipeline goes on by itself when the address moves."""
    make_tables(pair.of(pair.primary), 500)
    wait_for(pair.has_caught_up)
    replica = make_replica(pair.of(pair.primary), tmp_path)
    with following(pair, replica) as (pipeline, failures):
        work = start_work(pair.of(pair.primary), seed=1)
        wait_for(lambda: pipeline.view().phase == "streaming" and pipeline.view().transactions_applied > 50)
        # The pipeline must not have what dies with the primary, so that it is cut off first; the work goes on.
        pair.address.refuse()
        pair.address.cut()
        before = work.transactions
        wait_for(lambda: work.transactions > before + 50)
        durable = pipeline.view().durable
        assert durable is not None
        wait_for(lambda: has(pair.replica, durable.text))
        pair.promote()
        end(work)
        pair.address.lead_to(pair.replica.port)
        pair.address.listen()
        work = start_work(pair.of(pair.replica), seed=2)
        applied = pipeline.view().transactions_applied
        wait_for(lambda: pipeline.view().transactions_applied > applied + 100 or bool(failures))
        work.stop()
        assert failures == []
    replica.database = pair.of(pair.replica)
    replica.catch_up()
    replica.assert_equal()
    assert copied(replica) == everything(pair.of(pair.replica))


def has(server: PrivateMySql, gtids: str) -> bool:
    """Whether a server has applied everything up to a position."""
    if server.flavor == "mysql":
        return server.execute(f"SELECT GTID_SUBSET('{gtids}', @@global.gtid_executed)") == [(1,)]
    return server.execute(f"SELECT MASTER_GTID_WAIT('{gtids}', 0.05)") == [(0,)]


def test_a_replica_that_is_behind(pair: Pair, tmp_path: Path) -> None:
    """B-04, M24: it says that it waits, is red, and goes on by itself once the replica has caught up; never does it say that
    anything has to be removed. So does a run that begins meanwhile."""
    make_tables(pair.of(pair.primary), 50)
    wait_for(pair.has_caught_up)
    pair.replica.execute(pair.words("STOP REPLICA"))
    replica = make_replica(pair.of(pair.primary), tmp_path)
    pair.primary.execute(f"INSERT INTO {DATABASE}.notes VALUES (1, 'the replica lacks this')")
    replica.catch_up()
    replica.database = pair.of(pair.replica)
    with pytest.raises(SourceBehind) as caught:  # with --until-caught-up
        replica.catch_up()
    assert "remove" not in f"{caught.value} {caught.value.hint}"
    pair.address.lead_to(pair.replica.port)
    with following(pair, replica) as (pipeline, failures):
        wait_for(lambda: "does not have" in (pipeline.view().failure or ""))
        assert pipeline.view().is_red
        pair.primary.execute(f"INSERT INTO {DATABASE}.notes VALUES (2, 'nor this')")
        pair.replica.execute(pair.words("START REPLICA"))
        wait_for(lambda: pipeline.view().phase == "streaming")
        wait_for(lambda: not pipeline.view().is_red)
        assert failures == []
    wait_for(pair.has_caught_up)
    replica.catch_up()
    replica.assert_equal()
    assert copied(replica) == everything(pair.of(pair.primary))


def test_a_replica_with_another_history(pair: Pair, tmp_path: Path) -> None:
    """B-04, M24: one that has lost what the target has, and has gone on, never gets it: it is refused, at once."""
    make_tables(pair.of(pair.primary), 50)
    wait_for(pair.has_caught_up)
    pair.replica.execute(pair.words("STOP REPLICA"))
    replica = make_replica(pair.of(pair.primary), tmp_path)
    pair.primary.execute(f"INSERT INTO {DATABASE}.notes VALUES (1, 'lost with the primary')")
    replica.catch_up()
    pair.promote()
    for number in range(3):
        pair.replica.execute(f"INSERT INTO {DATABASE}.notes VALUES ({number}, 'new')")
    replica.database = pair.of(pair.replica)
    kind = SourceChanged if pair.primary.flavor == "mariadb" else SourceBehind  # of MySQL's sets nothing tells which
    with pytest.raises(kind, match="does not have"):
        replica.catch_up()
    assert replica.query("SELECT count(*) FROM notes") == [(1,)]
