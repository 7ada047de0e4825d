"""Table map events: how the rows that follow are laid out, and what the server says of their columns.

https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Table__map__event.html
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from cdc.errors import DecodeError
from cdc.model.schema import TableName
from cdc.sources.mysql.events import HEADER
from cdc.sources.mysql.reader import Reader


class Wire(IntEnum):
    """How a value lies in a row image (enum_field_types)."""

    TINY = 1
    SHORT = 2
    LONG = 3
    FLOAT = 4
    DOUBLE = 5
    TIMESTAMP = 7
    LONGLONG = 8
    INT24 = 9
    DATE = 10
    TIME = 11
    DATETIME = 12
    YEAR = 13
    NEWDATE = 14
    VARCHAR = 15
    BIT = 16
    TIMESTAMP2 = 17
    DATETIME2 = 18
    TIME2 = 19
    BLOB_COMPRESSED = 140
    VARCHAR_COMPRESSED = 141
    VECTOR = 242
    JSON = 245
    NEWDECIMAL = 246
    ENUM = 247
    SET = 248
    BLOB = 252
    VAR_STRING = 253
    STRING = 254
    GEOMETRY = 255


_FIXED = {
    Wire.TINY: 1,
    Wire.SHORT: 2,
    Wire.INT24: 3,
    Wire.LONG: 4,
    Wire.LONGLONG: 8,
    Wire.FLOAT: 4,
    Wire.DOUBLE: 8,
    Wire.TIMESTAMP: 4,
    Wire.DATE: 3,
    Wire.NEWDATE: 3,
    Wire.TIME: 3,
    Wire.DATETIME: 8,
    Wire.YEAR: 1,
}
# Bytes of old temporal values by their fractional digits (`time_hires_bytes` and its like in MariaDB's sql/field.cc).
# The table map has one type for all of them: it does not say how many digits a column has.
HIGH_RESOLUTION = {
    Wire.TIMESTAMP: (4, 5, 5, 6, 6, 7, 7),
    Wire.TIME: (3, 4, 4, 5, 5, 5, 6),
    Wire.DATETIME: (8, 6, 6, 7, 7, 7, 8),
}
_ONE_BYTE = {
    Wire.FLOAT,
    Wire.DOUBLE,
    Wire.BLOB,
    Wire.GEOMETRY,
    Wire.JSON,
    Wire.VECTOR,
    Wire.TIMESTAMP2,
    Wire.DATETIME2,
    Wire.TIME2,
    Wire.BLOB_COMPRESSED,
}
_TWO_BYTES = {
    Wire.VARCHAR,
    Wire.BIT,
    Wire.NEWDECIMAL,
    Wire.STRING,
    Wire.VAR_STRING,
    Wire.ENUM,
    Wire.SET,
    Wire.VARCHAR_COMPRESSED,
}
_SIGNED_OR_NOT = {
    Wire.TINY,
    Wire.SHORT,
    Wire.INT24,
    Wire.LONG,
    Wire.LONGLONG,
    Wire.FLOAT,
    Wire.DOUBLE,
    Wire.NEWDECIMAL,
}
MOST_DIGITS = 65  # of a DECIMAL
_DIGITS_TO_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)


@dataclass(frozen=True, slots=True)
class WireColumn:
    """One column of a row image.

    Attributes:
        wire: its type; of a STRING the one that it really is (CHAR, ENUM, SET).
        size: bytes of a value, or, if `variable`, of the length that stands before it.
        length: declared bytes (CHAR, VARCHAR), bits (BIT), fractional digits (temporal types), digits (DECIMAL).
        scale: of a DECIMAL.
        name, unsigned: if the server says so.
    """

    wire: Wire
    size: int
    variable: bool
    length: int = 0
    scale: int = 0
    name: str | None = None
    unsigned: bool | None = None


@dataclass(frozen=True, slots=True)
class TableMap:
    """A table as rows are about to be written: `columns` in the order of the row images."""

    schema: str
    table: str
    columns: tuple[WireColumn, ...]


def table_id(event: bytes) -> int:
    """The number that row events refer to a table map by."""
    return int.from_bytes(event[HEADER : HEADER + 6], "little")


def described_table(event: bytes) -> TableName:
    """The table that a table map event is about."""
    reader = Reader(event, HEADER + 8, "A table map event")
    return TableName(_name(reader), _name(reader))


def decimal_bytes(precision: int, scale: int) -> int:
    """How long a packed DECIMAL is: nine digits in four bytes, the rest of each side in as few as hold it."""
    whole = precision - scale
    return whole // 9 * 4 + _DIGITS_TO_BYTES[whole % 9] + scale // 9 * 4 + _DIGITS_TO_BYTES[scale % 9]


def parse_table_map(event: bytes) -> TableMap:
    """Read a table map event; raises DecodeError if it is not one, or has a column of a type that is not known."""
    reader = Reader(event, HEADER + 8, "A table map event")
    schema, table = _name(reader), _name(reader)
    codes = reader.take(reader.packed())
    metadata = reader.take(reader.packed())
    reader.take((len(codes) + 7) // 8)  # which columns may be null
    known = {code.value for code in Wire}
    for number, code in enumerate(codes):
        if code not in known:
            raise DecodeError(
                f"Column {number + 1} of {schema}.{table} has type number {code}, which cdc does not know.",
                hint="Leave the table out with --exclude.",
            )
    columns = _columns([Wire(code) for code in codes], Reader(metadata, 0, f"The table map of {schema}.{table}"))
    names, unsigned = _optional(reader, columns)
    return TableMap(
        schema,
        table,
        tuple(
            WireColumn(
                c.wire,
                c.size,
                c.variable,
                c.length,
                c.scale,
                names[number] if names is not None else None,
                unsigned.get(number),
            )
            for number, c in enumerate(columns)
        ),
    )


def _columns(wires: list[Wire], metadata: Reader) -> list[WireColumn]:
    return [_column(wire, metadata.take(2 if wire in _TWO_BYTES else 1 if wire in _ONE_BYTE else 0)) for wire in wires]


def _column(wire: Wire, meta: bytes) -> WireColumn:
    if wire in _FIXED:
        return WireColumn(wire, _FIXED[wire], variable=False)
    if wire in (Wire.VARCHAR, Wire.VAR_STRING, Wire.VARCHAR_COMPRESSED):
        length = int.from_bytes(meta, "little")
        return WireColumn(wire, 2 if length > 255 else 1, variable=True, length=length)
    if wire in (Wire.STRING, Wire.ENUM, Wire.SET):
        return _string(meta)
    if wire is Wire.BIT:
        bits = meta[1] * 8 + meta[0]
        return WireColumn(wire, (bits + 7) // 8, variable=False, length=bits)
    if wire is Wire.NEWDECIMAL:
        if not meta[1] <= meta[0] <= MOST_DIGITS:
            raise DecodeError(
                f"A table map event has a DECIMAL of {meta[0]} digits, {meta[1]} of them behind the point."
            )
        return WireColumn(wire, decimal_bytes(meta[0], meta[1]), variable=False, length=meta[0], scale=meta[1])
    if wire in (Wire.TIMESTAMP2, Wire.DATETIME2, Wire.TIME2):
        if meta[0] > 6:
            raise DecodeError(f"A table map event has a {wire.name} of {meta[0]} fractional digits.")
        whole = {Wire.TIMESTAMP2: 4, Wire.DATETIME2: 5, Wire.TIME2: 3}[wire]
        return WireColumn(wire, whole + (meta[0] + 1) // 2, variable=False, length=meta[0])
    if not 1 <= meta[0] <= 4:
        raise DecodeError(f"A table map event has a {wire.name} whose length takes {meta[0]} bytes.")
    return WireColumn(wire, meta[0], variable=True)


def _string(meta: bytes) -> WireColumn:
    """CHAR up to 1020 bytes long: two bits of the length are hidden, inverted, in the type's byte."""
    code, length = meta[0], meta[1]
    if code & 0x30 != 0x30:
        length |= ((code & 0x30) ^ 0x30) << 4
        code |= 0x30
    if code in (Wire.ENUM, Wire.SET):
        if not 1 <= length <= (2 if code == Wire.ENUM else 8):
            raise DecodeError(f"A table map event has a {Wire(code).name} whose values take {length} bytes.")
        return WireColumn(Wire(code), length, variable=False, length=length)
    return WireColumn(Wire.STRING, 2 if length > 255 else 1, variable=True, length=length)


