"""Values as Debezium has them, with these of its settings:

    decimal.handling.mode=string, time.precision.mode=microseconds, binary.handling.mode=hex

What a type of Debezium's has no place for (NaN, infinity, 24:00:00, a year before Christ, integers of more than 63
bits, money with another sign than the dollar's) is the source's text. So are types that docs/audit.md names.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from cdc.formats.text import joined, literal
from cdc.formats.values import Value, json_value, string
from cdc.model.arrays import LARGE
from cdc.model.canonical import canonical
from cdc.model.schema import Column, Kind

UNAVAILABLE = literal("__debezium_unavailable_value")
_DAY = r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?"
_ZONED = rf"^({_DAY}) ({_CLOCK})\+00$"
_BITS = re.compile(r"bit(?:\((\d+)\))?(?: virtual| stored)?")
_MOST_BITS = 64  # of what the log never leaves out for its size; a text in the place of bytes would be read for bytes
_TIME_WITH_ZONE = re.compile(r"time(\(\d\))? with time zone")
_ZONED_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(\.\d+)?([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?")
_DOLLARS = r"^-?\$[\d,]+(?:\.\d+)?$"
_MICROS = pa.timestamp("us")
_MOST = pa.scalar((1 << 63) - 1, pa.uint64())


def spelled(array: pa.Array, column: Column) -> Value:
    """A column's values."""
    kind = column.type.kind
    if (width := bit_width(column)) is not None:
        return _bits(canonical(array), width, 10 if kind is Kind.UINT64 else 2)
    if is_zoned_time(column):
        return string(_each(canonical(array), _in_utc))
    if kind is Kind.OPAQUE and column.source_type == "money":
        text = canonical(array)
        amount = pc.replace_substring_regex(text, r"[$,]", "")
        return json_value(pc.if_else(pc.match_substring_regex(text, _DOLLARS), amount, text), column.type)
    if kind is Kind.DATE:
        return _number(canonical(array), f"^{_DAY}$", lambda text: text.cast(pa.date32()).cast(pa.int32()))
    if kind is Kind.TIMESTAMP:
        return _number(canonical(array), f"^{_DAY} {_CLOCK}$", lambda text: text.cast(_MICROS).cast(pa.int64()))
    if kind is Kind.TIME and pa.types.is_duration(array.type):
        return Value("", array.cast(pa.int64()).cast(LARGE).fill_null("null"), "")
    if kind is Kind.TIME:
        return _number(
            canonical(array), f"^{_CLOCK}$", lambda text: joined("1970-01-01 ", text).cast(_MICROS).cast(pa.int64())
        )
    if kind is Kind.TIMESTAMPTZ:
        return json_value(pc.replace_substring_regex(canonical(array), _ZONED, r"\1T\2Z"), column.type)
    if kind is Kind.BYTES:
        return json_value(pc.replace_substring_regex(canonical(array), r"^\\x", ""), column.type)
    if kind is Kind.UINT64:
        return _signed(canonical(array))
    return json_value(array, column.type)


def bit_width(column: Column) -> int | None:
    """How many bits a column of `bit(n)` has; None if it is another one, or has too many."""
    found = _BITS.fullmatch(column.source_type) if column.type.kind in (Kind.OPAQUE, Kind.UINT64) else None
    width = int(found[1] or 1) if found is not None else None
    return width if width is not None and width <= _MOST_BITS else None


def is_zoned_time(column: Column) -> bool:
    """Whether a column is one of `time with time zone`."""
    return column.type.kind is Kind.OPAQUE and _TIME_WITH_ZONE.fullmatch(column.source_type) is not None


def _bits(text: pa.Array, width: int, base: int) -> Value:
    """One bit as a boolean, more as bytes of which the first has the lowest (io.debezium.data.Bits)."""
    if width == 1:
        return Value("", pc.if_else(pc.equal(text, "1"), "true", "false").cast(LARGE).fill_null("null"), "")
    size = (width + 7) // 8
    return string(_each(text, lambda digits: b64encode(int(digits, base).to_bytes(size, "little")).decode()))


def _in_utc(text: str) -> str:
    """A time of a zone in Greenwich's (io.debezium.time.ZonedTime), where there is such a time."""
    found = _ZONED_TIME.fullmatch(text)
    if found is None:
        return text
    hour, minute, second, fraction, sign, *ahead = found.groups(default="0")
    east = _seconds(*ahead) * (-1 if sign == "-" else 1)
    at = (_seconds(hour, minute, second) - east) % _seconds("24", "0", "0")
    rest = fraction if fraction != "0" else ""
    return f"{at // 3600:02d}:{at // 60 % 60:02d}:{at % 60:02d}{rest}Z"


def _seconds(hours: str, minutes: str, seconds: str) -> int:
    return (int(hours) * 60 + int(minutes)) * 60 + int(seconds)


def _each(text: pa.Array, read: Callable[[str], str]) -> pa.Array:
    """Each value read, those that are alike once; a null stays null."""
    found = text.dictionary_encode()
    return pa.array(map(read, found.dictionary.to_pylist()), LARGE).take(found.indices)


def _signed(text: pa.Array) -> Value:
    """Unsigned integers as numbers where a signed one has room for them."""
    has_room = pc.less_equal(text.cast(pa.uint64()), _MOST)
    return Value("", pc.if_else(has_room, text, joined('"', text, '"')).fill_null("null"), "")


def _number(text: pa.Array, pattern: str, read: Callable[[pa.Array], pa.Array]) -> Value:
    """Texts of a pattern as numbers, all others as they are."""
    fits = pc.match_substring_regex(text, pattern)
    fitting = pc.if_else(fits, text, pa.scalar(None, LARGE))
    try:
        numbers = read(fitting).cast(LARGE)
    except pa.ArrowInvalid:  # a 30th of February, which MySQL can be set to allow
        numbers = pa.concat_arrays([_alone(fitting.slice(index, 1), read) for index in range(len(fitting))])
    if numbers.null_count > text.null_count:
        numbers = pc.coalesce(numbers, joined('"', text, '"'))
    return Value("", numbers.fill_null("null"), "")


def _alone(text: pa.Array, read: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """One text as a number; null if it is not a number."""
    try:
        return read(text).cast(LARGE)
    except pa.ArrowInvalid:
        return pa.nulls(1, LARGE)
