"""Which of ClickHouse's types holds the values of a logical type, and what it has a place for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pyarrow as pa

from cdc.model.arrays import LARGE
from cdc.model.schema import Column, Kind, LogicalType
from cdc.typed.codecs import MAX_PRECISION, TEXT_CODEC, codec_for
from cdc.typed.native import Home

UTC = pa.timestamp("us", "UTC")
TEXT = Home("String", TEXT_CODEC, LARGE)
_PLAIN: dict[Kind, tuple[str, pa.DataType]] = {
    Kind.BOOL: ("Bool", pa.bool_()),
    Kind.INT16: ("Int16", pa.int16()),
    Kind.INT32: ("Int32", pa.int32()),
    Kind.INT64: ("Int64", pa.int64()),
    Kind.UINT32: ("UInt32", pa.uint32()),
    Kind.UINT64: ("UInt64", pa.uint64()),
    Kind.FLOAT32: ("Float32", pa.float32()),
    Kind.FLOAT64: ("Float64", pa.float64()),
    Kind.BYTES: ("String", pa.binary()),
    Kind.UUID: ("UUID", LARGE),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server's types have a place for, which its version decides.

    Attributes:
        days, moments: the first and the last date of Date32 and moment of DateTime64(6), as DuckDB writes them.
    """

    days: tuple[str, str]
    moments: tuple[str, str]


# Since 19.x, which all versions hold; the newest hold the whole calendar (seen with 26.9).
NARROW = Limits(("1900-01-01", "2299-12-31"), ("1900-01-01 00:00:00", "2299-12-31 23:59:59.999999"))
WIDE = Limits(("0001-01-01", "9999-12-31"), ("0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"))


@cache
def home_of(kind: LogicalType, limits: Limits) -> Home:
    """Where values of a type live at first.

    JSON is text: ClickHouse's own type drops nulls, rounds numbers and refuses a key that comes twice. So are arrays,
    which cannot be NULL there, and times of day and intervals.
    """
    if kind.kind in _PLAIN:
        name, arrow = _PLAIN[kind.kind]
        return Home(name, codec_for(kind), arrow)
    if kind.kind is Kind.DECIMAL:
        return _decimal(kind)
    if kind.kind is Kind.DATE:
        first, last = limits.days
        return Home("Date32", codec_for(kind), pa.date32(), f"value_ BETWEEN DATE '{first}' AND DATE '{last}'")
    if kind.kind in (Kind.TIMESTAMP, Kind.TIMESTAMPTZ):
        first, last = limits.moments
        zone = "+00" if kind.kind is Kind.TIMESTAMPTZ else ""
        name = codec_for(kind).sql_type
        within = f"value_ BETWEEN CAST('{first}{zone}' AS {name}) AND CAST('{last}{zone}' AS {name})"
        return Home("DateTime64(6, 'UTC')", codec_for(kind), UTC, within)
    return TEXT


def home_of_column(column: Column, limits: Limits) -> Home:
    """Where the values of a column live at first."""
    return home_of(column.type, limits)


def _decimal(kind: LogicalType) -> Home:
    codec = codec_for(kind)
    if codec.is_text:
        return TEXT
    scale = max(kind.scale or 0, 0)
    precision = max((kind.precision or 0) - min(kind.scale or 0, 0), scale + 1)
    assert precision <= MAX_PRECISION
    return Home(f"Decimal({precision}, {scale})", codec, pa.decimal128(precision, scale))
