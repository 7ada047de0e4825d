"""The snapshot: rows that were there before the log is followed, read in parallel by sessions that see one state.

https://dev.mysql.com/doc/refman/9.0/en/innodb-consistent-read.html
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from cdc import faults
from cdc.errors import OperatorNeeded, TableChanged, Unavailable, UsageError
from cdc.logs import Thread
from cdc.model.change import ChangeBatch
from cdc.source import Link
from cdc.sources.mysql.catalog import Table
from cdc.sources.mysql.connection import Connection, Dsn, reads_answers
from cdc.sources.mysql.identity import Log, log_now
from cdc.sources.mysql.select import quoted, quoted_table, select_rows
from cdc.sources.mysql.types import source_type

_CHUNK_ROWS = 100_000
_MOST_CHUNKS = 200  # of one table
_TRIES = 5  # to find all sessions at one place of the log without a lock
_LOCK_WITHIN = 5  # seconds: nobody's writes wait longer for our lock than this (C-10)
_LOCKED_FOR = 30  # seconds that they wait for us at most once we have it
_INTEGERS = {"tinyint", "smallint", "mediumint", "int", "bigint", "year"}
_ORDERED = {"char", "varchar", "binary", "varbinary", "uuid", "date", "datetime", "timestamp", "decimal"}


@dataclass(frozen=True, slots=True)
class Copied:
    """Something that happened while copying: rows of a table came, or it ended.

    Attributes:
        table: which.
        batch: rows, or None at the table's end.
        intact: at its end: all of its rows came. Otherwise its shape changed, and it must be copied again.
    """

    table: Table
    batch: ChangeBatch | None
    intact: bool = True


@dataclass(frozen=True, slots=True)
class _Chunk:
    table: Table
    where: str


class Snapshot:
    """Sessions that all see the state of the database at one place of its log."""

    def __init__(self, dsn: Dsn, purpose: str, workers: int) -> None:
        self._resources = ExitStack()
        self._workers = workers
        self.guard = self._resources.enter_context(Connection(dsn, purpose))
        self.sessions = [self._resources.enter_context(Connection(dsn, purpose)) for _ in range(workers)]

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def begin(self, tables: Sequence[Table]) -> Log:
        """Let all sessions see one state; where in the log that is.

        MariaDB tells each session where its snapshot is, so that on a quiet server no lock is needed. Otherwise all
        writes wait for a moment, in which the sessions begin.

        Raises:
            Unavailable: the lock could not be had soon enough.
            UsageError: the user may not take any lock.
        """
        if self.guard.version.flavor == "mariadb":
            for _ in range(_TRIES):
                places = [self.begin_session(session) or self.place(session) for session in self.sessions]
                if len(set(places)) == 1 and None not in places:
                    return log_now(self.guard, places[0])
        self._lock(tables)
        try:
            faults.point("copy.locked")
            for session in self.sessions:
                self.begin_session(session)
            return log_now(self.guard)
        finally:
            self.guard.query("UNLOCK TABLES")

    @staticmethod
    def begin_session(session: Connection) -> None:
        """Let one session see the state of now, until its transaction ends."""
        session.query("ROLLBACK")
        session.query("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        # Going back to it gives the locks on table definitions back, so that nobody's ALTER waits for the whole copy.
        session.query("SAVEPOINT cdc")

    @staticmethod
    @reads_answers
    def place(session: Connection) -> tuple[str, int] | None:
        """Where in the log a session's state is, if the server tells (MariaDB)."""
        found = dict(session.query("SHOW STATUS LIKE 'binlog\\_snapshot\\_%%'"))
        if not found.get("Binlog_snapshot_file"):
            return None
        return str(found["Binlog_snapshot_file"]), int(found["Binlog_snapshot_position"])

    def _lock(self, tables: Sequence[Table]) -> None:
        self.guard.query(f"SET SESSION lock_wait_timeout = {_LOCK_WITHIN}")
        self.guard.lose_locks_after(_LOCKED_FOR)
        try:
            self.guard.query("FLUSH TABLES WITH READ LOCK")
        except Unavailable as error:
            raise Unavailable(
                f"{self.guard.dsn}: a long-running statement kept cdc from the lock with which a copy begins.",
                hint="It is tried again. SHOW PROCESSLIST shows statements that run for long.",
            ) from error
        except (UsageError, OperatorNeeded):
            # Managed servers often do not let anybody have it; locking just what is copied is as exact.
            self.guard.query("LOCK TABLES " + ", ".join(f"{quoted_table(table.name)} READ" for table in tables))


