"""Who drains a backlog: cdc into each kind of target, and PostgreSQL's own subscription."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psycopg

from cdc.demo.server import PrivatePostgres
from integration.benchmarks.measure import Took, process_cpu, run, server_cpu
from integration.benchmarks.slots import kept_slot, take_recvlogical
from integration.clickhouse import PrivateClickHouse
from integration.other_duckdb import OtherDuckDb

_LOOK_EVERY = 0.01  # seconds


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is drained.

    Attributes:
        name: of the database and the benchmark.
        rows: that change.
        last: true, on a copy of the tables, once all of it is there.
    """

    server: PrivatePostgres
    name: str
    rows: int
    last: str

    @property
    def dsn(self) -> str:
        return self.server.dsn(self.name)


class Contender(Protocol):
    """Drains a backlog as often as it is asked to, each time from the same place."""

    title: str
    goal: float | None  # the ratio that is to be reached

    def begin(self, backlog: Backlog) -> None:
        """Copy what is there before the backlog is."""

    def take(self, *, is_idle: bool) -> Took:
        """Drain all of it; whether there is nothing to drain yet."""

    def end(self) -> None:
        """Let the server forget what it has kept for this."""


class Recvlogical:
    """The server's own tool, which keeps nothing, beside cdc into DuckDB: from a copy of its slot."""

    title = "pg_recvlogical -f /dev/null"
    goal = None

    def __init__(self) -> None:
        self._backlog: Backlog

    def begin(self, backlog: Backlog) -> None:
        self._backlog = backlog

    def take(self, *, is_idle: bool) -> Took:
        return take_recvlogical(self._backlog.server, self._backlog.name, f"cdc_{self._backlog.name}_duckdb")

    def end(self) -> None:
        """Nothing is left."""


class IntoFolder:
    """cdc into a target that is files in one folder, which is put back each time.

    Args:
        kind: of the target.
        other: the DuckDB that does it, if it is another one than the installed.
    """

    def __init__(
        self, title: str, kind: str, folder: Path, goal: float | None, other: OtherDuckDb | None = None
    ) -> None:
        self.title, self.goal = title, goal
        self._kind = kind
        self._now, self._base = folder / kind, folder / f"{kind}.base"
        self._environment = other.environment if other is not None else None
        self._backlog: Backlog

    @property
    def _name(self) -> str:
        return f"{self._backlog.name}_{self._kind}"

    @property
    def _slot(self) -> str:
        return f"cdc_{self._name}"

    def begin(self, backlog: Backlog) -> None:
        self._backlog = backlog
        self._now.mkdir()
        self._run()
        shutil.copytree(self._now, self._base)

    def take(self, *, is_idle: bool) -> Took:
        shutil.rmtree(self._now)
        shutil.copytree(self._base, self._now)
        with kept_slot(self._backlog.server, self._backlog.name, self._slot):
            return self._run()

    def copy(self, backlog: Backlog, *, is_idle: bool) -> Took:
        """Copy what is there into a new target, which goes again."""
        self._backlog = backlog
        self._now.mkdir()
        took = self._run()
        self.end()
        return took

    def end(self) -> None:
        _drop_slot(self._backlog.server, self._name)
        self._backlog.server.execute(f"DROP PUBLICATION IF EXISTS {self._slot}", self._backlog.name)
        for folder in (self._now, self._base):
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self) -> Took:
        target = f"{self._kind}:{self._now / 'copy'}"
        return run(_command(self._backlog, target, self._name), self._environment)


class IntoPostgres:
    """cdc into another PostgreSQL server, whose database is made again each time."""

    title = "cdc into PostgreSQL"

    def __init__(self, copies: PrivatePostgres, goal: float) -> None:
        self.copies, self.goal = copies, goal
        self.base = "base"
        self._backlog: Backlog

    @property
    def _name(self) -> str:
        return f"{self._backlog.name}_postgres"

    def begin(self, backlog: Backlog) -> None:
        self._backlog = backlog
        run(_command(backlog, self.copies.create_database(self.base), self._name))

    def take(self, *, is_idle: bool) -> Took:
        target = copied(self.copies, self.base, "copy")
        with kept_slot(self._backlog.server, self._backlog.name, f"cdc_{self._name}"):
            before = server_cpu(self.copies)
            took = run(_command(self._backlog, target, self._name))
        return took.with_server(server_cpu(self.copies) - before)

    def end(self) -> None:
        _drop_slot(self._backlog.server, self._name)


