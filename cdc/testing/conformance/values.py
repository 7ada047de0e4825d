"""Values of every type at their edges, and arrays of values as such, where sources have them so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import pyarrow as pa

from cdc.model.arrays import TEXT, texts
from cdc.model.change import ChangeBatch, Rows
from cdc.model.schema import Kind, LogicalType

_ARRAYS = {
    Kind.INT16: pa.int16(),
    Kind.INT32: pa.int32(),
    Kind.INT64: pa.int64(),
    Kind.UINT32: pa.uint32(),
    Kind.UINT64: pa.uint64(),
    Kind.FLOAT32: pa.float32(),
    Kind.FLOAT64: pa.float64(),
    Kind.DATE: pa.date32(),
    Kind.TIMESTAMP: pa.timestamp("us"),
    Kind.TIMESTAMPTZ: pa.timestamp("us", "UTC"),
}


def natively(made: ChangeBatch, random: Random | None = None) -> ChangeBatch:
    """The same changes with values as such, where that gives the same texts; of some columns, if there are choices."""
    kinds = [each.type.kind if random is None or random.random() < 0.5 else None for each in made.schema.columns]
    return replace(made, after=_natively(made.after, kinds), before=_natively(made.before, kinds))


def _natively(rows: Rows | None, kinds: Sequence[Kind | None]) -> Rows | None:
    if rows is None:
        return None
    columns = [_array(column, kind) for column, kind in zip(rows.columns, kinds, strict=True)]
    return replace(rows, columns=tuple(columns))


def _array(column: pa.Array, kind: Kind | None) -> pa.Array:
    if column.type != TEXT:
        return column
    written = column.to_pylist()
    if kind is Kind.BYTES:
        content = [None if text is None else bytes.fromhex(text[2:]) for text in written]
        return pa.array(content, pa.binary_view())
    if kind not in _ARRAYS:
        return column
    try:
        made = column.cast(pa.string()).cast(_ARRAYS[kind])
    except pa.ArrowInvalid:
        return column
    return made if texts(made) == written else column


def _of(kind: Kind, precision: int | None = None, scale: int | None = None) -> LogicalType:
    return LogicalType(kind, precision, scale)


def _list(kind: Kind, dimensions: int = 1) -> LogicalType:
    return LogicalType(Kind.LIST, element=_of(kind), dimensions=dimensions)


# Each type as PostgreSQL would call it (none, where no type of PostgreSQL's is meant), ordinary values, and edges:
# those for which many databases have no place, or another text.
EDGES: Mapping[LogicalType, tuple[str, Sequence[str], Sequence[str]]] = {
    _of(Kind.BOOL): ("boolean", ["t", "f"], []),
    _of(Kind.INT16): ("smallint", ["0", "-1"], ["32767", "-32768"]),
    _of(Kind.INT32): ("integer", ["0", "-1"], ["2147483647", "-2147483648"]),
    _of(Kind.INT64): ("bigint", ["0", "-1"], ["9223372036854775807", "-9223372036854775808"]),
    _of(Kind.UINT32): ("oid", ["0", "7"], ["4294967295"]),
    _of(Kind.UINT64): ("xid8", ["0", "7"], ["18446744073709551615"]),
    _of(Kind.FLOAT32): (
        "real",
        ["0", "1.5"],
        ["NaN", "Infinity", "-Infinity", "-0", "3.4028235e+38", "1e-45", "1e+06"],
    ),
    _of(Kind.FLOAT64): (
        "double precision",
        ["0", "0.1"],
        ["NaN", "Infinity", "-Infinity", "-0", "1.7976931348623157e+308", "5e-324", "1e+15", "1e-05", "0.0001"],
    ),
    _of(Kind.DECIMAL, 12, 2): ("numeric(12,2)", ["0.00", "-0.01", "1.50"], ["9999999999.99", "-9999999999.99", "NaN"]),
    _of(Kind.DECIMAL, 3, -2): ("numeric(3,-2)", ["0", "12300"], ["99900"]),
    _of(Kind.DECIMAL, 5, 5): ("numeric(5,5)", ["0.00000", "-0.99999"], ["0.00001"]),
    _of(Kind.DECIMAL, 38, 10): ("numeric(38,10)", ["1.0000000000"], ["9" * 28 + "." + "9" * 10]),
    _of(Kind.DECIMAL, 60, 2): ("numeric(60,2)", ["1.00"], ["9" * 58 + ".99", "-0.01"]),
    _of(Kind.DECIMAL): (
        "numeric",
        ["1", "1.50", "-0.5"],
        ["1.005", "9" * 80, "0." + "0" * 50 + "1", "NaN", "Infinity"],
    ),
    _of(Kind.TEXT): (
        "text",
        ["", "x"],
        [" ", "  x  ", "NULL", "\\N", "\\x", "\t\n\r", "'\"`\\;--", "\U0001f600e\u0301", "\ufeff\u200b", "x" * 70000],
    ),
    _of(Kind.BYTES): ("bytea", ["\\x00", "\\x616263"], ["\\x", "\\x00ff5c", "\\x5c78"]),
    _of(Kind.DATE): (
        "date",
        ["2024-02-29", "1970-01-01"],
        [
            "0001-01-01",
            "9999-12-31",
            "0044-03-15 BC",
            "infinity",
            "-infinity",
            "5874897-12-31",
            "0000-00-00",
            "2024-02-30",
        ],
    ),
    _of(Kind.TIME): ("time without time zone", ["00:00:00", "23:59:59.999999"], ["24:00:00", "00:00:00.1"]),
    _of(Kind.TIMESTAMP): (
        "timestamp without time zone",
        ["2024-02-29 23:59:59.999999", "1969-12-31 23:59:59.5"],
        [
            "0001-01-01 00:00:00",
            "9999-12-31 23:59:59.999999",
            "10000-01-01 00:00:00",
            "0044-03-15 12:00:00 BC",
            "infinity",
            "-infinity",
            "294276-12-31 23:59:59.999999",
            "2024-02-30 00:00:00",
        ],
    ),
    _of(Kind.TIMESTAMPTZ): (
        "timestamp with time zone",
        ["2024-02-29 23:59:59.999999+00", "1969-12-31 23:59:59.5+00"],
        [
            "0001-01-01 00:00:00+00",
            "9999-12-31 23:59:59.999999+00",
            "0044-03-15 12:00:00.5+00 BC",
            "infinity",
            "-infinity",
            "294276-12-31 23:59:59.999999+00",
            "0000-00-00 00:00:00+00",
        ],
    ),
    _of(Kind.INTERVAL): (
        "interval",
        ["00:00:00", "1 day", "1 mon -2 days +03:00:00"],
        [
            "00:00:00.000001",
            "1 year -1 days",
            "-1 years",
            "1 day -00:00:00.000001",
            "100:00:00",
            "infinity",
            "178000000 years",
        ],
    ),
    _of(Kind.UUID): ("uuid", ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"], ["00000000-0000-0000-0000-000000000000"]),
    _of(Kind.JSON): (
        "json",
        ["{}", "[1, null]"],
        [
            '{"a":1,"a":2}',
            " [1 ]",
            "1e400",
            "12345678901234567890.123456789012345678",
            '"\\u00e9"',
            '"\\ud800"',
            "null",
        ],
    ),
    _of(Kind.OPAQUE): ("text", ["anything", ""], ["(1,2)", "NULL"]),
    _list(Kind.INT32): ("integer[]", ["{}", "{1,NULL,-3}"], ["{{1,2},{3,4}}", "[0:1]={1,2}"]),
    _list(Kind.INT32, 2): ("integer[]", ["{{1,2},{3,NULL}}"], ["{}", "{1,2}"]),
    _list(Kind.TEXT): ("text[]", ["{}", "{a,NULL}"], ['{"NULL",NULL,"","a,b","q\\"\\\\"}', "{{a,b},{c,d}}"]),
    _list(Kind.TIMESTAMP): (
        "timestamp without time zone[]",
        ['{"2024-01-01 00:00:00",NULL}'],
        ["{infinity}", '{"0044-03-15 12:00:00 BC"}'],
    ),
    _list(Kind.FLOAT64): ("double precision[]", ["{1.5,NULL}"], ["{NaN,-0,1e+15}", "{{1,2},{3,4}}"]),
    _list(Kind.BOOL): ("boolean[]", ["{t,f,NULL}"], ["{}"]),
    _of(Kind.VECTOR): ("public.vector", ["{1,-2.5}"], ["{3.4028235e+38}"]),
}
