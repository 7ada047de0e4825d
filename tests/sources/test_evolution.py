"""Which column is which, told from names, types and order; or not told."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.sources.postgres.catalog import Table
from cdc.sources.postgres.evolution import _highest, _lowest, match_columns
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


def matched(old: Shape, said: list[tuple[str, int]], today: Shape) -> list[int] | None:
    in_order = lambda shape: relation([shape[attnum] for attnum in sorted(shape)])  # noqa: E731
    known = TableState(schema(old), in_order(old), 0, copied=True)
    return match_columns(known, relation(said), Table(schema(today), in_order(today), "r", 0))


def test_renames_drops_and_adds() -> None:
    """A-50: each told from the others, by whatever of name, type and order settles it."""
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
    assert matched(wide, [("id", INT), ("a", TEXT), ("b", INT)], {1: ("id", INT), 3: ("b", INT), 4: ("a", TEXT)}) == [
        1,
        2,
        3,
    ]


@given(st.lists(st.lists(st.integers(1, 8), min_size=1, max_size=4), max_size=5))
def test_one_way_exactly_if_the_lowest_is_the_highest(choices: list[list[int]]) -> None:
    ways = [
        way for way in combinations(range(1, 9), len(choices)) if all(c in o for c, o in zip(way, choices, strict=True))
    ]
    lowest = _lowest(choices)
    assert (tuple(lowest) if lowest is not None else None) == (min(ways) if ways else None)
    assert (lowest == _highest(choices, 9)) == (len(ways) <= 1)


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
