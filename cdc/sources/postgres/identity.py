"""Proof that a server, a slot and a checkpoint belong together. Whatever does not fit stops the pipeline."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import psycopg

from cdc.errors import PublicationChanged, SlotUnusable, SourceChanged, Unavailable
from cdc.model.position import Position
from cdc.sources.postgres.catalog import (
    Connection,
    is_same_publication,
    of_owner,
    publication_fingerprint,
    tables_by_oid,
    without_tables,
)
from cdc.sources.postgres.connection import Dsn, run_command
from cdc.sources.postgres.position import lsn, parse_lsn, write_lsn
from cdc.sources.postgres.session import Session, number, of_type, readable
from cdc.sources.postgres.state import SourceState, Switch

RESYNC = "Run `cdc teardown SOURCE TARGET`, remove the target, and start again: what lies between is lost."


@dataclass(frozen=True, slots=True)
class Server:
    """Which server this is, and how far it has got.

    Attributes:
        clock: the server's, in microseconds since the Unix epoch.
        history: how it came to its timeline, oldest step first; None if it does not know any more.
        is_standby: it was not promoted, or not yet.
    """

    system: str
    timeline: int
    database: str
    flushed: Position
    clock: int
    history: tuple[Switch, ...] | None = ()
    is_standby: bool = False


@readable()
def identify(replication: Session, connection: Connection) -> Server:
    """Ask a server who it is (IDENTIFY_SYSTEM)."""
    answer = run_command(replication, "IDENTIFY_SYSTEM")[0]
    row = connection.execute(
        "SELECT oid::text, (extract(epoch FROM clock_timestamp()) * 1000000)::int8, pg_is_in_recovery() "
        "FROM pg_database WHERE datname = current_database()"
    ).fetchone()
    database, clock, is_standby = of_type(row, tuple)
    timeline = number(answer["timeline"] or 0)
    return Server(
        system=str(answer["systemid"]),
        timeline=timeline,
        database=str(database),
        flushed=lsn(parse_lsn(str(answer["xlogpos"]))),
        clock=of_type(clock, int),
        history=_history(replication, timeline),
        is_standby=of_type(is_standby, bool),
    )


def _history(replication: Session, timeline: int) -> tuple[Switch, ...] | None:
    """What the history file of a timeline says: one line for each that it comes from."""
    if timeline <= 1:
        return ()
    try:
        content = run_command(replication, f"TIMELINE_HISTORY {timeline}")[0]["content"]
    except psycopg.errors.UndefinedFile:
        return None
    lines = [line.split() for line in str(content).splitlines()]
    return tuple(Switch(number(words[0]), parse_lsn(words[1])) for words in lines if words and words[0].isdecimal())


def verify_server(state: SourceState, position: Position, server: Server, dsn: Dsn) -> None:
    """Refuse another system (A-16), another database, an earlier state (A-15) and another history (A-12, A-13, P19).

    Raises:
        Unavailable: the server is a standby, which may be promoted at any time.
        SourceChanged: the server is not the one that the checkpoint belongs to.
    """
    if server.is_standby:
        raise Unavailable(
            f"{dsn} is a standby.",
            hint="Give the DSN of the primary, or one with several hosts: then cdc looks for the primary. Or promote "
            "this server.",
        )
    if server.system != state.system:
        raise SourceChanged(
            f"{dsn} is another server: its system identifier is {server.system}, the target follows {state.system}.",
            hint="Point the DSN at the server that was followed. If that is gone: " + RESYNC,
        )
    if server.database != state.database:
        raise SourceChanged(
            f"{dsn} is another database than the one that the target follows.",
            hint="Check the database name in the DSN; a database that was dropped and made again is another one.",
        )
    if server.timeline < state.timeline:
        raise SourceChanged(
            f"{dsn} is on timeline {server.timeline}, the target has followed timeline {state.timeline}.",
            hint="The server was set back to an older state. " + RESYNC,
        )
    _verify_history(state, position, server, dsn)
    if server.flushed < position:
        raise SourceChanged(
            f"{dsn} has written its log up to {server.flushed}; the target holds it up to {position}.",
            hint="The server was restored to an earlier state. " + RESYNC,
        )


def _verify_history(state: SourceState, position: Position, server: Server, dsn: Dsn) -> None:
    """The server must have come the way of the one that was followed, and have left it behind the target at most."""
    steps = server.history or ()
    # Two servers that were promoted by themselves give the same number to their new timelines.
    for ours, theirs in zip(state.history, steps, strict=False):
        if ours != theirs:
            raise SourceChanged(
                f"{dsn} left timeline {theirs.timeline} at {write_lsn(theirs.at)}; the server that was followed left "
                f"timeline {ours.timeline} at {write_lsn(ours.at)}: their histories are not the same.",
                hint="Point the DSN at the server that was followed. If that is gone: " + RESYNC,
            )
    if server.timeline == state.timeline:
        return
    switched = next((step.at for step in steps if step.timeline == state.timeline), None)
    if switched is None or switched < position.order:
        where = write_lsn(switched) if switched is not None else "an unknown place"
        raise SourceChanged(
            f"{dsn} left timeline {state.timeline} at {where}; the target holds it up to {position}.",
            hint="The target has changes that this server never kept. Point the DSN at a server that has them, or at "
            "the old primary if it can be saved. If neither exists: " + RESYNC,
        )


def verify_slot(state: SourceState, position: Position, connection: Connection, dsn: Dsn) -> Slot:
    """Find the slot; refuse one that is missing, lost, or further than the target (A-01 to A-04, A-11).

    The server starts at the greater of the slot's position and the one asked for, without a word, so that a slot that
    moved on without us would skip changes in silence.

    Raises:
        SlotUnusable: it is one of these.
    """
    slot = read_slot(connection, state.slot)
    if slot is None:
        raise SlotUnusable(
            f"{dsn} has no replication slot {state.slot!r}; the target holds the log up to {position}.",
            hint="It was dropped, or the server was promoted from a standby that did not have it. " + RESYNC,
        )
    if slot.plugin != "pgoutput" or slot.database != state.database:
        raise SlotUnusable(
            f"Replication slot {state.slot!r} on {dsn} is not one of this pipeline.",
            hint="Somebody made another slot of that name. Give the pipeline another --name, or: " + RESYNC,
        )
    if slot.wal_status == "lost" or slot.invalidation is not None:
        reason = f" ({slot.invalidation})" if slot.invalidation else ""
        raise SlotUnusable(
            f"The server discarded WAL that replication slot {state.slot!r} needs: the slot is lost{reason}.",
            hint="Raise max_slot_wal_keep_size (or idle_replication_slot_timeout) first. " + RESYNC,
        )
    if slot.confirmed is not None and slot.confirmed > position.order:
        raise SlotUnusable(
            f"Replication slot {state.slot!r} is at {write_lsn(slot.confirmed)}, beyond the target's {position}: "
            "it was advanced, dropped and made again, or another pipeline reads from it.",
            hint="Two pipelines must never share a slot (--name). " + RESYNC,
        )
    return slot


@dataclass(frozen=True, slots=True)
class Slot:
    """A row of pg_replication_slots, the columns that every version has, and the reason where there is one."""

    plugin: str
    database: str
    wal_status: str | None
    confirmed: int | None
    invalidation: str | None


@readable()
def read_slot(connection: Connection, name: str) -> Slot | None:
    """The slot of that name, if there is one. `invalidation_reason` came with PostgreSQL 17."""
    row = connection.execute(
        """
        SELECT plugin::text, datoid::text, wal_status, (confirmed_flush_lsn - '0/0'::pg_lsn)::int8,
               to_jsonb(s) ->> 'invalidation_reason'
        FROM pg_replication_slots s WHERE slot_name = %s
        """,
        (name,),
    ).fetchone()
    if row is None:
        return None
    plugin, database, wal_status, confirmed, invalidation = row
    return Slot(
        plugin=str(plugin),
        database=str(database),
        wal_status=None if wal_status is None else str(wal_status),
        confirmed=None if confirmed is None else of_type(confirmed, int),
        invalidation=None if invalidation is None else str(invalidation),
    )


def verify_publications(state: SourceState, connection: Connection, dsn: Dsn) -> None:
    """Refuse publications that are not row for row what they were, but for their owner (A-30, A-33, A-52).

    The state takes a new owner in.

    Raises:
        PublicationChanged: one was dropped, or a table went out of it or came into it behind our back.
    """
    found = publication_fingerprint(connection, state.publications)
    if found == state.publications:
        return
    dropped = state.tables.keys() - tables_by_oid(connection, state.tables).keys()
    for name, fingerprint in state.publications.items():
        if name not in found:
            raise PublicationChanged(
                f"Publication {name!r} on {dsn} was dropped.",
                hint="Creating it again does not help: the slot decodes with the catalog of its own past. " + RESYNC,
            )
        # Of a table that the pipeline itself puts in or takes out, it may not be known whether that has happened. One
        # that was dropped left with all that the log has of it.
        open_to = [*state.changing, *dropped]
        if not is_same_publication(without_tables(fingerprint, open_to), without_tables(found[name], open_to)):
            raise PublicationChanged(
                f"Publication {name!r} on {dsn} was changed: a table was taken out or put in, or an option changed. "
                "Changes may be missing from the stream.",
                hint="Only cdc may change its publications. " + RESYNC,
            )
        state.publications[name] = of_owner(fingerprint, found[name])


def end_lost_session(connection: Connection, slot: str, readers: Collection[int]) -> None:
    """End the session that holds a slot if it is one of ours, whose connection was lost without the server's knowing.

    It would notice by itself after wal_sender_timeout, if that is set. Anybody may end the sessions of his own role.
    """
    connection.execute(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
        "WHERE slot_name = %s AND active_pid = ANY(%s)",
        (slot, list(readers)),
    )


@readable()
def is_at_work(connection: Connection, reader: int) -> bool:
    """Whether the server's end of a replication session does something else than to wait for its log or for us."""
    row = connection.execute(
        "SELECT state IS DISTINCT FROM 'idle' AND lower(coalesce(wait_event, '')) <> ALL (ARRAY['walsendermain', "
        "'walsenderwritedata', 'walsenderwaitforwal', 'clientread']) FROM pg_stat_activity WHERE pid = %s",
        (reader,),
    ).fetchone()
    return row is not None and bool(row[0])


@readable()
def holder(connection: Connection, slot: str) -> str:
    """Who reads from a slot now, in words (A-10)."""
    row = connection.execute(
        """
        SELECT s.active_pid, coalesce(nullif(a.application_name, ''), 'an unnamed session'), a.client_addr::text
        FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
        WHERE s.slot_name = %s AND s.active_pid IS NOT NULL
        """,
        (slot,),
    ).fetchone()
    return (
        f"PID {row[0]}, {row[1]}, from {row[2] or 'this machine'}" if row is not None else "a session that just ended"
    )
