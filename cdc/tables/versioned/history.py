"""History in versioned tables: every version of a row is appended, and stays.

A deleted row says where the version before it ends. Where a copy begins that takes the place of what is there, all rows
are deleted (`copy`); those that it finds again come as SAME, so that who reads versions can leave out both.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc import faults
from cdc.errors import UsageError
from cdc.model.change import ChangeBatch
from cdc.model.gathered import Gathered
from cdc.model.parts import Part
from cdc.model.schema import TableName, TableSchema
from cdc.model.versions import RowsOfKeys, Versions, all_of_keys
from cdc.tables.layout import foreign, refuse_foreign
from cdc.tables.moments import Moments
from cdc.tables.places import NOT_YET
from cdc.tables.table import TargetTable
from cdc.tables.versioned.layout import Versioned, VersionedTable, among
from cdc.tables.versioned.looking import Looking
from cdc.tables.versioned.pasts import Pasts
from cdc.tables.versioned.shapes import Shapes, place_of
from cdc.tables.versioned.state import VersionedState
from cdc.tables.versioned.store import DELETED, MOMENT, OP, ORDER, POSITION, SAME, TRANSACTION, Store
from cdc.tables.versions import COPY, DROP, labels
from cdc.target import Mode
from cdc.typed.native import Converter


class VersionedHistory(Versioned):
    """Keeps the versions of tables (see `cdc.tables.layout.Layout`)."""

    def __init__(
        self, store: Store, state: VersionedState, shapes: Shapes, converter: Converter, looking: Looking
    ) -> None:
        super().__init__(store, shapes, converter, looking, Mode.HISTORY)
        self._state = state
        self._pasts = Pasts(state)
        self._newest_commit: int | None = None

    def record(self, moments: Moments) -> None:
        last = self._newest_commit if self._newest_commit is not None else self._store.last_commit()
        commits = pa.table(dict(zip((ORDER, POSITION, MOMENT, TRANSACTION), moments.columns, strict=True)))
        new = commits.filter(pa.array(moments.order > last))
        if len(new):
            self._store.add_commits(new)
        self._newest_commit = max(last, int(moments.order[-1]))
        if moments.transactions is not None:
            self._pasts.copies_end(moments.order)

    # --- shapes -----------------------------------------------------------------------------------------------------

    def make(
        self, schema: TableSchema, known_as: TableName | None, moments: Moments, *, by_parts: bool
    ) -> VersionedTable:
        self.refuse_shape(schema)
        faults.point("target.reset")
        for name in self._store.names_of(schema.table):
            if self._shapes.owner(schema.table) is None and self._store.columns(name):
                raise foreign(self._store, name)
        self.record(moments)
        order = int(moments.order[0])
        shape = self._shapes.copy_again(schema)
        if shape is None:
            self._pasts.begin(schema.identity, NOT_YET if by_parts else order)
            return self._table(schema, self._shapes.make(schema, at_once=True))
        table = self._table(schema, shape)
        if by_parts:
            self._pasts.nothing_is_skipped(schema.identity)
        else:
            self._pasts.copy_begins(schema.identity, order)
            self._bury(table, self._of_copy(moments, 1))
            table.had_rows = True
        return table

    def refuse(self, schema: TableSchema, taken: Set[TableName]) -> None:
        self.refuse_shape(schema)
        if self._shapes.owner(schema.table) is None:
            for name in self._store.names_of(schema.table):
                refuse_foreign(self._store, name, taken)

    def refuse_shape(self, schema: TableSchema) -> None:
        super().refuse_shape(schema)
        if (other := self._shapes.clash(schema)) is not None:
            raise UsageError(
                f"{schema.table} and {other} would have the same name for the views of their histories.",
                hint="Leave one of them out with --exclude, or keep a mirror.",
            )

    def drop(self, table: TargetTable, moments: Moments, transaction: int) -> None:
        assert isinstance(table, VersionedTable)
        self.record(moments)
        self._bury(table, self._of_copy(moments, 1, DROP, transaction))
        identity, order = table.schema.identity, int(moments.order[transaction])
        self._pasts.nothing_is_skipped(identity)
        self._known_at(identity, order)
        self._pasts.is_whole(identity, order)

    # --- rows -------------------------------------------------------------------------------------------------------

    def _rows_of_keys(self, changes: Gathered, versions: Versions) -> RowsOfKeys:
        return all_of_keys(changes, versions)

    def _append_copied(self, table: VersionedTable, rows: pa.Table, moments: Moments) -> None:
        if not table.had_rows:
            super()._append_copied(table, rows, moments)
            return
        key = rows.select([table.schema.columns[index].name for index in table.schema.key])
        homes = self._homes_of(table, range(len(table.schema.columns)))
        there = self._store.matching(table.name, homes, key)
        ended = there.filter(pc.and_(there.column(DELETED), pc.equal(there.column(OP), labels(np.array([COPY]))[0])))
        same = pa.array(among(rows, ended.select(rows.column_names)))
        stamps = self._of_copy(moments, len(rows))
        op = pc.if_else(same, SAME, stamps.column(OP))
        stamps = stamps.set_column(stamps.column_names.index(OP), OP, op)
        self._append(table, rows, stamps, np.zeros(len(rows), dtype=bool))

    def replace(self, table: TargetTable, part: Part, batches: Sequence[ChangeBatch], moments: Moments) -> None:
        assert isinstance(table, VersionedTable)
        self.record(moments)
        if self._replace(table, part, batches, moments):
            self._pasts.differed(table.schema.identity)

    # --- what is known ----------------------------------------------------------------------------------------------

    def copied(self, schema: TableSchema, moments: Moments) -> None:
        self.known_at(schema.identity, moments)
        self._pasts.is_whole(schema.identity, int(moments.order[0]))

    def unknown_from(self, identity: int, order: int, reason: str, *, is_doubt: bool, is_skipped: bool) -> None:
        self._pasts.unknown_from(identity, order, reason, is_doubt=is_doubt, is_skipped=is_skipped)

    def known_at(self, identity: int, moments: Moments) -> None:
        self.record(moments)
        self._known_at(identity, int(moments.order[0]))

    def _known_at(self, identity: int, order: int) -> None:
        """At a place it is known again; where no row differed, that is where the table was changed last."""
        doubt = self._pasts.doubt(identity)
        if doubt is not None:
            changed, _ = self._store.reached(place_of(identity), doubt.begins)
            order = min(order, changed + 1)
        self._pasts.known_at(identity, order)
