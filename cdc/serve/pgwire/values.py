"""How DuckDB's values travel in PostgreSQL's formats, text and binary; many rows at a time."""

from __future__ import annotations

import datetime
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from duckdb.sqltypes import DuckDBPyType
from psycopg.pq import Format

_EPOCH_DAYS = 10_957  # from 1970 to 2000, in which PostgreSQL counts
_EPOCH_MICROS = _EPOCH_DAYS * 86_400_000_000

TEXT, BOOL, BYTEA = 25, 16, 17
INT2, INT4, INT8 = 21, 23, 20
FLOAT4, FLOAT8, NUMERIC = 700, 701, 1700
DATE, TIME, TIMETZ, TIMESTAMP, TIMESTAMPTZ, INTERVAL = 1082, 1083, 1266, 1114, 1184, 1186
JSON, UUID = 114, 2950

OIDS = {
    "BOOLEAN": BOOL,
    "TINYINT": INT2,
    "UTINYINT": INT2,
    "SMALLINT": INT2,
    "USMALLINT": INT4,
    "INTEGER": INT4,
    "UINTEGER": INT8,
    "BIGINT": INT8,
    "UBIGINT": NUMERIC,
    "HUGEINT": NUMERIC,
    "UHUGEINT": NUMERIC,
    "BIGNUM": NUMERIC,
    "FLOAT": FLOAT4,
    "DOUBLE": FLOAT8,
    "BLOB": BYTEA,
    "DATE": DATE,
    "TIME": TIME,
    "TIME WITH TIME ZONE": TIMETZ,
    "TIMESTAMP": TIMESTAMP,
    "TIMESTAMP_S": TIMESTAMP,
    "TIMESTAMP_MS": TIMESTAMP,
    "TIMESTAMP_NS": TIMESTAMP,
    "TIMESTAMP WITH TIME ZONE": TIMESTAMPTZ,
    "INTERVAL": INTERVAL,
    "JSON": JSON,
    "UUID": UUID,
}
_SIZES = {BOOL: 1, INT2: 2, INT4: 4, INT8: 8, FLOAT4: 4, FLOAT8: 8, DATE: 4, TIME: 8, TIMETZ: 12, TIMESTAMP: 8}
_SIZES |= {TIMESTAMPTZ: 8, INTERVAL: 16, UUID: 16}
_PLAIN = {BOOL, INT2, INT4, INT8, FLOAT4, FLOAT8, NUMERIC, DATE, UUID}  # whose texts need no quotes in an array
ARRAYS = {
    BOOL: 1000,
    BYTEA: 1001,
    INT2: 1005,
    INT4: 1007,
    INT8: 1016,
    TEXT: 1009,
    FLOAT4: 1021,
    FLOAT8: 1022,
    NUMERIC: 1231,
    DATE: 1182,
    TIME: 1183,
    TIMETZ: 1270,
    TIMESTAMP: 1115,
    TIMESTAMPTZ: 1185,
    INTERVAL: 1187,
    JSON: 199,
    UUID: 2951,
}


@dataclass(frozen=True, slots=True)
class Column:
    """How a column of an answer travels.

    Attributes:
        oid, size, modifier: of its PostgreSQL type.
        format: text or binary.
        value: what DuckDB delivers, as SQL.
        encode: that as bytes, NULL as NULL.
    """

    name: str
    oid: int
    size: int
    modifier: int
    format: Format
    value: str
    encode: Callable[[pa.Array], pa.Array]


def column(name: str, kind: DuckDBPyType, place: int, wanted: Format) -> Column:
    """The column at a place, counted from 1, in the format that the reader wants."""
    oid, modifier = oid_of(kind), _modifier(kind)
    size = size_of(oid)
    here = f"#{place}"
    if wanted is Format.BINARY:
        value, encode = _binary(here, kind, oid)
        return Column(name, oid, size, modifier, wanted, value, encode)
    return Column(name, oid, size, modifier, Format.TEXT, text_of(here, kind), _bytes_of_text)


def oid_of(kind: DuckDBPyType) -> int:
    """The PostgreSQL type for one of DuckDB's."""
    if kind.id in ("list", "array"):
        inner = kind
        while inner.id in ("list", "array"):  # PostgreSQL has one type for all dimensions
            inner = _child(inner)
        return ARRAYS.get(oid_of(inner), ARRAYS[TEXT])
    if kind.id == "decimal":
        return NUMERIC
    if kind.id in ("struct", "map", "union"):
        return JSON
    return OIDS.get(str(kind), TEXT)


