"""Rows of a prepared statement in the binary protocol, read column by column. Sans I/O.

The binary protocol has numbers, dates and floats as they are, so that nothing is lost on the way (B-57).
https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_binary_resultset.html
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from cdc.errors import DecodeError
from cdc.model.change import ABSENT, ChangeBatch, Op, Rows
from cdc.model.schema import Kind, TableSchema
from cdc.sources.lockstep import Buffer
from cdc.sources.mysql import temporal, values
from cdc.sources.mysql.rows import Field
from cdc.sources.mysql.temporal import Parts, native
from cdc.sources.mysql.types import SourceType, logical_type, source_type

# Bytes of a value, and as which NumPy type it is read, by the base of the column's type.
_FIXED = {
    "tinyint": (1, "i1"),
    "smallint": (2, "<i2"),
    "mediumint": (4, "<i4"),
    "int": (4, "<i4"),
    "bigint": (8, "<i8"),
    "year": (2, "<i2"),
    "float": (4, "<f4"),
    "double": (8, "<f8"),
}
_ARROW = {
    Kind.INT16: (np.int16, pa.int16()),
    Kind.INT32: (np.int32, pa.int32()),
    Kind.INT64: (np.int64, pa.int64()),
    Kind.UINT32: (np.uint32, pa.uint32()),
    Kind.UINT64: (np.uint64, pa.uint64()),
    Kind.FLOAT32: (np.float32, pa.float32()),
    Kind.FLOAT64: (np.float64, pa.float64()),
}
_DATE_LENGTHS, _TIME_LENGTHS = (0, 4, 7, 11), (0, 8, 12)  # bytes: zeros at the end are left out
_DATES = ("date", "datetime", "timestamp")


def decode_result(pieces: Sequence[bytes], start: np.ndarray, end: np.ndarray, schema: TableSchema) -> ChangeBatch:
    """Decode row packets.

    Args:
        pieces: bytes that hold the packets.
        start, end: int64[n], where in them each packet's content is.
        schema: the table; its columns are those of the statement, in their order.

    Raises:
        DecodeError: a row is longer or shorter than its columns.
    """
    buffer, count, width = Buffer(pieces), len(start), len(schema.columns)
    if (buffer.bytes[start] != 0).any():
        raise DecodeError(f"A copied row of {schema.table} does not begin as a row does.")
    cursor = start + 1 + (width + 9) // 8
    columns: list[pa.Array] = []
    if (cursor > end).any():
        raise DecodeError(f"A copied row of {schema.table} ends before its values.")
    for number, column in enumerate(schema.columns):
        valid = (buffer.bytes[start + 1 + (number + 2) // 8] >> ((number + 2) % 8)) & 1 == 0
        try:
            array, cursor = _column(buffer, cursor, end, valid, source_type(column.source_type))
        except DecodeError as error:
            raise DecodeError(f"{schema.table}.{column.name}: {error.message}", hint=error.hint) from error
        columns.append(array)
    if not np.array_equal(cursor, end):
        raise DecodeError(f"A copied row of {schema.table} is longer than its columns.")
    return ChangeBatch(
        schema=schema,
        op=np.full(count, Op.INSERT, dtype=np.uint8),
        transaction=np.zeros(count, dtype=np.int32),
        ordinal=np.arange(count, dtype=np.int64),
        after=Rows(tuple(columns), (None,) * width),
        after_row=np.arange(count, dtype=np.int64),
        before=None,
        before_row=np.full(count, ABSENT, dtype=np.int64),
        copied=True,
        size=buffer.size,
    )


def _column(
    buffer: Buffer, cursor: np.ndarray, end: np.ndarray, valid: np.ndarray, source: SourceType
) -> tuple[pa.Array, np.ndarray]:
    """One column of all rows, which end at `end`, and where the next one begins."""
    if source.base in _FIXED:
        size, layout = _FIXED[source.base]
        after = cursor + np.where(valid, size, 0)
        _refuse(after > end)
        found = buffer.at(layout.replace("i", "u") if source.unsigned and "f" not in layout else layout)[cursor]
        dtype, kind = _ARROW[logical_type(source).kind]
        return native(kind, found.astype(dtype, copy=False), valid), after
    if source.base in _DATES or source.base == "time":
        length = np.where(valid, buffer.bytes[cursor], 0).astype(np.int64)
        after = cursor + np.where(valid, length + 1, 0)
        is_time = source.base == "time"
        _refuse((after > end) | ~np.isin(length, _TIME_LENGTHS if is_time else _DATE_LENGTHS))
        return (_time if is_time else _date)(buffer, cursor + 1, length, valid, source), after
    start, length = _prefixed(buffer, cursor, valid)
    _refuse((length < 0) | (length > end - start))
    return _bytes(buffer, Field(start, length, valid), source), start + length


def _refuse(wrong: np.ndarray) -> None:
    if wrong.any():
        raise DecodeError("a copied value is longer than its row, or of a length that it never has.")


def _prefixed(buffer: Buffer, cursor: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values with their length in front, which takes one byte, or 2, 3 or 8 behind a mark."""
    first = buffer.bytes[cursor]
    length, start = first.astype(np.int64), cursor + 1
    length[first > 0xFA] = -1  # unless one of these follows
    for mark, size, layout in ((0xFC, 2, "<u2"), (0xFD, 3, "<u4"), (0xFE, 8, "<i8")):
        long = np.flatnonzero(first == mark)
        if len(long):
            found = buffer.at(layout)[cursor[long] + 1].astype(np.int64)
            length[long] = found & 0xFFFFFF if size == 3 else found
            start[long] += size
    return np.where(valid, start, cursor), np.where(valid, length, 0)


