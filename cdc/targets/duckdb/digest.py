"""The digest of a table's rows that a source computes, computed by DuckDB from what the target holds."""

from __future__ import annotations

import duckdb
from sqlglot import exp

from cdc.model.schema import Kind, TableSchema
from cdc.targets.duckdb import sql
from cdc.targets.duckdb.codecs import TEXT_CODEC
from cdc.targets.duckdb.table import inspect


def digest(connection: duckdb.DuckDBPyConnection, schema: TableSchema) -> tuple[int, int]:
    """Number of rows, and the sum of a 60-bit hash of each row's text in the source's own spelling.

    Raises:
        TargetDrift: the table is not as the pipeline made it.
    """
    table = inspect(connection, schema)
    pieces: list[exp.Expression] = []
    for column, codec in zip(schema.columns, table.codecs, strict=True):
        value = sql.column(column.name)
        text = codec.render(value)
        if column.type.kind in (Kind.FLOAT32, Kind.FLOAT64):
            # Bits of the double, since the two servers do not always write the same text for one float.
            bits = sql.cast(sql.cast(sql.cast(value, "DOUBLE"), "BIT"), "VARCHAR")
            text = exp.Case().when(exp.func("isnan", value), sql.literal("NaN")).else_(bits)
        elif column.type.kind is Kind.VECTOR and codec is not TEXT_CODEC:
            text = sql.little_endian_hex(value)
        length = sql.cast(exp.Anonymous(this="strlen", expressions=[text]), "VARCHAR")
        present = exp.Anonymous(this="concat", expressions=[length, sql.literal(":"), text])
        pieces.append(exp.Case().when(exp.Is(this=value, expression=exp.Null()), sql.literal("n")).else_(present))
    row = exp.Anonymous(this="concat", expressions=[sql.literal(""), *pieces])
    digits = exp.Anonymous(this="left", expressions=[exp.Anonymous(this="sha256", expressions=[row]), exp.convert(15)])
    number = sql.cast(exp.Anonymous(this="concat", expressions=[sql.literal("0x"), digits]), "BIGINT")
    query = exp.select(
        exp.Count(this=exp.Star()),
        sql.cast(exp.Coalesce(this=exp.Sum(this=sql.cast(number, "HUGEINT")), expressions=[exp.convert(0)]), "VARCHAR"),
    ).from_(sql.table(schema.table))
    found = connection.execute(sql.render(query)).fetchone()
    assert found is not None
    return int(found[0]), int(found[1])
