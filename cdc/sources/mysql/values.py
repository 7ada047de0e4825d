"""Columns of packed values to Arrow arrays: native ones where the log's form is a number, text where it is text.

A DECIMAL becomes text, as no number of NumPy holds 65 digits; the target reads it.
"""

from __future__ import annotations

import ipaddress
from typing import Protocol

import numpy as np
import pyarrow as pa

from cdc.errors import DecodeError
from cdc.model.arrays import take
from cdc.model.schema import Kind
from cdc.sources.lockstep import Buffer, binary_array, string_array, string_views
from cdc.sources.mysql import temporal
from cdc.sources.mysql.documents import document_texts
from cdc.sources.mysql.jsonb import json_text, patched_text
from cdc.sources.mysql.rows import Field
from cdc.sources.mysql.tablemap import Wire, WireColumn
from cdc.sources.mysql.temporal import native
from cdc.sources.mysql.types import SourceType, logical_type


class Converter(Protocol):
    """What turns the bytes of the server's character sets into text."""

    def text(self, charset: str, values: list[bytes]) -> list[str]:
        """Text in a character set other than UTF-8, as the server itself converts it."""


_NUMBERS = {
    Kind.INT16: (np.int16, pa.int16()),
    Kind.INT32: (np.int32, pa.int32()),
    Kind.INT64: (np.int64, pa.int64()),
    Kind.UINT32: (np.uint32, pa.uint32()),
    Kind.UINT64: (np.uint64, pa.uint64()),
}
_INTEGERS = {
    Wire.TINY: ("i1", 0),
    Wire.SHORT: ("<i2", 0),
    Wire.INT24: ("<i4", 8),
    Wire.LONG: ("<i4", 0),
    Wire.LONGLONG: ("<i8", 0),
}
_TEMPORAL = {
    Wire.DATETIME: temporal.datetimes,
    Wire.DATETIME2: temporal.datetimes,
    Wire.TIMESTAMP: temporal.timestamps,
    Wire.TIMESTAMP2: temporal.timestamps,
    Wire.TIME: temporal.times,
    Wire.TIME2: temporal.times,
}
_UTF8 = frozenset({"utf8mb4", "utf8mb3", "utf8"})  # whose bytes are UTF-8 already
_NOT_ASCII_COMPATIBLE = frozenset({"ucs2", "utf16", "utf16le", "utf32", "swe7"})
# For each number of bytes of a word, the highest bit of each of them.
_HIGH = np.array([int.from_bytes(b"\x80" * size, "little") for size in range(9)], dtype=np.uint64)
_SRID = 4  # bytes in front of a geometry's WKB
_DIGITS = np.array([list(f"{number:03d}".encode()) for number in range(1000)], dtype=np.uint8)


def column_array(
    buffer: Buffer, field: Field, column: WireColumn, source: SourceType, converter: Converter
) -> pa.Array:
    """One column of rows as an Arrow array: of its own type, or `string_view` of canonical text."""
    wire = column.wire
    if wire in _INTEGERS:
        return _integers(buffer, field, wire, source)
    if wire in _TEMPORAL:
        return _TEMPORAL[wire](buffer, field, column)
    if wire in (Wire.DATE, Wire.NEWDATE):
        return temporal.dates(buffer, field)
    if wire is Wire.FLOAT:
        return native(pa.float32(), buffer.at("<f4")[field.start], field.valid)
    if wire is Wire.DOUBLE:
        return native(pa.float64(), buffer.at("<f8")[field.start], field.valid)
    if wire is Wire.NEWDECIMAL:
        return _decimals(buffer, field, column)
    if wire is Wire.YEAR:
        years = buffer.bytes[field.start].astype(np.int16)
        return native(pa.int16(), np.where(years == 0, 0, years + 1900).astype(np.int16), field.valid)
    if wire is Wire.BIT:
        return native(pa.uint64(), bits(buffer, field.start, column.size), field.valid)
    if wire is Wire.ENUM:
        return labelled(_little(buffer, field.start, column.size), ("", *source.labels), field.valid)
    if wire is Wire.SET:
        return _sets(_little(buffer, field.start, column.size), source.labels, field.valid)
    return bytes_array(buffer, field, source, converter)


