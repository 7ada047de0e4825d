"""GTID sets of both kinds against Python's sets, and the events that announce a GTID."""

from __future__ import annotations

import struct

from cdc.errors import DecodeError
from cdc.sources.mysql.events import Event
from cdc.sources.mysql.gtid import Gtid, MariaDbGtids, MySqlGtids
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.transactions import begin, query, xa_name
from tests.fuzz.draw import Draw, damaged

UUIDS = ["3e11fa47-71ca-11e1-9e33-c80aa9429562", "00000000-0000-0000-0000-000000000001"]
WORDS = [*UUIDS, *UUIDS, "tag", "A_1", "1", "2-4", "3-9", "7-5", "0", "18446744073709551616", "1-", "-", "", "\u0664"]
KINDS = [Event.GTID, Event.ANONYMOUS_GTID, Event.GTID_TAGGED, Event.MARIADB_GTID, Event.QUERY, Event.XA_PREPARE]


def one_input(data: bytes) -> None:
    draw = Draw(data)
    what = draw.ConsumeIntInRange(0, 4)
    if what <= 1:
        for text in (_text(draw), draw.ConsumeUnicode(100)):
            _sets_of_mysql(text)
            _places_of_mariadb(text)
    elif what == 2:
        _arithmetic(draw)
    elif what == 3:
        _announced(draw)
    else:
        place = LogPlace("f", 0, draw.ConsumeIntInRange(0, 1 << 40))
        low = draw.ConsumeIntInRange(0, (1 << 32) - 1)
        near = place.near(low)
        assert near.offset % (1 << 32) == low
        assert near.offset >= 0
        assert abs(near.offset - place.offset) <= 1 << 31 or near.offset < 1 << 32


def _text(draw: Draw) -> str:
    parts = [
        ":".join(WORDS[draw.ConsumeIntInRange(0, len(WORDS) - 1)] for _ in range(draw.ConsumeIntInRange(1, 5)))
        for _ in range(draw.ConsumeIntInRange(1, 3))
    ]
    return draw.PickValueInList([",", " ,\n", ",,"]).join(parts)


def _sets_of_mysql(text: str) -> None:
    try:
        gtids = MySqlGtids.parse(text)
    except DecodeError:
        return
    assert MySqlGtids.parse(str(gtids)) == gtids
    assert not gtids.without(gtids)
    gtids.encode()


def _places_of_mariadb(text: str) -> None:
    try:
        gtids = MariaDbGtids.parse(text)
    except DecodeError:
        return
    assert MariaDbGtids.parse(str(gtids)) == gtids


def _arithmetic(draw: Draw) -> None:
    ours, theirs = _members(draw), _members(draw)
    one, other = MySqlGtids(), MySqlGtids()
    for number, gtid in enumerate([*ours, *theirs]):
        (one if number < len(ours) else other).add(gtid)
    assert _enumerated(one.without(other)) == set(ours) - set(theirs)
    assert _enumerated(MySqlGtids.parse(f"{one},{other}")) == {*ours, *theirs}
    assert bool(one.without(other)) == bool(set(ours) - set(theirs))


def _members(draw: Draw) -> list[Gtid]:
    return [
        Gtid((UUIDS[draw.ConsumeIntInRange(0, 1)], ["", "t"][draw.ConsumeIntInRange(0, 1)]), number)
        for number in draw.ConsumeIntListInRange(draw.ConsumeIntInRange(0, 20), 1, 12)
    ]


def _enumerated(gtids: MySqlGtids) -> set[Gtid]:
    found = []
    for source, intervals in gtids.intervals.items():
        assert intervals == sorted(intervals)
        found += [Gtid(source, number) for first, last in intervals for number in range(first, last + 1)]
    assert len(set(found)) == len(found)
    return set(found)


def _announced(draw: Draw) -> None:
    """What an event says goes into the checkpoint, from which the next start has to read it."""
    kind = KINDS[draw.ConsumeIntInRange(0, len(KINDS) - 1)]
    body = b"".join(damaged(draw, [_body(kind), draw.ConsumeBytes(draw.ConsumeIntInRange(0, 20))]))
    event = struct.pack("<IBIIIH", 0, kind, 1, 23 + len(body), draw.ConsumeIntInRange(0, 1 << 20), 0) + body
    try:
        if kind is Event.QUERY:
            query(event)
            return
        if kind is Event.XA_PREPARE:
            xa_name(event)
            return
        begun = begin(event)
    except DecodeError:
        return
    assert 0 <= begun.start < 1 << 32
    if begun.gtid is not None:
        gtids = MariaDbGtids() if kind is Event.MARIADB_GTID else MySqlGtids()
        gtids.add(begun.gtid)
        assert type(gtids).parse(str(gtids)) == gtids


def _body(kind: Event) -> bytes:
    if kind is Event.GTID_TAGGED:
        uuid = b"".join(bytes([2 * byte]) for byte in range(1, 17))
        return b"\2\x40\x06" + b"\0\0" + b"\2" + uuid + b"\4\x0c" + b"\6\6tag" + b"\x08\2\x0a\4\x0c\x10"
    if kind is Event.MARIADB_GTID:
        return struct.pack("<QIB", 5, 1, 0) + bytes(6)
    if kind is Event.QUERY:
        return struct.pack("<IIBHH", 1, 0, 1, 0, 14) + b"\0\1\0\0\0\1" + struct.pack("<Q", 4) + b"d\0TRUNCATE t"
    if kind is Event.XA_PREPARE:
        return b"\0" + struct.pack("<III", 1, 2, 1) + b"abc"
    return b"\1" + bytes(range(16)) + struct.pack("<QBQQ", 7, 2, 0, 1) + bytes(7)
