"""The fold: many changes of one table to their net effect, so that a target is written once per row.

A row's life is a *lineage*: it begins with an insert, or before these changes (then the key that it had there is its
origin), follows its changes of key, and ends with a delete or goes on. Changes of rows that keep their keys are folded
as arrays. The few that take part in a change of key are followed one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from cdc.errors import InvariantError
from cdc.model.arrays import TEXT, take, unified
from cdc.model.change import ABSENT, ChangeBatch, Op, Rows
from cdc.model.schema import TableSchema

_NEW = -1  # the origin of a lineage that began with an insert

Exists = Callable[[list[pa.Array]], np.ndarray]


@dataclass(frozen=True, slots=True)
class Folded:
    """The net effect on a table with a key; everything about rows as they were before.

    Attributes:
        deleted: key columns of the rows that go, d rows.
        updated_key: key columns, as they were, of the rows that stay, u rows.
        updated: all columns of these rows as they are now, null where they are unchanged.
        unchanged: per column, which of the u rows keep the value that the target has (bool[u]); None for none.
        inserted: all columns of new rows.
    """

    deleted: list[pa.Array]
    updated_key: list[pa.Array]
    updated: list[pa.Array]
    unchanged: list[np.ndarray | None]
    inserted: list[pa.Array]


@dataclass(slots=True)
class _Changes:
    """The changes of all batches as one, rows of `after` and `before` numbered through."""

    schema: TableSchema
    op: np.ndarray
    after: list[pa.Array]
    unchanged: list[np.ndarray | None]
    after_row: np.ndarray
    before: list[pa.Array]
    before_row: np.ndarray


@dataclass(slots=True)
class _Outcome:
    """What became of lineages: the key that each had before (_NEW if none), and its newest value per column.

    Attributes:
        origin: int64[n], key codes.
        alive: bool[n].
        value: int64[columns, n], rows of `after`, ABSENT where no change of the lineage has the value.
    """

    origin: np.ndarray
    alive: np.ndarray
    value: np.ndarray


def fold(batches: Sequence[ChangeBatch], exists: Exists) -> Folded:
    """Fold changes of one table with a key, in source order.

    Args:
        exists: asks the target which of some keys (columns of text) it holds before these changes. The changes alone
            do not tell a swap of two keys (1 to 2, then 2 to 1) from a row that goes there and back. It is asked only
            about keys that a row moved to.

    Raises:
        InvariantError: the changes contradict each other.
    """
    changes = _gather(batches)
    old, new, keys = _key_codes(changes)
    moves = (changes.op == Op.UPDATE) & (old != new)
    if moves.any():
        is_moving = np.zeros(len(keys[0]), dtype=bool)
        is_moving[old[moves]] = True
        is_moving[new[moves]] = True
        followed = is_moving[old] | is_moving[new]
        outcomes = [
            _fold_in_place(changes, np.flatnonzero(~followed), new),
            _follow(changes, np.flatnonzero(followed), old, new, keys, exists),
        ]
    else:
        outcomes = [_fold_in_place(changes, np.arange(len(new)), new)]
    outcome = _Outcome(
        np.concatenate([o.origin for o in outcomes]),
        np.concatenate([o.alive for o in outcomes]),
        np.concatenate([o.value for o in outcomes], axis=1),
    )
    return _folded(changes, outcome, keys)


def net_rows(batches: Sequence[ChangeBatch]) -> tuple[list[pa.Array], np.ndarray]:
    """The net effect on a table without a key, whose changes carry whole rows: how often each row came or went (A-46).

    Returns:
        Distinct rows as columns, and int64[n]: how many more (or, negative, fewer) of each there are now. Never 0.
    """
    changes = _gather(batches)
    came, went = changes.after_row[changes.after_row != ABSENT], changes.before_row[changes.before_row != ABSENT]
    columns = [
        pa.concat_arrays(unified([take(after, came), take(before, went)]))
        for after, before in zip(changes.after, changes.before, strict=True)
    ]
    sign = np.concatenate([np.ones(len(came), dtype=np.int64), -np.ones(len(went), dtype=np.int64)])
    codes, first = _codes(columns)
    net = np.bincount(codes, weights=sign, minlength=len(first)).astype(np.int64)
    left = np.flatnonzero(net)
    return [take(column, first[left]) for column in columns], net[left]


def _gather(batches: Sequence[ChangeBatch]) -> _Changes:
    schema = batches[0].schema
    width = len(schema.columns)
    after_row, before_row = [], []
    after_count = before_count = 0
    for batch in batches:
        after_row.append(np.where(batch.after_row == ABSENT, ABSENT, batch.after_row + after_count))
        before_row.append(np.where(batch.before_row == ABSENT, ABSENT, batch.before_row + before_count))
        after_count += len(batch.after) if batch.after is not None else 0
        before_count += len(batch.before) if batch.before is not None else 0
    after = [batch.after for batch in batches if batch.after is not None]
    before = [batch.before for batch in batches if batch.before is not None]
    return _Changes(
        schema=schema,
        op=np.concatenate([batch.op for batch in batches]),
        after=[_column(after, index) for index in range(width)],
        unchanged=[_mask(after, index) for index in range(width)],
        after_row=np.concatenate(after_row),
        before=[_column(before, index) for index in range(width)],
        before_row=np.concatenate(before_row),
    )


def _column(rows: Sequence[Rows], index: int) -> pa.Array:
    return pa.concat_arrays(unified([part.columns[index] for part in rows])) if rows else pa.array([], TEXT)


def _mask(rows: Sequence[Rows], index: int) -> np.ndarray | None:
    if all(part.unchanged[index] is None for part in rows):
        return None
    return np.concatenate(
        [mask if (mask := part.unchanged[index]) is not None else np.zeros(len(part), dtype=bool) for part in rows]
    )


def _key_codes(changes: _Changes) -> tuple[np.ndarray, np.ndarray, list[pa.Array]]:
    """Small integers for the keys before and after each change, and the key columns by those integers."""
    has_old, has_new = changes.before_row != ABSENT, changes.after_row != ABSENT
    columns = [
        pa.concat_arrays(
            unified([take(changes.before[index], changes.before_row), take(changes.after[index], changes.after_row)])
        )
        for index in changes.schema.key
    ]
    codes, first = _codes(columns)
    count = len(changes.op)
    said_old, said_new = codes[:count], codes[count:]
    return (
        np.where(has_old, said_old, said_new),
        np.where(has_new, said_new, said_old),
        [take(column, first) for column in columns],
    )


def _codes(columns: Sequence[pa.Array]) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct rows of some columns: int64[n] the number of each row, and int64[m] a row of each number."""
    codes = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        encoded = column.dictionary_encode(null_encoding="encode")
        step = np.asarray(encoded.indices, dtype=np.int64)
        _, codes = np.unique(codes * (len(encoded.dictionary) + 1) + step, return_inverse=True)
    _, first = np.unique(codes, return_index=True)
    return codes, first


