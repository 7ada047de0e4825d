"""Messages as columns, and how those of several tables come into commit order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc.errors import DecodeError
from cdc.model.arrays import LARGE
from cdc.model.schema import TableName

LAST = 1 << 62  # ordinal behind all others of a transaction
_BINARY = pa.large_binary()

Headers: TypeAlias = tuple[tuple[str, bytes], ...]


class Message(NamedTuple):
    """One message.

    Attributes:
        table: whose rows it is about; None if it is about a transaction, or an annotation.
        key: of the row, as JSON; None for a table without one.
        value: as JSON; None for a tombstone.
        is_schema: it describes the shape of the table, by whose identity it is keyed.
        headers: names, with JSON.
    """

    table: TableName | None
    key: bytes | None
    value: bytes | None
    is_schema: bool = False
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Block:
    """Messages about one table, as arrays of one length.

    Attributes:
        table: None for messages about transactions.
        transaction: int64[n], index into the segment's transactions; -1 before all of them.
        ordinal: int64[n], place in the transaction.
        rank: int64[n], place among the messages of one change.
        key, value, is_schema: see `Message`.
        headers: by their names; null where a message has none of that name.
    """

    table: TableName | None
    transaction: np.ndarray
    ordinal: np.ndarray
    rank: np.ndarray
    key: pa.Array
    value: pa.Array
    is_schema: bool = False
    headers: Mapping[str, pa.Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Messages in commit order.

    Attributes:
        tables: those that the messages are about.
        are_schemas: whether the messages about each of these describe its shape.
        table: int64[n], the index into `tables` of each message's.
        key, value: see `Message`; large strings.
        headers: by their names; null where a message has none of that name.
    """

    tables: list[TableName | None]
    are_schemas: list[bool]
    table: np.ndarray
    key: pa.Array
    value: pa.Array
    headers: Mapping[str, pa.Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)

    def messages(self) -> Iterator[Message]:
        """One after the other."""
        which = self.table.tolist()
        tables, are_schemas = ([of[index] for index in which] for of in (self.tables, self.are_schemas))
        return map(Message, tables, _bytes(self.key), _bytes(self.value), are_schemas, self._headers())

    def _headers(self) -> Iterator[Headers]:
        if not self.headers:
            return repeat(())
        columns = [[(name, text) for text in _bytes(array)] for name, array in self.headers.items()]
        return (tuple((name, text) for name, text in found if text is not None) for found in zip(*columns, strict=True))

    def lines(self) -> pa.Buffer | bytes:
        """The values as lines of text; a message without a value gives no line."""
        values = self.value.drop_null()
        if not len(values):
            return b""
        texts = pc.binary_join_element_wise(values, pa.scalar("\n", LARGE), pa.scalar("", LARGE))
        _, offsets, data = texts.buffers()
        bounds = np.frombuffer(offsets, dtype=np.int64)
        return data.slice(int(bounds[texts.offset]), int(bounds[texts.offset + len(texts)] - bounds[texts.offset]))


def _bytes(array: pa.Array) -> list[bytes | None]:
    found: list[bytes | None] = array.cast(_BINARY).to_numpy(zero_copy_only=False).tolist()
    return found


def in_order(blocks: Sequence[Block]) -> Encoded:
    """Blocks as one, in the order of their changes.

    Raises:
        DecodeError: a value is not UTF-8.
    """
    blocks = [block for block in blocks if len(block.transaction)]
    if not blocks:
        return Encoded([], [], np.empty(0, dtype=np.int64), pa.array([], LARGE), pa.array([], LARGE))
    tables = [block.table for block in blocks]
    table = np.repeat(np.arange(len(blocks)), [len(block.transaction) for block in blocks])
    key, value = (_concatenated([getattr(block, name) for block in blocks]) for name in ("key", "value"))
    headers = {
        name: _concatenated([block.headers.get(name, pa.nulls(len(block.transaction), LARGE)) for block in blocks])
        for name in sorted({name for block in blocks for name in block.headers})
    }
    if len(blocks) > 1:
        places = [np.concatenate([getattr(b, name) for b in blocks]) for name in ("rank", "ordinal", "transaction")]
        order = np.lexsort(places)
        if not np.array_equal(order, np.arange(len(order))):
            table, key, value = table[order], key.take(pa.array(order)), value.take(pa.array(order))
            headers = {name: array.take(pa.array(order)) for name, array in headers.items()}
    try:
        value.validate(full=True)
    except pa.ArrowInvalid:
        raise DecodeError("The source sent a text with bytes that are not UTF-8.") from None
    return Encoded(tables, [block.is_schema for block in blocks], table, key, value, headers)


def _concatenated(arrays: Sequence[pa.Array]) -> pa.Array:
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)
