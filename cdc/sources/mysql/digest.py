"""Digests of rows, computed by the server, to be compared with those that a target computes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cdc.errors import DecodeError
from cdc.model.parts import BUCKETS, WHOLE, Digest, HashedRow, Key, Part
from cdc.model.schema import Column, Kind, TableSchema
from cdc.sources.mysql.connection import Connection, reads_answers
from cdc.sources.mysql.select import quoted, quoted_table
from cdc.sources.mysql.types import source_type

# Kinds that the server orders by their values' bytes or numbers, as every target does, and not by a collation.
INTEGERS = {Kind.INT16, Kind.INT32, Kind.INT64, Kind.UINT32, Kind.UINT64}
ORDERED = INTEGERS | {Kind.BYTES}


@reads_answers
def digest(connection: Connection, schema: TableSchema, part: Part = WHOLE) -> Digest:
    """What the rows of a part are, as this session sees them.

    A row's text is, for each column, `n` or the length in bytes and the value in its canonical text.
    """
    hashed = f"SELECT {_hash(_row(connection, schema.columns), 16)} AS h FROM {rows_of(connection, schema, part)}"
    found = connection.query(
        f"SELECT h & {BUCKETS - 1}, COUNT(*), CAST(SUM(h) AS CHAR) FROM ({hashed}) hashed GROUP BY 1"
    )
    return Digest.of((int(bucket), int(count), int(total)) for bucket, count, total in found)


@reads_answers
def hashed_rows(connection: Connection, schema: TableSchema, part: Part, buckets: Sequence[int]) -> list[HashedRow]:
    """Those rows of a part that lie in some buckets."""
    keys = "".join(f", {text} AS k{number}" for number, text in enumerate(_key_texts(connection, schema)))
    hashed = f"SELECT {_hash(_row(connection, schema.columns), 16)} AS h{keys} FROM {rows_of(connection, schema, part)}"
    found = connection.query(
        f"SELECT * FROM ({hashed}) hashed WHERE h & {BUCKETS - 1} IN ({', '.join(map(str, buckets))})"
    )
    return [HashedRow(_key(key), int(value)) for value, *key in found]


@reads_answers
def keys(connection: Connection, schema: TableSchema, part: Part) -> set[Key]:
    """The keys of the rows of a part."""
    texts = _key_texts(connection, schema)
    found = connection.query(
        f"SELECT DISTINCT {', '.join(texts) if texts else '1'} FROM {rows_of(connection, schema, part)}"
    )
    return {_key(row[: len(texts)]) for row in found}


@reads_answers
def values(connection: Connection, schema: TableSchema, keys: Sequence[Key]) -> dict[Key, dict[str, str | None]]:
    """Rows by their keys, every value as its canonical text."""
    names = [column.name for column in schema.columns]
    texts = [_value(column, connection.version.flavor) for column in schema.columns]
    found = connection.query(
        f"SELECT {', '.join([*_key_texts(connection, schema), *texts])} "
        f"FROM {rows_of(connection, schema, Part(keys=tuple(keys)))}"
    )
    width = len(schema.key)
    return {_key(row[:width]): dict(zip(names, map(_decoded, row[width:]), strict=True)) for row in found}


@reads_answers
def border(
    connection: Connection, schema: TableSchema, leading: Sequence[int], after: Key | None, rows: int
) -> Key | None:
    """The leading columns of the key of the row that lies so many rows beyond `after`."""
    columns = [schema.columns[index] for index in leading]
    texts = ", ".join(_text(column, connection.version.flavor) for column in columns)
    order = ", ".join(quoted(column.name) for column in columns)
    found = connection.query(
        f"SELECT {texts} FROM {rows_of(connection, schema, Part(after=after))} ORDER BY {order} LIMIT {rows - 1}, 1"
    )
    return _key(found[0]) if found else None


def rows_of(connection: Connection, schema: TableSchema, part: Part) -> str:
    """A part as what follows FROM."""
    where = condition_of(connection, schema, part)
    return f"{quoted_table(schema.table)}{' WHERE ' + where if where else ''}"


def condition_of(connection: Connection, schema: TableSchema, part: Part) -> str:
    """A part as what follows WHERE; empty for the whole table."""
    conditions = []
    for comparison, key in ((">", part.after), ("<=", part.upto)):
        if key is not None:
            conditions.append(_beyond(schema, key, comparison))
    if part.shares > 1:
        of = [schema.columns[index] for index in schema.key] or schema.columns
        conditions.append(f"{_hash(_row(connection, of), 8)} % {part.shares} = {part.share}")
    if part.keys:
        conditions += _first_of_keys(schema, part.keys)
    if part.keys is not None:
        texts = ", ".join(f"CAST({text} AS BINARY)" for text in _key_texts(connection, schema))
        listed = ", ".join(f"({', '.join(_bytes(text) for text in key)})" for key in part.keys)
        conditions.append(f"({texts}) IN ({listed})" if listed else "FALSE")
    if part.condition is not None:
        conditions.append(f"({part.condition.sql})")
    return " AND ".join(conditions)


def _first_of_keys(schema: TableSchema, keys: Sequence[Key]) -> list[str]:
    """What finds some keys in the index, by their first column. It may find more: `anna` where `Anna` is meant."""
    column = schema.columns[schema.key[0]]
    texts = sorted({key[0] for key in keys})
    if column.type.kind in ORDERED:
        listed = [_literal(column, text) for text in texts]
    elif source_type(column.source_type).base in ("char", "varchar"):
        listed = [f"CONVERT({_bytes(text)} USING utf8mb4)" for text in texts]
    else:
        return []
    return [f"{quoted(column.name)} IN ({', '.join(listed)})"]


def _beyond(schema: TableSchema, key: Key, comparison: str) -> str:
    """`(a, b) > (x, y)`, written out: only so the server finds the range in its index."""
    columns = [schema.columns[index] for index in schema.key[: len(key)]]
    alternatives = []
    for place in range(len(key)):
        sign = comparison if place == len(key) - 1 else comparison[0]
        pairs = list(zip(columns, key, strict=True))
        terms = [f"{quoted(column.name)} = {_literal(column, text)}" for column, text in pairs[:place]]
        terms.append(f"{quoted(columns[place].name)} {sign} {_literal(columns[place], key[place])}")
        alternatives.append(" AND ".join(terms))
    return f"({' OR '.join(alternatives)})"


def _literal(column: Column, text: str) -> str:
    if column.type.kind is Kind.BYTES:
        return f"x'{bytes.fromhex(text[2:]).hex()}'"
    if not re.fullmatch(r"-?\d+", text):
        raise DecodeError(f"A key of the integer column {column.name} is not an integer.")
    return text


def _bytes(text: str) -> str:
    return f"x'{text.encode().hex()}'" if text else "''"


def _key_texts(connection: Connection, schema: TableSchema) -> list[str]:
    return [_text(schema.columns[index], connection.version.flavor) for index in schema.key]


def _key(row: Sequence[object]) -> Key:
    return tuple(str(_decoded(value)) for value in row)


def _decoded(value: object) -> str | None:
    if value is None:
        return None
    return value.decode() if isinstance(value, bytes) else str(value)


def _row(connection: Connection, columns: Sequence[Column]) -> str:
    """The text of a row, as a binary string, so that no character set is converted on the way."""
    pieces = []
    for column in columns:
        text = _text(column, connection.version.flavor)
        pieces.append(f"IF({quoted(column.name)} IS NULL, 'n', CONCAT(LENGTH({text}), ':', {text}))")
    return f"CONCAT('', {', '.join(f'CAST({piece} AS BINARY)' for piece in pieces)})"


def _hash(row: str, digits: int) -> str:
    """The first hexadecimal digits of a text's SHA-256 as a number."""
    return f"CAST(CONV(LEFT(SHA2({row}, 256), {digits}), 16, 10) AS UNSIGNED)"


def _value(column: Column, flavor: str) -> str:
    """A value's text for people: a float's shortest one."""
    if column.type.kind in (Kind.FLOAT32, Kind.FLOAT64):
        return f"CAST({quoted(column.name)} AS CHAR)"
    return _text(column, flavor)


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
