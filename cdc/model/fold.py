"""The fold: many changes of one table to their net effect, so that a target is written once per row.

A row's life is a *lineage*: it begins with an insert, or before these changes (then the key that it had there is its
origin), follows its changes of key, and ends with a delete or goes on. Which changes are one lineage is found for all
of them at once:

* A change *arrives* at a key (an insert, or an update that gives a row this key), *leaves* one (a delete, or an update
  that takes the key from a row), or leaves its row in place.
* Whoever arrives at a key waits in its queue, and who came first leaves first. So the n-th to leave a key is the n-th
  that arrived there, and a change in place is one of the row at the head. Mostly a queue holds one row. It holds two
  where a statement gives a row the key of another before it gives that one its own (D-04). No statement changes a row
  twice, so the one that has held the key longest is meant.
* An arrival by an update points to the arrival that its row came from. Following these pointers ends at the beginning
  of the lineage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cdc.errors import InvariantError
from cdc.model.arrays import take
from cdc.model.change import ABSENT, ChangeBatch, Op, Rows
from cdc.model.schema import TableSchema

Exists = Callable[[list[pa.Array]], np.ndarray]


@dataclass(frozen=True, slots=True)
class Folded:
    """The net effect on a table with a key; what goes, stays and comes are different rows.

    It is to be applied in the order of the attributes, and all of `updated` at once: a row may get the key of one that
    goes, or of one that gets another key itself.

    Attributes:
        deleted: key columns of the rows that go, d rows.
        updated_key: key columns, as they were before, of the rows that stay, u rows.
        updated: all columns of these rows as they are now, null where they are unchanged.
        unchanged: per column, which of the u rows keep the value that the target has (bool[u]); None for none.
        inserted: all columns of new rows.
    """

    deleted: list[pa.Array]
    updated_key: list[pa.Array]
    updated: list[pa.Array]
    unchanged: list[np.ndarray | None]
    inserted: list[pa.Array]


@dataclass(frozen=True, slots=True)
class _Changes:
    """The n changes of all batches as one, rows of `after` and `before` numbered through."""

    schema: TableSchema
    op: np.ndarray
    transaction: np.ndarray
    after: list[pa.Array]
    unchanged: list[np.ndarray | None]
    after_row: np.ndarray
    before: list[pa.Array]
    before_row: np.ndarray

    def __len__(self) -> int:
        return len(self.op)


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of n changes, as codes from 0.

    Attributes:
        old: int64[n], what the row had before; ABSENT for an insert.
        new: int64[n], what it has after; ABSENT for a delete.
        columns: the key columns, one row per code.
    """

    old: np.ndarray
    new: np.ndarray
    columns: list[pa.Array]

    def __len__(self) -> int:
        return len(self.columns[0])


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of l lineages.

    Attributes:
        origin: int64[l], code of the key that the row had before; ABSENT if it is new.
        alive: bool[l].
        value: int64[columns, l], row of `after` that has the newest value; ABSENT if no change of the lineage has one.
            Means nothing for a lineage that ended.
    """

    origin: np.ndarray
    alive: np.ndarray
    value: np.ndarray


def fold(batches: Sequence[ChangeBatch], exists: Exists) -> Folded:
    """Fold changes of one table with a key.

    No two rows may have one key before the first change or after the last. Where a constraint is checked only at the
    end of a transaction, this asks for batches that hold the whole transaction. And where rows that share a key for
    longer than a statement are written to meanwhile, nothing tells which one is meant; the fold takes the older.

    Args:
        batches: at least one, of one segment and one schema, in source order.
        exists: asks the target which of some keys (columns of text) it holds before these changes: bool[n]. The
            changes alone do not tell a swap (1 to 2, then 2 to 1) from a row that goes there and back. It is asked
            only about a key that a row comes to and a row leaves in one transaction, in this order.

    Raises:
        InvariantError: the changes contradict each other.
    """
    changes = _gather(batches)
    if (changes.op == Op.INSERT).all():
        return _folded(changes, _all_new(changes), [pa.nulls(0, pa.string_view()) for _ in changes.schema.key])
    keys = _keys(changes)
    return _folded(changes, _outcome(changes, _lineages(changes, keys, exists)), keys.columns)


def net_rows(batches: Sequence[ChangeBatch]) -> tuple[list[pa.Array], np.ndarray]:
    """The net effect on a table without a key, whose changes carry whole rows: how often each row came or went (A-46).

    Returns:
        Distinct rows as columns, and int64[n]: how many more (or, negative, fewer) of each there are now. Never 0.

    Raises:
        InvariantError: a row is not whole.
    """
    changes = _gather(batches)
    told = changes.before_row != ABSENT
    if not told[changes.op != Op.INSERT].all() or any(mask is not None and mask.any() for mask in changes.unchanged):
        raise InvariantError(f"A change of {changes.schema.table}, which has no key, came without its whole rows.")
    came, went = changes.after_row[changes.after_row != ABSENT], changes.before_row[told]
    columns = [
        pa.concat_arrays([take(after, came), take(before, went)])
        for after, before in zip(changes.after, changes.before, strict=True)
    ]
    codes, row = _codes(columns)
    net = np.bincount(codes[: len(came)], minlength=len(row)) - np.bincount(codes[len(came) :], minlength=len(row))
    left = np.flatnonzero(net)
    return [take(column, row[left]) for column in columns], net[left]


# --- the changes as one -----------------------------------------------------------------------------------------------


def _gather(batches: Sequence[ChangeBatch]) -> _Changes:
    schema = batches[0].schema
    after, before = [batch.after for batch in batches], [batch.before for batch in batches]
    return _Changes(
        schema=schema,
        op=np.concatenate([batch.op for batch in batches]),
        transaction=np.concatenate([batch.transaction for batch in batches]),
        after=[_column(after, index) for index in range(len(schema.columns))],
        unchanged=[_mask(after, index) for index in range(len(schema.columns))],
        after_row=_numbered_through([batch.after_row for batch in batches], after),
        before=[_column(before, index) for index in range(len(schema.columns))],
        before_row=_numbered_through([batch.before_row for batch in batches], before),
    )


def _column(parts: Sequence[Rows | None], index: int) -> pa.Array:
    columns = [part.columns[index] for part in parts if part is not None]
    return pa.concat_arrays(columns) if columns else pa.nulls(0, pa.string_view())


def _mask(parts: Sequence[Rows | None], index: int) -> np.ndarray | None:
    rows = [part for part in parts if part is not None]
    if all(part.unchanged[index] is None for part in rows):
        return None
    return np.concatenate(
        [mask if (mask := part.unchanged[index]) is not None else np.zeros(len(part), dtype=bool) for part in rows]
    )


def _numbered_through(indexes: Sequence[np.ndarray], parts: Sequence[Rows | None]) -> np.ndarray:
    numbered, count = [], 0
    for index, part in zip(indexes, parts, strict=True):
        numbered.append(np.where(index == ABSENT, ABSENT, index + count))
        count += len(part) if part is not None else 0
    return np.concatenate(numbered)


# --- keys -------------------------------------------------------------------------------------------------------------


def _keys(changes: _Changes) -> _Keys:
    was, becomes = np.flatnonzero(changes.before_row != ABSENT), np.flatnonzero(changes.after_row != ABSENT)
    columns = [
        pa.concat_arrays(
            [
                take(changes.before[index], changes.before_row[was]),
                take(changes.after[index], changes.after_row[becomes]),
            ]
        )
        for index in changes.schema.key
    ]
    codes, row = _codes(columns)
    new = np.full(len(changes), ABSENT, dtype=np.int64)
    new[becomes] = codes[len(was) :]
    old = np.where(changes.op == Op.INSERT, ABSENT, new)  # an update that says no old key kept it
    old[was] = codes[: len(was)]
    return _Keys(old, new, [take(column, row) for column in columns])


def _codes(columns: Sequence[pa.Array]) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct rows of some columns from 0: int64[n] their numbers, and int64[m] a row of each number."""
    codes, count = np.zeros(len(columns[0]), dtype=np.int64), 1
    for column in columns:
        own, own_count = _distinct(column)
        codes, count = (own, own_count) if count == 1 else _distinct(pa.array(codes * own_count + own))
    row = np.empty(count if len(codes) else 0, dtype=np.int64)
    row[codes] = np.arange(len(codes))
    return codes, row


