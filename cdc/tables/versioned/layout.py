"""Versioned tables: what changes append to them (see `cdc.tables.layout.Layout`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc import faults
from cdc.errors import InvariantError, RowDrift, TargetDrift, UsageError
from cdc.model.arrays import take, texts
from cdc.model.change import ABSENT, ChangeBatch, Op
from cdc.model.gathered import Gathered, codes, gather
from cdc.model.parts import Part
from cdc.model.schema import TableName, TableSchema
from cdc.model.segment import Evolve
from cdc.model.versions import RowsOfKeys, Versions, last_of_keys, trace
from cdc.tables.layout import foreign, refuse_foreign
from cdc.tables.moments import Moments
from cdc.tables.table import TargetTable
from cdc.tables.versioned.looking import Looking
from cdc.tables.versioned.shapes import Shapes
from cdc.tables.versioned.state import Shape
from cdc.tables.versioned.store import (
    COPIED,
    DELETED,
    MOMENT,
    OP,
    ORDER,
    ORDINAL,
    POSITION,
    STAMPS,
    STAMPS_OF_VERSIONS,
    TRANSACTION,
    Bounds,
    Store,
)
from cdc.tables.versions import COPY, labels, refuse_reserved
from cdc.target import HeldColumn, Mode
from cdc.typed.native import Converter, Home

_BLOCK_ROWS = 250_000


@dataclass(slots=True)
class VersionedTable(TargetTable):
    """A table of a store.

    Attributes:
        homes: per column of the schema, where its values live.
        shape: the table as it is in the database, which is ahead of `schema` while what was applied is applied again.
    """

    homes: list[Home] = field(default_factory=list)
    shape: Shape | None = None

    @property
    def is_ahead(self) -> bool:
        return self.shape is not None and self.shape.schema != self.schema

    def live_in(self, homes: list[Home]) -> None:
        """Hold the columns there from now on."""
        self.homes, self.codecs = homes, [home.codec for home in homes]


class Versioned:
    """Keeps versioned tables of a mode.

    Args:
        shapes: makes tables, and changes them.
    """

    places = 1

    def __init__(self, store: Store, shapes: Shapes, converter: Converter, looking: Looking, mode: Mode) -> None:
        self._store = store
        self._shapes = shapes
        self._converter = converter
        self._looking = looking
        self._keeps_deleted = mode is Mode.SOFT_DELETE  # and shows them
        self._stamped = STAMPS_OF_VERSIONS if store.keeps_versions else STAMPS

    def record(self, moments: Moments) -> None:
        pass

    # --- shapes -----------------------------------------------------------------------------------------------------

    def find(self, schema: TableSchema) -> VersionedTable:
        return self._table(schema, self._shapes.found(schema))

    def columns(self, schema: TableSchema) -> list[HeldColumn]:
        types = {column.name: self._store.home(column).sql_type for column in schema.columns}
        return [
            HeldColumn(name, kind, name in types and kind in (types[name], self._store.text.sql_type))
            for name, kind in self._store.columns(self._shapes.place(schema.identity)).items()
        ]

    def make(
        self, schema: TableSchema, known_as: TableName | None, moments: Moments, *, by_parts: bool
    ) -> VersionedTable:
        self.refuse_shape(schema)
        faults.point("target.reset")
        if self._shapes.owner(schema.table) is None and self._store.columns(schema.table):
            raise foreign(self._store, schema.table)
        return self._table(schema, self._shapes.make(schema, at_once=by_parts))

    def refuse(self, schema: TableSchema, taken: Set[TableName]) -> None:
        self.refuse_shape(schema)
        if self._shapes.owner(schema.table) is None:  # a first copy that was interrupted has made tables
            refuse_foreign(self._store, schema.table, taken)

    def refuse_shape(self, schema: TableSchema) -> None:
        """Raise UsageError for a table that cannot be kept so."""
        refuse_reserved(self._store, schema)
        if (why := unfit(schema)) is not None:
            raise UsageError(f"{schema.table}: {why}", hint="Give the table a key, or leave it out with --exclude.")

    def evolve(self, table: TargetTable, step: Evolve) -> VersionedTable:
        table = _versioned(table)
        self.refuse_shape(step.new)
        made = self._table(step.new, self._shapes.evolve(_shape(table), step.new, step.fill))
        made.missed, made.is_lenient = table.missed, table.is_lenient
        return made

    def settle(self) -> list[int]:
        """What has to be done before a checkpoint is written; the tables, by identity, whose copies are shown now."""
        return self._shapes.settle()

    def drop(self, table: TargetTable, moments: Moments, transaction: int) -> None:
        pass

    def copied(self, schema: TableSchema, moments: Moments) -> None:
        pass

    def unknown_from(self, identity: int, order: int, reason: str, *, is_doubt: bool, is_skipped: bool) -> None:
        pass

    def known_at(self, identity: int, moments: Moments) -> None:
        pass

    def as_named(self, schema: TableSchema, shape: Shape) -> VersionedTable:
        """A table that is only read, by somebody who knows its columns by their names."""
        there = {column.name: column for column in shape.schema.columns}
        if there.keys() != {column.name for column in schema.columns}:
            raise TargetDrift(
                f"{schema.table} does not have the same columns in the target as in the source.",
                hint="They become the same while `cdc run SOURCE TARGET` follows.",
            )
        homes = dict(zip(there, self._shapes.homes(shape.schema, shape.texts), strict=True))
        table = VersionedTable(
            schema, [], stored=self._shapes.place(shape.schema.identity), shape=replace(shape, schema=schema)
        )
        table.live_in([homes[column.name] for column in schema.columns])
        return table

    def _table(self, schema: TableSchema, shape: Shape) -> VersionedTable:
        place = self._shapes.place(schema.identity)
        table = VersionedTable(schema, [], stored=place, shape=shape)
        table.live_in(self._shapes.homes(schema, shape.texts))
        return table

    # --- rows -------------------------------------------------------------------------------------------------------

    def write(self, table: TargetTable, batches: Sequence[ChangeBatch], moments: Moments) -> None:
        table = _versioned(table)
        if batches[0].copied:
            changes = gather(batches)
            rows = self._native(table, [take(column, changes.after_row) for column in changes.after])
            self._append_copied(table, rows, moments)
            return
        changes = self._not_there_yet(table, gather(batches), moments)
        if not len(changes.op):
            return
        held = partial(self._held, table)
        versions = trace(changes, held, in_part=table.is_lenient, trusting=True)
        if len(versions.missed):
            self._miss(table, [take(column, versions.missed) for column in versions.keys])
        made = self._rows_of_keys(changes, versions)
        lender = made.source
        keys = [take(column, versions.ending_key[lender[lender != ABSENT]]) for column in versions.keys]
        self._append_changed(table, changes, made, keys, moments)
        order, ordinal = moments.order[changes.transaction[-1]], changes.ordinal[-1]
        self._shapes.appended(table.schema.identity, int(order), int(ordinal))

    def truncate(self, table: TargetTable, moments: Moments, transaction: int, ordinal: int) -> None:
        table = _versioned(table)
        at = (int(moments.order[transaction]), ordinal)
        if at < self._shapes.reached(_shape(table)):  # the same place may have been reached in part
            return
        place = np.array([transaction]), np.array([ordinal], dtype=np.uint64)
        self._bury(table, self._stamps(moments, *place, labels(np.array([Op.TRUNCATE]))))
        self._shapes.appended(table.schema.identity, *at)

    def _bury(self, table: VersionedTable, version: pa.Table) -> None:
        columns = table.schema.columns
        is_whole = self._keeps_deleted or self._store.keeps_versions
        kept = columns if is_whole else [columns[index] for index in table.schema.key]
        self._store.bury(table.name, [column.name for column in kept], version)

    def replace(self, table: TargetTable, part: Part, batches: Sequence[ChangeBatch], moments: Moments) -> None:
        self._replace(_versioned(table), part, batches, moments)

    def _replace(self, table: VersionedTable, part: Part, batches: Sequence[ChangeBatch], moments: Moments) -> bool:
        """Returns whether anything was appended."""
        changes = gather(batches) if batches else None
        columns = [take(column, changes.after_row) for column in changes.after] if changes is not None else None
        came = self._native(table, columns) if columns is not None else None
        names = [table.schema.columns[index].name for index in table.schema.key]
        compares = self._store.keeps_versions  # a row that is there already is no other version
        wanted = None if self._keeps_deleted or compares or part.condition is not None else table.schema.key
        held = [self._rows_of(table, part, block) for block in self._blocks(table, part, wanted)]
        there = pa.concat_tables(held) if held else None
        appends = False
        if there is not None and len(there):
            gone = np.arange(len(there))
            if came is not None:
                gone = np.flatnonzero(~among(there.select(names), came.select(names)))
            if len(gone):
                rows = _padded(there.take(pa.array(gone)), table)
                self._append(table, rows, self._of_copy(moments, len(gone)), np.ones(len(gone), dtype=bool))
                appends = True
            if came is not None and compares:
                came = came.filter(pa.array(~among(came, there.select(came.column_names))))
        if came is not None and len(came):
            self._append_copied(table, came, moments)
            appends = True
        return appends

    # --- reading ----------------------------------------------------------------------------------------------------

    def blocks(self, table: VersionedTable, part: Part) -> Iterator[TargetTable]:
        """The rows of a part, some of them at a time, as tables of `Looking`; with others, which its condition leaves
        out."""
        for block in self._blocks(table, part, None):
            yield self._looking.load(table.schema, table.homes, block)

    def _blocks(self, table: VersionedTable, part: Part, columns: Sequence[int] | None) -> Iterator[pa.Table]:
        if table.is_ahead:
            raise TargetDrift(
                f"{table.schema.table} already has a later shape in the target.",
                hint="cdc asks again a little later.",
            )
        indexes = range(len(table.schema.columns)) if columns is None else columns
        wanted = self._homes_of(table, indexes)
        if part.keys is not None:
            keys = self._key_table(table, part)
            if keys is not None:
                found = self._store.matching(table.name, wanted, keys)
                yield found.filter(pc.invert(found.column(DELETED))).select(list(wanted))
                return
        gathered: list[pa.Table] = []
        for block in self._store.newest(table.name, wanted, bounds_of(table, part)):
            gathered.append(block)
            if sum(map(len, gathered)) >= _BLOCK_ROWS:
                yield pa.concat_tables(gathered)
                gathered = []
        if gathered:
            yield pa.concat_tables(gathered)

    def _key_table(self, table: VersionedTable, part: Part) -> pa.Table | None:
        """The keys of a part in the types of their columns; None if one is not of such a type."""
        columns = [pa.array(column, pa.string_view()) for column in zip(*(part.keys or ()), strict=True)]
        if not columns:
            columns = [pa.array([], pa.string_view()) for _ in table.schema.key]
        made, wrong = self._converted(table, dict(zip(table.schema.key, columns, strict=True)))
        return None if wrong else made

    def _rows_of(self, table: VersionedTable, part: Part, block: pa.Table) -> pa.Table:
        loaded = self._looking.load(table.schema, table.homes, block)
        return block.take(pa.array(self._looking.numbers(loaded, part), pa.int64()))

    # --- what is appended -------------------------------------------------------------------------------------------

    def _rows_of_keys(self, changes: Gathered, versions: Versions) -> RowsOfKeys:
        """What of the changes is appended."""
        return last_of_keys(changes, versions)

    def _append_changed(
        self, table: VersionedTable, changes: Gathered, made: RowsOfKeys, lenders: list[pa.Array], moments: Moments
    ) -> None:
        """Rows that keys have, with what the log left out of them from the rows that they continue."""
        deleted = made.deleted_by != ABSENT
        shown = np.ones(len(deleted), dtype=bool) if self._keeps_deleted else ~deleted
        key = dict(zip(table.schema.key, made.keys, strict=True))
        columns = [
            key[index] if index in key else take(column, np.where(shown, made.value[index], ABSENT))
            for index, column in enumerate(changes.after)
        ]
        rows = self._native(table, columns)
        lacks = [(made.value[index] == ABSENT) & shown if index not in key else None for index in range(len(columns))]
        at, ordinal = (of[made.change].astype(np.int64) for of in (changes.transaction, changes.ordinal))
        stamps = self._stamps(moments, at, ordinal, labels(changes.op[made.change].astype(np.int64)))
        if not any(mask is not None and mask.any() for mask in lacks):
            self._append(table, rows, stamps, deleted)
            return
        lends = np.flatnonzero(made.source != ABSENT)
        rows, kept = self._completed(table, rows, lacks, lends, lenders)
        self._append(table, rows.take(kept), stamps.take(kept), deleted[kept])

    def _completed(
        self,
        table: VersionedTable,
        rows: pa.Table,
        lacks: Sequence[np.ndarray | None],
        lends: np.ndarray,
        lenders: list[pa.Array],
    ) -> tuple[pa.Table, np.ndarray]:
        """Rows with the values that they lack, and which of them (int64[k]) are to be appended.

        Args:
            lacks: per column bool[n].
            lends: int64[m], the rows that continue one that is there.
            lenders: the keys that those have there.
        """
        needs = np.zeros(len(rows), dtype=bool)
        for mask in lacks:
            if mask is not None:
                needs |= mask
        asks = np.flatnonzero(needs[lends])
        names = [table.schema.columns[index].name for index in table.schema.key]
        data = {index: take(column, asks) for index, column in zip(table.schema.key, lenders, strict=True)}
        lending, wrong = self._converted(table, data)
        if wrong:
            raise InvariantError(f"A key of {table.schema.table} is not of its columns' types.")
        there = self._store.matching(table.name, self._homes_of(table, range(len(lacks))), lending)
        there = there.filter(pc.invert(there.column(DELETED)))
        place = np.full(len(rows), ABSENT)
        place[lends[asks]] = _places(lending, there.select(names))
        lost = needs & (place == ABSENT)
        if lost.any():
            self._lose(table, rows, lost)
        made = []
        for index, mask in enumerate(lacks):
            column = rows.column(index)
            if mask is not None and mask.any():
                lent = _plain(there.column(index))
                lent = lent.take(pa.array(np.where(mask, place, ABSENT), mask=~mask | (place == ABSENT)))
                column = pc.if_else(pa.array(mask), lent, column)
            made.append(column)
        return pa.table(made, names=rows.column_names), np.flatnonzero(~lost)

    def _lose(self, table: VersionedTable, rows: pa.Table, lost: np.ndarray) -> None:
        if not table.is_lenient:
            raise RowDrift(
                f"{int(lost.sum())} rows of {table.schema.table} were changed in the source, but the target does not "
                "have them.",
                hint=f"Read them again: `cdc resync SOURCE TARGET --tables {table.schema.table}`.",
            )
        which = pa.array(np.flatnonzero(lost))
        homes = self._homes_of(table, table.schema.key)
        keys = self._converter.texts(homes, rows.select(list(homes)).take(which))
        self._miss(table, [column.combine_chunks() for column in keys.columns])

    def _miss(self, table: VersionedTable, keys: Sequence[pa.Array]) -> None:
        table.missed |= set(zip(*(texts(column) for column in keys), strict=True))

    def _native(self, table: VersionedTable, columns: Sequence[pa.Array]) -> pa.Table:
        """Whole rows in the types of the table's columns, which become text where that has to be."""
        self._stay_current(table)
        while True:
            rows, wrong = self._converted(table, dict(enumerate(columns)))
            if not wrong:
                return rows
            shape = self._shapes.widen(_shape(table), wrong)
            table.shape = shape
            table.live_in(self._shapes.homes(table.schema, shape.texts))
            faults.point("target.widened")

    def _converted(self, table: VersionedTable, data: Mapping[int, pa.Array]) -> tuple[pa.Table, list[int]]:
        columns = table.schema.columns
        made, wrong = self._converter.native(
            self._homes_of(table, data),
            {columns[index].name: columns[index].type for index in data},
            {columns[index].name: array for index, array in data.items()},
        )
        numbers = {columns[index].name: index for index in data}
        return made, [numbers[name] for name in wrong]

    def _homes_of(self, table: VersionedTable, indexes: Iterable[int]) -> dict[str, Home]:
        return {table.schema.columns[index].name: table.homes[index] for index in indexes}

    def _append(self, table: VersionedTable, rows: pa.Table, stamps: pa.Table, deleted: np.ndarray) -> None:
        if not len(rows):
            return
        for name in stamps.column_names:
            rows = rows.append_column(name, stamps.column(name))
        rows = rows.append_column(DELETED, pa.array(deleted))
        order, ordinal = (np.asarray(stamps.column(name)) for name in (ORDER, ORDINAL))
        rows = rows.take(np.lexsort((deleted, ordinal, order)))  # what is there after a failure are the first changes
        faults.point("target.before_insert")
        self._store.append(table.name, rows)

    def _append_copied(self, table: VersionedTable, rows: pa.Table, moments: Moments) -> None:
        self._append(table, rows, self._of_copy(moments, len(rows)), np.zeros(len(rows), dtype=bool))

    def _of_copy(self, moments: Moments, count: int, op: int = COPY, transaction: int = 0) -> pa.Table:
        """The places of copied rows: later than every change up to where they were read, and than earlier copies."""
        ordinal = np.full(count, COPIED + self._store.number(), dtype=np.uint64)
        return self._stamps(moments, np.full(count, transaction), ordinal, labels(np.full(count, op)))

    def _stamps(self, moments: Moments, at: np.ndarray, ordinal: np.ndarray, op: pa.Array) -> pa.Table:
        order, position, moment, transaction = moments.at(at)
        known = {ORDER: order, ORDINAL: pa.array(ordinal.astype(np.uint64)), POSITION: position, MOMENT: moment}
        return pa.table({**known, OP: op, TRANSACTION: transaction}).select(self._stamped)

    # --- changes ----------------------------------------------------------------------------------------------------

    def _not_there_yet(self, table: VersionedTable, changes: Gathered, moments: Moments) -> Gathered:
        """Without the changes that are there already: after a crash, those behind the checkpoint come once more, and a
        lookup would find rows as they became later."""
        order, ordinal = self._shapes.reached(_shape(table))
        of = moments.order[changes.transaction]
        new = np.flatnonzero((of > order) | ((of == order) & (changes.ordinal > ordinal)))
        if len(new) == len(changes.op):
            return changes
        return replace(
            changes,
            op=changes.op[new],
            transaction=changes.transaction[new],
            ordinal=changes.ordinal[new],
            after_row=changes.after_row[new],
            before_row=changes.before_row[new],
        )

    def _held(self, table: VersionedTable, numbers: np.ndarray, keys: list[pa.Array]) -> np.ndarray:
        """int64[n]: how many rows the table has with each key."""
        if not len(numbers):
            return np.zeros(0, dtype=np.int64)
        made, wrong = self._converted(table, dict(zip(table.schema.key, keys, strict=True)))
        if wrong:
            return np.zeros(len(numbers), dtype=np.int64)
        held = self._store.matching(table.name, self._homes_of(table, table.schema.key), made)
        live = held.filter(pc.invert(held.column(DELETED)))
        return among(made, live.select(made.column_names)).astype(np.int64)

    def _stay_current(self, table: VersionedTable) -> None:
        if table.is_ahead:
            raise InvariantError(f"Changes of {table.schema.table} came in an earlier shape than the table has.")


