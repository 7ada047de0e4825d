"""Arrow rows as ClickHouse takes them: in blocks, each of which is there as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

from cdc.tables.versioned.store import COPIED, ORDER, ORDINAL

_BYTES = 64 << 20  # of one insert
_ROWS = 1_000_000  # of which the server makes one block, up to 1,048,449 (min_insert_block_size_rows)


def blocks(rows: pa.Table, begins: np.ndarray | None) -> Iterator[pa.Table]:
    """Rows in pieces, each of which is one block and becomes a part by itself.

    Args:
        begins: int64[k], the rows with which a piece may begin; None for all of them.
    """
    rows = pa.table({name: _sendable(rows.column(name)) for name in rows.column_names})
    size = max(1, min(_ROWS, len(rows) * _BYTES // max(rows.nbytes, _BYTES)))
    allowed = np.append(np.arange(len(rows)) if begins is None else begins, len(rows))
    for begin, end in pairwise(_cuts(allowed, size)):
        yield rows.slice(begin, end - begin).combine_chunks()


def begins_of_places(rows: pa.Table) -> np.ndarray:
    """int64[k]: the rows that are not of the same place in the log as the row before. What one place appends belongs
    together (a key that moves is a deleted row and a row): where half of it was there, `reached` would take it for all.
    A copy is of one place, and begins again if it was cut."""
    order, ordinal = _places(rows)
    is_begin = np.ones(len(order), dtype=bool)
    is_begin[1:] = (order[1:] != order[:-1]) | (ordinal[1:] != ordinal[:-1]) | (ordinal[1:] >= COPIED)
    return np.flatnonzero(is_begin)


def versions_of(rows: pa.Table) -> pa.Array:
    """ORDER and ORDINAL as UInt128, lowest byte first."""
    order, ordinal = _places(rows)
    both = np.empty((len(order), 2), dtype="<u8")
    both[:, 0], both[:, 1] = ordinal, order.astype(np.uint64)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(order), [None, pa.py_buffer(both.tobytes())])


def _places(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """int64[n] and uint64[n]: the ORDER and the ORDINAL of each row."""
    order, ordinal = rows.column(ORDER), rows.column(ORDINAL).cast(pa.uint64())
    return np.asarray(order, dtype=np.int64), np.asarray(ordinal, dtype=np.uint64)


def _cuts(allowed: np.ndarray, size: int) -> list[int]:
    """Borders of pieces of so many rows at most, or of as many as there are up to the next one that is allowed.

    Args:
        allowed: int64[k], borders, of which the last one is the number of all rows.
    """
    cuts = [0]
    while cuts[-1] < allowed[-1]:
        last = int(np.searchsorted(allowed, cuts[-1] + size, side="right")) - 1
        first = int(np.searchsorted(allowed, cuts[-1], side="right"))
        cuts.append(int(allowed[max(last, first)]))
    return cuts


def _sendable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """With 32-bit offsets, which every version of the server reads."""
    if column.type in (pa.large_string(), pa.string_view()):
        return column.cast(pa.large_string()).cast(pa.binary()) if column.nbytes < 1 << 30 else column
    return column
