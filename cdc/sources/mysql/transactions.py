"""From a run of binlog events to transactions: where each begins and ends, and the statements among the rows.

A transaction begins with the event of its GTID (before MySQL 5.7 and without GTIDs: with BEGIN) and ends with an XID, a
COMMIT (of engines without transactions, B-29), an XA PREPARE, or, if it is a single statement, with that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from cdc.errors import DecodeError
from cdc.sources.mysql.events import ARTIFICIAL_FLAG, HEADER, Event, event_name
from cdc.sources.mysql.gtid import Gtid, is_tag

_STANDALONE, _PREPARED_XA = 1, 64  # flags of MariaDB's GTID event
_ANSI_QUOTES = 4  # bit of sql_mode
_SHORTEST: dict[int, int] = {Event.MARIADB_GTID: 13, Event.GTID: 25, Event.ANONYMOUS_GTID: 25}  # bytes of their bodies
_WORD = 1 << 32
_LARGEST = (1 << 63) - 1  # number of a transaction
# Status variables of a query, in the order in which servers write them, and their lengths; a catalog says its own.
_FLAGS, _SQL_MODE, _OLD_CATALOG, _CATALOG, _INCREMENT, _CHARSET = 0, 1, 2, 6, 3, 4
_LENGTHS = {_FLAGS: 4, _SQL_MODE: 8, _INCREMENT: 4, _CHARSET: 6}


@dataclass(slots=True)
class Begun:
    """A transaction that has begun.

    Attributes:
        start: byte of the log file where it begins.
        gtid: None where GTIDs are off.
        committed_at: microseconds since the Unix epoch.
        is_block: it ends with a commit, not with its first statement.
        is_xa: it ends with being prepared, and is applied only when it is committed (B-28).
        changes: how many row changes it has had.
        notes: how many of its statements were emitted.
        passed_over: rows of it were left out already, since it is to be prepared only.
    """

    start: int
    gtid: Gtid | None
    committed_at: int
    is_block: bool = False
    is_xa: bool = False
    changes: int = 0
    notes: int = 0
    passed_over: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A statement that the log has as text.

    Attributes:
        text: the statement, as far as it is UTF-8; other bytes are surrogates.
        schema: the database in use.
        sql_mode: of the session that sent it.
        collation: by its number, one of the character set that the statement is written in; 0 if it is not said.
        end: byte of the log file after it.
    """

    text: str
    schema: str
    sql_mode: int
    collation: int
    end: int


def begin(event: bytes) -> Begun:
    """The transaction that a GTID event announces; raises DecodeError if the event is damaged."""
    kind, at = event[4], HEADER
    seconds = int.from_bytes(event[:4], "little") * 1_000_000
    start = event_start(event)
    try:
        if len(event) < at + _SHORTEST.get(kind, 0):
            raise IndexError
        if kind == Event.GTID_TAGGED:
            begun = _tagged(event, start, seconds)
        elif kind == Event.MARIADB_GTID:
            begun = _mariadb(event, start, seconds)
        else:
            begun = _untagged(event, start, seconds)
        if begun.gtid is not None and not 1 <= begun.gtid.number <= _LARGEST:
            raise ValueError
    except (IndexError, ValueError) as error:
        raise DecodeError(f"A {event_name(kind)} event that ends at {event_end(event)} is damaged.") from error
    return begun


def _mariadb(event: bytes, start: int, seconds: int) -> Begun:
    at = HEADER
    number, domain = int.from_bytes(event[at : at + 8], "little"), int.from_bytes(event[at + 8 : at + 12], "little")
    server, flags = int.from_bytes(event[5:9], "little"), event[at + 12]
    return Begun(start, Gtid((domain, server), number), seconds, not flags & _STANDALONE, bool(flags & _PREPARED_XA))


def _untagged(event: bytes, start: int, seconds: int) -> Begun:
    at = HEADER
    uuid = _written(event[at + 1 : at + 17])
    number = int.from_bytes(event[at + 17 : at + 25], "little")
    committed = int.from_bytes(event[at + 42 : at + 49], "little") & ~(1 << 55) if len(event) >= at + 49 else seconds
    return Begun(start, None if event[4] == Event.ANONYMOUS_GTID else Gtid((uuid, ""), number), committed)


