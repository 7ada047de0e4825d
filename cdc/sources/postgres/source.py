"""The PostgreSQL source: snapshot, then stream, from one slot that belongs to one pipeline."""

from __future__ import annotations

import difflib
import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from cdc import faults
from cdc.errors import InvariantError, OperatorNeeded, PublicationChanged, SlotBusy, UsageError
from cdc.findings import Severity
from cdc.model.change import Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableName
from cdc.model.segment import Changes, Reset, Segment
from cdc.selection import Selection
from cdc.source import Head, Link
from cdc.sources.postgres.catalog import (
    Connection,
    Table,
    missing_values,
    publication_fingerprint,
    tables_by_oid,
    type_infos,
    user_tables,
)
from cdc.sources.postgres.check import check
from cdc.sources.postgres.connection import Dsn, connect, connect_replication, mapped_errors, run_command
from cdc.sources.postgres.copy import SnapshotReader, begin_snapshot, shape
from cdc.sources.postgres.evolution import fill_values, next_schema
from cdc.sources.postgres.identity import (
    Server,
    holder,
    identify,
    read_slot,
    verify_publications,
    verify_server,
    verify_slot,
)
from cdc.sources.postgres.pgoutput import Decoder, Relation, Resolved
from cdc.sources.postgres.position import lsn, parse_lsn
from cdc.sources.postgres.state import SourceState, TableState
from cdc.sources.postgres.stream import ReplicationStream

log = logging.getLogger(__name__)

