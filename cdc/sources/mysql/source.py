"""The MySQL and MariaDB source: snapshot, then binlog."""

from __future__ import annotations

import difflib
import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from cdc import faults
from cdc.errors import NoTables, OtherPipeline, SourceUnfit, UsageError
from cdc.model.change import Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableName, TableSchema
from cdc.model.segment import Changes, Reset, Segment, Step, with_gaps
from cdc.model.selection import Selection
from cdc.model.standing import Apart, Standing, State
from cdc.options import KeptOptions
from cdc.source import Head, Link
from cdc.sources.findings import Severity
from cdc.sources.gathering import Gathered
from cdc.sources.mysql.binlog import Decoder
from cdc.sources.mysql.catalog import Table, named_tables, selected, user_tables
from cdc.sources.mysql.charsets import ServerConverter
from cdc.sources.mysql.check import check
from cdc.sources.mysql.connection import Connection, Dsn, mapped_errors
from cdc.sources.mysql.copy import Snapshot, SnapshotReader
from cdc.sources.mysql.dump import log_mark, open_dump, prepared_rows, verify_mark
from cdc.sources.mysql.engines import engine_trouble
from cdc.sources.mysql.gtid import MariaDbGtids, MySqlGtids
from cdc.sources.mysql.identity import (
    Log,
    file_bases,
    has_gtids,
    log_files,
    log_now,
    place_of,
    refuse_filters,
    refuse_prepared,
    server_identity,
    verify_server,
)
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.replaces import StatementsNeeded
from cdc.sources.mysql.rights import UNREADABLE, grants, unreadable
from cdc.sources.mysql.select import quoted_table, select_rows
from cdc.sources.mysql.state import SourceState, TableState, standings
from cdc.sources.mysql.stream import BinlogStream
from cdc.sources.mysql.tables import FollowedTables
from cdc.waiting import MACHINE, Waiting

log = logging.getLogger(__name__)

