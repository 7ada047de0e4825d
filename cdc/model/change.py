"""Changes: as columns, which is what moves through the pipeline, and as events, a view of them as rows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import pyarrow as pa

from cdc.model.arrays import take, texts
from cdc.model.parts import Key
from cdc.model.position import Position
from cdc.model.schema import TableName, TableSchema

ABSENT = -1  # in an index array: the change has no such row
VALUE_BYTES = 16  # of a value in an array, without its text: a string view
_ROW_BYTES = 64  # of the places of one change, while it is folded too


class Op(IntEnum):
    """What happened to a row."""

    INSERT = 1
    UPDATE = 2
    DELETE = 3
    TRUNCATE = 4

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Transaction:
    """One committed source transaction.

    Attributes:
        position: where its commit is. Known from its first change on; every change in it has the same.
        identity: the source's number for it (PostgreSQL: xid).
        committed_at: microseconds since the Unix epoch, by the source's clock.
    """

    position: Position
    identity: int
    committed_at: int


@dataclass(frozen=True, slots=True)
class Transactions:
    """The transactions of a segment as arrays of one length n, in commit order.

    Attributes:
        order: int64[n], where each commit is (`Position.order`).
        identity: int64[n], the source's numbers for them.
        committed_at: int64[n], microseconds since the Unix epoch, by the source's clock.
        write: how the source writes a position.
    """

    order: np.ndarray
    identity: np.ndarray
    committed_at: np.ndarray
    write: Callable[[int], str]

    @classmethod
    def none(cls) -> Transactions:
        """No transaction at all: what a snapshot's segments refer to."""
        empty = np.empty(0, dtype=np.int64)
        return cls(empty, empty, empty, str)

    @classmethod
    def joined(cls, parts: Sequence[Transactions]) -> Transactions:
        """Consecutive ones as one record."""
        parts = [part for part in parts if len(part)]
        if len(parts) <= 1:
            return parts[0] if parts else cls.none()
        firsts = [int(part.order[0]) for part in parts]

        def write(order: int) -> str:
            return parts[max(bisect_right(firsts, order) - 1, 0)].write(order)

        return cls(
            np.concatenate([part.order for part in parts]),
            np.concatenate([part.identity for part in parts]),
            np.concatenate([part.committed_at for part in parts]),
            write,
        )

    def __len__(self) -> int:
        return len(self.order)

    def part(self, begin: int, end: int) -> Transactions:
        """Some of them, in the same order."""
        return replace(
            self,
            order=self.order[begin:end],
            identity=self.identity[begin:end],
            committed_at=self.committed_at[begin:end],
        )

    def __getitem__(self, index: int) -> Transaction:
        order = int(self.order[index])
        position = Position(order, self.write(order))
        return Transaction(position, int(self.identity[index]), int(self.committed_at[index]))


@dataclass(frozen=True, slots=True)
class Rows:
    """Row images of one table as columns.

    Attributes:
        columns: one Arrow array per column of the schema, all of one length: of the column's own type where the source
            has values as such (numbers, bytes, moments), otherwise `string_view` of their canonical text.
        unchanged: per column a boolean mask of the values that the log left out because the change did not touch
            them (PostgreSQL: unchanged TOAST), or None where it left out none. A value under the mask is null in
            `columns` and means nothing.
    """

    columns: tuple[pa.Array, ...]
    unchanged: tuple[np.ndarray | None, ...]

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """Changes of one table under one version of its schema, in source order, as arrays of one length n.

    Attributes:
        schema: the version that every row has.
        op: uint8[n], `Op` values (INSERT, UPDATE, DELETE).
        transaction: int32[n], index into the segment's transactions.
        ordinal: int64[n], place among all the changes of its transaction, whatever their table.
        after: row images after the change, m rows; None if no change has one.
        after_row: int64[n], the row of `after`, or ABSENT (a delete).
        before: row images before the change, k rows: whole rows if `schema.full_before`, otherwise only the key
            columns mean anything. None if no change has one.
        before_row: int64[n], the row of `before`, or ABSENT (an insert, or an update that kept its key).
        copied: these are rows of a snapshot: all inserts, of no transaction, each key at most once.
        size: bytes that the source sent for this.
    """

    schema: TableSchema
    op: np.ndarray
    transaction: np.ndarray
    ordinal: np.ndarray
    after: Rows | None
    after_row: np.ndarray
    before: Rows | None
    before_row: np.ndarray
    copied: bool = False
    size: int = 0

    def __len__(self) -> int:
        return len(self.op)

    def rows(self, which: np.ndarray) -> ChangeBatch:
        """Some of the changes (int64[m]), in the same order; the row images stay as they are."""
        return replace(
            self,
            op=self.op[which],
            transaction=self.transaction[which],
            ordinal=self.ordinal[which],
            after_row=self.after_row[which],
            before_row=self.before_row[which],
        )

    @property
    def held(self) -> int:
        """Bytes that this takes in memory, about: a short value takes more in an array than in the log (E-08)."""
        images = sum(len(rows) for rows in (self.after, self.before) if rows is not None)
        return self.size + images * len(self.schema.columns) * VALUE_BYTES + len(self) * _ROW_BYTES