def _tagged(event: bytes, start: int, seconds: int) -> Begun:
    """GTID_TAGGED (MySQL 8.3 and later) is written by the server's serialization library (libs/mysql/serialization):
    a version, a size, the last field that must be known, and then fields, each with its number before it."""
    reader = _Serialized(event, HEADER)
    reader.unsigned()  # version of the format
    reader.unsigned()  # size
    reader.unsigned()  # the last field that may not be ignored
    uuid, tag, number, committed = b"", "", 0, seconds
    while reader.at < len(event):
        field = reader.unsigned()
        if field == 1:
            uuid = bytes(reader.unsigned() for _ in range(16))
        elif field == 2:
            number = reader.signed()
        elif field == 3:
            tag = reader.text()
        elif field in (4, 5):
            reader.signed()
        elif field == 6:
            committed = reader.unsigned()
        else:
            reader.unsigned()
    if tag and not is_tag(tag):
        raise ValueError(tag)
    return Begun(start, Gtid((_written(uuid), tag), number), committed)


@lru_cache(maxsize=64)
def _written(uuid: bytes) -> str:
    """A server's UUID as text; a log has few of them, many times."""
    return str(UUID(bytes=uuid))


class _Serialized:
    """Numbers of variable length: as many trailing ones in the first byte as bytes follow it."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self.at = at

    def unsigned(self) -> int:
        first = self._data[self.at]
        more = 0
        while more < 8 and first >> more & 1:
            more += 1
        value = int.from_bytes(self._take(1 + more), "little")
        return value >> more + 1 if more < 8 else value >> 8

    def signed(self) -> int:
        value = self.unsigned()
        return -(value >> 1) - 1 if value & 1 else value >> 1

    def text(self) -> str:
        return self._take(self.unsigned()).decode()

    def _take(self, size: int) -> bytes:
        self.at += size
        if self.at > len(self._data):
            raise IndexError
        return self._data[self.at - size : self.at]


def is_begin(event: bytes) -> bool:
    """Whether a query event is the BEGIN that MySQL writes for every transaction; nothing else of it is read."""
    length = sum(event[HEADER + 8 : HEADER + 9]) + int.from_bytes(event[HEADER + 11 : HEADER + 13], "little")
    return event[HEADER + 13 + length :] == b"\0BEGIN"


def query(event: bytes) -> Query:
    """The statement of a query event; raises DecodeError if it is damaged.

    https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Query__event.html
    """
    if len(event) < HEADER + 13:
        raise DecodeError(f"A query event that ends at {event_end(event)} is damaged.")
    name_length = event[HEADER + 8]
    status_length = int.from_bytes(event[HEADER + 11 : HEADER + 13], "little")
    status = HEADER + 13
    name = status + status_length
    text = name + name_length + 1
    if text > len(event) or event[text - 1] != 0:
        raise DecodeError(f"A query event that ends at {event_end(event)} is damaged.")
    said = _status(event[status:name])
    return Query(
        event[text:].decode("utf-8", "surrogateescape"),
        event[name : name + name_length].decode(errors="replace"),
        int.from_bytes(said.get(_SQL_MODE, b""), "little"),
        int.from_bytes(said.get(_CHARSET, b"")[:2], "little"),
        event_end(event),
    )


def _status(status: bytes) -> dict[int, bytes]:
    """What the status variables up to that of the character sets say."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(status) and _CHARSET not in found:
        code = status[at]
        if code in (_CATALOG, _OLD_CATALOG):
            length = 1 + int.from_bytes(status[at + 1 : at + 2]) + (code == _OLD_CATALOG)
        elif (known := _LENGTHS.get(code)) is not None:
            length = known
        else:
            break
        found[code] = status[at + 1 : at + 1 + length]
        at += 1 + length
    return found


def event_start(event: bytes) -> int:
    """Byte of the log file at which an event begins, of which the log keeps 32 bits."""
    return (event_end(event) - int.from_bytes(event[9:13], "little")) % _WORD


def event_end(event: bytes) -> int:
    """Byte of the log file after an event, of which the log keeps 32 bits."""
    return int.from_bytes(event[13:17], "little")


def is_artificial(event: bytes) -> bool:
    """Whether the server made an event for the reader, so that it is in no file."""
    return bool(int.from_bytes(event[17:19], "little") & ARTIFICIAL_FLAG)


def xa_name(event: bytes) -> tuple[str, bool]:
    """The transaction that an XA_PREPARE event names, as statements name it, and whether it commits at once."""
    at = HEADER
    format_id, first, second = (int.from_bytes(event[at + o : at + o + 4], "little") for o in (1, 5, 9))
    data = event[at + 13 :]
    if len(event) < at + 13 or len(data) < first + second:
        raise DecodeError(f"An XA_PREPARE event that ends at {event_end(event)} is damaged.")
    return f"X'{data[:first].hex()}',X'{data[first : first + second].hex()}',{format_id}", bool(event[at])
