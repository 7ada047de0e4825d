"""Who waits for good reasons is not taken for hung; what hangs is in test_faults.py."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psycopg
import pytest

from integration.conftest import Database, Replica, make_replica
from integration.processes import Process
from integration.test_kill import start

STALL_TIMEOUT = 4.0


@pytest.fixture
def one_table(database: Database, tmp_path: Path) -> Replica:
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    return make_replica(database, tmp_path)


def run(replica: Replica) -> Process:
    return start(replica, "", "--stall-timeout", f"{STALL_TIMEOUT}s")


def said_by(process: Process, words: str) -> str:
    """What a process says up to the line with those words."""
    assert process.stderr is not None
    said = ""
    while words not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


def test_a_slot_that_waits_for_an_open_transaction(database: Database, one_table: Replica) -> None:
    """E-01, A-10, D-18: for as long as the server says that it does; asked to end meanwhile, it leaves nothing behind."""
    with psycopg.connect(database.dsn) as pin:
        pin.execute("INSERT INTO t VALUES (2)")
        process = run(one_table)
        said_by(process, "waits for transactions that are open")
        time.sleep(1.5 * STALL_TIMEOUT)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 0, said
        slots = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
        assert database.execute(slots) == []
        pin.commit()
    one_table.catch_up()
    one_table.assert_equal()


def test_a_process_that_was_stopped_goes_on(database: Database, one_table: Replica) -> None:
    """E-01: as when a machine sleeps; what passes meanwhile is not held against its threads."""
    process = run(one_table)
    said_by(process, "phase=streaming")
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.5 * STALL_TIMEOUT)
    process.send_signal(signal.SIGCONT)
    time.sleep(STALL_TIMEOUT / 2)
    assert process.poll() is None
    database.execute("INSERT INTO t VALUES (2)")
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    assert "has not moved on" not in said
    one_table.catch_up()
    one_table.assert_equal()
