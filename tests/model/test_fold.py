"""The fold against a database that is a Python dictionary."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.errors import InvariantError
from cdc.model.change import Op
from cdc.model.fold import Folded, fold, net_rows
from tests.model.batches import UNCHANGED, Row, batch, table

LONG = "a value that does not fit into a view "
values = st.sampled_from([None, "", "x", "y", LONG + "1", LONG + "2"])
keys = st.sampled_from(["1", "2", "3", LONG + "4"])


class Shop:
    """Rows by identity, as a database has them, and the changes that its log would say."""

    def __init__(self, draw: st.DrawFn, *, full: bool, composite: bool) -> None:
        self.draw, self.full = draw, full
        self.key = (0, 2) if composite else (0,)
        self.rows: list[list[object]] = []
        self.changes: list[tuple[Op, Row | None, Row | None]] = []
        for key in draw(st.sets(keys, max_size=4)):
            self.rows.append([key, draw(values), "k", draw(values)])
        self.before = {self.key_of(row): tuple(row) for row in self.rows}

    def key_of(self, row: list[object] | Row) -> tuple[object, ...]:
        return tuple(row[index] for index in self.key)

    def old(self, row: list[object]) -> Row:
        return tuple(row) if self.full else tuple(v if i in self.key else None for i, v in enumerate(row))

    def is_free(self, key: tuple[object, ...]) -> bool:
        return all(self.key_of(row) != key for row in self.rows)

    def insert(self) -> None:
        row = [self.draw(keys), self.draw(values), "k", self.draw(values)]
        if self.is_free(self.key_of(row)):
            self.rows.append(row)
            self.changes.append((Op.INSERT, None, tuple(row)))

    def delete(self) -> None:
        if self.rows:
            row = self.rows.pop(self.draw(st.integers(0, len(self.rows) - 1)))
            self.changes.append((Op.DELETE, self.old(row), None))

    def write(self, row: list[object], becomes: object) -> None:
        """An update as the log has it: the old key if it changed, and no value that was not touched (A-38, A-39)."""
        before = self.old(row)
        touched = self.draw(st.booleans())
        moved = row[0] != becomes
        row[0] = becomes
        row[1] = self.draw(values)
        if touched:
            row[3] = self.draw(values)
        after = (*row[:3], row[3] if touched or self.full else UNCHANGED)
        self.changes.append((Op.UPDATE, before if moved or self.full else None, after))

    def update(self) -> None:
        if self.rows:
            row = self.draw(st.sampled_from(self.rows))
            becomes = self.draw(keys)
            if becomes != row[0] and not self.is_free(self.key_of([becomes, *row[1:]])):
                becomes = row[0]
            self.write(row, becomes)

    def rotate(self) -> None:
        """One statement that gives each of some rows the key of the next (D-04): two hold one key for a moment."""
        if len(self.rows) > 1:
            some = self.draw(st.lists(st.sampled_from(self.rows), min_size=2, unique_by=id))
            for row, becomes in zip(some, [row[0] for row in some[1:] + some[:1]], strict=True):
                self.write(row, becomes)


def applied(shop: Shop, folded: Folded) -> dict[tuple[object, ...], Row]:
    """A folded effect on the rows that were there before, the way a target applies it."""
    rows = lambda columns: list(zip(*(column.to_pylist() for column in columns), strict=True))  # noqa: E731
    target, updated = dict(shop.before), []
    for key in rows(folded.deleted):
        del target[key]
    for number, (key, new) in enumerate(zip(rows(folded.updated_key), rows(folded.updated), strict=True)):
        kept = [mask is not None and bool(mask[number]) for mask in folded.unchanged]
        updated.append(tuple(o if keep else n for keep, o, n in zip(kept, target.pop(key), new, strict=True)))
    for new in updated + rows(folded.inserted):
        assert shop.key_of(new) not in target
        target[shop.key_of(new)] = new
    return target


@settings(max_examples=600, deadline=None)
@given(st.data(), st.booleans(), st.booleans())
def test_the_net_effect_is_that_of_all_changes(data: st.DataObject, full: bool, composite: bool) -> None:
    """A-37, A-38, A-39, A-41, D-02, D-03, D-04: any history of any rows, in any division into batches."""
    shop = Shop(data.draw, full=full, composite=composite)
    for act in data.draw(st.lists(st.sampled_from(["insert", "delete", "update", "update", "rotate"]), min_size=1)):
        getattr(shop, act)()
    if not shop.changes:
        return
    schema = table(4, shop.key, full_before=full)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(shop.changes) - 1)))))
    pieces = [shop.changes[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]

    def exists(asked: list[pa.Array]) -> np.ndarray:
        return np.array([key in shop.before for key in zip(*(a.to_pylist() for a in asked), strict=True)])

    folded = fold([batch(schema, piece) for piece in pieces if piece], exists)
    assert applied(shop, folded) == {shop.key_of(row): tuple(row) for row in shop.rows}


@given(st.lists(st.tuples(values, values), max_size=6), st.data())
def test_rows_without_a_key_are_counted(start: list[Row], data: st.DataObject) -> None:
    """A-46: equal rows are distinguished by nothing, so that only how many there are can be right or wrong."""
    rows, changes = list(start), []
    for act in data.draw(st.lists(st.sampled_from(["insert", "delete", "update"]), min_size=1)):
        new = data.draw(st.tuples(values, values))
        if act == "insert":
            rows.append(new)
            changes.append((Op.INSERT, None, new))
        elif rows:
            old = rows.pop(data.draw(st.integers(0, len(rows) - 1)))
            if act == "update":
                rows.append(new)
            changes.append((Op.UPDATE, old, new) if act == "update" else (Op.DELETE, old, None))
    if not changes:
        return
    columns, counts = net_rows([batch(table(2, (), full_before=True), changes)])
    found = dict(zip(zip(*(c.to_pylist() for c in columns), strict=True), counts.tolist(), strict=True))
    net = Counter(rows)
    net.subtract(Counter(start))
    assert found == {row: count for row, count in net.items() if count}


def test_a_new_row_must_be_whole() -> None:
    """A-42: an unchanged value that no change of the lineage has cannot be made up."""
    schema = table(2, (0,))
    changes = [(Op.INSERT, None, ("1", UNCHANGED))]
    with pytest.raises(InvariantError):
        fold([batch(schema, changes)], lambda _: np.zeros(0, dtype=bool))
