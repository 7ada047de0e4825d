"""Running a query as a prepared statement and reading its rows in bulk, as they come over the wire."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np
from pymysql.constants import COMMAND

from cdc.errors import DecodeError
from cdc.model.change import VALUE_BYTES, ChangeBatch
from cdc.model.schema import TableName, TableSchema
from cdc.sources.mysql.connection import Connection, mapped_errors, server_error
from cdc.sources.mysql.resultset import decode_result

BATCH_BYTES = 2 << 20  # of rows decoded at once: the arrays that are made on the way stay in the cache
_DECODED_BYTES = 16 << 20  # of the arrays that they become, without what they point to
_READ = 1 << 20
_LONGEST = 0xFFFFFF
_MOST_PACKETS = (1 << 30) // _LONGEST + 2  # of one row, which max_allowed_packet does not let be longer


def quoted(name: str) -> str:
    """An identifier."""
    return "`" + name.replace("`", "``") + "`"


def quoted_table(name: TableName) -> str:
    return f"{quoted(name.schema)}.{quoted(name.name)}"


def select_rows(
    connection: Connection, schema: TableSchema, where: str = "", alive: Callable[[], None] = lambda: None
) -> Iterator[ChangeBatch]:
    """The rows of a table as this session sees it, in batches.

    Args:
        where: a condition of SQL.
        alive: called whenever something comes.

    Raises:
        TableChanged: the table is not what the schema says any more.
    """
    # `SELECT *` leaves invisible columns out (B-46).
    columns = ", ".join(quoted(column.name) for column in schema.columns)
    statement = f"SELECT {columns} FROM {quoted_table(schema.table)}{' WHERE ' + where if where else ''}"
    connection.command(COMMAND.COM_STMT_PREPARE, statement.encode())
    with mapped_errors(connection.dsn):
        number, column_count, parameter_count = struct.unpack_from("<IHH", connection.packet(), 1)
        if (column_count, parameter_count) != (len(schema.columns), 0):
            raise ValueError("the server has understood another statement")
    for _ in range(column_count + 1):  # definitions and the end of them
        connection.packet()
    connection.command(COMMAND.COM_STMT_EXECUTE, struct.pack("<IBI", number, 0, 1))
    for _ in range(1 + column_count + 1):
        connection.packet()
    yield from _batches(connection, schema, alive)
    connection.command(COMMAND.COM_STMT_CLOSE, struct.pack("<I", number))  # has no answer


def _batches(connection: Connection, schema: TableSchema, alive: Callable[[], None]) -> Iterator[ChangeBatch]:
    reader = RowReader()
    most = _DECODED_BYTES // (VALUE_BYTES * max(1, len(schema.columns)))
    while True:
        reader.feed(connection.read(_READ))
        alive()
        if (error := reader.error) is not None:
            raise server_error(*error, connection.dsn)
        is_full = reader.size >= BATCH_BYTES or len(reader.starts) >= most
        if is_full or (reader.is_done and reader.starts):
            yield decode_result(reader.pieces, np.array(reader.starts), np.array(reader.ends), schema)
            reader.clear()
        if reader.is_done:
            return


class RowReader:
    """Cuts the bytes that come into row packets; raises DecodeError for bytes that are not row packets."""

    def __init__(self) -> None:
        self.is_done = False
        self.error: tuple[int, str] | None = None
        self._rest = b""
        self._long: list[bytes] = []
        self.clear()

    def clear(self) -> None:
        self.pieces: list[bytes] = []
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.size = 0

    def feed(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        unpack = struct.Struct("<I").unpack_from
        start, end = self.starts.append, self.ends.append
        at, size, base = 0, len(data), self.size
        while size - at >= 4:
            length = unpack(data, at)[0] & _LONGEST
            after = at + 4 + length
            if after > size:
                break
            if length == 0 and not self._long:
                raise DecodeError("The server sent an empty packet in the place of a row.")
            if length == _LONGEST or self._long:  # a row of more than 16 MB comes in several packets
                self._long.append(data[at + 4 : after])
                if len(self._long) > _MOST_PACKETS:
                    raise DecodeError("The server sent a row that is larger than a row can be.")
                self.pieces.append(data[:at])
                base += at
                data, size, after = data[after:], size - after, 0
                if length < _LONGEST:
                    start(base)
                    base += sum(map(len, self._long))
                    end(base)
                    self.pieces += self._long
                    self._long = []
            elif length < 9 and data[at + 4] == 0xFE:
                self.is_done = True
                break
            elif data[at + 4] == 0xFF:
                self.error = _error(data[at + 4 : after])
                return
            else:
                start(base + at + 4)
                end(base + after)
            at = after
        self.pieces.append(data[:at])
        self.size = base + at
        self._rest = b"" if self.is_done else data[at:]


def _error(packet: bytes) -> tuple[int, str]:
    text = packet[3:]
    return int.from_bytes(packet[1:3], "little"), (text[6:] if text[:1] == b"#" else text).decode(errors="replace")
