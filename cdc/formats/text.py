"""Text by columns: JSON is put together from arrays of pieces, each step one kernel over all rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from cdc.model.arrays import LARGE

_SHORT = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r"}
_NOTHING = pa.scalar("", LARGE)

Piece: TypeAlias = pa.Array | str


def joined(*pieces: Piece) -> pa.Array:
    """Pieces one after the other, element by element; a text stands in every element. A null makes the whole null."""
    return pc.binary_join_element_wise(*(_operand(piece) for piece in _merged(pieces)), _NOTHING)


def listed(arrays: Sequence[pa.Array]) -> pa.Array:
    """Elements with commas between them; nulls are left out.

    Arrow can skip nulls itself, but then loses the rows in which there is nothing else.
    """
    members = [joined(",", array).fill_null("") for array in arrays]
    return pc.ascii_ltrim(joined(*members), ",")


def _operand(piece: Piece) -> pa.Array | pa.Scalar:
    return pa.scalar(piece, LARGE) if isinstance(piece, str) else piece


def _merged(pieces: Sequence[Piece]) -> list[Piece]:
    """Texts that follow each other are one: every piece costs a step for each row."""
    merged: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def constant(text: str, count: int) -> pa.Array:
    """The same text so many times."""
    return pa.repeat(pa.scalar(text, LARGE), count)


def numbers(values: np.ndarray) -> pa.Array:
    """Integers as text."""
    return pa.array(values).cast(LARGE)


def literal(value: object) -> str:
    """A constant as JSON."""
    return orjson.dumps(value).decode()


def pick(array: pa.Array, rows: np.ndarray) -> pa.Array:
    """The elements at `rows` (int64[n]); a negative one gives null."""
    if len(rows) == len(array) and np.array_equal(rows, np.arange(len(rows))):
        return array
    return array.take(pa.array(rows, mask=rows < 0))


def escaped(text: pa.Array) -> pa.Array:
    """Text as it stands between the quotes of a JSON string.

    What needs to be escaped is looked for in the bytes of all values at once, and is mostly not there.
    """
    data = _data(text)
    if (data == ord("\\")).any():
        text = pc.replace_substring(text, "\\", "\\\\")
    if (data == ord('"')).any():
        text = pc.replace_substring(text, '"', '\\"')
    if (data < ord(" ")).any():
        for code in np.unique(data[data < ord(" ")]).tolist():
            text = pc.replace_substring(text, chr(code), _SHORT.get(code, f"\\u{code:04x}"))
    return text


def _data(text: pa.Array) -> np.ndarray:
    """uint8[m]: the bytes of all values."""
    _, offsets, data = text.buffers()
    if data is None or not len(text):
        return np.empty(0, dtype=np.uint8)
    bounds = np.frombuffer(offsets, dtype=np.int64)
    first, last = bounds[text.offset], bounds[text.offset + len(text)]
    return np.frombuffer(data, dtype=np.uint8)[first:last]
