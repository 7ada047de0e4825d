"""Looks at tables of MySQL and MariaDB, placed in the log.

MariaDB says of each consistent snapshot where in the binlog it is. MySQL does not: between its group commit's writing
the log and its making the rows visible lies a moment, so a look there is known only to lie within a few transactions.
Which one it is shows when the target, brought to each of these, has the same rows; a lock of a moment decides for sure.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from cdc.errors import OperatorNeeded, TableChanged, Unavailable, UsageError
from cdc.model.change import ChangeBatch, Transactions
from cdc.model.parts import Digest, HashedRow, Key, Part
from cdc.model.position import Position
from cdc.model.schema import TableSchema
from cdc.model.selection import Selection
from cdc.observer import SEEN, UNKNOWN, UNSEEN, Selected
from cdc.sources.mysql.catalog import named_tables, selected, user_tables
from cdc.sources.mysql.connection import Connection, Dsn
from cdc.sources.mysql.copy import Snapshot
from cdc.sources.mysql.digest import ORDERED, border, condition_of, digest, hashed_rows, keys, values
from cdc.sources.mysql.ghosts import is_ghost_of
from cdc.sources.mysql.identity import log_files, log_now, place_of
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.select import quoted_table, select_rows
from cdc.sources.mysql.state import SourceState

_SETTLES_WITHIN = 0.05  # seconds from a transaction's being written to the log to its being visible, nearly always
_LOCK_WITHIN = 1  # seconds: nobody's writes wait longer for our lock than this
_MOMENT, _LOOK = 30, 600  # seconds that they wait for us at most once we have it


@dataclass(frozen=True, slots=True)
class MySqlPlace:
    """Where a consistent read is.

    Attributes:
        since: what begins before this byte of the log was seen.
        until: what begins at this byte or behind it was not seen.
    """

    since: int
    until: Position

    @property
    def is_exact(self) -> bool:
        return self.since >= self.until.order

    def sees(self, transactions: Transactions) -> np.ndarray:
        order = transactions.order
        unsure = np.where(order < self.until.order, UNKNOWN, UNSEEN)
        return np.where(order < self.since, SEEN, unsure).astype(np.int8)


class MySqlLook:
    """One consistent read as a `cdc.observer.Look`."""

    def __init__(self, connection: Connection, place: MySqlPlace) -> None:
        self._connection = connection
        self.place = place

    def shape(self, schema: TableSchema) -> TableSchema | None:
        found = named_tables(self._connection, [schema.table]).get(schema.table)
        return found.schema if found is not None else None

    def left_out(self, schema: TableSchema) -> list[str]:
        return []

    def digest(self, schema: TableSchema, part: Part) -> Digest:
        return digest(self._connection, schema, part)

    def rows(self, schema: TableSchema, part: Part, buckets: Sequence[int]) -> list[HashedRow]:
        return hashed_rows(self._connection, schema, part, buckets)

    def values(self, schema: TableSchema, keys: Sequence[Key]) -> dict[Key, dict[str, str | None]]:
        return values(self._connection, schema, keys)

    def keys(self, schema: TableSchema, part: Part) -> set[Key]:
        try:
            return keys(self._connection, schema, part)
        except (TableChanged, OperatorNeeded, UsageError) as error:
            number = error.__cause__.args[0] if error.__cause__ is not None else "?"
            raise UsageError(
                f"The source cannot decide the condition for rows of {schema.table} (error {number}).",
                hint="It has to fit the table's columns, and may only read. Nothing was changed.",
            ) from error

    def read(self, schema: TableSchema, part: Part) -> Iterator[ChangeBatch]:
        found = self.shape(schema)
        there = {column.name: column.type for column in found.columns} if found is not None else {}
        if changed := [column.name for column in schema.columns if there.get(column.name) != column.type]:
            raise TableChanged(f"{schema.table} has a shape that the log has not described yet ({', '.join(changed)}).")
        yield from select_rows(self._connection, schema, condition_of(self._connection, schema, part))


class MySqlObserver:
    """Sessions beside the stream as a `cdc.observer.Observer`."""

    def __init__(self, dsn: Dsn, purpose: str) -> None:
        self._dsn = dsn
        self._purpose = purpose
        self._session: Connection | None = None
        self._known: LogPlace
        self._followed: tuple[str, dict[TableSchema, bool]] = ("", {})  # by the text of a state

    @property
    def dialect(self) -> str:
        return "mysql"

    @property
    def default_schema(self) -> str:
        return self._dsn.database

    @property
    def _connection(self) -> Connection:
        if self._session is None:
            self._session = Connection(self._dsn, self._purpose)
        return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def followed(self, state: str) -> dict[TableSchema, bool]:
        # Asked for each part of each table, and mostly the same text: to read it takes as long as there are tables.
        if self._followed[0] != state:
            loaded = SourceState.load(state)
            self._known = loaded.place
            tables = loaded.tables.values()
            followed = {entry.schema: entry.copied for entry in tables if not entry.again and entry.held is None}
            self._followed = (state, followed)
        return self._followed[1]

    def held(self, state: str) -> dict[TableSchema, str]:
        tables = SourceState.load(state).tables.values()
        return {entry.schema: entry.held for entry in tables if entry.held is not None}

    def selected(self, selection: Selection) -> list[Selected]:
        passing = "it may be one that an online schema change makes for itself; it is followed after a day"
        tables = selected(user_tables(self._connection, self._dsn.database), selection)
        names = [table.name for table in tables]
        return [
            Selected(table.schema, passing if any(is_ghost_of(table.name, name) for name in names) else None)
            for table in tables
        ]

    def rows_estimated(self, schema: TableSchema) -> int:
        found = named_tables(self._connection, [schema.table]).get(schema.table)
        return found.rows_estimated if found is not None else 0

    def leading(self, schema: TableSchema) -> tuple[int, ...]:
        return schema.key_before_other(ORDERED)

    def border(self, schema: TableSchema, after: Key | None, rows: int) -> Key | None:
        return border(self._connection, schema, self.leading(schema), after, rows)

    @contextmanager
    def look(self, *schemas: TableSchema, exact: bool = False) -> Iterator[MySqlLook]:
        found = named_tables(self._connection, [schema.table for schema in schemas])
        has_snapshots = all(table.is_transactional for table in found.values())
        session = self._connection
        try:
            with ExitStack() as held:
                if not has_snapshots or (exact and session.version.flavor == "mysql"):
                    # While nobody can write to the tables, all that was written to them is visible and in the log.
                    guard = held.enter_context(Connection(self._dsn, self._purpose))
                    guard.query(f"SET SESSION lock_wait_timeout = {_LOCK_WITHIN}")
                    guard.lose_locks_after(_MOMENT if has_snapshots else _LOOK)
                    _lock(guard, schemas, of_a_moment=has_snapshots)
                    Snapshot.begin_session(session)
                    at = log_now(guard)
                    place = self._place(session, at.file, at.offset)
                    if has_snapshots:
                        guard.query("UNLOCK TABLES")
                    yield MySqlLook(session, MySqlPlace(place.order, place))
                    if not has_snapshots:
                        guard.query("UNLOCK TABLES")  # fails if the lock was lost, and the look is void
                elif session.version.flavor == "mariadb" and (seen := self._snapshot_place(session)) is not None:
                    place = self._place(session, *seen)
                    yield MySqlLook(session, MySqlPlace(place.order, place))
                else:
                    yield MySqlLook(session, self._between(session))
                session.query("ROLLBACK")
        except BaseException:
            self.close()  # whatever state the session is in
            raise

    def _snapshot_place(self, session: Connection) -> tuple[str, int] | None:
        Snapshot.begin_session(session)
        return Snapshot.place(session)

    def _between(self, session: Connection) -> MySqlPlace:
        before = log_now(session)
        time.sleep(_SETTLES_WITHIN)
        Snapshot.begin_session(session)
        after = log_now(session)
        since, until = (self._place(session, at.file, at.offset) for at in (before, after))
        return MySqlPlace(since.order, until)

    def _place(self, session: Connection, file: str, offset: int) -> Position:
        return place_of(log_files(session), self._known, file, offset).position()


def _lock(guard: Connection, schemas: Sequence[TableSchema], *, of_a_moment: bool) -> None:
    """Keep everybody from writing to the tables.

    One statement that locks several tables has the first of them while it waits for the next. A transaction of the
    application that has written to the next and goes on to the first is what MySQL then ends, as a deadlock (1213).

    Raises:
        Unavailable: the tables can only be locked one by one.
    """
    if len(schemas) == 1:
        guard.query(f"LOCK TABLES {quoted_table(schemas[0].table)} READ")
    elif of_a_moment:
        guard.query("FLUSH TABLES WITH READ LOCK")
    else:
        raise Unavailable("Tables of engines without snapshots are locked one by one.")
