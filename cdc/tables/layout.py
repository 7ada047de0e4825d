"""How the tables of a mode lie in a target: what a target of that mode does in its own way; the mirror is plain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Protocol

from cdc import faults
from cdc.errors import UsageError
from cdc.model.change import ChangeBatch
from cdc.model.parts import Part
from cdc.model.schema import TableName, TableSchema
from cdc.model.segment import Evolve
from cdc.tables import sql
from cdc.tables.apply import Applier
from cdc.tables.digest import part_condition
from cdc.tables.engine import Database, Engine
from cdc.tables.moments import Moments
from cdc.tables.table import TargetTable, create, emptied, evolve, held_columns, inspect
from cdc.target import HeldColumn


class Layout(Protocol):
    """Keeps the tables of one mode, in whatever transaction is open.

    Attributes:
        places: in how many tables of the target a table's columns are.
    """

    places: int

    def record(self, moments: Moments) -> None:
        """Transactions are about to be applied: whatever copies there were have ended."""

    def find(self, schema: TableSchema) -> TargetTable:
        """A table as this pipeline left it; raises TargetDrift if it is not so (D-08)."""

    def columns(self, schema: TableSchema) -> list[HeldColumn]:
        """The columns that are there for a table's, without those that a layout adds; none if it is not there."""

    def make(self, schema: TableSchema, known_as: TableName | None, moments: Moments, *, by_parts: bool) -> TargetTable:
        """A table into which a copy can go.

        Args:
            known_as: the name of the table in the target, if it has it already.
            by_parts: the rows that it has are put in the place of, part by part.
        """

    def evolve(self, table: TargetTable, step: Evolve) -> TargetTable:
        """Give a table another shape."""

    def refuse(self, schema: TableSchema, taken: Set[TableName]) -> None:
        """Raise UsageError for a new table that cannot be kept so, or whose name is one of those of `Engine.names`."""

    def write(self, table: TargetTable, batches: Sequence[ChangeBatch], moments: Moments) -> None:
        """Bring a table from before the batches to after them; raises TargetDrift if that cannot be (A-42)."""

    def truncate(self, table: TargetTable, moments: Moments, transaction: int, ordinal: int) -> None:
        """All rows of a table went, with one of the transactions."""

    def drop(self, table: TargetTable, moments: Moments, transaction: int) -> None:
        """The table is no more in the source."""

    def replace(self, table: TargetTable, part: Part, batches: Sequence[ChangeBatch], moments: Moments) -> None:
        """Put copied rows in the place of a part's."""

    def copied(self, schema: TableSchema, moments: Moments) -> None:
        """All parts of a table have been replaced."""

    def unknown_from(self, identity: int, order: int, reason: str, *, is_doubt: bool, is_skipped: bool) -> None:
        """From a place in the log on it is not known what a table's rows are; a doubt may turn out to be nothing. Where
        changes are skipped, only a copy that begins later ends that."""

    def known_at(self, identity: int, moments: Moments) -> None:
        """At a moment it is known again."""


class Mirror:
    """Tables that are what the source's are now."""

    places = 1

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._applier = Applier(engine)

    def record(self, moments: Moments) -> None:
        pass

    def find(self, schema: TableSchema) -> TargetTable:
        return inspect(self._engine, schema)

    def columns(self, schema: TableSchema) -> list[HeldColumn]:
        return held_columns(self._engine, schema)

    def make(self, schema: TableSchema, known_as: TableName | None, moments: Moments, *, by_parts: bool) -> TargetTable:
        may_stay = known_as == schema.table and self._engine.abilities.others_build_on
        table = emptied(self._engine, schema) if may_stay else None
        if table is None and known_as is not None:
            self._engine.run(sql.drop_table(known_as))
        faults.point("target.reset")
        if table is not None:
            return table
        with refusing_foreign(self._engine, schema.table):
            return create(self._engine, schema)

    def refuse(self, schema: TableSchema, taken: Set[TableName]) -> None:
        refuse_foreign(self._engine, schema.table, taken)

    def evolve(self, table: TargetTable, step: Evolve) -> TargetTable:
        return evolve(self._engine, table, step.new, step.fill)

    def write(self, table: TargetTable, batches: Sequence[ChangeBatch], moments: Moments) -> None:
        self._applier.write(table, batches)

    def truncate(self, table: TargetTable, moments: Moments, transaction: int, ordinal: int) -> None:
        self._engine.run(sql.delete_all(table.name))

    def drop(self, table: TargetTable, moments: Moments, transaction: int) -> None:
        pass

    def copied(self, schema: TableSchema, moments: Moments) -> None:
        pass

    def unknown_from(self, identity: int, order: int, reason: str, *, is_doubt: bool, is_skipped: bool) -> None:
        pass

    def known_at(self, identity: int, moments: Moments) -> None:
        pass

    def replace(self, table: TargetTable, part: Part, batches: Sequence[ChangeBatch], moments: Moments) -> None:
        self._engine.run(sql.delete_where(table.name, part_condition(self._engine, table, part)))
        if batches:
            self._applier.write(table, batches)


def refuse_foreign(engine: Database, table: TableName, taken: Set[TableName]) -> None:
    """Raise UsageError if the target has a table or view of that name: it is somebody else's."""
    sees_case = engine.abilities.sees_case
    if (table if sees_case else TableName(table.schema.lower(), table.name.lower())) in taken:
        raise foreign(engine, table)


@contextmanager
def refusing_foreign(engine: Engine, table: TableName) -> Iterator[None]:
    """The same where a table is made: the database finds it out by itself, without a look at all names (P21)."""
    try:
        yield
    except engine.failures as error:
        if not engine.is_taken(error):
            raise
        raise foreign(engine, table) from error


def foreign(engine: Database, table: TableName) -> UsageError:
    """That the database has a table or view of that name, which is somebody else's."""
    return UsageError(
        f"{engine.place} has a table {table} already, which this pipeline did not make.",
        hint="Remove or rename it, or use another target: cdc never adds to a table that it did not make.",
    )
