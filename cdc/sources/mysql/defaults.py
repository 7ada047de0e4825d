"""What a new row has in a column that the log of its insert leaves out: the column's constant default.

With `binlog_row_image = MINIMAL`, both servers log what a statement or a trigger says, what is worked out (a moment, a
UUID, a generated column), and numbers that count on. They leave out what their own definition of the table has (B-24).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation

import numpy as np
import pyarrow as pa

from cdc.model.arrays import TEXT, take, unified
from cdc.model.schema import Column, Kind
from cdc.sources.mysql.types import SourceType, source_type

_NUMBERS = {
    Kind.INT16: pa.int16(),
    Kind.INT32: pa.int32(),
    Kind.INT64: pa.int64(),
    Kind.UINT32: pa.uint32(),
    Kind.UINT64: pa.uint64(),
}
_FLOATS = {Kind.FLOAT32: pa.float32(), Kind.FLOAT64: pa.float64()}
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_BITS = re.compile(r"b'([01]{1,64})'")
_FLOAT = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_QUOTED = re.compile(r"'([^'\\]*)'")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATETIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class Default:
    """The constant default of a column.

    Attributes:
        column: its identity.
        text: its canonical text; None for NULL.
    """

    column: int
    text: str | None


def of_column(column: Column, said: str | None, extra: str, *, is_quoted: bool) -> Default | None:
    """The default that `information_schema.columns` knows; None if it is not a constant, or one that is not certain.

    Args:
        said: its `column_default`.
        extra: its `extra`.
        is_quoted: it is written as an expression (MariaDB); otherwise as the bare value (MySQL).
    """
    if any(word in extra.upper() for word in ("GENERATED", "VIRTUAL", "AUTO_INCREMENT")):
        return None  # logged, whenever there is one
    if said is None or (is_quoted and said == "NULL"):
        return Default(column.identity, None) if column.nullable else _nothing(column)
    if is_quoted and (quoted := _QUOTED.fullmatch(said)):
        return constant(column, quoted[1])
    if column.type.kind is Kind.FLOAT32 and not is_quoted and said != "0":
        return None  # MySQL prints six digits of it, and has more
    is_bare = column.type.kind not in (Kind.TEXT, Kind.DATE, Kind.TIMESTAMP)
    return constant(column, said) if is_bare or not is_quoted else None


def constant(column: Column, text: str) -> Default | None:
    """A constant that rows get as it is written; None for one that the server may read in some other way."""
    source, kind = source_type(column.source_type), column.type.kind
    canonical: str | None = None
    if source.base == "bit":
        canonical = str(int(bits[1], 2)) if (bits := _BITS.fullmatch(text)) else None
    elif kind in _NUMBERS:
        canonical = str(int(text)) if _is_whole(text, source, _NUMBERS[kind]) else None
    elif kind is Kind.DECIMAL:
        canonical = _decimal(text, column.type.scale or 0)
    elif kind in _FLOATS:
        canonical = text if _FLOAT.fullmatch(text) and not source.numbers else None
    elif kind is Kind.TEXT:
        canonical = text if _is_kept(text, source) else None
    elif kind in (Kind.DATE, Kind.TIMESTAMP):
        canonical = text if _moment(text, source) is not None else None
    return Default(column.identity, canonical) if canonical is not None else None


def filled(array: pa.Array, missing: np.ndarray, column: Column, default: Default) -> pa.Array:
    """A column with its default in some rows (bool[n])."""
    if default.text is None or not missing.any():
        return array
    values, one = unified([array, _array(column, default.text)])
    return take(pa.concat_arrays([values, one]), np.where(missing, len(values), np.arange(len(values))))


def without(defaults: Sequence[Default], column: int) -> tuple[Default, ...]:
    """All of them but that of a column."""
    return tuple(default for default in defaults if default.column != column)


def _nothing(column: Column) -> Default | None:
    """What a mode that is not strict puts where there has to be something."""
    kind = column.type.kind
    if kind in _NUMBERS or kind is Kind.DECIMAL:
        return constant(column, "0")
    return Default(column.identity, "") if source_type(column.source_type).is_text and kind is Kind.TEXT else None


def _is_whole(text: str, source: SourceType, kind: pa.DataType) -> bool:
    """Whether a text is a number that the column takes as it is; a year may be written with two digits."""
    if not _INTEGER.fullmatch(text) or (source.base == "year" and len(text) < 4):
        return False
    is_unsigned = pa.types.is_unsigned_integer(kind)
    most = 1 << (kind.bit_width if is_unsigned else kind.bit_width - 1)
    return bool((0 if is_unsigned else -most) <= int(text) < most)


def _decimal(text: str, scale: int) -> str | None:
    """A number with all digits of its column, if none has to be cut off for that."""
    try:
        value = Decimal(text)
        exact = value.quantize(Decimal(1).scaleb(-scale)) if value.is_finite() else None
    except InvalidOperation:
        return None
    return f"{exact:f}" if exact == value and (value or not value.is_signed()) else None


def _is_kept(text: str, source: SourceType) -> bool:
    """Whether a text stays as it is in a column: CHAR takes blanks off, labels come in the column's own spelling."""
    if source.base == "enum":
        return text in source.labels
    if source.base == "set":
        places = [source.labels.index(label) if label in source.labels else -1 for label in text.split(",")]
        return not text or (min(places) >= 0 and places == sorted(set(places)))
    return source.is_text and not text.endswith(" ")


def _moment(text: str, source: SourceType) -> date | None:
    """A date or a naive moment of the calendar; others (0000-00-00) are the business of the server's modes."""
    try:
        if source.base == "date":
            return date.fromisoformat(text) if _DATE.fullmatch(text) else None
        found = _DATETIME.fullmatch(text)
        digits = (source.numbers or (0,))[0]
        return datetime.fromisoformat(text) if found and len(found[1] or ".") - 1 <= digits else None
    except ValueError:
        return None


def _array(column: Column, text: str) -> pa.Array:
    """A value, in the form that the log's values of the column are read in."""
    source, kind = source_type(column.source_type), column.type.kind
    if kind in _NUMBERS:
        return pa.array([int(text)], _NUMBERS[kind])
    if kind in _FLOATS:
        return pa.array([float(text)], _FLOATS[kind])
    if kind in (Kind.DATE, Kind.TIMESTAMP):
        return pa.array([_moment(text, source)], pa.date32() if kind is Kind.DATE else pa.timestamp("us"))
    return pa.array([text], TEXT)