def _bytes(buffer: Buffer, field: Field, source: SourceType) -> pa.Array:
    if source.base == "bit":
        # As many bytes as the column has, whatever their value.
        size = ((source.numbers or (1,))[0] + 7) // 8
        _refuse(field.valid & (field.length != size))
        return native(pa.uint64(), values.bits(buffer, field.start, size), field.valid)
    if logical_type(source).kind in (Kind.BYTES, Kind.VECTOR):
        return values.bytes_array(buffer, field, source, _NO_CONVERTER)
    # Text in whatever character set is sent as UTF-8; decimals, enums, documents and addresses as text.
    return values.utf8_array(buffer, field)


class _NoConverter:
    def text(self, charset: str, values: list[bytes]) -> list[str]:
        raise AssertionError


_NO_CONVERTER = _NoConverter()


def _date(buffer: Buffer, at: np.ndarray, length: np.ndarray, valid: np.ndarray, source: SourceType) -> pa.Array:
    """Year, month and day; the time and its fraction if they are not 0; nothing at all for 0000-00-00."""

    def byte(offset: int, from_length: int) -> np.ndarray:
        return np.where(length >= from_length, buffer.bytes[at + offset], 0).astype(np.int64)

    year = np.where(length >= 4, buffer.at("<u2")[at], 0).astype(np.int64)
    micros = np.where(length >= 11, buffer.at("<u4")[at + 7], 0).astype(np.int64)
    parts = Parts(year, byte(2, 4), byte(3, 4), byte(4, 7), byte(5, 7), byte(6, 7), micros)
    if source.base == "date":
        return temporal.date_array(parts, valid)
    return temporal.datetime_array(parts, valid) if source.base == "datetime" else temporal.moment_array(parts, valid)


def _time(buffer: Buffer, at: np.ndarray, length: np.ndarray, valid: np.ndarray, source: SourceType) -> pa.Array:
    """Sign, days, hours, minutes, seconds; the fraction if it is not 0; nothing at all for 00:00:00."""

    def byte(offset: int) -> np.ndarray:
        return np.where(length >= 8, buffer.bytes[at + offset], 0).astype(np.int64)

    days = np.where(length >= 8, buffer.at("<u4")[at + 1], 0).astype(np.int64)
    micros = np.where(length >= 12, buffer.at("<u4")[at + 8], 0).astype(np.int64)
    seconds = days * 86400 + byte(5) * 3600 + byte(6) * 60 + byte(7)
    return temporal.duration_array(byte(0) == 1, seconds, micros, valid)
