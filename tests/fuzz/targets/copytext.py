"""Rows of COPY: the decoder says what one says that reads byte after byte."""

from __future__ import annotations

import pyarrow as pa

from cdc.errors import DecodeError
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.sources.postgres.copytext import CopyDecoder
from tests.fuzz.draw import Draw, cut, damaged

_ESCAPED = {"b": b"\b", "f": b"\f", "n": b"\n", "r": b"\r", "t": b"\t", "v": b"\v", "\\": b"\\"}


def one_input(data: bytes) -> None:
    draw = Draw(data)
    width = draw.ConsumeIntInRange(1, 4)
    rows = (cut(draw) if draw.ConsumeBool() else damaged(draw, _rows(draw, width))) or [b""]
    columns = tuple(Column(f"c{i}", "text", LogicalType(Kind.TEXT), i) for i in range(width))
    try:
        wanted = [_read(row, width) for row in rows]
    except ValueError:
        wanted = None
    try:
        batch = CopyDecoder(TableSchema(TableName("s", "t"), 1, columns)).decode(rows)
        assert batch.after is not None
        values = [column.view(pa.binary_view()).to_pylist() for column in batch.after.columns]
        found = list(map(list, zip(*values, strict=True)))
    except DecodeError:
        found = None
    assert found == wanted, (rows, found, wanted)


def _rows(draw: Draw, width: int) -> list[bytes]:
    rows = []
    for _ in range(draw.ConsumeIntInRange(1, 4)):
        values = []
        for _ in range(width):
            value = draw.ConsumeBytes(draw.ConsumeIntInRange(0, 16))
            for letter, byte in ({"\\": b"\\"} | _ESCAPED).items():
                value = value.replace(byte, b"\\" + letter.encode())
            values.append(b"\\N" if draw.ConsumeIntInRange(0, 5) == 0 else value)
        rows.append(b"\t".join(values) + b"\n")
    return rows


def _read(row: bytes, width: int) -> list[bytes | None]:
    if row[-1:] != b"\n" or b"\n" in row[:-1]:
        raise ValueError("a row is a line")
    if b"\0" in row or b"\r" in row:
        raise ValueError("no server writes these bytes")
    values = row[:-1].split(b"\t")
    if len(values) != width:
        raise ValueError("as many values as columns")
    return [None if value == b"\\N" else _plain(value) for value in values]


def _plain(value: bytes) -> bytes:
    found, at = b"", 0
    while at < len(value):
        if value[at : at + 1] == b"\\":
            letter = value[at + 1 : at + 2].decode("latin-1")
            if letter not in _ESCAPED:
                raise ValueError("no server writes such an escape")
            found, at = found + _ESCAPED[letter], at + 2
        else:
            found, at = found + value[at : at + 1], at + 1
    return found
