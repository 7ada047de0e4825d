"""The text format of COPY TO: bytes of rows in, a batch of copied rows out, no I/O.

https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS: values are separated by a tab, rows by a
newline, null is backslash N, and a backslash takes the special meaning off (or gives it to) the byte after it.
Whatever is left after that is the same text that the stream carries (A-80).

Arrow's reader of CSV does the work. It takes a byte behind its escape character as it is, and so the letters that
PostgreSQL writes there are made the bytes that they mean before.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from pyarrow import csv

from cdc.errors import DecodeError
from cdc.model.arrays import TEXT
from cdc.model.change import ABSENT, ChangeBatch, Op, Rows
from cdc.model.schema import Kind, TableSchema

_NEWLINE, _BACKSLASH, _N = b"\n\\N"
_MEANING = np.zeros(256, dtype=np.uint8)  # of what the server writes behind a backslash (CopyAttributeOutText)
_MEANING[_BACKSLASH] = _BACKSLASH
for _letter, _byte in {"b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}.items():
    _MEANING[ord(_letter)] = _byte
_NEVER = (b"\0", b"\r")  # no text of the server's has the first; the second, which it escapes, would end a line here
_NULL = "\0\0"  # takes the place of a backslash and an N
_MARK = b"\xef\xbb\xbf"  # of UTF-8: the reader leaves out the first one, which otherwise could be a value's own
# Whose canonical texts are those of Arrow's values, too. A double has other ones, a numeric none where it is NaN.
_NATIVE = {
    Kind.INT16: pa.int16(),
    Kind.INT32: pa.int32(),
    Kind.INT64: pa.int64(),
    Kind.UINT32: pa.uint32(),
    Kind.UINT64: pa.uint64(),
    Kind.DATE: pa.date32(),
    Kind.TIMESTAMP: pa.timestamp("us"),
    Kind.TIMESTAMPTZ: pa.timestamp("us", "UTC"),
}


class CopyDecoder:
    """Decodes rows of COPY TO of one table, their columns in the schema's order; for several threads.

    Numbers and moments become native. A column with a value for which the native type has no place (infinity, a year
    before Christ or of five digits) is text from there on.
    """

    def __init__(self, schema: TableSchema) -> None:
        self.schema = schema
        self._names = [str(index) for index in range(len(schema.columns))]
        self._native = {
            name: _NATIVE[column.type.kind]
            for name, column in zip(self._names, schema.columns, strict=True)
            if column.type.kind in _NATIVE
        }

    def decode(self, rows: list[bytes]) -> ChangeBatch:
        """Decode rows, each with its newline.

        Raises:
            DecodeError: a row has another number of columns, or is not one line.
        """
        data, count = b"".join((_MARK, *rows)), len(rows)
        columns = self._columns(data) if self._are_lines(data, rows) else ()
        if not columns or len(columns[0]) != count:
            raise self._torn()
        return ChangeBatch(
            schema=self.schema,
            op=np.full(count, Op.INSERT, dtype=np.uint8),
            transaction=np.zeros(count, dtype=np.int32),
            ordinal=np.arange(count, dtype=np.int64),
            after=Rows(columns, (None,) * len(columns)),
            after_row=np.arange(count, dtype=np.int64),
            before=None,
            before_row=np.full(count, ABSENT, dtype=np.int64),
            copied=True,
            size=len(data) - len(_MARK),
        )

    def _are_lines(self, data: bytes, rows: list[bytes]) -> bool:
        """Whether each of the rows ends a line, in which the reader can find as many values as there are columns.

        It takes an empty line for a row of as many empty values as it likes.
        """
        if not self._names or any(byte in data for byte in _NEVER):
            return False
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        ends = np.frombuffer(data, dtype=np.uint8)[np.cumsum(lengths) + (len(_MARK) - 1)]
        return bool((ends == _NEWLINE).all() and (lengths >= len(self._names)).all())

    def _columns(self, given: bytes) -> tuple[pa.Array, ...]:
        has_escapes = b"\\" in given
        data = self._without_letters(given) if has_escapes else memoryview(given)
        try:
            return self._read(data, self._native, has_escapes=has_escapes)
        except pa.ArrowInvalid:
            pass
        try:
            texts = self._read(data, {}, has_escapes=has_escapes)
        except pa.ArrowInvalid:
            raise self._torn() from None
        return tuple(self._made_native(name, text) for name, text in zip(self._names, texts, strict=True))

    def _read(self, data: memoryview, native: Mapping[str, pa.DataType], *, has_escapes: bool) -> tuple[pa.Array, ...]:
        table = csv.read_csv(
            pa.py_buffer(data),
            csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=self._names),
            csv.ParseOptions(
                delimiter="\t",
                quote_char=False,
                escape_char="\\" if has_escapes else False,
                newlines_in_values=has_escapes,
                ignore_empty_lines=False,
            ),
            csv.ConvertOptions(
                check_utf8=False,  # whoever reads the texts does that
                column_types={name: native.get(name, pa.string()) for name in self._names},
                null_values=[_NULL],
                strings_can_be_null=has_escapes,
            ),
        )
        columns = (column.chunk(0) for column in table.columns)  # all of it was one block
        return tuple(column.cast(TEXT) if column.type == pa.string() else column for column in columns)

    def _made_native(self, name: str, text: pa.Array) -> pa.Array:
        kind = self._native.get(name, TEXT)
        try:
            return text if kind == TEXT else text.cast(pa.string()).cast(kind)
        except pa.ArrowInvalid:
            self._native.pop(name, None)
            return text

    def _without_letters(self, data: bytes) -> memoryview:
        """With the bytes that escapes mean behind their backslashes, and zeros for each null."""
        found = np.frombuffer(data, dtype=np.uint8)
        escaping = _escaping(np.flatnonzero(found == _BACKSLASH))
        letters = found[escaping + 1]
        nulls = escaping[letters == _N]
        begins_value = _is_separator(found[nulls - 1]) | (nulls == len(_MARK))
        is_known = (_MEANING[letters] != 0) | (letters == _N)
        if not (is_known.all() and begins_value.all() and _is_separator(found[nulls + 2]).all()):
            raise DecodeError(f"A copied row of {self.schema.table} has an escape that PostgreSQL does not write.")
        plain = found.copy()
        plain[escaping + 1] = _MEANING[letters]
        plain[nulls] = 0
        return plain.data

    def _torn(self) -> DecodeError:
        return DecodeError(f"A copied row of {self.schema.table} has another number of columns than the table.")


def _escaping(backslashes: np.ndarray) -> np.ndarray:
    """Those of the backslashes that escape the byte after them: in a run of them every second one, from the first."""
    begins_run = np.diff(backslashes, prepend=-2) > 1
    index = np.arange(len(backslashes))
    place_in_run = index - np.maximum.accumulate(np.where(begins_run, index, 0))
    escaping: np.ndarray = backslashes[place_in_run % 2 == 0]
    return escaping


def _is_separator(bytes_: np.ndarray) -> np.ndarray:
    found: np.ndarray = (bytes_ == ord("\t")) | (bytes_ == _NEWLINE)
    return found
