"""What happened to a database, made from a seed: transactions over a few tables, and what each left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

TEXT, INT, BIGINT, NARROW = "text", "int", "bigint", "text of five characters"
KEY = 1  # the number of the column that is the key, in tables that have one
LONG = "a long value that does not stand in the row itself, "

Values = dict[int, str | None]  # a row: by the columns' numbers, those of dropped columns included


@dataclass(frozen=True)
class Column:
    number: int
    name: str
    type: str = TEXT
    fill: str | None = None  # what rows have that are older than the column


@dataclass(frozen=True)
class Shape:
    """One version of one table.

    Attributes:
        identity: how the log identifies rows: d by the key, f by all values, n not at all.
    """

    oid: int
    name: str
    identity: str
    keyed: bool
    columns: tuple[Column, ...]

    def row(self, values: Values) -> tuple[str | None, ...]:
        return tuple(values.get(column.number, column.fill) for column in self.columns)


@dataclass(frozen=True)
class Op:
    """One thing that a transaction did.

    Attributes:
        what: insert, update, delete, truncate, reshape, or message (which touches no table).
        shapes: the table as it was then; of a truncate all of them; of a reshape before and after.
        touched: the columns that an update set.
    """

    what: str
    shapes: tuple[Shape, ...] = ()
    old: Values = field(default_factory=dict)
    new: Values = field(default_factory=dict)
    touched: frozenset[int] = frozenset()

    @property
    def shape(self) -> Shape:
        return self.shapes[0]

    @property
    def moves(self) -> bool:
        return self.what == "update" and self.shape.keyed and self.old[KEY] != self.new[KEY]


@dataclass(frozen=True)
class Version:
    """One table as of some moment.

    Attributes:
        shape: its shape.
        described: the shape that the log last had rows of, if a log describes a shape with the rows only.
        described_in: the number of the transaction with these rows, -1 if no such transaction has come yet.
        rows: all of them.
    """

    shape: Shape
    described: Shape
    described_in: int
    rows: tuple[Values, ...]


@dataclass(frozen=True)
class Transaction:
    ops: tuple[Op, ...]
    committed: bool = True


class History:
    """Transactions one after the other, and all tables after each.

    Args:
        rng: makes everything.
        statements_commit: a truncate or a change of shape is a transaction of its own (MySQL), and there is no table
            whose rows nothing identifies.
    """

    def __init__(self, rng: Random, size: int, *, statements_commit: bool) -> None:
        self._rng = rng
        self._alone = statements_commit
        self._names = 0
        self._tables: dict[int, Shape] = {}
        self._rows: dict[int, list[Values]] = {}
        self._described: dict[int, tuple[Shape, int]] = {}
        self._reshaped: Counter[int] = Counter()
        self.transactions: list[Transaction] = []
        self.coverage: Counter[str] = Counter()
        for oid in range(1, rng.randint(1, 3) + 1):
            self._create(oid)
        self.states = [self._state()]
        for _ in range(size):
            self._add()

    def _create(self, oid: int) -> None:
        identity, keyed = self._rng.choice(
            [("d", True), ("d", True), ("f", True), ("f", False)] + ([] if self._alone else [("n", False)])
        )
        columns = (Column(1, "id", INT), Column(2, "v"), Column(3, "big"))
        self._tables[oid] = Shape(oid, f"t{oid}", identity, keyed, columns)
        self._rows[oid] = []
        self._described[oid] = (self._tables[oid], -1)
        for _ in range(self._rng.choice([0, 1, 3, 5])):
            self._insert(oid)

    def _state(self) -> dict[int, Version]:
        return {
            oid: Version(shape, *self._described[oid], tuple(self._rows[oid])) for oid, shape in self._tables.items()
        }

    def has_reshaped(self, oid: int, first: int, last: int) -> bool:
        """Whether a table was truncated or altered between two states, so that no snapshot sees it rightly (C-08)."""
        return any(
            transaction.committed and op.what in ("truncate", "reshape") and any(s.oid == oid for s in op.shapes)
            for transaction in self.transactions[first:last]
            for op in transaction.ops
        )

    # --- transactions -----------------------------------------------------------------------------------------------

    def _add(self) -> None:
        kind = self._rng.choices(
            ["rows", "large", "swap", "truncate", "reshape", "empty", "aborted"], [45, 8, 10, 8, 12, 9, 8]
        )[0]
        self.coverage[f"transaction: {kind}"] += 1
        if kind == "aborted":
            self._abort()
            return
        make: dict[str, Callable[[], list[Op]]] = {
            "rows": lambda: self._rows_of(self._rng.randint(1, 6)),
            "large": lambda: self._rows_of(self._rng.randint(15, 30)),
            "swap": self._swap,
            "truncate": self._truncate,
            "reshape": self._reshape,
            "empty": self._empty,
        }
        ops = make[kind]()
        number = len(self.transactions)
        for op in ops:
            self.coverage[f"change: {op.what}"] += 1
            self.coverage["change: key moved"] += op.moves
            for shape in op.shapes if op.what not in ("reshape", "message") else ():
                self._described[shape.oid] = (shape, number)
        self.coverage["transaction: several tables"] += len({s.oid for op in ops for s in op.shapes}) > 1
        self.transactions.append(Transaction(tuple(ops)))
        self.states.append(self._state())

    def _abort(self) -> None:
        """Work that is rolled back: a log may have traces of it, but no table has."""
        rows, described = {oid: list(rows) for oid, rows in self._rows.items()}, dict(self._described)
        ops = self._rows_of(self._rng.randint(1, 4))
        self._rows, self._described = rows, described
        self.transactions.append(Transaction(tuple(ops), committed=False))
        self.states.append(self._state())

    def _empty(self) -> list[Op]:
        return [Op("message")] if self._rng.random() < 0.5 and not self._alone else []

    def _rows_of(self, count: int) -> list[Op]:
        return [op for _ in range(count) for op in self._change(self._any())]

    def _any(self) -> int:
        return self._rng.choice(list(self._tables))

    def _change(self, oid: int) -> list[Op]:
        shape = self._tables[oid]
        what = self._rng.choice(["insert", "insert", "update", "update", "update", "delete", "move"])
        if what == "insert" or shape.identity == "n" or not self._rows[oid]:
            return [self._insert(oid)] if len(self._rows[oid]) < 12 else []
        if what == "delete":
            return [Op("delete", (shape,), old=self._rows[oid].pop(self._rng.randrange(len(self._rows[oid]))))]
        index = self._rng.randrange(len(self._rows[oid]))
        return [self._update(oid, index, self._key(oid) if what == "move" and shape.keyed else None)]

    def _insert(self, oid: int) -> Op:
        shape = self._tables[oid]
        values = {column.number: self._value(column) for column in shape.columns}
        if shape.keyed:
            values[KEY] = self._key(oid)
        self._rows[oid].append(values)
        return Op("insert", (shape,), new=values)

    def _update(self, oid: int, index: int, key: str | None) -> Op:
        shape, old = self._tables[oid], self._rows[oid][index]
        touched = {column.number for column in shape.columns[1:] if self._rng.random() < 0.5}
        new = {column.number: old.get(column.number, column.fill) for column in shape.columns} | {
            number: value for number, value in old.items() if number not in {c.number for c in shape.columns}
        }
        new |= {column.number: self._value(column) for column in shape.columns if column.number in touched}
        if key is not None:
            new[KEY] = key
        self._rows[oid][index] = new
        return Op("update", (shape,), old=old, new=new, touched=frozenset(touched))

    def _swap(self) -> list[Op]:
        """One statement that gives each of some rows the key of the next: two hold one key for a moment (D-04)."""
        oid, before = self._any(), self._some()
        count = len(self._rows[oid])
        if not self._tables[oid].keyed or count < 2:
            return before
        chosen = self._rng.sample(range(count), self._rng.randint(2, min(3, count)))
        keys = [self._rows[oid][index][KEY] for index in chosen]
        self.coverage["change: keys swapped"] += 1
        ops = [self._update(oid, index, key) for index, key in zip(chosen, keys[1:] + keys[:1], strict=True)]
        return before + ops + self._some()

    def _some(self) -> list[Op]:
        return [] if self._alone and self._rng.random() < 0.5 else self._rows_of(self._rng.randint(0, 3))

    def _truncate(self) -> list[Op]:
        before = [] if self._alone else self._some()
        some = self._rng.sample(list(self._tables), 1 if self._alone else self._rng.randint(1, len(self._tables)))
        for oid in some:
            self._rows[oid] = []
        ops = [*before, Op("truncate", tuple(self._tables[oid] for oid in some))]
        return ops if self._alone else ops + self._some()

    def _reshape(self) -> list[Op]:
        oid = self._any()
        shape = self._tables[oid]
        if self._reshaped[oid] >= 2:  # more at once cannot be distinguished by the log and today's catalog alone
            return self._rows_of(self._rng.randint(1, 6))
        self._reshaped[oid] += 1
        before = [] if self._alone else self._some()
        after = self._reshaping(shape)
        self._tables[oid] = after
        ops = [*before, Op("reshape", (shape, after))]
        return ops if self._alone else ops + self._some()

    def _reshaping(self, shape: Shape) -> Shape:
        self._names += 1
        whats = ["add", "add", "add with default", "rename", "drop", "rename table"]
        what = self._rng.choice([*whats, "rewrite" if self._alone else "widen"])
        columns, last = shape.columns, max(column.number for column in shape.columns)
        old = [column for column in columns if column.number in (2, 3) and len(column.name) < 4]
        key = columns[0]
        if what == "drop" and len(old) > 1:
            columns = tuple(column for column in columns if column is not old[0])
        elif what == "rename" and old:
            columns = tuple(replace(c, name=f"renamed{self._names}") if c is old[-1] else c for c in columns)
        elif what == "widen" and key.type == INT:
            columns = (replace(key, type=BIGINT), *columns[1:])
        elif what == "rewrite" and any(column.type == TEXT for column in columns):
            # Existing rows are written again, which no log has, so that the table has to be copied again.
            first = next(column for column in columns if column.type == TEXT)
            columns = tuple(replace(column, type=NARROW) if column is first else column for column in columns)
            number, fill = first.number, first.fill
            self._rows[shape.oid] = [
                {**row, number: (row.get(number, fill) or "")[:5] if row.get(number, fill) is not None else None}
                for row in self._rows[shape.oid]
            ]
        elif what == "rename table":
            self.coverage[f"reshape: {what}"] += 1
            return replace(shape, name=f"{shape.name}_{self._names}")
        else:
            what = what if what.startswith("add") else "add"
            fill = f"default {self._names}" if what == "add with default" else None
            columns = (*columns, Column(max(last, 3) + 1, f"added{self._names}", TEXT, fill))
        self.coverage[f"reshape: {what}"] += 1
        return replace(shape, columns=columns)

    # --- values -----------------------------------------------------------------------------------------------------

    def _key(self, oid: int) -> str:
        taken = {row[KEY] for row in self._rows[oid]}
        return self._rng.choice([key for key in map(str, range(1, 20)) if key not in taken])

    def _value(self, column: Column) -> str | None:
        if column.type not in (TEXT, NARROW):
            return str(self._rng.randint(1, 3))
        short = self._rng.choice([None, "", "x", "y", "é", "twelve bytes", "thirteen byte"])
        if column.type == NARROW:
            return short[:5] if short is not None else None
        return short if column.number != 3 or self._rng.random() < 0.2 else LONG + str(self._rng.randint(1, 3))
