"""Asking a server for its binlog, as a replica would."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from cdc import faults
from cdc.errors import LogLost
from cdc.sources.mysql.connection import Connection, Dsn, server_error
from cdc.sources.mysql.events import DELETES, GTIDS, UPDATES, WRITES, Event
from cdc.sources.mysql.framing import Framer, ServerSaid, event_mark
from cdc.sources.mysql.gtid import MySqlGtids
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.state import SourceState
from cdc.sources.mysql.stream import HEARTBEAT_EVERY, SILENT_FOR, UNREAD_FOR
from cdc.sources.mysql.transactions import event_end, xa_name

_ROWS = frozenset({*WRITES, *UPDATES, *DELETES})
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
            connection.dump(state.server_id, state.place.file, state.place.offset, statements=statements)
        faults.point("stream.started")
        yield connection, framer


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


def _events(connection: Connection, framer: Framer) -> list[bytes]:
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
        connection.dump(state.server_id ^ 1, place.file, place.offset)
        while True:
            for event in _events(connection, framer):
                if event[4] == Event.TABLE_MAP or event[4] in _ROWS:
                    rows.append(event)
                elif event[4] == Event.XA_PREPARE and xa_name(event)[0] == name:
                    return rows
                elif event[4] == Event.XA_PREPARE or (event[4] == Event.ROTATE and event_end(event)):
                    raise LogLost(
                        f"{dsn} has no prepared transaction at {place.file}:{place.offset} any more.",
                        hint="The log is another one. Run `cdc teardown`, remove the target, and start again.",
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
