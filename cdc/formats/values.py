"""Columns as JSON values: booleans, integers and floats JSON's own, every other value a string of the source's text.

So no reader rounds a numeric or shifts a timestamp. What JSON has no number for (NaN, Infinity) is a string, too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc.formats.text import LARGE, escaped, joined
from cdc.model.arrays import TEXT, texts
from cdc.model.schema import Kind, LogicalType

INTEGERS = frozenset({Kind.INT16, Kind.INT32, Kind.INT64, Kind.UINT32, Kind.UINT64})
FLOATS = frozenset({Kind.FLOAT32, Kind.FLOAT64})
# Their texts have digits, signs and letters only.
_PLAIN = frozenset({Kind.DECIMAL, Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.UUID})
_TRUE, _FALSE = pa.scalar("true", LARGE), pa.scalar("false", LARGE)
_MINUS_ZERO = pa.scalar("-0.0", LARGE)
_NUMBER = r"^-?[0-9]"
_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype=np.uint16)


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


def canonical(array: pa.Array) -> pa.Array:
    """The canonical text of each value (see `cdc.model.arrays.texts`), as a large string."""
    kind = array.type
    if kind == TEXT or pa.types.is_integer(kind) or pa.types.is_date32(kind) or pa.types.is_boolean(kind):
        return array.cast(LARGE)
    if pa.types.is_floating(kind):
        text = array.cast(LARGE)
        return pc.replace_substring_regex(text, r"\.0$", "")
    if pa.types.is_timestamp(kind):
        # Arrow writes six digits of a second; canonical texts end with the last that is not zero.
        text = array.cast(pa.timestamp("us")).cast(LARGE)
        text = pc.utf8_rtrim(pc.utf8_rtrim(text, "0"), ".")
        return joined(text, "+00") if kind.tz else text
    if pa.types.is_binary(kind) or kind in (pa.binary_view(), pa.large_binary()):
        return joined("\\x", _hexadecimal(array.cast(pa.large_binary())))
    return pa.array(texts(array), LARGE)


def _hexadecimal(array: pa.Array) -> pa.Array:
    """Two digits for each byte."""
    bitmap, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    content = np.frombuffer(data, dtype=np.uint8) if data is not None else np.empty(0, dtype=np.uint8)
    digits = _HEX[content[bounds[0] : bounds[-1]]] if len(bounds) else np.empty(0, dtype=np.uint16)
    moved = pa.py_buffer((bounds - bounds[0]) * 2) if len(bounds) else pa.py_buffer(np.zeros(1, dtype=np.int64))
    valid = array.is_valid() if bitmap is not None else None
    made = pa.Array.from_buffers(LARGE, len(array), [None, moved, pa.py_buffer(digits)])
    return made if valid is None else pc.if_else(valid, made, pa.scalar(None, LARGE))
