"""Runs of logical replication messages: the lockstep decoder says what one that reads byte after byte says."""

from __future__ import annotations

import struct

import pyarrow as pa

from cdc.errors import DecodeError
from cdc.model.change import ABSENT
from cdc.model.segment import Changes, Truncate
from cdc.sources.postgres.pgoutput import Decoder
from tests.fuzz.draw import Draw, cut, damaged
from tests.sources.reference_pgoutput import Malformed, Reference
from tests.sources.test_pgoutput import LETTERS, Tables, begin, commit, relation, wrap

Change = tuple[object, ...]


def one_input(data: bytes) -> None:
    draw = Draw(data)
    messages = cut(draw) if draw.ConsumeBool() else [wrap(body) for body in _log(draw)]
    messages = damaged(draw, messages)
    try:
        wanted = _read(messages)
    except Malformed:
        wanted = None
    try:
        found = _decoded(messages)
    except DecodeError:
        found = None
    assert found == wanted, (found, wanted)


def _log(draw: Draw) -> list[bytes]:
    messages, widths = [], {1: 2, 2: 1}
    for xid in range(draw.ConsumeIntInRange(1, 3)):
        messages.append(begin(xid, 100 * xid))
        for _ in range(draw.ConsumeIntInRange(0, 6)):
            oid = draw.ConsumeIntInRange(1, 2)
            kind = draw.ConsumeIntInRange(0, 8)
            width = widths[oid]
            head = struct.pack(">I", oid)
            if kind <= 1:
                widths[oid] = width = draw.ConsumeIntInRange(0, 3)
                messages.append(relation(oid, "dfni"[draw.ConsumeIntInRange(0, 3)], [f"c{i}" for i in range(width)]))
            elif kind <= 3:
                messages.append(b"I" + head + b"N" + _row(draw, width))
            elif kind == 4:
                messages.append(b"U" + head + b"N" + _row(draw, width))
            elif kind == 5:
                messages.append(b"U" + head + b"KO"[oid - 1 : oid] + _row(draw, width) + b"N" + _row(draw, width))
            elif kind == 6:
                messages.append(b"D" + head + b"KO"[oid - 1 : oid] + _row(draw, width))
            elif kind == 7:
                messages.append(b"T" + struct.pack(">IBI", 1, 0, oid))
            else:
                messages.append(b"OYMA"[oid : oid + 1] + draw.ConsumeBytes(4))
        messages.append(commit(100 * xid))
    return messages


def _row(draw: Draw, width: int) -> bytes:
    values = [struct.pack(">H", width)]
    for _ in range(width):
        kind = draw.ConsumeIntInRange(0, 4)
        text = draw.ConsumeBytes(draw.ConsumeIntInRange(0, 16))
        values.append(b"n" if kind == 0 else b"u" if kind == 1 else b"t" + struct.pack(">I", len(text)) + text)
    return b"".join(values)


def _read(messages: list[bytes]) -> list[Change]:
    reference = Reference()
    for message in messages:
        reference.message(message)
    found: list[Change] = [
        (e.xid, e.ordinal, LETTERS.get(e.op, e.op), e.oid, e.old, e.new, e.commit) for e in reference.events
    ]
    return found


def _decoded(messages: list[bytes]) -> list[Change]:
    decoder, found = Decoder(Tables()), []
    while messages:
        decoded = decoder.decode(messages, allow_part=True)
        messages = messages[decoded.consumed :]
        part: list[Change] = []
        for step in decoded.steps:
            if isinstance(step, Truncate):
                at = decoded.transactions[step.transaction]
                part.append((step.transaction, step.ordinal, "T", step.schema.identity, None, None, at))
            elif isinstance(step, Changes):
                batch = step.batch
                old, new = _images(batch.before), _images(batch.after)
                for i in range(len(batch)):
                    was = old[batch.before_row[i]] if batch.before_row[i] != ABSENT else None
                    now = new[batch.after_row[i]] if batch.after_row[i] != ABSENT else None
                    index = int(batch.transaction[i])
                    at = decoded.transactions[index]
                    part.append((index, int(batch.ordinal[i]), batch.op[i], batch.schema.identity, was, now, at))
        part.sort(key=lambda change: change[:2])
        found += [(at.identity, *change, at.position.order) for _, *change, at in part]
    return found


def _images(rows: object) -> list[list[object]]:
    if rows is None:
        return []
    if not rows.columns:
        return [[]] * 100
    columns = []
    for column, mask in zip(rows.columns, rows.unchanged, strict=True):
        values = column.view(pa.binary_view()).to_pylist()
        columns.append([... if mask is not None and mask[i] else value for i, value in enumerate(values)])
    return list(map(list, zip(*columns, strict=True)))
