"""Change batches out of plain Python rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from cdc.model.change import ABSENT, ChangeBatch, Op, Rows
from cdc.model.schema import TableSchema

UNCHANGED = ...  # a value that the log leaves out, since the change did not touch it
Row = tuple[object, ...]  # canonical texts, None, UNCHANGED


def batch(schema: TableSchema, changes: Sequence[tuple[Op, Row | None, Row | None]]) -> ChangeBatch:
    """Changes as (op, before, after) in order."""
    before = [old for _, old, _ in changes if old is not None]
    after = [new for _, _, new in changes if new is not None]
    return ChangeBatch(
        schema=schema,
        op=np.array([op for op, _, _ in changes], dtype=np.uint8),
        transaction=np.zeros(len(changes), dtype=np.int32),
        ordinal=np.arange(len(changes), dtype=np.int64),
        after=_rows(schema, after),
        after_row=_places([new for _, _, new in changes]),
        before=_rows(schema, before),
        before_row=_places([old for _, old, _ in changes]),
    )


def _rows(schema: TableSchema, rows: list[Row]) -> Rows | None:
    if not rows:
        return None
    columns, masks = [], []
    for values in zip(*rows, strict=True):
        columns.append(pa.array([None if value is UNCHANGED else value for value in values], pa.string_view()))
        mask = np.array([value is UNCHANGED for value in values])
        masks.append(mask if mask.any() else None)
    return Rows(tuple(columns), tuple(masks))


def _places(rows: list[Row | None]) -> np.ndarray:
    places, number = [], 0
    for row in rows:
        places.append(ABSENT if row is None else number)
        number += row is not None
    return np.array(places, dtype=np.int64)
