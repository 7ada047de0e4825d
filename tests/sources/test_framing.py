"""Events out of a dump's bytes: the same whatever pieces they come in, and whatever way they take."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import DecodeError
from cdc.sources.lockstep import Buffer
from cdc.sources.mysql import framing
from cdc.sources.mysql.events import Event
from cdc.sources.mysql.framing import Framer, ServerSaid
from cdc.sources.mysql.slices import Events, grouped


class OneByOne(Framer):
    """Takes every event for one that is out of the ordinary."""

    def _ordinary(self, buffer: Buffer, packets: np.ndarray) -> Events | None:
        return None


def event(kind: int, body: bytes) -> bytes:
    return struct.pack("<IBIIIH", 0, kind, 1, 19 + len(body), 100, 0) + body


def packet(sent: bytes, number: int = 0) -> bytes:
    return struct.pack("<I", len(sent))[:3] + bytes([number % 256]) + sent


def with_checksum(sent: bytes) -> bytes:
    return sent + struct.pack("<I", zlib.crc32(sent))


def payload(inner: Sequence[bytes]) -> bytes:
    """A transaction that is compressed as a whole."""
    content = b"".join(inner)
    size = struct.pack("<I", len(content))[:3]
    fields = b"\2\1\0" + b"\3\4\xfd" + size  # the method, and the size as a packed integer of three bytes
    return event(Event.TRANSACTION_PAYLOAD, fields + b"\0" + zstandard.compress(content))


def compressed_rows(rows: bytes) -> tuple[bytes, bytes]:
    """A compressed row event of MariaDB, and what it stands for, in whose header the size stays what it was."""
    plain = bytes(8) + b"\1\1"
    head = bytes([2]) + struct.pack(">H", len(rows))
    sent = event(Event.WRITE_ROWS_COMPRESSED_V1, plain + head + zlib.compress(rows))
    return sent, sent[:4] + bytes([Event.WRITE_ROWS_V1]) + sent[5:19] + plain + rows


bodies = st.binary(max_size=60)
ordinary = st.builds(event, st.sampled_from([Event.XID, Event.QUERY, Event.TABLE_MAP, Event.HEARTBEAT, 30, 99]), bodies)


@st.composite
def sent_and_meant(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """One event as it is sent, without its checksum, and the events that it stands for."""
    how = draw(st.integers(0, 12))
    if how == 0:
        inner = draw(st.lists(ordinary, min_size=1, max_size=3))
        return payload(inner), inner
    if how == 1:
        rows, plain = compressed_rows(draw(bodies))
        return rows, [plain]
    found = draw(ordinary)
    return found, [found]


def packets(events: Sequence[bytes], *, has_checksum: bool) -> bytes:
    return b"".join(
        packet(b"\0" + (with_checksum(sent) if has_checksum else sent), number) for number, sent in enumerate(events)
    )


def outcome(framer: Framer, pieces: Sequence[bytes]) -> tuple[list[bytes], str]:
    """The events of pieces, and what ended them."""
    found: list[bytes] = []
    for piece in pieces:
        try:
            found += framer.feed(piece)
        except (DecodeError, ServerSaid) as error:
            return found, f"{type(error).__name__} {error}"
    return found, ""


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted({min(place, len(data)) for place in places} | {len(data)})
    return [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


@given(st.lists(sent_and_meant(), max_size=12), st.booleans(), st.lists(st.integers(0, 1500), max_size=8))
def test_events_are_what_was_sent(sent: list[tuple[bytes, list[bytes]]], has_checksum: bool, places: list[int]) -> None:
    """B-14, B-20, B-21: any mix of events, cut anywhere."""
    data = packets([one for one, _ in sent], has_checksum=has_checksum)
    # Events of a transaction that was compressed have the place of the whole, which is the same one here.
    meant = [one for _, events in sent for one in events]
    assert outcome(Framer(has_checksum=has_checksum), cut(data, places)) == (meant, "")


@given(
    st.lists(sent_and_meant(), min_size=1, max_size=8),
    st.booleans(),
    st.lists(st.integers(0, 800), max_size=4),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(1, 255)), max_size=3),
    st.sampled_from(
        [b"", packet(b"\xff\xd4\4#HY000gone"), packet(b"\xfe"), packet(b""), packet(b"\7\0"), packet(b"\0")]
    ),
)
def test_damage_is_found_as_in_every_event_alone(
    sent: list[tuple[bytes, list[bytes]]],
    has_checksum: bool,
    places: list[int],
    flips: list[tuple[int, int]],
    end: bytes,
) -> None:
    """B-14: bytes that were changed, and packets that are no events, end in the same error at the same place."""
    data = bytearray(packets([one for one, _ in sent], has_checksum=has_checksum) + end)
    for at, how in flips:
        data[at % len(data)] ^= how
    pieces = cut(bytes(data), places)
    assert outcome(Framer(has_checksum=has_checksum), pieces) == outcome(OneByOne(has_checksum=has_checksum), pieces)


def test_every_flipped_bit_is_found_among_many_events() -> None:
    """B-14: the checksums of many events are looked at together."""
    events = [event(Event.XID, bytes([number]) * 8) for number in range(20)]
    data = packets(events, has_checksum=True)
    for at in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        found, error = outcome(Framer(has_checksum=True), [bytes(damaged)])
        is_number = at // 8 % (len(data) // 20) == 3
        assert (found, error) == (events, "") if is_number else found != events


def test_ordinary_events_are_not_taken_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [event(Event.XID, bytes(8)), event(Event.QUERY, bytes(30))]
    refused: Callable[..., None] = lambda *_: pytest.fail("one by one")  # noqa: E731
    monkeypatch.setattr(Framer, "_one_by_one", refused)
    for has_checksum in (True, False):
        found = outcome(Framer(has_checksum=has_checksum), [packets(events, has_checksum=has_checksum)])
        assert found == (events, "")


def test_an_event_of_many_packets() -> None:
    """An event that is longer than a packet can be goes on in the next ones, up to one that is shorter."""
    long = event(Event.QUERY, bytes(0xFFFFFF - 20) + b"x")
    exact = event(Event.QUERY, bytes(0xFFFFFF - 20 - 4))
    short = event(Event.XID, bytes(8))
    data = packets([short], has_checksum=True)
    for one in (long, exact):
        sent = b"\0" + with_checksum(one)
        data += packet(sent[:0xFFFFFF]) + packet(sent[0xFFFFFF:])
    data += packets([short], has_checksum=True)
    pieces = [data[at : at + (1 << 20)] for at in range(0, len(data), 1 << 20)]
    assert outcome(Framer(has_checksum=True), pieces) == ([short, long, exact, short], "")


def test_the_glue_between_events() -> None:
    """Behind an event with its checksum it puts a CRC32 back to where it begins."""
    assert zlib.crc32(framing._GLUE, framing._RESIDUE) == 0
    assert zlib.crc32(with_checksum(b"whatever")) == framing._RESIDUE


@given(st.lists(st.lists(st.binary(max_size=20), max_size=4), max_size=4), st.data())
def test_runs_of_events_are_like_lists(runs: list[list[bytes]], data: st.DataObject) -> None:
    joined = Events.joined([Events.of(run) for run in runs])
    flat = [one for run in runs for one in run]
    assert list(joined) == flat
    assert [joined[at] for at in range(len(joined))] == flat
    begin, end = (data.draw(st.integers(0, len(flat))) for _ in range(2))
    assert list(joined[begin:end]) == flat[begin:end]
    again = Events.joined([joined[begin:end], Events.of([b"between"]), joined[:begin]])
    assert list(again) == [*flat[begin:end], b"between", *flat[:begin]]
    if flat:
        offset = data.draw(st.integers(0, 3))
        content = data.draw(st.sampled_from(flat))[offset:]
        at = np.array(data.draw(st.lists(st.integers(0, len(flat) - 1), min_size=1)), dtype=np.int64)
        same = all(flat[index][offset:] == content and len(flat[index]) >= offset for index in at.tolist())
        assert joined.all_end_in(at, offset, content) is same


@given(st.lists(st.integers(0, 5)))
def test_numbers_in_groups(numbers: list[int]) -> None:
    found = {number: at.tolist() for number, at in grouped(np.array(numbers, dtype=np.int64))}
    assert found == {one: [at for at, other in enumerate(numbers) if other == one] for one in set(numbers)}
