"""Random work on one table as segments, and what the table was after each commit by the plainest of means."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cdc.model.change import ChangeBatch, Op, Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import Column, Kind, LogicalType
from cdc.model.segment import Changes, Evolve, Reset, Segment, Step, Truncate
from tests.model.batches import UNCHANGED, Row, batch, table

Change = tuple[Op, Row | None, Row | None]
TIME = 4_102_444_800_000_000  # after all that this machine's clock says of copies


@dataclass
class Work:
    """One table and its log.

    Attributes:
        states, texts: per commit (or place of a copy), the rows by the identities of their columns, and its position.
        logged: how many new images of rows there have been in the log.
        copied_new: how many rows copies have brought that were not there before.
        gone: keys that no row has any more, each with the last row that had it, and where that went.
    """

    rng: random.Random
    keyed: bool = True
    full: bool = False
    order: int = 100
    rows: list[list[object]] = field(default_factory=list)
    states: dict[int, list[dict[int, object]]] = field(default_factory=dict)
    logged: int = 0
    copied_new: int = 0
    identity: int = 3
    gone: dict[object, tuple[list[object], str]] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.schema = table(3, (0,) if self.keyed else (), full_before=self.full or not self.keyed)

    # --- the database -----------------------------------------------------------------------------------------------

    def note(self, order: int, text: str | None = None) -> None:
        self.texts[order] = text or f"p{order}"
        identities = [column.identity for column in self.schema.columns]
        self.states[order] = [dict(zip(identities, row, strict=True)) for row in self.rows]

    def value(self) -> object:
        return self.rng.choice([None, "", "x", "y", "a value that does not fit into a view"])

    def key(self) -> str:
        return str(self.rng.randrange(5))

    def free(self) -> list[str]:
        return [key for key in map(str, range(5)) if all(row[0] != key for row in self.rows)]

    def insert(self) -> Iterator[Change]:
        keys = self.free() if self.keyed else [self.key()]
        if keys:
            row = [self.rng.choice(keys), *(self.value() for _ in self.schema.columns[1:])]
            self.rows.append(row)
            yield Op.INSERT, None, tuple(row)

    def delete(self) -> Iterator[Change]:
        if self.rows:
            row = self.rows.pop(self.rng.randrange(len(self.rows)))
            self.leaves(row)
            yield Op.DELETE, self.old(row), None

    def leaves(self, row: list[object]) -> None:
        self.gone[row[0]] = (list(row), f"p{self.order}")

    def old(self, row: Sequence[object]) -> Row:
        return tuple(row) if self.schema.full_before else (row[0], *(None for _ in row[1:]))

    def update(self) -> Iterator[Change]:
        if self.rows:
            row = self.rng.choice(self.rows)
            moved = self.rng.random() < 0.3 and (self.free() if self.keyed else [self.key()])
            yield self.write(row, self.rng.choice(moved) if moved else row[0])

    def rotate(self) -> Iterator[Change]:
        """One statement that moves keys around: two rows hold one for a moment."""
        some = self.rng.sample(self.rows, self.rng.randint(0, len(self.rows)))
        for row, key in zip(some, [row[0] for row in some[1:] + some[:1]], strict=True):
            yield self.write(row, key)

    def write(self, row: list[object], key: object) -> Change:
        before, moved = self.old(row), row[0] != key
        if moved:
            self.leaves(row)
        row[0], row[1] = key, self.value()
        whole = self.schema.full_before or self.rng.random() < 0.5
        if whole:
            row[2:] = [self.value() for _ in row[2:]]
        after = tuple(row) if whole else (*row[:2], *(UNCHANGED for _ in row[2:]))
        return Op.UPDATE, before if moved or self.schema.full_before else None, after

    @property
    def commits(self) -> list[int]:
        return [order for order, text in self.texts.items() if text == f"p{order}"]

    # --- its log ----------------------------------------------------------------------------------------------------

    def copy(self, *, keep: bool = False) -> Iterator[Segment]:
        """The table is copied, after changes that nobody saw if it was before."""
        before, gone = [list(row) for row in self.rows], dict(self.gone)
        if keep:
            for _ in range(self.rng.randrange(4)):
                for _ in getattr(self, self.rng.choice(["insert", "delete", "update"]))():
                    pass
        self.order += 10  # the copy is of the place before this one
        self.gone = gone | {row[0]: (row, f"copy {self.order}") for row in before}
        self.forget_held()
        if keep and self.rng.random() < 0.5:  # cut off, and begun again later
            at = Checkpoint(Position(self.order, f"copy {self.order}"), "{}")
            yield Segment([Reset(self.schema)], Transactions.none(), at)
            if some := self.rows[: self.rng.randrange(3)]:
                yield Segment([Changes(self.copied(some))], Transactions.none(), at)
            self.order += 10
        self.copied_new += sum((Counter(map(tuple, self.rows)) - Counter(map(tuple, before))).values())
        self.note(self.order - 1, f"copy {self.order}")
        at = Checkpoint(Position(self.order, f"copy {self.order}"), "{}")
        yield Segment([Reset(self.schema)], Transactions.none(), at)
        half = len(self.rows) // 2
        for part in (self.rows[:half], self.rows[half:]):
            if part:
                yield Segment([Changes(self.copied(part))], Transactions.none(), at)

    def copied(self, rows: Sequence[Sequence[object]]) -> ChangeBatch:
        return replace(batch(self.schema, [(Op.INSERT, None, tuple(row)) for row in rows]), copied=True)

    def forget_states(self) -> None:
        """What was noted so far is not what the target has seen."""
        self.states.clear()

    def segment(self, *, steady: bool = False) -> list[Segment]:
        """Some transactions, as one segment or, the last of them, in parts; steady ones leave the shape as it is."""
        steps: list[Step] = []
        orders: list[int] = []
        for number in range(self.rng.randint(1, 4)):
            self.order += self.rng.randint(0 if not number and self.order not in self.texts else 1, 20)
            orders.append(self.order)
            self.transaction(steps, number, steady=steady)
            self.note(self.order)
        end = Checkpoint(Position(self.order + 1, f"end {self.order}"), "{}")
        cut = self.rng.randint(0, len(steps)) if self.rng.random() < 0.3 else 0
        if not cut:
            return [Segment(steps, transactions(orders), end)]
        return [Segment(steps[:cut], transactions(orders), None), Segment(steps[cut:], transactions(orders), end)]

    def transaction(self, steps: list[Step], number: int, *, steady: bool = False) -> None:
        ordinal = 0
        if not steady and self.rng.random() < 0.1:
            steps.append(self.grow(number))
        for _ in range(self.rng.randint(1, 3)):
            if self.rng.random() < 0.07:
                for row in self.rows:
                    self.leaves(row)
                self.rows.clear()
                steps.append(Truncate(self.schema, number, ordinal))
                ordinal += 1
                continue
            acts = [self.rng.choice(["insert", "delete", "update", "update", "rotate"]) for _ in range(4)]
            changes = [change for act in acts for change in getattr(self, act)()]
            if changes:
                made = batch(self.schema, changes)
                made.transaction[:] = number
                made.ordinal[:] += ordinal
                ordinal += len(changes)
                self.logged += sum(new is not None for _, _, new in changes)
                steps.append(Changes(made))
        self.forget_held()

    def forget_held(self) -> None:
        for row in self.rows:
            self.gone.pop(row[0], None)

    def grow(self, number: int) -> Evolve:
        """A column more, with a value in the rows that are there; or one less."""
        old, columns = self.schema, self.schema.columns
        if len(columns) > 3 and self.rng.random() < 0.5:
            self.schema = replace(old, columns=columns[:3] + columns[4:])
            for row in [*self.rows, *(row for row, _ in self.gone.values())]:
                del row[3]
            return Evolve(old, self.schema, number)
        self.identity += 1
        identity = self.identity
        name = f"n{identity}" if self.rng.random() < 0.5 else "again"
        if name in [column.name for column in columns]:
            name = f"n{identity}"
        column = Column(name, "text", LogicalType(Kind.TEXT), identity)
        self.schema = replace(old, columns=(*columns, column))
        for row in self.rows:
            row.append("filled")
        for row, _ in self.gone.values():
            row.append(None)
        return Evolve(old, self.schema, number, {identity: "filled"})


def transactions(orders: Sequence[int]) -> Transactions:
    numbers = np.array(orders, dtype=np.int64)
    return Transactions(numbers, numbers + 1_000_000, time_of(numbers), lambda order: f"p{order}")


def time_of(orders: np.ndarray) -> np.ndarray:
    """When commits were, by the source's clock, which steps back now and then: microseconds since the Unix epoch."""
    return TIME + np.where(orders % 5 == 0, orders - 30, orders) * 1_000_000
