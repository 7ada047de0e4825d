"""The snapshot: rows that were there before the log is followed, read in parallel from one exported snapshot.

https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-SNAPSHOT-SYNCHRONIZATION
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import pq, sql

from cdc import faults
from cdc.errors import TableChanged, Unavailable
from cdc.logs import Thread
from cdc.model.change import VALUE_BYTES, ChangeBatch
from cdc.source import Link
from cdc.sources.postgres.catalog import Connection, Table
from cdc.sources.postgres.connection import Dsn, classify, connect, mapped_errors, server_error
from cdc.sources.postgres.copytext import CopyDecoder
from cdc.sources.postgres.session import Session, of_type, readable

CHUNK_PAGES = 8192  # 64 MB of heap: long enough to hide the start of a query, short enough to share out
BATCH_BYTES = 2 << 20  # of COPY text decoded at once: the arrays that are made on the way stay in the cache
_DECODED_BYTES = 16 << 20  # of the arrays that it becomes, without the text

# A truncate or a rewrite after the snapshot was taken empties the table for that snapshot (they are not MVCC-safe:
# https://www.postgresql.org/docs/current/mvcc-caveats.html), and an ALTER gives its columns other meanings. This text
# is another one after either, for the table and all its partitions (C-08).
_SHAPES = """
SELECT o.oid::int8, concat_ws(' ',
  (SELECT string_agg(c.oid::text || ':' || c.relfilenode::text, ',' ORDER BY c.oid) FROM pg_class c
   WHERE c.oid = o.oid OR c.oid IN (SELECT t.relid FROM pg_partition_tree(o.oid::regclass) t)),
  (SELECT string_agg(concat_ws(':', a.attnum, a.attname, a.atttypid, a.atttypmod), ',' ORDER BY a.attnum)
   FROM pg_attribute a WHERE a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped))
