"""Records of a journal: damage is noticed, and what is whole and yet makes no sense is refused by name."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace

import orjson
import pyarrow as pa

from cdc.errors import JournalDamaged
from cdc.journal.record import Context, decode, encode, is_whole, read_header
from cdc.model.change import Op, Transactions
from cdc.model.parts import Part
from cdc.model.position import Checkpoint, Position
from cdc.model.segment import Changes, Evolve, Note, Replace, Reset, Segment, Truncate
from tests.fuzz.draw import Draw, changed, damaged
from tests.journal.segments import natives, said
from tests.model.batches import batch, table

_TABLE = table(2, [0])
_WIDER = replace(table(3, [0]), identity=_TABLE.identity)
_CHANGES = [(Op.INSERT, None, ("a", "b")), (Op.UPDATE, ("a", None), ("c", None)), (Op.DELETE, ("c", None), None)]
_ONE = Transactions(*(pa.array([n], pa.int64()).to_numpy() for n in (7, 1, 2)), str)
SEGMENTS = [
    Segment(
        [
            Reset(_TABLE),
            Note(0, 0, 0, "who", "x"),
            Changes(batch(_TABLE, _CHANGES)),
            Truncate(_TABLE, 0, 3),
            Evolve(_TABLE, _WIDER, 0, {3: "d"}),
            Replace(_WIDER, Part(keys=(("a",),)), ()),
        ],
        _ONE,
        Checkpoint(Position(7, "7"), "state"),
        9,
    ),
    natives(),
]
RECORDS = [encode(segment, 3, Context(), {_TABLE.identity})[1] for segment in SEGMENTS]
WHOLE = [said(segment) for segment in SEGMENTS]


def one_input(data: bytes) -> None:
    draw = Draw(data)
    kind, index = draw.ConsumeIntInRange(0, 2), draw.ConsumeIntInRange(0, len(RECORDS) - 1)
    if kind == 0:
        _read(data)
    elif kind == 1:
        found = _read(b"".join(damaged(draw, [RECORDS[index]])))
        assert found is None or said(found) == WHOLE[index]
    else:
        _read(_with_another_header(draw, RECORDS[index]))


def _read(data: bytes) -> Segment | None:
    """What a reader makes of some bytes; None if he takes them for damaged, or cut off."""
    view = memoryview(data)
    try:
        found = read_header(view)
        if found is None:
            return None
        header, body = found
        if not is_whole(header, view[body : body + header.length]):
            return None
        context = Context()
        context.take(header)
        return decode(header, view[: body + header.length], context)
    except JournalDamaged:
        return None


def _with_another_header(draw: Draw, record: bytes) -> bytes:
    """Whole, with a right checksum, and not what was written: of another version, or put together by somebody."""
    found = read_header(memoryview(record))
    assert found is not None
    schema = pa.ipc.read_schema(pa.py_buffer(record[: found[1]]))
    tree = orjson.loads(schema.metadata[b"cdc"])
    for _ in range(draw.ConsumeIntInRange(1, 2)):
        changed(draw, tree)
    text = json.dumps(tree).encode()
    metadata = {b"cdc": text, b"crc32": str(zlib.crc32(text)).encode()}
    return bytes(schema.with_metadata(metadata).serialize()) + record[found[1] :]
