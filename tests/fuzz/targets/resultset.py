"""Rows of prepared statements: from packets to columns, and never a value out of the next row's bytes."""

from __future__ import annotations

import struct

import numpy as np

from cdc.errors import DecodeError
from cdc.model.arrays import texts
from cdc.model.schema import Column, TableName, TableSchema
from cdc.sources.mysql.resultset import decode_result
from cdc.sources.mysql.select import RowReader
from cdc.sources.mysql.types import logical_type, source_type
from tests.fuzz.draw import Draw, cut, damaged

FIXED = {"tinyint": 1, "smallint unsigned": 2, "int": 4, "bigint unsigned": 8, "year": 2, "float": 4, "double": 8}
COUNTED = [
    "date",
    "datetime(6)",
    "timestamp",
    "time(3)",
    "decimal(10,2)",
    "varchar(9) character set latin1",
    "blob",
    "bit(13)",
    "json",
    "enum('a')",
    "geometry",
    "vector(3)",
    "binary(4)",
    "uuid",
]
NAMES = [*FIXED, *COUNTED]


def one_input(data: bytes) -> None:
    draw = Draw(data)
    names = [NAMES[draw.ConsumeIntInRange(0, len(NAMES) - 1)] for _ in range(draw.ConsumeIntInRange(1, 5))]
    if draw.ConsumeIntInRange(0, 5) == 0:
        _packets(draw)
        return
    rows = damaged(draw, [_row(draw, names) for _ in range(draw.ConsumeIntInRange(1, 4))])
    if draw.ConsumeBool():
        rows = cut(draw)
    columns = tuple(Column(f"c{i}", name, logical_type(source_type(name)), i) for i, name in enumerate(names))
    schema = TableSchema(TableName("d", "t"), 1, columns)
    together = _decoded(rows, schema)
    one_by_one = [_decoded([row], schema) for row in rows]
    if together is None or None in one_by_one:
        assert together is None, "rows are refused only together"
        assert None in one_by_one, "rows are taken only together"
        return
    # A column in which one value is no moment of the calendar becomes text, which reads the same.
    assert together == [row for found in one_by_one for row in found or []]


def _row(draw: Draw, names: list[str]) -> bytes:
    nulls, pieces = 0, []
    for index, name in enumerate(names):
        if draw.ConsumeIntInRange(0, 5) == 0:
            nulls |= 4 << index
        elif name in FIXED:
            pieces.append(draw.ConsumeBytes(FIXED[name]).ljust(FIXED[name], b"\1"))
        elif name == "date" or "time" in name:
            size = [0, 4, 7, 8, 11, 12][draw.ConsumeIntInRange(0, 5)]
            pieces.append(bytes([size]) + (b"\xe8\7\1\2\3\4\5\6\7\1\0\0"[:size]))
        else:
            value = draw.ConsumeBytes(draw.ConsumeIntInRange(0, 8))
            pieces.append(bytes([len(value)]) + value)
    return b"\0" + nulls.to_bytes((len(names) + 9) // 8, "little") + b"".join(pieces)


def _decoded(rows: list[bytes], schema: TableSchema) -> list[tuple[str | None, ...]] | None:
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    ends = np.cumsum(lengths)
    try:
        batch = decode_result(rows, ends - lengths, ends, schema)
    except DecodeError:
        return None
    assert batch.after is not None
    return list(zip(*(texts(column) for column in batch.after.columns), strict=True))


def _packets(draw: Draw) -> None:
    """Cutting what comes into rows does not depend on the pieces that it comes in."""
    if draw.ConsumeBool():
        sent = b"".join(struct.pack("<I", len(piece)) + piece for piece in cut(draw))
    else:
        sent = draw.ConsumeBytes(draw.remaining_bytes())
    at = draw.ConsumeIntInRange(0, len(sent))
    assert _read([sent]) == _read([sent[:at], sent[at:]])


def _read(pieces: list[bytes]) -> object:
    reader = RowReader()
    for piece in pieces:
        try:
            reader.feed(piece)
        except DecodeError:
            return None
        if reader.is_done or reader.error:
            break
    held = b"".join(reader.pieces)
    rows = [held[start:end] for start, end in zip(reader.starts, reader.ends, strict=True)]
    return rows, reader.is_done, reader.error
