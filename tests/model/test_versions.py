"""Versions out of changes, against a database that is a Python dictionary and keeps all of its past."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.errors import InvariantError, TargetDrift
from cdc.model.arrays import take
from cdc.model.change import ABSENT, Op
from cdc.model.gathered import gather
from cdc.model.versions import all_of_keys, trace
from tests.model.batches import UNCHANGED, Row, batch, table
from tests.model.test_fold import Shop, values


def oracle(shop: Shop) -> Counter[tuple[int, int, Row]]:
    """The same work done one change after the other: (begin, end, row), -1 for what was there or stays."""
    held = [(-1, row) for row in shop.before.values()]
    done: list[tuple[int, int, Row]] = []
    for number, (op, old, new) in enumerate(shop.changes):
        whole = new
        if op != Op.INSERT:
            key = shop.key_of(old if old is not None else new)  # type: ignore[arg-type]
            index = next(i for i, (_, row) in enumerate(held) if shop.key_of(row) == key)
            begun, row = held[index]
            done.append((begun, number, row))
            if new is not None:
                whole = tuple(o if n is UNCHANGED else n for n, o in zip(new, row, strict=True))
            if op == Op.UPDATE and whole is not None and shop.key_of(whole) == key:
                held[index] = (number, whole)
                continue
            del held[index]
        if whole is not None:
            held.append((number, whole))
    return Counter(done + [(begun, -1, row) for begun, row in held])


@settings(max_examples=600, deadline=None)
@given(st.data(), st.booleans(), st.booleans())
def test_every_version_begins_and_ends_where_it_should(data: st.DataObject, full: bool, composite: bool) -> None:
    """A-38, A-39, A-41, D-03, D-04: any history of any rows, keys that two rows hold for a moment included."""
    shop = Shop(data.draw, full=full, composite=composite)
    acts = data.draw(st.lists(st.sampled_from(["insert", "delete", "update", "update", "rotate"]), min_size=1))
    for act in acts:
        getattr(shop, act)()
    if not shop.changes:
        return
    schema = table(4, shop.key, full_before=full)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(shop.changes) - 1)))))
    pieces = [shop.changes[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
    changes = gather([batch(schema, piece) for piece in pieces if piece])

    def held(_: np.ndarray, asked: list[pa.Array]) -> np.ndarray:
        return np.array([key in shop.before for key in zip(*(a.to_pylist() for a in asked), strict=True)], dtype=int)

    found = trace(changes, held)
    if "rotate" not in acts:  # nothing is given up in a table that might lack rows, and does not
        in_part = trace(changes, held, in_part=True)
        assert not len(in_part.missed)
        for name in ("ending", "ending_key", "ending_place", "beginning", "ended_by", "value", "origin"):
            assert np.array_equal(getattr(in_part, name), getattr(found, name)), name
    trusting = trace(changes, held, trusting=True)  # less is asked, and nothing else is found
    for name in ("ending", "ending_key", "ending_place", "beginning", "ended_by", "value", "origin"):
        assert np.array_equal(getattr(trusting, name), getattr(found, name)), name
    keys = list(zip(*(column.to_pylist() for column in found.keys), strict=True))
    ended = [shop.before[keys[key]] for key in found.ending_key]
    versions = [(-1, int(end), row) for end, row in zip(found.ending, ended, strict=True)]
    columns = [take(column, found.value[index]).to_pylist() for index, column in enumerate(changes.after)]
    for number, row in enumerate(zip(*columns, strict=True)):
        taken = [index for index in range(4) if found.value[index, number] == ABSENT]
        whole = tuple(ended[found.origin[number]][i] if i in taken else row[i] for i in range(4))
        versions.append((int(found.beginning[number]), int(found.ended_by[number]), whole))
    untouched = Counter(shop.before.values()) - Counter(ended)
    assert Counter(versions) + Counter((-1, -1, row) for row in untouched.elements()) == oracle(shop)


@given(st.lists(st.tuples(values, values), max_size=6), st.data())
def test_rows_without_a_key(start: list[Row], data: st.DataObject) -> None:
    """A-46: equal rows are distinguished by nothing, so that only how many there are at each time can be wrong."""
    rows, changes, counts = list(start), [], [Counter(start)]
    for act in data.draw(st.lists(st.sampled_from(["insert", "delete", "update"]), min_size=1)):
        new = data.draw(st.tuples(values, values))
        if act == "insert":
            changes.append((Op.INSERT, None, new))
            rows.append(new)
        elif rows:
            old = rows.pop(data.draw(st.integers(0, len(rows) - 1)))
            if act == "update":
                rows.append(new)
            changes.append((Op.UPDATE, old, new) if act == "update" else (Op.DELETE, old, None))
        else:
            continue
        counts.append(Counter(rows))
    if not changes:
        return
    made = gather([batch(table(2, (), full_before=True), changes)])
    found = trace(
        made, lambda _, asked: np.array([start.count(r) for r in zip(*map(pa.Array.to_pylist, asked), strict=True)])
    )
    keys = list(zip(*(column.to_pylist() for column in found.keys), strict=True))
    ended = [(int(end), keys[key]) for end, key in zip(found.ending, found.ending_key, strict=True)]
    places = Counter(zip(found.ending_key.tolist(), found.ending_place.tolist(), strict=True))
    assert max(places.values(), default=1) == 1
    new = list(zip(*(take(c, v).to_pylist() for c, v in zip(made.after, found.value, strict=True)), strict=True))
    for at, expected in enumerate(counts):  # after so many changes
        seen = Counter(start)
        seen.subtract(Counter(row for end, row in ended if end < at))
        for begin, end, row in zip(found.beginning, found.ended_by, new, strict=True):
            seen[row] += begin < at and not (ABSENT < end < at)
        assert +seen == expected


def test_what_is_not_there_cannot_change() -> None:
    """A-42: a row that the target lacks, and a value that nobody has."""
    schema = table(2, (0,))
    none = lambda asked, _: np.zeros(len(asked), dtype=np.int64)  # noqa: E731
    with pytest.raises(TargetDrift):
        trace(gather([batch(schema, [(Op.DELETE, ("1", None), None)])]), none)
    with pytest.raises(InvariantError):
        trace(gather([batch(schema, [(Op.INSERT, None, ("1", UNCHANGED))])]), none)


def test_a_table_that_has_a_part_of_its_rows() -> None:
    """C-03: what ends there need not be there, and what lacks a value is read again."""
    schema = table(2, (0,))
    changes = [
        (Op.DELETE, ("1", None), None),
        (Op.UPDATE, None, ("2", UNCHANGED)),
        (Op.UPDATE, None, ("3", "c")),
        (Op.INSERT, None, ("4", "d")),
        (Op.UPDATE, ("5", None), ("6", "e")),
    ]
    has_four = lambda _, asked: np.array([key == "4" for key in asked[0].to_pylist()], dtype=np.int64)  # noqa: E731
    found = trace(gather([batch(schema, changes)]), has_four, in_part=True)
    keys = found.keys[0].to_pylist()
    assert found.beginning.tolist() == [2, 3, 4]
    assert [keys[key] for key in found.ending_key] == ["4"]
    assert sorted(keys[key] for key in found.missed) == ["2", "5", "6"]


@settings(max_examples=300, deadline=None)
@given(st.data(), st.booleans(), st.booleans())
def test_the_newest_row_of_each_key_is_that_of_the_table(data: st.DataObject, full: bool, composite: bool) -> None:
    """A-41, D-04: all rows that keys got, and the changes after which keys had none, lead to the table as it is in the
    end, keys that two rows hold for a moment included."""
    shop = Shop(data.draw, full=full, composite=composite)
    for act in data.draw(st.lists(st.sampled_from(["insert", "delete", "update", "update", "rotate"]), min_size=1)):
        getattr(shop, act)()
    if not shop.changes:
        return
    changes = gather([batch(table(4, shop.key, full_before=full), shop.changes)])

    def held(_: np.ndarray, asked: list[pa.Array]) -> np.ndarray:
        return np.array([key in shop.before for key in zip(*(a.to_pylist() for a in asked), strict=True)], dtype=int)

    versions = trace(changes, held, trusting=True)
    found = all_of_keys(changes, versions)
    assert np.count_nonzero(found.deleted_by == ABSENT) == len(versions.beginning), "Nothing is folded."
    lenders = list(zip(*(take(column, versions.ending_key).to_pylist() for column in versions.keys), strict=True))
    keys = list(zip(*(column.to_pylist() for column in found.keys), strict=True))
    columns = [take(column, found.value[index]).to_pylist() for index, column in enumerate(changes.after)]
    rows = dict(shop.before)
    for at in np.argsort(found.change, kind="stable"):
        if found.deleted_by[at] != ABSENT:
            del rows[keys[at]]
            continue
        lender = shop.before[lenders[found.source[at]]] if found.source[at] != ABSENT else None
        taken = [found.value[index, at] == ABSENT for index in range(4)]
        rows[keys[at]] = tuple(lender[i] if lender and taken[i] else columns[i][at] for i in range(4))
    assert rows == {shop.key_of(row): tuple(row) for row in shop.rows}
