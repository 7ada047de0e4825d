"""A replica whose source lies behind a proxy, and what tests of bad networks do with it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cdc.connectors import source_module
from cdc.engine.pipeline import Pipeline
from cdc.errors import EXIT_RESTARTABLE, CdcError
from cdc.options import Options
from cdc.runs import open_pipeline
from integration.conftest import Database, MySqlDatabase, Replica
from integration.proxy import FaultProxy

ROWS = 300
_numbers = itertools.count(1)


def fill(database: Database | MySqlDatabase) -> None:
    with database.connect() as connection:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE accounts (id int PRIMARY KEY, v int, note text)")
            cursor.execute("CREATE TABLE entries (n int, v varchar(20))")
            rows = [(number, number * 7, "note " * (number % 40)) for number in range(ROWS)]
            cursor.executemany("INSERT INTO accounts VALUES (%s, %s, %s)", rows)
        connection.commit()


def write(database: Database | MySqlDatabase, transactions: int = 5) -> None:
    """Transactions of which nothing may be missing or come twice: counters, and rows without a key."""
    with database.connect() as connection:
        for _ in range(transactions):
            number = next(_numbers)
            with connection.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute(f"INSERT INTO accounts VALUES ({ROWS + number}, 0, 'new')")
                cursor.execute("UPDATE accounts SET v = v + 1 WHERE id % 5 = 0")
                cursor.execute(f"INSERT INTO entries VALUES ({number}, 'a'), ({number % 3}, 'b')")
                cursor.execute("COMMIT")


def through(proxy: FaultProxy, database: Database | MySqlDatabase, *options: str, host: str = "127.0.0.1") -> str:
    """The DSN of a database behind the proxy; without TLS unless options say otherwise."""
    if isinstance(database, Database):
        start, plain = "postgresql://postgres", ("sslmode=disable",)
        options = (f"passfile={database.server.passfile}", *(options or plain))
    else:
        start, plain = f"{database.flavor}://cdc:{database.server.password}", database.server.without_tls
    return f"{start}@{host}:{proxy.port}/{database.name}?" + "&".join(options or plain)


@dataclass
class Line:
    """A replica whose source lies behind the proxy."""

    proxy: FaultProxy
    replica: Replica
    dsn: str

    @classmethod
    def make(cls, proxy: FaultProxy, database: Database | MySqlDatabase, folder: Path, *options: str) -> Line:
        name = f"{database.name}_{next(_numbers)}"
        chosen = Options(name=name, include_keyless=True, workers=2, until_caught_up=True)
        replica = Replica(database, folder / f"{name}.duckdb", chosen)
        return cls(proxy, replica, through(proxy, database, *options))

    def pipeline(self, *, until_caught_up: bool = True) -> Pipeline:
        options = replace(self.replica.options, until_caught_up=until_caught_up)
        return open_pipeline(self.dsn, self.replica.target, options)

    def come_through(self) -> None:
        """Run until caught up: a process that had been open before reconnects by itself, others say what is wrong."""
        for _ in range(10):
            pipeline = self.pipeline()
            try:
                pipeline.run()
                return
            except CdcError as error:
                failure = error
            assert failure.exit_code == EXIT_RESTARTABLE, failure.message
            assert not pipeline.view().tables, f"had been open before: {failure.message}"
        pytest.fail(f"did not come through: {failure.message}")

    def end(self) -> None:
        """Compare without the proxy, and leave nothing behind."""
        self.replica.assert_equal()
        self.forget()

    def forget(self) -> None:
        dsn = self.replica.database.dsn
        for removal in source_module(dsn).source_removals(dsn, self.replica.options.name, None):
            removal.remove()
        self.replica.path.unlink(missing_ok=True)


@dataclass
class Running:
    """A pipeline on a thread of its own."""

    pipeline: Pipeline
    thread: threading.Thread
    failures: list[BaseException]

    @classmethod
    def start(cls, pipeline: Pipeline) -> Running:
        failures: list[BaseException] = []

        def body() -> None:
            try:
                pipeline.run()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        return cls(pipeline, thread, failures)

    @property
    def phase(self) -> str:
        return self.pipeline.view().phase

    @property
    def troubled(self) -> bool:
        """A failure is being waited out, or ended the run."""
        return self.pipeline.view().failure is not None or bool(self.failures)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait long enough for the slowest machine."""
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, f"never {what}: {self.pipeline.view()}"
            time.sleep(0.02)

    def until_streaming(self) -> None:
        self.until(lambda: self.phase == "streaming" or bool(self.failures), "streaming")
        assert self.failures == []

    def until_applied(self, transactions: int) -> None:
        """As many transactions have been applied in this run; retries do not count any of them twice."""
        self.until(lambda: self.pipeline.view().transactions_applied >= transactions or bool(self.failures), "applied")
        assert self.failures == []

    def stop(self) -> None:
        self.pipeline.stop()
        self.thread.join(60)
        assert not self.thread.is_alive(), "hangs"