@dataclass(frozen=True, slots=True)
class ChangeEvent:
    """One row-level change: the uniform model.

    Attributes:
        op: what happened.
        table: to a row of which table.
        key: key columns and their values before the change for a delete, after it otherwise; None without a key.
        before: the old row, as far as the log carries it; None where it carries nothing.
        after: the new row without the columns that the log left out; None for a delete.
        unchanged: names of the columns that the log left out of `after`.
        position: the commit; with `ordinal` it orders all events of a source and names each of them once (A-66).
        ordinal: place in the transaction.
        transaction: the source's number for the transaction.
        committed_at: microseconds since the Unix epoch, by the source's clock.
    """

    op: Op
    table: TableName
    key: Mapping[str, str | None] | None
    before: Mapping[str, str | None] | None
    after: Mapping[str, str | None] | None
    unchanged: tuple[str, ...]
    position: Position
    ordinal: int
    transaction: int
    committed_at: int


def events(batch: ChangeBatch, transactions: Transactions) -> Iterator[ChangeEvent]:
    """See a batch as events, in its own order. Values stay canonical text."""
    columns, key = batch.schema.columns, batch.schema.key
    names = [column.name for column in columns]
    key_names = [names[index] for index in key]
    before_names = names if batch.schema.full_before else key_names
    after = list(zip(*(texts(column) for column in batch.after.columns), strict=True)) if batch.after else []
    before = list(zip(*(texts(column) for column in batch.before.columns), strict=True)) if batch.before else []
    masks, old_masks = (
        [(names[i], mask) for i, mask in enumerate(rows.unchanged) if mask is not None] if rows else []
        for rows in (batch.after, batch.before)
    )

    for row in range(len(batch)):
        transaction = transactions[batch.transaction[row]]
        at, was_at = int(batch.after_row[row]), int(batch.before_row[row])
        unchanged = tuple(name for name, mask in masks if at != ABSENT and mask[at])
        new = dict(zip(names, after[at], strict=True)) if at != ABSENT else None
        old = dict(zip(names, before[was_at], strict=True)) if was_at != ABSENT else None
        unknown = {name for name, mask in old_masks if was_at != ABSENT and mask[was_at]}
        identified_by = new if new is not None else old
        yield ChangeEvent(
            op=Op(batch.op[row]),
            table=batch.schema.table,
            key={name: identified_by[name] for name in key_names} if key_names and identified_by is not None else None,
            before={name: old[name] for name in before_names if name not in unknown} if old is not None else None,
            after={name: value for name, value in new.items() if name not in unchanged} if new is not None else None,
            unchanged=unchanged,
            position=transaction.position,
            ordinal=int(batch.ordinal[row]),
            transaction=transaction.identity,
            committed_at=transaction.committed_at,
        )


def lacking(batch: ChangeBatch) -> np.ndarray:
    """bool[n]: whether the log carries only a part of the row after each change."""
    there = batch.after_row != ABSENT
    masks = [mask for mask in batch.after.unchanged if mask is not None] if batch.after is not None else []
    if not masks:
        return np.zeros(len(batch), dtype=bool)
    found: np.ndarray = there & np.logical_or.reduce(masks)[np.where(there, batch.after_row, 0)]
    return found


def keys_after(batch: ChangeBatch, which: np.ndarray) -> set[Key]:
    """The keys that rows have after some changes (bool[n]), none of which is a delete."""
    if batch.after is None or not batch.schema.key or not which.any():
        return set()
    columns = [texts(take(batch.after.columns[index], batch.after_row[which])) for index in batch.schema.key]
    return {tuple(value or "" for value in key) for key in zip(*columns, strict=True)}