def size_of(oid: int) -> int:
    """How many bytes a value of a type has; -1 if that is different for each."""
    return _SIZES.get(oid, -1)


def _modifier(kind: DuckDBPyType) -> int:
    if kind.id != "decimal":
        return -1
    parts = dict(kind.children)
    precision, scale = parts["precision"], parts["scale"]
    assert isinstance(precision, int)
    assert isinstance(scale, int)
    return (precision << 16 | scale) + 4


def _child(kind: DuckDBPyType) -> DuckDBPyType:
    child = dict(kind.children)["child"]
    assert isinstance(child, DuckDBPyType)
    return child


def text_of(value: str, kind: DuckDBPyType) -> str:
    """SQL that writes a value as PostgreSQL does."""
    name = str(kind)
    if name == "BOOLEAN":
        return f"CASE {value} WHEN true THEN 't' WHEN false THEN 'f' END"
    if name == "BLOB":
        return f"'\\x' || lower(hex({value}))"
    if name in ("FLOAT", "DOUBLE"):
        return f"replace(replace(CAST({value} AS VARCHAR), 'inf', 'Infinity'), 'nan', 'NaN')"
    if name in ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"):
        return f"replace(CAST({value} AS VARCHAR), '(BC)', 'BC')"
    if name == "TIMESTAMP_NS":
        return f"CAST(CAST({value} AS TIMESTAMP) AS VARCHAR)"
    if name == "INTERVAL":
        return f"replace(CAST({value} AS VARCHAR), 'month', 'mon')"
    if kind.id in ("list", "array"):
        inner = _child(kind)
        item = text_of("x", inner)
        if oid_of(inner) not in _PLAIN and inner.id not in ("list", "array"):
            item = rf"""'"' || replace(replace({item}, '\', '\\'), '"', '\"') || '"'"""
        items = f"list_transform(CAST({value} AS {inner}[]), lambda x: coalesce({item}, 'NULL'))"
        return f"'{{' || array_to_string({items}, ',') || '}}'"
    if kind.id in ("struct", "map", "union"):
        return f"CAST(to_json({value}) AS VARCHAR)"
    return f"CAST({value} AS VARCHAR)"


def _bytes_of_text(values: pa.Array) -> pa.Array:
    return values.cast(pa.binary())


