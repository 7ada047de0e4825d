"""Standbys, from cold copies of a server's folder, and a writer that commits all the time."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg

from cdc.demo.server import PrivatePostgres


def wait_for(check: Callable[[], object], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


class Copy(PrivatePostgres):
    """A server from a copy of another one's folder; that one must stand still while the copy is made.

    Args:
        original: the server that is copied, with its slots.
        follows: it is a standby that gets the log from there; by itself it is only one that waits to be promoted.
    """

    def __init__(
        self, original: PrivatePostgres, *, follows: bool = False, settings: dict[str, str] | None = None
    ) -> None:
        super().__init__(password=original.password)
        self.binaries, self._original, self._follows = original.binaries, original, follows
        self._more = settings or {}
        self.slot = f"standby_{self.port}"

    def create(self) -> None:
        atexit.register(self.close)
        shutil.copytree(self._original.data, self.data, symlinks=True)
        (self.data / "standby.signal").touch()
        settings = {"unix_socket_directories": str(self.folder), **self._more}
        if self._follows:
            shutil.rmtree(self.data / "pg_replslot")
            (self.data / "pg_replslot").mkdir()
            settings["primary_conninfo"] = (
                f"host=127.0.0.1 port={self._original.port} user=postgres dbname=postgres password={self.password}"
            )
            settings["primary_slot_name"] = self.slot
            settings["hot_standby_feedback"] = "on"
        with (self.data / "postgresql.conf").open("a") as configuration:
            configuration.write("".join(f"{name} = '{value}'\n" for name, value in settings.items()))
        if self._user is not None:
            for folder, _, files in os.walk(self.folder):
                os.chown(folder, self._user, self._user)
                for file in files:
                    os.chown(Path(folder) / file, self._user, self._user, follow_symlinks=False)
        (self.data).chmod(0o700)

    def promote(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-w", "promote")

    def has_all_of(self, other: PrivatePostgres) -> bool:
        (written,) = other.execute("SELECT pg_current_wal_lsn()::text")[0]
        return self.execute(f"SELECT pg_last_wal_replay_lsn() >= '{written}'") == [(True,)]

    def cut_off(self) -> None:
        """It gets no more of the log."""
        self.execute("ALTER SYSTEM SET primary_conninfo = ''")
        self.execute("SELECT pg_reload_conf()")
        wait_for(lambda: self.execute("SELECT 1 FROM pg_stat_wal_receiver") == [])


def copy_of(original: PrivatePostgres, *, follows: bool = False, settings: dict[str, str] | None = None) -> Copy:
    """A copy that has been started; the original stands still for a moment."""
    made = Copy(original, follows=follows, settings=settings)
    if follows:
        original.execute(f"SELECT pg_create_physical_replication_slot('{made.slot}', true)")
    original.stop()
    made.create()
    original.start()
    made.start()
    return made


def kill(server: PrivatePostgres) -> None:
    """kill -9 of the postmaster; its children end by themselves."""
    server.stop(signal.SIGKILL)
    time.sleep(0.3)


class Writer:
    """Commits one row after the other in table t, and goes on at whichever server lets it."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.committed = 0

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            with suppress(psycopg.Error), psycopg.connect(self._dsn, autocommit=True, connect_timeout=2) as session:
                while not self._stop.is_set():
                    session.execute("INSERT INTO t (v) VALUES (md5(random()::text))")
                    session.execute("UPDATE t SET v = v || '+' WHERE id = (SELECT max(id) / 2 FROM t)")
                    session.execute("DELETE FROM t WHERE id = (SELECT max(id) / 3 FROM t)")
                    self.committed += 3
            time.sleep(0.1)
