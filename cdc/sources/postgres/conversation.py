"""What is said in a replication session beside the log itself.

https://www.postgresql.org/docs/current/protocol-replication.html
"""

from __future__ import annotations

import struct
from typing import NoReturn

from psycopg import pq, sql

from cdc.errors import Unavailable
from cdc.model.position import Position
from cdc.sources.postgres.connection import Dsn, classify, server_error
from cdc.sources.postgres.position import EPOCH
from cdc.sources.postgres.session import Session

LINE_IS_DEAD = "The connection is dead, or something between drops or damages data. It is opened again."


def start_command(session: Session, slot: str, publications: list[str], after: Position) -> bytes:
    """The command that asks for what was committed at a position or later."""
    names = ",".join('"' + name.replace('"', '""') + '"' for name in publications)
    options = [f"proto_version '1', publication_names {sql.Literal(names).as_string(session)}"]
    if session.info.server_version >= 140000:
        options.append("messages 'true'")  # the heartbeat's
    name = sql.Identifier(slot).as_string(session)
    return f"START_REPLICATION SLOT {name} LOGICAL {after.text} ({', '.join(options)})".encode()


def status_update(received: int, flushed: int, clock: int, *, ask: bool) -> bytes:
    """The message by which a client says how far it is; 0 says nothing.

    Args:
        received, flushed: LSNs; up to the second one, the server need keep nothing.
        clock: microseconds since the Unix epoch.
        ask: the server is to answer at once.
    """
    return struct.pack(">cQQQqB", b"r", received, flushed, flushed, clock - EPOCH, ask)


def raise_end(session: Session, dsn: Dsn) -> NoReturn:
    """get_copy_data says -1 for an error as for an end; only the result tells which (A-32)."""
    result = session.pgconn.get_result()
    if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
        raise classify(server_error(result), dsn)
    raise Unavailable(
        f"{dsn}: the server ended the stream.", hint="It is shutting down, or somebody ended the connection."
    )