def _binary(value: str, kind: DuckDBPyType, oid: int) -> tuple[str, Callable[[pa.Array], pa.Array]]:
    """What DuckDB delivers for the binary format, and what makes bytes of that."""
    if oid in _FIXED:
        return _FIXED[oid](value)
    if oid in (TEXT, JSON):
        return text_of(value, kind), _bytes_of_text
    if oid == BYTEA:
        return value, lambda values: values.cast(pa.binary())
    if oid == UUID:
        return f"unhex(replace(CAST({value} AS VARCHAR), '-', ''))", lambda values: values.cast(pa.binary())
    if oid == TIMETZ:  # Arrow has no such type
        write = _dumper(TIMETZ)
        return f"CAST({value} AS VARCHAR)", _each(lambda found: write(datetime.time.fromisoformat(found)))
    if oid == INTERVAL:
        return value, _each(lambda found: struct.pack("!qii", found[2] // 1000, found[1], found[0]))
    if kind.id in ("list", "array"):
        inner = next(base for base, array in ARRAYS.items() if array == oid)
        dumper = _dumper(inner)
        leaf = _leaf(kind)
        delivered = value
        if inner == NUMERIC or leaf in ("UTINYINT", "USMALLINT", "UINTEGER"):
            delivered = value
        elif inner in (TEXT, JSON, UUID):
            delivered = f"CAST({value} AS {str(kind).replace(leaf, 'VARCHAR')})" if leaf != "VARCHAR" else value
            dumper = _dumper(TEXT) if inner != UUID else lambda item: bytes.fromhex(item.replace("-", ""))
        return delivered, _each(lambda found: _array(found, inner, dumper))
    return (f"CAST({value} AS DECIMAL(38, 0))" if oid == NUMERIC and kind.id != "decimal" else value), _each(
        _dumper(oid)
    )


def _leaf(kind: DuckDBPyType) -> str:
    while kind.id in ("list", "array"):
        kind = _child(kind)
    return str(kind)


def _each(encode: Callable[[Any], bytes]) -> Callable[[pa.Array], pa.Array]:
    """One value at a time, where a reader wants a type in binary that seldom is."""
    return lambda values: pa.array([None if v is None else encode(v) for v in values.to_pylist()], pa.binary())


def _dumper(oid: int) -> Callable[[Any], bytes]:
    made = psycopg.adapters.get_dumper_by_oid(oid, Format.BINARY)(object)
    return lambda value: bytes(made.dump(value) or b"")


def _array(value: Any, oid: int, encode: Callable[[Any], bytes]) -> bytes:
    """The binary format of an array (array_send of PostgreSQL): dimensions, then its items."""
    sizes: list[int] = []
    items: list[Any] = value
    while True:
        if not items and not sizes:
            return struct.pack("!iii", 0, 0, oid)
        if not sizes:
            sizes.append(len(items))
        if not items or not isinstance(items[0], list):
            break
        sizes.append(len(items[0]))
        items = [item for row in items for item in row]
    written = [struct.pack("!iii", len(sizes), int(None in items), oid)]
    written += [struct.pack("!ii", size, 1) for size in sizes]
    for item in items:
        if item is None:
            written.append(b"\xff\xff\xff\xff")
        else:
            found = encode(item)
            written.append(struct.pack("!i", len(found)) + found)
    return b"".join(written)


def _fixed(cast: str, dtype: str, shift: int = 0) -> Callable[[str], tuple[str, Callable[[pa.Array], pa.Array]]]:
    """A type of one size: delivered as a number, of which PostgreSQL sends the bytes, the highest first."""

    def encode(values: pa.Array) -> pa.Array:
        numbers = np.asarray(pc.fill_null(values, 0)) - shift if shift else np.asarray(pc.fill_null(values, 0))
        return _with_nulls(numbers.astype(dtype), values)

    return lambda value: (cast.format(value), encode)


def _with_nulls(numbers: np.ndarray, values: pa.Array) -> pa.Array:
    found = _of_bytes(numbers.tobytes(), numbers.dtype.itemsize, len(values))
    return pc.if_else(values.is_valid(), found, pa.scalar(None, pa.binary())) if values.null_count else found


def _of_bytes(content: bytes, size: int, count: int) -> pa.Array:
    kind = pa.binary(size)
    return pa.FixedSizeBinaryArray.from_buffers(kind, count, [None, pa.py_buffer(content)]).cast(pa.binary())


_FIXED = {
    BOOL: _fixed("CAST({} AS TINYINT)", ">i1"),
    INT2: _fixed("CAST({} AS SMALLINT)", ">i2"),
    INT4: _fixed("CAST({} AS INTEGER)", ">i4"),
    INT8: _fixed("CAST({} AS BIGINT)", ">i8"),
    FLOAT4: _fixed("CAST({} AS FLOAT)", ">f4"),
    FLOAT8: _fixed("CAST({} AS DOUBLE)", ">f8"),
    DATE: _fixed("CAST({} - DATE '2000-01-01' AS INTEGER)", ">i4"),
    TIME: _fixed("epoch_us({})", ">i8"),
    TIMESTAMP: _fixed("epoch_us(CAST({} AS TIMESTAMP))", ">i8", _EPOCH_MICROS),
    TIMESTAMPTZ: _fixed("epoch_us({})", ">i8", _EPOCH_MICROS),
}


def data_rows(batch: pa.RecordBatch, columns: Sequence[Column]) -> bytes:
    """The rows of a batch as messages ('D': its length, how many values, and of each its length and bytes)."""
    count = batch.num_rows
    sizes = np.full(count, 6, dtype=np.int64)
    parts: list[pa.Array] = []
    for place, entry in enumerate(columns):
        values = entry.encode(batch.column(place))
        lengths = np.asarray(pc.fill_null(pc.binary_length(values), -1), dtype=np.int64)
        sizes += 4 + np.maximum(lengths, 0)
        parts += [_of_bytes(lengths.astype(">i4").tobytes(), 4, count), pc.fill_null(values, b"")]
    heads = np.empty(count, dtype=[("kind", "S1"), ("size", ">i4"), ("values", ">i2")])
    heads["kind"], heads["size"], heads["values"] = b"D", sizes, len(columns)
    rows = pc.binary_join_element_wise(_of_bytes(heads.tobytes(), 7, count), *parts, b"")
    return b"".join(rows.to_pylist())
