"""The PostgreSQL source: snapshot, then stream, from one slot that belongs to one pipeline."""

from __future__ import annotations

import difflib
import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from cdc import faults
from cdc.errors import OperatorNeeded, PublicationChanged, SlotBusy, UsageError
from cdc.findings import Severity
from cdc.model.change import Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableName
from cdc.model.segment import Changes, Reset, Segment
from cdc.selection import Selection
from cdc.source import Head, Link
from cdc.sources.postgres.catalog import (
    Table,
    missing_values,
    publication_fingerprint,
    tables_by_oid,
    type_infos,
    user_tables,
)
from cdc.sources.postgres.check import check
from cdc.sources.postgres.connection import Dsn, connect, connect_replication, mapped_errors
from cdc.sources.postgres.copy import SnapshotReader, begin_snapshot, shape
from cdc.sources.postgres.evolution import fill_values, next_schema
from cdc.sources.postgres.forecast import Forecast, safe_bytes
from cdc.sources.postgres.identity import (
    Server,
    end_lost_session,
    holder,
    identify,
    is_at_work,
    read_slot,
    verify_publications,
    verify_server,
    verify_slot,
)
from cdc.sources.postgres.membership import Membership
from cdc.sources.postgres.names import Moves, make_room
from cdc.sources.postgres.notes import HEARTBEAT
from cdc.sources.postgres.pgoutput import Decoder, Relation, Resolved
from cdc.sources.postgres.session import Session, readable
from cdc.sources.postgres.slot import create_slot
from cdc.sources.postgres.state import NEVER, SourceState, TableState
from cdc.sources.postgres.stream import ReplicationStream
from cdc.waiting import MACHINE, Waiting

log = logging.getLogger(__name__)

