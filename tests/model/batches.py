"""Tables for change batches out of plain Python rows."""

from __future__ import annotations

from collections.abc import Sequence

from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.testing import UNCHANGED, Row, batch

__all__ = ["UNCHANGED", "Row", "batch", "table"]


def table(width: int, key: Sequence[int], *, full_before: bool = False) -> TableSchema:
    """A table of text columns."""
    columns = tuple(
        Column(f"c{i}", "text", LogicalType(Kind.TEXT), i + 1, key=key.index(i) if i in key else None)
        for i in range(width)
    )
    return TableSchema(TableName("s", "t"), 1, columns, full_before=full_before)
