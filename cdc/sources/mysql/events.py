"""The kinds of binlog events: which are decoded, which mean nothing to a reader of rows, and which must stop it.

MySQL: libs/mysql/binlog/event/binlog_event.h; MariaDB: sql/log_event.h. Whatever is not named here is an error (B-22).
"""

from __future__ import annotations

from enum import IntEnum


class Event(IntEnum):
    """Event types by their number in the header."""

    START_V3 = 1
    QUERY = 2
    STOP = 3
    ROTATE = 4
    INTVAR = 5
    APPEND_BLOCK = 9
    DELETE_FILE = 11
    RAND = 13
    USER_VAR = 14
    FORMAT_DESCRIPTION = 15
    XID = 16
    BEGIN_LOAD_QUERY = 17
    EXECUTE_LOAD_QUERY = 18
    TABLE_MAP = 19
    WRITE_ROWS_V1 = 23
    UPDATE_ROWS_V1 = 24
    DELETE_ROWS_V1 = 25
    INCIDENT = 26
    HEARTBEAT = 27
    IGNORABLE = 28
    ROWS_QUERY = 29
    WRITE_ROWS = 30
    UPDATE_ROWS = 31
    DELETE_ROWS = 32
    GTID = 33
    ANONYMOUS_GTID = 34
    PREVIOUS_GTIDS = 35
    TRANSACTION_CONTEXT = 36
    VIEW_CHANGE = 37
    XA_PREPARE = 38
    PARTIAL_UPDATE_ROWS = 39
    TRANSACTION_PAYLOAD = 40
    HEARTBEAT_V2 = 41
    GTID_TAGGED = 42
    ANNOTATE_ROWS = 160
    BINLOG_CHECKPOINT = 161
    MARIADB_GTID = 162
    MARIADB_GTID_LIST = 163
    START_ENCRYPTION = 164
    QUERY_COMPRESSED = 165
    WRITE_ROWS_COMPRESSED_V1 = 166
    UPDATE_ROWS_COMPRESSED_V1 = 167
    DELETE_ROWS_COMPRESSED_V1 = 168
    WRITE_ROWS_COMPRESSED = 169
    UPDATE_ROWS_COMPRESSED = 170
    DELETE_ROWS_COMPRESSED = 171
    PARTIAL_ROW_DATA = 172


HEADER = 19  # timestamp, type, server id, size, end position, flags
IGNORABLE_FLAG = 0x80  # of the header: a reader that does not know the event may skip it
ARTIFICIAL_FLAG = 0x20  # the server made it for the reader; it is in no file

WRITES = (Event.WRITE_ROWS_V1, Event.WRITE_ROWS)
UPDATES = (Event.UPDATE_ROWS_V1, Event.UPDATE_ROWS, Event.PARTIAL_UPDATE_ROWS)
DELETES = (Event.DELETE_ROWS_V1, Event.DELETE_ROWS)
ROWS_V1 = (Event.WRITE_ROWS_V1, Event.UPDATE_ROWS_V1, Event.DELETE_ROWS_V1)
GTIDS = (Event.GTID, Event.ANONYMOUS_GTID, Event.GTID_TAGGED, Event.MARIADB_GTID)

# They say nothing about rows: what a statement was, which files may go, who was in a group, that nothing happens.
IGNORED = (
    Event.STOP,
    Event.HEARTBEAT,
    Event.HEARTBEAT_V2,
    Event.IGNORABLE,
    Event.ROWS_QUERY,
    Event.PREVIOUS_GTIDS,
    Event.TRANSACTION_CONTEXT,
    Event.VIEW_CHANGE,
    Event.ANNOTATE_ROWS,
    Event.BINLOG_CHECKPOINT,
    Event.MARIADB_GTID_LIST,
    Event.START_ENCRYPTION,  # the server decrypts before it sends
)

# Parts of a statement that was logged as text: what it did to rows is not in the log (B-23).
STATEMENT_PARTS = (
    Event.INTVAR,
    Event.RAND,
    Event.USER_VAR,
    Event.APPEND_BLOCK,
    Event.DELETE_FILE,
    Event.BEGIN_LOAD_QUERY,
    Event.EXECUTE_LOAD_QUERY,
)

# Written by MariaDB with log_bin_compress; the body of each is that of the plain event (B-20).
COMPRESSED = {
    Event.QUERY_COMPRESSED: Event.QUERY,
    Event.WRITE_ROWS_COMPRESSED_V1: Event.WRITE_ROWS_V1,
    Event.UPDATE_ROWS_COMPRESSED_V1: Event.UPDATE_ROWS_V1,
    Event.DELETE_ROWS_COMPRESSED_V1: Event.DELETE_ROWS_V1,
    Event.WRITE_ROWS_COMPRESSED: Event.WRITE_ROWS,
    Event.UPDATE_ROWS_COMPRESSED: Event.UPDATE_ROWS,
    Event.DELETE_ROWS_COMPRESSED: Event.DELETE_ROWS,
}


def event_name(kind: int) -> str:
    """How to speak of an event type: `INCIDENT (26)`."""
    try:
        return f"{Event(kind).name} ({kind})"
    except ValueError:
        return f"number {kind} (0x{kind:02X})"