HEARTBEAT = "cdc.heartbeat"
_HEARTBEAT_EVERY = 30.0  # seconds
_LOOK_EVERY = 5.0  # seconds between looks at the publications
_COPY_SEGMENTS = 2  # budgets of the stream in one segment of a copy: full row groups go straight into DuckDB's file
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
    """

    name: str
    slot: str
    selection: Selection
    include_keyless: bool
    workers: int
    budget: int

    @property
    def publication(self) -> str:
        return self.slot

    @property
    def inserts_publication(self) -> str:
        """Of tables whose updates the log cannot identify: publishing those would make them fail (A-35)."""
        return f"{self.slot}_inserts"


class PostgresSource:
    """One PostgreSQL database as a `cdc.source.Source`."""

    def __init__(self, dsn: Dsn, settings: Settings) -> None:
        self._dsn = dsn
        self._settings = settings
        self._resources = ExitStack()
        self._application = f"cdc {settings.name}"
        self._connection: Connection
        self._opened_at: Head
        self._stream: ReplicationStream | None = None
        self._selected: list[Table] = []
        self._state: SourceState
        self._position = _UNCLAIMED
        self._dumped: tuple[object, str] | None = None
        self._looked = 0.0
        self._beat = time.monotonic()

    @property
    def head(self) -> Head:
        return (self._stream.head if self._stream is not None else None) or self._opened_at

    @property
    def estimates(self) -> dict[TableName, int]:
        return {table.schema.table: table.rows_estimated for table in self._selected}

    @property
    def is_complete(self) -> bool:
        return not self._uncopied()

    def open(self, resume: Checkpoint | None) -> None:
        self._connection = self._resources.enter_context(connect(self._dsn, self._application))
        with mapped_errors(self._dsn):
            if resume is None:
                self._selected = self._select({})
                self._refuse_unfit()
                self._refuse_leftovers()
            with connect_replication(self._dsn, self._application) as replication:
                server = identify(replication, self._connection)
                self._opened_at = Head(server.flushed, server.clock)
                if resume is not None:
                    self._state = SourceState.load(resume.state)
                    self._position = resume.position
                    self._verify(resume, server, replication)
                    self._selected = self._select(self._state.tables)
                    return
            self._state = SourceState(
                pipeline=f"{self._settings.name} {secrets.token_hex(8)}",
                system=server.system,
                database=server.database,
                timeline=server.timeline,
                slot=self._settings.slot,
            )

    def _verify(self, resume: Checkpoint, server: Server, replication: Connection) -> None:
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
        verify_publications(state, self._connection, self._dsn)
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

    def _select(self, known: dict[int, TableState]) -> list[Table]:
        """The tables to follow, and a refusal of what a pipeline cannot do with them."""
        selection = self._settings.selection
        everything = user_tables(self._connection)
        _require_matches(selection, [table.schema.table for table in everything])
        tables = [table for table in everything if selection.matches(table.schema.table)]
        followed = [table for table in tables if self._is_followed(table)]
        if not followed:
            left_out = f" ({len(tables)} have no usable replica identity)" if tables else ""
            raise UsageError(
                f"No table of {self._dsn} can be followed{left_out}.",
                hint="`cdc check` lists the tables and what each of them needs; --tables says which ones are meant.",
            )
        selected = {table.schema.identity for table in followed}
        unselected = [str(entry.schema.table) for oid, entry in known.items() if oid not in selected]
        if unselected:
            raise UsageError(
                f"The pipeline follows {', '.join(unselected)}, which the selection leaves out.",
                hint="Taking a table out of a running pipeline is not supported: select it again, or start a new one.",
            )
        return followed

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
                time.sleep(0.001)
            yield from self._first_copy(link)
        elif self._selected and self._uncopied():
            self._publish_more()
        while (tables := self._uncopied()) and not link.stopping:
            # The exported snapshot of the first try is gone, so these get one of their own, at a later LSN.
            with mapped_errors(self._dsn), connect_replication(self._dsn, self._application) as replication:
                slot = f"{self._settings.slot[:40]}_copy_{secrets.token_hex(4)}"
                snapshot, point = create_slot(replication, slot, temporary=True)
                yield from self._copy_tables({table.schema.identity for table in tables}, snapshot, point, link)

    def _uncopied(self) -> list[Table]:
        states = self._state.tables
        return [t for t in self._selected if (s := states.get(t.schema.identity)) is None or not s.copied]

    def _first_copy(self, link: Link) -> Iterator[Segment]:
        """Make what the pipeline needs on the source, in the order that matters: publication first (A-31)."""
        with mapped_errors(self._dsn), connect_replication(self._dsn, self._application) as replication:
            faults.point("setup.before_publication")
            self._drop_own()
            self._publish()
            faults.point("setup.before_slot")
            snapshot, point = create_slot(replication, self._settings.slot, temporary=False)
            faults.point("setup.after_slot")
            self._position = point
            log.info("created slot %s at %s", self._settings.slot, point)
            yield from self._copy_tables({t.schema.identity for t in self._selected}, snapshot, point, link)

    def _drop_own(self) -> None:
        """Remove what an earlier try of this very pipeline left when it was killed: nothing was copied from it."""
        names = [self._settings.publication, self._settings.inserts_publication]
        for (name,) in self._connection.execute(
            "SELECT pubname FROM pg_publication WHERE pubname = ANY(%s) "
            "AND obj_description(oid, 'pg_publication') = %s",
            (names, self._state.pipeline),
        ).fetchall():
            if name == self._settings.publication and read_slot(self._connection, self._settings.slot) is not None:
                self._connection.execute("SELECT pg_drop_replication_slot(%s)", (self._settings.slot,))
            self._connection.execute(sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(str(name))))
        self._refuse_leftovers()

    def _publish(self) -> None:
        settings = self._settings
        groups = {
            settings.publication: ([t for t in self._selected if t.has_identity], "insert, update, delete, truncate"),
            settings.inserts_publication: ([t for t in self._selected if not t.has_identity], "insert, truncate"),
        }
        for name, (tables, operations) in groups.items():
            if tables or name == settings.publication:
                self._create_publication(name, tables, operations)
        self._state.publications = publication_fingerprint(self._connection, groups)

    def _create_publication(self, name: str, tables: Sequence[Table], operations: str) -> None:
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

    def _publish_more(self) -> None:
        """Publish tables that came into the selection, before their snapshot (A-34): the temporary slot that exports
        it waits for every transaction that began before they were published."""
        new = [table for table in self._selected if table.schema.identity not in self._state.tables]
        for table in new:
            name = self._settings.publication if table.has_identity else self._settings.inserts_publication
            if name not in self._state.publications:
                self._create_publication(name, [table], "insert, truncate")
            else:
                self._connection.execute(
                    sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(sql.Identifier(name), _only(table))
                )
            names = {*self._state.publications, name}
            self._state.publications = publication_fingerprint(self._connection, names)

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
        yield self._segment([Reset(table.schema) for table in tables])
        faults.point("copy.before_first_row")
        reader = SnapshotReader(self._dsn, self._application, snapshot, self._settings.workers)
        gathered: list[Changes] = []
        size = 0
        for copied in reader.read(tables, shapes, link):
            oid = copied.table.schema.identity
            if copied.batch is not None:
                gathered.append(Changes(copied.batch))
                size += copied.batch.size
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
        signature = (self._state.timeline, dict(self._state.publications), dict(self._state.tables))
        if self._dumped is None or self._dumped[0] != signature:
            self._dumped = (signature, self._state.dump())
        return Checkpoint(position, self._dumped[1])

    # --- stream -----------------------------------------------------------------------------------------------------

    def stream(self, link: Link) -> Iterator[Segment]:
        with connect_replication(self._dsn, self._application) as replication:
            yield from self._follow(replication, link)

    def _follow(self, replication: Connection, link: Link) -> Iterator[Segment]:
        stream = self._stream = ReplicationStream(replication, self._dsn, Decoder(self), self._settings.budget)
        try:
            stream.start(self._settings.slot, list(self._state.publications), self._position)
        except SlotBusy as error:
            with mapped_errors(self._dsn):
                who = holder(self._connection, self._settings.slot)
            raise SlotBusy(f"{error.message} Held by {who}.", hint=error.hint) from error
        try:
            for segment in stream.segments(link, self._checkpoint, self._position, self._tick):
                yield segment
                if segment.transactions:
                    self._beat = time.monotonic()
        finally:
            # What became durable since the last feedback; the session may be gone already.
            with suppress(Exception):
                stream.feed_back(link.durable)
            stream.close()

    def _tick(self) -> None:
        now = time.monotonic()
        with mapped_errors(self._dsn):
            if now - self._looked >= _LOOK_EVERY:
                self._looked = now
                verify_publications(self._state, self._connection, self._dsn)
            if now - self._beat >= _HEARTBEAT_EVERY and self._connection.info.server_version >= 140000:
                # Transactional, so that it passes the slot in commit order like any change.
                self._beat = now
                with suppress(psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction):
                    self._connection.execute("SELECT pg_logical_emit_message(true, %s, '')", (HEARTBEAT,))

    def start(self, oid: int) -> int:
        """For the decoder: the LSN of a table's snapshot."""
        entry = self._state.tables.get(oid)
        return entry.start if entry is not None else 0

    def resolve(self, relation: Relation) -> Resolved:
        """For the decoder: a table as it was when the log's rows were written."""
        with mapped_errors(self._dsn):
            entry = self._state.tables.get(relation.oid)
            if entry is None:
                raise PublicationChanged(
                    f"{relation.namespace}.{relation.name} is published to this pipeline, which does not follow it.",
                    hint="Only cdc may change its publications; run `cdc teardown` and start again.",
                )
            verify_publications(self._state, self._connection, self._dsn)
            today = tables_by_oid(self._connection, [relation.oid]).get(relation.oid)
            schema = next_schema(entry, relation, today, type_infos(self._connection))
            if schema == entry.schema and relation == entry.relation:
                return Resolved(schema)
            fill = fill_values(entry.schema, schema, missing_values(self._connection, relation.oid))
        self._state.tables[relation.oid] = replace(entry, schema=schema, relation=relation)
        log.info("%s changed its shape", schema.table)
        return Resolved(schema, entry.schema, fill)


