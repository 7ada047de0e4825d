"""Arrays of values as they move through the pipeline: native ones, or `string_view` of canonical text.

Arrow has no kernel yet that gathers views.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from cdc.errors import DecodeError

TEXT = pa.string_view()
LARGE = pa.large_string()  # 64-bit offsets: all lines of a large segment are one array
_VIEWS = (pa.string_view(), pa.binary_view())


def take(array: pa.Array, rows: np.ndarray) -> pa.Array:
    """The values of an array at `rows` (int64[n]); a negative row gives null. No value of a view is copied."""
    if len(array) == 0:
        return pa.nulls(len(rows), array.type)
    if len(rows) == 0:
        return array.slice(0, 0)
    if array.type not in _VIEWS:
        return array.take(pa.array(rows, mask=rows < 0) if (rows < 0).any() else pa.array(rows))
    bitmap, structs, *data = array.buffers()
    views = np.frombuffer(structs, dtype=np.uint8).reshape(-1, 16)[array.offset : array.offset + len(array)]
    valid = rows >= 0
    if bitmap is not None:
        bits = np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8), bitorder="little")
        valid &= bits[array.offset : array.offset + len(array)][rows].astype(bool)
    taken = views.take(rows, axis=0)  # ten times as fast as an index, which copies byte by byte
    taken[~valid] = 0
    mask = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(array.type, len(rows), [mask, pa.py_buffer(taken), *data])


def unified(arrays: Sequence[pa.Array]) -> list[pa.Array]:
    """Arrays of one column in one form: native if all of them are, or else text. Empty ones follow the others."""
    kinds = {array.type for array in arrays if len(array)}
    if len(kinds) <= 1:
        kind = next(iter(kinds), arrays[0].type if arrays else TEXT)
        return [array if array.type == kind else pa.array([], kind) for array in arrays]
    if all(array.null_count == len(array) for array in arrays if array.type == TEXT) and len(kinds) == 2:
        kind = next(kind for kind in kinds if kind != TEXT)
        return [pa.nulls(len(array), kind) if array.type == TEXT else array for array in arrays]
    return [array if array.type == TEXT else pa.array(texts(array), TEXT) for array in arrays]


def texts(array: pa.Array) -> list[str | None]:
    """The canonical text of each value (see `cdc.model.schema.Kind`)."""
    if array.type == TEXT:
        try:
            found: list[str | None] = array.to_pylist()
        except UnicodeDecodeError:
            raise DecodeError("The source sent a text with bytes that are not UTF-8.") from None
        return found
    if pa.types.is_timestamp(array.type):
        return [_moment(micros, array.type.tz) for micros in array.cast(pa.int64()).to_pylist()]
    if pa.types.is_duration(array.type):
        return [_duration(micros) for micros in array.cast(pa.int64()).to_pylist()]
    if pa.types.is_floating(array.type):
        return [_float(value) for value in array.cast(pa.string()).to_pylist()]
    return [None if value is None else _plain(value) for value in array.to_pylist()]


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, list):
        return "{" + ",".join("NULL" if item is None else _plain(item) for item in value) + "}"
    return str(value)


def _float(text: str | None) -> str | None:
    """Arrow writes the shortest digits that read back, and 1.0 for 1."""
    return text.removesuffix(".0") if text is not None else None


def _fraction(micros: int) -> str:
    return f".{micros:06d}".rstrip("0") if micros else ""


def _moment(micros: int | None, zone: str | None) -> str | None:
    if micros is None:
        return None
    seconds, rest = divmod(micros, 1_000_000)
    text = str(np.datetime64(seconds, "s")).replace("T", " ")
    return f"{text}{_fraction(rest)}{'+00' if zone else ''}"


def _duration(micros: int | None) -> str | None:
    if micros is None:
        return None
    whole = timedelta(microseconds=abs(micros))
    seconds = whole.days * 86400 + whole.seconds
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{_fraction(whole.microseconds)}"
    return f"-{clock}" if micros < 0 else clock
