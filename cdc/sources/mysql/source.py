"""The MySQL and MariaDB source: snapshot, then binlog."""

from __future__ import annotations

import difflib
import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from cdc import faults
from cdc.errors import OperatorNeeded, SchemaChangeUnsupported, SourceChanged, UsageError
from cdc.findings import Severity
from cdc.model.change import Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableName, TableSchema
from cdc.model.segment import Changes, Evolve, Reset, Segment, Step, Truncate
from cdc.selection import Selection
from cdc.source import Head, Link
from cdc.sources.mysql import ddl
from cdc.sources.mysql.batches import Plan
from cdc.sources.mysql.binlog import Decoder
from cdc.sources.mysql.catalog import Table, is_passing, named_tables, selected, user_tables
from cdc.sources.mysql.charsets import ServerConverter
from cdc.sources.mysql.check import check
from cdc.sources.mysql.connection import Connection, Dsn
from cdc.sources.mysql.copy import Snapshot, SnapshotReader
from cdc.sources.mysql.dump import log_mark, open_dump, prepared_rows
from cdc.sources.mysql.evolution import CopyAgain, evolved, renamed
from cdc.sources.mysql.gtid import MariaDbGtids, MySqlGtids
from cdc.sources.mysql.identity import (
    Log,
    file_bases,
    has_gtids,
    log_files,
    log_now,
    place_of,
    refuse_prepared,
    server_identity,
    verify_server,
)
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.select import quoted_table, select_rows
from cdc.sources.mysql.state import SourceState, TableState
from cdc.sources.mysql.stream import BinlogStream
from cdc.sources.mysql.tablemap import TableMap
from cdc.sources.mysql.transactions import Query
from cdc.sources.mysql.types import fits, source_type

log = logging.getLogger(__name__)

