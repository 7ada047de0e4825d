"""Packets of a binlog dump: whatever pieces they come in, and whatever is in them behind a right checksum."""

from __future__ import annotations

import struct
import zlib

import zstandard

from cdc.errors import DecodeError
from cdc.sources.mysql.events import COMPRESSED, Event
from cdc.sources.mysql.framing import Framer, ServerSaid, event_mark
from tests.fuzz.draw import Draw, damaged

KINDS = [*COMPRESSED, Event.TRANSACTION_PAYLOAD, Event.FORMAT_DESCRIPTION, Event.QUERY, Event.XID]


def one_input(data: bytes) -> None:
    draw = Draw(data)
    has_checksum, at = draw.ConsumeBool(), draw.ConsumeIntInRange(0, 200)
    if draw.ConsumeBool():
        sent = draw.ConsumeBytes(draw.remaining_bytes())
    else:
        events = damaged(draw, [_event(draw) for _ in range(draw.ConsumeIntInRange(1, 4))])
        sent = b"".join(damaged(draw, [_packet(event, has_checksum=has_checksum) for event in events]))
    whole, parts = _framed([sent], has_checksum), _framed([sent[:at], sent[at:]], has_checksum)
    assert whole == parts
    for event in whole or []:
        assert len(event) >= 19
        event_mark(event)


def _framed(pieces: list[bytes], has_checksum: bool) -> list[bytes] | None:
    framer = Framer(has_checksum=has_checksum)
    try:
        return [event for piece in pieces for event in framer.feed(piece)]
    except (DecodeError, ServerSaid):
        return None


def _event(draw: Draw) -> bytes:
    kind = KINDS[draw.ConsumeIntInRange(0, len(KINDS) - 1)]
    body = _body(draw, kind)
    return struct.pack("<IBIIIH", 0, kind, 1, 19 + len(body), 100, 0) + body


def _body(draw: Draw, kind: Event) -> bytes:
    if kind is Event.TRANSACTION_PAYLOAD:
        inner = b"".join(damaged(draw, [struct.pack("<IBIIIH", 0, 16, 1, 27, 0, 0) + bytes(8)] * 2))
        method = draw.ConsumeIntInRange(0, 1) * 255
        content = inner if method else zstandard.compress(inner)
        size = draw.ConsumeIntInRange(0, 1 << 16) if draw.ConsumeBool() else len(inner)
        fields = [b"\2\1" + _packed(method), b"\3" + _field(size), b"\1" + _field(len(content)), b"\0", content]
        return b"".join(damaged(draw, fields))
    if kind in COMPRESSED:
        content = draw.ConsumeBytes(draw.ConsumeIntInRange(0, 50))
        size = draw.ConsumeIntInRange(0, 1 << 16) if draw.ConsumeBool() else len(content)
        head = bytes(8) + (b"\2\0" if kind >= Event.WRITE_ROWS_COMPRESSED else b"") + b"\2\3\3"
        if kind is Event.QUERY_COMPRESSED:
            head = struct.pack("<IIBHH", 1, 0, 1, 0, 0) + b"d\0"
        return b"".join(damaged(draw, [head, b"\2" + size.to_bytes(4, "big")[2:], zlib.compress(content)]))
    return draw.ConsumeBytes(draw.ConsumeIntInRange(0, 100))


def _packed(number: int) -> bytes:
    return bytes([number]) if number < 0xFB else b"\xfc" + struct.pack("<H", number)


def _field(number: int) -> bytes:
    packed = b"\xfe" + struct.pack("<Q", number)
    return bytes([len(packed)]) + packed


def _packet(event: bytes, *, has_checksum: bool) -> bytes:
    packet = b"\0" + event + (struct.pack("<I", zlib.crc32(event)) if has_checksum else b"")
    return struct.pack("<I", len(packet))[:3] + b"\0" + packet
