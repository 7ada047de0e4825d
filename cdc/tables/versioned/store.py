"""The seam to a database that keeps versioned tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from cdc.model.schema import Column, TableName
from cdc.tables.engine import Database
from cdc.typed.native import Home

ORDER, ORDINAL, DELETED = "_cdc_order", "_cdc_ordinal", "_cdc_deleted"
POSITION, MOMENT = "_cdc_position", "_cdc_committed_at"
OP, TRANSACTION = "_cdc_op", "_cdc_transaction"
SAME = "same"  # as OP: a new copy has found the row again that ended where the copy began
COPIED = 1 << 63  # ordinals of copied rows begin here: they come after all changes up to the place of their copy
STAMPS = (ORDER, ORDINAL, POSITION, MOMENT)
STAMPS_OF_VERSIONS = (*STAMPS, OP, TRANSACTION)


@dataclass(frozen=True, slots=True)
class Shown:
    """A table as people read it.

    Attributes:
        identity: the source's number for it.
        name: under which they do.
        place: where its rows are.
        columns: those of the source.
        key: those of them that are its key.
        with_deleted: rows that were deleted are shown as well, with the time and the place of that.
    """

    identity: int
    name: TableName
    place: TableName
    columns: Sequence[str]
    key: Sequence[str]
    with_deleted: bool


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between which values of its first key column the rows of a part are, both included; None for no bound."""

    column: str
    low: int | str | None
    high: int | str | None


@dataclass(frozen=True, slots=True)
class Alteration:
    """What changes about a table's columns. No name is both taken away and given.

    Attributes:
        dropped: names.
        renamed: old name -> new name.
        added: name -> type.
        fill: name of an added column -> the value that the rows which are there have in it, as canonical text.
    """

    dropped: Sequence[str]
    renamed: Mapping[str, str]
    added: Mapping[str, Home]
    fill: Mapping[str, str]


class Store(Database, Protocol):
    """A database of versioned tables. Nothing here is undone: each call is durable when it returns.

    Each row has columns of ours beside the table's own: DELETED (bool), and STAMPS: ORDER (int64) and ORDINAL (uint64),
    which say where in the log it became so, POSITION (text) and MOMENT (microseconds, UTC). Where all versions are
    kept, it has STAMPS_OF_VERSIONS: what made it so (OP, text), and the source's number for the transaction
    (TRANSACTION, int64 or null) as well.

    Attributes:
        keeps_versions: of a key, every row that was ever appended is kept; otherwise the newest one is enough.
    """

    keeps_versions: bool

    def keep_versions(self) -> None:
        """Keep all versions from here on: said of every open database whose tables are a history, before anything else
        is done to them."""

    def home(self, column: Column) -> Home:
        """Where the values of a column live at first."""

    @property
    def text(self) -> Home:
        """What holds every value as the source's text."""

    def make(self, place: TableName, columns: Mapping[str, Home], key: Sequence[str], mark: str) -> None:
        """Make an empty table; one that is there goes.

        Args:
            mark: stays with the table.
        """

    def mark(self, place: TableName) -> str | None:
        """The mark of a table; None if there is no such table."""

    def drop(self, place: TableName) -> None:
        """Remove a table, if it is there."""

    def exchange(self, place: TableName, other: TableName) -> None:
        """Let two tables take each other's place in one step; if only the other is there, it moves to the place."""

    def alter(self, place: TableName, alteration: Alteration, mark: str) -> bool:
        """Change columns, and the mark last. What of it was done already, is not done again.

        Returns:
            False for a fill that the database would not keep exactly; then nothing was changed.
        """

    def append(self, place: TableName, rows: pa.Table) -> None:
        """Append rows, whose columns have the types of their homes, in their order: after a failure, the first of them
        may be there; of the changes of one ORDER and ORDINAL, which follow each other, all rows are or none is."""

    def reached(self, place: TableName, order: int) -> tuple[int, int]:
        """The latest ORDER and ORDINAL of a change, below those of copied rows, that a table has a row of; (-1, -1) for
        one without any from that order on."""

    def newest(self, place: TableName, homes: Mapping[str, Home], bounds: Bounds | None = None) -> Iterator[pa.Table]:
        """The newest row of each key that was not deleted, some columns of it; a superset where there are bounds."""

    def everything(self, place: TableName, homes: Mapping[str, Home]) -> Iterator[pa.Table]:
        """All rows that count, deleted ones too, with ours: the newest of each key, or every version."""

    def matching(self, place: TableName, homes: Mapping[str, Home], keys: pa.Table) -> pa.Table:
        """The newest rows that have some keys, deleted ones too; with the columns above.

        Args:
            keys: the key's columns, among those of `homes`.
        """

    def bury(self, place: TableName, columns: Sequence[str], version: pa.Table) -> None:
        """Append a deleted row for each one that was not deleted.

        Args:
            columns: those whose values it keeps.
            version: one row of stamps; rows that are newer stay.
        """

    def count_deleted(self, place: TableName, order: int) -> tuple[int, int]:
        """How many deleted rows below an order a table has, and how many rows in all, with those that newer ones
        hide."""

    def refuse_older(self, place: TableName, order: int) -> None:
        """Refuse rows below an order from now on, from any sender. Inserts that have begun may still be taken."""

    def merge(self, place: TableName) -> None:
        """Let go of rows that newer ones hide, as far as the database can do that now."""

    def hides_older(self, place: TableName, key: Sequence[str], order: int) -> bool:
        """Whether a row that was not deleted is there with the key of a deleted one, both below an order."""

    def remove_deleted(self, place: TableName, order: int) -> None:
        """Remove deleted rows below an order for good."""

    def names_of(self, table: TableName) -> Sequence[TableName]:
        """The names under which a table of that name is read: its own, and those of what is shown beside it."""

    def show(self, shown: Shown) -> None:
        """Let people read a table."""

    def add_commits(self, commits: pa.Table) -> None:
        """Let places be found in the log.

        Args:
            commits: of each, ORDER, POSITION, MOMENT and TRANSACTION, which is null for a copy.
        """

    def last_commit(self) -> int:
        """The largest ORDER of those; -1 if there are none."""

    def hide(self, name: TableName) -> None:
        """End that."""

    def number(self) -> int:
        """A number below 2**63 that is larger than each one before, of earlier openings as well. No clock is in it: one
        that goes back would make newer rows older (D-06)."""

    def records(self) -> dict[str, str]:
        """What was recorded, by its keys."""

    def record(self, records: Mapping[str, str | None]) -> None:
        """Keep records in the place of those with the same keys; None removes one.

        Raises:
            TargetBusy: another process took the lease.
        """
