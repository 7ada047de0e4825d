"""Numbering the distinct rows of some columns."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from cdc.model.gathered import codes

few = st.one_of(st.none(), st.sampled_from(["", "a", "b", "a text that is too long for a view"]))


@given(st.lists(st.tuples(few, few, st.one_of(st.none(), st.integers(0, 2))), max_size=30))
def test_rows_are_numbered_as_they_come(rows: list[tuple[str | None, str | None, int | None]]) -> None:
    kinds = (pa.string_view(), pa.string_view(), pa.int64())
    columns = [pa.array([row[index] for row in rows], kind) for index, kind in enumerate(kinds)]
    numbers, first = codes(columns)
    distinct = list(dict.fromkeys(rows))
    assert numbers.tolist() == [distinct.index(row) for row in rows]
    assert first.tolist() == [rows.index(row) for row in distinct]
