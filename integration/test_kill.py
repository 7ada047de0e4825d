"""kill -9 at any moment: the process comes back, and both sides are equal. Nothing lost, nothing twice."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psycopg
import pytest

from cdc.demo.shop import Workload, create
from cdc.errors import TablesHeld
from integration import processes
from integration.conftest import Database, Replica, make_replica
from integration.processes import Process
from tests.seeds import chosen_at_random

ROUNDS = int(os.environ.get("CDC_KILL_ROUNDS", "6"))


def start(replica: Replica, fault: str = "", *arguments: str) -> Process:
    """`cdc run` as a process of its own."""
    ends = (replica.database.dsn, replica.target, "--name", replica.options.name)
    return processes.start("run", *ends, *arguments, CDC_FAULT=fault)


def make_shop(database: Database, customers: int = 2000) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        create(connection, customers=customers)


def test_kill_at_random_moments(database: Database, tmp_path: Path) -> None:
    """C-04, C-05, D-01, D-18, D-19, A-64: rounds under load, the first of them while the shop is copied."""
    make_shop(database)
    replica = make_replica(database, tmp_path)
    rng = chosen_at_random()
    for number in range(ROUNDS):
        workload = Workload(database.dsn, rate=1000, seed=number + 1)
        workload.start()
        process = start(replica)
        time.sleep(rng.uniform(0.05, 1.2))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"round {number} ended by itself: {process.stderr.read()!r}"  # type: ignore[union-attr]
        workload.stop()
        replica.catch_up()
        replica.assert_equal()


def test_kill_inside_a_transaction_in_parts(database: Database, tmp_path: Path) -> None:
    """A-63, A-64, D-12: half of a transaction that spans segments never becomes visible."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    replica = make_replica(database, tmp_path)
    replica.catch_up()
    database.execute("INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 100000) i")
    for nth in (1, 2, 5):
        process = start(replica, f"stream.segment:{nth}", "--segment", "1MB")
        assert process.wait(60) == -signal.SIGKILL
        assert replica.query("SELECT count(*) FROM t") == [(0,)]
    replica.catch_up()
    replica.assert_equal()


def test_a_table_that_goes_before_its_copy_goes_on(database: Database, tmp_path: Path) -> None:
    """C-04: the copy was cut off before any row; a table that was changed and then dropped, or lost its key, is not
    copied again, and what the log has of it means nothing."""
    for table in ("stays", "dropped", "keyless"):
        database.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v int); INSERT INTO {table} VALUES (1, 1), (2, 2)")
    replica = make_replica(database, tmp_path)
    assert start(replica, "target.after_commit:2").wait(60) == -signal.SIGKILL
    for table in ("stays", "dropped", "keyless"):
        database.execute(f"UPDATE {table} SET v = 3")
    database.execute("DROP TABLE dropped; ALTER TABLE keyless DROP CONSTRAINT keyless_pkey")
    with pytest.raises(TablesHeld, match=r"public\.keyless"):
        replica.catch_up()
    assert [str(found.table) for found in replica.compare() if found.equal] == ["public.stays"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_end(database: Database, tmp_path: Path, number: signal.Signals) -> None:
    """D-18: ends with 0, soon, and goes on where it was."""
    make_shop(database)
    replica = make_replica(database, tmp_path)
    workload = Workload(database.dsn, rate=1000)
    workload.start()
    for pause in (0.0, 0.3, 1.0):
        process = start(replica)
        assert process.stderr is not None
        process.stderr.readline()  # it has begun; before that, the interpreter's own way of ending is all there is
        time.sleep(pause)
        process.send_signal(number)
        said = process.communicate(timeout=20)[1]
        assert process.returncode == 0, said
    workload.stop()
    replica.catch_up()
    replica.assert_equal()
