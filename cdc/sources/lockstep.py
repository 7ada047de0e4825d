"""Primitives to read many values of one shape at once out of one buffer: gather with NumPy, answer with Arrow views.

A decoder keeps one cursor per row and steps all of them forward together, so that no Python code runs per value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

INLINE = 12  # an Arrow view holds up to 12 bytes in itself; longer values point into a buffer
_HEAD = f"V{INLINE}"
# For each length that fits inside, ones over the bytes of a view that count and zeros over the rest, in two halves.
_FIRST, _SECOND = (
    np.array([(1 << 8 * min(max(4 + length - before, 0), 8)) - 1 for length in range(INLINE + 1)], dtype=np.uint64)
    for before in (0, 8)
)
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
    words[:, 1:] = buffer.at(_HEAD)[start].view(np.uint32).reshape(-1, 3)
    halves = words.view(np.uint64)
    return views_of(halves[:, 0], halves[:, 1], start, length)


def views_of(first: np.ndarray, second: np.ndarray, start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The same from the halves of structs (uint64[n] each) in which all but the length is in place already, with
    whatever stands behind a value that is shorter."""
    halves = np.empty((len(start), 2), dtype=np.uint64)
    inside = np.minimum(length, INLINE)
    np.bitwise_and(first, _FIRST[inside], out=halves[:, 0])
    np.bitwise_and(second, _SECOND[inside], out=halves[:, 1])
    halves.view(np.uint32)[:, 0] = length
    long = np.flatnonzero(length > INLINE)
    halves[long, 1] = start[long] << 32  # every value lives in buffer 0
    return halves.view(np.uint8)


def string_array(buffer: Buffer, views: np.ndarray, valid: np.ndarray) -> pa.Array:
    """An Arrow `string_view` array over `buffer` from structs uint8[n, 16] and a mask bool[n] of what is not null."""
    bitmap = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(pa.string_view(), len(views), [bitmap, pa.py_buffer(views), buffer.payload])


def binary_array(buffer: Buffer, views: np.ndarray, valid: np.ndarray) -> pa.Array:
    """The same as `binary_view`: bytes that are no text."""
    bitmap = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(pa.binary_view(), len(views), [bitmap, pa.py_buffer(views), buffer.payload])
