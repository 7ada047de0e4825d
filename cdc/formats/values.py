"""Columns as JSON values: booleans, integers and floats JSON's own, every other value a string of the source's text.

So no reader rounds a numeric or shifts a timestamp. What JSON has no number for (NaN, Infinity) is a string, too.
"""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cdc.formats.text import escaped, joined
from cdc.model.arrays import LARGE
from cdc.model.canonical import canonical
from cdc.model.schema import Kind, LogicalType

INTEGERS = frozenset({Kind.INT16, Kind.INT32, Kind.INT64, Kind.UINT32, Kind.UINT64})
FLOATS = frozenset({Kind.FLOAT32, Kind.FLOAT64})
# Their texts have digits, signs and letters only.
_PLAIN = frozenset({Kind.DECIMAL, Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.UUID})
_TRUE, _FALSE = pa.scalar("true", LARGE), pa.scalar("false", LARGE)
_MINUS_ZERO = pa.scalar("-0.0", LARGE)
_NUMBER = r"^-?[0-9]"


class Value(NamedTuple):
    """A column as JSON, in three pieces: what stands before and after each value is the same for all of them."""

    before: str
    text: pa.Array
    after: str

    @property
    def whole(self) -> pa.Array:
        """As one array."""
        return joined(self.before, self.text, self.after) if self.before or self.after else self.text


def json_value(array: pa.Array, kind: LogicalType) -> Value:
    """The values of a column; a null is JSON's null."""
    text = canonical(array)
    if kind.kind in INTEGERS:
        return _native(text)
    if kind.kind is Kind.BOOL:
        return _native(text if pa.types.is_boolean(array.type) else pc.if_else(pc.equal(text, "t"), _TRUE, _FALSE))
    if kind.kind in FLOATS:
        text = pc.if_else(pc.equal(text, "-0"), _MINUS_ZERO, text)  # which a reader would take for an integer's zero
        is_number = pc.match_substring_regex(text, _NUMBER)
        if pc.all(is_number).as_py() is not False:
            return _native(text)
        return _native(pc.if_else(is_number, text, joined('"', text, '"')))
    return string(text if kind.kind in _PLAIN else escaped(text))


def string(text: pa.Array) -> Value:
    """Texts that are escaped already, in quotes."""
    if not text.null_count:
        return Value('"', text, '"')
    return _native(joined('"', text, '"'))


def _native(text: pa.Array) -> Value:
    return Value("", text.fill_null("null") if text.null_count else text, "")
