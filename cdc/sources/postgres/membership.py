"""Which tables the pipeline's publications hold, and how tables come and go while the log is followed.

A table that comes has been in the publication since some moment, and transactions that began before it may have changed
the table without being sent (A-34). So its changes are passed over until all of these have ended; from there on its
rows are copied part by part, and its changes applied. Each step is in the target's checkpoint before the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from psycopg import sql

from cdc import faults
from cdc.model.change import ABSENT
from cdc.model.segment import Evolve, Reset
from cdc.source import Link
from cdc.sources.postgres.catalog import Connection, Table, publication_fingerprint, tables_by_oid, without_tables
from cdc.sources.postgres.names import make_room
from cdc.sources.postgres.pgoutput import Moved
from cdc.sources.postgres.session import number, readable, told
from cdc.sources.postgres.state import NEVER, SourceState, TableState
from cdc.waiting import Waiting

log = logging.getLogger(__name__)

_LOOK_EVERY = 5.0  # seconds between looks for tables that have come


class Membership:
    """The publications of one pipeline.

    Args:
        connection: a session of the control plane.
        state: of the source; changed as tables come and go.
        publication, inserts_publication: their names; the second is of tables whose updates the log cannot identify:
            publishing those would make them fail (A-35).
        select: the tables that are meant, as they are now.
        waiting: tells the time.
        is_fixed: none come or go, whatever is meant.
    """

    def __init__(
        self,
        connection: Connection,
        state: SourceState,
        publication: str,
        inserts_publication: str,
        select: Callable[[], Sequence[Table]],
        waiting: Waiting,
        *,
        is_fixed: bool = False,
    ) -> None:
        self._connection = connection
        self._state = state
        self._publication = publication
        self._inserts_publication = inserts_publication
        self._select = select
        self._waiting = waiting
        self.moved: Callable[[Sequence[Moved]], None] = lambda _: None  # is told of tables that get other names
        self._looked = 0.0
        self._dropped: dict[int, int] = {}  # tables that are no more, each with a place in the log behind its drop
        # The transaction that put tables in; all that are older must end first. A run that begins again does not know
        # which it was, and waits for all that there are.
        self._waits_for = self._last_transaction() if self._waiting_tables() else None
        self._is_fixed = is_fixed
        self.is_due = self._changes = False
        # At a first start all tables are still to come, by the copy.
        self.is_settled = not state.tables or self._is_settled()

    def create(self, tables: Sequence[Table]) -> None:
        """Make the publications (A-31: before the slot)."""
        groups = {
            self._publication: [table for table in tables if table.has_identity],
            self._inserts_publication: [table for table in tables if not table.has_identity],
        }
        for name, members in groups.items():
            if members or name == self._publication:
                self._create(name, members)
        self._state.publications = publication_fingerprint(self._connection, groups)

    def _create(self, name: str, tables: Sequence[Table]) -> None:
        operations = "insert, truncate" if name == self._inserts_publication else "insert, update, delete, truncate"
        listed = sql.SQL(", ").join(_only(table) for table in tables)
        with self._connection.transaction():
            self._connection.execute(
                sql.SQL("CREATE PUBLICATION {} {}WITH (publish = {}, publish_via_partition_root = true)").format(
                    sql.Identifier(name),
                    sql.SQL("FOR TABLE {} ").format(listed) if tables else sql.SQL(""),
                    sql.Literal(operations),
                )
            )
            self._connection.execute(
                sql.SQL("COMMENT ON PUBLICATION {} IS {}").format(
                    sql.Identifier(name), sql.Literal(self._state.pipeline)
                )
            )

    def look(self, link: Link) -> bool:
        """Whether something is to be done between two transactions: `step` does it."""
        self._changes = self._is_change_due(link)
        self.is_due = self._changes or bool(self._passed(link.durable.order if link.durable is not None else 0))
        return self.is_due

    def _is_change_due(self, link: Link) -> bool:
        if self._is_fixed:
            return False
        if self._waits_for is not None:
            return self._older_have_ended()
        if self._state.changing:
            return link.idle or (link.durable is not None and link.durable.order > self._announced_at)
        if self._looked and self._waiting.now() - self._looked < _LOOK_EVERY:
            return self._changes
        self._looked = self._waiting.now()
        self._look_for_dropped()
        return bool(self._coming() or self._going())

    def step(self, order: int) -> list[Reset | Evolve]:
        """Do what is due; the steps are to be given with a checkpoint at `order`, even if there are none."""
        self.is_due = self.is_settled = False
        for oid in self._passed(order):
            self._let_go(oid)
        if not self._changes:
            return []
        self._changes = False
        if self._waits_for is not None:
            self._waits_for = None
            return self._begin(order)
        if self._state.changing:
            self._change()
            faults.point("membership.changed")
        else:
            self._state.changing = sorted({table.schema.identity for table in self._coming()} | self._going())
            self._announced_at = order
            faults.point("membership.announced")
        return []

    def given(self) -> None:
        """The steps have been handed over, so that a run which ends now has them."""
        self.is_settled = self._is_settled()

    def _is_settled(self) -> bool:
        return self._waits_for is None and not (self._state.changing or self._coming() or self._going())

    def _coming(self) -> list[Table]:
        """Tables that are meant and not followed."""
        known = self._state.tables
        return [t for t in self._select() if (e := known.get(t.schema.identity)) is None or not e.followed]

    def _going(self) -> set[int]:
        """Tables that are followed and not meant any more; one that was dropped is neither."""
        meant = {table.schema.identity for table in self._select()}
        left = {oid for oid, entry in self._state.tables.items() if entry.followed and oid not in meant}
        return set(tables_by_oid(self._connection, left)) if left else set()

    def _change(self) -> None:
        """Put tables into the publications and take others out, in one transaction."""
        coming = [table for table in self._coming() if table.schema.identity in self._state.changing]
        going = self._going() & set(self._state.changing)
        members = self._members()
        with self._connection.transaction():
            for table in coming:
                name = self._publication if table.has_identity else self._inserts_publication
                if table.schema.identity in members:
                    continue
                if name not in self._state.publications and not publication_fingerprint(self._connection, [name]):
                    self._create(name, [table])
                else:
                    self._alter(name, "ADD", _only(table))
            for oid in going & set(members):
                self._alter(members[oid], "DROP", _named(self._state.tables[oid]))
            own = self._own_transaction()
        for table in coming:
            entry = TableState(table.schema, table.relation, NEVER, copied=False)
            self._state.tables[table.schema.identity] = entry
            log.info("%s is new; it will be copied", table.schema.table)
        for oid in going:
            entry = self._state.tables[oid]
            self._state.tables[oid] = replace(entry, start=NEVER, followed=False)
            log.info("%s is not followed any more; the target keeps what it has of it", entry.schema.table)
        names = [self._publication, self._inserts_publication]
        self._state.publications = publication_fingerprint(self._connection, names)
        self._state.changing = []
        self._waits_for = own if coming else None

    def _waiting_tables(self) -> list[int]:
        """Those that were put into the publications, and whose changes mean nothing yet."""
        return [oid for oid, entry in self._state.tables.items() if entry.followed and entry.start == NEVER]

    @readable()
    def _own_transaction(self) -> int:
        row = self._connection.execute("SELECT pg_current_xact_id()::text").fetchone()
        return number(told(row, tuple)[0])

    @readable()
    def _last_transaction(self) -> int:
        row = self._connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").fetchone()
        return number(told(row, tuple)[0]) - 1

    @readable()
    def _older_have_ended(self) -> bool:
        row = self._connection.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text").fetchone()
        assert self._waits_for is not None
        return number(told(row, tuple)[0]) > self._waits_for

    @readable()
    def _look_for_dropped(self) -> None:
        """The log may still have changes of a table that is no more; it has none behind what is written now."""
        followed = {oid for oid, entry in self._state.tables.items() if entry.followed} - self._dropped.keys()
        gone = followed - tables_by_oid(self._connection, followed).keys() if followed else set()
        if gone:
            row = self._connection.execute("SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::int8").fetchone()
            self._dropped |= dict.fromkeys(gone, number(told(row, tuple)[0]))

    def _passed(self, order: int) -> list[int]:
        """Tables that are no more, in the source nor in the log from there on."""
        return [oid for oid, behind in self._dropped.items() if order >= behind]

    def _let_go(self, oid: int) -> None:
        del self._dropped[oid]
        entry = self._state.tables[oid]
        self._state.tables[oid] = replace(entry, start=NEVER, copied=True, followed=False)
        for name, fingerprint in self._state.publications.items():
            self._state.publications[name] = without_tables(fingerprint, [oid])
        log.warning("%s was dropped in the source; the target keeps its rows", entry.schema.table)

    def _begin(self, order: int) -> list[Reset | Evolve]:
        """From here on the changes of the tables that came mean something."""
        waiting = self._waiting_tables()
        found = tables_by_oid(self._connection, waiting)
        for oid in waiting:
            if (table := found.get(oid)) is None:
                del self._state.tables[oid]
            else:
                self._state.tables[oid] = TableState(table.schema, table.relation, order, copied=True)
        claims = {oid: table.schema.table for oid, table in found.items()}
        moves = make_room(self._state, claims, tables_by_oid(self._connection, self._state.tables))
        self.moved([*moves.before, *moves.after])
        return [
            *(Evolve(move.old, move.new, ABSENT) for move in moves.before),
            *(Reset(table.schema, by_parts=True) for table in found.values()),
            *(Evolve(move.old, move.new, ABSENT) for move in moves.after),
        ]

    @readable()
    def _members(self) -> dict[int, str]:
        """The tables in the publications, each with the name of its publication."""
        rows = self._connection.execute(
            "SELECT r.prrelid::int8, p.pubname::text FROM pg_publication_rel r "
            "JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = ANY(%s)",
            ([self._publication, self._inserts_publication],),
        ).fetchall()
        return {number(oid): str(name) for oid, name in rows}

    def _alter(self, name: str, verb: str, table: sql.Composable) -> None:
        statement = sql.SQL("ALTER PUBLICATION {} {} TABLE {}")
        self._connection.execute(statement.format(sql.Identifier(name), sql.SQL(verb), table))


def _only(table: Table) -> sql.Composed:
    name = sql.Identifier(table.schema.table.schema, table.schema.table.name)
    return sql.SQL("ONLY {}").format(name) if table.kind == "r" else sql.SQL("{}").format(name)


def _named(entry: TableState) -> sql.Composable:
    return sql.Identifier(entry.schema.table.schema, entry.schema.table.name)
