"""Values and schemas as Debezium has them, with these of its settings:

    decimal.handling.mode=string, time.precision.mode=microseconds, binary.handling.mode=hex

What a type of Debezium's has no place for (infinity, 24:00:00, a year before Christ) is the source's text.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from cdc.formats.text import LARGE, joined, literal
from cdc.formats.values import Value, canonical, json_value
from cdc.model.schema import Column, Kind, TableSchema

UNAVAILABLE = literal("__debezium_unavailable_value")
_DAY = r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?"
_ZONED = rf"^({_DAY}) ({_CLOCK})\+00$"
_MICROS = pa.timestamp("us")

# Kind -> literal type and semantic type of Kafka Connect.
_TYPES: dict[Kind, tuple[str, str | None]] = {
    Kind.BOOL: ("boolean", None),
    Kind.INT16: ("int16", None),
    Kind.INT32: ("int32", None),
    Kind.INT64: ("int64", None),
    Kind.UINT32: ("int64", None),
    Kind.UINT64: ("int64", None),
    Kind.FLOAT32: ("float", None),
    Kind.FLOAT64: ("double", None),
    Kind.DATE: ("int32", "io.debezium.time.Date"),
    Kind.TIME: ("int64", "io.debezium.time.MicroTime"),
    Kind.TIMESTAMP: ("int64", "io.debezium.time.MicroTimestamp"),
    Kind.TIMESTAMPTZ: ("string", "io.debezium.time.ZonedTimestamp"),
    Kind.UUID: ("string", "io.debezium.data.Uuid"),
    Kind.JSON: ("string", "io.debezium.data.Json"),
}


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
    return json_value(array, column.type)


def _number(text: pa.Array, pattern: str, read: Callable[[pa.Array], pa.Array]) -> Value:
    """Texts of a pattern as numbers, all others as they are."""
    fits = pc.match_substring_regex(text, pattern)
    try:
        numbers = read(pc.if_else(fits, text, pa.scalar(None, LARGE))).cast(LARGE)
    except pa.ArrowInvalid:  # a 30th of February, which MySQL may be told to allow
        numbers = pa.nulls(len(text), LARGE)
    if numbers.null_count > text.null_count:
        numbers = pc.coalesce(numbers, joined('"', text, '"'))
    return Value("", numbers.fill_null("null"), "")


def row_schema(
    schema: TableSchema, field: str | None, name: str, columns: range | tuple[int, ...]
) -> dict[str, object]:
    """The schema of a row, or of a key."""
    made: dict[str, object] = {"type": "struct", "fields": [_field(schema.columns[i]) for i in columns]}
    return made | {"optional": field is not None, "name": name} | ({"field": field} if field is not None else {})


def _field(column: Column) -> dict[str, object]:
    kind, name = _TYPES.get(column.type.kind, ("string", None))
    made: dict[str, object] = {"type": kind, "optional": column.nullable and column.key is None}
    return made | ({"name": name, "version": 1} if name is not None else {}) | {"field": column.name}
