"""The shapes of tables, each emitted before the first message that has it, as a target of events remembers them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from cdc.formats.text import literal
from cdc.model.change import ABSENT
from cdc.model.schema import TableSchema
from cdc.model.segment import Changes, Note, Reset, Segment, Truncate

_DIGEST_BYTES = 8


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape that is to be emitted.

    Attributes:
        schema: the table.
        is_first: no other shape of the table has been emitted.
        transaction: index into the segment's transactions; ABSENT before all of them.
        ordinal: place in that transaction, of the change that comes next; None before rows that are copied, which come
            behind that transaction.
    """

    schema: TableSchema
    is_first: bool
    transaction: int
    ordinal: int | None


class Shapes:
    """The shapes that have been emitted.

    Args:
        emitted: by table identity a digest of the last one, as a target keeps it with its checkpoint.
    """

    def __init__(self, emitted: Mapping[int, str]) -> None:
        self.emitted = dict(emitted)
        self._known: dict[int, TableSchema] = {}  # of those that came since, so that a digest is made once

    def new_in(self, segment: Segment) -> list[Shape]:
        """The shapes that have to be emitted with a segment. From then on they count as emitted."""
        return list(self._new_in(segment))

    def _new_in(self, segment: Segment) -> Iterator[Shape]:
        last = ABSENT
        for step in segment.steps:
            match step:
                case Changes(batch) if len(batch) and batch.copied:
                    yield from self._new(batch.schema, last, None)
                case Changes(batch) if len(batch):
                    yield from self._new(batch.schema, int(batch.transaction[0]), int(batch.ordinal[0]))
                    last = int(batch.transaction[-1])
                case Truncate(schema, transaction, ordinal):
                    yield from self._new(schema, transaction, ordinal)
                    last = transaction
                case Note(transaction):
                    last = transaction
                case Reset(schema):
                    yield from self._new(schema, last, None)

    def _new(self, schema: TableSchema, transaction: int, ordinal: int | None) -> Iterator[Shape]:
        identity = schema.identity
        if self._known.get(identity) == schema:
            return
        self._known[identity] = schema
        content = literal({"table": str(schema.table), **described(schema)})
        digest = blake2b(content.encode(), digest_size=_DIGEST_BYTES).hexdigest()
        if self.emitted.get(identity) != digest:
            yield Shape(schema, identity not in self.emitted, transaction, ordinal)
            self.emitted[identity] = digest


def described(schema: TableSchema) -> dict[str, object]:
    """A table's shape. Whether a column takes NULL is no part of it, since no log says when that changes."""
    columns = [
        {"name": column.name, "type": column.source_type, "key": column.key, "identity": column.identity}
        for column in schema.columns
    ]
    return {"identity": schema.identity, "columns": columns}


def key_of(schema: TableSchema) -> str:
    """The key that all shapes of one table share, so that in a compacted topic the last one stays."""
    return literal({"identity": schema.identity})