def _require_matches(selection: Selection, tables: Sequence[TableName]) -> None:
    """Refuse patterns that mean nothing: most likely a typing error (E-12)."""
    for pattern in selection.unmatched(tables):
        close = difflib.get_close_matches(pattern, [str(table) for table in tables], n=1)
        raise UsageError(
            f"No table matches {pattern!r}.",
            hint=f"Did you mean {close[0]!r}?" if close else "Patterns are schema.table, with * and ?.",
        )


def _only(table: Table) -> sql.Composed:
    name = sql.Identifier(table.schema.table.schema, table.schema.table.name)
    return sql.SQL("ONLY {}").format(name) if table.kind == "r" else sql.SQL("{}").format(name)


def create_slot(replication: Connection, name: str, *, temporary: bool) -> tuple[str, Position]:
    """Make a slot and keep its snapshot exported for as long as nothing else runs in this session.

    Waits for the transactions that are open on the server.
    """
    identifier = sql.Identifier(name).as_string(replication)
    kind = "TEMPORARY " if temporary else ""
    answer = run_command(replication, f"CREATE_REPLICATION_SLOT {identifier} {kind}LOGICAL pgoutput EXPORT_SNAPSHOT")[0]
    snapshot, point = answer["snapshot_name"], answer["consistent_point"]
    if snapshot is None or point is None:
        raise InvariantError("The server made a slot without a snapshot.")
    return snapshot, lsn(parse_lsn(point))
