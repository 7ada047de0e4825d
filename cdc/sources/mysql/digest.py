"""A digest of a table's rows, computed by the server, to be compared with the one that a target computes."""

from __future__ import annotations

from cdc.model.schema import Column, Kind, TableSchema
from cdc.sources.mysql.connection import Connection
from cdc.sources.mysql.select import quoted, quoted_table
from cdc.sources.mysql.types import source_type


def digest(connection: Connection, schema: TableSchema) -> tuple[int, int]:
    """Number of rows of a table as this session sees it, and the sum of a 60-bit hash of each.

    A row's text is, for each column, `n` or the length in bytes and the value in its canonical text.
    """
    pieces = []
    for column in schema.columns:
        text = _text(column, connection.version.flavor)
        pieces.append(f"IF({quoted(column.name)} IS NULL, 'n', CONCAT(LENGTH({text}), ':', {text}))")
    # CONCAT of binary strings, so that no character set is converted on the way.
    row = f"CONCAT('', {', '.join(f'CAST({piece} AS BINARY)' for piece in pieces)})"
    number = f"CAST(CONV(LEFT(SHA2({row}, 256), 15), 16, 10) AS UNSIGNED)"
    found = connection.query(
        f"SELECT COUNT(*), CAST(COALESCE(SUM({number}), 0) AS CHAR) FROM {quoted_table(schema.table)}"
    )[0]
    return int(found[0]), int(found[1])


def _text(column: Column, flavor: str) -> str:
    name, source = quoted(column.name), source_type(column.source_type)
    kind = column.type.kind
    if kind in (Kind.FLOAT32, Kind.FLOAT64):
        return _float_bits(name)
    if source.is_geometry:
        return f"CONCAT('\\\\x', LOWER(HEX(SUBSTR(CAST({name} AS BINARY), 5))))"
    if kind is Kind.VECTOR:
        return f"HEX({name})"
    if kind is Kind.BYTES:
        return f"CONCAT('\\\\x', LOWER(HEX({name})))"
    if kind in (Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.INTERVAL):
        text = f"CAST({name} AS CHAR)"
        if source.numbers and source.numbers[0]:
            text = f"TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM {text}))"
        return f"CONCAT({text}, '+00')" if kind is Kind.TIMESTAMPTZ else text
    if source.base == "bit":
        return f"CAST({name} + 0 AS CHAR)"
    if kind is Kind.DECIMAL:
        return f"CAST(CAST({name} AS DECIMAL({column.type.precision},{column.type.scale})) AS CHAR)"
    if kind in (Kind.INT16, Kind.INT32, Kind.INT64, Kind.UINT32, Kind.UINT64):
        return f"CAST({name} + 0 AS CHAR)"  # + 0 takes ZEROFILL's zeros away
    if source.base == "json":
        return f"CAST({name} AS CHAR CHARACTER SET utf8mb4)"
    return f"CONVERT({name} USING utf8mb4)"


def _float_bits(name: str) -> str:
    """The bits of a float as a double, which SQL shows in one place only: a point's coordinates in its binary form."""
    return f"LPAD(CONV(HEX(REVERSE(SUBSTR(ST_AsBinary(POINT({name}, 0)), 6, 8))), 16, 2), 64, '0')"
