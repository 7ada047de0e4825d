"""The plainest target that keeps the contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cdc.errors import InvariantError, RowDrift, TargetDrift
from cdc.model.arrays import texts
from cdc.model.change import ABSENT, ChangeBatch, Op, Rows
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableSchema
from cdc.model.segment import Changes, Copied, Drop, Evolve, Gap, Note, Replace, Reset, Segment, Step, Suspect, Truncate

Row = tuple[str | None, ...]


@dataclass(slots=True)
class MemoryTable:
    """One table of a `MemoryTarget`.

    Attributes:
        schema: its shape.
        held: rows by their key, or by all of their values if there is none. More than one row of a key: between the
            statements of a transaction (keys that are swapped) or without a key; the first has been there longest.
    """

    schema: TableSchema
    held: dict[Row, list[Row]] = field(default_factory=dict)

    def copy(self) -> MemoryTable:
        """Another one with the same rows."""
        return MemoryTable(self.schema, {key: list(rows) for key, rows in self.held.items()})

    def rows(self) -> list[Row]:
        """All rows, in no particular order."""
        return [row for rows in self.held.values() for row in rows]

    def key_of(self, row: Row) -> Row:
        """What a row is found by."""
        return tuple(row[index] for index in self.schema.key) or row

    def put(self, row: Row) -> None:
        """Add a row."""
        self.held.setdefault(self.key_of(row), []).append(row)

    def take(self, row: Row) -> Row:
        """Remove the row that has the key of this one, and give it back; raises RowDrift without one (A-42)."""
        key = self.key_of(row)
        rows = self.held.get(key)
        if not rows:
            raise RowDrift(f"A row of {self.schema.table} is changed that is not there.")
        found = rows.pop(0)
        if not rows:
            del self.held[key]
        return found

    def change(self, batch: ChangeBatch, wanted: np.ndarray) -> None:
        """Apply those changes of a batch that are wanted (bool[n]), one after the other: nothing is folded."""
        after, before = _images(batch.after), _images(batch.before)
        masks = batch.after.unchanged if batch.after is not None else ()
        for index in np.flatnonzero(wanted).tolist():
            op, at, was_at = batch.op[index], int(batch.after_row[index]), int(batch.before_row[index])
            new = after[at] if at != ABSENT else None
            kept = {place for place, mask in enumerate(masks) if at != ABSENT and mask is not None and mask[at]}
            if op == Op.INSERT and (new is None or kept):
                raise InvariantError(f"A new row of {self.schema.table} came without all of its values.")
            identified_by = before[was_at] if was_at != ABSENT else new
            if identified_by is None:
                raise InvariantError(f"A change of {self.schema.table} says nothing of its row.")
            old = self.take(identified_by) if op != Op.INSERT else None
            if new is not None and old is not None and kept:
                new = tuple(old[place] if place in kept else value for place, value in enumerate(new))
            if new is not None:
                self.put(new)

    def evolved(self, step: Evolve) -> MemoryTable:
        """The table in its new shape: columns are matched by their identity."""
        places = {column.identity: index for index, column in enumerate(self.schema.columns)}
        made = MemoryTable(step.new)
        for row in self.rows():
            made.put(
                tuple(
                    row[places[column.identity]] if column.identity in places else step.fill.get(column.identity)
                    for column in step.new.columns
                )
            )
        return made


class MemoryTarget:
    """A `cdc.target.Target` whose tables are dictionaries: the plainest one that keeps the contract.

    It applies one change after the other, keeps the checkpoint with the data, lets nothing of a transaction be seen
    before all of it is there, and ignores what lies before its checkpoint. Values are canonical text (see
    `cdc.model.schema.Kind`). It may be opened again without having been closed, as after a crash.

    Attributes:
        tables: what is durable, by the tables' identities. Never changed in place: a copy of the dictionary is a state.
        checkpoint: what it holds; None before anything was written.
        changes: (order of the commit, ordinal, what, table's identity) of each durable change, in the order in which
            they came: a history in which a change that came twice or not at all would show.
    """

    def __init__(self) -> None:
        self.tables: dict[int, MemoryTable] = {}
        self.checkpoint: Checkpoint | None = None
        self.changes: list[tuple[int, int, Op, int]] = []
        self._draft: dict[int, MemoryTable] = {}
        self._drafted: list[tuple[int, int, Op, int]] = []

    def open(self) -> Checkpoint | None:
        self._forget()
        return self.checkpoint

    def close(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._draft, self._drafted = {}, []

    def rows(self, table: str) -> list[Mapping[str, str | None]]:
        """The rows of a table (`schema.name`) by the names of their columns, in the order of their values."""
        for known in self.tables.values():
            if str(known.schema.table) == table:
                names = [column.name for column in known.schema.columns]
                ordered = sorted(known.rows(), key=lambda row: [(value is not None, value or "") for value in row])
                return [dict(zip(names, row, strict=True)) for row in ordered]
        raise KeyError(table)

    def apply(self, segment: Segment) -> None:
        at = self.checkpoint.position if self.checkpoint is not None else None
        if at is not None and segment.checkpoint is not None and segment.checkpoint.position < at:
            return
        for step in segment.steps:
            self._take(step, segment, at)
        if segment.checkpoint is not None:
            self._commit(segment.checkpoint)

    def _take(self, step: Step, segment: Segment, at: Position | None) -> None:
        order = segment.transactions.order
        if isinstance(step, Changes):
            self._change(step.batch, order, at)
        elif isinstance(step, Reset):
            self._draft[step.schema.identity] = MemoryTable(step.schema)
        elif isinstance(step, Replace | Copied):
            raise InvariantError(f"{step.schema.table} is copied by parts, which is not for this target.")
        elif isinstance(step, Note | Suspect | Gap | Drop) or (
            step.transaction != ABSENT and at is not None and order[step.transaction] < at.order
        ):
            return
        elif isinstance(step, Truncate):
            self._table(step.schema).held.clear()
            self._drafted.append((int(order[step.transaction]), step.ordinal, Op.TRUNCATE, step.schema.identity))
        else:
            self._draft[step.new.identity] = self._table(step.old).evolved(step)

    def _change(self, batch: ChangeBatch, order: np.ndarray, at: Position | None) -> None:
        if batch.copied:
            self._table(batch.schema).change(batch, np.ones(len(batch), dtype=bool))
            return
        committed = order[batch.transaction]
        wanted = committed >= (at.order if at is not None else 0)
        if not wanted.any():  # of a shape, perhaps, that the table has no more
            return
        self._table(batch.schema).change(batch, wanted)
        self._drafted += [
            (int(committed[index]), int(batch.ordinal[index]), Op(batch.op[index]), batch.schema.identity)
            for index in np.flatnonzero(wanted)
        ]

    def _table(self, schema: TableSchema) -> MemoryTable:
        """The draft of a table, which must have that shape."""
        table = self._draft.get(schema.identity)
        if table is None:
            if schema.identity not in self.tables:
                raise TargetDrift(f"{schema.table} is not there.")
            table = self._draft[schema.identity] = self.tables[schema.identity].copy()
        if table.schema != schema:
            raise InvariantError(f"Changes of {schema.table} came in another shape than the table has.")
        return table

    def _commit(self, checkpoint: Checkpoint) -> None:
        for table in self._draft.values():
            if table.schema.key and any(len(rows) > 1 for rows in table.held.values()):
                raise InvariantError(f"{table.schema.table} would have two rows of one key.")
        self.tables = {**self.tables, **self._draft}
        self.checkpoint = checkpoint
        self.changes += self._drafted
        self._forget()


def _images(rows: Rows | None) -> list[Row]:
    return list(zip(*(texts(column) for column in rows.columns), strict=True)) if rows is not None else []
