"""Change batches as Arrow tables with the types that their columns mean, for programs that read them."""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc.model.arrays import TEXT, take, texts
from cdc.model.change import ABSENT, ChangeBatch, Op, Transactions
from cdc.model.schema import Column, Kind, LogicalType

_MOMENT = pa.timestamp("us", "UTC")
_TYPES = {
    Kind.BOOL: pa.bool_(),
    Kind.INT16: pa.int16(),
    Kind.INT32: pa.int32(),
    Kind.INT64: pa.int64(),
    Kind.UINT32: pa.uint32(),
    Kind.UINT64: pa.uint64(),
    Kind.FLOAT32: pa.float32(),
    Kind.FLOAT64: pa.float64(),
    Kind.DATE: pa.date32(),
    Kind.TIMESTAMP: pa.timestamp("us"),
    Kind.TIMESTAMPTZ: _MOMENT,
}
_MOST_DIGITS = 38


def typed(batches: Sequence[ChangeBatch], transactions: Transactions) -> pa.Table:
    """All changes of one table in a segment, one row for each: see `cdc.api.SegmentView.tables`.

    What is text in one batch is text in all of them, as the source writes it.
    """
    parts = [_typed(batch, transactions) for batch in batches]
    types: dict[str, set[pa.DataType]] = {}
    for part in parts:
        for field in part.schema:
            types.setdefault(field.name, set()).add(field.type)
    as_text = {name for name, found in types.items() if not _have_one_type(found)}
    if as_text:
        parts = [_typed(batch, transactions, as_text) for batch in batches]
    return pa.concat_tables(parts, promote_options="permissive")


def _have_one_type(types: Set[pa.DataType]) -> bool:
    """Whether Arrow has a type that holds the values of all of them exactly."""
    try:
        schemas = [pa.schema([("", kind)]) for kind in types]
        joined = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return False
    return not pa.types.is_floating(joined) or all(map(pa.types.is_floating, types))


def _typed(batch: ChangeBatch, transactions: Transactions, as_text: Set[str] = frozenset()) -> pa.Table:
    columns: dict[str, pa.Array] = {"_op": _ops(batch)}
    if batch.copied:
        nothing = len(batch)
        columns["_position"], columns["_transaction"] = pa.nulls(nothing, pa.string()), pa.nulls(nothing, pa.int64())
        columns["_ordinal"], columns["_committed_at"] = pa.nulls(nothing, pa.int64()), pa.nulls(nothing, _MOMENT)
    else:
        of = batch.transaction
        written = pa.array([transactions.write(order) for order in transactions.order.tolist()], pa.string())
        columns["_position"] = written.take(pa.array(of))
        columns["_transaction"] = pa.array(transactions.identity[of])
        columns["_ordinal"] = pa.array(batch.ordinal)
        columns["_committed_at"] = pa.array(transactions.committed_at[of]).cast(_MOMENT)
    columns["_unchanged"] = _unchanged(batch)
    for index, column in enumerate(batch.schema.columns):
        values = _values(batch, index)
        columns[column.name] = _text(values) if column.name in as_text else native(values, column)
    return pa.table(list(columns.values()), names=list(columns))


def _text(values: pa.Array) -> pa.Array:
    return pa.array(texts(values), pa.string())


def native(values: pa.Array, column: Column) -> pa.Array:
    """Values in the Arrow type that a column means, if that holds all of them; otherwise as text."""
    wanted = arrow_type(column.type)
    if wanted is None or values.type != TEXT:
        return values.cast(pa.string()) if values.type == TEXT else values
    text = values.cast(pa.string())
    try:
        if column.type.kind is Kind.BOOL:
            return pc.equal(text, "t")
        return text.cast(wanted)
    except pa.ArrowInvalid:
        return text


@cache
def arrow_type(kind: LogicalType) -> pa.DataType | None:
    """The Arrow type of a logical type; None where text says it best."""
    if kind.kind is Kind.DECIMAL:
        precision, scale = kind.precision, kind.scale
        if precision is None or scale is None or not 0 <= scale <= precision <= _MOST_DIGITS:
            return None
        return pa.decimal128(precision, scale)
    return _TYPES.get(kind.kind)


def _ops(batch: ChangeBatch) -> pa.Array:
    labels = np.array(["", "insert", "update", "delete"], dtype=object)
    return pa.array(["copy"] * len(batch) if batch.copied else labels[batch.op], pa.string())


def _values(batch: ChangeBatch, index: int) -> pa.Array:
    """A column after each change, or before a delete."""
    deleted = batch.op == Op.DELETE
    kind = next((rows.columns[index].type for rows in (batch.after, batch.before) if rows is not None), TEXT)
    after = take(batch.after.columns[index], batch.after_row) if batch.after is not None else pa.nulls(len(batch), kind)
    if batch.before is None or not (deleted & (batch.before_row != ABSENT)).any():
        return after
    before = take(batch.before.columns[index], np.where(deleted, batch.before_row, ABSENT))
    if before.type != after.type:  # one of them is text, or all null
        before, after = (pa.array(texts(part), TEXT) for part in (before, after))
    both = [part.cast(pa.string()) if part.type == TEXT else part for part in (before, after)]
    chosen = pc.if_else(pa.array(deleted), *both)
    return chosen.cast(TEXT) if after.type == TEXT else chosen


def _unchanged(batch: ChangeBatch) -> pa.Array:
    """Per change the names of the columns that the log left out; mostly none."""
    kind = pa.list_(pa.string())
    masks = list(enumerate(batch.after.unchanged)) if batch.after is not None else []
    names = [(batch.schema.columns[index].name, mask) for index, mask in masks if mask is not None]
    if not names:
        offsets = pa.array(np.zeros(len(batch) + 1, dtype=np.int32))
        return pa.ListArray.from_arrays(offsets, pa.array([], pa.string()))
    there = batch.after_row != ABSENT
    at = np.where(there, batch.after_row, 0)
    flags = np.column_stack([there & mask[at] for _, mask in names])
    offsets = np.concatenate(([0], np.cumsum(flags.sum(axis=1)))).astype(np.int32)
    of = np.nonzero(flags)[1]
    values = pa.array([name for name, _ in names], pa.string()).take(pa.array(of))
    return pa.ListArray.from_arrays(pa.array(offsets), values).cast(kind)