def _optional(reader: Reader, columns: list[WireColumn]) -> tuple[list[str] | None, dict[int, bool]]:
    """What binlog_row_metadata adds: names and signs are used; the rest is known from the table's schema."""
    names: list[str] | None = None
    unsigned: dict[int, bool] = {}
    while reader.has_more:
        kind = reader.number(1)
        value = Reader(reader.take(reader.packed()), 0, "The metadata of a table map event")
        if kind == 1:
            # Servers count a year among the numbers, as one without a sign; nobody declares it so.
            numeric = [n for n, column in enumerate(columns) if column.wire in _SIGNED_OR_NOT | {Wire.YEAR}]
            signs = value.take((len(numeric) + 7) // 8)
            unsigned = {
                number: bool(signs[i // 8] & (0x80 >> i % 8))
                for i, number in enumerate(numeric)
                if columns[number].wire is not Wire.YEAR
            }
        elif kind == 4:
            names = []
            while value.has_more:
                names.append(value.text(value.packed()))
    if names is not None and len(names) != len(columns):
        raise DecodeError("A table map event names another number of columns than it has.")
    return names, unsigned


def _name(reader: Reader) -> str:
    found = reader.text(reader.number(1))
    if reader.take(1) != b"\0":
        raise DecodeError("A table map event is damaged: a name in it has no end.")
    return found
