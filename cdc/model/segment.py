"""Segments: consecutive whole transactions as steps in source order, the unit of apply and of checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

from cdc.model.change import ChangeBatch, Transactions
from cdc.model.position import Checkpoint
from cdc.model.schema import TableSchema


@dataclass(frozen=True, slots=True)
class Changes:
    """Row changes of one table. Steps of different tables between two barriers may be in any order."""

    batch: ChangeBatch


@dataclass(frozen=True, slots=True)
class Reset:
    """A barrier: the table is about to be copied, so whatever the target held of it goes, and it exists afterwards."""

    schema: TableSchema


@dataclass(frozen=True, slots=True)
class Truncate:
    """A barrier: all rows of the table went.

    Attributes:
        schema: the table.
        transaction: index into the segment's transactions.
        ordinal: place in that transaction.
    """

    schema: TableSchema
    transaction: int
    ordinal: int


@dataclass(frozen=True, slots=True)
class Evolve:
    """A barrier: the table has another shape from here on.

    Attributes:
        old, new: the versions; columns are matched by their identity, never by name.
        transaction: index into the segment's transactions, of the first transaction that uses the new shape.
        fill: per identity of an added column, the value (canonical text) that rows written before it have (A-48);
            a column that is not named here is null in them.
    """

    old: TableSchema
    new: TableSchema
    transaction: int
    fill: dict[int, str] = field(default_factory=dict)


Step = Changes | Reset | Truncate | Evolve


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive whole transactions, or a part of one that is too large for one segment.

    Attributes:
        steps: in source order.
        transactions: those that the steps refer to, in commit order.
        checkpoint: what the target holds once this is applied; None if the last transaction goes on in the next
            segment, in which case nothing of it may become visible or durable yet.
    """

    steps: list[Step]
    transactions: Transactions
    checkpoint: Checkpoint | None
    size: int = 0

    @property
    def row_count(self) -> int:
        return sum(len(step.batch) for step in self.steps if isinstance(step, Changes))
