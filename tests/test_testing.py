"""The target, the source and the faults that `cdc.testing` offers, and what they say about a pipeline."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.engine.handoff import Handoff
from cdc.engine.pipeline import Pipeline
from cdc.errors import InvariantError, OperatorNeeded, TargetDrift, Unavailable
from cdc.model.change import Op, Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.segment import Changes, Evolve, Reset, Segment, Truncate
from cdc.targets.duckdb.target import DuckDbTarget
from cdc.testing import Fault, FaultyTarget, MemoryTarget, ScriptedSource
from tests.model.batches import UNCHANGED, Row, batch, table

SCHEMA = table(2, (0,))
Change = tuple[int, Op, Row | None, Row | None]  # commit, what, old, new


def at(order: int) -> Checkpoint:
    return Checkpoint(Position(order, str(order)), "{}")


def segment(changes: list[Change], end: int | None) -> Segment:
    """Changes of the one table, up to a checkpoint; ordinals count within each commit."""
    orders = sorted({order for order, *_ in changes})
    made = batch(SCHEMA, [(op, old, new) for _, op, old, new in changes])
    made.transaction[:] = [orders.index(order) for order, *_ in changes]
    for index, (order, *_) in enumerate(changes):
        made.ordinal[index] = sum(other == order for other, *_ in changes[:index])
    numbers = np.array(orders, dtype=np.int64)
    return Segment(
        [Changes(made)], Transactions(numbers, numbers, numbers, str), at(end) if end is not None else None, 1
    )


COPY = Segment([Reset(SCHEMA)], Transactions.none(), at(10))


def insert(order: int, key: str, value: str) -> Change:
    return order, Op.INSERT, None, (key, value)


def update(order: int, key: str, value: object, was: str | None = None) -> Change:
    return order, Op.UPDATE, (was, None) if was is not None else None, (key, value)


def delete(order: int, key: str) -> Change:
    return order, Op.DELETE, (key, None), None


HISTORY: list[Change] = [
    insert(20, "1", "a"), insert(20, "2", "b"),
    update(30, "1", "c"),
    update(40, "3", UNCHANGED, was="2"), insert(40, "2", "d"),
    delete(50, "1"),
    update(60, "9", UNCHANGED, was="2"), update(60, "2", UNCHANGED, was="3"), update(60, "3", "e", was="9"),
    insert(70, "1", "f"),
]  # fmt: skip
COMMITS = sorted({order for order, *_ in HISTORY})
END = [{"c0": "1", "c1": "f"}, {"c0": "2", "c1": "b"}, {"c0": "3", "c1": "e"}]


def cut(cuts: list[int]) -> list[Segment]:
    """The history in segments that end after some of the commits."""
    ends = [*(COMMITS[index] for index in cuts), COMMITS[-1]]
    begins = [0, *ends[:-1]]
    return [
        segment([change for change in HISTORY if begin < change[0] <= end], end + 5)
        for begin, end in zip(begins, ends, strict=True)
    ]


cuts = st.sets(st.integers(0, len(COMMITS) - 2)).map(sorted)


@given(cuts, cuts, st.data())
def test_segments_may_come_again_however_they_are_cut(first: list[int], again: list[int], data: st.DataObject) -> None:
    """D-05: the same, partially overlapping, and with other borders; nothing changes and nothing comes twice."""
    target = MemoryTarget()
    target.apply(COPY)
    segments = cut(first)
    for one in segments[: data.draw(st.integers(0, len(segments)))]:
        target.apply(one)
    for one in cut(again):
        target.apply(one)
    assert target.rows("s.t") == END
    assert [change[:2] for change in target.changes] == sorted({change[:2] for change in target.changes})
    assert len(target.changes) == len(HISTORY)


@pytest.mark.parametrize("seed", range(3))
def test_the_real_target_does_the_same(seed: int, tmp_path: Path) -> None:
    """D-05, D-14: segments that overlap, errors after the write, both targets opened afresh after each."""
    rng = random.Random(seed)
    target, memory = DuckDbTarget(tmp_path / "t.duckdb", 128 << 20), MemoryTarget()
    for _ in range(4):
        checkpoint = target.open()
        assert checkpoint == memory.open()
        segments = cut(sorted(rng.sample(range(len(COMMITS) - 1), rng.randint(0, 4))))
        for one in [COPY] * (checkpoint is None) + segments[: rng.randint(1, len(segments))]:
            target.apply(one)
            memory.apply(one)
            found = target._file.connection.execute("SELECT c0, c1 FROM s.t ORDER BY 1").fetchall()
            assert found == [tuple(row.values()) for row in memory.rows("s.t")]
        target.close()


def run(source: ScriptedSource, target: MemoryTarget, *faults: Fault | None, error: Callable[[], Exception]) -> None:
    """A pipeline in which the target fails on purpose."""
    planned: Iterator[Fault | None] = iter(faults)
    pipeline = Pipeline(lambda: source, lambda: FaultyTarget(target, planned, delay=0.01, error=error), queue_bytes=10)
    pipeline._sleep = lambda _: None  # type: ignore[method-assign]
    pipeline.run()


@settings(max_examples=25)
@given(cuts, st.lists(st.sampled_from([None, *Fault]), max_size=8), st.integers(0, 2), st.integers(0, 5))
def test_a_pipeline_gets_there_through_every_fault(
    where: list[int], faults: list[Fault | None], overlap: int, lost: int
) -> None:
    """A-05, D-05, D-14: on real threads; the source reads no more as durable than the target has."""
    script: list[Segment | Exception] = list(cut(where))
    script.insert(lost % (len(script) + 1), Unavailable("the connection was lost"))
    source = ScriptedSource(script, copied=[COPY], overlap=overlap)
    target = MemoryTarget()
    run(source, target, *faults, error=lambda: Unavailable("on purpose"))
    assert target.rows("s.t") == END
    assert len(target.changes) == len(HISTORY)
    assert target.checkpoint is not None
    assert all(position <= target.checkpoint.position for position in source.acknowledged)
    assert source.acknowledged[-1] == target.checkpoint.position


def test_what_the_target_cannot_take_stops_everything() -> None:
    """D-15: nothing is passed over, and the checkpoint stays before it; once the target can, all of it comes."""
    source, target = ScriptedSource(cut([0, 1, 2, 3, 4]), copied=[COPY]), MemoryTarget()
    with pytest.raises(OperatorNeeded):
        run(source, target, None, None, Fault.REJECT, error=lambda: TargetDrift("s.t is not as it was"))
    assert target.checkpoint == at(25)
    assert source.acknowledged[-1] <= at(25).position
    run(source, target, error=lambda: TargetDrift("never"))
    assert target.rows("s.t") == END


def test_nothing_of_a_part_is_seen() -> None:
    """A-63, A-64: a transaction that comes in parts is there with its last one, or not at all."""
    target = MemoryTarget()
    target.apply(COPY)
    target.apply(segment([insert(20, "1", "a")], None))
    assert (target.rows("s.t"), target.changes, target.checkpoint) == ([], [], at(10))
    target.open()
    target.apply(segment([insert(20, "1", "a")], None))
    target.apply(segment([insert(20, "2", "b")], 25))
    assert [row["c0"] for row in target.rows("s.t")] == ["1", "2"]


def test_barriers() -> None:
    """A-43, A-47, A-48, D-25: what a truncate and a change of shape mean, in their place."""
    target = MemoryTarget()
    target.apply(COPY)
    wider = table(3, (0,))
    first, second = segment([insert(20, "1", "a")], 25), segment([insert(30, "2", "b")], 35)
    target.apply(first)
    steps = [Truncate(SCHEMA, 0, 0), *second.steps, Evolve(SCHEMA, wider, 0, {3: "filled"})]
    target.apply(Segment(steps, second.transactions, at(35)))
    assert target.rows("s.t") == [{"c0": "2", "c1": "b", "c2": "filled"}]
    target.apply(first)
    assert target.rows("s.t") == [{"c0": "2", "c1": "b", "c2": "filled"}]
    with pytest.raises(InvariantError, match="another shape"):
        target.apply(segment([insert(40, "3", "c")], 45))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ([update(20, "7", "x")], TargetDrift),
        ([delete(20, "7")], TargetDrift),
        ([(20, Op.INSERT, None, ("1", UNCHANGED))], InvariantError),
        ([insert(20, "1", "a"), insert(20, "1", "b")], InvariantError),
    ],
)
def test_what_cannot_be_is_refused(changes: list[Change], error: type[Exception]) -> None:
    """A-42: a change of a row that is not there, a row that is not whole, two rows of one key."""
    target = MemoryTarget()
    target.apply(COPY)
    with pytest.raises(error):
        target.apply(segment(changes, 25))
    target.open()
    assert target.rows("s.t") == []
    assert target.checkpoint == at(10)


def test_how_late_a_target_is() -> None:
    """E-02: the age of the oldest commit that is not durable, parts of a transaction included; 0 with nothing left."""
    handoff = Handoff(100)
    assert handoff.oldest is None
    part, end, later = segment([insert(20, "1", "a")], None), segment([insert(20, "2", "b")], 25), cut([])[0]
    for one in (COPY, part, end, later):
        handoff.put(one)
    seen = [handoff.oldest]
    for _ in range(4):
        taken = handoff.take()
        assert taken is not None
        handoff.applied(taken)
        seen.append(handoff.oldest)
    assert seen == [20, 20, 20, 20, None]