class IntoClickHouse:
    """cdc into ClickHouse's engine behind HTTP, whose folder is put back each time."""

    title = "cdc into ClickHouse"

    def __init__(self, house: PrivateClickHouse, goal: float) -> None:
        self.goal = goal
        self._house = house
        self._base = house.folder.with_name(f"{house.folder.name}.base")
        self._backlog: Backlog

    @property
    def _name(self) -> str:
        return f"{self._backlog.name}_clickhouse"

    def begin(self, backlog: Backlog) -> None:
        self._backlog = backlog
        self._run()
        self._house.kill()
        shutil.copytree(self._house.folder, self._base, symlinks=True)
        self._house.start()

    def take(self, *, is_idle: bool) -> Took:
        self._house.kill()
        shutil.rmtree(self._house.folder)
        shutil.copytree(self._base, self._house.folder, symlinks=True)
        self._house.start()
        with kept_slot(self._backlog.server, self._backlog.name, f"cdc_{self._name}"):
            before = process_cpu(self._house.process)
            took = self._run()
        return took.with_server(process_cpu(self._house.process) - before)

    def end(self) -> None:
        _drop_slot(self._backlog.server, self._name)
        shutil.rmtree(self._base)

    def _run(self) -> Took:
        return run(_command(self._backlog, self._house.dsn(self._name), self._name))


class Subscription:
    """The server's own replication, into the same server and from the same state, with a primary key, which it needs."""

    title = "PostgreSQL's subscription"
    goal = None

    def __init__(self, beside: IntoPostgres) -> None:
        self._copies, self._base = beside.copies, beside.base
        self._backlog: Backlog

    def begin(self, backlog: Backlog) -> None:
        self._backlog = backlog
        copied(self._copies, self._base, "subscribed")
        self._copies.execute("ALTER TABLE public.t ADD PRIMARY KEY (id)", "subscribed")

    def take(self, *, is_idle: bool) -> Took:
        name, source, slot = self._backlog.name, self._backlog.server, "subscribed"
        target = copied(self._copies, "subscribed", "copy")
        source.execute(f"SELECT pg_copy_logical_replication_slot('cdc_{name}_duckdb', '{slot}')", name)
        connection = f"host=127.0.0.1 port={source.port} user=postgres dbname={name} password={source.password}"
        done = "SELECT count(*) > 0 FROM pg_stat_subscription WHERE received_lsn IS NOT NULL"
        with psycopg.connect(target, autocommit=True) as session:
            session.execute(
                f"CREATE SUBSCRIPTION {slot} CONNECTION '{connection}' PUBLICATION cdc_{name}_duckdb "
                "WITH (create_slot = false, copy_data = false, enabled = false)".encode()
            )
            before, began = server_cpu(self._copies), time.monotonic()
            session.execute(f"ALTER SUBSCRIPTION {slot} ENABLE".encode())
            while session.execute((done if is_idle else self._backlog.last).encode()).fetchall() != [(True,)]:
                time.sleep(_LOOK_EVERY)
            took = Took(time.monotonic() - began, 0.0, 0.0).with_server(server_cpu(self._copies) - before)
            session.execute(f"DROP SUBSCRIPTION {slot}".encode())  # and with it the slot
        return took

    def end(self) -> None:
        """Nothing is left."""


def _drop_slot(server: PrivatePostgres, name: str) -> None:
    server.execute(f"SELECT pg_drop_replication_slot('cdc_{name}')")


def copied(server: PrivatePostgres, base: str, name: str) -> str:
    """A database that is what another one is; its DSN."""
    server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    server.execute(f"CREATE DATABASE {name} TEMPLATE {base} STRATEGY file_copy")
    return server.dsn(name)


def _command(backlog: Backlog, target: str, name: str) -> list[str]:
    return [
        *(sys.executable, "-m", "cdc", "run", backlog.dsn, target, "--name", name),
        *("--tables", "public.*", "--until-caught-up"),
    ]
