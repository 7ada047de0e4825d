"""The servers of a long run, each with its workload and its way to lose a connection."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import psycopg

from cdc.demo import mysql_shop, shop
from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres

SOURCES = ("postgresql", "mysql", "mariadb")
_EXTRA = "CREATE TABLE {}extra (id int PRIMARY KEY, n int, v varchar(40), long_text text)"


class Live(Protocol):
    """A server with a workload."""

    flavor: str
    dsn: str

    def begin(self, rate: float, seed: int) -> None:
        """Start the work."""

    def end(self) -> tuple[int, int]:
        """Stop the work; how many transactions and row changes it was, about."""

    def cut(self) -> None:
        """Take the connection that reads the log away."""

    def restart(self) -> None:
        """Restart the server; there is no work meanwhile."""

    def size_mb(self) -> float:
        """What the tables take there."""

    def retained_mb(self) -> float | None:
        """Log that is kept for the pipeline, where the server says so."""


class Extra:
    """What the shops do not do: truncates, changes of the table, savepoints, keys that change places, now and then."""

    def __init__(self, connect: Callable[[], Any], prefix: str, seed: int) -> None:
        self.transactions = 0
        self._connect, self._table, self._rng = connect, f"{prefix}extra", random.Random(seed)
        self._columns = seed * 100
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="extra", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            with self._connect() as connection, connection.cursor() as cursor:
                while not self._stop.wait(0.1):
                    for statement in self._act():
                        cursor.execute(statement)
                    self.transactions += 1
        except BaseException as error:
            self._failure = error

    def _act(self) -> list[str]:
        table, rng, key = self._table, self._rng, self._rng.randrange(200)
        row = f"INSERT INTO {table} (id, n, v, long_text) VALUES ({{}}, {key}, 'né', REPEAT('{key}', 2000))"
        self._columns += 1
        acts: list[tuple[list[str], int]] = [
            ([f"DELETE FROM {table} WHERE id = {key}", row.format(key)], 20),
            ([f"UPDATE {table} SET n = n + 1 WHERE id < {key}"], 20),
            (["SAVEPOINT s", f"DELETE FROM {table}", "ROLLBACK TO SAVEPOINT s", f"UPDATE {table} SET n = 0 WHERE id = {key}"], 6),
            ([f"DELETE FROM {table} WHERE id = {key + 1000}", f"UPDATE {table} SET id = id + 1000 WHERE id = {key}", row.format(key)], 6),
        ]  # fmt: skip
        alone = [
            ([f"TRUNCATE TABLE {table}"], 1),
            ([f"ALTER TABLE {table} ADD COLUMN c{self._columns} int"], 1),
        ]
        choices = [*acts, *alone]
        (chosen,) = rng.choices([c for c, _ in choices], [w for _, w in choices])
        if chosen in [c for c, _ in alone]:
            return chosen
        return ["BEGIN", *chosen, "COMMIT"]


class Postgres:
    flavor = "postgresql"

    def __init__(self, server: PrivatePostgres) -> None:
        self._server = server
        self.dsn = server.create_database("soak")
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            shop.create(connection)
            connection.execute(_EXTRA.format("shop.").encode())
            connection.execute("ALTER TABLE shop.extra ALTER long_text SET STORAGE EXTERNAL")

    def begin(self, rate: float, seed: int) -> None:
        self._work = shop.Workload(self.dsn, rate, seed)
        self._extra = Extra(lambda: psycopg.connect(self.dsn, autocommit=True), "shop.", seed)
        self._work.start()

    def end(self) -> tuple[int, int]:
        self._work.stop()
        self._extra.stop()
        return self._work.transactions + self._extra.transactions, self._work.changes

    def cut(self) -> None:
        self._server.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")

    def restart(self) -> None:
        self._server.restart()

    def size_mb(self) -> float:
        (size,) = self._server.execute("SELECT sum(pg_table_size(relid)) / 1e6 FROM pg_stat_user_tables", "soak")[0]
        return float(str(size))

    def retained_mb(self) -> float | None:
        found: list[tuple[Any, ...]] = []
        with suppress(psycopg.Error):
            found = self._server.execute(
                "SELECT (pg_current_wal_lsn() - restart_lsn) / 1e6 FROM pg_replication_slots WHERE slot_name = 'cdc_soak'"
            )
        return float(found[0][0]) if found else None


class MySql:
    def __init__(self, server: PrivateMySql) -> None:
        self._server, self.flavor = server, server.flavor
        self.dsn = server.create_database("soak")
        with server.connect("soak") as connection:
            mysql_shop.create(connection)
        server.execute(_EXTRA.format(""), database="soak")

    def begin(self, rate: float, seed: int) -> None:
        self._work = mysql_shop.Workload(self._server.arguments("soak"), rate, seed)
        self._extra = Extra(lambda: self._server.connect("soak"), "", seed)
        self._work.start()

    def end(self) -> tuple[int, int]:
        self._work.stop()
        self._extra.stop()
        return self._work.transactions + self._extra.transactions, self._work.changes

    def cut(self) -> None:
        for number, *_ in self._server.execute(
            "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"
        ):
            self._server.execute(f"KILL {number}")

    def restart(self) -> None:
        self._server.restart()

    def size_mb(self) -> float:
        query = "SELECT SUM(data_length) / 1e6 FROM information_schema.tables WHERE table_schema = 'soak'"
        return float(self._server.execute(query)[0][0])

    def retained_mb(self) -> float | None:
        return None


@contextmanager
def open_source(flavor: str) -> Iterator[Live]:
    """Start a private server."""
    if flavor == "postgresql":
        with PrivatePostgres(18) as postgres:
            yield Postgres(postgres)
    else:
        with PrivateMySql(flavor) as mysql:
            yield MySql(mysql)
