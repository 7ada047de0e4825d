"""Messages as columns, and how those of several tables come into commit order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc.errors import DecodeError
from cdc.formats.text import LARGE
from cdc.model.schema import TableName

LAST = 1 << 62  # ordinal behind all others of a transaction
_BINARY = pa.large_binary()


class Message(NamedTuple):
    """One message.

    Attributes:
        table: whose rows it is about; None if it is about a transaction, or an annotation.
        key: of the row, as JSON; None for a table without one.
        value: as JSON; None for a tombstone.
    """

    table: TableName | None
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Block:
    """Messages about one table, as arrays of one length.

    Attributes:
        table: None for messages about transactions.
        transaction: int64[n], index into the segment's transactions; -1 before all of them.
        ordinal: int64[n], place in the transaction.
        rank: int64[n], place among the messages of one change.
        key, value: see `Message`.
    """

    table: TableName | None
    transaction: np.ndarray
    ordinal: np.ndarray
    rank: np.ndarray
    key: pa.Array
    value: pa.Array


@dataclass(frozen=True, slots=True)
class Encoded:
    """Messages in commit order.

    Attributes:
        tables: those that the messages are about.
        table: int64[n], the index into `tables` of each message's.
        key, value: see `Message`; large strings.
    """

    tables: list[TableName | None]
    table: np.ndarray
    key: pa.Array
    value: pa.Array

    def __len__(self) -> int:
        return len(self.table)

    def messages(self) -> Iterator[Message]:
        """One after the other."""
        tables = [self.tables[index] for index in self.table.tolist()]
        return map(Message, tables, _bytes(self.key), _bytes(self.value))

    def lines(self) -> pa.Buffer | bytes:
        """The values as lines of text; a message without one is none."""
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
        return Encoded([], np.empty(0, dtype=np.int64), pa.array([], LARGE), pa.array([], LARGE))
    tables = [block.table for block in blocks]
    table = np.repeat(np.arange(len(blocks)), [len(block.transaction) for block in blocks])
    key, value = (_concatenated([getattr(block, name) for block in blocks]) for name in ("key", "value"))
    if len(blocks) > 1:
        places = [np.concatenate([getattr(b, name) for b in blocks]) for name in ("rank", "ordinal", "transaction")]
        order = np.lexsort(places)
        if not np.array_equal(order, np.arange(len(order))):
            table, key, value = table[order], key.take(pa.array(order)), value.take(pa.array(order))
    try:
        value.validate(full=True)
    except pa.ArrowInvalid:
        raise DecodeError("The source sent a text with bytes that are not UTF-8.") from None
    return Encoded(tables, table, key, value)


def _concatenated(arrays: Sequence[pa.Array]) -> pa.Array:
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)