def _distinct(values: pa.Array) -> tuple[np.ndarray, int]:
    encoded = values.dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy().astype(np.int64), len(encoded.dictionary)


# --- lineages ---------------------------------------------------------------------------------------------------------


def _lineages(changes: _Changes, keys: _Keys, exists: Exists) -> np.ndarray:
    """int64[n]: the lineage of each of n changes, named by its beginning.

    That is the insert, as an index into the changes, or n + the code of the key that the row had before them.
    """
    count = len(changes)
    moves = keys.old != keys.new
    arrivals = _by_key(keys.new, np.flatnonzero(moves & (keys.new != ABSENT)))
    writes = _by_key(keys.old, np.flatnonzero(keys.old != ABSENT))  # what happens to a row that is there
    was_there = _held_before(changes, keys, arrivals, writes, exists)

    key, leaves = keys.old[writes], moves[writes]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    left = np.cumsum(leaves) - leaves  # before each write, those of other keys included
    left -= np.repeat(left[starts], np.diff(starts, append=len(writes)))
    place = left - was_there[key]  # in the queue of arrivals; -1 is the row that was there before
    known = place >= 0
    arrived = np.bincount(keys.new[arrivals], minlength=len(keys))
    if (place >= arrived[key]).any():
        raise _gone(changes)
    source = arrivals[(np.cumsum(arrived) - arrived)[key[known]] + place[known]]
    if (source >= writes[known]).any():
        raise _gone(changes)

    parent = np.arange(count + len(keys))
    parent[writes] = count + key
    parent[writes[known]] = source
    while not np.array_equal(above := parent[parent], parent):
        parent = above
    return parent[:count]


