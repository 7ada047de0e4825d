"""Which column is which, found from names, types and order, or not found; and what older rows hold in a new one."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.sources.postgres.catalog import Table
from cdc.sources.postgres.evolution import fill_values, match_columns, only_way
from cdc.sources.postgres.fingerprint import Fingerprint
from cdc.sources.postgres.pgoutput import Relation, RelationColumn
from cdc.sources.postgres.state import TableState
from cdc.sources.postgres.types import keeps_values

INT, BIG, TEXT, VARCHAR = 23, 20, 25, 1043
Shape = dict[int, tuple[str, int]]  # attnum -> name, type


def relation(columns: list[tuple[str, int]]) -> Relation:
    return Relation(1, "s", "t", "d", tuple(RelationColumn(name, kind, -1, False) for name, kind in columns))


def schema(shape: Shape) -> TableSchema:
    columns = tuple(Column(name, "", LogicalType(Kind.TEXT), attnum) for attnum, (name, _) in sorted(shape.items()))
    return TableSchema(TableName("s", "t"), 1, columns)


def matched(old: Shape, said: list[tuple[str, int]], today: Shape, dropped: tuple[int, ...] = ()) -> list[int] | None:
    in_order = lambda shape: relation([shape[attnum] for attnum in sorted(shape)])  # noqa: E731
    known = TableState(schema(old), in_order(old), 0, copied=True)
    return match_columns(known, relation(said), Table(schema(today), in_order(today), "r", 0), dropped)


def test_renames_drops_and_adds() -> None:
    """A-50: each distinguished from the others, by whatever of name, type and order settles it."""
    old = {1: ("id", INT), 2: ("a", TEXT), 3: ("b", INT)}
    assert matched(old, [("id", INT), ("a", TEXT), ("b", INT)], old) == [1, 2, 3]
    renamed = {1: ("id", INT), 2: ("x", TEXT), 3: ("b", INT)}
    assert matched(old, [("id", INT), ("x", TEXT), ("b", INT)], renamed) == [1, 2, 3]
    assert matched(old, [("id", INT), ("b", INT)], {1: ("id", INT), 3: ("b", INT)}) == [1, 3]
    added = {**old, 4: ("c", TEXT)}
    assert matched(old, [("id", INT), ("a", TEXT), ("b", INT), ("c", TEXT)], added) == [1, 2, 3, 4]
    swapped = {1: ("id", INT), 2: ("b", TEXT), 3: ("a", INT)}
    assert matched(old, [("id", INT), ("b", TEXT), ("a", INT)], swapped) == [1, 2, 3]


def test_the_log_may_be_behind_the_catalog() -> None:
    """A-47: what was renamed on the way has a name that neither side has any more; its place settles it."""
    old = {1: ("id", INT), 2: ("a", TEXT)}
    today = {1: ("id", INT), 2: ("z", TEXT), 3: ("n", INT)}
    assert matched(old, [("id", INT), ("a", TEXT)], today) == [1, 2]
    assert matched(old, [("id", INT), ("between", TEXT)], today) == [1, 2]
    assert matched(old, [("id", INT), ("z", TEXT), ("n", INT)], today) == [1, 2, 3]


def test_dropped_and_added_under_one_name() -> None:
    """A-50: another type tells the two apart; the same type does not, and is not guessed."""
    old = {1: ("id", INT), 2: ("a", TEXT)}
    assert matched(old, [("id", INT), ("a", INT)], {1: ("id", INT), 3: ("a", INT)}) == [1, 3]
    assert matched(old, [("id", INT), ("a", TEXT)], {1: ("id", INT), 3: ("a", TEXT)}) is None
    wide = {1: ("id", INT), 2: ("a", TEXT), 3: ("b", INT)}
    moved = {1: ("id", INT), 3: ("b", INT), 4: ("a", TEXT)}
    assert matched(wide, [("id", INT), ("a", TEXT), ("b", INT)], moved, (2,)) == [1, 2, 3]
    assert matched(wide, [("id", INT), ("b", INT), ("a", TEXT)], moved, (2,)) == [1, 3, 4]


def test_columns_that_come_and_go_before_they_are_seen() -> None:
    """P14: what was dropped is known by its number, the last one too; what both versions have was always there."""
    old = {1: ("id", INT), 2: ("a", TEXT)}
    assert matched(old, [("id", INT), ("a", TEXT), ("z", INT)], old, (3,)) == [1, 2, 3]
    assert matched(old, [("id", INT), ("a", TEXT), ("z", INT)], old, (3, 4)) is None
    assert matched(old, [("id", INT), ("a", TEXT), ("y", INT), ("z", INT)], old, (3, 4)) == [1, 2, 3, 4]
    assert matched(old, [("id", INT), ("x", TEXT)], old) == [1, 2], "it was renamed and back"
    renamed = {**old, 3: ("d", INT)}
    assert matched(old, [("id", INT), ("a", TEXT), ("c", INT)], renamed) == [1, 2, 3], "it came as c"
    taken = {1: ("id", INT), 3: ("b", TEXT)}
    assert matched({**old, 3: ("b", TEXT)}, [("id", INT), ("a", TEXT)], taken, (2,)) is None, "b was a for a while"


@given(
    st.lists(st.lists(st.integers(1, 8), min_size=1, max_size=4), max_size=5), st.sets(st.integers(1, 8), max_size=3)
)
def test_exactly_one_way_or_none(choices: list[list[int]], required: set[int]) -> None:
    """P14: as all ways written down tell."""
    ways = [
        list(way)
        for way in combinations(range(1, 9), len(choices))
        if required <= set(way) and all(c in o for c, o in zip(way, choices, strict=True))
    ]
    assert only_way([sorted(set(options)) for options in choices], required) == (ways[0] if len(ways) == 1 else None)


WAS = Fingerprint("7:70 8:80", 3, 1)


@pytest.mark.parametrize(
    ("now", "missing", "fill", "is_certain"),
    [
        ("7:70 8:80", {}, None, True),  # P13: no value is missing, and nothing was rewritten: NULL
        ("7:70 8:80", {7: "5", 8: "5"}, "5", True),  # A-48, P8
        ("7:70 8:80 9:90", {7: "5", 8: "5"}, "5", True),  # a partition that is younger than the column
        ("7:70 8:80", {7: "5", 8: "6"}, None, False),  # a leaf that got it at another time
        ("7:70 8:80", {7: "5"}, None, False),
        ("7:71 8:80", {}, None, False),  # P1, P3: the values were written into the rows
        ("7:71 8:80", {8: "5"}, "5", True),  # the rows of 7 are suspect anyway
        ("8:80", {}, None, False),
        ("7:71 8:81", {}, None, False),
    ],
)
def test_what_older_rows_hold(now: str, missing: dict[int, str], fill: str | None, is_certain: bool) -> None:
    """A-48, P1, P2, P3, P8, P13: a value or NULL where it is certain, and only there."""
    column = Column("x", "integer", LogicalType(Kind.INT32), 4)
    found, uncertain = fill_values([column], WAS, Fingerprint(now, 4, 2), {4: missing} if missing else {})
    assert (found.get(4), not uncertain) == (fill, is_certain)


def test_a_column_that_is_no_longer_generated() -> None:
    """A-45: it has been there all the time, with values."""
    column = Column("x", "integer", LogicalType(Kind.INT32), 3)
    assert fill_values([column], WAS, replace(WAS, columns=2), {}) == ({}, [column])


def test_types_that_keep_their_values() -> None:
    """A-49: only what cannot change any value's text."""
    assert keeps_values((INT, -1), (BIG, -1))
    assert not keeps_values((BIG, -1), (INT, -1))
    assert not keeps_values((INT, -1), (TEXT, -1))
    assert keeps_values((VARCHAR, 14), (VARCHAR, 24))
    assert not keeps_values((VARCHAR, 24), (VARCHAR, 14))
    assert keeps_values((VARCHAR, 14), (TEXT, -1))
    assert not keeps_values((TEXT, -1), (VARCHAR, 14))
    numeric = lambda precision, scale: (1700, ((precision << 16) | scale) + 4)  # noqa: E731
    assert keeps_values(numeric(10, 2), numeric(12, 2))
    assert not keeps_values(numeric(10, 2), numeric(12, 3))
    assert keeps_values(numeric(10, 2), (1700, -1))
    assert not keeps_values((1700, -1), numeric(10, 2))
