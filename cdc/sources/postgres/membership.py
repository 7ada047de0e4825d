"""Which tables the pipeline's publications hold, and how tables come and go while the log is followed.

A table that comes has been in the publication since some moment, and transactions that began before it may have changed
the table without being sent (A-34). So its changes are passed over until all of these have ended; from there on its
rows are copied part by part, and its changes applied. Each step is in the target's checkpoint before the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from psycopg import sql

from cdc import faults
from cdc.model.change import ABSENT
from cdc.model.schema import TableName, TableSchema
from cdc.model.segment import Drop, Evolve, Reset, Step
from cdc.model.standing import Apart, Standing, State
from cdc.source import Link
from cdc.sources.postgres.catalog import Connection, Table, publication_fingerprint, tables_by_oid, without_tables
from cdc.sources.postgres.check import missing_rights
from cdc.sources.postgres.fingerprint import look
from cdc.sources.postgres.names import make_room
from cdc.sources.postgres.relation import Moved
from cdc.sources.postgres.session import number, of_type, readable
from cdc.sources.postgres.state import NEVER, SourceState, TableState
from cdc.target import SetApart, takes_all
from cdc.waiting import Waiting

log = logging.getLogger(__name__)

_LOOK_EVERY = 5.0  # seconds between looks for tables that have come
_LEVELS = {State.HELD: logging.ERROR, State.LEFT_OUT: logging.INFO}


class Membership:
    """The publications of one pipeline.

    Args:
        connection: a session of the control plane.
        state: of the source; changed as tables come and go.
        publication, inserts_publication: their names; the second is of tables whose updates the log cannot identify:
            publishing those would make them fail (A-35).
        named: the tables of the selection, as they are now.
        follows: whether one of them is meant to be followed.
        waiting: tells the time.
        is_fixed: none come or go, whatever is meant.
        set_apart: what the target says of those that come.
    """

    def __init__(
        self,
        connection: Connection,
        state: SourceState,
        publication: str,
        inserts_publication: str,
        named: Callable[[], Sequence[Table]],
        follows: Callable[[Table], bool],
        waiting: Waiting,
        *,
        is_fixed: bool = False,
        set_apart: SetApart = takes_all,
    ) -> None:
        self._connection = connection
        self._state = state
        self._publication = publication
        self._inserts_publication = inserts_publication
        self._named = named
        self._follows = follows
        self._waiting = waiting
        self.moved: Callable[[Sequence[Moved]], None] = lambda _: None  # takes note of tables that get other names
        self.lost: Callable[[TableState, str], None] = lambda *_: None  # of tables that are not known any more
        self.begun: Callable[[Iterable[int]], None] = lambda _: None  # takes note of tables that begin to be followed
        self._looked = 0.0
        self._announced_at = 0
        self._dropped: dict[int, int] = {}  # tables that are no more, each with a place in the log behind its drop
        # The transaction that put tables in; all that are older must end first. A run that begins again does not know
        # which it was, and waits for all that there are.
        self._waits_for = self._last_transaction() if self._waiting_tables() else None
        self._is_fixed = is_fixed
        self._cannot_take = set_apart
        self.is_due = self._changes = False
        if state.tables and not is_fixed:
            self._look_for_dropped()
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
        self._set_apart(self._named(), {})

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
        return any(self._due())

    def begin_again(self, oid: int) -> None:
        """Take a table in as it is now, once all transactions that are open now have ended, and copy it by parts.

        One that is held outside of the publications is put into them first, or held again.
        """
        self._state.tables[oid] = replace(self._state.tables[oid], start=NEVER, copied=True, held=None)
        if self._waiting_tables():
            self._waits_for = self._last_transaction()
        self.is_settled = False

    def step(self, order: int) -> list[Step]:
        """Do what is due; the steps are to be given with a checkpoint at `order`, even if the list is empty."""
        self.is_due = self.is_settled = False
        dropped: list[Step] = [Drop(schema) for oid in self._passed(order) if (schema := self._let_go(oid)) is not None]
        if not self._changes:
            return dropped
        self._changes = False
        if self._waits_for is not None:
            self._waits_for = None
            return [*dropped, *self._begin(order)]
        if self._state.changing:
            self._change()
            faults.point("membership.changed")
        else:
            coming, going = self._due()
            self._state.changing = sorted({table.schema.identity for table in coming} | going.keys())
            self._announced_at = order
            faults.point("membership.announced")
        return dropped

    def given(self) -> None:
        """The steps have been handed over, so that a run which ends now has them."""
        self.is_settled = self._is_settled()

    def _is_settled(self) -> bool:
        return self._waits_for is None and not (self._state.changing or self._dropped or any(self._due()))

    def _due(self) -> tuple[list[Table], dict[int, Table]]:
        """The tables that come, and by oid those that go; one that was dropped is neither.

        One that is in the wrong publication, since it lost its identity or got one, goes first and comes then. One
        whose updates cannot be followed any more is held outside of the publications until they can (A-35).
        """
        named = {table.schema.identity: table for table in self._named()}
        meant = {oid: self._publication_of(table) for oid, table in named.items() if self._follows(table)}
        members, changing, states = self._members(), self._state.changing, self._state.tables
        coming, left = [], []
        for oid, name in meant.items():
            entry, holds = states.get(oid), members.get(oid)
            # A run that was killed may have put it in, or taken it out, already: then it is among those that change.
            is_outside = holds is None or (oid in changing and holds == name)
            if entry is None or not entry.followed or (entry.start == NEVER and is_outside):
                coming.append(named[oid])
        comes = {table.schema.identity for table in coming}
        for oid, entry in states.items():
            is_held_outside = entry.held is not None and oid in named and oid not in members
            if not entry.followed or oid in comes or is_held_outside:
                continue
            # That others took it out is found elsewhere.
            holds = members.get(oid, None if oid in changing else meant.get(oid))
            if oid not in meant or holds != meant[oid]:
                left.append(oid)
        lacking = self._lacking([table for table in coming if table.schema.identity not in members])
        taken = [entry.schema.table for entry in states.values()] if coming else []
        clashing = self._cannot_take((table.schema for table in coming if table.schema.table not in lacking), taken)
        refused = {table: Standing(State.HELD, why) for table, why in lacking.items()}
        refused |= {table: Standing(State.LEFT_OUT, why) for table, why in clashing.items()}
        self._set_apart(named.values(), refused)
        allowed = [table for table in coming if table.schema.table not in refused]
        return allowed, tables_by_oid(self._connection, left) if left else {}

    @readable()
    def _lacking(self, tables: Sequence[Table]) -> dict[TableName, str]:
        """What the role lacks to publish and copy some tables, with what helps."""
        lacking: dict[TableName, str] = {}
        for table, finding in missing_rights(self._connection, tables) if tables else ():
            lacking[table] = f"{lacking.get(table, '')} {finding.message} Try: {finding.fix}".lstrip()
        return lacking

    def _set_apart(self, named: Iterable[Table], refused: Mapping[TableName, Standing]) -> None:
        """Note which tables of the selection are not followed, and why."""
        apart = {
            table.schema.table: Standing(State.LEFT_OUT, _why_left_out(table))
            for table in named
            if not self._follows(table) and not self._is_known(table)
        } | dict(refused)
        before = {entry.table: entry.standing for entry in self._state.apart}
        for table, standing in apart.items():
            if before.get(table) != standing:
                log.log(_LEVELS[standing.state], "%s is %s: %s", table, standing.state, standing.reason)
        self._state.apart = [Apart(table, standing) for table, standing in apart.items()]

    def _is_known(self, table: Table) -> bool:
        entry = self._state.tables.get(table.schema.identity)
        return entry is not None and entry.followed

    def _publication_of(self, table: Table) -> str:
        return self._publication if table.has_identity else self._inserts_publication

    def _change(self) -> None:
        """Put tables into the publications and take others out, in one transaction."""
        coming, going = self._due()
        coming = [table for table in coming if table.schema.identity in self._state.changing]
        going = {oid: table for oid, table in going.items() if oid in self._state.changing}
        members = self._members()
        with self._connection.transaction():
            for name, tables in self._by_publication(t for t in coming if t.schema.identity not in members).items():
                if name not in self._state.publications and not publication_fingerprint(self._connection, [name]):
                    self._create(name, tables)
                else:
                    self._alter(name, "ADD", sql.SQL(", ").join(map(_only, tables)))
            for oid in going.keys() & members.keys():
                self._alter(members[oid], "DROP", _only(going[oid]))  # under the name that it has now
            own = self._own_transaction()
        for table in coming:
            entry = TableState(table.schema, table.relation, NEVER, copied=False)
            self._state.tables[table.schema.identity] = entry
            log.info("%s is new; it will be copied", table.schema.table)
        for oid, table in going.items():
            self._take_out(oid, table)
        names = [self._publication, self._inserts_publication]
        self._state.publications = publication_fingerprint(self._connection, names)
        self._state.changing = []
        self._waits_for = own if coming else self._waits_for
        self._looked = 0.0  # what went to come back into another publication comes now

    def _by_publication(self, tables: Iterable[Table]) -> dict[str, list[Table]]:
        found: dict[str, list[Table]] = {}
        for table in tables:
            found.setdefault(self._publication_of(table), []).append(table)
        return found

    def _take_out(self, oid: int, table: Table) -> None:
        entry = self._state.tables[oid]
        name, why = entry.schema.table, _why_left_out(table)
        is_named = any(oid == named.schema.identity for named in self._named())
        if is_named and table.obstacle is not None and not self._follows(table):
            log.error("%s is held, its changes are skipped: %s", name, why)
            self.lost(entry, why)
            self._state.tables[oid] = replace(entry, start=NEVER, held=why)
            return
        self._state.tables[oid] = replace(entry, start=NEVER, followed=False, held=None)
        if is_named and table.obstacle is not None:
            log.warning("%s is followed only for its inserts from here on: %s", name, why)
        elif not is_named:
            log.warning("%s is not followed any more; the target keeps its rows", name)
            self.lost(entry, "it was taken out of the selection")

    def _waiting_tables(self) -> list[int]:
        """Those that were put into the publications or are to be copied again, and whose changes mean nothing yet."""
        waiting = [
            oid
            for oid, entry in self._state.tables.items()
            if entry.followed and entry.start == NEVER and entry.held is None
        ]
        members = self._members() if waiting else {}
        return [oid for oid in waiting if oid in members]

    @readable()
    def _own_transaction(self) -> int:
        row = self._connection.execute("SELECT pg_current_xact_id()::text").fetchone()
        return number(of_type(row, tuple)[0])

    @readable()
    def _last_transaction(self) -> int:
        row = self._connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").fetchone()
        return number(of_type(row, tuple)[0]) - 1

    @readable()
    def _older_have_ended(self) -> bool:
        row = self._connection.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text").fetchone()
        assert self._waits_for is not None
        return number(of_type(row, tuple)[0]) > self._waits_for

    @readable()
    def _written(self) -> int:
        """The LSN up to which the log is written now."""
        row = self._connection.execute("SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::int8").fetchone()
        return number(of_type(row, tuple)[0])

    @readable()
    def _look_for_dropped(self) -> None:
        """The log may still have changes of a table that is no more; it has none behind what is written now."""
        followed = {oid for oid, entry in self._state.tables.items() if entry.followed} - self._dropped.keys()
        gone = followed - tables_by_oid(self._connection, followed).keys() if followed else set()
        if gone:
            self._dropped |= dict.fromkeys(gone, self._written())
            self.is_settled = False

    def _passed(self, order: int) -> list[int]:
        """Tables that are no more, in the source nor in the log from there on."""
        return [oid for oid, behind in self._dropped.items() if order >= behind]

    def _let_go(self, oid: int) -> TableSchema | None:
        """Follow a table no more that was dropped; what it was, if a target has it."""
        del self._dropped[oid]
        entry = self._state.tables[oid]
        self._state.tables[oid] = replace(entry, start=NEVER, copied=True, followed=False)
        for name, fingerprint in self._state.publications.items():
            self._state.publications[name] = without_tables(fingerprint, [oid])
        log.warning("%s was dropped in the source; the target keeps its rows", entry.schema.table)
        return entry.schema if entry.copied and entry.held is None else None

    def _begin(self, order: int) -> list[Reset | Evolve]:
        """From here on the changes of the tables that came mean something."""
        waiting = self._waiting_tables()
        seen = look(self._connection, waiting)
        self._state.types = seen.types | self._state.types
        # Whatever was committed before the catalog is read may have another shape, and is in the copy.
        start = max(order, self._written())
        found = tables_by_oid(self._connection, waiting)
        for oid in waiting:
            entry = self._state.tables[oid]
            if (table := found.get(oid)) is not None:
                fingerprint = seen.tables.get(oid)
                self._state.tables[oid] = TableState(
                    table.schema, table.relation, start, copied=True, fingerprint=fingerprint
                )
            elif entry.copied:
                self._state.tables[oid] = replace(entry, followed=False)
            else:
                del self._state.tables[oid]
        self.begun(waiting)
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


def _why_left_out(table: Table) -> str:
    if table.obstacle is None:
        return "It has no columns to replicate."
    return f"{table.obstacle.message}. Try: {table.obstacle.fix}"


def _only(table: Table) -> sql.Composed:
    name = sql.Identifier(table.schema.table.schema, table.schema.table.name)
    return sql.SQL("ONLY {}").format(name) if table.kind == "r" else sql.SQL("{}").format(name)