def bytes_array(buffer: Buffer, field: Field, source: SourceType, converter: Converter) -> pa.Array:
    """A column whose values are bytes of some length: text, blobs, documents, shapes, addresses."""
    if source.base == "json":
        return document_texts(buffer, field)
    if source.is_geometry:
        _refuse(field.valid & (field.length > 0) & (field.length < _SRID), "a shape that is shorter than its SRID")
        shapes = Field(field.start + _SRID, np.maximum(field.length - _SRID, 0), field.valid)
        return binary_array(buffer, string_views(buffer, shapes.start, shapes.length), shapes.valid)
    if source.base == "vector":
        return vectors(buffer, field)
    if source.base == "binary":
        return padded(buffer, field, source.numbers[0])
    if source.base in ("uuid", "inet4", "inet6"):
        return _addresses(buffer, field, source.base)
    if logical_type(source).kind is Kind.BYTES:
        return binary_array(buffer, string_views(buffer, field.start, field.length), field.valid)
    return _texts(buffer, field, source.charset or "utf8mb4", converter)


def patched(buffer: Buffer, field: Field, old: Field) -> pa.Array:
    """JSON documents of which some are changes to what they were before, row by row.

    Raises:
        DecodeError: what they were before is not in the log.
    """
    assert field.partial is not None
    texts: list[str | None] = []
    for value, before, is_partial in zip(_values(buffer, field), _values(buffer, old), field.partial, strict=True):
        if value is None:
            texts.append(None)
        elif not is_partial:
            texts.append(json_text(value))
        elif before is None:
            raise DecodeError(
                "A partial update of a JSON document was logged without the document.",
                hint="Set binlog_row_image = FULL, or binlog_row_value_options = ''.",
            )
        else:
            texts.append(patched_text(before, value))
    return pa.array(texts, pa.string_view())


def _integers(buffer: Buffer, field: Field, wire: Wire, source: SourceType) -> pa.Array:
    layout, spare = _INTEGERS[wire]
    values = buffer.at(layout.replace("i", "u") if source.unsigned else layout)[field.start]
    if spare:  # three bytes, read as four: the foreign one goes out at the top
        values = (values << spare) >> spare
    dtype, kind = _NUMBERS[logical_type(source).kind]
    return native(kind, values.astype(dtype, copy=False), field.valid)


