"""The DuckDB target: segments in, whole transactions together with their checkpoint in the file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np

from cdc import faults
from cdc.errors import InvariantError, UsageError
from cdc.model.change import ChangeBatch, Transactions
from cdc.model.position import Checkpoint
from cdc.model.schema import TableSchema
from cdc.model.segment import Changes, Evolve, Reset, Segment, Step, Truncate
from cdc.targets.duckdb import sql
from cdc.targets.duckdb.apply import Applier
from cdc.targets.duckdb.connection import mapped_errors, open_file
from cdc.targets.duckdb.state import SCHEMA, StateTables
from cdc.targets.duckdb.table import TargetTable, create, evolve, inspect

log = logging.getLogger(__name__)


class DuckDbTarget:
    """One DuckDB file as a `cdc.target.Target`. DuckDB's lock on the file is the lease (D-17)."""

    def __init__(self, path: Path, memory: int) -> None:
        self._path = path
        self._memory = memory
        self._connection: duckdb.DuckDBPyConnection
        self._state: StateTables
        self._applier: Applier
        self._tables: dict[int, TargetTable] = {}
        self._in_transaction = False
        self._is_open = False

    def open(self) -> Checkpoint | None:
        self._connection = open_file(self._path, self._memory)
        self._is_open = True
        self._tables = {}
        self._in_transaction = False
        self._applier = Applier(self._connection)
        self._state = StateTables(self._connection)
        with mapped_errors(self._path):
            return self._state.open()

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        with mapped_errors(self._path):
            if self._in_transaction:
                self._connection.execute("ROLLBACK")
                self._in_transaction = False
            self._connection.close()

    def apply(self, segment: Segment) -> None:
        if self._is_old(segment):
            return
        with mapped_errors(self._path):
            if not self._in_transaction:
                self._connection.execute("BEGIN TRANSACTION")
                self._in_transaction = True
            self._take(segment)
            if segment.checkpoint is None:
                return
            self._state.write(segment.checkpoint)
            faults.point("target.before_commit")
            self._connection.execute("COMMIT")
            self._in_transaction = False
            faults.point("target.after_commit")

    def _is_old(self, segment: Segment) -> bool:
        """Whether the target is further than the whole segment (D-05)."""
        at = self._state.position
        return segment.checkpoint is not None and at is not None and segment.checkpoint.position < at

    def _take(self, segment: Segment) -> None:
        """The steps in order. Changes of one table are gathered up to its next barrier, or the segment's end."""
        gathered: dict[int, list[ChangeBatch]] = {}
        for step in self._new_steps(segment):
            if isinstance(step, Changes):
                gathered.setdefault(step.batch.schema.identity, []).append(step.batch)
                continue
            schema = step.old if isinstance(step, Evolve) else step.schema
            self._write(gathered.pop(schema.identity, []))
            if isinstance(step, Reset):
                self._reset(step.schema)
            elif isinstance(step, Truncate):
                self._connection.execute(sql.delete_all(self._table(step.schema).name))
            else:
                self._evolve(step)
        for batches in gathered.values():
            self._write(batches)

    def _new_steps(self, segment: Segment) -> list[Step]:
        """The steps without what lies before the checkpoint, if the segment reaches back behind it (D-05)."""
        at = self._state.position
        order = segment.transactions.order
        if at is None or not len(order) or order[0] >= at.order:
            return segment.steps
        steps: list[Step] = []
        for step in segment.steps:
            if isinstance(step, Changes):
                if (batch := _since(step.batch, segment.transactions, at.order)) is not None:
                    steps.append(Changes(batch))
            elif isinstance(step, Reset) or order[step.transaction] >= at.order:
                steps.append(step)
        return steps

    def _write(self, batches: Sequence[ChangeBatch]) -> None:
        if batches:
            self._applier.write(self._table(batches[0].schema), batches)

    def _table(self, schema: TableSchema) -> TargetTable:
        table = self._tables.get(schema.identity)
        if table is None:
            table = self._tables[schema.identity] = inspect(self._connection, schema)
        if table.schema is not schema and table.schema != schema:
            raise InvariantError(f"Changes of {schema.table} came in another shape than the table has.")
        return table

    def _reset(self, schema: TableSchema) -> None:
        """An empty table where the rows of a snapshot can go."""
        owned = self._state.owned()
        for identity, name in owned.items():
            same = (name.schema.lower(), name.name.lower()) == (schema.table.schema.lower(), schema.table.name.lower())
            if same and identity != schema.identity:
                raise UsageError(
                    f"{schema.table} and {name} are one name to DuckDB, which does not see case.",
                    hint="Leave one of them out with --exclude.",
                )
        if schema.table.schema.lower() == SCHEMA:
            raise UsageError(f"The schema {schema.table.schema} has the name of cdc's own.", hint="Leave it out.")
        if schema.identity in owned:
            self._connection.execute(sql.drop_table(owned[schema.identity]))
        elif self._exists(schema):
            raise UsageError(
                f"{self._path} has a table {schema.table} already, which this pipeline did not make.",
                hint="Remove or rename it, or use another file: cdc never adds to a table that it did not make.",
            )
        self._tables[schema.identity] = create(self._connection, schema)
        self._state.own(schema.identity, schema.table)

    def _exists(self, schema: TableSchema) -> bool:
        found = self._connection.execute(
            "SELECT count(*) FROM information_schema.tables WHERE table_catalog = current_database() "
            "AND lower(table_schema) = lower(?) AND lower(table_name) = lower(?)",
            [schema.table.schema, schema.table.name],
        ).fetchone()
        return found is not None and found[0] > 0

    def _evolve(self, step: Evolve) -> None:
        table = self._table(step.old)
        self._tables[step.new.identity] = evolve(self._connection, table, step.new, step.fill)
        if step.old.table != step.new.table:
            self._state.own(step.new.identity, step.new.table)


def _since(batch: ChangeBatch, transactions: Transactions, order: int) -> ChangeBatch | None:
    """The changes of a batch that were committed at or after a position."""
    rows = np.flatnonzero(transactions.order[batch.transaction] >= order)
    if len(rows) == 0:
        return None
    return replace(
        batch,
        op=batch.op[rows],
        transaction=batch.transaction[rows],
        ordinal=batch.ordinal[rows],
        after_row=batch.after_row[rows],
        before_row=batch.before_row[rows],
    )
