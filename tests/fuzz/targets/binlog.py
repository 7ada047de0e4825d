"""Runs of binlog events with rows of every type: an answer or a refusal, and never a row from another event's bytes."""

from __future__ import annotations

import itertools
import struct
from random import Random

from cdc.errors import DecodeError, InvariantError, OperatorNeeded
from cdc.model.change import ChangeEvent
from cdc.model.change import events as as_events
from cdc.model.segment import Changes, Suspect
from cdc.sources.mysql.binlog import Decoder
from cdc.sources.mysql.events import DELETES, UPDATES, WRITES, Event
from cdc.sources.mysql.position import LogPlace
from tests.fuzz.draw import Draw, cut, damaged
from tests.sources.row_images import OTHERS, ColumnType, Followed, Latin, row_image, rows_event, table_map
from tests.sources.row_images import TYPES as KNOWN

TYPES = [*KNOWN, *OTHERS]
ROWS = [*WRITES, *UPDATES, *DELETES]
STATEMENTS = [b"REPLACE INTO t VALUES (1)", b"UPDATE t SET c0 = 1", b"CALL p()", b""]
QUERIES = ["BEGIN", "COMMIT", "ROLLBACK", "ROLLBACK TO x", "XA START X'78',X'',1", "XA COMMIT X'78',X'',1", "XA", ""]


def one_input(data: bytes) -> None:
    draw = Draw(data)
    types = [TYPES[draw.ConsumeIntInRange(0, len(TYPES) - 1)] for _ in range(draw.ConsumeIntInRange(1, 6))]
    events = cut(draw) if draw.ConsumeIntInRange(0, 4) == 0 else damaged(draw, _placed(_log(draw, types)))
    with_others = [part for event in events for part in (event, _other(event))]
    assert _decoded(events, types) == _decoded(with_others, types)


def _placed(events: list[bytes]) -> list[bytes]:
    """Events that say where they end, each behind the one before it."""
    ends = itertools.accumulate(map(len, events), initial=4)
    return [event[:13] + struct.pack("<I", end) + event[17:] for event, end in zip(events, list(ends)[1:], strict=True)]


def _other(event: bytes) -> bytes:
    """An event that says nothing about rows, behind another: a decoder that reads beyond that one reads its bytes."""
    return _event(Event.ROWS_QUERY, b"\xff" * 40)[:13] + event[13:17].ljust(4, b"\0") + b"\0\0" + b"\xff" * 40


def _decoded(events: list[bytes], types: list[ColumnType]) -> list[object] | None:
    """The changes, None if they are refused."""
    place, is_mariadb = LogPlace("binlog.000001", 0), len(types) % 2 == 0
    decoder = Decoder(Followed(types), Latin(), place, {}, {}, {}, is_mariadb=is_mariadb, has_texts=True)
    found: list[object] = []
    for _ in range(len(events) + 1):
        if not events:
            return found
        try:
            decoded = decoder.decode(events, allow_part=True)
        except InvariantError:
            raise
        except (DecodeError, OperatorNeeded):
            return None
        for step in decoded.steps:
            if isinstance(step, Suspect):
                found.append((step.schema, step.transaction))  # the reason says where, which is not the same place
            elif isinstance(step, Changes):
                found += [_comparable(change) for change in as_events(step.batch, decoded.transactions)]
        events = events[decoded.consumed :]
        if decoded.wanted is not None:
            decoder.supply(decoded.wanted[0])
    raise AssertionError("no event is taken from the run any more")


def _comparable(change: ChangeEvent) -> object:
    return change.op, change.ordinal, repr(change.before), repr(change.after)


def _log(draw: Draw, types: list[ColumnType]) -> list[bytes]:
    events = []
    random = Random(draw.ConsumeIntInRange(0, 1 << 16))
    for number in range(1, draw.ConsumeIntInRange(1, 3) + 1):
        events.append(_event(Event.MARIADB_GTID, struct.pack("<QIB", number, 0, 0) + bytes(6)))
        events.append(_event(Event.TABLE_MAP, table_map(7, types, has_names=draw.ConsumeBool())))
        for _ in range(draw.ConsumeIntInRange(0, 4)):
            what = draw.ConsumeIntInRange(0, len(ROWS) + 4)
            if what < len(ROWS):
                events.append(_event(ROWS[what], _rows(draw, ROWS[what], types, random)))
            elif what == len(ROWS):
                text = QUERIES[draw.ConsumeIntInRange(0, len(QUERIES) - 1)].encode()
                events.append(_event(Event.QUERY, struct.pack("<IIBHH", 1, 0, 1, 0, 0) + b"d\0" + text))
            elif what == len(ROWS) + 1:
                events.append(_event(Event.XA_PREPARE, b"\0" + struct.pack("<III", 1, 1, 0) + b"x"))
            elif what == len(ROWS) + 2:
                events.append(_event(Event.ROTATE, struct.pack("<Q", 4) + b"binlog.000002"))
            elif what == len(ROWS) + 3:
                events.append(_event(Event.ANNOTATE_ROWS, STATEMENTS[draw.ConsumeIntInRange(0, len(STATEMENTS) - 1)]))
            else:
                events.append(_event(draw.ConsumeIntInRange(0, 255), draw.ConsumeBytes(10)))
        events.append(_event(Event.XID, bytes(8)))
    return events


def _rows(draw: Draw, kind: int, types: list[ColumnType], random: Random) -> bytes:
    images = []
    for _ in range(draw.ConsumeIntInRange(0, 3) * (1 + (kind in UPDATES))):
        values = [column.sample(random)[0] if random.random() < 0.8 else None for column in types]
        image = row_image(values)
        if kind == Event.PARTIAL_UPDATE_ROWS and len(images) % 2:
            image = bytes([draw.ConsumeIntInRange(0, 1)]) + image
        images.append(image)
    return b"".join(damaged(draw, [rows_event(kind, 7, len(types), []), *images]))


def _event(kind: int, body: bytes) -> bytes:
    return struct.pack("<IBIIIH", 0, kind, 1, 19 + len(body), 1000, 0) + body