def _decimals(buffer: Buffer, field: Field, column: WireColumn) -> pa.Array:
    """Packed DECIMAL to text (decimal2bin in strings/decimal.cc): nine digits in four bytes, big-endian, the first bit
    inverted, and all bits if it is negative."""
    precision, scale = column.length, column.scale
    count, whole = len(field.start), precision - scale
    if count == 0:
        return pa.array([], pa.string_view())
    packed = buffer.at(f"V{column.size}")[field.start].view(np.uint8).reshape(count, column.size).copy()
    negative = packed[:, 0] < 0x80
    packed[:, 0] ^= 0x80
    packed[negative] ^= 0xFF

    groups = [whole % 9, *[9] * (whole // 9), *[9] * (scale // 9), scale % 9]
    point = 1 + max(whole, 1)  # a column for the sign, then at least one digit
    width = point + (1 + scale if scale else 0)
    text = np.full((count, width), ord("0"), dtype=np.uint8)
    byte, place = 0, 1 if whole else point + 1
    for digits in filter(None, groups):
        size = (1, 1, 1, 2, 2, 3, 3, 4, 4, 4)[digits]
        value = np.zeros(count, dtype=np.int64)
        for _ in range(size):
            value = value << 8 | packed[:, byte]
            byte += 1
        _refuse((value >= 10**digits) & field.valid, "a DECIMAL of more digits than it has")
        if place == point and scale:
            place += 1
        for triple in range(-(-digits // 3)):
            end = place + digits - 3 * triple
            begin = max(place, end - 3)
            text[:, begin:end] = _DIGITS[value // 1000**triple % 1000][:, 3 - (end - begin) :]
        place += digits
    if scale:
        text[:, point] = ord(".")
    first = np.argmax(text[:, 1:point] != ord("0"), axis=1)
    first[(text[:, 1:point] == ord("0")).all(axis=1)] = point - 2
    begin = first + 1
    rows = np.arange(count)
    minus = np.flatnonzero(negative & field.valid)
    text[minus, begin[minus] - 1] = ord("-")
    begin = begin - (negative & field.valid)
    spelled = Buffer([text.tobytes()])
    return string_array(spelled, string_views(spelled, rows * width + begin, width - begin), field.valid)


def bits(buffer: Buffer, start: np.ndarray, size: int) -> np.ndarray:
    """uint64[n]: big-endian unsigned integers of up to 8 bytes."""
    value = np.zeros(len(start), dtype=np.uint64)
    for byte in range(size):
        value = value << np.uint64(8) | buffer.bytes[start + byte]
    return value


def labelled(index: np.ndarray, labels: tuple[str, ...], valid: np.ndarray) -> pa.Array:
    """An enum's labels; number 0 is the empty text that stands for a value that was refused (B-56)."""
    _refuse(valid & (index >= len(labels)), "an ENUM value that has no label")
    return take(pa.array(labels, pa.string_view()), np.where(valid, index.astype(np.int64), -1))


def _sets(masks: np.ndarray, labels: tuple[str, ...], valid: np.ndarray) -> pa.Array:
    """A set's labels in their declared order; none of them is the empty text, not NULL (B-56)."""
    _refuse(valid & (masks >> np.uint64(len(labels)) != 0), "a SET value that has no label")
    distinct, which = np.unique(np.where(valid, masks, 0), return_inverse=True)
    texts = [",".join(label for i, label in enumerate(labels) if mask >> i & 1) for mask in distinct.tolist()]
    return take(pa.array(texts, pa.string_view()), np.where(valid, which, -1))


def vectors(buffer: Buffer, field: Field) -> pa.Array:
    """VECTOR: floats of four bytes, as lists."""
    length = np.where(field.valid, field.length, 0)
    _refuse(length % 4 != 0, "a VECTOR of a part of a number")
    offsets = np.concatenate([[0], np.cumsum(length // 4)]).astype(np.int32)
    step = np.arange(offsets[-1]) - np.repeat(offsets[:-1], length // 4)
    values = buffer.at("<f4")[np.repeat(field.start, length // 4) + 4 * step]
    mask = None if field.valid.all() else pa.array(~field.valid)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, pa.float32()), mask=mask)


def padded(buffer: Buffer, field: Field, size: int) -> pa.Array:
    """BINARY(n): the log leaves out zeros at the end (B-55)."""
    _refuse(field.valid & (field.length > size), "a BINARY value that is longer than its column")
    if (field.length[field.valid] >= size).all():
        return binary_array(buffer, string_views(buffer, field.start, field.length), field.valid)
    count = len(field.start)
    place = np.arange(size)
    there = place < field.length[:, None]
    values = np.where(there, buffer.bytes[np.where(there, field.start[:, None] + place, 0)], 0).astype(np.uint8)
    full = Buffer([values.tobytes()])
    start = np.arange(count, dtype=np.int64) * size
    return binary_array(full, string_views(full, start, np.full(count, size)), field.valid)


def _addresses(buffer: Buffer, field: Field, base: str) -> pa.Array:
    """MariaDB's UUID, INET4 and INET6, which the log has as bytes (B-62). Zeros at the end are left out."""
    size = 4 if base == "inet4" else 16
    _refuse(field.valid & (field.length > size), "an address that is longer than one")
    raw = [value.ljust(size, b"\0") if value is not None else None for value in _values(buffer, field)]
    if base == "uuid":
        texts = [None if value is None else _uuid(value) for value in raw]
    elif base == "inet4":
        texts = [None if value is None else str(ipaddress.IPv4Address(value)) for value in raw]
    else:
        texts = [None if value is None else _inet6(value) for value in raw]
    return pa.array(texts, pa.string_view())


def _uuid(value: bytes) -> str:
    """The record's order of the segments is turned round for versions 1 to 5, so that an index is in time order
    (sql_type_uuid.h); those of version 6 and 7 have it already."""
    if value[6] & 0x80 and not value[8] & 0x80:  # the variant's bit, where the segments were swapped to
        value = value[12:16] + value[10:12] + value[8:10] + value[6:8] + value[0:6]
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _inet6(value: bytes) -> str:
    """As the server writes it (sql_type_inet.cc): the longest run of zeros is left out, IPv4 inside with dots."""
    is_mapped = value[:12] == bytes(10) + b"\xff\xff"
    is_compatible = value[:12] == bytes(12) and value[12:14] != b"\0\0"
    if is_mapped or is_compatible:
        return ("::ffff:" if is_mapped else "::") + str(ipaddress.IPv4Address(value[12:]))
    return str(ipaddress.IPv6Address(value))


def _refuse(wrong: np.ndarray, what: str) -> None:
    if wrong.any():
        raise DecodeError(f"The log holds {what}.")


def _texts(buffer: Buffer, field: Field, charset: str, converter: Converter) -> pa.Array:
    """Text: the buffer's own bytes where they are UTF-8, otherwise converted."""
    if charset in _UTF8:
        return utf8_array(buffer, field)
    if charset not in _NOT_ASCII_COMPATIBLE and not _has_high_bytes(buffer, field):
        return string_array(buffer, string_views(buffer, field.start, field.length), field.valid)
    return _converted(buffer, field, lambda values: converter.text(charset, values))


def utf8_array(buffer: Buffer, field: Field) -> pa.Array:
    """Text that is the buffer's own bytes; raises DecodeError if they are not UTF-8, which a server may well hold."""
    array = string_array(buffer, string_views(buffer, field.start, field.length), field.valid)
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DecodeError("A text has bytes that are not UTF-8.", hint="Repair it in the source.") from error
    return array


def _has_high_bytes(buffer: Buffer, field: Field) -> bool:
    """Whether any value has a byte that is not ASCII, looked for eight bytes at a time."""
    words, last = buffer.at("<u8"), len(buffer.bytes) - 8
    left, start, length = np.uint64(0), field.start[field.valid], field.length[field.valid]
    while len(start):
        found = words[np.minimum(start, last)] & _HIGH[np.minimum(length, 8)]
        left |= np.bitwise_or.reduce(found)
        more = length > 8
        start, length = start[more] + 8, length[more] - 8
        if left:
            return True
    return False


def _converted(buffer: Buffer, field: Field, convert: object) -> pa.Array:
    """Values that somebody else turns into text, each distinct one once."""
    assert callable(convert)
    values = _values(buffer, field)
    distinct = list(dict.fromkeys(value for value in values if value is not None))
    texts = dict(zip(distinct, convert(distinct), strict=True)) if distinct else {}
    return pa.array([None if value is None else texts[value] for value in values], pa.string_view())


def _values(buffer: Buffer, field: Field) -> list[bytes | None]:
    data = memoryview(buffer.payload)
    rows = zip(field.start.tolist(), field.length.tolist(), field.valid.tolist(), strict=True)
    return [bytes(data[start : start + length]) if valid else None for start, length, valid in rows]


def _little(buffer: Buffer, start: np.ndarray, size: int) -> np.ndarray:
    """uint64[n]: little-endian unsigned integers of up to 8 bytes."""
    value = np.zeros(len(start), dtype=np.uint64)
    for byte in reversed(range(size)):
        value = value << np.uint64(8) | buffer.bytes[start + byte]
    return value
