"""GTID sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymysqlreplication.gtid import GtidSet

from cdc.errors import DecodeError
from cdc.sources.mysql.gtid import Gtid, MariaDbGtids, MySqlGtids

UUIDS = ["3e11fa47-71ca-11e1-9e33-c80aa9429562", "00000000-0000-0000-0000-000000000001"]
pairs = st.lists(st.tuples(st.sampled_from(UUIDS), st.integers(1, 40)), max_size=60)


def gathered(members: list[tuple[str, int]]) -> MySqlGtids:
    gtids = MySqlGtids()
    for uuid, number in members:
        gtids.add(Gtid((uuid, ""), number))
    return gtids


@given(pairs, pairs)
def test_sets_are_sets(one: list[tuple[str, int]], other: list[tuple[str, int]]) -> None:
    """B-06: text, union and difference against Python's own sets."""
    ours, theirs = gathered(one), gathered(other)
    assert MySqlGtids.parse(str(ours)) == ours
    assert ours.without(theirs) == gathered(sorted(set(one) - set(other)))
    assert bool(ours.without(ours)) is False


@given(pairs)
def test_encoding_is_the_library_s(members: list[tuple[str, int]]) -> None:
    """B-06, B-07: what a dump is asked for with."""
    text = str(gathered(members))
    if text:
        assert sorted(gathered(members).encode()) == sorted(GtidSet(text).encode())


def test_tags_and_gaps() -> None:
    """B-06: tags stand before the intervals that they are of; case and blanks do not matter."""
    text = "3E11FA47-71CA-11E1-9E33-C80AA9429562:1-3:8-10:Tag_1:1:5-7,\n 00000000-0000-0000-0000-000000000001:4"
    gtids = MySqlGtids.parse(text)
    assert str(gtids) == f"{UUIDS[1]}:4,{UUIDS[0]}:1-3:8-10:tag_1:1:5-7"
    assert (
        str(gtids.without(MySqlGtids.parse(f"{UUIDS[0]}:2-9:tag_1:6"))) == f"{UUIDS[1]}:4,{UUIDS[0]}:1:10:tag_1:1:5:7"
    )


@pytest.mark.parametrize("text", ["x", "x:1", f"{UUIDS[0]}:a-b", f"{UUIDS[0]}:1-", "0-1"])
def test_nonsense(text: str) -> None:
    with pytest.raises(DecodeError):
        MySqlGtids.parse(text)


def test_mariadb() -> None:
    """B-05, B-06: one place per domain."""
    gtids = MariaDbGtids.parse("1-2-3,0-1-5")
    gtids.add(Gtid((0, 7), 6))
    assert str(gtids) == "0-7-6,1-2-3"
    assert MariaDbGtids.parse(str(gtids)) == gtids
    with pytest.raises(DecodeError):
        MariaDbGtids.parse("0-1")
