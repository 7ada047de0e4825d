"""C-10: locks of a copy and of a look, when the process that took them is not heard of any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cdc.errors import Unavailable
from cdc.runs import open_pipeline
from cdc.sources.mysql import copy, source
from cdc.sources.mysql.connection import Connection, Dsn
from cdc.sources.mysql.copy import Snapshot
from cdc.sources.mysql.observer import MySqlObserver
from cdc.targets.duckdb import read_checkpoint
from integration.conftest import MySqlDatabase, make_replica
from integration.line import Running


def test_a_process_that_stands_still_lets_others_write(
    my: MySqlDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """C-10, B-12: stopped or cut off in the moment in which nobody may write: the server takes the lock back."""
    monkeypatch.setattr(copy, "_TRIES", 0)  # MariaDB needs a lock only if its sessions see different states
    monkeypatch.setattr(copy, "_LOCKED_FOR", 2)
    is_locked, go_on = threading.Event(), threading.Event()
    begin_session = Snapshot.begin_session

    def late(session: Connection) -> None:
        is_locked.set()
        assert go_on.wait(60)
        begin_session(session)

    monkeypatch.setattr(Snapshot, "begin_session", staticmethod(late))
    my.execute("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    replica = make_replica(my, tmp_path)
    running = Running.start(open_pipeline(my.dsn, replica.target, replica.options))
    assert is_locked.wait(60)
    begun = time.monotonic()
    my.execute("INSERT INTO t VALUES (2)")
    assert 1 < time.monotonic() - begun < 20
    go_on.set()
    running.thread.join(60)
    assert not running.thread.is_alive()
    assert running.failures == []
    assert "Trying again" in caplog.text
    replica.assert_equal()


def test_a_table_without_transactions_whose_lock_is_lost(
    my: MySqlDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """C-10, D-05: what was written to it behind our back is in the copy and in the log: the copy is begun again."""
    my.execute("CREATE TABLE m (a int, v text) ENGINE = MyISAM", "INSERT INTO m VALUES (1, 'x'), (1, 'x'), (2, 'y')")
    replica = make_replica(my, tmp_path)
    select_rows = source.select_rows

    def select_late(*arguments: Any, **named: Any) -> Iterator[Any]:
        if "Trying again" not in caplog.text:
            time.sleep(3)
            my.execute("INSERT INTO m VALUES (1, 'x')")
        yield from select_rows(*arguments, **named)

    monkeypatch.setattr(source, "_LOCKED_FOR", 1)
    monkeypatch.setattr(source, "select_rows", select_late)
    replica.catch_up()
    assert "Trying again" in caplog.text
    replica.assert_equal()
    my.execute("DELETE FROM m WHERE a = 1 LIMIT 1", "INSERT INTO m VALUES (1, 'x')")
    replica.catch_up()
    replica.assert_equal()


def test_a_look_at_several_tables_ends_nobodys_transaction(on_mysql: MySqlDatabase, tmp_path: Path) -> None:
    """C-10: a lock of table after table is one that the server breaks by ending a transaction of the application."""
    on_mysql.execute(
        "CREATE TABLE a (id int PRIMARY KEY, v int)",
        "CREATE TABLE b (id int PRIMARY KEY, v int)",
        "INSERT INTO a VALUES (1, 0)",
        "INSERT INTO b VALUES (1, 0)",
    )
    observer = MySqlObserver(Dsn.parse(on_mysql.dsn), "looks")
    replica = make_replica(on_mysql, tmp_path)
    replica.catch_up()
    checkpoint = read_checkpoint(str(replica.path), replica.options.name)
    assert checkpoint is not None
    schemas = observer.followed(checkpoint.state)
    assert len(schemas) == 2
    looks: list[object] = []

    def look() -> None:
        for _ in range(20):
            with suppress(Unavailable), observer.look(*schemas, exact=True) as found:
                looks.append(found.place)

    thread = threading.Thread(target=look)
    with on_mysql.connect() as application, application.cursor() as cursor:
        thread.start()
        while thread.is_alive():
            cursor.execute("BEGIN")
            cursor.execute("UPDATE b SET v = v + 1")
            time.sleep(0.05)
            cursor.execute("UPDATE a SET v = v + 1")
            cursor.execute("COMMIT")
    thread.join()
    observer.close()
    assert looks
    assert on_mysql.server.execute(f"SELECT count(*) FROM {on_mysql.name}.a JOIN {on_mysql.name}.b USING (id, v)") == [
        (1,)
    ]
