"""How the tables of a mode lie in the file: what a target of that mode does in its own way; the mirror is plain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import duckdb

from cdc import faults
from cdc.errors import UsageError
from cdc.model.change import ChangeBatch
from cdc.model.parts import Part
from cdc.model.schema import TableName, TableSchema
from cdc.model.segment import Evolve
from cdc.targets.duckdb import sql
from cdc.targets.duckdb.apply import Applier
from cdc.targets.duckdb.digest import part_condition
from cdc.targets.duckdb.moments import Moments
from cdc.targets.duckdb.table import TargetTable, create, evolve, inspect


class Layout(Protocol):
    """Keeps the tables of one mode, in whatever transaction is open.

    Attributes:
        places: in how many tables of the file a table's columns are.
    """

    places: int

    def record(self, moments: Moments) -> None:
        """Transactions are about to be applied: whatever copies there were have ended."""

    def find(self, schema: TableSchema) -> TargetTable:
        """A table as this pipeline left it; raises TargetDrift if it is not so (D-08)."""

    def make(self, schema: TableSchema, known_as: TableName | None, moments: Moments, *, by_parts: bool) -> TargetTable:
        """A table into which a copy can go.

        Args:
            known_as: the name of the table in the target, if it has it already.
            by_parts: the rows that it has are put in the place of, part by part.
        """

    def evolve(self, table: TargetTable, step: Evolve) -> TargetTable:
        """Give a table another shape."""

    def write(self, table: TargetTable, batches: Sequence[ChangeBatch], moments: Moments) -> None:
        """Bring a table from before the batches to after them; raises TargetDrift if that cannot be (A-42)."""

    def truncate(self, table: TargetTable, moments: Moments, transaction: int, ordinal: int) -> None:
        """All rows of a table went, with one of the transactions."""

    def replace(self, table: TargetTable, part: Part, batches: Sequence[ChangeBatch], moments: Moments) -> None:
        """Put copied rows in the place of a part's."""


class Mirror:
    """Tables that are what the source's are now."""

    places = 1

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._applier = Applier(connection)

    def record(self, moments: Moments) -> None:
        pass

    def find(self, schema: TableSchema) -> TargetTable:
        return inspect(self._connection, schema)

    def make(self, schema: TableSchema, known_as: TableName | None, moments: Moments, *, by_parts: bool) -> TargetTable:
        if known_as is not None:
            self._connection.execute(sql.drop_table(known_as))
        else:
            refuse_foreign(self._connection, self._path, schema.table)
        faults.point("target.reset")
        return create(self._connection, schema)

    def evolve(self, table: TargetTable, step: Evolve) -> TargetTable:
        return evolve(self._connection, table, step.new, step.fill)

    def write(self, table: TargetTable, batches: Sequence[ChangeBatch], moments: Moments) -> None:
        self._applier.write(table, batches)

    def truncate(self, table: TargetTable, moments: Moments, transaction: int, ordinal: int) -> None:
        self._connection.execute(sql.delete_all(table.name))

    def replace(self, table: TargetTable, part: Part, batches: Sequence[ChangeBatch], moments: Moments) -> None:
        self._connection.execute(sql.delete_where(table.name, part_condition(table, part)))
        if batches:
            self._applier.write(table, batches)


def refuse_foreign(connection: duckdb.DuckDBPyConnection, path: Path, table: TableName) -> None:
    """Raise UsageError if the file has a table or view of that name: it is somebody else's."""
    found = connection.execute(
        "SELECT count(*) FROM information_schema.tables WHERE table_catalog = current_database() "
        "AND lower(table_schema) = lower(?) AND lower(table_name) = lower(?)",
        [table.schema, table.name],
    ).fetchone()
    if found is not None and found[0] > 0:
        raise UsageError(
            f"{path} has a table {table} already, which this pipeline did not make.",
            hint="Remove or rename it, or use another file: cdc never adds to a table that it did not make.",
        )