class SnapshotReader:
    """Reads tables with the sessions of a snapshot, for one thread that takes the rows."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._stop = threading.Event()
        self._chunks: queue.Queue[_Chunk | None] = queue.Queue()
        self._results: queue.Queue[tuple[Table | None, ChangeBatch | int | Exception | None]] = queue.Queue(
            maxsize=len(snapshot.sessions)
        )

    def read(self, tables: Sequence[Table], link: Link) -> Iterator[Copied]:
        """All rows of the tables, in no particular order, each table's end after its last row."""
        left = {table.name: 1 for table in tables}  # chunks, and one until a table has been cut into all of its chunks
        changed = set()
        threads = [
            Thread(
                target=self._work, args=(session, tables if number == 0 else (), link.alive), daemon=True, name="copy"
            )
            for number, session in enumerate(self._snapshot.sessions)
        ]
        for thread in threads:
            thread.start()
        try:
            while any(left.values()) and not link.stopping:
                try:
                    of, result = self._results.get(timeout=0.1)
                except queue.Empty:
                    continue
                if of is None or (isinstance(result, Exception) and not isinstance(result, TableChanged)):
                    assert isinstance(result, Exception)
                    raise result
                if isinstance(result, ChangeBatch):
                    yield Copied(of, result)
                    continue
                if isinstance(result, int):
                    left[of.name] += result
                    continue
                if isinstance(result, TableChanged):
                    changed.add(of.name)
                left[of.name] -= 1
                if left[of.name] == 0:
                    yield Copied(of, None, intact=of.name not in changed)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(timeout=5)

    def _work(self, session: Connection, to_cut: Sequence[Table], alive: Callable[[], None]) -> None:
        """One session: the first cuts the tables into chunks before it takes chunks itself."""
        try:
            for table in to_cut:
                try:
                    for where in _chunks(session, table, len(self._snapshot.sessions)):
                        alive()
                        self._put(table, 1)
                        self._chunks.put(_Chunk(table, where))
                    self._put(table, None)
                except TableChanged as change:
                    self._put(table, change)
                session.query("ROLLBACK TO SAVEPOINT cdc")
            if to_cut:
                for _ in self._snapshot.sessions:
                    self._chunks.put(None)
            while not self._stop.is_set() and (chunk := self._next()) is not None:
                try:
                    alive()
                    for batch in select_rows(session, chunk.table.schema, chunk.where, alive):
                        faults.point("copy.rows")
                        self._put(chunk.table, batch)
                        if self._stop.is_set():
                            return
                    faults.point("copy.chunk")
                    self._put(chunk.table, None)
                except TableChanged as change:
                    self._put(chunk.table, change)
                session.query("ROLLBACK TO SAVEPOINT cdc")
        except Exception as error:  # whatever it is, the thread that takes the rows must see it (D-20)
            self._put(None, error)

    def _next(self) -> _Chunk | None:
        while not self._stop.is_set():
            try:
                return self._chunks.get(timeout=0.1)
            except queue.Empty:
                continue
        return None

    def _put(self, table: Table | None, result: ChangeBatch | int | Exception | None) -> None:
        while not self._stop.is_set():
            try:
                self._results.put((table, result), timeout=0.1)
            except queue.Full:
                continue
            return


def _chunks(session: Connection, table: Table, workers: int) -> Iterator[str]:
    """Conditions that share a table out, by the first column of its key, in the server's own order of it (C-11)."""
    schema = table.schema
    count = min(_MOST_CHUNKS, table.rows_estimated // _CHUNK_ROWS)
    base = source_type(schema.columns[schema.key[0]].source_type).base if schema.key else ""
    if count < 2 or workers < 2 or base not in _INTEGERS | _ORDERED:
        yield ""
        return
    column = quoted(schema.columns[schema.key[0]].name)
    borders = _steps(session, table, column, count) if base in _INTEGERS else _walk(session, table, column)
    before = ""
    for border in borders:
        yield f"{before}{column} < {border}"
        before = f"{column} >= {border} AND "
    yield before.removesuffix(" AND ")


@reads_answers
def _steps(session: Connection, table: Table, column: str, count: int) -> list[str]:
    """Equal steps from the least number to the greatest."""
    least, greatest = session.query(f"SELECT min({column}), max({column}) FROM {quoted_table(table.name)}")[0]
    if least is None:
        return []
    step = max(1, (int(greatest) - int(least)) // count)
    return [str(least + number * step) for number in range(1, count) if least + number * step <= greatest]


def _walk(session: Connection, table: Table, column: str) -> Iterator[str]:
    """Every so many rows along the index."""
    where = ""
    while True:
        found: Any = session.value(
            f"SELECT {column} FROM {quoted_table(table.name)} {where} ORDER BY {column} LIMIT 1 OFFSET {_CHUNK_ROWS}"
        )
        if found is None:
            return
        border = session.literal(found)
        yield border
        where = f"WHERE {column} > {border}"
