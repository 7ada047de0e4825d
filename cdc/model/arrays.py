"""Gathering rows of Arrow string views, for which Arrow itself has no kernel yet."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

_STRUCT = np.dtype("V16")  # a view: length, then the value itself or its prefix and its place in a data buffer


def take(array: pa.Array, rows: np.ndarray) -> pa.Array:
    """The values of a `string_view` array at `rows` (int64[n]); a negative row gives null. No value is copied."""
    valid = rows >= 0
    if not valid.any():
        return pa.nulls(len(rows), pa.string_view())
    bitmap, structs, *data = array.buffers()
    end = array.offset + len(array)
    taken = np.frombuffer(structs, dtype=_STRUCT, count=end)[array.offset :][rows]
    if bitmap is not None:
        bits = np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8), count=end, bitorder="little")
        valid &= bits[array.offset :][rows].view(bool)
    if valid.all():
        return pa.Array.from_buffers(pa.string_view(), len(rows), [None, pa.py_buffer(taken), *data])
    taken[~valid] = np.void(bytes(_STRUCT.itemsize))
    mask = pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(pa.string_view(), len(rows), [mask, pa.py_buffer(taken), *data])
