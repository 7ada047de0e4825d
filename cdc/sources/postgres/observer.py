"""Looks at PostgreSQL's tables, each placed in the log exactly.

A snapshot sees a transaction or it does not, which its list of running transactions tells (`pg_current_snapshot`), and
the stream names the transaction of every change. So no slot is needed to know where between two commits a look is, and
no look waits for transactions that are open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import psycopg

from cdc.errors import TableChanged, UsageError
from cdc.model.change import ChangeBatch, Transactions
from cdc.model.parts import Digest, HashedRow, Key, Part
from cdc.model.position import Position
from cdc.model.schema import TableSchema
from cdc.model.selection import Selection
from cdc.observer import Selected
from cdc.sources.postgres.catalog import Connection, generated_columns, tables_by_oid, user_tables
from cdc.sources.postgres.connection import Dsn, connect, mapped_errors
from cdc.sources.postgres.copy import copy_rows
from cdc.sources.postgres.copytext import CopyDecoder
from cdc.sources.postgres.digest import ORDERED, border, digest, hashed_rows, keys, rows_of, values
from cdc.sources.postgres.notes import HEARTBEAT
from cdc.sources.postgres.position import lsn, parse_lsn
from cdc.sources.postgres.session import UNENDING, Session, number, of_type, readable
from cdc.sources.postgres.state import NEVER, SourceState

_XIDS = 1 << 32  # the log has the lower half of a transaction's number


@dataclass(frozen=True, slots=True)
class PostgresPlace:
    """Where a snapshot is.

    Attributes:
        until: the log had been written up to here when the snapshot had been taken.
        next: the first transaction number that was not given out yet.
        running: the lower halves of the numbers of those that had not ended.
    """

    until: Position
    next: int
    running: np.ndarray

    @property
    def is_exact(self) -> bool:
        return True

    def sees(self, transactions: Transactions) -> np.ndarray:
        ahead = (transactions.identity - self.next) % _XIDS < _XIDS // 2
        return (~ahead & ~np.isin(transactions.identity, self.running)).astype(np.int8)


class PostgresLook:
    """One REPEATABLE READ transaction as a `cdc.observer.Look`."""

    def __init__(self, connection: Session, dsn: Dsn, place: PostgresPlace) -> None:
        self._connection = connection
        self._dsn = dsn
        self.place = place

    def shape(self, schema: TableSchema) -> TableSchema | None:
        with mapped_errors(self._dsn):
            found = tables_by_oid(self._connection, [schema.identity]).get(schema.identity)
        return found.schema if found is not None else None

    def left_out(self, schema: TableSchema) -> list[str]:
        with mapped_errors(self._dsn):
            return generated_columns(self._connection, schema.identity)

    def digest(self, schema: TableSchema, part: Part) -> Digest:
        with _mapped(self._dsn, schema):
            return digest(self._connection, schema, part)

    def rows(self, schema: TableSchema, part: Part, buckets: Sequence[int]) -> list[HashedRow]:
        with _mapped(self._dsn, schema):
            return hashed_rows(self._connection, schema, part, buckets)

    def values(self, schema: TableSchema, keys: Sequence[Key]) -> dict[Key, dict[str, str | None]]:
        with _mapped(self._dsn, schema):
            return values(self._connection, schema, keys)

    def keys(self, schema: TableSchema, part: Part) -> set[Key]:
        with mapped_errors(self._dsn):
            try:
                return keys(self._connection, schema, part)
            except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError, psycopg.InternalError) as e:
                raise UsageError(
                    f"The source cannot decide the condition for rows of {schema.table} ({type(e).__name__}).",
                    hint="It has to fit the table's columns, and may only read. Nothing was changed.",
                ) from e

    def read(self, schema: TableSchema, part: Part) -> Iterator[ChangeBatch]:
        self._verify_shape(schema)
        with _mapped(self._dsn, schema):
            rows = rows_of(self._connection, schema, part)
            yield from copy_rows(self._connection, self._dsn, CopyDecoder(schema), rows)

    def _verify_shape(self, schema: TableSchema) -> None:
        """The log has a new shape only with the next row, so that a look may be ahead of it (A-51)."""
        found = self.shape(schema)
        there = {column.identity: column for column in found.columns} if found is not None else {}
        changed = [
            column.name
            for column in schema.columns
            if (now := there.get(column.identity)) is None or (now.name, now.type) != (column.name, column.type)
        ]
        if found is None or found.table != schema.table or changed:
            raise TableChanged(
                f"{schema.table} has a shape that the log has not described yet"
                + (f" ({', '.join(changed)})." if changed else "."),
                hint="The log describes it with the next row that changes.",
            )


class PostgresObserver:
    """One session beside the stream as a `cdc.observer.Observer`."""

    def __init__(self, dsn: Dsn, application_name: str) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._session: Session | None = None
        self._followed: tuple[str, dict[TableSchema, bool]] = ("", {})  # by the text of a state

    @property
    def dialect(self) -> str:
        return "postgres"

    @property
    def default_schema(self) -> str:
        return "public"

    @property
    def _connection(self) -> Session:
        if self._session is None or self._session.closed:
            self._session = connect(self._dsn, self._application_name, UNENDING)
        return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def followed(self, state: str) -> dict[TableSchema, bool]:
        # Asked for each part of each table, and mostly the same text: to read it takes as long as there are tables.
        if self._followed[0] != state:
            self._followed = (state, _followed(state))
        return self._followed[1]

    def held(self, state: str) -> dict[TableSchema, str]:
        tables = SourceState.load(state).tables.values()
        return {entry.schema: entry.held for entry in tables if entry.followed and entry.held is not None}

    def selected(self, selection: Selection) -> list[Selected]:
        with mapped_errors(self._dsn):
            return [
                Selected(table.schema, why.message, not why.is_of_inserts)
                if (why := table.obstacle) is not None
                else Selected(table.schema)
                for table in user_tables(self._connection)
                if selection.matches(table.schema.table)
            ]

    def rows_estimated(self, schema: TableSchema) -> int:
        with mapped_errors(self._dsn):
            row = self._connection.execute(
                "SELECT greatest(reltuples, 0)::int8 FROM pg_class WHERE oid = %s", (schema.identity,)
            ).fetchone()
            return number(row[0]) if row is not None else 0

    def leading(self, schema: TableSchema) -> tuple[int, ...]:
        return schema.key_before_other(ORDERED)

    def border(self, schema: TableSchema, after: Key | None, rows: int) -> Key | None:
        with _mapped(self._dsn, schema):
            return border(self._connection, schema, self.leading(schema), after, rows)

    @contextmanager
    def look(self, *schemas: TableSchema, exact: bool = False) -> Iterator[PostgresLook]:
        connection = self._connection
        with mapped_errors(self._dsn):
            connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield PostgresLook(connection, self._dsn, self._place(connection))
        finally:
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")

    def _place(self, connection: Connection) -> PostgresPlace:
        """Ask where the snapshot is that this query takes.

        A commit is in the log before a snapshot sees it, but with synchronous_commit = off not on the disk yet, before
        which nobody sends it. Something has to be committed then, or the server takes its time.
        """
        with mapped_errors(self._dsn), readable():
            row = connection.execute(
                "SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text, "
                "pg_current_wal_flush_lsn()::text"
            ).fetchone()
            snapshot, written, flushed = map(str, of_type(row, tuple))
            if flushed != written:
                self._flush()
            _, following, running = snapshot.split(":")
            numbers = [int(number) % _XIDS for number in running.split(",") if number]
            return PostgresPlace(lsn(parse_lsn(written)), int(following), np.array(numbers, dtype=np.int64))

    def _flush(self) -> None:
        with (
            suppress(psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction),
            connect(self._dsn, self._application_name) as session,
        ):
            session.execute("SET synchronous_commit = local")
            session.execute("SELECT pg_logical_emit_message(true, %s, '')", (HEARTBEAT,))


@contextmanager
def _mapped(dsn: Dsn, schema: TableSchema) -> Iterator[None]:
    with mapped_errors(dsn):
        try:
            yield
        except (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable) as error:
            raise TableChanged(f"{schema.table} has another shape than the target has.") from error


def _followed(state: str) -> dict[TableSchema, bool]:
    return {
        entry.schema: entry.copied and bool(entry.schema.key or entry.schema.full_before)
        for entry in SourceState.load(state).tables.values()
        if entry.followed and entry.held is None and entry.start != NEVER
    }