def unfit(schema: TableSchema) -> str | None:
    """Why a table cannot be a versioned one; None if it can."""
    return None if schema.key else "It has no key, by which a later row would be known to be the same row."


def bounds_of(table: VersionedTable, part: Part) -> Bounds | None:
    """Bounds that the database sees as both sides do: those of whole numbers and of texts."""
    if not table.schema.key or (part.after is None and part.upto is None):
        return None
    index = table.schema.key[0]
    home, name = table.homes[index], table.schema.columns[index].name
    ends = [key[0] if key else None for key in (part.after, part.upto)]
    if pa.types.is_integer(home.arrow):
        return Bounds(name, *(int(end) if end is not None else None for end in ends))
    return Bounds(name, *ends) if home.is_text else None


def among(rows: pa.Table, others: pa.Table) -> np.ndarray:
    """bool[n]: which rows are among others of the same columns."""
    among: np.ndarray = _places(rows, others) != ABSENT
    return among


def _places(rows: pa.Table, others: pa.Table) -> np.ndarray:
    """int64[n]: where each row is among others of the same columns, ABSENT if it is not."""
    both = [pa.concat_arrays([_plain(rows.column(name)), _plain(others.column(name))]) for name in rows.column_names]
    of, _ = codes(both)
    known = np.full(int(of.max()) + 1 if len(of) else 0, ABSENT)
    known[of[len(rows) :]] = np.arange(len(others))
    places: np.ndarray = known[of[: len(rows)]]
    return places


def _plain(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    return array.cast(pa.large_string()) if array.type == pa.string_view() else array


def _padded(rows: pa.Table, table: VersionedTable) -> pa.Table:
    """All columns of a table, NULL where there are none yet."""
    made = {
        column.name: rows.column(column.name) if column.name in rows.column_names else pa.nulls(len(rows), home.arrow)
        for column, home in zip(table.schema.columns, table.homes, strict=True)
    }
    return pa.table(made)


def _versioned(table: TargetTable) -> VersionedTable:
    assert isinstance(table, VersionedTable)
    return table


def _shape(table: VersionedTable) -> Shape:
    assert table.shape is not None
    return table.shape
