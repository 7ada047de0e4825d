"""Values as Debezium has them, with these of its settings:

    decimal.handling.mode=string, time.precision.mode=microseconds, binary.handling.mode=hex

What a type of Debezium's has no place for (NaN, infinity, 24:00:00, a year before Christ, more than 63 bits) is the
source's text.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from cdc.formats.text import LARGE, joined, literal
from cdc.formats.values import Value, canonical, json_value
from cdc.model.schema import Column, Kind

UNAVAILABLE = literal("__debezium_unavailable_value")
_DAY = r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?"
_ZONED = rf"^({_DAY}) ({_CLOCK})\+00$"
_MICROS = pa.timestamp("us")
_MOST = pa.scalar((1 << 63) - 1, pa.uint64())


def spelled(array: pa.Array, column: Column) -> Value:
    """A column's values."""
    kind = column.type.kind
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
    except pa.ArrowInvalid:  # a 30th of February, which MySQL may be told to allow
        numbers = pa.concat_arrays([_alone(fitting.slice(index, 1), read) for index in range(len(fitting))])
    if numbers.null_count > text.null_count:
        numbers = pc.coalesce(numbers, joined('"', text, '"'))
    return Value("", numbers.fill_null("null"), "")


def _alone(text: pa.Array, read: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """One text as a number; null if it is none."""
    try:
        return read(text).cast(LARGE)
    except pa.ArrowInvalid:
        return pa.nulls(1, LARGE)
