"""The changes of several batches of one table as one, and small numbers for the keys that they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cdc.model.arrays import TEXT, take, unified
from cdc.model.change import ABSENT, ChangeBatch, Rows
from cdc.model.schema import TableSchema


@dataclass(slots=True)
class Gathered:
    """The changes of all batches as one, rows of `after` and `before` numbered through.

    Attributes:
        transaction: int32[n], index into the segment's transactions.
        ordinal: int64[n], place in the transaction.
    """

    schema: TableSchema
    op: np.ndarray
    transaction: np.ndarray
    ordinal: np.ndarray
    after: list[pa.Array]
    unchanged: list[np.ndarray | None]
    after_row: np.ndarray
    before: list[pa.Array]
    before_row: np.ndarray


def gather(batches: Sequence[ChangeBatch]) -> Gathered:
    """The changes of some batches, in their order."""
    schema = batches[0].schema
    width = len(schema.columns)
    after_row, before_row = [], []
    after_count = before_count = 0
    for batch in batches:
        after_row.append(np.where(batch.after_row == ABSENT, ABSENT, batch.after_row + after_count))
        before_row.append(np.where(batch.before_row == ABSENT, ABSENT, batch.before_row + before_count))
        after_count += len(batch.after) if batch.after is not None else 0
        before_count += len(batch.before) if batch.before is not None else 0
    after = [batch.after for batch in batches if batch.after is not None]
    before = [batch.before for batch in batches if batch.before is not None]
    return Gathered(
        schema=schema,
        op=np.concatenate([batch.op for batch in batches]),
        transaction=np.concatenate([batch.transaction for batch in batches]),
        ordinal=np.concatenate([batch.ordinal for batch in batches]),
        after=[_column(after, index) for index in range(width)],
        unchanged=[_mask(after, index) for index in range(width)],
        after_row=np.concatenate(after_row),
        before=[_column(before, index) for index in range(width)],
        before_row=np.concatenate(before_row),
    )


def _column(rows: Sequence[Rows], index: int) -> pa.Array:
    return pa.concat_arrays(unified([part.columns[index] for part in rows])) if rows else pa.array([], TEXT)


def _mask(rows: Sequence[Rows], index: int) -> np.ndarray | None:
    if all(part.unchanged[index] is None for part in rows):
        return None
    return np.concatenate(
        [mask if (mask := part.unchanged[index]) is not None else np.zeros(len(part), dtype=bool) for part in rows]
    )


def key_codes(changes: Gathered, key: Sequence[int]) -> tuple[np.ndarray, np.ndarray, list[pa.Array]]:
    """Small integers for the keys before and after each change, and the key columns by those integers.

    Args:
        key: the columns of it.
    """
    has_old, has_new = changes.before_row != ABSENT, changes.after_row != ABSENT
    was, becomes = changes.before_row[has_old], changes.after_row[has_new]
    columns = [
        pa.concat_arrays(unified([take(changes.before[index], was), take(changes.after[index], becomes)]))
        for index in key
    ]
    numbers, first = codes(columns)
    old, new = np.empty((2, len(changes.op)), dtype=np.int64)
    old[has_old], new[has_new] = numbers[: len(was)], numbers[len(was) :]
    return (
        np.where(has_old, old, new),
        np.where(has_new, new, old),
        [take(column, first) for column in columns],
    )


def codes(columns: Sequence[pa.Array]) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct rows of some columns in the order in which they come: int64[n] the number of each row, and
    int64[m] the first row of each number."""
    numbers, _ = _codes(columns[0])
    for column in columns[1:]:
        step, most = _codes(column)
        numbers, _ = _codes(pa.array(numbers * most + step))
    return numbers, np.flatnonzero(np.diff(np.maximum.accumulate(numbers), prepend=-1))


def _codes(column: pa.Array) -> tuple[np.ndarray, int]:
    """Number the distinct values of a column, null among them, as they come; int64[n], and how many there are."""
    encoded = column.dictionary_encode(null_encoding="encode")
    return np.asarray(encoded.indices, dtype=np.int64), len(encoded.dictionary)