def _fold_in_place(changes: _Changes, at: np.ndarray, key: np.ndarray) -> _Outcome:
    """Fold the changes `at` (int64[n], in order), none of which changes a key.

    All changes of a key follow each other; an insert begins a new lineage under it.
    """
    at = at[np.argsort(key[at], kind="stable")]
    code, op = key[at], changes.op[at]
    is_first = np.ones(len(at), dtype=bool)
    is_first[1:] = code[1:] != code[:-1]
    is_last = np.ones(len(at), dtype=bool)
    is_last[:-1] = is_first[1:]
    first, last = np.flatnonzero(is_first), np.flatnonzero(is_last)

    begins = np.flatnonzero(is_first | (op == Op.INSERT))
    born = begins[np.searchsorted(begins, last, side="right") - 1]  # where the last lineage of each key begins
    row = changes.after_row[at]
    value = np.empty((len(changes.schema.columns), len(last)), dtype=np.int64)
    for index, mask in enumerate(changes.unchanged):
        if mask is None:
            value[index] = row[last]
            continue
        has_value = (row != ABSENT) & ~mask[row]
        newest = np.maximum.accumulate(np.where(has_value, np.arange(len(at)), -1)) if len(at) else row
        found = newest[last]
        value[index] = np.where(found >= born, row[found], ABSENT)
    origin = np.where(op[first] == Op.INSERT, _NEW, code[first])
    return _Outcome(origin, op[last] != Op.DELETE, value)


