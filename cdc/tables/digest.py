"""Digests of rows, computed by the target's database, to be compared with those that a source computes of its own.

What is put together here is used once: where sqlglot would copy it first, which takes longer than a query, it does not.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect

from cdc.model.parts import WHOLE, Condition, Digest, HashedRow, Key, Part
from cdc.model.schema import Column, Kind
from cdc.tables import sql
from cdc.tables.engine import Digesting
from cdc.tables.table import TargetTable
from cdc.typed.codec import Codec

_HASH, _BUCKET, _KEY = "hash_", "bucket_", "key_"


def digest(engine: Digesting, table: TargetTable, part: Part = WHOLE) -> Digest:
    """What the rows of a part are: each row's text is that of the source, in the source's own spelling."""
    hashed = exp.select(
        exp.alias_(engine.hashed(row_text(engine, table, table.schema.columns), 16), _HASH, copy=False)
    ).from_(_rows(engine, table, part), copy=False)
    bucket = engine.bucket(sql.column(_HASH))
    query = (
        exp.select(exp.alias_(bucket, _BUCKET), exp.Count(this=exp.Star()), engine.total(sql.column(_HASH)))
        .from_(hashed.subquery("hashed", copy=False), copy=False)
        .group_by(sql.column(_BUCKET), copy=False)
    )
    found = engine.ask(query)
    return Digest.of((int(bucket), int(count), int(sum_)) for bucket, count, sum_ in found)


def hashed_rows(engine: Digesting, table: TargetTable, part: Part, buckets: Sequence[int]) -> list[HashedRow]:
    """Those rows of a part that lie in some buckets."""
    hashed = exp.select(
        exp.alias_(engine.hashed(row_text(engine, table, table.schema.columns), 16), _HASH, copy=False),
        exp.alias_(_keys(table), _KEY, copy=False),
        copy=False,
    ).from_(_rows(engine, table, part), copy=False)
    query = (
        exp.select(sql.column(_KEY), sql.column(_HASH))
        .from_(hashed.subquery("hashed", copy=False), copy=False)
        .where(exp.In(this=engine.bucket(sql.column(_HASH)), expressions=[exp.convert(bucket) for bucket in buckets]))
    )
    return [HashedRow(tuple(key), int(value)) for key, value in engine.ask(query)]


def keys(engine: Digesting, table: TargetTable, part: Part) -> set[Key]:
    """The keys of the rows of a part."""
    query = exp.select(_keys(table)).distinct().from_(_rows(engine, table, part))
    return {tuple(key) for (key,) in engine.ask(query)}


def values(engine: Digesting, table: TargetTable, keys: Sequence[Key]) -> dict[Key, dict[str, str | None]]:
    """Rows by their keys, every value as the source's text."""
    texts = [codec.render(sql.column(c.name)) for c, codec in zip(table.schema.columns, table.codecs, strict=True)]
    query = exp.select(_keys(table), *texts).from_(_rows(engine, table, Part(keys=tuple(keys))))
    names = [column.name for column in table.schema.columns]
    found = engine.ask(query)
    return {tuple(key): dict(zip(names, row, strict=True)) for key, *row in found}


def _rows(engine: Digesting, table: TargetTable, part: Part) -> exp.Expression:
    return (
        exp.select("*")
        .from_(sql.table(table.name))
        .where(part_condition(engine, table, part), copy=False)
        .subquery("part", copy=False)
    )


def part_condition(engine: Digesting, table: TargetTable, part: Part) -> exp.Condition:
    """What the rows of a part fulfil."""
    conditions: list[exp.Expression] = [] if table.live is None else [table.live.copy()]
    for comparison, key in ((exp.GT, part.after), (exp.LTE, part.upto)):
        if key is not None:
            pairs = [(sql.column(column.name), codec) for column, codec in _key_columns(table)][: len(key)]
            border = [codec.parse(sql.literal(text)) for (_, codec), text in zip(pairs, key, strict=True)]
            conditions.append(comparison(this=_tuple([column for column, _ in pairs]), expression=_tuple(border)))
    if part.shares > 1:
        of = [column for column, _ in _key_columns(table)] or table.schema.columns
        share = exp.Mod(this=engine.hashed(row_text(engine, table, of), 8), expression=exp.convert(part.shares))
        conditions.append(exp.EQ(this=share, expression=exp.convert(part.share)))
    if part.keys is not None:
        listed = [_tuple([sql.literal(text) for text in key]) for key in part.keys]
        conditions.append(exp.In(this=_tuple(_key_texts(table)), expressions=listed) if listed else exp.false())
    if part.condition is not None:
        conditions.append(exp.paren(_comparable(engine, table, part.condition)))
    return exp.and_(*conditions) if conditions else exp.true()


def _comparable(engine: Digesting, table: TargetTable, condition: Condition) -> exp.Expression:
    """A condition with numbers as numbers, where the target holds them as text, and names that may be words of SQL."""
    (found,) = Dialect.get_or_raise(condition.dialect).parse_into(exp.Condition, condition.sql)
    assert found is not None
    numbers = {
        column.name.lower()
        for column, codec in zip(table.schema.columns, table.codecs, strict=True)
        if column.type.kind is Kind.DECIMAL and codec.is_text
    }

    def read(node: exp.Expression) -> exp.Expression:
        if not isinstance(node, exp.Column) or isinstance(node.this, exp.Star):
            return node
        column = sql.column(node.name, node.table or None)
        return sql.try_cast(column, "DOUBLE") if node.name.lower() in numbers else column

    return found.transform(read)


def _tuple(values: Sequence[exp.Expression]) -> exp.Expression:
    return values[0] if len(values) == 1 else exp.Tuple(expressions=list(values))


def _key_columns(table: TargetTable) -> list[tuple[Column, Codec]]:
    return [(table.schema.columns[index], table.codecs[index]) for index in table.schema.key]


def _key_texts(table: TargetTable) -> list[exp.Expression]:
    return [codec.render(sql.column(column.name)) for column, codec in _key_columns(table)]


def _keys(table: TargetTable) -> exp.Expression:
    return sql.cast(exp.Array(expressions=_key_texts(table)), "VARCHAR[]")


def row_text(engine: Digesting, table: TargetTable, columns: Sequence[Column]) -> exp.Expression:
    """The text of a row: for each column `n`, or the length in bytes and the value."""
    codecs = dict(zip((column.identity for column in table.schema.columns), table.codecs, strict=True))
    pieces: list[exp.Expression] = []
    for column in columns:
        text = engine.digest_text(column, codecs[column.identity])
        length = sql.cast(engine.byte_length(text), "VARCHAR")
        present = engine.concatenated([length, sql.literal(":"), text])
        absent = exp.If(this=exp.Is(this=sql.column(column.name), expression=exp.Null()), true=sql.literal("n"))
        pieces.append(exp.Case(ifs=[absent], default=present))
    return engine.concatenated([sql.literal(""), *pieces])
