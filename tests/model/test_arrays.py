"""Gathering string views."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from cdc.model.arrays import take

texts = st.lists(st.one_of(st.none(), st.text(max_size=30)), max_size=20)


@given(texts, texts, st.data())
def test_take_is_indexing(first: list[str | None], second: list[str | None], data: st.DataObject) -> None:
    array = pa.concat_arrays([pa.array(first, pa.string_view()), pa.array(second, pa.string_view())])
    start = data.draw(st.integers(0, len(array)))
    sliced = array.slice(start)
    rows = data.draw(st.lists(st.integers(-1, len(sliced) - 1)))
    taken = take(sliced, np.array(rows, dtype=np.int64))
    taken.validate(full=True)
    expected = sliced.to_pylist()
    assert taken.to_pylist() == [expected[row] if row >= 0 else None for row in rows]
