"""The change stream alone: no snapshot, and no target that remembers anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import psycopg
from psycopg import sql

from cdc.errors import OperatorNeeded, PublicationChanged, SlotUnusable, UsageError
from cdc.model.moment import Moment
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import Column, TableName, TableSchema
from cdc.model.segment import Segment
from cdc.source import Head, Link
from cdc.sources.postgres.catalog import publication_fingerprint, tables_by_oid, type_infos
from cdc.sources.postgres.connection import Dsn, connect, connect_replication, mapped_errors
from cdc.sources.postgres.identity import identify, read_slot
from cdc.sources.postgres.pgoutput import Resolved
from cdc.sources.postgres.position import lsn
from cdc.sources.postgres.relation import Relation
from cdc.sources.postgres.session import Session
from cdc.sources.postgres.slot import create_slot
from cdc.sources.postgres.source import PostgresSource, Settings
from cdc.sources.postgres.state import SourceState
from cdc.sources.postgres.types import logical_type


class TailSource(PostgresSource):
    """What is committed from now on; or, from a slot that is kept, since it was last read.

    Args:
        keep: the slot stays when this is closed, and the next one goes on from there. Otherwise slot and publication
            are temporary; a lost connection then is a gap, and ends the stream.
        begin: where to begin, of what the slot still has: an LSN, or a time, before which the reader skips all
            transactions. With it nothing is acknowledged: what the reader skips would be gone.
    """

    def __init__(self, dsn: Dsn, settings: Settings, *, keep: bool, begin: Moment | None = None) -> None:
        super().__init__(dsn, settings)
        self._keep = keep
        self._begin = begin
        self._acknowledges = begin is None
        self._replication: Session
        self._published = False
        self._needs_slot = False

    @property
    def is_complete(self) -> bool:
        return True

    def open(self, resume: Checkpoint | None) -> None:
        if resume is not None and not self._keep:
            raise OperatorNeeded(
                f"The connection to {self._dsn} was lost after {resume.position}, and with it the temporary slot.",
                hint="A new slot does not have the changes since then. With --slot NAME, a run goes on where the "
                "last one ended.",
            )
        self._connection = self._resources.enter_context(connect(self._dsn, self._application))
        self._replication = self._resources.enter_context(connect_replication(self._dsn, self._application))
        with mapped_errors(self._dsn):
            server = identify(self._replication, self._connection)
            self._opened_at = Head(server.flushed, server.clock)
            self._state = SourceState("tail", server.system, server.database, server.timeline, slot=self._settings.slot)
            self._selected = self._select()
            self._watch_tables()
            slot = read_slot(self._connection, self._settings.slot)
            if slot is None:
                if self._begin is not None:
                    raise UsageError(
                        f"{self._dsn} has no slot {self._settings.slot!r}, and the server keeps no log without one.",
                        hint="--slot NAME without --from makes the slot. Later, --from can go back as far as it was "
                        "read.",
                    )
                self._refuse_leftovers()
                self._membership.create(self._selected)
                self._published = True
                self._needs_slot = True
                return
            if slot.wal_status == "lost" or slot.invalidation is not None or slot.confirmed is None:
                raise SlotUnusable(
                    f"Replication slot {self._settings.slot!r} on {self._dsn} is lost; changes since it was last read "
                    "are gone.",
                    hint=self._how_to_begin_again(),
                )
            if self._begin is not None:
                self._begin.refuse_future(server.clock)
            self._position = self._where(lsn(slot.confirmed), server.flushed, resume)
            names = [self._settings.publication, self._settings.inserts_publication]
            self._state.publications = publication_fingerprint(self._connection, names)
            if self._settings.publication not in self._state.publications:
                raise PublicationChanged(
                    f"The publication of slot {self._settings.slot!r} on {self._dsn} is gone.",
                    hint=self._how_to_begin_again(),
                )

    def _how_to_begin_again(self) -> str:
        names = f'"{self._settings.publication}", "{self._settings.inserts_publication}"'
        return (
            f"SELECT pg_drop_replication_slot('{self._settings.slot}'); DROP PUBLICATION IF EXISTS {names}; "
            "then run the command again without --from: it makes a new slot."
        )

    def _where(self, confirmed: Position, flushed: Position, resume: Checkpoint | None) -> Position:
        """Where to go on: the slot may not know yet how far we were when the connection was lost."""
        if resume is not None:
            return max(confirmed, resume.position)
        if self._begin is None or self._begin.lsn is None:
            return confirmed
        begin = lsn(self._begin.lsn)
        if begin < confirmed:
            raise UsageError(
                f"Replication slot {self._settings.slot!r} on {self._dsn} was read up to {confirmed}. The log between "
                f"{begin} and there is gone.",
                hint="Give a later position with --from, or leave --from out.",
            )
        if begin > flushed:
            raise UsageError(
                f"{begin} is in the future: {self._dsn} has written its log up to {flushed}.",
                hint="Give an earlier position with --from, or leave --from out.",
            )
        return begin

    def copy(self, link: Link) -> Iterator[Segment]:
        """Nothing: only what happens is emitted, from the moment on that there is a slot."""
        if self._needs_slot:
            name = self._settings.slot
            with mapped_errors(self._dsn):
                made = create_slot(self._replication, name, self._connection, link, temporary=not self._keep)
            if made is not None:
                self._needs_slot = False
                _, self._position = made
        if not self._needs_slot:
            yield self._segment([])  # on a server where nothing happens, a run that is to end would wait for something

    def stream(self, link: Link) -> Iterator[Segment]:
        yield from self._follow(self._replication, link)

    def resolve(self, relation: Relation) -> Resolved | None:
        """A table as the log describes it; nothing here depends on what it was before. A slot that is kept may have
        been made for more tables than are meant now."""
        if not self._settings.options.selection.matches(TableName(relation.namespace, relation.name)):
            return None
        with mapped_errors(self._dsn):
            today = tables_by_oid(self._connection, [relation.oid]).get(relation.oid)
            types = type_infos(self._connection)
        known = {column.name: column for column in today.schema.columns} if today is not None else {}
        is_full, is_usable = relation.identity == "f", today is None or today.has_identity
        is_whole = is_full and (today is None or today.kind == "r" or today.schema.full_before)
        columns, keys = [], 0
        for index, said in enumerate(relation.columns):
            now = known.get(said.name)
            # A FULL identity flags every column; then the key is the table's own, if it has one. The flags leave out
            # the generated columns of a key.
            in_key = (now is not None and now.key is not None) if is_full else is_usable and said.is_identity
            columns.append(
                Column(
                    name=said.name,
                    source_type=now.source_type if now is not None else "",
                    type=logical_type(types, said.type_oid, said.type_modifier, now.type.dimensions if now else 0),
                    identity=index + 1,
                    key=keys if in_key else None,
                )
            )
            keys += in_key
        table = TableName(relation.namespace, relation.name)
        return Resolved(TableSchema(table, relation.oid, tuple(columns), is_whole))

    def close(self) -> None:
        if self._published and (self._needs_slot or not self._keep):
            self._published = False
            with suppress(psycopg.Error):
                self._replication.close()  # takes the temporary slot along
                for name in self._state.publications:
                    self._connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name)))
        super().close()
