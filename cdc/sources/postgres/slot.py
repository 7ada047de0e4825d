"""Making a replication slot, which takes as long as the transactions that are open on the server."""

from __future__ import annotations

import logging
import select
import time

import psycopg
from psycopg import pq, sql

from cdc.errors import InvariantError
from cdc.model.position import Position
from cdc.source import Link
from cdc.sources.postgres.catalog import Connection
from cdc.sources.postgres.connection import server_error
from cdc.sources.postgres.identity import is_at_work
from cdc.sources.postgres.position import lsn, parse_lsn

log = logging.getLogger(__name__)

_LOOK_EVERY = 1.0  # seconds
_PATIENCE = 15.0  # seconds without an answer from a server that is not at work


def create_slot(
    replication: Connection, name: str, other: Connection, link: Link, *, temporary: bool
) -> tuple[str, Position] | None:
    """Make a slot and keep its snapshot exported for as long as nothing else runs in this session.

    Waits for the transactions that are open on the server, and is alive for as long as the server says that it is.

    Args:
        other: a session that can ask how the first one is.

    Returns:
        The snapshot and its place in the log, or None if an end was asked for.
    """
    pgconn = replication.pgconn
    pgconn.send_query(_command(replication, name, temporary=temporary))
    said, quiet = False, 0.0
    while not _has_come(pgconn):
        if link.stopping:
            # Without this the server would go on, and leave a slot in the end that nobody knows of.
            replication.cancel_safe(timeout=_PATIENCE)
            _skip_rest(pgconn)
            return None
        if is_at_work(other, pgconn.backend_pid):
            link.alive()
            quiet = 0.0
            if not said:
                said = True
                log.info("the slot %s waits for transactions that are open on the server", name)
        elif (quiet := quiet + _LOOK_EVERY) > _PATIENCE:
            raise _silent()
    result = pgconn.get_result()
    if result is None or result.status != pq.ExecStatus.TUPLES_OK:
        raise server_error(result) if result is not None else InvariantError("The server said nothing about a slot.")
    _skip_rest(pgconn)
    names = [result.fname(column) for column in range(result.nfields)]
    answer = {name: result.get_value(0, column) for column, name in enumerate(names)}
    snapshot, point = answer.get(b"snapshot_name"), answer.get(b"consistent_point")
    if snapshot is None or point is None:
        raise InvariantError("The server made a slot without a snapshot.")
    return snapshot.decode(), lsn(parse_lsn(point.decode()))


def _command(replication: Connection, name: str, *, temporary: bool) -> bytes:
    """The command; a slot that stays is one that standbys may keep a copy of, where the server knows such (A-14).

    That does nothing unless a standby asks for it (sync_replication_slots). Where synchronized_standby_slots names
    standbys, the server sends nothing through the slot that these do not have.
    """
    identifier = sql.Identifier(name).as_string(replication)
    if temporary:
        return f"CREATE_REPLICATION_SLOT {identifier} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT".encode()
    if replication.info.server_version < 170000:
        return f"CREATE_REPLICATION_SLOT {identifier} LOGICAL pgoutput EXPORT_SNAPSHOT".encode()
    return f"CREATE_REPLICATION_SLOT {identifier} LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER)".encode()


def _has_come(pgconn: pq.abc.PGconn) -> bool:
    """Wait for a moment; whether a result is there.

    `get_result` itself waits inside libpq and keeps Python's lock (psycopg 3.3). On a line that is dead, no thread of
    the process would run again, nor would the thread that watches the others (E-16).
    """
    if pgconn.is_busy() and select.select([pgconn.socket], [], [], _LOOK_EVERY)[0]:
        pgconn.consume_input()
    return not pgconn.is_busy()


def _skip_rest(pgconn: pq.abc.PGconn) -> None:
    """Skip what is left of an answer.

    Raises:
        psycopg.OperationalError: it does not come.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        while not _has_come(pgconn):
            if time.monotonic() > until:
                raise _silent()
        if pgconn.get_result() is None:
            return


def _silent() -> psycopg.OperationalError:
    return psycopg.OperationalError("the server has been silent, although it is done with the slot")
