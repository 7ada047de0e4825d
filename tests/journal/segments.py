"""Segments out of Hypothesis, and what they say, in a form that can be compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from cdc.model.change import ABSENT, ChangeBatch, Op, Transactions, events
from cdc.model.parts import Condition, Part
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.model.segment import Changes, Copied, Drop, Evolve, Gap, Note, Replace, Reset, Segment, Step, Truncate
from tests.model.batches import UNCHANGED, Row, batch, table

_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
_VALUE = st.one_of(st.none(), _TEXT)
SCHEMAS = (table(3, [0]), replace(table(3, [], full_before=True), identity=2), replace(table(4, [1, 0]), identity=3))


def _keyed(schema: TableSchema, values: tuple[object, ...]) -> Row:
    return tuple("k" if value is None and i in schema.key else value for i, value in enumerate(values))


@st.composite
def batches(draw: st.DrawFn, schema: TableSchema, transactions: int, *, copied: bool = False) -> ChangeBatch:
    """Changes of a table, in the order of the transactions."""
    width = len(schema.columns)
    changes: list[tuple[Op, Row | None, Row | None]] = []
    for _ in range(draw(st.integers(1, 6))):
        op = Op.INSERT if copied else draw(st.sampled_from((Op.INSERT, Op.UPDATE, Op.DELETE)))
        value = st.one_of(_VALUE, st.just(UNCHANGED)) if op is Op.UPDATE else _VALUE
        after = _keyed(schema, draw(st.tuples(*[value] * width))) if op is not Op.DELETE else None
        if after is not None:
            after = tuple("k" if v is UNCHANGED and i in schema.key else v for i, v in enumerate(after))
        before = (
            draw(st.tuples(*[_VALUE] * width)) if op is Op.DELETE or (op is Op.UPDATE and draw(st.booleans())) else None
        )
        changes.append((op, before, after))
    made = batch(schema, changes)
    of = sorted(draw(st.lists(st.integers(0, max(transactions - 1, 0)), min_size=len(made), max_size=len(made))))
    made = replace(made, transaction=np.array(of, dtype=np.int32), copied=copied, size=draw(st.integers(0, 999)))
    if draw(st.booleans()):  # images that some of the changes do not refer to
        made = made.rows(np.arange(0, len(made), 2))
    return made


@st.composite
def segments(draw: st.DrawFn, begin: int = 100) -> Segment:
    """A segment of any steps, whose transactions come after an order."""
    count = draw(st.integers(0, 4))
    orders = np.array([begin + 10 * i for i in range(count)], dtype=np.int64)
    transactions = Transactions(orders, orders * 2, orders * 1_000_000, lambda order: f"at {order}") if count else None
    schema = st.sampled_from(SCHEMAS)
    steps: list[Step] = []
    for kind in draw(st.lists(st.integers(0, 8), max_size=5)):
        chosen = draw(schema)
        at = draw(st.integers(0, count - 1)) if count else 0
        if kind == 0 and count:
            steps.append(Changes(draw(batches(chosen, count))))
        elif kind == 1:
            steps.append(Reset(chosen, draw(st.booleans()), draw(st.sampled_from([ABSENT, at] if count else [ABSENT]))))
        elif kind == 2 and count:
            steps.append(Truncate(chosen, at, draw(st.integers(0, 9))))
        elif kind == 3 and count:
            wider = (*chosen.columns, Column("new", "text", LogicalType(Kind.TEXT), 99))
            steps.append(Evolve(chosen, replace(chosen, columns=wider), at, {99: draw(_TEXT)}))
        elif kind == 4:
            part = draw(
                st.sampled_from(
                    (Part(), Part(keys=(("a",), ("b",))), Part(("1",), ("2",), 1, 3, None, Condition("a = 1", "mysql")))
                )
            )
            steps.append(Replace(chosen, part, (draw(batches(chosen, 0, copied=True)),)))
        elif kind == 5:
            steps.append(Copied(chosen))
        elif kind == 6 and count:
            steps.append(Note(at, draw(st.integers(0, 9)), draw(st.integers(0, 2)), draw(_TEXT), draw(_TEXT)))
        elif kind == 7:
            since = draw(st.one_of(st.none(), st.integers(0, 999)))
            placed = (at, draw(st.integers(0, 9))) if count else (ABSENT, 0)
            steps.append(Gap(chosen, draw(_TEXT), *placed, since))
        elif kind == 8:
            steps.append(Drop(chosen, *((at, draw(st.integers(0, 9))) if count else (ABSENT, 0))))
    end = begin + 10 * count
    checkpoint = Checkpoint(Position(end, f"at {end}"), draw(_TEXT)) if draw(st.integers(0, 3)) else None
    return Segment(steps, transactions or Transactions.none(), checkpoint, draw(st.integers(0, 10**6)))


def said(segment: Segment) -> list[Any]:
    """Everything that a segment says."""
    transactions = [segment.transactions[i] for i in range(len(segment.transactions))]
    at = segment.checkpoint
    return [
        transactions,
        at,
        at.position.text if at is not None else None,
        segment.size,
        *(_said(step, segment) for step in segment.steps),
    ]


def _said(step: Step, segment: Segment) -> Any:
    if isinstance(step, Changes):
        return _changes(step.batch, segment.transactions)
    if isinstance(step, Replace):
        return [step.schema, step.part, [_changes(each, _ANY) for each in step.batches]]
    return step


_ANY = Transactions(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), str)


def _changes(made: ChangeBatch, transactions: Transactions) -> list[Any]:
    kinds = [
        column.type
        for rows in (made.after, made.before)
        if rows is not None
        for column in rows.columns
        if len(column) != column.null_count
    ]
    return [
        made.schema,
        made.copied,
        made.size,
        made.transaction.tolist(),
        list(events(made, transactions)),
        set(map(str, kinds)) - {"string_view"},
    ]


def natives() -> Segment:
    """A segment with every form in which values travel."""
    columns = {
        "a": pa.array([1, None], pa.int64()),
        "b": pa.array([1.5, float("nan")], pa.float32()),
        "c": pa.array([b"\x00\xff", None], pa.binary_view()),
        "d": pa.array([1, None], pa.timestamp("us", "UTC")),
        "e": pa.array([-5, None], pa.duration("us")),
        "f": pa.array([[1.0, 2.0], None], pa.list_(pa.float32())),
        "g": pa.array(["", None], pa.string_view()),
        "h": pa.array([True, None]),
        "i": pa.array([2**64 - 1, 0], pa.uint64()),
    }
    named = tuple(
        Column(name, "any", LogicalType(Kind.TEXT), i, key=0 if name == "g" else None) for i, name in enumerate(columns)
    )
    schema = TableSchema(TableName("s.t", 'x"y'), 9, named)
    made = batch(replace(table(1, [0]), columns=named[:1]), [(Op.INSERT, None, ("x",)), (Op.INSERT, None, ("y",))])
    assert made.after is not None
    made = replace(
        made, schema=schema, after=replace(made.after, columns=tuple(columns.values()), unchanged=(None,) * 9)
    )
    one = Transactions(np.array([7]), np.array([8]), np.array([9]), str)
    return Segment([Changes(made)], one, Checkpoint(Position(7, "7"), "state"), 5)
