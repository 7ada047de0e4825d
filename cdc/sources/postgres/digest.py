"""Digests of rows, computed by PostgreSQL, to be compared with those that a target computes."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from cdc.model.parts import BUCKETS, HASHES, WHOLE, Digest, HashedRow, Key, Part
from cdc.model.schema import Column, Kind, TableSchema
from cdc.sources.postgres.catalog import Connection
from cdc.sources.postgres.session import number, of_type, readable

# Kinds that PostgreSQL orders by their values' bytes or numbers, as every target does, and not by a collation.
ORDERED = {Kind.INT16, Kind.INT32, Kind.INT64, Kind.UUID, Kind.BYTES}


@readable()
def digest(connection: Connection, schema: TableSchema, part: Part = WHOLE) -> Digest:
    """What the rows of a part are, as this session sees them.

    A row's text is, for each column, `n` or the length in bytes of UTF-8 and the value as the output function writes
    it. A cast to text would not do: it trims char(n) and writes booleans in full.
    """
    query = sql.SQL(
        "SELECT (h & {last})::int4, count(*), sum(h)::text FROM (SELECT {hash} AS h FROM {rows}) hashed GROUP BY 1"
    ).format(last=BUCKETS - 1, hash=_hash(_row(schema.columns), 16), rows=rows_of(connection, schema, part))
    return Digest.of(
        (of_type(bucket, int), of_type(count, int), number(total)) for bucket, count, total in connection.execute(query)
    )


@readable()
def hashed_rows(connection: Connection, schema: TableSchema, part: Part, buckets: Sequence[int]) -> list[HashedRow]:
    """Those rows of a part that lie in some buckets."""
    query = sql.SQL(
        "SELECT h, k FROM (SELECT {hash} AS h, {keys} AS k FROM {rows}) hashed "
        "WHERE (h & {last})::int4 = ANY({buckets})"
    ).format(
        keys=_key_array(schema),
        hash=_hash(_row(schema.columns), 16),
        rows=rows_of(connection, schema, part),
        last=BUCKETS - 1,
        buckets=list(buckets),
    )
    return [HashedRow(_key(key), of_type(value, int) % HASHES) for value, key in connection.execute(query)]


@readable()
def keys(connection: Connection, schema: TableSchema, part: Part) -> set[Key]:
    """The keys of the rows of a part.

    Asked for in binary, so by the extended protocol, which never takes more than one statement (O2).
    """
    query = sql.SQL("SELECT DISTINCT {keys} FROM {rows}").format(
        keys=_key_array(schema), rows=rows_of(connection, schema, part)
    )
    return {_key(key) for (key,) in connection.execute(query, binary=True)}


@readable()
def values(connection: Connection, schema: TableSchema, keys: Sequence[Key]) -> dict[Key, dict[str, str | None]]:
    """Rows by their keys, every value as its canonical text."""
    texts = sql.SQL(", ").join(
        sql.SQL("CASE WHEN {c} IS NOT DISTINCT FROM NULL THEN NULL ELSE concat({c}) END").format(
            c=sql.Identifier(column.name)
        )
        for column in schema.columns
    )
    query = sql.SQL("SELECT {keys}, ARRAY[{texts}]::text[] FROM {rows}").format(
        keys=_key_array(schema), texts=texts, rows=rows_of(connection, schema, Part(keys=tuple(keys)))
    )
    names = [column.name for column in schema.columns]
    return {_key(key): dict(zip(names, of_type(row, list), strict=True)) for key, row in connection.execute(query)}


@readable()
def border(
    connection: Connection, schema: TableSchema, leading: Sequence[int], after: Key | None, rows: int
) -> Key | None:
    """The leading columns of the key of the row that lies so many rows beyond `after`."""
    columns = [sql.Identifier(schema.columns[index].name) for index in leading]
    query = sql.SQL("SELECT {texts} FROM {rows} ORDER BY {columns} OFFSET {skip} LIMIT 1").format(
        texts=sql.SQL(", ").join(sql.SQL("concat({})").format(column) for column in columns),
        rows=rows_of(connection, schema, Part(after=after)),
        columns=sql.SQL(", ").join(columns),
        skip=rows - 1,
    )
    row = connection.execute(query).fetchone()
    return None if row is None else tuple(str(value) for value in row)


def rows_of(connection: Connection, schema: TableSchema, part: Part) -> sql.Composed:
    """A part as what follows FROM. Tables that inherit from an ordinary one are tables of their own."""
    kind = connection.execute("SELECT relkind::text FROM pg_class WHERE oid = %s", (schema.identity,)).fetchone()
    return sql.SQL("{}{}{}").format(
        sql.SQL("ONLY " if kind == ("r",) else ""),
        sql.Identifier(schema.table.schema, schema.table.name),
        _where(schema, part),
    )


def _where(schema: TableSchema, part: Part) -> sql.Composable:
    conditions: list[sql.Composable] = []
    for comparison, key in ((">", part.after), ("<=", part.upto)):
        if key is not None:
            columns = [sql.Identifier(schema.columns[index].name) for index in schema.key[: len(key)]]
            conditions.append(
                sql.SQL("({}) {} ({})").format(
                    sql.SQL(", ").join(columns), sql.SQL(comparison), sql.SQL(", ").join(map(sql.Literal, key))
                )
            )
    if part.shares > 1:
        of = [schema.columns[index] for index in schema.key] or schema.columns
        conditions.append(sql.SQL("{} % {} = {}").format(_hash(_row(of), 8), part.shares, part.share))
    if part.keys is not None:
        # The first finds them in the index; the second tells keys apart that are equal to the server: 1.0 and 1.00.
        conditions.append(sql.SQL("{} IN ({})").format(_key_row(schema), _listed(part.keys)))
        conditions.append(sql.SQL("({}) IN ({})").format(_key_texts(schema), _listed(part.keys)))
    if part.condition is not None:
        conditions.append(sql.SQL("({})").format(sql.SQL(part.condition.sql)))
    return sql.SQL(" WHERE {}").format(sql.SQL(" AND ").join(conditions)) if conditions else sql.SQL("")


def _listed(keys: Sequence[Key]) -> sql.Composable:
    if not keys:
        return sql.SQL("NULL")
    return sql.SQL(", ").join(sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, key))) for key in keys)


def _key_row(schema: TableSchema) -> sql.Composable:
    return sql.SQL("({})").format(
        sql.SQL(", ").join(sql.Identifier(schema.columns[index].name) for index in schema.key)
    )


def _key_texts(schema: TableSchema) -> sql.Composable:
    return sql.SQL(", ").join(
        sql.SQL('concat({}) COLLATE "C"').format(sql.Identifier(schema.columns[index].name)) for index in schema.key
    )


def _key_array(schema: TableSchema) -> sql.Composable:
    texts = (sql.SQL("concat({})").format(sql.Identifier(schema.columns[index].name)) for index in schema.key)
    return sql.SQL("ARRAY[{}]::text[]").format(sql.SQL(", ").join(texts))


def _row(columns: Sequence[Column]) -> sql.Composable:
    value = sql.SQL(
        "CASE WHEN {column} IS NOT DISTINCT FROM NULL THEN 'n' "
        "ELSE octet_length(convert_to(concat({column}), 'UTF8'))::text || ':' || concat({column}) END"
    )
    return sql.SQL(" || ").join(value.format(column=_text(column)) for column in columns)


def _hash(row: sql.Composable, digits: int) -> sql.Composed:
    """The first hexadecimal digits of a text's SHA-256 as a number; with 16 of them it is a signed one."""
    return sql.SQL(
        "('x' || substr(encode(sha256(convert_to({row}, 'UTF8')), 'hex'), 1, {digits}))::bit({bits})::int8"
    ).format(row=row, digits=digits, bits=4 * digits)


def _text(column: Column) -> sql.Composable:
    """The column, or its bits as a double for a float: two servers do not always write the same text for one."""
    name = sql.Identifier(column.name)
    if column.type.kind not in (Kind.FLOAT32, Kind.FLOAT64):
        return name
    return sql.SQL(
        "(CASE WHEN {column} = 'NaN' THEN 'NaN' "
        "ELSE ('x' || encode(float8send({column}::float8), 'hex'))::bit(64)::text END)"
    ).format(column=name)


def _key(value: object) -> Key:
    return tuple(str(part) for part in of_type(value, list))