@dataclass(slots=True)
class _Lineage:
    origin: int
    alive: bool = True
    rows: list[int] = field(default_factory=list)


def _follow(
    changes: _Changes, at: np.ndarray, old: np.ndarray, new: np.ndarray, keys: list[pa.Array], exists: Exists
) -> _Outcome:
    """Fold the changes `at` one by one: keys move between rows here.

    Inside a statement two rows may hold one key for a moment (deferred constraints). No statement changes a row twice,
    so the one that has held it longest is meant.
    """
    lineages: list[_Lineage] = []
    holders: dict[int, deque[_Lineage]] = {}
    preexisting = _preexisting(changes, at, old, new, keys, exists)

    def holding(key: int, *, arrives: bool) -> deque[_Lineage]:
        if key not in holders:
            holders[key] = deque()
            if preexisting.get(key, not arrives):
                lineages.append(_Lineage(origin=key))
                holders[key].append(lineages[-1])
        return holders[key]

    for index in at.tolist():
        op, was, becomes, row = changes.op[index], int(old[index]), int(new[index]), int(changes.after_row[index])
        if op == Op.INSERT:
            lineage = _Lineage(origin=_NEW)
            lineages.append(lineage)
            holding(becomes, arrives=True).append(lineage)
        else:
            queue = holding(was, arrives=False)
            if not queue:
                raise InvariantError(f"A row of {changes.schema.table} was changed that had gone before.")
            lineage = queue[0]
            if op == Op.DELETE or was != becomes:
                queue.popleft()
            if op == Op.DELETE:
                lineage.alive = False
                continue
            if was != becomes:
                holding(becomes, arrives=True).append(lineage)
        lineage.rows.append(row)
    value = np.full((len(changes.schema.columns), len(lineages)), ABSENT, dtype=np.int64)
    for number, lineage in enumerate(lineages):
        for column, mask in enumerate(changes.unchanged):
            present = (row for row in reversed(lineage.rows) if mask is None or not mask[row])
            value[column, number] = next(present, ABSENT)
    touched = np.array([not lineage.alive or bool(lineage.rows) for lineage in lineages], dtype=bool)
    origin = np.array([lineage.origin for lineage in lineages], dtype=np.int64)
    alive = np.array([lineage.alive for lineage in lineages], dtype=bool)
    return _Outcome(origin[touched], alive[touched], value[:, touched])


def _preexisting(
    changes: _Changes, at: np.ndarray, old: np.ndarray, new: np.ndarray, keys: list[pa.Array], exists: Exists
) -> dict[int, bool]:
    """Whether the target holds a key, for those keys that the changes first meet as one that a row moves to."""
    seen: set[int] = set()
    asked: list[int] = []
    for index in at.tolist():
        was, becomes, op = int(old[index]), int(new[index]), changes.op[index]
        seen.add(was)
        if becomes not in seen and op == Op.UPDATE:
            asked.append(becomes)
        seen.add(becomes)
    if not asked:
        return {}
    answer = exists([take(column, np.array(asked, dtype=np.int64)) for column in keys])
    return dict(zip(asked, answer.tolist(), strict=True))


def _folded(changes: _Changes, outcome: _Outcome, keys: list[pa.Array]) -> Folded:
    is_new = outcome.origin == _NEW
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
