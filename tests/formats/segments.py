"""Random segments: tables of all kinds of columns, in whole transactions, cut anywhere."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from cdc.model.change import ABSENT, ChangeBatch, Op, Rows, Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.model.segment import Changes, Segment, Step, Truncate

FIRST = 1_700_000_000_123_456
TEXTS = ["", "a", 'quo"te', "back\\slash", "new\nline", "tab\t", "\x01\x1f", "ünïcödé ☃", "{}", "'", "x" * 40, "\u2028"]
UNCHANGED = object()
_SAMPLES: dict[Kind, list[str]] = {
    Kind.BOOL: ["t", "f"],
    Kind.INT32: ["0", "-7", "2147483647"],
    Kind.INT64: ["9223372036854775807", "-1"],
    Kind.UINT64: ["0", "9223372036854775807", "9223372036854775808", "18446744073709551615"],
    Kind.FLOAT64: ["0.1", "1e+20", "-0", "NaN", "Infinity", "-Infinity", "1"],
    Kind.DECIMAL: ["1.50", "NaN", "-0.000001"],
    Kind.TEXT: TEXTS,
    Kind.BYTES: ["\\x", "\\x00ff22"],
    Kind.DATE: ["2024-12-31", "0044-03-15 BC", "infinity"],
    Kind.TIME: ["23:59:59.123456", "24:00:00"],
    Kind.TIMESTAMP: ["2024-12-31 23:59:59.5", "0044-03-15 00:00:00 BC", "-infinity"],
    Kind.TIMESTAMPTZ: ["2024-12-31 23:59:59+00", "2024-12-31 23:59:59.123456+00", "infinity"],
    Kind.INTERVAL: ["1 year 2 mons -3 days +04:05:06.789"],
    Kind.UUID: ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    Kind.JSON: ['{"k": "v\\n"}', "null"],
    Kind.OPAQUE: ['(1,"a b")'],
}


@dataclass
class Change:
    """One change as the test made it: values are canonical texts, None or UNCHANGED."""

    schema: TableSchema
    op: Op
    order: int
    ordinal: int
    before: list[object] | None = None
    after: list[object] | None = None


@dataclass
class Story:
    """Transactions in order, and the same cut into segments."""

    changes: list[Change] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)


def schemas(rng: random.Random) -> list[TableSchema]:
    """Some tables with names that have to be escaped."""
    made = []
    for number in range(rng.randint(1, 3)):
        kinds = [Kind.INT32, *rng.sample(list(_SAMPLES), rng.randint(1, 8))]
        keyed = rng.random() < 0.8
        columns = tuple(
            Column(
                f'c"{i}' if i == 1 else f"c{i}", kind.value, LogicalType(kind), i + 1, 0 if keyed and i == 0 else None
            )
            for i, kind in enumerate(kinds)
        )
        full = not keyed or rng.random() < 0.4
        made.append(TableSchema(TableName("s", f't"{number}'), number + 1, columns, full_before=full))
    return made


def story(rng: random.Random) -> Story:
    """What happened, and how it came."""
    tables, script = schemas(rng), Story()
    order, transactions = 100, []
    for _ in range(rng.randint(1, 8)):
        order += rng.randint(1, 50)
        size = rng.choice([1, 2, 5, 40])
        transactions.append(order)
        for ordinal in range(size):
            script.changes.append(_change(rng, rng.choice(tables), order, ordinal))
    script.segments = list(_cut(rng, script.changes, transactions))
    return script


def _change(rng: random.Random, schema: TableSchema, order: int, ordinal: int) -> Change:
    if rng.random() < 0.05:
        return Change(schema, Op.TRUNCATE, order, ordinal)
    op = rng.choice([Op.INSERT, Op.UPDATE, Op.UPDATE, Op.DELETE])
    change = Change(schema, op, order, ordinal)
    if op != Op.DELETE:
        change.after = _row(rng, schema, op)
    if op == Op.DELETE or (op == Op.UPDATE and (schema.full_before or rng.random() < 0.3)):
        whole = _row(rng, schema, Op.INSERT)
        change.before = [v if schema.full_before or i in schema.key else None for i, v in enumerate(whole)]
    return change


def _row(rng: random.Random, schema: TableSchema, op: Op) -> list[object]:
    row: list[object] = []
    for column in schema.columns:
        if column.key is not None:
            row.append(str(rng.randint(0, 5)))
        elif op == Op.UPDATE and rng.random() < 0.2:
            row.append(UNCHANGED)
        else:
            row.append(None if rng.random() < 0.2 else rng.choice(_SAMPLES[column.type.kind]))
    return row


def _cut(rng: random.Random, changes: list[Change], orders: list[int]) -> list[Segment]:
    """Segments that end anywhere; one that ends inside a transaction has no checkpoint."""
    segments, begin = [], 0
    while begin < len(changes):
        end = min(len(changes), begin + rng.choice([1, 3, 10, 1000]))
        part = changes[begin:end]
        is_whole = end == len(changes) or changes[end].order != part[-1].order
        segments.append(segment(part, is_whole))
        begin = end
    return segments


def segment(part: list[Change], is_whole: bool) -> Segment:
    """Changes as a segment of batches between barriers."""
    orders = sorted({change.order for change in part})
    steps: list[Step] = []
    gathered: dict[int, list[Change]] = {}
    for change in part:
        if change.op == Op.TRUNCATE:
            steps += [Changes(batch(found, orders)) for found in gathered.values()]
            gathered = {}
            steps.append(Truncate(change.schema, orders.index(change.order), change.ordinal))
        else:
            gathered.setdefault(change.schema.identity, []).append(change)
    steps += [Changes(batch(found, orders)) for found in gathered.values()]
    numbers = np.array(orders, dtype=np.int64)
    at = Position(orders[-1] + 1, write(orders[-1] + 1))
    return Segment(
        steps,
        Transactions(numbers, numbers * 7, FIRST + numbers, write),
        Checkpoint(at, "{}") if is_whole else None,
    )


def batch(changes: list[Change], orders: list[int]) -> ChangeBatch:
    """Changes of one table as columns."""
    schema = changes[0].schema
    after = [change.after for change in changes if change.after is not None]
    before = [change.before for change in changes if change.before is not None]
    return ChangeBatch(
        schema=schema,
        op=np.array([change.op for change in changes], dtype=np.uint8),
        transaction=np.array([orders.index(change.order) for change in changes], dtype=np.int32),
        ordinal=np.array([change.ordinal for change in changes], dtype=np.int64),
        after=_rows(after),
        after_row=_places([change.after for change in changes]),
        before=_rows(before),
        before_row=_places([change.before for change in changes]),
    )


def write(order: int) -> str:
    """How this source writes a position."""
    return f"0/{order:X}"


def _rows(rows: list[list[object]]) -> Rows | None:
    if not rows:
        return None
    columns, masks = [], []
    for values in zip(*rows, strict=True):
        columns.append(pa.array([None if value is UNCHANGED else value for value in values], pa.string_view()))
        mask = np.array([value is UNCHANGED for value in values])
        masks.append(mask if mask.any() else None)
    return Rows(tuple(columns), tuple(masks))


def _places(rows: list[list[object] | None]) -> np.ndarray:
    has = np.array([row is not None for row in rows])
    return np.where(has, np.cumsum(has) - 1, ABSENT).astype(np.int64)
