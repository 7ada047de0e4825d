"""What the followed tables look like: as the log tells with their next rows, and as the catalog has it at any time.

The catalog is ahead of the log. What it says of a table's rows is compared wherever the log describes the table, so
that a doubt comes before the rows that it may explain, and every few seconds. What is seen between two rows is taken in
once the log has been followed up to there, as if a row had come: a table that lies idle gets its new columns too.
Fingerprint and doubt go into one checkpoint, so that a doubt is never lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

import psycopg

from cdc import faults
from cdc.errors import SchemaChangeUnsupported
from cdc.model.change import ABSENT
from cdc.model.schema import TableSchema
from cdc.model.segment import Evolve, Suspect
from cdc.sources.postgres.catalog import Connection, Table, dropped_columns, missing_values, tables_by_oid, type_infos
from cdc.sources.postgres.evolution import added_columns, fill_values, next_schema, schema_of
from cdc.sources.postgres.fingerprint import Fingerprint, Look, are_empty, change, changed_types, look
from cdc.sources.postgres.names import Moves, make_room
from cdc.sources.postgres.notes import HEARTBEAT
from cdc.sources.postgres.pgoutput import Resolved
from cdc.sources.postgres.position import parse_lsn
from cdc.sources.postgres.relation import Relation
from cdc.sources.postgres.session import of_type, readable
from cdc.sources.postgres.state import NEVER, SourceState, TableState
from cdc.waiting import Waiting

log = logging.getLogger(__name__)

_LOOK_EVERY = 5.0  # seconds between looks at the catalog


class Shapes:
    """The shapes of the tables of one pipeline.

    Args:
        connection: a session of the control plane.
        state: of the source; changed as tables get other shapes.
        copy_again: has a table copied again that cannot be followed or set right otherwise.
        waiting: tells the time.

    Attributes:
        changed: takes note of tables that are to be asked for again at their next rows.
        is_settled: the catalog has been looked at in this run, and nothing is to be taken in.
    """

    def __init__(
        self,
        connection: Connection,
        state: SourceState,
        copy_again: Callable[[int, SchemaChangeUnsupported], None],
        waiting: Waiting,
    ) -> None:
        self._connection = connection
        self._state = state
        self._copy_again = copy_again
        self._waiting = waiting
        self._looked: float | None = None
        self._ahead: Look | None = None  # what the catalog said when it was ahead of what is followed
        self._behind = 0  # the log up to here has nothing more of what was before that
        self.changed: Callable[[Iterable[int]], None] = lambda _: None
        self.is_settled = False

    def resolve(self, relation: Relation) -> Resolved:
        """A table as it was when the log's rows were written.

        Raises:
            SchemaChangeUnsupported: what became of it is unknown, or its rows cannot be set right.
        """
        entry = self._state.tables[relation.oid]
        now = look(self._connection, [relation.oid]).tables.get(relation.oid)
        if relation == entry.relation and now == entry.fingerprint and now is not None:
            return Resolved(entry.schema)
        today = tables_by_oid(self._connection, [relation.oid]).get(relation.oid)
        dropped = dropped_columns(self._connection, relation.oid)
        schema = next_schema(entry, relation, today, type_infos(self._connection), dropped)
        if now is not None and (today is None or _described(today.relation) != _described(relation)):
            now = replace(now, columns=0)
        return self._take_in(entry, relation, schema, now)

    def look(self) -> bool:
        """Whether the catalog says something that is to be taken in, between two transactions."""
        now = self._waiting.now()
        if self._ahead is None and (self._looked is None or now - self._looked >= _LOOK_EVERY):
            self._looked = now
            before = self._inserted()
            seen = look(self._connection, self._followed())
            if self._is_news(seen):
                self._ahead, self._behind, self.is_settled = seen, self._written(), False
            else:
                self.is_settled, self._state.looked = True, before
        return self._ahead is not None

    def is_due(self, order: int) -> bool:
        """Whether `step` has something to do now that the log has been followed up to `order`."""
        return self._ahead is not None and order >= self._behind

    def step(self) -> list[Evolve | Suspect]:
        """Take in what the catalog says; the steps are to be given with a checkpoint, even if the list is empty."""
        before, self._ahead = self._ahead or Look(), None
        steps: list[Evolve | Suspect] = []
        with self._connection.transaction():
            self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            now = look(self._connection, self._followed())
            changed = [oid for oid, seen in now.tables.items() if seen != self._state.tables[oid].fingerprint]
            today = tables_by_oid(self._connection, changed) if changed else {}
        for oid, table in today.items():
            seen = now.tables[oid]
            if (known := before.tables.get(oid)) is None or known.columns != seen.columns:
                self._looked = None  # the log may still have rows of the shape that we saw, or of others
                continue
            try:
                steps += self._catch_up(table, seen)
            except SchemaChangeUnsupported as error:
                self._copy_again(oid, error)
        self.changed(step.new.identity for step in steps if isinstance(step, Evolve))
        return steps + list(self._doubt_types(now))

    def given(self) -> None:
        """The steps have been handed over, so that a run which ends now has them."""
        self.is_settled = self._ahead is None and self._looked is not None

    def _followed(self) -> list[int]:
        return [
            oid
            for oid, entry in self._state.tables.items()
            if entry.followed and entry.held is None and entry.start != NEVER
        ]

    def _is_news(self, seen: Look) -> bool:
        known = self._state.tables
        return self._state.types != seen.types or any(
            known[oid].fingerprint != fingerprint for oid, fingerprint in seen.tables.items()
        )

    def _catch_up(self, today: Table, now: Fingerprint) -> list[Evolve | Suspect]:
        """A table is what it is today, as far as the log has been followed."""
        entry = self._state.tables[today.schema.identity]
        if entry.fingerprint is not None and entry.fingerprint.columns == now.columns:
            resolved = self._take_in(entry, entry.relation, entry.schema, now)
        else:
            resolved = self._take_in(entry, today.relation, schema_of(entry, today), now)
        return resolved.steps(ABSENT)

    def _take_in(self, entry: TableState, relation: Relation, schema: TableSchema, now: Fingerprint | None) -> Resolved:
        """A table has a shape from here on, by what the catalog says now; nothing if the table is no more."""
        oid = relation.oid
        if (relation.namespace, relation.name) == (entry.relation.namespace, entry.relation.name):
            schema = replace(schema, table=entry.schema.table)
        fill: dict[int, str] = {}
        doubt = None
        if now is not None:
            fill, doubt = self._older_rows(entry, schema, now)
            if doubt is None and entry.fingerprint is not None:
                now = replace(now, attributes=entry.fingerprint.attributes)
        if doubt is not None and not _is_comparable(schema):
            raise _beyond_comparison(schema, doubt)
        moves = Moves()
        if schema.table != entry.schema.table:
            moves = make_room(self._state, {oid: schema.table}, tables_by_oid(self._connection, self._state.tables))
        if schema != entry.schema:
            log.info("%s changed its shape", schema.table)
        if doubt is not None:
            log.warning("%s is suspect: %s", schema.table, doubt)
        fingerprint = now or entry.fingerprint
        self._state.tables[oid] = replace(entry, schema=schema, relation=relation, fingerprint=fingerprint)
        faults.point("schema.after")
        return Resolved(schema, entry.schema, fill, moves.before, moves.after, doubt)

    def _older_rows(
        self, entry: TableState, schema: TableSchema, now: Fingerprint
    ) -> tuple[dict[int, str], str | None]:
        """What rows that were there before hold in columns that are new, and why they may have changed."""
        was = entry.fingerprint
        if was is None:
            return {}, "the catalog was not watched before"
        reasons = []
        if (changed := change(was, now)) is not None:
            if changed.came and are_empty(self._connection, changed.came):
                changed = replace(changed, came=frozenset())
            reasons += changed.reasons
        fill: dict[int, str] = {}
        if added := added_columns(entry.schema, schema):
            missing = missing_values(self._connection, schema.identity, now.leaves)
            fill, uncertain = fill_values(added, was, now, missing)
            if unknown := [column.name for column in uncertain if column.key is not None]:
                raise SchemaChangeUnsupported(
                    f"In older rows of {schema.table}, the values of {', '.join(unknown)} are not known, but they are "
                    "part of its key."
                )
            reasons += [f"what older rows hold in {column.name} is not known" for column in uncertain]
        return fill, "; ".join(reasons) or None

    def _doubt_types(self, now: Look) -> Iterable[Suspect]:
        """Doubt the tables whose values may read otherwise than before."""
        was, self._state.types = self._state.types, now.types
        for oid, names in now.users(changed_types(was, now.types)).items():
            schema, start = self._state.tables[oid].schema, self._state.tables[oid].start
            why = f"values of the type {', '.join(names)} may read otherwise than before"
            if start == NEVER:
                continue  # it is to be copied again
            if _is_comparable(schema):
                log.warning("%s is suspect: %s", schema.table, why)
                yield Suspect(schema, why)
            else:
                self._copy_again(oid, _beyond_comparison(schema, why))

    @readable()
    def _inserted(self) -> int:
        """How far the log is, on the disk or not."""
        return parse_lsn(
            str(of_type(self._connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone(), tuple)[0])
        )

    @readable()
    def _written(self) -> int:
        """The LSN up to which the log has all that the session saw before.

        With synchronous_commit = off a commit is seen before it is on the disk, and nobody sends it before it is there.
        """
        query = "SELECT pg_current_wal_insert_lsn()::text, pg_current_wal_flush_lsn()::text"
        written, flushed = map(str, of_type(self._connection.execute(query).fetchone(), tuple))
        if written != flushed:
            with (
                suppress(psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction),
                self._connection.transaction(),
            ):
                self._connection.execute("SET LOCAL synchronous_commit = local")
                self._connection.execute("SELECT pg_logical_emit_message(true, %s, '')", (HEARTBEAT,))
        return parse_lsn(written)


def _is_comparable(schema: TableSchema) -> bool:
    """Whether its rows can be compared with the source; otherwise the log carries its inserts only."""
    return bool(schema.key) or schema.full_before


def _beyond_comparison(schema: TableSchema, why: str) -> SchemaChangeUnsupported:
    return SchemaChangeUnsupported(f"{schema.table} has no key to be compared by: {why}.")


def _described(relation: Relation) -> tuple[object, ...]:
    columns = [(column.name, column.type_oid, column.type_modifier) for column in relation.columns]
    return relation.namespace, relation.name, columns
