"""The snapshot: rows that were there before the log is followed, read in parallel from one exported snapshot.

https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-SNAPSHOT-SYNCHRONIZATION
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import pq, sql

from cdc import faults
from cdc.model.change import ChangeBatch
from cdc.source import Link
from cdc.sources.postgres.catalog import Connection, Table
from cdc.sources.postgres.connection import Dsn, classify, connect, mapped_errors, server_error
from cdc.sources.postgres.copytext import decode_copy

CHUNK_PAGES = 8192  # 64 MB of heap: long enough to hide the start of a query, short enough to share out
BATCH_BYTES = 8 << 20  # of COPY text decoded at once

# A truncate or a rewrite after the snapshot was taken empties the table for that snapshot (they are not MVCC-safe:
# https://www.postgresql.org/docs/current/mvcc-caveats.html), and an ALTER gives its columns other meanings. This text
# is another one after either, for the table and all its partitions (C-08).
_SHAPE = """
SELECT concat_ws(' ',
  (SELECT string_agg(c.oid::text || ':' || c.relfilenode::text, ',' ORDER BY c.oid) FROM pg_class c
   WHERE c.oid = %(oid)s OR c.oid IN (SELECT t.relid FROM pg_partition_tree(%(oid)s::oid::regclass) t)),
  (SELECT string_agg(concat_ws(':', a.attnum, a.attname, a.atttypid, a.atttypmod), ',' ORDER BY a.attnum)
   FROM pg_attribute a WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped))
