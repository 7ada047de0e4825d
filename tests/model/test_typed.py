"""Tables for programs: a column has one type in all of a segment, which holds every value exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from cdc.api import SegmentView
from cdc.model.change import Op, Transactions
from cdc.model.schema import Column, Kind, LogicalType
from cdc.model.segment import Changes, Evolve, Segment, Truncate
from tests.model.batches import batch, table

ORDERS = np.array([7], dtype=np.int64)
TRANSACTIONS = Transactions(ORDERS, ORDERS, ORDERS, str)


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        (LogicalType(Kind.DECIMAL, 10, 2), "NaN", "2.50"),
        (LogicalType(Kind.DECIMAL, 10, 2), "2.50", "NaN"),
        (LogicalType(Kind.DATE), "infinity", "2026-01-31"),
        (LogicalType(Kind.TIMESTAMP), "2026-01-31 12:00:00.5", "-infinity"),
        (LogicalType(Kind.TIMESTAMPTZ), "infinity", "2026-01-31 12:00:00+00"),
    ],
)
def test_a_value_that_the_type_has_no_place_for(kind: LogicalType, first: str, second: str) -> None:
    """H16: before or after a TRUNCATE; the others in the segment are the source's text as well."""
    schema = table(2, (0,))
    schema = replace(schema, columns=(schema.columns[0], replace(schema.columns[1], type=kind)))
    rows = [Changes(batch(schema, [(Op.INSERT, None, (key, value))])) for key, value in (("1", first), ("2", second))]
    made = SegmentView(Segment([rows[0], Truncate(schema, 0, 1), rows[1]], TRANSACTIONS, None)).tables()["s.t"]
    assert made.schema.field("c1").type == pa.string()
    assert made["c1"].to_pylist() == [first, second]


@pytest.mark.parametrize(
    ("was", "will_be", "values", "expected"),
    [
        (Kind.INT32, Kind.INT64, ["1", "5000000000"], [1, 5_000_000_000]),
        (Kind.INT32, Kind.TEXT, ["1", "one"], ["1", "one"]),
        (Kind.INT64, Kind.FLOAT64, ["9007199254740993", "0.5"], ["9007199254740993", "0.5"]),
        (Kind.DATE, Kind.TIMESTAMP, ["2026-01-31", "2026-01-31 12:00:00"], ["2026-01-31", "2026-01-31 12:00:00"]),
    ],
)
def test_a_column_that_gets_another_type(was: Kind, will_be: Kind, values: list[str], expected: list[object]) -> None:
    """H16: both shapes' values are in one column, which rounds none of them; a column that came is null before."""
    old = replace(table(1, ()), columns=(Column("c", "x", LogicalType(was), 1),))
    new = replace(
        old, columns=(Column("c", "x", LogicalType(will_be), 1), Column("d", "text", LogicalType(Kind.TEXT), 2))
    )
    steps = [
        Changes(batch(old, [(Op.INSERT, None, (values[0],))])),
        Evolve(old, new, 0),
        Changes(batch(new, [(Op.INSERT, None, (values[1], "there"))])),
    ]
    made = SegmentView(Segment(steps, TRANSACTIONS, None)).tables()["s.t"]
    assert made["c"].to_pylist() == expected
    assert made["d"].to_pylist() == [None, "there"]
