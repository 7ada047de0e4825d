"""What a copy hands over at once: every row, in whole row groups where a table has so many."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from cdc.model.arrays import take, texts
from cdc.model.change import ChangeBatch, Op
from cdc.model.schema import TableSchema
from cdc.sources import gathering
from cdc.sources.gathering import Gathered
from tests.model.batches import batch, table

FULL = 10
COPIED = st.lists(st.tuples(st.sampled_from([1, 2]), st.integers(1, 3 * FULL)), max_size=12)
BUDGETS = st.sampled_from([1, 1000, 1 << 40])


def schema(identity: int) -> TableSchema:
    return replace(table(1, (0,)), identity=identity)


def copied(identity: int, first: int, count: int) -> ChangeBatch:
    return batch(schema(identity), [(Op.INSERT, None, (str(first + number),)) for number in range(count)])


def rows(part: ChangeBatch) -> list[str | None]:
    assert part.after is not None
    column: pa.Array = part.after.columns[0]
    return texts(take(column, part.after_row))


@given(COPIED, BUDGETS)
def test_every_row_is_handed_over_once_and_in_order(given: list[tuple[int, int]], budget: int) -> None:
    """A segment has at most a row group of a table, and less only for another reason; a table ends with its rows."""
    gathered = Gathered(2, budget, lambda: 0.0)
    added: dict[int, list[str | None]] = {1: [], 2: []}
    taken: dict[int, list[str | None]] = {1: [], 2: []}
    ended: list[int] = []

    def hand_over() -> None:
        changes, size, ends = gathered.take()
        counts = {1: 0, 2: 0}
        for change in changes:
            taken[change.batch.schema.identity] += rows(change.batch)
            counts[change.batch.schema.identity] += len(change.batch)
        assert max(counts.values()) <= FULL
        assert max(counts.values()) == FULL or size >= budget or ends
        ended.extend(ends)

    with patch.object(gathering, "FULL", FULL):
        for identity, count in given:
            one = copied(identity, len(added[identity]), count)
            added[identity] += rows(one)
            gathered.add(one)
            while gathered.is_due:
                assert not ended
                hand_over()
        gathered.end(1)
        gathered.end(2)
        hand_over()
    assert not gathered
    assert taken == added
    assert ended == [1, 2]


def test_the_parts_of_a_batch_have_its_size() -> None:
    with patch.object(gathering, "FULL", FULL):
        one = replace(copied(1, 0, 25), size=1003)
        gathered = Gathered(1, 1 << 40, lambda: 0.0)
        gathered.add(one)
        sizes = []
        while gathered:
            changes, _, _ = gathered.take()
            sizes += [change.batch.size for change in changes]
    assert sum(sizes) == one.size
