"""The servers of a long run, each with its way to lose a connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import psycopg
import pymysql

from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres

SOURCES = ("postgresql", "mysql", "mariadb")


class Live(Protocol):
    """A server with a database of its own for the run."""

    flavor: str
    dsn: str

    def connect(self) -> Any:
        """A session in that database, that commits each statement."""

    def cut(self) -> None:
        """Take the connection that reads the log away."""

    def restart(self) -> None:
        """Restart the server; there is no work meanwhile."""

    def size_mb(self) -> float:
        """What the tables take there."""

    def retained_mb(self) -> float | None:
        """Log that is kept for the pipeline; None where the server keeps none for anybody, or does not answer."""


class Postgres:
    flavor = "postgresql"

    def __init__(self, server: PrivatePostgres) -> None:
        self._server = server
        self.dsn = server.create_database("soak")

    def connect(self) -> Any:
        return psycopg.connect(self.dsn, autocommit=True)

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

    def connect(self) -> Any:
        # With fewer locks between rows, which neighbours wait for.
        isolation = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
        return pymysql.connect(**self._server.arguments("soak"), init_command=isolation)

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
