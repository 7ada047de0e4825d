"""Gathering rows of Arrow string views, for which Arrow itself has no kernel yet."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def take(array: pa.Array, rows: np.ndarray) -> pa.Array:
    """The values of a `string_view` array at `rows` (int64[n]); a negative row gives null. No value is copied."""
    bitmap, structs, *data = array.buffers()
    if len(array) == 0:
        return pa.nulls(len(rows), pa.string_view())
    views = np.frombuffer(structs, dtype=np.uint8).reshape(-1, 16)[array.offset : array.offset + len(array)]
    valid = rows >= 0
    if bitmap is not None:
        bits = np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8), bitorder="little")
        valid &= bits[array.offset : array.offset + len(array)][rows].astype(bool)
    taken = views[rows]
    taken[~valid] = 0
    mask = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(pa.string_view(), len(rows), [mask, pa.py_buffer(taken), *data])
