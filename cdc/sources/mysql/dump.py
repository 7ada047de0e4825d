"""Asking a server for its binlog, as a replica would."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from cdc import faults
from cdc.errors import LogLost, SourceChanged
from cdc.sources.mysql.connection import Connection, Dsn, server_error
from cdc.sources.mysql.events import DELETES, GTIDS, UPDATES, WRITES, Event
from cdc.sources.mysql.framing import Framer, ServerSaid, event_mark
from cdc.sources.mysql.gtid import MySqlGtids
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.slices import Events
from cdc.sources.mysql.state import SourceState
from cdc.sources.mysql.stream import HEARTBEAT_EVERY, SILENT_FOR, UNREAD_FOR
from cdc.sources.mysql.transactions import event_end, xa_name

log = logging.getLogger(__name__)

FARTHEST_DUMP = 0xFFFFFFFF  # byte of a file at which a dump can begin: the command has 32 bits for it (M12)
_ROWS = frozenset({*WRITES, *UPDATES, *DELETES})
_OF_NO_PLACE = frozenset({Event.HEARTBEAT, Event.HEARTBEAT_V2})
_GTID_CAPABLE = 4  # what a replica says of itself to get MariaDB's GTID events as they are


@contextmanager
def open_dump(
    dsn: Dsn, purpose: str, state: SourceState, *, statements: bool = False
) -> Iterator[tuple[Connection, Framer]]:
    """A dump of everything after the state's position: by GTIDs if there are any, otherwise by file and byte.

    Args:
        statements: with the texts of those that changed rows.

    Raises:
        LogLost: the server does not have it any more; known only with the first answer, so that a read may raise it.
    """
    with Connection(dsn, purpose, SILENT_FOR) as connection:
        framer = _announce(connection, state.server_id)
        faults.point("stream.before_start")
        if state.gtids and state.flavor == "mariadb":
            # The set that a server that reconnects has now, not the one that it once began with (B-07).
            connection.query("SET @slave_connect_state = %s", state.gtids)
            connection.query("SET @slave_gtid_strict_mode = 0")
            connection.query("SET @slave_gtid_ignore_duplicates = 0")
            connection.dump(state.server_id, "", 4, statements=statements)
        elif state.gtids:
            connection.dump(state.server_id, "", 4, MySqlGtids.parse(state.gtids).encode())
        else:
            framer = _dump_file(connection, framer, state.server_id, state.place, statements=statements)
        faults.point("stream.started")
        yield connection, framer


def _dump_file(
    connection: Connection, framer: Framer, server_id: int, place: LogPlace, *, statements: bool = False
) -> Framer:
    """Ask for the log from a byte of a file on; what cuts the answer into events from there on."""
    if place.offset <= FARTHEST_DUMP:
        connection.dump(server_id, place.file, place.offset, statements=statements)
        return framer
    log.info("the log is read from the beginning of %s: the server cannot begin beyond 4 GB", place.file)
    connection.dump(server_id, place.file, 4, statements=statements)
    return FramerBehind(framer, place)


class FramerBehind(Framer):
    """Leaves out the events of a file before a place in it."""

    def __init__(self, framer: Framer, place: LogPlace) -> None:
        self._framer = framer
        self._place = place
        self._at = place.at(4)
        self._is_there = False

    def feed(self, data: bytes) -> Events:
        """As those of a `Framer`.

        Raises:
            LogLost: no event ends at the place.
        """
        events = self._framer.feed(data)
        if self._is_there:
            return events
        for number, event in enumerate(events):
            if event[4] in _OF_NO_PLACE or not event_end(event):
                continue
            at = self._at.near(event_end(event))
            if at.offset > self._place.offset:
                if self._at.offset != self._place.offset:
                    raise LogLost(
                        f"The log has no event that ends at {self._place.file}:{self._place.offset}.",
                        hint="The log was reset. Run `cdc teardown SOURCE TARGET`, remove the target, and start again.",
                    )
                self._is_there = True
                return events[number:]
            self._at = at
        return events.chosen(np.isin(events.kind, list(_OF_NO_PLACE)))


def log_mark(dsn: Dsn, server_id: int, place: LogPlace) -> list[int]:
    """What tells a file of the server's log, up to a place in it, from any other of that name.

    That is the mark of its format description, which has full seconds, and of the first transaction, if there is one.

    Raises:
        LogLost: there is no such file.
    """
    with Connection(dsn, "cdc", SILENT_FOR) as connection:
        framer = _announce(connection, server_id ^ 1)
        connection.dump(server_id ^ 1, place.file, 4)
        found: list[int] = []
        while True:
            for event in _events(connection, framer):
                if event[4] == Event.FORMAT_DESCRIPTION and event_end(event):
                    found.append(event_mark(event))
                elif event[4] in GTIDS:
                    return [*found, event_mark(event)]
                if found and (event_end(event) >= place.offset or event[4] == Event.ROTATE):
                    return found


def verify_mark(dsn: Dsn, state: SourceState) -> None:
    """Refuse a server whose file of the position is another one than the one that was read: a log that was begun again
    has the same names, and may hold more than before (B-02, M26).

    Raises:
        SourceChanged: it is another one.
        LogLost: there is no such file.
    """
    if not state.mark:
        return
    found = log_mark(dsn, state.server_id, state.place)
    if any(there != known for there, known in zip(found, state.mark, strict=False)):
        raise SourceChanged(
            f"{dsn} has another log file {state.place.file} than the one that the target has followed.",
            hint="The log was reset. Run `cdc teardown SOURCE TARGET`, remove the target, and start again.",
        )


def file_begun(dsn: Dsn, server_id: int, file: str) -> int:
    """When a file of the log was begun, in seconds since the Unix epoch."""
    with Connection(dsn, "cdc", SILENT_FOR) as connection:
        framer = _announce(connection, server_id ^ 1)
        connection.dump(server_id ^ 1, file, 4)
        while True:
            for event in _events(connection, framer):
                if event[4] == Event.FORMAT_DESCRIPTION and event_end(event):
                    return int.from_bytes(event[:4], "little")


def log_events(dsn: Dsn, server_id: int, file: str) -> list[bytes]:
    """Everything that the log has from the begin of a file on, for as long as it comes without a pause."""
    found: list[bytes] = []
    with Connection(dsn, "cdc", SILENT_FOR) as connection:
        framer = _announce(connection, server_id)
        connection.dump(server_id, file, 4)
        while True:
            events = _events(connection, framer)
            if events and all(event[4] in (Event.HEARTBEAT, Event.HEARTBEAT_V2) for event in events):
                return found
            found += events


def file_events(dsn: Dsn, server_id: int, file: str, size: int) -> Iterator[bytes]:
    """The events of a file of the log up to a byte of it, or to its end if that comes first."""
    with Connection(dsn, "cdc", SILENT_FOR) as connection:
        framer = _announce(connection, server_id)
        connection.dump(server_id, file, 4)
        while True:
            for event in _events(connection, framer):
                if event[4] in _OF_NO_PLACE:
                    continue
                yield event
                if event_end(event) >= size or (event[4] == Event.ROTATE and event_end(event)):
                    return


def _events(connection: Connection, framer: Framer) -> Events:
    try:
        return framer.feed(connection.receive(1 << 20))
    except ServerSaid as said:
        raise server_error(said.code, said.message, connection.dsn) from said


def prepared_rows(dsn: Dsn, state: SourceState, name: str, place: LogPlace) -> list[bytes]:
    """The table maps and rows of the transaction that was prepared at a place, read again now that it is committed.

    Raises:
        LogLost: the server does not have it any more.
    """
    rows: list[bytes] = []
    with Connection(dsn, "cdc", SILENT_FOR) as connection:
        framer = _announce(connection, state.server_id ^ 1)
        framer = _dump_file(connection, framer, state.server_id ^ 1, place)
        while True:
            for event in _events(connection, framer):
                if event[4] == Event.TABLE_MAP or event[4] in _ROWS:
                    rows.append(event)
                elif event[4] == Event.XA_PREPARE and xa_name(event)[0] == name:
                    return rows
                elif event[4] == Event.XA_PREPARE or (event[4] == Event.ROTATE and event_end(event)):
                    raise LogLost(
                        f"{dsn} has no prepared transaction at {place.file}:{place.offset} any more.",
                        hint="The log is another one. Run `cdc teardown SOURCE TARGET`, remove the "
                        "target, and start again.",
                    )


def _announce(connection: Connection, server_id: int) -> Framer:
    """Say what kind of replica this is: one that verifies checksums, wants heartbeats and knows GTIDs."""
    checksum = (connection.variable("binlog_checksum") or "NONE").upper() != "NONE"
    connection.query(f"SET SESSION net_write_timeout = {UNREAD_FOR}")
    for prefix in ("master", "source"):
        connection.query(f"SET @{prefix}_binlog_checksum = @@global.binlog_checksum")
        connection.query(f"SET @{prefix}_heartbeat_period = {int(HEARTBEAT_EVERY * 1e9)}")
    if connection.version.flavor == "mariadb":
        connection.query(f"SET @mariadb_slave_capability = {_GTID_CAPABLE}")
    else:
        # A server ends an older dump of the same UUID: our own that it has not noticed the end of, or somebody else's.
        connection.query("SET @slave_uuid = %s", str(uuid.UUID(int=server_id)))
        connection.query("SET @replica_uuid = @slave_uuid")
    return Framer(has_checksum=checksum)
