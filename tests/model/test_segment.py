"""Segments are split and joined without a word lost, or one that is said of another transaction."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cdc.model.change import ABSENT, events
from cdc.model.segment import Changes, Drop, Evolve, Gap, Note, Reset, Segment, Truncate, join, split
from tests.journal.segments import segments


def content(segment: Segment) -> Counter[Any]:
    """What each transaction says; and what belongs to no transaction."""
    said: Counter[Any] = Counter()
    for step in segment.steps:
        if isinstance(step, Changes):
            said.update(repr(event) for event in events(step.batch, segment.transactions))
        elif isinstance(step, Truncate | Evolve | Note | Reset | Gap | Drop) and step.transaction != ABSENT:
            said[repr((segment.transactions[step.transaction], replace(step, transaction=0)))] += 1
        else:
            said[repr(step)] += 1
    return said


@given(segments().filter(lambda segment: len(segment.transactions) > 0), st.data())
def test_what_is_split_is_joined(whole: Segment, data: st.DataObject) -> None:
    first, rest = split(whole, data.draw(st.integers(1, len(whole.transactions))))
    again = join([first, rest])
    assert again.checkpoint == whole.checkpoint
    assert again.transactions.order.tolist() == whole.transactions.order.tolist()
    assert content(again) == content(whole)


@given(segments(), segments(1000))
def test_joined_segments_say_the_same(one: Segment, other: Segment) -> None:
    both = join([one, other])
    assert content(both) == content(one) + content(other)
    assert both.checkpoint == other.checkpoint
