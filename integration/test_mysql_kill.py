"""kill -9 at any moment, over MySQL and MariaDB: the process comes back, and both sides are equal."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from integration.conftest import MySqlDatabase, make_replica
from integration.mysql_work import make_tables, start_work
from integration.test_kill import start
from tests.seeds import chosen_at_random

ROUNDS = int(os.environ.get("CDC_KILL_ROUNDS", "4"))


def test_kill_at_random_moments(my: MySqlDatabase, tmp_path: Path) -> None:
    """B-10, C-04, C-05, D-01, D-19: rounds under load, the first of them while the tables are copied."""
    make_tables(my)
    replica = make_replica(my, tmp_path)
    rng = chosen_at_random()
    for number in range(ROUNDS):
        work = start_work(my, number + 1)
        process = start(replica)
        time.sleep(rng.uniform(0.05, 1.2))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"round {number} ended by itself: {process.stderr.read()!r}"  # type: ignore[union-attr]
        work.stop()
        replica.catch_up()
        replica.assert_equal()


def test_kill_inside_a_transaction_in_parts(my: MySqlDatabase, tmp_path: Path) -> None:
    """B-10, D-12: half of a transaction that spans segments never becomes visible."""
    make_tables(my, 1000)
    my.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    replica = make_replica(my, tmp_path)
    replica.catch_up()
    my.execute("INSERT INTO t SELECT a.id * 100 + b.id, REPEAT('x', 100) FROM accounts a JOIN accounts b ON b.id < 100")
    for nth in (1, 2, 5):
        process = start(replica, f"stream.segment:{nth}", "--segment", "1MB")
        assert process.wait(60) == -signal.SIGKILL
        assert replica.query("SELECT count(*) FROM t") == [(0,)]
    replica.catch_up()
    replica.assert_equal()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_end(my: MySqlDatabase, tmp_path: Path, number: signal.Signals) -> None:
    """D-18: ends with 0, soon, and goes on where it was."""
    make_tables(my)
    replica = make_replica(my, tmp_path)
    work = start_work(my, 1)
    for pause in (0.3, 1.0):
        process = start(replica)
        assert process.stderr is not None
        while "phase=" not in process.stderr.readline():  # what comes before is about the password in the DSN
            pass
        time.sleep(pause)
        process.send_signal(number)
        said = process.communicate(timeout=20)[1]
        assert process.returncode == 0, said
    work.stop()
    replica.catch_up()
    replica.assert_equal()
