"""Values as canonical texts (see `cdc.model.schema.Kind`), a column at a time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc.model.arrays import LARGE, TEXT, texts

_UTC, _PREFIX, _NOTHING = (pa.scalar(text, LARGE) for text in ("+00", "\\x", ""))
_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype=np.uint16)


def canonical(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The canonical text of each value (see `cdc.model.arrays.texts`), as a large string."""
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
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
        return pc.binary_join_element_wise(text, _UTC, _NOTHING) if kind.tz else text
    if pa.types.is_binary(kind) or kind in (pa.binary_view(), pa.large_binary()):
        return pc.binary_join_element_wise(_PREFIX, _hexadecimal(array.cast(pa.large_binary())), _NOTHING)
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
