"""How versioned tables are made and get other shapes, so that a crash at any place is made good by what is recorded.

What is about to be done is recorded first. Found again, it is done again, which changes nothing where it had been done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

import pyarrow as pa

from cdc import faults
from cdc.errors import TargetDrift
from cdc.model.schema import Column, TableName, TableSchema
from cdc.tables.versioned.state import Becoming, Shape, VersionedState
from cdc.tables.versioned.store import DELETED, STAMPS, STAMPS_OF_VERSIONS, Alteration, Shown, Store
from cdc.typed.native import Converter, Home

ROWS = "_cdc_rows"  # the schema of the tables that have the rows; what people read has the names of the source
Texts = tuple[int, ...]


def place_of(identity: int) -> TableName:
    """Where the rows of a table are. Names are swapped and taken over; the identity stays."""
    return TableName(ROWS, str(identity))


class Shapes:
    """The shapes of the tables of a store.

    Args:
        with_deleted: people see deleted rows as well.
    """

    def __init__(self, store: Store, state: VersionedState, converter: Converter, *, with_deleted: bool) -> None:
        self._store = store
        self._state = state
        self._converter = converter
        self._with_deleted = with_deleted
        self._pending: dict[int, Shape] = {}  # copies that nobody sees before the checkpoint
        self._passed: dict[int, Shape] = {}  # tables that are ahead of the checkpoint
        self._shown = state.names()
        self._newest: dict[int, tuple[int, int]] = {}
        self._behind: dict[int, list[TableSchema]] = {}  # shapes that are applied again before what is there is reached

    def place(self, identity: int) -> TableName:
        """Where the rows of a table are at the moment."""
        return _copy_of(identity) if identity in self._pending else place_of(identity)

    def homes(self, schema: TableSchema, texts: Texts) -> list[Home]:
        """Where the values of each column live."""
        return [self._home(column, texts) for column in schema.columns]

    def owner(self, name: TableName) -> int | None:
        """The table that people read under a name."""
        return self._shown.get(name)

    def clash(self, schema: TableSchema) -> TableName | None:
        """Another table of which something is read under a name that is needed for this one."""
        names = set(self._store.names_of(schema.table))
        return next(
            (
                shown
                for shown, identity in self._shown.items()
                if identity != schema.identity and shown != schema.table and names & {*self._store.names_of(shown)}
            ),
            None,
        )

    def appended(self, identity: int, order: int, ordinal: int) -> None:
        """Take note of the place in the log of the last change of a table that was appended."""
        self._newest[identity] = max(self._newest.get(identity, (-1, -1)), (order, ordinal))

    def found(self, schema: TableSchema) -> Shape:
        """A table as this pipeline left it; raises TargetDrift if it is not so (D-08)."""
        shape = self._state.shape(schema.identity)
        if shape is None or not self._store.columns(place_of(schema.identity)):
            raise TargetDrift(
                f"The table {schema.table} is gone from the target.",
                hint=f"Copy it again: `cdc resync SOURCE TARGET --tables {schema.table}`.",
            )
        if shape.becoming is not None:
            shape = self._become(shape)
        if not self._is(place_of(schema.identity), shape.schema, shape.texts):
            raise TargetDrift(
                f"The columns of {schema.table} in the target are not those that the pipeline made.",
                hint="Undo what was changed by hand, or copy it again: "
                f"`cdc resync SOURCE TARGET --tables {schema.table}`.",
            )
        position = self._state.position
        order, ordinal = self._store.reached(place_of(schema.identity), position.order if position else 0)
        self.appended(schema.identity, order, ordinal)
        self._behind[schema.identity] = list(shape.passed)
        if shape.passed:
            self._passed[schema.identity] = shape
        self._show(shape.schema)
        return shape

    def reached(self, shape: Shape) -> tuple[int, int]:
        """The place in the log, as order and ordinal, up to which all changes of a table are there."""
        return max(self._newest.get(shape.schema.identity, (-1, -1)), (shape.order, shape.ordinal))

    def make(self, schema: TableSchema, *, at_once: bool) -> Shape:
        """An empty table for a copy; the one that is there goes at once, or is seen until the checkpoint."""
        identity = schema.identity
        before = self._state.shape(identity)
        shape = self._marked(before or Shape(schema))
        shape = Shape(schema, order=shape.order, ordinal=shape.ordinal)
        if at_once or before is None:
            self._pending.pop(identity, None)
            self._make(place_of(identity), schema, ())
            self._refuse_older(place_of(identity), identity)
            self._state.keep_shape(shape)
            self._show(schema)
        else:
            self._pending[identity] = shape
            self._make(_copy_of(identity), schema, ())
            self._refuse_older(_copy_of(identity), identity)
        self._passed.pop(identity, None)
        self._behind.pop(identity, None)
        return shape

    def copy_again(self, schema: TableSchema) -> Shape | None:
        """Give a table that is there the shape of a new copy, and keep its rows; None if it is not there."""
        shape = self._state.shape(schema.identity)
        if shape is None or not self._store.columns(place_of(schema.identity)):
            return None
        if shape.becoming is not None:
            shape = self._become(shape)
        self._behind.pop(schema.identity, None)
        if shape.schema == schema:
            self._show(schema)
            return shape
        there = {column.identity for column in schema.columns}
        texts = tuple(identity for identity in shape.texts if identity in there)
        return self._become(replace(self._marked(shape), becoming=Becoming(schema, texts, {})))

    def settle(self) -> list[int]:
        """Show the copies that have come to a checkpoint, and forget the ways to shapes that it knows.

        Returns:
            The tables, by identity, whose copies are shown now.
        """
        shown = list(self._pending)
        for identity, shape in list(self._pending.items()):
            self._store.exchange(place_of(identity), _copy_of(identity))
            faults.point("versioned.exchanged")
            self._state.keep_shape(shape)
            del self._pending[identity]
            self._store.drop(_copy_of(identity))
            self._show(shape.schema)
        behind = {identity: tuple(self._behind.get(identity, ())) for identity in self._passed}
        self._state.settled([replace(shape, passed=behind[identity]) for identity, shape in self._passed.items()])
        self._passed = {identity: shape for identity, shape in self._passed.items() if behind[identity]}
        return shown

    def evolve(self, shape: Shape, new: TableSchema, fill: dict[int, str]) -> Shape:
        """Give a table another shape, unless it got that before, on its way to the one that it has."""
        behind = self._behind.pop(shape.schema.identity, [])
        if new in behind:
            self._behind[shape.schema.identity] = behind[behind.index(new) + 1 :]
            return shape
        there = {column.identity for column in new.columns}
        texts = tuple(identity for identity in shape.texts if identity in there)
        return self._become(replace(self._marked(shape), becoming=Becoming(new, texts, fill)))

    def _marked(self, shape: Shape) -> Shape:
        order, ordinal = self.reached(shape)
        return replace(shape, order=order, ordinal=ordinal)

    def widen(self, shape: Shape, columns: Sequence[int]) -> Shape:
        """Hold columns as text from now on, what is there already included."""
        more = tuple(shape.schema.columns[index].identity for index in columns)
        becoming = Becoming(shape.schema, (*shape.texts, *more), {})
        return self._become(replace(shape, becoming=becoming))

    def _become(self, shape: Shape) -> Shape:
        """Give a table the shape that it was about to get."""
        becoming = shape.becoming
        assert becoming is not None
        identity = shape.schema.identity
        place = self.place(identity)
        self._keep(shape)
        faults.point("target.evolve")
        if self._store.mark(place) != self._mark(becoming.schema, becoming.texts):
            self._change(place, shape, becoming)
        passed = (*shape.passed, becoming.schema) if becoming.schema != shape.schema else shape.passed
        texts = becoming.texts
        made = replace(shape, schema=becoming.schema, texts=texts, passed=passed, becoming=None)
        faults.point("versioned.evolved")
        self._keep(made)
        if identity not in self._pending:
            self._show(made.schema, before=shape.schema.table)
        return made

    def _keep(self, shape: Shape) -> None:
        """A copy that nobody sees yet is made again after a crash, so that nothing need be known of it."""
        identity = shape.schema.identity
        if identity in self._pending:
            self._pending[identity] = shape
            return
        self._state.keep_shape(shape)
        if shape.passed:
            self._passed[identity] = shape

    def _change(self, place: TableName, shape: Shape, becoming: Becoming) -> None:
        alteration = self._alteration(shape, becoming)
        if alteration is None or not self._store.alter(place, alteration, self._mark(becoming.schema, becoming.texts)):
            self._rebuild(place, shape, becoming)

    def _alteration(self, shape: Shape, becoming: Becoming) -> Alteration | None:
        """What changes about columns; None if rows have to be written again: for a key, another type, or names that
        go from one column to another."""
        old = {column.identity: column for column in shape.schema.columns}
        new = {column.identity: column for column in becoming.schema.columns}
        stay = old.keys() & new.keys()
        if any(self._home(old[i], shape.texts) != self._home(new[i], becoming.texts) for i in stay):
            return None
        if set(key_of(shape.schema)) != set(key_of(becoming.schema)):
            return None
        taken = [old[i].name for i in old.keys() - stay]
        renamed = {old[i].name: new[i].name for i in stay if old[i].name != new[i].name}
        added = {new[i].name: self._home(new[i], becoming.texts) for i in new.keys() - stay}
        gone, come = {*taken, *renamed}, {*added, *renamed.values()}
        if gone & come or gone & set(key_of(shape.schema)):
            return None
        fill = {new[i].name: value for i, value in becoming.fill.items() if i in new and new[i].name in added}
        return Alteration(taken, renamed, added, fill)

    def _rebuild(self, place: TableName, shape: Shape, becoming: Becoming) -> None:
        """Write all rows again, with the versions that they have, into a table that takes the place of this one.

        A column that cannot hold a value there becomes text.
        """
        other = TableName(ROWS, f"{shape.schema.identity}_new")
        texts = becoming.texts
        while True:
            self._make(other, becoming.schema, texts)
            wrong = self._write_again(place, other, shape, replace(becoming, texts=texts))
            if not wrong:
                break
            texts = (*texts, *wrong)
        faults.point("versioned.rebuilt")
        self._refuse_older(other, shape.schema.identity)
        if texts != becoming.texts:
            self._keep(replace(shape, becoming=replace(becoming, texts=texts)))
        self._store.exchange(place, other)
        self._store.drop(other)

    def _write_again(self, place: TableName, other: TableName, shape: Shape, becoming: Becoming) -> list[int]:
        """Returns the columns, by identity, that cannot hold a value; then not all rows were written."""
        old = {column.identity: column for column in shape.schema.columns}
        there = {column.name: self._home(column, shape.texts) for column in shape.schema.columns}
        for block in self._store.everything(place, there):
            ready: dict[str, pa.Array | pa.ChunkedArray] = {}
            texts: dict[str, pa.Array] = {}
            for column in becoming.schema.columns:
                known = old.get(column.identity)
                if known is None:
                    texts[column.name] = _filled(block, becoming.fill.get(column.identity))
                elif (home := self._home(known, shape.texts)) == self._home(column, becoming.texts):
                    ready[column.name] = block.column(known.name)
                else:
                    found = self._converter.texts({known.name: home}, block)
                    texts[column.name] = found.column(0).combine_chunks()
            named = {column.name: column for column in becoming.schema.columns}
            made, wrong = self._converter.native(
                {name: self._home(named[name], becoming.texts) for name in texts},
                {name: named[name].type for name in texts},
                texts,
            )
            if wrong:
                return [named[name].identity for name in wrong]
            rows = pa.table({name: ready[name] if name in ready else made.column(name) for name in named})
            stamps = STAMPS_OF_VERSIONS if self._store.keeps_versions else STAMPS
            for name in (DELETED, *stamps):
                rows = rows.append_column(name, block.column(name))
            self._store.append(other, rows)
        return []

    def _make(self, place: TableName, schema: TableSchema, texts: Texts) -> None:
        homes = {column.name: home for column, home in zip(schema.columns, self.homes(schema, texts), strict=True)}
        self._store.make(place, homes, key_of(schema), self._mark(schema, texts))

    def _refuse_older(self, place: TableName, identity: int) -> None:
        """Have the table that takes the place of another one refuse what that one did (see `cleanup`)."""
        floor = self._state.floor(identity)
        if floor is not None:
            self._store.refuse_older(place, floor)

    def _is(self, place: TableName, schema: TableSchema, texts: Texts) -> bool:
        """Whether a table has the columns and the types of a shape."""
        expected = {column.name: self._home(column, texts).sql_type for column in schema.columns}
        return self._store.columns(place) == expected

    def _mark(self, schema: TableSchema, texts: Texts) -> str:
        """What tells one shape of a table from another: columns may have swapped their names."""
        key = set(schema.key)
        said = [
            (column.identity, column.name, self._home(column, texts).sql_type, index in key)
            for index, column in enumerate(schema.columns)
        ]
        return sha256(repr(said).encode()).hexdigest()[:16]

    def _home(self, column: Column, texts: Texts) -> Home:
        return self._store.text if column.identity in texts else self._store.home(column)

    def _show(self, schema: TableSchema, before: TableName | None = None) -> None:
        identity, name = schema.identity, schema.table
        old = [shown for shown, owner in self._shown.items() if owner == identity and shown != name]
        if before is not None and before != name and before not in self._shown:
            old.append(before)
        columns, key = [column.name for column in schema.columns], [schema.columns[index].name for index in schema.key]
        self._store.show(Shown(identity, name, place_of(identity), columns, key, self._with_deleted))
        self._shown[name] = identity
        for each in old:
            self._store.hide(each)
            self._shown.pop(each, None)


def _copy_of(identity: int) -> TableName:
    return TableName(ROWS, f"{identity}_copy")


def key_of(schema: TableSchema) -> list[str]:
    """The names of a key's columns."""
    return [schema.columns[index].name for index in schema.key]


def _filled(block: pa.Table, value: str | None) -> pa.Array:
    """The value in the rows that were not deleted."""
    deleted = block.column(DELETED).to_pylist() if value is not None else []
    kind = pa.string_view()
    return pa.array([None if gone else value for gone in deleted], kind) if deleted else pa.nulls(len(block), kind)
