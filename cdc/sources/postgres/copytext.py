"""The text format of COPY TO: bytes of rows in, a batch of copied rows out, no I/O.

https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS: values are separated by a tab, rows by a
newline, null is backslash N, and a backslash takes the special meaning off (or gives it to) the byte after it.
Whatever is left after that is the same text that the stream carries (A-80).
"""

from __future__ import annotations

import numpy as np

from cdc.errors import DecodeError
from cdc.model.change import ABSENT, ChangeBatch, Op, Rows
from cdc.model.schema import TableSchema
from cdc.sources.lockstep import Buffer, string_array, string_views

_TAB, _NEWLINE, _BACKSLASH = 9, 10, 92
_MEANING = np.arange(256, dtype=np.uint8)
_IS_ESCAPED = np.zeros(256, dtype=bool)  # what the server writes with a backslash (CopyAttributeOutText)
_IS_ESCAPED[_BACKSLASH] = True
for _letter, _byte in {"b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}.items():
    _MEANING[ord(_letter)] = _byte
    _IS_ESCAPED[ord(_letter)] = True


def decode_copy(rows: list[bytes], schema: TableSchema) -> ChangeBatch:
    """Decode rows of COPY TO (each with its newline), their columns in the schema's order.

    Raises:
        DecodeError: a row has another number of columns, or is not one line.
    """
    buffer, width = Buffer(rows), len(schema.columns)
    data = buffer.bytes[: buffer.size]
    is_end = data == _TAB
    is_end |= data == _NEWLINE
    ends = np.flatnonzero(is_end)
    del is_end  # as long as the data, which may be one huge value
    last = np.cumsum(np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))) - 1
    is_line = np.array_equal(ends[data[ends] == _NEWLINE], last)
    if not is_line or len(ends) != width * len(rows) or not np.array_equal(ends[width - 1 :: max(width, 1)], last):
        raise DecodeError(f"A copied row of {schema.table} has another number of columns than the table.")
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    lengths = ends - starts

    backslashes = np.flatnonzero(data == _BACKSLASH)
    is_null = np.zeros(len(ends), dtype=bool)
    if len(backslashes):
        # No value but null is a backslash and an N: a backslash of the value's own is doubled.
        is_null = (lengths == 2) & (data[starts] == _BACKSLASH) & (buffer.bytes[starts + 1] == ord("N"))
        escaping = _escaping(backslashes)
        if not (_IS_ESCAPED[data[escaping + 1]] | _is_at(escaping, starts[is_null])).all():
            raise DecodeError(f"A copied row of {schema.table} has an escape that PostgreSQL does not write.")
        buffer, starts, ends = _without_escapes(data, escaping, starts, ends)
        lengths = np.where(is_null, 0, ends - starts)

    starts, lengths, valid = (part.reshape(len(rows), width) for part in (starts, lengths, ~is_null))
    columns = tuple(
        string_array(buffer, string_views(buffer, starts[:, column], lengths[:, column]), valid[:, column])
        for column in range(width)
    )
    count = len(rows)
    return ChangeBatch(
        schema=schema,
        op=np.full(count, Op.INSERT, dtype=np.uint8),
        transaction=np.zeros(count, dtype=np.int32),
        ordinal=np.arange(count, dtype=np.int64),
        after=Rows(columns, (None,) * width),
        after_row=np.arange(count, dtype=np.int64),
        before=None,
        before_row=np.full(count, ABSENT, dtype=np.int64),
        copied=True,
        size=buffer.size,
    )


def _escaping(backslashes: np.ndarray) -> np.ndarray:
    """Those of the backslashes that escape the byte after them: in a run of them every second one, from the first."""
    begins_run = np.diff(backslashes, prepend=-2) > 1
    index = np.arange(len(backslashes))
    place_in_run = index - np.maximum.accumulate(np.where(begins_run, index, 0))
    escaping: np.ndarray = backslashes[place_in_run % 2 == 0]
    return escaping


def _is_at(places: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """bool[n]: which of the places, in ascending order as the others are, is one of `starts`."""
    found = np.zeros(len(places), dtype=bool)
    found[np.searchsorted(places, starts)] = True
    return found


def _without_escapes(
    data: np.ndarray, escaping: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> tuple[Buffer, np.ndarray, np.ndarray]:
    """Take the escaping backslashes out of all values at once, and move the values' borders along."""
    plain = data.copy()
    plain[escaping + 1] = _MEANING[data[escaping + 1]]
    buffer = Buffer([np.delete(plain, escaping).data])
    return buffer, starts - np.searchsorted(escaping, starts), ends - np.searchsorted(escaping, ends)