"""


@dataclass(frozen=True, slots=True)
class Copied:
    """Something that happened while copying: rows of a table came, or it ended.

    Attributes:
        table: which.
        batch: rows, or None at the table's end.
        intact: at its end: the table was not truncated, rewritten or altered meanwhile. If it was, its rows are not
            those of the snapshot, and it must be copied again.
    """

    table: Table
    batch: ChangeBatch | None
    intact: bool = True


@dataclass(frozen=True, slots=True)
class _Chunk:
    table: Table
    query: sql.Composed


class _Changed(Exception):
    """A table does not look any more as the snapshot has it."""


def begin_snapshot(connection: Connection, snapshot: str) -> None:
    """Let a session see exactly what the exported snapshot sees, until its transaction ends."""
    connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))


def shape(connection: Connection, oid: int) -> str | None:
    """A text that changes when a table is truncated, rewritten or altered, as this session sees it."""
    row = connection.execute(_SHAPE, {"oid": oid}).fetchone()
    return None if row is None or row[0] is None else str(row[0])


class SnapshotReader:
    """Reads tables from an exported snapshot with several sessions at once, for one thread that takes the rows."""

    def __init__(self, dsn: Dsn, application_name: str, snapshot: str, workers: int) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._snapshot = snapshot
        self._workers = workers
        self._stop = threading.Event()
        self._chunks: queue.SimpleQueue[_Chunk] = queue.SimpleQueue()
        self._results: queue.Queue[tuple[Table | None, ChangeBatch | Exception | None]] = queue.Queue(
            maxsize=2 * workers
        )

    def read(self, tables: Sequence[Table], shapes: dict[int, str | None], link: Link) -> Iterator[Copied]:
        """All rows of the tables, in no particular order, each table's end after its last row.

        Args:
            tables: as the snapshot sees them.
            shapes: their `shape`, as the snapshot sees it.
        """
        with connect(self._dsn, self._application_name) as guard, mapped_errors(self._dsn):
            open_chunks: dict[int, int] = {}
            for table in tables:
                chunks = _chunks(guard, table)
                open_chunks[table.schema.identity] = len(chunks)
                for chunk in chunks:
                    self._chunks.put(chunk)
            threads = [threading.Thread(target=self._work, daemon=True, name="copy") for _ in range(self._workers)]
            for thread in threads:
                thread.start()
            try:
                changed: set[int] = set()
                while any(open_chunks.values()) and not link.stopping:
                    try:
                        of, result = self._results.get(timeout=0.1)
                    except queue.Empty:
                        continue
                    if of is None or (isinstance(result, Exception) and not isinstance(result, _Changed)):
                        assert isinstance(result, Exception)
                        raise result
                    oid = of.schema.identity
                    if isinstance(result, ChangeBatch):
                        yield Copied(of, result)
                        continue
                    if isinstance(result, _Changed):
                        changed.add(oid)
                    open_chunks[oid] -= 1
                    if open_chunks[oid] == 0:
                        intact = oid not in changed and shape(guard, oid) == shapes[oid]
                        yield Copied(of, None, intact)
            finally:
                self._stop.set()
                for thread in threads:
                    thread.join(timeout=5)

    def _work(self) -> None:
        """One session: chunk after chunk until there are none."""
        try:
            with connect(self._dsn, self._application_name) as connection:
                while not self._stop.is_set():
                    try:
                        chunk = self._chunks.get_nowait()
                    except queue.Empty:
                        return
                    try:
                        self._copy(connection, chunk)
                        self._put(chunk.table, None)
                    except _Changed as changed:
                        self._put(chunk.table, changed)
        except psycopg.Error as error:
            self._put(None, classify(error, self._dsn))
        except Exception as error:  # whatever it is, the thread that takes the rows must see it (D-20)
            self._put(None, error)

    def _copy(self, connection: Connection, chunk: _Chunk) -> None:
        # One short transaction per chunk, so that no lock is held for the length of the copy.
        with mapped_errors(self._dsn):
            begin_snapshot(connection, self._snapshot)
        pgconn = connection.pgconn
        result = pgconn.exec_(chunk.query.as_bytes(connection))
        if result.status != pq.ExecStatus.COPY_OUT:
            error = server_error(result)
            connection.execute("ROLLBACK")
            if isinstance(error, (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable)):
                raise _Changed
            raise classify(error, self._dsn)
        rows: list[bytes] = []
        size = 0
        while True:
            length, data = pgconn.get_copy_data(0)
            if length < 0:
                break
            rows.append(bytes(data))
            size += length
            if size >= BATCH_BYTES:
                self._put(chunk.table, decode_copy(rows, chunk.table.schema))
                rows, size = [], 0
                if self._stop.is_set():
                    return
        result = pgconn.get_result()  # type: ignore[assignment]
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            raise classify(server_error(result), self._dsn)
        while pgconn.get_result() is not None:
            pass
        if rows:
            self._put(chunk.table, decode_copy(rows, chunk.table.schema))
        faults.point("copy.chunk")
        connection.execute("COMMIT")

    def _put(self, table: Table | None, result: ChangeBatch | Exception | None) -> None:
        while not self._stop.is_set():
            try:
                self._results.put((table, result), timeout=0.1)
            except queue.Full:
                continue
            return


def _chunks(connection: Connection, table: Table) -> list[_Chunk]:
    """Pieces of a table by ctid ranges; one piece where these do not apply (partition roots, other access methods).

    Before PostgreSQL 14 a ctid range is a filter over the whole table.
    """
    row = connection.execute(
        """
        SELECT pg_relation_size(c.oid) / current_setting('block_size')::int8, coalesce(a.amname, '')
        FROM pg_class c LEFT JOIN pg_am a ON a.oid = c.relam WHERE c.oid = %s
        """,
        (table.schema.identity,),
    ).fetchone()
    pages, method = row if row is not None else (0, "")
    assert isinstance(pages, int)
    if table.kind != "r" or method != "heap" or connection.info.server_version < 140000:
        return [_Chunk(table, _query(table, None, None))]
    borders = list(range(0, max(pages, 1), CHUNK_PAGES))
    # The last range is open: what was appended since belongs to it if the snapshot sees it.
    return [_Chunk(table, _query(table, begin, end)) for begin, end in zip(borders, [*borders[1:], None], strict=True)]


def _query(table: Table, begin: int | None, end: int | None) -> sql.Composed:
    name = sql.Identifier(table.schema.table.schema, table.schema.table.name)
    conditions = [
        sql.SQL("ctid {} {}").format(sql.SQL(comparison), sql.Literal(f"({page},0)"))
        for comparison, page in ((">=", begin), ("<", end))
        if page
    ]
    return sql.SQL("COPY (SELECT {} FROM {}{}{}) TO STDOUT").format(
        sql.SQL(", ").join(sql.Identifier(column.name) for column in table.schema.columns),
        sql.SQL("ONLY ") if table.kind == "r" else sql.SQL(""),  # inheriting tables are tables of their own
        name,
        sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions) if conditions else sql.SQL(""),
    )