_LOOK_EVERY = 5.0  # seconds between looks at how far the server's log is
_PATIENCE = 15.0  # seconds that the stream may wait for an answer about something else
_LOCKED_FOR = 600  # seconds that the server keeps our lock of a table while it hears nothing of us
_COPY_SEGMENTS = 4  # budgets of the stream in one segment of a copy, at most


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user may choose of a source.

    Attributes:
        name: of the pipeline.
        options: of the tables; those without a key are followed whatever it says.
        workers: sessions that copy in parallel.
        budget: bytes of log that make one segment at most.
        notes: tell the statements that rows were changed by, where the log has them, too; and whole rows as they were
            before a change, not their keys alone.
        by_parts: a table that has to be copied again is copied part by part beside the stream; otherwise the stream
            waits for it, as a target needs it that takes no parts.
    """

    name: str
    options: KeptOptions
    workers: int
    budget: int
    notes: bool = False
    by_parts: bool = True


@dataclass(slots=True)
class Learned:
    """What one try has found out for the next ones.

    Attributes:
        needs_statements: changes can be understood with the texts of their statements only.
        numbers: which table has got which number: a target says by these what it cannot take.
    """

    needs_statements: bool = False
    numbers: dict[TableName, int] = field(default_factory=dict)


class MySqlSource:
    """One MySQL or MariaDB server as a `cdc.source.Source`."""

    def __init__(
        self, dsn: Dsn, settings: Settings, waiting: Waiting = MACHINE, learned: Learned | None = None
    ) -> None:
        self._dsn = dsn
        self._settings = settings
        self._learned = learned or Learned()
        self._waiting = waiting
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
        self._has_news = False
        self._is_looking = False  # at what the source has, between two dumps: what it finds is not handed over yet
        self._looked = 0.0
        self._seen_new: set[TableName] = set()  # that are not followed, and may be tables that are, under new names
        self._tables: FollowedTables
        self._grants: list[str] = []
        self._apart: list[Apart] = []
        self._refused: dict[int, str] = {}  # tables that the target cannot take and why, until they have a number (H8)

    @property
    def head(self) -> Head:
        heads = [self._opened_at, self._seen, self._stream.head if self._stream is not None else None]
        return max((head for head in heads if head is not None), key=lambda head: head.position)

    @property
    def estimates(self) -> dict[TableName, int]:
        return {table.name: table.rows_estimated for table in self._selected}

    @property
    def followed(self) -> dict[int, TableName]:
        return {identity: entry.schema.table for identity, entry in list(self._state.tables.items())}

    @property
    def apart(self) -> dict[TableName, Standing]:
        return standings(self._state, only_apart=True)

    @property
    def meant(self) -> list[TableSchema]:
        return [table.schema for table in self._selected] if self._is_new else []

    @property
    def is_complete(self) -> bool:
        return self._tables.are_complete and not self._is_looking

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
                options=self._settings.options,
                place=LogPlace(now.file, 0, now.offset),
                gtids=now.gtids,
            )
            here = self._state.place
        else:
            state = self._state = SourceState.load(resume.state)
            if state.pipeline != self._settings.name:
                raise OtherPipeline(
                    f"The target belongs to the pipeline {state.pipeline!r}.",
                    hint="Give that name with --name, or use another target.",
                )
            refuse_filters(connection)
            if verify_server(connection, state):
                verify_mark(self._dsn, state)
                here = place_of(log_files(connection), state.place, now.file, now.offset)
            else:
                # Another server's files: positions count on from where the target is.
                state.server, state.mark = server_identity(connection), []
                files = log_files(connection)
                state.place = LogPlace(next(iter(files)), state.place.order, 0)
                state.prepared = {}  # places of the other's log; if one is committed after all, the stream stops there
                here = place_of(files, state.place, now.file, now.offset)
                log.warning("%s is another server than before; cdc goes on there from %s", self._dsn, state.gtids)
            self._selected = self._select()
            followed = [entry.schema.table for entry in state.tables.values()]
            there = [table.name for table in self._selected]
            for pattern in self._settings.options.selection.unmatched_now(there, followed):
                log.warning("No table matches %r now; the others are followed.", pattern)
        self._tables = self._followed_tables()
        self._forget_unselected()
        self._grants = grants(connection)
        is_known = all(self._state.named(table.name) is not None for table in self._selected)
        if resume is not None and not (is_known and self._tables.are_complete):
            self._tables.look_after = here.order
        if resume is not None and self._hold_unreadable():
            self._has_news = True
        if self._state.options != self._settings.options:
            self._state.options, self._has_news = self._settings.options, True
        self._state.apart = self._apart
        self._gtids = self._parsed(self._state.gtids) if has_gtids(connection) else None
        self._opened_at = Head(here.position(), self._clock())

    def _followed_tables(self) -> FollowedTables:
        return FollowedTables(
            self._state,
            self._connection,
            self._settings.options.selection,
            holds_tables=self._settings.options.holds_tables,
            by_parts=self._settings.by_parts,
            numbers=self._learned.numbers,
        )

    def _forget_unselected(self) -> None:
        """A table that was taken out of the selection is left in the target as it is."""
        for entry in list(self._state.tables.values()):
            name = entry.schema.table
            if not self._tables.is_selected(name):
                log.warning("%s is not followed any more; the target keeps its rows", name)
                self._tables.forget(entry, "it was taken out of the selection")
                self._has_news = True

    def _mind_rights(self) -> bool:
        """Whether rights came or went since the last look: so do tables."""
        found = grants(self._connection)
        if found == self._grants:
            return False
        self._grants = found
        self._hold_unreadable()
        self._tables.look_soon()
        if self._decoder is not None:
            self._decoder.ask_again()
        return True

    def _hold_unreadable(self) -> bool:
        """Who may not read a table gets no more of it from the log either (M21); whether there was any change."""
        entries = list(self._state.tables.values())
        refused = unreadable(self._connection, [entry.schema.table for entry in entries])
        lost = [entry for entry in entries if entry.schema.table in refused and entry.held is None]
        back = [
            entry
            for entry in entries
            if entry.schema.table not in refused and entry.held is not None and entry.held.startswith(UNREADABLE)
        ]
        for entry in lost:
            self._tables.hold(entry, refused[entry.schema.table])
        for entry in back:
            self._tables.copy_again(entry, "the user may read it again")
        return bool(lost or back)

    def _parsed(self, gtids: str) -> MySqlGtids | MariaDbGtids:
        return MariaDbGtids.parse(gtids) if self._state.flavor == "mariadb" else MySqlGtids.parse(gtids)

    def _clock(self) -> int:
        with mapped_errors(self._dsn):
            return int(self._connection.value("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"))

    def _refuse_unfit(self) -> None:
        """The preflight of a first start."""
        names = [table.name for table in user_tables(self._connection, self._dsn.database)]
        fatal = [
            f
            for f in check(self._connection, self._dsn.database, self._certain(self._settings.options.selection, names))
            if f.severity is Severity.FATAL
        ]
        if fatal:
            raise SourceUnfit(
                "The source is not ready: " + " ".join(f"{finding.subject}: {finding.message}" for finding in fatal),
                hint=" ".join(finding.fix for finding in fatal if finding.fix) or "`cdc check SOURCE` says more.",
            )

    def _select(self) -> list[Table]:
        """The tables to follow.

        Raises:
            UsageError: a new pipeline has a pattern that means nothing, most likely by a typing error, or no table.
        """
        selection = self._settings.options.selection
        everything = user_tables(self._connection, self._dsn.database)
        names = [table.name for table in everything]
        for pattern in self._certain(selection, names).unmatched(names) if self._is_new else ():
            close = difflib.get_close_matches(pattern, [str(table.name) for table in everything], n=1)
            raise NoTables(
                f"No table matches {pattern!r}.",
                hint=f"Did you mean {close[0]!r}?" if close else "Patterns are database.table, with * and ?.",
            )
        tables = [table for table in selected(everything, selection) if table.schema.columns]
        if not tables and self._is_new:
            raise NoTables(f"{self._dsn} has no table to follow.", hint="--tables chooses the tables.")
        troubled = {table.name: table.trouble for table in tables if table.trouble is not None}
        for table in tables:
            if self._is_new and table.trouble is not None and not engine_trouble(table.engine):
                raise UsageError(f"{table.name} cannot be followed. {table.trouble}", hint="--exclude leaves it out.")
        self._apart = [Apart(name, Standing(State.LEFT_OUT, why)) for name, why in troubled.items()]
        return [table for table in tables if table.trouble is None]

    def _certain(self, selection: Selection, tables: Sequence[TableName]) -> Selection:
        """Without patterns that need not mean any of the tables that are there now: all others are typing errors."""
        return selection

    def close(self) -> None:
        self._resources.close()
        self._resources = ExitStack()

    # --- snapshot ---------------------------------------------------------------------------------------------------

    def copy(self, link: Link) -> Iterator[Segment]:
        if self._is_new:
            for table in self._selected:
                self._tables.expect(self._as_logged(table))
        elif self._hold_refused(link) or self._has_news:
            # The target has to have it, which others ask what is followed, however long nothing else happens.
            yield self._segment([])
        yield from self._copy_missing(link)

    def _as_logged(self, table: Table) -> Table:
        """With whole rows before a change, if somebody wants to know and the log has them."""
        if not self._settings.notes or not self._logs_whole_rows():
            return table
        return replace(table, schema=replace(table.schema, full_before=True))

    def _logs_whole_rows(self) -> bool:
        """Whether sessions do, unless they say otherwise."""
        return (self._connection.variable("binlog_row_image") or "").upper() == "FULL"

    def _adopt(self) -> list[tuple[TableState, Table]]:
        """Number the tables that are meant and not followed yet, each with what it is now.

        Done only once all that the log had at some moment has been followed, since until then a table that is followed
        may have another name there than it has now.
        """
        selected_now = self._select()
        self._state.apart = [one for one in self._apart if self._state.named(one.table) is None]
        new = [
            table
            for table in selected_now
            if self._state.named(table.name) is None and table.name not in self._tables.ghosts
        ]
        certain = self._not_renamed(new)
        entries = [(self._tables.expect(table), table) for table in map(self._as_logged, certain)]
        if len(certain) == len(new):
            self._tables.look_after = None  # last, since nothing is complete before
        return entries

    def _not_renamed(self, new: Sequence[Table]) -> list[Table]:
        """Those that are no table which is followed, and got its name just before it was seen here.

        All are, if the log says nothing that came before they were seen. Otherwise those that were seen before.
        """
        seen, self._seen_new = self._seen_new, set()
        if not new:
            return []
        self._tables.look_soon()
        if self._tables.can_look:
            return list(new)
        certain = [table for table in new if table.name in seen]
        self._seen_new = {table.name for table in new if table.name not in seen}
        return certain

    def _take_in(self) -> Iterator[Segment]:
        """From here on the changes of tables that are new or to be copied again are followed, while their rows are
        copied part by part."""
        if not self._tables.can_look:
            return
        # What was written before the catalog is read may have another shape, and is in the copy.
        start = max(self._place(log_now(self._connection), self._connection).order, self._state.place.order)
        adopted = self._adopt()
        is_news = self._hold_numbered()
        held = {entry.schema.identity for entry in self._state.tables.values() if entry.held is not None}
        taken = [
            self._tables.take_in(entry, table, start) for entry, table in adopted if entry.schema.identity not in held
        ]
        if not self._settings.by_parts:
            self._copy_rekeyed()
        again = [entry for entry in self._state.tables.values() if not entry.is_settled and entry.copied]
        found = named_tables(self._connection, [entry.schema.table for entry in again])
        until = self._place(log_now(self._connection), self._connection).order
        for entry in again:
            if (table := self._prepared_again(entry, found.get(entry.schema.table), until)) is None:
                continue
            goes_on = entry.is_followed and _is_as_followed(entry, table)
            if entry.is_followed and not goes_on:
                self._tables.lose(entry, "it has another shape than its statements in the log say")
            # With another key alone its rows have been what they are all the time.
            taken.append(self._tables.take_in(entry, self._as_logged(table), entry.start if goes_on else start))
        if taken or is_news:
            faults.point("copy.adopted")
            yield self._segment([Reset(entry.schema, by_parts=True) for entry in taken])

    def _copy_rekeyed(self) -> None:
        """Where nothing comes by parts, a table with another key is copied as if it had never been."""
        for entry in list(self._state.tables.values()):
            if entry.rekeyed:
                self._state.tables[entry.schema.identity] = replace(entry, rekeyed=False, copied=False)

    def _prepared_again(self, entry: TableState, table: Table | None, until: int) -> Table | None:
        """The table to be copied again as it is now, if it can be.

        Args:
            until: where the log was after the table was looked for: it may have got another name up to there.
        """
        if table is None and until > self._state.place.order:
            self._tables.look_after = until
        elif table is None:
            log.warning("%s is gone from the source; the target keeps its rows", entry.schema.table)
            self._tables.forget(entry, "it is gone from the source")
        elif table.trouble is not None:
            self._tables.hold(entry, table.trouble)
        elif entry.is_followed and not _is_as_followed(entry, table) and until > self._state.place.order:
            self._tables.look_after = until  # the log may have yet to say what became of it
        else:
            return table
        return None

    # --- tables that are not simply followed ------------------------------------------------------------------------

    def _hold_refused(self, link: Link) -> bool:
        """Hold what the stages after this one cannot take; whether there was anything."""
        self._refused |= link.take_refused()
        return self._hold_numbered()

    def _hold_numbered(self) -> bool:
        """The same for those that have a number by now."""
        tables = self._state.tables
        refused = [one for one in self._refused if one in tables]
        for identity in refused:
            why = self._refused.pop(identity)
            if tables[identity].held is None:
                self._tables.hold(tables[identity], why)
        return bool(refused)

    def _mind_wishes(self, link: Link) -> bool:
        """Do what the other side wants of tables; whether there was anything."""
        again = link.take_again() & self._state.tables.keys()
        for identity in again:
            self._tables.copy_again(self._state.tables[identity], "somebody has asked for it")
        return self._hold_refused(link) or bool(again)

    def _copy_missing(self, link: Link) -> Iterator[Segment]:
        while (
            self._tables.look_after is None
            and (missing := [entry for entry in self._state.tables.values() if not entry.copied and entry.held is None])
            and not link.stopping
        ):
            with Snapshot(self._dsn, self._purpose, self._settings.workers) as snapshot:
                if self._is_new:  # later ones are prepared where the stream sees it
                    refuse_prepared(snapshot.guard, self._dsn)
                before = named_tables(snapshot.guard, [entry.schema.table for entry in missing])
                faults.point("copy.before_snapshot")
                at = snapshot.begin(list(before.values()))
                # Looked at again, since a table may have changed before the snapshot began.
                found = {
                    name: table.certain(before[name]) for name, table in named_tables(snapshot.guard, before).items()
                }
                if self._is_new:
                    self._begin_at(at)
                    # Tables may have come, or have got other names, between the first look and this.
                    self._tables.look_after = self._state.place.order
                start = self._place(at, snapshot.guard)
                tables = [
                    table
                    for entry in missing
                    if (table := self._prepare(entry, found.get(entry.schema.table), start.order)) is not None
                ]
                faults.point("copy.before_reset")
                yield self._segment([Reset(table.schema) for table in tables])
                faults.point("copy.before_first_row")
                steady = [table for table in tables if table.is_transactional]
                yield from self._copy_steady(snapshot, steady, link)
            for table in tables:
                if not table.is_transactional and not link.stopping:
                    yield from self._copy_locked(table, link)

    def _begin_at(self, at: Log) -> None:
        self._is_new = False
        self._state.place = LogPlace(at.file, 0, at.offset)
        self._state.mark = log_mark(self._dsn, self._state.server_id, self._state.place)
        self._state.gtids = at.gtids
        self._gtids = self._parsed(at.gtids) if self._gtids is not None else None
        log.info("the copy is made at %s:%d", at.file, at.offset)

    def _place(self, at: Log, connection: Connection) -> LogPlace:
        return place_of(log_files(connection), self._state.place, at.file, at.offset)

    def _prepare(self, entry: TableState, table: Table | None, start: int) -> Table | None:
        """The table as it is about to be copied; it is forgotten if there is none any more.

        That can be said only if the log up to the snapshot has been followed: it may have got another name there.
        """
        identity = entry.schema.identity
        if table is None and start > self._state.place.order:
            self._tables.look_after = start
            return None
        if table is None:
            log.warning("%s is gone from the source; the target keeps its rows", entry.schema.table)
            self._state.forget(entry)
            return None
        if table.trouble is not None:
            self._tables.hold(entry, table.trouble)
            return None
        table = self._as_logged(table.identified(identity))
        self._state.tables[identity] = table.followed(start, copied=False)
        return table

    def _copy_steady(self, snapshot: Snapshot, tables: Sequence[Table], link: Link) -> Iterator[Segment]:
        gathered = Gathered(len(tables), _COPY_SEGMENTS * self._settings.budget, self._waiting.now)
        for copied in SnapshotReader(snapshot).read(tables, link):
            if copied.batch is not None:
                gathered.add(copied.batch)
            elif copied.intact:
                gathered.end(copied.table.schema.identity)
            else:
                log.warning("%s was changed while it was copied; it is copied again", copied.table.name)
            while gathered.is_due:
                yield from _given(self._copied(gathered))
        if gathered:
            yield from _given(self._copied(gathered))

    def _copied(self, gathered: Gathered) -> Segment:
        """What has been copied. A table counts as copied with its last rows, in one transaction there (C-04)."""
        changes, size, ended = gathered.take()
        faults.point("copy.before_done")
        for identity in ended:
            self._state.tables[identity] = replace(self._state.tables[identity], copied=True)
        return self._segment(changes, size)

    def _copy_locked(self, table: Table, link: Link) -> Iterator[Segment]:
        """Engines without transactions have no snapshots: nobody may write to the table while it is copied (C-10)."""
        with Connection(self._dsn, self._purpose) as session, Connection(self._dsn, self._purpose) as reader:
            session.lose_locks_after(_LOCKED_FOR)
            session.query(f"LOCK TABLES {quoted_table(table.name)} READ")
            place = self._place(log_now(session), session)
            identity = table.schema.identity
            self._state.tables[identity] = replace(self._state.tables[identity], start=place.order)
            gathered = Gathered(1, _COPY_SEGMENTS * self._settings.budget, self._waiting.now)
            for batch in select_rows(reader, table.schema, alive=link.alive):
                gathered.add(batch)
                while gathered.is_due:
                    yield self._copied(gathered)
                session.query("DO 0")  # we are there
            session.query("UNLOCK TABLES")  # fails if the lock was lost, and the copy is none
            gathered.end(identity)
            yield self._copied(gathered)

    def _segment(self, steps: Sequence[Reset | Changes], size: int = 0) -> Segment:
        checkpoint = self._checkpoint(self._state.place.position())
        everything: list[Step] = [*self._tables.take_gaps(), *steps]
        return Segment(everything, Transactions.none(), checkpoint, size + len(checkpoint.state))

    def _checkpoint(self, position: Position) -> Checkpoint:
        """A checkpoint with the state as it is now, whose position is the one that the decoder has come to."""
        if self._decoder is not None:
            gtids, self._decoder.gtids = self._decoder.gtids, []
            if self._gtids is not None:
                for gtid in gtids:
                    self._gtids.add(gtid)
                self._state.gtids = str(self._gtids)
            self._state.prepared = dict(self._decoder.prepared)
            if self._decoder.end.order >= self._state.place.order:
                self._state.place = self._decoder.end
                self._state.mark = self._decoder.marks.get(self._state.place.file, [])
        return Checkpoint(Position(position.order, self._state.gtids or position.text), self._state.dump())

    # --- stream -----------------------------------------------------------------------------------------------------

    def stream(self, link: Link) -> Iterator[Segment]:
        while not link.stopping:
            self._is_looking = True
            yield from self._take_in()
            yield from self._copy_missing(link)
            self._is_looking = False
            yield from self._follow(link)

    def _follow(self, link: Link) -> Iterator[Segment]:
        """Follow the log until a table has to be copied."""
        converter = ServerConverter(self._connection)
        texts = self._settings.notes or self._learned.needs_statements or not self._logs_whole_rows()
        with open_dump(self._dsn, self._purpose, self._state, statements=texts) as (connection, framer):
            bases = file_bases(log_files(self._connection), self._state.place)
            state = self._state
            marks = {state.place.file: state.mark}
            decoder = self._decoder = Decoder(
                self._tables,
                converter,
                state.place,
                bases,
                state.prepared,
                marks,
                notes=self._settings.notes,
                is_mariadb=state.flavor == "mariadb",
                has_texts=texts,
            )
            fetch = partial(prepared_rows, self._dsn, state)
            stream = self._stream = BinlogStream(
                connection, framer, decoder, self._settings.budget, fetch, self._waiting
            )
            try:
                position = self._state.place.position()
                for segment in stream.segments(link, self._checkpoint, position, lambda: self._tick(link)):
                    yield with_gaps(segment, self._tables.take_gaps())
                    if segment.checkpoint is not None and self._has_to_look():
                        return
            except StatementsNeeded:
                self._learned.needs_statements = True
                raise
            finally:
                self._decoder = None

    def _has_to_look(self) -> bool:
        """Whether the log has been followed far enough for tables to be copied."""
        return self._tables.can_look

    def _tick(self, link: Link) -> bool:
        is_wanted = self._mind_wishes(link) or self._tables.can_look
        now = self._waiting.now()
        if now - self._looked < _LOOK_EVERY:
            return is_wanted
        self._looked = now
        self._tables.tick(now)
        is_wanted |= self._mind_rights()
        at = log_now(self._connection)
        self._seen = Head(self._place(at, self._connection).position(), self._clock())
        return is_wanted


def _is_as_followed(entry: TableState, table: Table) -> bool:
    """Whether a table has the columns now that it has in the log."""
    known, now = ([(column.name, column.type) for column in one.schema.columns] for one in (entry, table))
    return known == now


def _given(segment: Segment) -> Iterator[Segment]:
    """Hand a segment of a copy over."""
    yield segment
    faults.point("copy.after_segment")
