"""The fold: many changes of one table to their net effect, so that a target is written once per row.

A row's life is a *lineage*: it begins with an insert, or before these changes (then the key that it had there is its
origin), follows its changes of key, and ends with a delete or goes on. Changes of rows that keep their keys are folded
as arrays. The few that take part in a change of key are followed one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from cdc.errors import InvariantError
from cdc.model.arrays import take, unified
from cdc.model.change import ABSENT, ChangeBatch, Op
from cdc.model.gathered import Gathered, codes, gather, key_codes

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

    def only(self, updated: np.ndarray) -> Folded:
        """With some of the updated rows (bool[u]) alone."""
        rows = np.flatnonzero(updated)
        return replace(
            self,
            updated_key=[take(column, rows) for column in self.updated_key],
            updated=[take(column, rows) for column in self.updated],
            unchanged=[mask[rows] if mask is not None and mask[rows].any() else None for mask in self.unchanged],
        )


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
    changes = gather(batches)
    old, new, keys = key_codes(changes, changes.schema.key)
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


def fold_in_part(batches: Sequence[ChangeBatch]) -> tuple[Folded, list[pa.Array]]:
    """Fold changes of a table that holds only a part of its rows yet.

    The row that a change of key meant is not known there, so that the change is left out.

    Returns:
        The net effect without the rows that changed their keys, and the key columns that these moved from or to.
    """
    changes = gather(batches)
    old, new, keys = key_codes(changes, changes.schema.key)
    moves = (changes.op == Op.UPDATE) & (old != new)
    is_moving = np.zeros(len(keys[0]), dtype=bool)
    is_moving[old[moves]] = True
    is_moving[new[moves]] = True
    outcome = _fold_in_place(changes, np.flatnonzero(~(is_moving[old] | is_moving[new])), new)
    moving = np.flatnonzero(is_moving)
    return _folded(changes, outcome, keys), [take(column, moving) for column in keys]


def net_rows(batches: Sequence[ChangeBatch]) -> tuple[list[pa.Array], np.ndarray]:
    """The net effect on a table without a key, whose changes carry whole rows: how often each row came or went (A-46).

    Returns:
        Distinct rows as columns, and int64[n]: how many more (or, negative, fewer) of each there are now. Never 0.
    """
    changes = gather(batches)
    came, went = changes.after_row[changes.after_row != ABSENT], changes.before_row[changes.before_row != ABSENT]
    columns = [
        pa.concat_arrays(unified([take(after, came), take(before, went)]))
        for after, before in zip(changes.after, changes.before, strict=True)
    ]
    sign = np.concatenate([np.ones(len(came), dtype=np.int64), -np.ones(len(went), dtype=np.int64)])
    numbers, first = codes(columns)
    net = np.bincount(numbers, weights=sign, minlength=len(first)).astype(np.int64)
    left = np.flatnonzero(net)
    return [take(column, first[left]) for column in columns], net[left]


def _fold_in_place(changes: Gathered, at: np.ndarray, key: np.ndarray) -> _Outcome:
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
    changes: Gathered, at: np.ndarray, old: np.ndarray, new: np.ndarray, keys: list[pa.Array], exists: Exists
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
                raise InvariantError(f"A row of {changes.schema.table} was changed after it had gone.")
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
    changes: Gathered, at: np.ndarray, old: np.ndarray, new: np.ndarray, keys: list[pa.Array], exists: Exists
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


def _folded(changes: Gathered, outcome: _Outcome, keys: list[pa.Array]) -> Folded:
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