FROM unnest(%s::oid[]) o (oid)
"""


@dataclass(frozen=True, slots=True)
class Copied:
    """Something that happened while copying: rows of a table came, or it ended.

    Attributes:
        table: which.
        batch: rows, or None at the table's end.
        intact: at its end: all of its rows came. They are those of the snapshot if its `shapes` is still the same.
    """

    table: Table
    batch: ChangeBatch | None
    intact: bool = True


@dataclass(frozen=True, slots=True)
class _Chunk:
    table: Table
    decoder: CopyDecoder  # of all chunks of the table
    rows: sql.Composed


def begin_snapshot(connection: Connection, snapshot: str) -> None:
    """Let a session see exactly what the exported snapshot sees, until its transaction ends.

    Raises:
        Unavailable: it is gone with the session that exported it, whose connection was lost.
    """
    connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
    except (psycopg.errors.UndefinedObject, psycopg.errors.InvalidParameterValue) as error:  # 17 and later; before
        raise Unavailable(
            "The snapshot is gone with the connection that it was made in.", hint="The copy is begun again."
        ) from error


@readable()
def shapes(connection: Connection, oids: Iterable[int]) -> dict[int, str | None]:
    """Texts that change when a table is truncated, rewritten or altered, as this session sees it."""
    rows = connection.execute(_SHAPES, (list(oids),)).fetchall()
    return {of_type(oid, int): None if text is None else str(text) for oid, text in rows}


class SnapshotReader:
    """Reads tables from an exported snapshot with several sessions at once, for one thread that takes the rows."""

    def __init__(self, dsn: Dsn, application_name: str, snapshot: str, workers: int) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._snapshot = snapshot
        self._workers = workers
        self._stop = threading.Event()
        self._alive: Callable[[], None]
        self._chunks: queue.SimpleQueue[_Chunk] = queue.SimpleQueue()
        self._results: queue.Queue[tuple[Table | None, ChangeBatch | Exception | None]] = queue.Queue(maxsize=workers)

    def read(self, tables: Sequence[Table], link: Link) -> Iterator[Copied]:
        """All rows of the tables, as the snapshot sees them, in no particular order, each table's end after its last
        row."""
        self._alive = link.alive
        with connect(self._dsn, self._application_name) as guard, mapped_errors(self._dsn):
            open_chunks = dict.fromkeys((table.schema.identity for table in tables), 0)
            for chunk in _chunks(guard, tables):
                open_chunks[chunk.table.schema.identity] += 1
                self._chunks.put(chunk)
            threads = [Thread(target=self._work, daemon=True, name="copy") for _ in range(self._workers)]
            for thread in threads:
                thread.start()
            try:
                changed: set[int] = set()
                while any(open_chunks.values()) and not link.stopping:
                    try:
                        of, result = self._results.get(timeout=0.1)
                    except queue.Empty:
                        continue
                    if of is None or (isinstance(result, Exception) and not isinstance(result, TableChanged)):
                        assert isinstance(result, Exception)
                        raise result
                    oid = of.schema.identity
                    if isinstance(result, ChangeBatch):
                        yield Copied(of, result)
                        continue
                    if isinstance(result, TableChanged):
                        changed.add(oid)
                    open_chunks[oid] -= 1
                    if open_chunks[oid] == 0:
                        yield Copied(of, None, oid not in changed)
            finally:
                self._stop.set()
                for thread in threads:
                    thread.join(timeout=5)

    def _work(self) -> None:
        """One session: chunk after chunk until no chunk is left."""
        try:
            with connect(self._dsn, self._application_name) as connection:
                while not self._stop.is_set():
                    try:
                        chunk = self._chunks.get_nowait()
                    except queue.Empty:
                        return
                    try:
                        self._alive()
                        self._copy(connection, chunk)
                        self._put(chunk.table, None)
                    except TableChanged as changed:
                        self._put(chunk.table, changed)
        except psycopg.Error as error:
            self._put(None, classify(error, self._dsn))
        except Exception as error:  # whatever it is, the thread that takes the rows must see it (D-20)
            self._put(None, error)

    def _copy(self, connection: Session, chunk: _Chunk) -> None:
        # One short transaction per chunk, so that no lock is held for the length of the copy.
        faults.point("copy.before_snapshot")
        with mapped_errors(self._dsn):
            begin_snapshot(connection, self._snapshot)
        try:
            for batch in copy_rows(connection, self._dsn, chunk.decoder, chunk.rows, self._alive):
                self._put(chunk.table, batch)
                if self._stop.is_set():
                    return
        except TableChanged:
            connection.execute("ROLLBACK")
            raise
        faults.point("copy.chunk")
        connection.execute("COMMIT")

    def _put(self, table: Table | None, result: ChangeBatch | Exception | None) -> None:
        while not self._stop.is_set():
            try:
                self._results.put((table, result), timeout=0.1)
            except queue.Full:
                continue
            return


@readable()
def _chunks(connection: Connection, tables: Sequence[Table]) -> list[_Chunk]:
    """Pieces of tables by ctid ranges; one piece where these do not apply (partition roots, other access methods).

    Before PostgreSQL 14 a ctid range is a filter over the whole table.
    """
    rows = connection.execute(
        """
        SELECT c.oid::int8, coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::int8
        FROM pg_class c JOIN pg_am a ON a.oid = c.relam
        WHERE c.oid = ANY(%s::oid[]) AND c.relkind = 'r' AND a.amname = 'heap'
        """,
        ([table.schema.identity for table in tables],),
    ).fetchall()
    pages = {of_type(oid, int): of_type(count, int) for oid, count in rows}
    if connection.info.server_version < 140000:
        pages = {}
    return [chunk for table in tables for chunk in _pieces(table, pages.get(table.schema.identity))]


def _pieces(table: Table, pages: int | None) -> list[_Chunk]:
    decoder = CopyDecoder(table.schema)
    if pages is None:
        return [_Chunk(table, decoder, _rows(table, None, None))]
    borders = list(range(0, max(pages, 1), CHUNK_PAGES))
    # The last range is open: what was appended since belongs to it if the snapshot sees it.
    ranges = zip(borders, [*borders[1:], None], strict=True)
    return [_Chunk(table, decoder, _rows(table, begin, end)) for begin, end in ranges]


def _rows(table: Table, begin: int | None, end: int | None) -> sql.Composed:
    """A range of a table's pages as what follows FROM."""
    conditions = [
        sql.SQL("ctid {} {}").format(sql.SQL(comparison), sql.Literal(f"({page},0)"))
        for comparison, page in ((">=", begin), ("<", end))
        if page
    ]
    return sql.SQL("{}{}{}").format(
        sql.SQL("ONLY ") if table.kind == "r" else sql.SQL(""),  # inheriting tables are tables of their own
        sql.Identifier(table.schema.table.schema, table.schema.table.name),
        sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions) if conditions else sql.SQL(""),
    )


def copy_rows(
    connection: Session,
    dsn: Dsn,
    decoder: CopyDecoder,
    rows: sql.Composed,
    alive: Callable[[], None] = lambda: None,
) -> Iterator[ChangeBatch]:
    """Rows as this session sees them, in batches.

    Args:
        rows: what follows FROM.
        alive: called whenever some of them have come.

    Raises:
        TableChanged: the table is not what the schema says any more.
    """
    schema = decoder.schema
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in schema.columns)
    query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(names, rows)
    result = connection.run(query.as_bytes(connection))
    if result.status != pq.ExecStatus.COPY_OUT:
        error = server_error(result)
        if isinstance(error, (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable)):
            raise TableChanged(f"{schema.table} has another shape than a moment ago.")
        raise classify(error, dsn)
    gathered, size = list[bytes](), 0
    most = _DECODED_BYTES // (VALUE_BYTES * max(1, len(schema.columns)))
    for arrived in connection.copied():
        gathered += arrived
        size += sum(map(len, arrived))
        alive()
        if size >= BATCH_BYTES or len(gathered) >= most:
            yield decoder.decode(gathered)
            gathered, size = [], 0
    end = connection.run_out()
    if end.status == pq.ExecStatus.FATAL_ERROR:
        raise classify(server_error(end), dsn)
    faults.point("copy.rows")
    if gathered:
        yield decoder.decode(gathered)