_LOOK_EVERY = 5.0  # seconds between looks at how far the server's log is
_PATIENCE = 15.0  # seconds that the stream may wait for an answer about something else
_COPY_SEGMENTS = 2  # budgets of the stream in one segment of a copy: full row groups go straight into DuckDB's file
_HIDDEN = ("DB_ROW_HASH_", "!hidden!")  # columns that servers add for themselves (B-46)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user may choose of a source.

    Attributes:
        name: of the pipeline.
        selection: which tables.
        workers: sessions that copy in parallel.
        budget: bytes of log that make one segment at most.
    """

    name: str
    selection: Selection
    workers: int
    budget: int


class MySqlSource:
    """One MySQL or MariaDB server as a `cdc.source.Source`."""

    def __init__(self, dsn: Dsn, settings: Settings) -> None:
        self._dsn = dsn
        self._settings = settings
        self._resources = ExitStack()
        self._purpose = f"cdc {settings.name}"
        self._connection: Connection
        self._opened_at: Head
        self._seen: Head | None = None
        self._stream: BinlogStream | None = None
        self._selected: list[Table] = []
        self._state: SourceState
        self._gtids: MySqlGtids | MariaDbGtids | None = None
        self._decoder: Decoder | None = None
        self._is_new = False
        self._looked = 0.0
        self._look_after: int | None = None  # once the log has been followed up to here, look for tables that are new
        self._refreshed: set[tuple[TableName, TableMap]] = set()

    @property
    def head(self) -> Head:
        heads = [self._opened_at, self._seen, self._stream.head if self._stream is not None else None]
        return max((head for head in heads if head is not None), key=lambda head: head.position)

    @property
    def estimates(self) -> dict[TableName, int]:
        return {table.name: table.rows_estimated for table in self._selected}

    @property
    def is_complete(self) -> bool:
        return self._look_after is None and all(entry.copied for entry in list(self._state.tables.values()))

    def open(self, resume: Checkpoint | None) -> None:
        connection = self._connection = self._resources.enter_context(Connection(self._dsn, self._purpose, _PATIENCE))
        now = log_now(connection)
        if resume is None:
            self._is_new = True
            self._selected = self._select()
            self._refuse_unfit()
            self._state = SourceState(
                pipeline=self._settings.name,
                flavor=connection.version.flavor,
                server=server_identity(connection),
                server_id=secrets.randbelow((1 << 32) - (1 << 16)) + (1 << 16),
                place=LogPlace(now.file, 0, now.offset),
                gtids=now.gtids,
            )
            here = self._state.place
        else:
            state = self._state = SourceState.load(resume.state)
            if state.pipeline != self._settings.name:
                raise UsageError(
                    f"The target belongs to the pipeline {state.pipeline!r}.",
                    hint="Give that name with --name, or use another target.",
                )
            if verify_server(state, connection):
                self._verify_mark()
                here = place_of(log_files(connection), state.place, now.file, now.offset)
            else:
                # Another server's files: positions count on from where the target is.
                state.server, state.mark = server_identity(connection), None
                files = log_files(connection)
                state.place = LogPlace(next(iter(files)), state.place.order, 0)
                here = place_of(files, state.place, now.file, now.offset)
                log.warning("%s is another server than before; it is followed on from %s", self._dsn, state.gtids)
            self._selected = self._select()
            if any(state.named(table.name) is None for table in self._selected):
                self._look_after = here.order
        self._gtids = self._parsed(self._state.gtids) if has_gtids(connection) else None
        self._opened_at = Head(here.position(), self._clock())

    def _verify_mark(self) -> None:
        """The file of the position is the one that was read: a log that was begun anew has the same names (B-02)."""
        state = self._state
        if state.mark is not None and log_mark(self._dsn, state.server_id, state.place.file) != state.mark:
            raise SourceChanged(
                f"{self._dsn} has another log file {state.place.file} than the one that the target has followed.",
                hint="The log was reset. Run `cdc teardown`, remove the target, and start again.",
            )

    def _parsed(self, gtids: str) -> MySqlGtids | MariaDbGtids:
        return MariaDbGtids.parse(gtids) if self._state.flavor == "mariadb" else MySqlGtids.parse(gtids)

    def _clock(self) -> int:
        return int(self._connection.value("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"))

    def _refuse_unfit(self) -> None:
        """The preflight of a first start."""
        fatal = [
            f
            for f in check(self._connection, self._dsn.database, self._settings.selection)
            if f.severity is Severity.FATAL
        ]
        if fatal:
            raise UsageError(
                "The source is not ready: " + " ".join(f"{finding.subject}: {finding.message}" for finding in fatal),
                hint=" ".join(finding.fix for finding in fatal if finding.fix) or "`cdc check` says more.",
            )

    def _select(self) -> list[Table]:
        selection = self._settings.selection
        everything = user_tables(self._connection, self._dsn.database)
        for pattern in selection.unmatched([table.name for table in everything]):
            close = difflib.get_close_matches(pattern, [str(table.name) for table in everything], n=1)
            raise UsageError(
                f"No table matches {pattern!r}.",
                hint=f"Did you mean {close[0]!r}?" if close else "Patterns are database.table, with * and ?.",
            )
        tables = [table for table in selected(everything, selection) if table.schema.columns]
        if not tables:
            raise UsageError(f"{self._dsn} has no table to follow.", hint="--tables says which ones are meant.")
        for table in tables:
            if table.trouble is not None:
                raise UsageError(f"{table.name} cannot be followed. {table.trouble}", hint="--exclude leaves it out.")
        return tables

    def close(self) -> None:
        self._resources.close()
        self._resources = ExitStack()

    # --- snapshot ---------------------------------------------------------------------------------------------------

    def copy(self, link: Link) -> Iterator[Segment]:
        if self._is_new:
            for table in self._selected:
                self._expect(table)
        yield from self._copy_missing(link)

    def _adopt(self) -> None:
        """Take in the tables that are meant and not followed yet.

        Done only once all that the log had at some moment has been followed, since until then a table that is followed
        may have another name there than it has now.
        """
        if self._look_after is None or self._state.place.order < self._look_after:
            return
        self._look_after = None
        for table in self._select():
            if self._state.named(table.name) is None:
                log.info("%s is new; it is copied", table.name)
                self._expect(table)

    def _expect(self, table: Table) -> TableState:
        """Number a table that is to be copied."""
        identity = self._state.gone.pop(str(table.name), None)
        if identity is None:
            identity = self._state.next_table
            self._state.next_table += 1
        schema = replace(table.schema, identity=identity)
        entry = TableState(schema, table.charset, 0, False, len(schema.columns) + 1, table.row_end)
        self._state.tables[schema.identity] = entry
        return entry

    def _copy_missing(self, link: Link) -> Iterator[Segment]:
        while (missing := [e for e in self._state.tables.values() if not e.copied]) and not link.stopping:
            with Snapshot(self._dsn, self._purpose, self._settings.workers) as snapshot:
                refuse_prepared(snapshot.guard, self._dsn)
                found = named_tables(snapshot.guard, [entry.schema.table for entry in missing])
                at = snapshot.begin(list(found.values()))
                # Looked at again, since a table may have changed before the snapshot began.
                found = named_tables(snapshot.guard, found)
                if self._is_new:
                    self._begin_at(at)
                start = self._place(at, snapshot.guard)
                tables = [
                    table
                    for entry in missing
                    if (table := self._prepare(entry, found.get(entry.schema.table), start.order)) is not None
                ]
                yield self._segment([Reset(table.schema) for table in tables])
                faults.point("copy.before_first_row")
                steady = [table for table in tables if table.is_transactional]
                yield from self._copy_steady(snapshot, steady, link)
            for table in tables:
                if not table.is_transactional and not link.stopping:
                    yield from self._copy_locked(table)

    def _begin_at(self, at: Log) -> None:
        self._is_new = False
        self._state.place = LogPlace(at.file, 0, at.offset)
        self._state.mark = log_mark(self._dsn, self._state.server_id, at.file)
        self._state.gtids = at.gtids
        self._gtids = self._parsed(at.gtids) if self._gtids is not None else None
        log.info("the copy is of %s:%d", at.file, at.offset)

    def _place(self, at: Log, connection: Connection) -> LogPlace:
        return place_of(log_files(connection), self._state.place, at.file, at.offset)

    def _prepare(self, entry: TableState, table: Table | None, start: int) -> Table | None:
        """The table as it is about to be copied; it is forgotten if there is none any more."""
        identity = entry.schema.identity
        if table is None:
            log.warning("%s is gone from the source; the target keeps what it has of it", entry.schema.table)
            self._state.forget(entry)
            return None
        if table.trouble is not None:
            raise SchemaChangeUnsupported(
                f"{table.name} cannot be followed any more. {table.trouble}",
                hint="Undo the change, and it is copied again; or start again without the table (--exclude).",
            )
        table = table.identified(identity)
        number = len(table.schema.columns) + 1
        self._state.tables[identity] = TableState(table.schema, table.charset, start, False, number, table.row_end)
        return table

    def _copy_steady(self, snapshot: Snapshot, tables: Sequence[Table], link: Link) -> Iterator[Segment]:
        gathered: list[Changes] = []
        size = 0
        for copied in SnapshotReader(snapshot).read(tables, link):
            if copied.batch is not None:
                gathered.append(Changes(copied.batch))
                size += copied.batch.size
                if size < _COPY_SEGMENTS * self._settings.budget:
                    continue
            elif copied.intact:
                faults.point("copy.before_done")
                self._is_copied(copied.table.schema)
            else:
                log.warning("%s was changed while it was copied; it is copied again", copied.table.name)
            # A table counts as copied with its last rows, in one transaction of the target (C-04).
            yield self._segment(gathered, size)
            faults.point("copy.after_segment")
            gathered, size = [], 0

    def _copy_locked(self, table: Table) -> Iterator[Segment]:
        """Engines without transactions have no snapshots: nobody may write to the table while it is copied (C-10)."""
        with Connection(self._dsn, self._purpose) as session, Connection(self._dsn, self._purpose) as reader:
            session.query(f"LOCK TABLES {quoted_table(table.name)} READ")
            place = self._place(log_now(session), session)
            identity = table.schema.identity
            self._state.tables[identity] = replace(self._state.tables[identity], start=place.order)
            for batch in select_rows(reader, table.schema):
                yield self._segment([Changes(batch)], batch.size)
            self._is_copied(table.schema)
            yield self._segment([])
            session.query("UNLOCK TABLES")

    def _is_copied(self, schema: TableSchema) -> None:
        self._state.tables[schema.identity] = replace(self._state.tables[schema.identity], copied=True)

    def _segment(self, steps: Sequence[Reset | Changes], size: int = 0) -> Segment:
        return Segment(list(steps), Transactions.none(), self._checkpoint(self._state.place.position()), size)

    def _checkpoint(self, position: Position) -> Checkpoint:
        """A checkpoint with the state as it is now, whose position is the one that the decoder has come to."""
        if self._decoder is not None:
            gtids, self._decoder.gtids = self._decoder.gtids, []
            if self._gtids is not None:
                for gtid in gtids:
                    self._gtids.add(gtid)
                self._state.gtids = str(self._gtids)
            self._state.prepared = dict(self._decoder.prepared)
            self._state.place = self._decoder.end
            self._state.mark = self._decoder.marks.get(self._state.place.file)
        return Checkpoint(Position(position.order, self._state.gtids or position.text), self._state.dump())

    # --- stream -----------------------------------------------------------------------------------------------------

    def stream(self, link: Link) -> Iterator[Segment]:
        while not link.stopping:
            self._adopt()
            yield from self._copy_missing(link)
            yield from self._follow(link)

    def _follow(self, link: Link) -> Iterator[Segment]:
        """Follow the log until a table has to be copied."""
        converter = ServerConverter(self._connection)
        with open_dump(self._dsn, self._purpose, self._state) as (connection, framer):
            bases = file_bases(log_files(self._connection), self._state.place)
            state = self._state
            marks = {state.place.file: state.mark} if state.mark is not None else {}
            decoder = self._decoder = Decoder(self, converter, state.place, bases, state.prepared, marks)
            stream = self._stream = BinlogStream(
                connection, framer, decoder, self._settings.budget, lambda p: prepared_rows(self._dsn, self._state, p)
            )
            try:
                for segment in stream.segments(link, self._checkpoint, self._state.place.position(), self._tick):
                    yield segment
                    if segment.checkpoint is not None and self._has_to_copy():
                        return
            finally:
                self._decoder = None

    def _has_to_copy(self) -> bool:
        can_look = self._look_after is not None and self._state.place.order >= self._look_after
        return can_look or any(not entry.copied for entry in self._state.tables.values())

    def _look_soon(self) -> None:
        """A table has come, or has another name: look at what there is once the log up to now has been followed."""
        at = log_now(self._connection)
        self._look_after = self._place(at, self._connection).order

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        at = log_now(self._connection)
        self._seen = Head(self._place(at, self._connection).position(), self._clock())

    def start(self, identity: int) -> int:
        """For the decoder: where a table's snapshot is."""
        entry = self._state.tables.get(identity)
        return entry.start if entry is not None else 0

    def plan(self, table_map: TableMap) -> Plan | None:
        """For the decoder: how to read a table's rows, if the table is followed."""
        name = TableName(table_map.schema, table_map.table)
        entry = self._state.named(name)
        if entry is None or not entry.copied:
            return None
        plan = plan_rows(entry, table_map)
        if plan is not None:
            return plan
        if (name, table_map) in self._refreshed:
            raise SchemaChangeUnsupported(
                f"The log's rows of {name} have another shape than the table, although it was just copied.",
                hint="Please report it, with SHOW CREATE TABLE. --exclude leaves the table out.",
            )
        self._refreshed.add((name, table_map))
        log.warning("%s has another shape than its statements in the log say; it is copied again", name)
        self._copy_again(entry)
        return None

    def _copy_again(self, entry: TableState) -> None:
        self._state.tables[entry.schema.identity] = replace(entry, copied=False)

    def statement(self, statement: Query, order: int, transaction: int, ordinal: int) -> list[Step]:
        """For the decoder: what a statement does to the tables that are followed."""
        steps: list[Step] = []
        for effect in ddl.effects(statement.text, statement.schema, ansi_quotes=statement.ansi_quotes):
            step = self._effect(effect, statement, order, transaction, ordinal + len(steps))
            if step is not None:
                steps.append(step)
        return steps

    def _effect(self, effect: ddl.Effect, statement: Query, order: int, transaction: int, ordinal: int) -> Step | None:
        if isinstance(effect, ddl.Written | ddl.Unclear):
            self._refuse_text(effect, statement)
            return None
        if isinstance(effect, ddl.Renamed):
            return self._rename(effect, order, transaction)
        if isinstance(effect, ddl.Dropped):
            for entry in list(self._state.tables.values()):
                table = entry.schema.table
                if effect.table in (table, TableName(table.schema, "*")) and order >= entry.start:
                    log.warning("%s was dropped in the source; the target keeps its rows", table)
                    self._state.forget(entry)
            return None
        known = self._state.named(effect.table)
        if isinstance(effect, ddl.Created):
            if known is None and self._is_meant(effect.table):
                self._look_soon()
            elif known is not None and effect.replaces and order >= known.start:
                self._copy_again(known)
            return None
        if known is None or not known.copied or order < known.start:
            return None
        if isinstance(effect, ddl.Truncated):
            return Truncate(known.schema, transaction, ordinal)
        return self._alter(known, effect, transaction)

    def _is_meant(self, name: TableName) -> bool:
        in_database = self._dsn.database in ("", name.schema)
        return in_database and self._settings.selection.matches(name) and not is_passing(name.name)

    def _refuse_text(self, effect: ddl.Written | ddl.Unclear, statement: Query) -> None:
        where = f"{self._state.place.file}:{statement.end}"
        for entry in self._state.tables.values():
            name = entry.schema.table
            if isinstance(effect, ddl.Written) and name in effect.tables:
                raise OperatorNeeded(
                    f"{effect.kind} on {name} was logged as text at {where}: the log does not have its rows.",
                    hint="Set binlog_format = ROW for all sessions. Only a new copy is right again: `cdc teardown`, "
                    "remove the target, start again.",
                )
            if isinstance(effect, ddl.Unclear) and name.name in effect.names:
                raise SchemaChangeUnsupported(
                    f"A statement of the kind {effect.kind!r} at {where} names {name}, and cdc does not understand it.",
                    hint="If it does not touch the table, please report it. Only a new copy is certainly right: "
                    "`cdc teardown`, remove the target, start again.",
                )

    def _rename(self, effect: ddl.Renamed, order: int, transaction: int) -> Step | None:
        """Tables may take each other's names: what matters is who has a name that is followed in the end (B-43)."""
        leaving, arriving = self._state.named(effect.old), self._state.named(effect.new)
        if leaving is None or order < leaving.start:
            # One that is not followed, or was copied under the name that it has after this.
            if arriving is None and self._is_meant(effect.new):
                self._look_soon()
            return None
        if arriving is not None:
            # Copied already under the name that this one takes: it is this one.
            self._state.forget(leaving)
            self._look_soon()
            return None
        if not self._is_meant(effect.new):
            if is_passing(effect.new.name):
                # The new content comes under the old name in a moment, and is copied.
                self._copy_again(leaving)
            else:
                log.warning("%s is %s now, which is not followed", effect.old, effect.new)
                self._state.forget(leaving)
            return None
        after = renamed(leaving, effect.new)
        self._state.tables[leaving.schema.identity] = after
        if not leaving.copied:
            return None
        return Evolve(leaving.schema, after.schema, transaction)

    def _alter(self, entry: TableState, effect: ddl.Altered, transaction: int) -> Step | None:
        try:
            after, fill = evolved(entry, effect.actions, self._state.flavor)
        except CopyAgain:
            log.warning(
                "%s was altered in a way that rewrites rows without logging them; it is copied again", effect.table
            )
            self._copy_again(entry)
            return None
        if after.schema == entry.schema:
            return None
        self._state.tables[entry.schema.identity] = after
        log.info("%s changed its shape", effect.table)
        return Evolve(entry.schema, after.schema, transaction, fill)


def plan_rows(entry: TableState, table_map: TableMap) -> Plan | None:
    """Which column of a row image is which of the table; None if they do not go together."""
    schema, wire = entry.schema, table_map.columns
    sources = tuple(source_type(column.source_type) for column in schema.columns)
    row_end = None
    if all(column.name is not None for column in wire):
        places = {column.name: place for place, column in enumerate(wire)}
        known = {column.name for column in schema.columns}
        others = [name for name in places if name not in known and not str(name).startswith(_HIDDEN)]
        if entry.row_end is not None:
            row_end = places.get(entry.row_end or "row_end")
            others = [] if row_end is not None and len(others) == 2 else ["row_start"]
        if others or not known <= set(places):
            return None
        chosen = tuple(places[column.name] for column in schema.columns)
    else:
        if len(wire) < len(schema.columns) or entry.row_end:
            return None
        if entry.row_end is not None:
            row_end = len(wire) - 1
        chosen = tuple(range(len(schema.columns)))
    if not all(fits(source, wire[place]) for source, place in zip(sources, chosen, strict=True)):
        return None
    return Plan(schema, wire, chosen, sources, row_end)
