"""Primitives to read many values of one shape at once out of one buffer: gather with NumPy, answer with Arrow views.

A decoder keeps one cursor per row and steps all of them forward together, so that no Python code runs per value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

INLINE = 12  # an Arrow view holds up to 12 bytes in itself; longer values point into a buffer
_HEAD = f"V{INLINE}"
# For each length that fits inside, ones over its bytes and zeros over the rest.
_INSIDE = np.array([[255] * length + [0] * (INLINE - length) for length in range(INLINE + 1)], dtype=np.uint8).view(
    _HEAD
)[:, 0]
PADDING = bytes(32)  # so that gathers of a fixed width near the end stay inside


class Buffer:
    """Bytes that many values are read from, with array access at arbitrary (unaligned) offsets."""

    def __init__(self, pieces: Sequence[bytes | memoryview]) -> None:
        self.data = b"".join([*pieces, PADDING])
        self.size = len(self.data) - len(PADDING)
        self.bytes = np.frombuffer(self.data, dtype=np.uint8)
        self.payload = pa.py_buffer(self.data)
        self._overlapping: dict[str, np.ndarray] = {}

    def at(self, layout: str) -> np.ndarray:
        """What stands at each offset, read as a value of a NumPy dtype: values overlap, and nothing is copied."""
        if layout not in self._overlapping:
            dtype = np.dtype(layout)
            count = len(self.bytes) - dtype.itemsize + 1
            self._overlapping[layout] = np.ndarray((count,), dtype, self.bytes.data, strides=(1,))
        return self._overlapping[layout]

    def uint16(self, offsets: np.ndarray) -> np.ndarray:
        """int64[n]: big-endian unsigned 16-bit integers at `offsets`."""
        values: np.ndarray = self.at(">u2")[offsets].astype(np.int64)
        return values

    def uint32(self, offsets: np.ndarray) -> np.ndarray:
        """int64[n]: big-endian unsigned 32-bit integers at `offsets`."""
        values: np.ndarray = self.at(">u4")[offsets].astype(np.int64)
        return values

    def int64(self, offsets: np.ndarray) -> np.ndarray:
        """int64[n]: big-endian 64-bit integers at `offsets`."""
        values: np.ndarray = self.at(">i8")[offsets].astype(np.int64)
        return values

    def text(self, start: int, end: int) -> str:
        """The UTF-8 text between two offsets."""
        return self.bytes[start:end].tobytes().decode()


def string_views(buffer: Buffer, start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """uint8[n, 16]: Arrow view structs of the values at `start` (int64[n]) that are `length` (int64[n]) bytes long.

    A struct is the length, then either the bytes themselves or a 4-byte prefix, a buffer number and an offset:
    https://arrow.apache.org/docs/format/Columnar.html#variable-size-binary-view-layout
    """
    words = np.empty((len(start), 4), dtype=np.uint32)
    words[:, 0] = length
    head = buffer.at(_HEAD)[start].view(np.uint32).reshape(-1, 3)
    inside = _INSIDE[np.minimum(length, INLINE)].view(np.uint32).reshape(-1, 3)
    np.bitwise_and(head, inside, out=words[:, 1:])
    long = np.flatnonzero(length > INLINE)
    words[long, 2] = 0  # every value lives in buffer 0
    words[long, 3] = start[long]
    return words.view(np.uint8)


def string_array(buffer: Buffer, views: np.ndarray, valid: np.ndarray) -> pa.Array:
    """An Arrow `string_view` array over `buffer` from structs uint8[n, 16] and a mask bool[n] of what is not null."""
    bitmap = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(pa.string_view(), len(views), [bitmap, pa.py_buffer(views), buffer.payload])


def binary_array(buffer: Buffer, views: np.ndarray, valid: np.ndarray) -> pa.Array:
    """The same as `binary_view`: bytes that are no text."""
    bitmap = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(pa.binary_view(), len(views), [bitmap, pa.py_buffer(views), buffer.payload])
