"""The PostgreSQL source: snapshot, then stream, from one slot that belongs to one pipeline."""

from __future__ import annotations

import difflib
import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from cdc import faults
from cdc.errors import (
    CdcError,
    NoTables,
    OperatorNeeded,
    OtherPipeline,
    PublicationChanged,
    SchemaChangeUnsupported,
    SlotBusy,
    SourceUnfit,
)
from cdc.model.change import Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableName, TableSchema
from cdc.model.segment import Changes, Gap, Reset, Segment, Step, Suspect, with_gaps
from cdc.model.selection import Selection
from cdc.model.standing import Standing
from cdc.options import KeptOptions
from cdc.source import Head, Link
from cdc.sources.findings import Severity
from cdc.sources.gathering import Gathered
from cdc.sources.postgres.catalog import (
    Table,
    publication_fingerprint,
    tables_by_oid,
    user_tables,
)
from cdc.sources.postgres.check import check
from cdc.sources.postgres.connection import Dsn, connect, connect_replication, mapped_errors
from cdc.sources.postgres.copy import SnapshotReader, begin_snapshot, shapes
from cdc.sources.postgres.fingerprint import look
from cdc.sources.postgres.forecast import Forecast, safe_bytes
from cdc.sources.postgres.identity import (
    Server,
    Slot,
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
from cdc.sources.postgres.notes import HEARTBEAT
from cdc.sources.postgres.pgoutput import Decoder, Resolved
from cdc.sources.postgres.relation import Relation
from cdc.sources.postgres.session import Session, readable
from cdc.sources.postgres.shapes import Shapes
from cdc.sources.postgres.slot import create_slot
from cdc.sources.postgres.state import NEVER, SourceState, TableState, standings
from cdc.sources.postgres.stream import ReplicationStream
from cdc.sources.postgres.witness import LastSeen, is_known, verify_witness
from cdc.target import SetApart, takes_all
from cdc.waiting import MACHINE, Waiting

log = logging.getLogger(__name__)

_HEARTBEAT_EVERY = 30.0  # seconds
_LOOK_EVERY = 5.0  # seconds between looks at the publications
_PATIENCE = 15.0  # seconds that the stream may wait for an answer about something else
_COPY_SEGMENTS = 4  # budgets of the stream in one segment of a copy, at most
_FORECAST_EVERY = 10.0  # seconds between looks at how much log the slot may still keep, while tables are copied
_UNCLAIMED = Position(0, "0/0")  # of the checkpoint that says: a slot of this pipeline may exist from now on


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user may choose of a source.

    Attributes:
        name: of the pipeline.
        slot: the replication slot's name, which is also the publication's.
        options: of the tables.
        workers: sessions that copy in parallel.
        budget: bytes of log that make one segment at most.
        notes: tell what applications write into the log with pg_logical_emit_message, too.
        only_looks: tables neither come nor go, whatever is meant: nothing is changed on the source.
        set_apart: what the target says of tables that come.
    """

    name: str
    slot: str
    options: KeptOptions
    workers: int
    budget: int
    notes: bool = False
    only_looks: bool = False
    set_apart: SetApart = takes_all

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
        self._acknowledges = True
        self._selected: list[Table] = []
        self._state: SourceState
        self._slot: Slot
        self._last_seen = LastSeen(waiting)
        self._membership: Membership
        self._shapes: Shapes
        self._position = _UNCLAIMED
        self._is_only_ours = False  # what a first start has made on the source, of which the target knows nothing
        self._has_news = False  # in the state, which the target is to have before anything else
        self._dumped: tuple[object, str] | None = None
        self._gaps: list[Gap] = []  # that have begun and are not emitted yet
        self._doubts: dict[int, str] = {}  # tables to be emitted as suspect at the next end of a transaction
        self._looked = 0.0
        self._beat = self._waiting.now()

    @property
    def head(self) -> Head:
        return (self._stream.head if self._stream is not None else None) or self._opened_at

    @property
    def estimates(self) -> dict[TableName, int]:
        return {table.schema.table: table.rows_estimated for table in self._selected}

    @property
    def followed(self) -> dict[int, TableName]:
        return {oid: entry.schema.table for oid, entry in list(self._state.tables.items()) if entry.followed}

    @property
    def apart(self) -> dict[TableName, Standing]:
        return standings(self._state, only_apart=True)

    @property
    def meant(self) -> list[TableSchema]:
        return [table.schema for table in self._selected] if self._position == _UNCLAIMED else []

    @property
    def is_complete(self) -> bool:
        return not (self._uncopied() or self._doubts) and self._membership.is_settled and self._shapes.is_settled

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
                    self._verify(resume, server)
                    self._selected = self._followable(named := self._named())
                    followed = [entry.schema.table for entry in self._state.tables.values()]
                    there = [table.schema.table for table in named]
                    for pattern in self._settings.options.selection.unmatched_now(there, followed):
                        log.warning("No table matches %r now; the others are followed.", pattern)
                    self._has_news = self._state.options != self._settings.options
                    self._state.options = self._settings.options
                    self._watch_tables()
                    return
            self._state = SourceState(
                pipeline=f"{self._settings.name} {secrets.token_hex(8)}",
                system=server.system,
                database=server.database,
                timeline=server.timeline,
                slot=self._settings.slot,
                history=server.history or (),
                options=self._settings.options,
            )
            self._watch_tables()

    def _watch_tables(self) -> None:
        """Begin to look at which tables there are, and at what they look like."""
        settings = self._settings
        self._shapes = Shapes(self._connection, self._state, self._begin_again, self._waiting)
        self._membership = Membership(
            self._connection,
            self._state,
            settings.publication,
            settings.inserts_publication,
            self._named,
            self._is_followed,
            self._waiting,
            is_fixed=settings.only_looks,
            set_apart=settings.set_apart,
        )

    def _verify(self, resume: Checkpoint, server: Server) -> None:
        state, position = self._state, resume.position
        if state.slot != self._settings.slot:
            raise OtherPipeline(
                f"The target belongs to the pipeline {state.slot.removeprefix('cdc_')!r}.",
                hint="Give that name with --name, or use another target.",
            )
        verify_server(state, position, server, self._dsn)
        if position == _UNCLAIMED:
            return
        self._slot = verify_slot(state, position, self._connection, self._dsn)
        state.timeline, state.history = server.timeline, server.history or ()

    def _refuse_unfit(self) -> None:
        """The preflight of a first start: nothing is made on a server where it could not work."""
        options = self._settings.options
        findings = check(self._connection, self._dsn, options.selection, include_keyless=options.include_keyless)
        fatal = [finding for finding in findings if finding.severity is Severity.FATAL]
        if fatal:
            raise SourceUnfit(
                "The source is not ready: " + " ".join(f"{finding.subject}: {finding.message}" for finding in fatal),
                hint=" ".join(finding.fix for finding in fatal if finding.fix) or "`cdc check SOURCE` says more.",
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
                hint=f"Choose another --name, or run `cdc teardown SOURCE --name {name}` if that pipeline is no more.",
            )

    def _select(self) -> list[Table]:
        """The tables that a new pipeline is to follow.

        Raises:
            UsageError: a pattern means nothing, or nothing can be followed.
        """
        _require_matches(
            self._settings.options.selection, [table.schema.table for table in user_tables(self._connection)]
        )
        tables = self._named()
        followed = self._followable(tables)
        if not followed:
            left_out = f" ({len(tables)} have no usable replica identity)" if tables else ""
            raise NoTables(
                f"No table of {self._dsn} can be followed{left_out}.",
                hint="`cdc check SOURCE` lists the tables and what each of them needs; --tables chooses among them.",
            )
        return followed

    def _named(self) -> list[Table]:
        """The tables of the selection, as they are now."""
        everything = user_tables(self._connection)
        return [table for table in everything if self._settings.options.selection.matches(table.schema.table)]

    def _followable(self, tables: Sequence[Table]) -> list[Table]:
        return [table for table in tables if self._is_followed(table)]

    def _is_followed(self, table: Table) -> bool:
        obstacle, is_enough = table.obstacle, self._settings.options.include_keyless
        can_be = obstacle is None or (is_enough and not obstacle.is_of_inserts)
        return bool(table.schema.columns) and can_be

    def close(self) -> None:
        self._undo()
        self._resources.close()
        self._resources = ExitStack()

    def _undo(self) -> None:
        """Take away what a first start has made, if the target has nothing from it: its slot would only keep WAL.

        Another try makes it again. On a connection that is lost it stays, and that try takes it away first.
        """
        if self._is_only_ours:
            with suppress(CdcError, psycopg.Error):
                self._drop_own()
        self._is_only_ours = False

    # --- snapshot ---------------------------------------------------------------------------------------------------

    def copy(self, link: Link) -> Iterator[Segment]:
        if self._hold_refused(link) or (self._has_news and self._position != _UNCLAIMED):
            yield self._segment([])  # in the target before anything else is
        if self._position == _UNCLAIMED:
            yield self._segment([])
            while link.durable is None:
                if link.stopping:
                    return
                link.alive()
                self._waiting.sleep(0.001)
            yield from self._first_copy(link)
        else:
            self._verify_witness(link)
        while (tables := self._uncopied()) and not link.stopping:
            # The exported snapshot of the first try is gone, so these get one of their own, at a later LSN.
            with mapped_errors(self._dsn), connect_replication(self._dsn, self._application) as replication:
                slot = f"{self._settings.slot[:40]}_copy_{secrets.token_hex(4)}"
                made = create_slot(replication, slot, self._connection, link, temporary=True)
                if made is not None:
                    yield from self._copy_tables({table.schema.identity for table in tables}, *made, link)
        self._pass_over_lost()

    def _pass_over_lost(self) -> None:
        """A table whose copy was cut off, and that was dropped or cannot be followed any more, is not copied again. The
        target does not have the rows that the log changes."""
        selected = {table.schema.identity for table in self._selected}
        for oid, entry in self._state.tables.items():
            if not entry.copied and entry.start != NEVER and oid not in selected:
                self._state.tables[oid] = replace(entry, start=NEVER)

    def _verify_witness(self, link: Link) -> None:
        """Before anything is taken from a server, it must show that its log is the one that was followed (P19)."""

        def goes_on() -> bool:
            link.alive()
            return not link.stopping

        confirmed = self._slot.confirmed or 0
        if is_known(self._state, confirmed):
            return
        with connect_replication(self._dsn, self._application) as session, self._naming_the_holder():
            reader = session.info.backend_pid
            self._readers.add(reader)
            verify_witness(session, self._dsn, self._state, confirmed, lambda: self._is_at_work(reader), goes_on)

    @contextmanager
    def _naming_the_holder(self) -> Iterator[None]:
        """Say who has the slot, and end him if he is a session of ours whose connection was lost (A-10)."""
        try:
            yield
        except SlotBusy as error:
            with mapped_errors(self._dsn):
                end_lost_session(self._connection, self._settings.slot, self._readers)
                who = holder(self._connection, self._settings.slot)
            raise SlotBusy(f"{error.message} Held by {who}.", hint=error.hint) from error

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
            self._is_only_ours = True
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
            before = shapes(session, oids)
            seen = look(session, oids)
            session.execute("COMMIT")
        self._state.types = seen.types | self._state.types
        if gone := oids - {table.schema.identity for table in tables}:
            self._selected = [table for table in self._selected if table.schema.identity not in gone]
        for table in tables:
            oid = table.schema.identity
            entry = TableState(
                table.schema, table.relation, point.order, copied=False, fingerprint=seen.tables.get(oid)
            )
            self._state.tables[oid] = entry
        faults.point("copy.before_reset")
        self._is_only_ours = False
        yield self._segment([Reset(table.schema) for table in tables])
        faults.point("copy.before_first_row")
        reader = SnapshotReader(self._dsn, self._application, snapshot, self._settings.workers)
        gathered = Gathered(len(tables), _COPY_SEGMENTS * self._settings.budget, self._waiting.now)
        rows, looked = 0, self._waiting.now()
        forecast = Forecast(sum(table.rows_estimated for table in tables), looked)
        for copied in reader.read(tables, link):
            rows += len(copied.batch) if copied.batch is not None else 0
            if (now := self._waiting.now()) - looked >= _FORECAST_EVERY:
                looked = now
                if warning := forecast.look(now, rows, safe_bytes(self._connection, self._settings.slot)):
                    log.warning("%s", warning)
            if copied.batch is not None:
                gathered.add(copied.batch)
            elif copied.intact:
                gathered.end(copied.table.schema.identity)
            else:
                log.warning("%s was changed while it was copied; it is copied again", copied.table.schema.table)
            while gathered.is_due:
                yield from _given(self._copied(gathered, before))
        if gathered:
            yield from _given(self._copied(gathered, before))

    def _copied(self, gathered: Gathered, before: dict[int, str | None]) -> Segment:
        """What has been copied; a table counts as copied with its last rows, in one transaction of the target (C-04).

        One that was truncated, rewritten or altered meanwhile does not have the rows of the snapshot.

        Args:
            before: the shapes of the tables, as the snapshot sees them.
        """
        changes, size, ended = gathered.take()
        faults.point("copy.before_done")
        now = shapes(self._connection, ended) if ended else {}
        for oid in ended:
            if now[oid] == before[oid]:
                self._state.tables[oid] = replace(self._state.tables[oid], copied=True)
            else:
                log.warning(
                    "%s was changed while it was copied; it is copied again", self._state.tables[oid].schema.table
                )
        return self._segment(changes, size)

    def _segment(self, steps: Sequence[Reset | Changes], size: int = 0) -> Segment:
        checkpoint = self._checkpoint(self._position)
        everything: list[Step] = [*self._take_gaps(), *steps]
        return Segment(everything, Transactions.none(), checkpoint, size + len(checkpoint.state))

    def _checkpoint(self, position: Position, transactions: Transactions | None = None) -> Checkpoint:
        """A checkpoint with the state as it is now; its text is made again only if something changed."""
        state = self._state
        state.witness = self._last_seen.witness(state, position, transactions or Transactions.none())
        signature = (
            self._state.timeline,
            dict(self._state.publications),
            list(self._state.changing),
            dict(self._state.tables),
            list(self._state.apart),
            self._state.witness,
            self._state.types,
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
            replication,
            self._dsn,
            decoder,
            budget,
            lambda: self._is_at_work(reader),
            self._waiting,
            acknowledges=self._acknowledges,
        )
        self._membership.moved, self._membership.begun = decoder.moved, decoder.forget
        self._membership.lost = self._lose
        self._shapes.changed = decoder.forget
        publications = list(self._state.publications)
        with self._naming_the_holder():
            stream.start(self._settings.slot, publications, self._position)
        self._last_seen = LastSeen(self._waiting, publications)
        self._readers.add(reader)
        try:
            for segment in stream.segments(link, self._checkpoint, self._position, lambda: self._tick(link)):
                yield self._dated(with_gaps(segment, self._take_gaps()))
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
        """Between two transactions: take in what tables look like now and those that came into the selection, let go of
        those that left it, and tell which are suspect."""
        is_due = self._shapes.is_due(position.order)
        if not (self._membership.is_due or self._doubts or is_due):
            return
        doubts = dict(self._doubts)
        known = [(self._state.tables[oid], why) for oid, why in doubts.items() if oid in self._state.tables]
        steps: list[Step] = [Suspect(entry.schema, why) for entry, why in known if entry.start != NEVER]
        with mapped_errors(self._dsn):
            if is_due:
                steps += self._shapes.step()
            if self._membership.is_due:
                steps += self._membership.step(position.order)
        yield self._dated(Segment([*self._take_gaps(), *steps], Transactions.none(), self._checkpoint(position)))
        for oid in doubts:  # not before, since nothing is complete until they are handed over
            del self._doubts[oid]
        with mapped_errors(self._dsn):
            self._shapes.given()
            self._membership.given()

    def _dated(self, segment: Segment) -> Segment:
        """With the place behind which it was that the rows of tables changed of which the catalog says so later."""
        if not any(isinstance(step, Suspect) for step in segment.steps):
            return segment
        since = self._certain
        return replace(
            segment, steps=[replace(step, since=since) if isinstance(step, Suspect) else step for step in segment.steps]
        )

    @property
    def _certain(self) -> int:
        """How far the log was when the catalog was last known to be what is followed."""
        return self._state.looked or self._position.order

    # --- tables that are not simply followed ------------------------------------------------------------------------

    def suspect(self, oid: int, why: str) -> None:
        """Have a table compared with the source: rows may have changed without an event."""
        log.warning("%s is suspect: %s", self._state.tables[oid].schema.table, why)
        self._doubts.setdefault(oid, why)

    def copy_again(self, oid: int, why: str, since: int | None = None) -> None:
        """Skip the changes of a table until it has been taken in as it is now, and copy it by parts.

        Args:
            since: see `Gap`.
        """
        log.warning("%s is copied again: %s", self._state.tables[oid].schema.table, why)
        self._lose(self._state.tables[oid], why, since)
        with mapped_errors(self._dsn):
            self._membership.begin_again(oid)

    def _begin_again(self, oid: int, error: SchemaChangeUnsupported) -> None:
        if not self._settings.options.holds_tables:
            raise error
        self.copy_again(oid, error.message, self._certain)

    def hold(self, oid: int, why: str) -> None:
        """Skip the changes of a table until somebody wants it to be copied again."""
        entry = self._state.tables[oid]
        log.error("%s is held, its changes are skipped: %s", entry.schema.table, why)
        self._lose(entry, why)
        self._state.tables[oid] = replace(entry, held=why, start=NEVER)

    def _lose(self, entry: TableState, why: str, since: int | None = None) -> None:
        """From here on it is not known what a table's rows are, which a target that keeps them has to know (H4)."""
        if entry.copied:
            self._gaps.append(Gap(entry.schema, why, since=since))

    def _take_gaps(self) -> list[Gap]:
        taken, self._gaps = self._gaps, []
        return taken

    def _hold_refused(self, link: Link) -> bool:
        """Hold what the stages after this one cannot take; whether there was anything."""
        states = self._state.tables if self._position != _UNCLAIMED else {}
        refused = {oid: why for oid, why in link.take_refused().items() if oid in states and states[oid].held is None}
        for oid, why in refused.items():
            self.hold(oid, why)
        return bool(refused)

    def _mind_wishes(self, link: Link) -> bool:
        """Do what the other side wants of tables; whether there was anything."""
        again = link.take_again() & self._state.tables.keys()
        for oid in again:
            self.copy_again(oid, "somebody has asked for it")
        return self._hold_refused(link) or bool(again)

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
            is_due = self._mind_wishes(link) | self._membership.look(link) | self._shapes.look()
            return is_due or bool(self._doubts)

    def start(self, oid: int) -> int:
        """For the decoder: the LSN of a table's snapshot."""
        entry = self._state.tables.get(oid)
        if entry is None:
            return NEVER if oid in self._state.changing else 0
        return entry.start

    def resolve(self, relation: Relation) -> Resolved | None:
        """For the decoder: a table as it was when the log's rows were written."""
        try:
            return self._resolve(relation)
        except SchemaChangeUnsupported as error:
            self._begin_again(relation.oid, error)
            return None

    def _resolve(self, relation: Relation) -> Resolved | None:
        with mapped_errors(self._dsn):
            if relation.oid not in self._state.tables:
                raise PublicationChanged(
                    f"{relation.namespace}.{relation.name} is published to this pipeline, which does not follow it.",
                    hint="Only cdc may change its publications; run `cdc teardown SOURCE TARGET` and start again.",
                )
            faults.point("schema.before")
            if relation != self._state.tables[relation.oid].relation:  # otherwise `_tick` is enough (P25)
                verify_publications(self._state, self._connection, self._dsn)
            return self._shapes.resolve(relation)


def _require_matches(selection: Selection, tables: Sequence[TableName]) -> None:
    """Refuse patterns that mean nothing: at a first start most likely a typing error (E-12)."""
    for pattern in selection.unmatched(tables):
        close = difflib.get_close_matches(pattern, [str(table) for table in tables], n=1)
        raise NoTables(
            f"No table matches {pattern!r}.",
            hint=f"Did you mean {close[0]!r}?" if close else "Patterns are schema.table, with * and ?.",
        )


def _given(segment: Segment) -> Iterator[Segment]:
    """Hand a segment of a copy over."""
    yield segment
    faults.point("copy.after_segment")
