"""From changes to versions: which version of a row each change ends, and which one it begins. Nothing is folded.

A key can be held by two rows for a moment, between the rows of one statement that swaps keys. So a row that comes to a
key takes a *place* behind those that have it. A row that goes leaves the first place that is not left yet. A row that
keeps its key stays where it is. All changes of one place follow each other: each ends what the one before began. A
table without a key is the same with whole rows as keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cdc.errors import InvariantError, RowDrift
from cdc.model.arrays import take
from cdc.model.change import ABSENT, Op
from cdc.model.gathered import Gathered, key_codes

Held = Callable[[np.ndarray, list[pa.Array]], np.ndarray]


@dataclass(frozen=True, slots=True)
class Versions:
    """What changes do to the versions of a table's rows.

    Attributes:
        keys: key columns (or all columns) of the keys that the changes name, by their numbers.
        ending: int64[e], changes that end a version from before.
        ending_key, ending_place: int64[e], which one: its key, and its place among those of that key, oldest first.
        beginning: int64[v], changes that begin a version, in order.
        key: int64[v], the key that it has.
        ended_by: int64[v], the change that ends it, ABSENT if it stays.
        value: int64[columns, v], rows of `after`; ABSENT where the value is that of the version `origin`.
        origin: int64[v], index into `ending`, ABSENT if nothing is taken from there.
        missed: int64[k], numbers of keys of which not enough is known, in a table that does not have all of its rows.
    """

    keys: list[pa.Array]
    ending: np.ndarray
    ending_key: np.ndarray
    ending_place: np.ndarray
    beginning: np.ndarray
    key: np.ndarray
    ended_by: np.ndarray
    value: np.ndarray
    origin: np.ndarray
    missed: np.ndarray


@dataclass(frozen=True, slots=True)
class _Places:
    """The changes at each place of each key: one entry per change and place, sorted.

    Attributes:
        change, key, place: int64[n].
        is_end: bool[n], the change ends what holds the place.
        is_begin: bool[n], it begins something there.
        is_first: bool[n], the entry is the first of its place.
    """

    change: np.ndarray
    key: np.ndarray
    place: np.ndarray
    is_end: np.ndarray
    is_begin: np.ndarray
    is_first: np.ndarray


@dataclass(frozen=True, slots=True)
class _Named:
    """Changes with the keys that they name.

    Attributes:
        old, new: int64[n], the numbers of the keys that a row has before and after each change.
        keys: key columns of these.
        moves, goes, comes: bool[n]: a row gets another key; it leaves its old one; it comes to its new one.
        there: int64[keys], how many rows with each key the table has before, of those that were asked for.
    """

    changes: Gathered
    old: np.ndarray
    new: np.ndarray
    keys: list[pa.Array]
    moves: np.ndarray
    goes: np.ndarray
    comes: np.ndarray
    there: np.ndarray

    @property
    def is_crowded(self) -> bool:
        """Whether some key would have two rows at any moment, as where the table has rows that it should not."""
        left, taken = np.flatnonzero(self.goes), np.flatnonzero(self.comes)
        change = np.concatenate([left, taken])
        key = np.concatenate([self.old[left], self.new[taken]])
        step = np.repeat([-1, 1], [len(left), len(taken)])
        order = np.lexsort((step, change, key))
        key, step = key[order], step[order]
        rows = np.cumsum(step)
        begins = np.flatnonzero(np.diff(key, prepend=-1))
        rows -= np.repeat(rows[begins] - step[begins], np.diff([*begins, len(key)]))
        return bool((self.there > 1).any() or (self.there[key] + rows > 1).any())


def trace(changes: Gathered, held: Held, *, in_part: bool = False, trusting: bool = False) -> Versions:
    """Find the versions that changes of one table end and begin.

    Args:
        held: says of some keys (their numbers, and their columns) how many rows with each the table has before.
        in_part: the table does not have all of its rows yet. What ends and is not there is passed over, and what
            begins takes the place of whatever has its key.
        trusting: a row that is changed is taken to be there, and one that is new not to be. Asked is only about keys
            that rows move to before they leave them: the changes alone do not tell a swap of two keys from a row that
            goes there and back.

    Raises:
        RowDrift: a row is changed that is not there (A-42).
        InvariantError: a new row came without all of its values.
    """
    if not in_part and (changes.op == Op.INSERT).all():
        return _only_inserts(changes)
    schema = changes.schema
    old, new, keys = key_codes(changes, schema.key or range(len(schema.columns)))
    moves = (changes.op == Op.UPDATE) & (old != new)
    goes, comes = moves | (changes.op == Op.DELETE), moves | (changes.op == Op.INSERT)
    there = np.zeros(len(keys[0]), dtype=np.int64)
    if trusting:
        leaves, arrives = _first(old, changes.op != Op.INSERT, len(there)), _first(new, comes, len(there))
        there[leaves < arrives] = 1
        asked = np.flatnonzero((arrives < leaves) & (leaves < len(changes.op)))
        asked = asked[moves[arrives[asked]]]
    else:
        asked = np.unique(np.concatenate([old[~(changes.op == Op.INSERT)], new if in_part else new[:0]]))
    there[asked] = held(asked, [take(column, asked) for column in keys])
    named = _Named(changes, old, new, keys, moves, goes, comes, there)
    if in_part and (schema.key and named.is_crowded):
        return _traced(named, in_part=True)
    try:
        return _traced(named, in_part=False)
    except (RowDrift, InvariantError):
        if not in_part:
            raise
    # Only now, since a table that may lack rows mostly has those that change, of which nothing need be given up.
    return _traced(named, in_part=True)


@dataclass(frozen=True, slots=True)
class RowsOfKeys:
    """Rows that keys have from some changes on, or that they have no row from there on.

    Attributes:
        keys: key columns, n rows.
        value, source: as `Versions.value` and `Versions.origin`.
        deleted_by: int64[n], the change that ended it, ABSENT if none did.
        change: int64[n], the change that made it what it is: the one that ended it, or the one that began it.
    """

    keys: list[pa.Array]
    value: np.ndarray
    source: np.ndarray
    deleted_by: np.ndarray
    change: np.ndarray


def last_of_keys(changes: Gathered, versions: Versions) -> RowsOfKeys:
    """The row that each key has in the end."""
    if not versions.keys:
        return _inserted(changes, versions)
    order = np.lexsort((versions.ended_by, versions.ended_by == ABSENT, versions.key))
    is_last = np.ones(len(order), dtype=bool)
    is_last[:-1] = versions.key[order][1:] != versions.key[order][:-1]
    chosen = order[is_last]
    ended_by = versions.ended_by[chosen]
    gone = np.flatnonzero(~np.isin(versions.ending_key, versions.key[chosen]))
    untouched = np.full((len(versions.value), len(gone)), ABSENT)
    return RowsOfKeys(
        keys=[
            take(column, np.concatenate([versions.key[chosen], versions.ending_key[gone]])) for column in versions.keys
        ],
        value=np.concatenate([versions.value[:, chosen], untouched], axis=1),
        source=np.concatenate([versions.origin[chosen], gone]),
        deleted_by=np.concatenate([ended_by, versions.ending[gone]]),
        change=np.concatenate(
            [np.where(ended_by == ABSENT, versions.beginning[chosen], ended_by), versions.ending[gone]]
        ),
    )


def all_of_keys(changes: Gathered, versions: Versions) -> RowsOfKeys:
    """Every row that keys get, and each change after which a key has none. One that has two rows for a moment has the
    one that came later."""
    if not versions.keys:
        return _inserted(changes, versions)
    key, change = _freed(versions)
    nothing = np.full(len(key), ABSENT)
    begun = len(versions.beginning)
    return RowsOfKeys(
        keys=[take(column, np.concatenate([versions.key, key])) for column in versions.keys],
        value=np.concatenate([versions.value, np.full((len(versions.value), len(key)), ABSENT)], axis=1),
        source=np.concatenate([versions.origin, nothing]),
        deleted_by=np.concatenate([np.full(begun, ABSENT), change]),
        change=np.concatenate([versions.beginning, change]),
    )


def _inserted(changes: Gathered, versions: Versions) -> RowsOfKeys:
    """Inserts alone: each key once."""
    keys = [take(changes.after[index], versions.value[index]) for index in changes.schema.key]
    return RowsOfKeys(keys, versions.value, versions.origin, versions.ended_by, versions.beginning)


def _freed(versions: Versions) -> tuple[np.ndarray, np.ndarray]:
    """int64[k], int64[k]: keys, and the changes after which no row has them."""
    ended = versions.ended_by != ABSENT
    end_key = np.concatenate([versions.ending_key, versions.key[ended]])
    end_change = np.concatenate([versions.ending, versions.ended_by[ended]])
    width = 1 + max(int(end_change.max(initial=0)), int(versions.beginning.max(initial=0)))
    ends, begins = end_key * width + end_change, versions.key * width + versions.beginning
    goes, comes = ends[~np.isin(ends, begins)], begins[~np.isin(begins, ends)]  # the others keep their key
    place = np.concatenate([goes, comes])
    step = np.repeat([-1, 1], [len(goes), len(comes)])
    order = np.argsort(place)
    place, step = place[order], step[order]
    key = place // width
    rows = np.bincount(versions.ending_key, minlength=len(versions.keys[0]))[
        key
    ]  # those from before, of which each ends
    counted = np.cumsum(step)
    first = np.flatnonzero(np.diff(key, prepend=-1))
    before = np.repeat(counted[first] - step[first], np.diff([*first, len(key)]))
    freed = (step < 0) & (rows + counted - before <= 0)
    return key[freed], place[freed] % width


def _first(key: np.ndarray, which: np.ndarray, count: int) -> np.ndarray:
    """int64[count]: the first of some changes (bool[n]) that names each key, n if none of them does."""
    first = np.full(count, len(key))
    at = np.flatnonzero(which)
    keys, places = np.unique(key[at], return_index=True)
    first[keys] = at[places]
    return first


def _traced(named: _Named, *, in_part: bool) -> Versions:
    changes, old, new = named.changes, named.old, named.new
    schema, count, keys, there = changes.schema, len(changes.op), named.keys, named.there
    places = _places(named.goes, named.comes, old, new, there, follow=not (in_part and schema.key))
    begun = np.zeros(len(places.change), dtype=bool)  # whether the entry before has begun what holds the place now
    begun[1:] = ~places.is_first[1:] & places.is_begin[:-1]
    before = np.roll(places.change, 1)
    ended_by, parent = np.full(count, ABSENT), np.full(count, ABSENT)
    ended_by[before[begun]] = places.change[begun]
    continued = begun & places.is_end
    parent[places.change[continued]] = before[continued]

    is_old = places.is_first & (places.place < there[places.key])
    if not in_part and (places.is_end & ~begun & ~is_old).any():
        raise RowDrift(
            f"A row of {schema.table} was changed in the source, but the target does not have it.",
            hint=f"Read it again: `cdc resync SOURCE TARGET --tables {schema.table}`.",
        )
    ending = np.flatnonzero(is_old)
    source = np.full(count, ABSENT)
    of_own = np.flatnonzero(places.is_end[ending])
    source[places.change[ending[of_own]]] = of_own

    beginning = np.flatnonzero(changes.after_row != ABSENT)
    value = _values(changes, beginning, parent)
    lacks = (value == ABSENT).any(axis=0)
    origin = np.where(lacks, source[_last(np.where(parent == ABSENT, np.arange(count), parent))[beginning]], ABSENT)
    lost = lacks & (origin == ABSENT)
    if lost.any() and not in_part:
        raise InvariantError(f"A new row of {schema.table} came without all of its values.")
    moves = named.moves
    missed = np.unique(np.concatenate([old[moves], new[moves], new[beginning[lost]]])) if in_part else old[:0]
    kept = np.flatnonzero(~lost)
    return Versions(
        keys=keys,
        ending=places.change[ending],
        ending_key=places.key[ending],
        ending_place=places.place[ending],
        beginning=beginning[kept],
        key=new[beginning[kept]],
        ended_by=ended_by[beginning[kept]],
        value=value[:, kept],
        origin=origin[kept],
        missed=missed,
    )


def _only_inserts(changes: Gathered) -> Versions:
    none = np.empty(0, dtype=np.int64)
    beginning = np.arange(len(changes.op))
    value = np.tile(changes.after_row, (len(changes.schema.columns), 1))
    for index, mask in enumerate(changes.unchanged):
        if mask is not None and mask[changes.after_row].any():
            name = changes.schema.columns[index].name
            raise InvariantError(f"A new row of {changes.schema.table} came without its {name}.")
    absent = np.full(len(beginning), ABSENT)
    return Versions([], none, none, none, beginning, none, absent, value, absent, none)


def _places(
    goes: np.ndarray, comes: np.ndarray, old: np.ndarray, new: np.ndarray, there: np.ndarray, *, follow: bool
) -> _Places:
    """Give each change its places; without `follow`, each key has a single one."""
    ends = np.flatnonzero(goes | ~comes)
    begins = np.flatnonzero(comes)
    change = np.concatenate([ends, begins])
    key = np.concatenate([old[ends], new[begins]])
    place = np.zeros(len(change), dtype=np.int64)
    if follow:
        place[: len(ends)] = _counted(old, goes)[ends]
        place[len(ends) :] = (_counted(new, comes) + there[new])[begins]
    is_end = np.arange(len(change)) < len(ends)
    order = np.lexsort((change, place, key))
    change, key, place, is_end = change[order], key[order], place[order], is_end[order]
    is_first = np.ones(len(change), dtype=bool)
    is_first[1:] = (key[1:] != key[:-1]) | (place[1:] != place[:-1])
    return _Places(change, key, place, is_end, ~is_end | ~goes[change], is_first)


def _counted(key: np.ndarray, which: np.ndarray) -> np.ndarray:
    """int64[n]: how many of the changes before each one, with the same key, are of a kind (bool[n])."""
    order = np.argsort(key, kind="stable")
    sorted_key = key[order]
    before = np.cumsum(which[order]) - which[order]
    is_first = np.ones(len(key), dtype=bool)
    is_first[1:] = sorted_key[1:] != sorted_key[:-1]
    begins = np.flatnonzero(is_first)
    counted = np.empty(len(key), dtype=np.int64)
    counted[order] = before - np.repeat(before[begins], np.diff([*begins, len(key)]))
    return counted


def _values(changes: Gathered, beginning: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """int64[columns, v]: the row of `after` that has each value, in the version itself or in one that it continues."""
    row = changes.after_row
    value = np.empty((len(changes.unchanged), len(beginning)), dtype=np.int64)
    for index, mask in enumerate(changes.unchanged):
        if mask is None:
            value[index] = row[beginning]
            continue
        left_out = (row != ABSENT) & mask[row]
        found = _last(np.where(left_out & (parent != ABSENT), parent, np.arange(len(row))))[beginning]
        value[index] = np.where(left_out[found], ABSENT, row[found])
    return value


def _last(step: np.ndarray) -> np.ndarray:
    """Where one comes to by following steps (int64[n], each to itself or further back) to the end of each chain."""
    while True:
        further = step[step]
        if np.array_equal(further, step):
            return step
        step = further
