"""What a PostgreSQL server writes into its log of a history, and how it says that to a replication session."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from random import Random

from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.sources.postgres.catalog import Table
from cdc.sources.postgres.pgoutput import Relation, RelationColumn
from cdc.sources.postgres.position import EPOCH
from tests.simulation.history import BIGINT, INT, KEY, LONG, TEXT, History, Op, Shape, Transaction, Values
from tests.simulation.world import BEGIN

OIDS = {TEXT: 25, INT: 23, BIGINT: 20}
SCHEMA = "s"
_KINDS = {TEXT: Kind.TEXT, INT: Kind.INT32, BIGINT: Kind.INT64}


@dataclass(frozen=True)
class Record:
    """One message of a transaction, with the place of its record in the log and the shapes that it needs."""

    place: int
    body: bytes
    shapes: tuple[Shape, ...] = ()


@dataclass(frozen=True)
class Logged:
    """A transaction in the log.

    Attributes:
        at: the virtual second of its commit.
        commit, end: where its commit record begins and ends.
    """

    number: int
    at: float
    commit: int
    end: int
    records: tuple[Record, ...]


def write_log(rng: Random, history: History) -> list[Logged]:
    """All transactions of a history as the log has them. Records of several lie between each other (A-67)."""
    log: list[Logged] = []
    place, at = 0x1_0000_0000 - 4000, 0.0  # so that it crosses a border of the two halves of an LSN
    known = rng.randint(0, len(history.transactions))
    for number, transaction in enumerate(history.transactions):
        if number >= known:
            at += rng.choice([0.0, 0.0, 0.001, 0.001, 0.3, 0.3, 0.3, 0.3, 2.0, 2.0, 11.0, 11.0, 35.0])
        # A commit may stand directly behind another: everything else of it was written before that one.
        place += 0 if rng.random() < 0.3 and log else rng.randint(8, 2000)
        end = place + 48
        log.append(Logged(number, at, place, end, tuple(_records(rng, transaction, number, place, end, at))))
        place = end
    return log


def _records(rng: Random, transaction: Transaction, number: int, commit: int, end: int, at: float) -> list[Record]:
    if not transaction.committed:
        # Some releases say unasked that a part of a transaction was rolled back, and nothing else of it.
        return [Record(commit, b"A" + struct.pack(">II", number, number))] if rng.random() < 0.3 else []
    if not transaction.ops and rng.random() < 0.5:
        return []  # newer servers do not send empty ones
    clock = BEGIN + int(at * 1e6) - EPOCH
    places = sorted(commit - rng.randint(1, 3000) for _ in transaction.ops)
    records = [Record(places[0] if places else commit, b"B" + struct.pack(">QqI", commit, clock, 1000 + number))]
    if rng.random() < 0.1:
        records.append(Record(commit, b"O" + struct.pack(">Q", 1) + b"origin\0"))
    for place, op in zip(places, transaction.ops, strict=True):
        body = _body(op)
        if body is not None:
            records.append(Record(place, body, op.shapes if op.what != "message" else ()))
    records.append(Record(commit, b"C" + struct.pack(">BQQq", 0, commit, end, clock)))
    return records


def _body(op: Op) -> bytes | None:
    if op.what == "reshape":
        return None
    if op.what == "message":
        return b"M" + struct.pack(">BQ", 1, 0) + b"note\0" + struct.pack(">I", 2) + b"hi"
    if op.what == "truncate":
        return b"T" + struct.pack(">IB", len(op.shapes), 1) + b"".join(struct.pack(">I", s.oid) for s in op.shapes)
    shape, kind = op.shape, op.what[0].upper().encode()
    head = kind + struct.pack(">I", shape.oid)
    if op.what == "insert":
        return head + b"N" + _tuple(shape, op.new)
    old = b""
    if shape.identity == "f":
        old = b"O" + _tuple(shape, op.old)
    elif op.moves or op.what == "delete":
        old = b"K" + _tuple(shape, op.old, only=frozenset({KEY}))
    if op.what == "delete":
        return head + old
    unchanged = frozenset(
        number for number, value in op.new.items() if (value or "").startswith(LONG) and number not in op.touched
    )
    return head + old + b"N" + _tuple(shape, op.new, unchanged=unchanged)


def _tuple(
    shape: Shape, values: Values, *, only: frozenset[int] | None = None, unchanged: frozenset[int] = frozenset()
) -> bytes:
    pieces = [struct.pack(">H", len(shape.columns))]
    for column, value in zip(shape.columns, shape.row(values), strict=True):
        if value is None or (only is not None and column.number not in only):
            pieces.append(b"n")
        elif column.number in unchanged:
            pieces.append(b"u")
        else:
            text = value.encode()
            pieces.append(b"t" + struct.pack(">I", len(text)) + text)
    return b"".join(pieces)


def relation(shape: Shape) -> Relation:
    """A shape as a Relation message has it."""
    full = shape.identity == "f"
    return Relation(
        shape.oid,
        SCHEMA,
        shape.name,
        shape.identity if shape.identity != "n" else "d",
        tuple(
            RelationColumn(c.name, OIDS[c.type], -1, full or (shape.keyed and c.number == KEY)) for c in shape.columns
        ),
    )


def table(shape: Shape) -> Table:
    columns = tuple(
        Column(c.name, c.type, LogicalType(_KINDS[c.type]), c.number, 0 if shape.keyed and c.number == KEY else None)
        for c in shape.columns
    )
    schema = TableSchema(TableName(SCHEMA, shape.name), shape.oid, columns, full_before=shape.identity == "f")
    return Table(schema, relation(shape), "r", 0)


def describe(shape: Shape) -> bytes:
    """The Relation message itself."""
    said = relation(shape)
    columns = b"".join(
        bytes([c.is_identity]) + c.name.encode() + b"\0" + struct.pack(">Ii", c.type_oid, c.type_modifier)
        for c in said.columns
    )
    head = b"R" + struct.pack(">I", said.oid) + f"{said.namespace}\0{said.name}\0{said.identity}".encode()
    return head + struct.pack(">H", len(said.columns)) + columns


def data(place: int, clock: int, body: bytes) -> bytes:
    """An XLogData message."""
    return b"w" + struct.pack(">QQq", place, place, clock - EPOCH) + body


def keepalive(end: int, clock: int, *, reply: bool) -> bytes:
    return b"k" + struct.pack(">QqB", end, clock - EPOCH, reply)
