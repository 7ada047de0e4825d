"""A digest of a table's rows, computed by PostgreSQL, to be compared with the one that a target computes."""

from __future__ import annotations

from psycopg import sql

from cdc.model.schema import Column, Kind, TableSchema
from cdc.sources.postgres.catalog import Connection


def digest(connection: Connection, schema: TableSchema) -> tuple[int, int]:
    """Number of rows of a table as this session sees it, and the sum of a 60-bit hash of each.

    A row's text is, for each column, `n` or the length in bytes and the value as the output function writes it. A cast
    to text would not do: it trims char(n) and writes booleans in full.
    """
    value = sql.SQL(
        "CASE WHEN {column} IS NOT DISTINCT FROM NULL THEN 'n' "
        "ELSE octet_length(concat({column}))::text || ':' || concat({column}) END"
    )
    row = sql.SQL(" || ").join(value.format(column=_text(column)) for column in schema.columns)
    query = sql.SQL(
        "SELECT count(*), coalesce(sum(('x' || substr(encode(sha256(convert_to({row}, 'UTF8')), 'hex'), 1, 15))"
        "::bit(60)::int8), 0)::text FROM {table}"
    ).format(
        row=row,
        table=sql.Identifier(schema.table.schema, schema.table.name),
    )
    found = connection.execute(query).fetchone()
    assert found is not None
    count, total = found
    assert isinstance(count, int)
    return count, int(str(total))


def _text(column: Column) -> sql.Composable:
    """The column, or its bits as a double for a float: two servers do not always write the same text for one."""
    name = sql.Identifier(column.name)
    if column.type.kind not in (Kind.FLOAT32, Kind.FLOAT64):
        return name
    return sql.SQL(
        "(CASE WHEN {column} = 'NaN' THEN 'NaN' "
        "ELSE ('x' || encode(float8send({column}::float8), 'hex'))::bit(64)::text END)"
    ).format(column=name)