def _held_before(
    changes: _Changes, keys: _Keys, arrivals: np.ndarray, writes: np.ndarray, exists: Exists
) -> np.ndarray:
    """bool[m]: which keys a row had before the changes, as far as they matter to them."""
    never = len(changes)
    arrives = _first_by_key(keys.new, arrivals, len(keys), never)
    written = _first_by_key(keys.old, writes, len(keys), never)
    held = written < arrives
    # A row that somebody arrives beside must have left when that transaction ends.
    leaves = _first_by_key(keys.old, writes[keys.old[writes] != keys.new[writes]], len(keys), never)
    transaction = np.append(changes.transaction, ABSENT)
    unsure = np.flatnonzero((arrives < written) & (transaction[arrives] == transaction[leaves]))
    if len(unsure):
        held[unsure] = exists([take(column, unsure) for column in keys.columns])
    return held


def _by_key(code: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Changes `at` (int64[k], in order) by the code of their key, each key's in order."""
    return at[_sorted_stably(code[at])]


def _first_by_key(code: np.ndarray, by_key: np.ndarray, count: int, never: int) -> np.ndarray:
    """int64[count]: for each key the first of the changes `by_key`."""
    first = np.full(count, never, dtype=np.int64)
    starts = np.flatnonzero(np.diff(code[by_key], prepend=-1))
    first[code[by_key[starts]]] = by_key[starts]
    return first


def _sorted_stably(codes: np.ndarray) -> np.ndarray:
    """What a stable argsort gives, several times as fast: equal codes are told apart by their places."""
    return np.sort(codes * len(codes) + np.arange(len(codes))) % max(len(codes), 1)


def _gone(changes: _Changes) -> InvariantError:
    return InvariantError(f"A row of {changes.schema.table} was changed that had gone before.")


# --- their outcome ----------------------------------------------------------------------------------------------------


def _outcome(changes: _Changes, lineage: np.ndarray) -> _Outcome:
    count = len(changes)
    at = _sorted_stably(lineage)
    lineage, op, row = lineage[at], changes.op[at], changes.after_row[at]
    first = np.flatnonzero(np.diff(lineage, prepend=-1))
    last = np.append(first[1:], count) - 1
    value = np.empty((len(changes.after), len(first)), dtype=np.int64)
    for index, mask in enumerate(changes.unchanged):
        # Column by column: the newest change is not the one that has the newest value of each.
        value[index] = row[last] if mask is None else _newest((row != ABSENT) & ~mask[row], row, first, last)
    return _Outcome(np.where(lineage[first] < count, ABSENT, lineage[first] - count), op[last] != Op.DELETE, value)


def _newest(has_value: np.ndarray, row: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    found = np.maximum.accumulate(np.where(has_value, np.arange(len(row)), -1))[last]
    return np.where(found >= first, row[found], ABSENT)


def _all_new(changes: _Changes) -> _Outcome:
    """Of inserts only, which are so common that their keys are not looked at."""
    row = changes.after_row
    value = np.array([row if mask is None else np.where(mask[row], ABSENT, row) for mask in changes.unchanged])
    return _Outcome(np.full(len(row), ABSENT), np.ones(len(row), dtype=bool), value)


def _folded(changes: _Changes, outcome: _Outcome, keys: list[pa.Array]) -> Folded:
    is_new = outcome.origin == ABSENT
    gone = np.flatnonzero(~is_new & ~outcome.alive)
    stays = np.flatnonzero(~is_new & outcome.alive)
    comes = np.flatnonzero(is_new & outcome.alive)
    if (outcome.value[:, comes] == ABSENT).any():
        raise InvariantError(f"A new row of {changes.schema.table} came without all of its values.")

    def rows(which: np.ndarray) -> list[pa.Array]:
        return [take(column, outcome.value[index, which]) for index, column in enumerate(changes.after)]

    kept = [outcome.value[index, stays] == ABSENT for index in range(len(changes.after))]
    return Folded(
        deleted=[take(column, outcome.origin[gone]) for column in keys],
        updated_key=[take(column, outcome.origin[stays]) for column in keys],
        updated=rows(stays),
        unchanged=[mask if mask.any() else None for mask in kept],
        inserted=rows(comes),
    )
