"""Random work on a few tables, as its log says it, and what the tables hold after each transaction by the plainest of
means: lists of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random

import numpy as np

from cdc.model.change import ChangeBatch, Op, Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.model.segment import Changes, Evolve, Reset, Segment, Step, Truncate
from cdc.testing.batches import UNCHANGED, Row, batch
from cdc.testing.conformance.place import Texts
from cdc.testing.conformance.values import natively

BEGIN = 100  # order of the place in the log where the first copy is
_TIME = 4_102_444_800_000_000  # microseconds: commits come after all that the machine's clock says of copies

Change = tuple[Op, Row | None, Row | None]  # what, the old row, the new one
State = Mapping[int, tuple[TableSchema, Counter[Texts]]]  # the rows of each table, by the tables' identities

_TEXT, _INT32, _INT64 = (LogicalType(kind) for kind in (Kind.TEXT, Kind.INT32, Kind.INT64))
_PRICE, _MOMENT, _BYTES = LogicalType(Kind.DECIMAL, 10, 2), LogicalType(Kind.TIMESTAMP), LogicalType(Kind.BYTES)
# Values of each type. The last of them is rare: not every type of a target has a place for it.
_VALUES: Mapping[LogicalType, Sequence[str]] = {
    _TEXT: (
        "",
        "x",
        "y",
        "NULL",
        "a value that is longer than a view",
        'it\'s "quoted", \\ and\n{more},',
        "\U0001f600",
    ),
    _INT32: ("0", "-1", "7", "2147483647", "-2147483648"),
    _INT64: ("0", "-1", "7", "9223372036854775807", "-9223372036854775808"),
    _PRICE: ("0.00", "-0.01", "99999999.99", "12.50", "NaN"),
    LogicalType(Kind.DECIMAL, 14, 2): ("0.00", "-0.01", "999999999999.99", "NaN"),
    _MOMENT: ("2024-02-29 23:59:59.999999", "1970-01-01 00:00:00", "1969-12-31 23:59:59.5", "infinity"),
    _BYTES: ("\\x", "\\x00ff", "\\x6869"),
}
_RARELY = {_PRICE, LogicalType(Kind.DECIMAL, 14, 2), _MOMENT}  # types of which the last value is rare
# What a source converts a column to without another text of any value.
_GROWS = {_INT32: _INT64, _PRICE: LogicalType(Kind.DECIMAL, 14, 2)}
_SOURCE_TYPES = {
    _TEXT: "text",
    _INT32: "integer",
    _INT64: "bigint",
    _PRICE: "numeric(10,2)",
    LogicalType(Kind.DECIMAL, 14, 2): "numeric(14,2)",
    _MOMENT: "timestamp without time zone",
    _BYTES: "bytea",
}


def column(name: str, kind: LogicalType, identity: int, key: int | None = None) -> Column:
    """A column as PostgreSQL would have it."""
    return Column(name, _SOURCE_TYPES[kind], kind, identity, key, nullable=key is None)


def transactions(orders: Sequence[int]) -> Transactions:
    """Commits at places in the log, whose times step back now and then, as clocks do."""
    numbers = np.array(orders, dtype=np.int64)
    times = _TIME + np.where(numbers % 5 == 0, numbers - 30, numbers) * 1_000_000
    return Transactions(numbers, numbers + 1_000_000, times, str)


def at(order: int) -> Checkpoint:
    """A checkpoint of which the source has kept something."""
    return Checkpoint(Position(order, str(order)), f'{{"at": {order}}}')


def keyed(number: int = 1, name: str = "orders") -> TableSchema:
    """A table with a key of one whole number."""
    columns = (
        column("id", _INT64, 1, 0),
        column("note", _TEXT, 2),
        column("count", _INT32, 3),
        column("price", _PRICE, 4),
        column("at", _MOMENT, 5),
        column("content", _BYTES, 6),
    )
    return TableSchema(TableName("conformance", name), number, columns)


def keyed_by_two(number: int = 2, name: str = "lines") -> TableSchema:
    """A table with a key of two columns, which are not the first ones, whose changes come with the whole old row."""
    columns = (
        column("note", _TEXT, 1),
        column("line", _INT32, 2, 1),
        column("code", _TEXT, 3, 0),
        column("other", _TEXT, 4),
    )
    return TableSchema(TableName("conformance", name), number, columns, full_before=True)


def keyless(number: int = 3, name: str = "events") -> TableSchema:
    """A table without a key."""
    columns = (column("what", _TEXT, 1), column("amount", _INT32, 2), column("content", _BYTES, 3))
    return TableSchema(TableName("conformance", name), number, columns, full_before=True)


@dataclass
class Table:
    """A table of the source as it is now.

    Attributes:
        rows: each row by the columns of the schema.
        next: identities for columns that come.
    """

    schema: TableSchema
    rows: list[list[object]] = field(default_factory=list)
    next: Iterator[int] = field(default_factory=lambda: count(100))

    def held(self) -> Counter[Texts]:
        """How often each row is there."""
        return Counter(tuple(None if value is None else str(value) for value in row) for row in self.rows)

    def key_of(self, row: Sequence[object]) -> tuple[object, ...]:
        """What identifies a row."""
        return tuple(row[index] for index in self.schema.key)


class Work:
    """What happens in a source, and its log.

    Args:
        is_filled: the tables have rows to begin with.
        rotates: a statement may give rows each other's keys, so that two rows have one for a moment.

    Attributes:
        log: one segment for each transaction.
        states: what the tables hold after so many of them.
        order: of the place in the log up to which everything has happened.
    """

    def __init__(self, random: Random, *schemas: TableSchema, is_filled: bool = True, rotates: bool = True) -> None:
        self.random = random
        self.rotates = rotates
        self.tables = [Table(schema) for schema in schemas]
        self.order = BEGIN
        self.log: list[Segment] = []
        for table in self.tables:
            for _ in range(6 if is_filled else 0):
                self._insert(table)
        self.states: list[State] = [self.state()]

    def state(self) -> State:
        """What the tables hold now."""
        return {table.schema.identity: (table.schema, table.held()) for table in self.tables}

    # --- copies -----------------------------------------------------------------------------------------------------

    def copies(self) -> list[Segment]:
        """All tables are copied, at this place in the log."""
        resets = [Reset(table.schema) for table in self.tables]
        segments = [Segment([*resets], Transactions.none(), at(self.order))]
        for table in self.tables:
            half = len(table.rows) // 2
            for part in (table.rows[:half], table.rows[half:]):
                if part:
                    segments.append(Segment([Changes(self.copied(table, part))], Transactions.none(), at(self.order)))
        return segments

    def copied(self, table: Table, rows: Sequence[Sequence[object]]) -> ChangeBatch:
        """Rows of a table as a copy brings them."""
        return replace(self._batch(table, [(Op.INSERT, None, tuple(row)) for row in rows]), copied=True)

    def unseen(self, table: Table) -> None:
        """Rows of a table change, and the log does not say so."""
        for _ in range(6):
            list(self.random.choice([self._insert, self._delete, self._update])(table))
        self.states[-1] = self.state()

    # --- the log ----------------------------------------------------------------------------------------------------

    def transactions(self, number: int, *, shapes: bool = False) -> None:
        """So many transactions, some of which give tables other shapes."""
        for _ in range(number):
            self.transaction(shapes=shapes)

    def transaction(self, *, shapes: bool = False) -> Segment:
        """One of them."""
        self.order += self.random.randint(1, 20)
        steps: list[Step] = []
        if shapes and self.random.random() < 0.5:
            steps += self._another_shape()
        pending: dict[int, list[tuple[int, Change]]] = {}
        ordinal = 0
        for _ in range(self.random.randint(2, 8)):
            table = self.random.choice(self.tables)
            if self.random.random() < 0.04:
                steps += self._flush(pending, [table])
                steps.append(Truncate(table.schema, 0, ordinal))
                table.rows.clear()
                ordinal += 1
                continue
            acts = [self._insert, self._insert, self._delete, self._update, self._update]
            acts += [self._rotate] if self.rotates else []
            for change in self.random.choice(acts)(table):
                pending.setdefault(table.schema.identity, []).append((ordinal, change))
                ordinal += 1
        steps += self._flush(pending, self.tables)
        return self._logged(steps)

    def changed(self, *changes: tuple[Table, Change]) -> Segment:
        """A transaction with these changes, which are known to the tables already."""
        self.order += 10
        pending: dict[int, list[tuple[int, Change]]] = {}
        for ordinal, (table, change) in enumerate(changes):
            pending.setdefault(table.schema.identity, []).append((ordinal, change))
        return self._logged(self._flush(pending, self.tables))

    def _logged(self, steps: list[Step]) -> Segment:
        segment = Segment(steps, transactions([self.order]), at(self.order + 1))
        self.log.append(segment)
        self.states.append(self.state())
        return segment

    def _flush(self, pending: dict[int, list[tuple[int, Change]]], tables: Sequence[Table]) -> list[Step]:
        steps: list[Step] = []
        for table in tables:
            if changes := pending.pop(table.schema.identity, []):
                made = self._batch(table, [change for _, change in changes])
                made.ordinal[:] = [ordinal for ordinal, _ in changes]
                steps.append(Changes(made))
        return steps

    def _batch(self, table: Table, changes: Sequence[Change]) -> ChangeBatch:
        made = batch(table.schema, changes)
        return natively(made, self.random) if self.random.random() < 0.5 else made

    # --- rows -------------------------------------------------------------------------------------------------------

    def value(self, kind: LogicalType) -> object:
        """A value of a type."""
        if self.random.random() < 0.15:
            return None
        values = _VALUES[kind]
        if kind in _RARELY and self.random.random() > 0.03:
            values = values[:-1]
        return self.random.choice(values)

    def free(self, table: Table) -> list[tuple[str, ...]]:
        """Keys that no row has; there are none without a key."""
        if not table.schema.key:
            return []
        taken = {table.key_of(row) for row in table.rows}
        if len(table.schema.key) == 1:
            keys: list[tuple[str, ...]] = [(str(number),) for number in range(-2, 9)]
        else:
            keys = [(code, str(line)) for code in ("", "a", "A", "a ", "\\") for line in range(2)]
        return [key for key in keys if key not in taken]

    def put(self, table: Table, key: Sequence[object]) -> list[object]:
        """A new row with a key."""
        row = [self.value(column.type) for column in table.schema.columns]
        for index, value in zip(table.schema.key, key, strict=True):
            row[index] = value
        table.rows.append(row)
        return row

    def _insert(self, table: Table) -> list[Change]:
        keys = self.free(table) if table.schema.key else [()]
        if not keys:
            return []
        return [(Op.INSERT, None, tuple(self.put(table, self.random.choice(keys))))]

    def _delete(self, table: Table) -> list[Change]:
        if not table.rows:
            return []
        row = table.rows.pop(self.random.randrange(len(table.rows)))
        return [(Op.DELETE, self.old(table, row), None)]

    def _update(self, table: Table) -> list[Change]:
        if not table.rows:
            return []
        row = self.random.choice(table.rows)
        moves = self.free(table) if self.random.random() < 0.3 else []
        return [self.write(table, row, self.random.choice(moves) if moves else table.key_of(row))]

    def _rotate(self, table: Table) -> list[Change]:
        """One statement that moves keys around: two rows have one for a moment."""
        some = self.random.sample(table.rows, min(len(table.rows), self.random.randint(0, 4)))
        keys = [table.key_of(row) for row in some]
        return [self.write(table, row, key) for row, key in zip(some, keys[1:] + keys[:1], strict=True)]

    def write(self, table: Table, row: list[object], key: Sequence[object]) -> Change:
        """A row gets a key and other values; of those that stay, the log may say nothing."""
        schema, old = table.schema, self.old(table, row)
        moves = tuple(key) != table.key_of(row)
        new = list(row)
        for index, value in zip(schema.key, key, strict=True):
            row[index] = new[index] = value
        for index, each in enumerate(schema.columns):
            if each.key is None and self.random.random() < 0.5:
                row[index] = new[index] = self.value(each.type)
            elif each.key is None and not schema.full_before and self.random.random() < 0.5:
                new[index] = UNCHANGED
        return Op.UPDATE, old if moves or schema.full_before else None, tuple(new)

    def old(self, table: Table, row: Sequence[object]) -> Row:
        """What the log says of a row as it was."""
        if table.schema.full_before:
            return tuple(row)
        return tuple(value if index in table.schema.key else None for index, value in enumerate(row))

    # --- shapes -----------------------------------------------------------------------------------------------------

    def _another_shape(self) -> list[Step]:
        kinds = [self._grow, self._shrink, self._rename, self._swap, self._retype, self._move, self._move_all]
        return self.random.choice(kinds)()

    def evolve(self, table: Table, schema: TableSchema, fill: Mapping[int, str] | None = None) -> Step:
        """A table gets another shape; its rows follow their columns."""
        old, fill = table.schema, dict(fill or {})
        places = {each.identity: index for index, each in enumerate(old.columns)}
        table.rows = [
            [
                row[places[each.identity]] if each.identity in places else fill.get(each.identity)
                for each in schema.columns
            ]
            for row in table.rows
        ]
        table.schema = schema
        return Evolve(old, schema, 0, fill)

    def _grow(self) -> list[Step]:
        table = self.random.choice(self.tables)
        identity, kind = next(table.next), self.random.choice([_TEXT, _INT32, _PRICE, _MOMENT])
        names = {each.name for each in table.schema.columns}
        name = self.random.choice([each for each in ("again", "new one", f"n{identity}") if each not in names])
        fill = self.value(kind)
        added = replace(table.schema, columns=(*table.schema.columns, column(name, kind, identity)))
        return [self.evolve(table, added, {identity: str(fill)} if fill is not None else {})]

    def _others(self, table: Table) -> list[Column]:
        return [each for each in table.schema.columns if each.key is None]

    def _shrink(self) -> list[Step]:
        table = self.random.choice(self.tables)
        others = self._others(table)
        if len(others) < 2:
            return []
        gone = self.random.choice(others)
        columns = tuple(each for each in table.schema.columns if each is not gone)
        return [self.evolve(table, replace(table.schema, columns=columns))]

    def _renamed(self, table: Table, names: Mapping[str, str]) -> Step:
        columns = tuple(replace(each, name=names.get(each.name, each.name)) for each in table.schema.columns)
        return self.evolve(table, replace(table.schema, columns=columns))

    def _rename(self) -> list[Step]:
        """A column gets another name, which a column that goes may have had."""
        table = self.random.choice(self.tables)
        moved = self.random.choice(table.schema.columns)
        others = [each for each in self._others(table) if each is not moved]
        if len(others) < 2 or self.random.random() < 0.5:
            return [self._renamed(table, {moved.name: f"r{next(table.next)}"})]
        gone = self.random.choice(others)
        kept = tuple(
            replace(each, name=gone.name) if each is moved else each
            for each in table.schema.columns
            if each is not gone
        )
        return [self.evolve(table, replace(table.schema, columns=kept))]

    def _swap(self) -> list[Step]:
        table = self.random.choice([each for each in self.tables if len(each.schema.columns) > 1])
        one, other = self.random.sample(table.schema.columns, 2)
        return [self._renamed(table, {one.name: other.name, other.name: one.name})]

    def _retype(self) -> list[Step]:
        table = self.random.choice(self.tables)
        columns = tuple(
            replace(each, type=_GROWS[each.type], source_type=_SOURCE_TYPES[_GROWS[each.type]])
            if each.key is None and each.type in _GROWS
            else each
            for each in table.schema.columns
        )
        return [self.evolve(table, replace(table.schema, columns=columns))] if columns != table.schema.columns else []

    def _named(self, table: Table, name: TableName) -> Step:
        return self.evolve(table, replace(table.schema, table=name))

    def _move(self) -> list[Step]:
        """A table gets another name, in another schema perhaps."""
        table = self.random.choice(self.tables)
        schema = self.random.choice(["conformance", "elsewhere"])
        return [self._named(table, TableName(schema, f"moved_{table.schema.identity}_{next(table.next)}"))]

    def _move_all(self) -> list[Step]:
        """The tables get each other's names."""
        names = [table.schema.table for table in self.tables]
        if len(names) < 2:
            return []
        free = self._named(self.tables[0], TableName("conformance", f"between_{next(self.tables[0].next)}"))
        return [
            free,
            *(self._named(table, name) for table, name in zip(self.tables[1:], names, strict=False)),
            self._named(self.tables[0], names[-1]),
        ]