_HEARTBEAT_EVERY = 30.0  # seconds
_LOOK_EVERY = 5.0  # seconds between looks at the publications
_PATIENCE = 15.0  # seconds that the stream may wait for an answer about something else
_COPY_SEGMENTS = 2  # budgets of the stream in one segment of a copy: full row groups go straight into DuckDB's file
_FORECAST_EVERY = 10.0  # seconds between looks at how much log the slot may still keep, while tables are copied
_UNCLAIMED = Position(0, "0/0")  # of the checkpoint that says: a slot of this pipeline may exist from now on


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user may choose of a source.

    Attributes:
        name: of the pipeline.
        slot: the replication slot's name, which is also the publication's.
        selection: which tables.
        include_keyless: follow tables whose updates the log cannot identify, for inserts and truncates only (A-35).
        workers: sessions that copy in parallel.
        budget: bytes of log that make one segment at most.
        notes: tell what applications write into the log with pg_logical_emit_message, too.
    """

    name: str
    slot: str
    selection: Selection
    include_keyless: bool
    workers: int
    budget: int
    notes: bool = False

    @property
    def publication(self) -> str:
        return self.slot

    @property
    def inserts_publication(self) -> str:
        """Of tables whose updates the log cannot identify: publishing those would make them fail (A-35)."""
        return f"{self.slot}_inserts"


class PostgresSource:
    """One PostgreSQL database as a `cdc.source.Source`.

    Args:
        waiting: how it waits, and by which clock.
        readers: process ids of the server for sessions of this run that have read from the slot; grows.
    """

    def __init__(
        self, dsn: Dsn, settings: Settings, waiting: Waiting = MACHINE, readers: set[int] | None = None
    ) -> None:
        self._dsn = dsn
        self._settings = settings
        self._waiting = waiting
        self._readers = readers if readers is not None else set()
        self._resources = ExitStack()
        self._application = f"cdc {settings.name}"
        self._connection: Session
        self._opened_at: Head
        self._stream: ReplicationStream | None = None
        self._selected: list[Table] = []
        self._state: SourceState
        self._membership: Membership
        self._position = _UNCLAIMED
        self._dumped: tuple[object, str] | None = None
        self._looked = 0.0
        self._beat = self._waiting.now()

    @property
    def head(self) -> Head:
        return (self._stream.head if self._stream is not None else None) or self._opened_at

    @property
    def estimates(self) -> dict[TableName, int]:
        return {table.schema.table: table.rows_estimated for table in self._selected}

    @property
    def is_complete(self) -> bool:
        return not self._uncopied() and self._membership.is_settled

    def open(self, resume: Checkpoint | None) -> None:
        self._connection = self._resources.enter_context(connect(self._dsn, self._application))
        with mapped_errors(self._dsn):
            if resume is None:
                self._selected = self._select()
                self._refuse_unfit()
                self._refuse_leftovers()
            with connect_replication(self._dsn, self._application) as replication:
                server = identify(replication, self._connection)
                self._opened_at = Head(server.flushed, server.clock)
                if resume is not None:
                    self._state = SourceState.load(resume.state)
                    self._position = resume.position
                    self._verify(resume, server, replication)
                    self._selected = self._select_again()
                    self._membership = self._make_membership()
                    return
            self._state = SourceState(
                pipeline=f"{self._settings.name} {secrets.token_hex(8)}",
                system=server.system,
                database=server.database,
                timeline=server.timeline,
                slot=self._settings.slot,
            )
            self._membership = self._make_membership()

    def _make_membership(self, *, is_fixed: bool = False) -> Membership:
        settings = self._settings
        return Membership(
            self._connection,
            self._state,
            settings.publication,
            settings.inserts_publication,
            self._select_again,
            self._waiting,
            is_fixed=is_fixed,
        )

    def _verify(self, resume: Checkpoint, server: Server, replication: Session) -> None:
        state, position = self._state, resume.position
        if state.slot != self._settings.slot:
            raise UsageError(
                f"The target belongs to the pipeline {state.slot.removeprefix('cdc_')!r}.",
                hint="Give that name with --name, or use another target.",
            )
        verify_server(state, position, server, replication, self._dsn)
        if position == _UNCLAIMED:
            return
        verify_slot(state, position, self._connection, self._dsn)
        state.timeline = server.timeline

    def _refuse_unfit(self) -> None:
        """The preflight of a first start: nothing is made on a server where it could not work."""
        settings = self._settings
        findings = check(self._connection, self._dsn, settings.selection, include_keyless=settings.include_keyless)
        fatal = [finding for finding in findings if finding.severity is Severity.FATAL]
        if fatal:
            raise UsageError(
                "The source is not ready: " + " ".join(f"{finding.subject}: {finding.message}" for finding in fatal),
                hint=" ".join(finding.fix for finding in fatal if finding.fix) or "`cdc check` says more.",
            )

    def _refuse_leftovers(self) -> None:
        """A new pipeline must not take over what another one may still need (A-11)."""
        name = self._settings.name
        if read_slot(self._connection, self._settings.slot) is not None or publication_fingerprint(
            self._connection, [self._settings.publication, self._settings.inserts_publication]
        ):
            raise OperatorNeeded(
                f"{self._dsn} already has a slot or publication of a pipeline named {name!r}, "
                "but the target knows nothing of it.",
                hint=f"Choose another --name, or run `cdc teardown --name {name}` if that pipeline is no more.",
            )

    def _select(self, known: Sequence[TableName] = ()) -> list[Table]:
        """The tables to follow, and a refusal of what a pipeline cannot do with them.

        Args:
            known: those that were followed: the name of one that was dropped meanwhile is no typing error.
        """
        selection = self._settings.selection
        everything = user_tables(self._connection)
        _require_matches(selection, [*(table.schema.table for table in everything), *known])
        tables = [table for table in everything if selection.matches(table.schema.table)]
        followed = [table for table in tables if self._is_followed(table)]
        if not followed and not known:
            left_out = f" ({len(tables)} have no usable replica identity)" if tables else ""
            raise UsageError(
                f"No table of {self._dsn} can be followed{left_out}.",
                hint="`cdc check` lists the tables and what each of them needs; --tables says which ones are meant.",
            )
        return followed

    def _select_again(self) -> list[Table]:
        return self._select([entry.schema.table for entry in self._state.tables.values()])

    def _is_followed(self, table: Table) -> bool:
        return bool(table.schema.columns) and (table.has_identity or self._settings.include_keyless)

    def close(self) -> None:
        self._resources.close()
        self._resources = ExitStack()

    # --- snapshot ---------------------------------------------------------------------------------------------------

    def copy(self, link: Link) -> Iterator[Segment]:
        if self._position == _UNCLAIMED:
            yield self._segment([])
            while link.durable is None:
                if link.stopping:
                    return
                link.alive()
                self._waiting.sleep(0.001)
            yield from self._first_copy(link)
        while (tables := self._uncopied()) and not link.stopping:
            # The exported snapshot of the first try is gone, so these get one of their own, at a later LSN.
            with mapped_errors(self._dsn), connect_replication(self._dsn, self._application) as replication:
                slot = f"{self._settings.slot[:40]}_copy_{secrets.token_hex(4)}"
                made = create_slot(replication, slot, self._connection, link, temporary=True)
                if made is not None:
                    yield from self._copy_tables({table.schema.identity for table in tables}, *made, link)

    def _uncopied(self) -> list[Table]:
        """Those whose copy was cut off; not those that come while the log is followed, which are copied then."""
        states = self._state.tables
        known = [(table, entry) for table in self._selected if (entry := states.get(table.schema.identity)) is not None]
        return [table for table, entry in known if not entry.copied and entry.start != NEVER]

    def _first_copy(self, link: Link) -> Iterator[Segment]:
        """Make what the pipeline needs on the source, in the order that matters: publication first (A-31)."""
        with mapped_errors(self._dsn), connect_replication(self._dsn, self._application) as replication:
            faults.point("setup.before_publication")
            self._drop_own()
            self._membership.create(self._selected)
            faults.point("setup.before_slot")
            made = create_slot(replication, self._settings.slot, self._connection, link, temporary=False)
            if made is None:
                return
            snapshot, point = made
            faults.point("setup.after_slot")
            self._position = point
            log.info("created slot %s at %s", self._settings.slot, point)
            yield from self._copy_tables({t.schema.identity for t in self._selected}, snapshot, point, link)

    def _new_tables(self) -> list[Table]:
        """Those that came into the selection since the last checkpoint."""
        return [table for table in self._selected if table.schema.identity not in self._state.tables]

    @readable()
    def _own_publications(self, *names: str) -> list[str]:
        """Those of the publications that this very pipeline made."""
        return [
            str(name)
            for (name,) in self._connection.execute(
                "SELECT pubname FROM pg_publication WHERE pubname = ANY(%s) "
                "AND obj_description(oid, 'pg_publication') = %s",
                (list(names), self._state.pipeline),
            ).fetchall()
        ]

    def _drop_own(self) -> None:
        """Remove what an earlier try of this very pipeline left when it was killed: nothing was copied from it."""
        for name in self._own_publications(self._settings.publication, self._settings.inserts_publication):
            if name == self._settings.publication and read_slot(self._connection, self._settings.slot) is not None:
                self._connection.execute("SELECT pg_drop_replication_slot(%s)", (self._settings.slot,))
                faults.point("setup.half_dropped")
            self._connection.execute(sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(name)))
        self._refuse_leftovers()

    def _copy_tables(self, oids: set[int], snapshot: str, point: Position, link: Link) -> Iterator[Segment]:
        with connect(self._dsn, self._application) as session:
            begin_snapshot(session, snapshot)
            tables = list(tables_by_oid(session, oids).values())
            shapes = {table.schema.identity: shape(session, table.schema.identity) for table in tables}
            session.execute("COMMIT")
        if gone := oids - {table.schema.identity for table in tables}:
            self._selected = [table for table in self._selected if table.schema.identity not in gone]
        for table in tables:
            entry = TableState(table.schema, table.relation, point.order, copied=False)
            self._state.tables[table.schema.identity] = entry
        faults.point("copy.before_reset")
        yield self._segment([Reset(table.schema) for table in tables])
        faults.point("copy.before_first_row")
        reader = SnapshotReader(self._dsn, self._application, snapshot, self._settings.workers)
        gathered: list[Changes] = []
        size = 0
        rows, looked = 0, self._waiting.now()
        forecast = Forecast(sum(table.rows_estimated for table in tables), looked)
        for copied in reader.read(tables, shapes, link):
            oid = copied.table.schema.identity
            rows += len(copied.batch) if copied.batch is not None else 0
            if (now := self._waiting.now()) - looked >= _FORECAST_EVERY:
                looked = now
                if warning := forecast.look(now, rows, safe_bytes(self._connection, self._settings.slot)):
                    log.warning("%s", warning)
            if copied.batch is not None:
                gathered.append(Changes(copied.batch))
                size += copied.batch.held
                if size < _COPY_SEGMENTS * self._settings.budget:
                    continue
            elif copied.intact:
                faults.point("copy.before_done")
                self._state.tables[oid] = replace(self._state.tables[oid], copied=True)
            else:
                log.warning("%s was changed while it was copied; it is copied again", copied.table.schema.table)
            # A table counts as copied with its last rows, in one transaction of the target (C-04).
            yield self._segment(gathered, size)
            faults.point("copy.after_segment")
            gathered, size = [], 0

    def _segment(self, steps: Sequence[Reset | Changes], size: int = 0) -> Segment:
        return Segment(list(steps), Transactions.none(), self._checkpoint(self._position), size)

    def _checkpoint(self, position: Position) -> Checkpoint:
        """A checkpoint with the state as it is now; its text is made anew only if something changed."""
        signature = (
            self._state.timeline,
            dict(self._state.publications),
            list(self._state.changing),
            dict(self._state.tables),
        )
        if self._dumped is None or self._dumped[0] != signature:
            self._dumped = (signature, self._state.dump())
        return Checkpoint(position, self._dumped[1])

    # --- stream -----------------------------------------------------------------------------------------------------

    def stream(self, link: Link) -> Iterator[Segment]:
        with connect_replication(self._dsn, self._application) as replication:
            yield from self._follow(replication, link)

    def _follow(self, replication: Session, link: Link) -> Iterator[Segment]:
        self._connection.patience = _PATIENCE
        reader = replication.info.backend_pid
        decoder, budget = Decoder(self, notes=self._settings.notes), self._settings.budget
        stream = self._stream = ReplicationStream(
            replication, self._dsn, decoder, budget, lambda: self._is_at_work(reader), self._waiting
        )
        self._membership.moved = decoder.moved
        try:
            stream.start(self._settings.slot, list(self._state.publications), self._position)
        except SlotBusy as error:
            with mapped_errors(self._dsn):
                end_lost_session(self._connection, self._settings.slot, self._readers)
                who = holder(self._connection, self._settings.slot)
            raise SlotBusy(f"{error.message} Held by {who}.", hint=error.hint) from error
        self._readers.add(reader)
        try:
            for segment in stream.segments(link, self._checkpoint, self._position, lambda: self._tick(link)):
                yield segment
                if segment.transactions:
                    self._beat = self._waiting.now()
                if segment.checkpoint is not None:
                    yield from self._come_and_go(segment.checkpoint.position)
        finally:
            # What became durable since the last feedback; the session may be gone already.
            with suppress(Exception):
                stream.feed_back(link.durable)
            stream.close()

    def _come_and_go(self, position: Position) -> Iterator[Segment]:
        """Take in tables that came into the selection, and let go of those that left it, between two transactions."""
        if not self._membership.is_due:
            return
        with mapped_errors(self._dsn):
            steps = self._membership.step(position.order)
        yield Segment(list(steps), Transactions.none(), self._checkpoint(position))
        with mapped_errors(self._dsn):
            self._membership.given()

    def _is_at_work(self, reader: int) -> bool:
        with mapped_errors(self._dsn):
            return is_at_work(self._connection, reader)

    def _tick(self, link: Link) -> bool:
        now = self._waiting.now()
        with mapped_errors(self._dsn):
            if now - self._looked >= _LOOK_EVERY:
                self._looked = now
                verify_publications(self._state, self._connection, self._dsn)
            if now - self._beat >= _HEARTBEAT_EVERY and self._connection.info.server_version >= 140000:
                # Transactional, so that it passes the slot in commit order like any change.
                self._beat = now
                with suppress(psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction):
                    self._connection.execute("SELECT pg_logical_emit_message(true, %s, '')", (HEARTBEAT,))
            return self._membership.look(link)

    def start(self, oid: int) -> int:
        """For the decoder: the LSN of a table's snapshot."""
        entry = self._state.tables.get(oid)
        if entry is None:
            return NEVER if oid in self._state.changing else 0
        return entry.start

    def resolve(self, relation: Relation) -> Resolved | None:
        """For the decoder: a table as it was when the log's rows were written."""
        with mapped_errors(self._dsn):
            entry = self._state.tables.get(relation.oid)
            if entry is None:
                raise PublicationChanged(
                    f"{relation.namespace}.{relation.name} is published to this pipeline, which does not follow it.",
                    hint="Only cdc may change its publications; run `cdc teardown` and start again.",
                )
            faults.point("schema.before")
            verify_publications(self._state, self._connection, self._dsn)
            today = tables_by_oid(self._connection, [relation.oid]).get(relation.oid)
            schema = next_schema(entry, relation, today, type_infos(self._connection))
            if (relation.namespace, relation.name) == (entry.relation.namespace, entry.relation.name):
                schema = replace(schema, table=entry.schema.table)
            if schema == entry.schema and relation == entry.relation:
                return Resolved(schema)
            fill = fill_values(entry.schema, schema, missing_values(self._connection, relation.oid))
            moves = Moves()
            if schema.table != entry.schema.table:
                named = tables_by_oid(self._connection, self._state.tables)
                moves = make_room(self._state, {relation.oid: schema.table}, named)
        self._state.tables[relation.oid] = replace(entry, schema=schema, relation=relation)
        log.info("%s changed its shape", schema.table)
        faults.point("schema.after")
        return Resolved(schema, entry.schema, fill, moves.before, moves.after)


def _require_matches(selection: Selection, tables: Sequence[TableName]) -> None:
    """Refuse patterns that mean nothing: most likely a typing error (E-12)."""
    for pattern in selection.unmatched(tables):
        close = difflib.get_close_matches(pattern, [str(table) for table in tables], n=1)
        raise UsageError(
            f"No table matches {pattern!r}.",
            hint=f"Did you mean {close[0]!r}?" if close else "Patterns are schema.table, with * and ?.",
        )
