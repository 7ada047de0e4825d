"""Asking a server for its binlog, as a replica would."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from cdc.errors import LogLost
from cdc.sources.mysql.connection import Connection, Dsn, server_error
from cdc.sources.mysql.events import DELETES, UPDATES, WRITES, Event
from cdc.sources.mysql.framing import Framer, ServerSaid, file_mark
from cdc.sources.mysql.gtid import MySqlGtids
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.state import SourceState
from cdc.sources.mysql.stream import HEARTBEAT_EVERY
from cdc.sources.mysql.transactions import event_end

_ROWS = frozenset({*WRITES, *UPDATES, *DELETES})
_GTID_CAPABLE = 4  # what a replica says of itself to get MariaDB's GTID events as they are


@contextmanager
def open_dump(dsn: Dsn, purpose: str, state: SourceState) -> Iterator[tuple[Connection, Framer]]:
    """A dump of everything after the state's position: by GTIDs if there are any, otherwise by file and byte.

    Raises:
        LogLost: the server does not have it any more; known only with the first answer, so that a read may raise it.
    """
    with Connection(dsn, purpose) as connection:
        framer = _announce(connection, state.server_id)
        if state.gtids and state.flavor == "mariadb":
            # The set that a server that reconnects has now, not the one that it once began with (B-07).
            connection.query("SET @slave_connect_state = %s", state.gtids)
            connection.query("SET @slave_gtid_strict_mode = 0")
            connection.query("SET @slave_gtid_ignore_duplicates = 0")
            connection.dump(state.server_id, "", 4)
        elif state.gtids:
            connection.dump(state.server_id, "", 4, MySqlGtids.parse(state.gtids).encode())
        else:
            connection.dump(state.server_id, state.place.file, state.place.offset)
        yield connection, framer


def log_mark(dsn: Dsn, server_id: int, file: str) -> int:
    """What tells a file of the server's log from any other of that name.

    Raises:
        LogLost: there is no such file.
    """
    with Connection(dsn, "cdc") as connection:
        framer = _announce(connection, server_id ^ 1)
        connection.dump(server_id ^ 1, file, 4)
        while True:
            for event in _events(connection, framer):
                if event[4] == Event.FORMAT_DESCRIPTION and event_end(event):
                    return file_mark(event)


def log_events(dsn: Dsn, server_id: int, file: str) -> list[bytes]:
    """Everything that the log has from the begin of a file on, for as long as it comes without a pause."""
    found: list[bytes] = []
    with Connection(dsn, "cdc") as connection:
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


def prepared_rows(dsn: Dsn, state: SourceState, place: LogPlace) -> list[bytes]:
    """The table maps and rows of the transaction that was prepared at a place, read again now that it is committed.

    Raises:
        LogLost: the server does not have it any more.
    """
    rows: list[bytes] = []
    with Connection(dsn, "cdc") as connection:
        framer = _announce(connection, state.server_id ^ 1)
        connection.dump(state.server_id ^ 1, place.file, place.offset)
        while True:
            for event in _events(connection, framer):
                if event[4] == Event.TABLE_MAP or event[4] in _ROWS:
                    rows.append(event)
                elif event[4] == Event.XA_PREPARE:
                    return rows
                elif event[4] == Event.ROTATE and event_end(event):
                    raise LogLost(
                        f"{dsn} has no prepared transaction at {place.file}:{place.offset} any more.",
                        hint="The log is another one. Run `cdc teardown`, remove the target, and start again.",
                    )


def _announce(connection: Connection, server_id: int) -> Framer:
    """Say what kind of replica this is: one that verifies checksums, wants heartbeats and knows GTIDs."""
    checksum = (connection.variable("binlog_checksum") or "NONE").upper() != "NONE"
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
