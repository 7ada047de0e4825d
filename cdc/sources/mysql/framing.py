"""From the packets of a binlog dump to plain events: checksums verified and taken off, compression undone; no I/O.

Packets: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_packets.html
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import zstandard

from cdc.errors import DecodeError
from cdc.sources.lockstep import Buffer
from cdc.sources.mysql.events import COMPRESSED, HEADER, Event
from cdc.sources.mysql.reader import Reader
from cdc.sources.mysql.slices import Events

_LONGEST = 0xFFFFFF  # a packet of this length goes on in the next one
_HEAD = 4  # bytes before a packet: three of its length, and its number
_OK, _EOF, _ERROR = 0x00, 0xFE, 0xFF
_CRC32 = 1  # checksum algorithm in a format description
_ZSTD, _UNCOMPRESSED = 0, 255  # compression types of a transaction payload
_MOST = 1 << 30  # bytes: max_allowed_packet cannot be more, so neither can an event that was compressed
_MOST_PACKETS = _MOST // _LONGEST + 2  # of one event
_RESIDUE = zlib.crc32(bytes(4) + zlib.crc32(bytes(4)).to_bytes(4, "little"))  # of whatever ends in its own CRC32
_GLUE = bytes.fromhex("0080fdfbab")  # zlib.crc32(_GLUE, _RESIDUE) == 0
_SPECIAL = np.zeros(256, dtype=bool)  # what becomes other events, or says how the next ones are read
_SPECIAL[[Event.FORMAT_DESCRIPTION, Event.TRANSACTION_PAYLOAD, *COMPRESSED]] = True


class ServerSaid(Exception):
    """The server ended the dump with an error packet, or (code 0) without one."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Framer:
    """Cuts received bytes into packets and these into events.

    Args:
        has_checksum: whether events end in a CRC32, until the first format description says so itself.
    """

    def __init__(self, *, has_checksum: bool) -> None:
        self._has_checksum = has_checksum
        self._pieces: list[bytes] = []  # of packets that have not come as a whole
        self._size = 0
        self._wanted = _HEAD  # bytes of them, before which there is nothing to do
        self._long: list[bytes] = []

    def feed(self, data: bytes) -> Events:
        """The events that are complete with these bytes, each with its header and without its checksum.

        Raises:
            ServerSaid: the server ended the stream.
            DecodeError: an event is damaged (B-14).
        """
        self._pieces.append(data)
        self._size += len(data)
        if self._size < self._wanted:
            return Events.of([])
        buffer = Buffer(self._pieces)
        begin = _packets(buffer.data, buffer.size)
        done = int(begin[-1])
        self._pieces, self._size = [buffer.data[done : buffer.size]], buffer.size - done
        self._wanted = _HEAD + _length(buffer.data, done) if self._size >= _HEAD else _HEAD
        events = self._ordinary(buffer, begin)
        return events if events is not None else self._one_by_one(buffer, begin)

    def _ordinary(self, buffer: Buffer, packets: np.ndarray) -> Events | None:
        """The events of packets, by where they begin and the last one ends (int64[n+1]), without Python for each.

        None if anything is out of the ordinary, a wrong checksum for example.
        """
        begin, end = packets[:-1] + _HEAD + 1, packets[1:]
        length = end - begin
        if self._long or (length < HEADER + 4 * self._has_checksum).any() or (length >= _LONGEST - 1).any():
            return None
        if (buffer.bytes[begin - 1] != _OK).any() or _SPECIAL[buffer.bytes[begin + 4]].any():
            return None
        if not self._has_checksum:
            return Events(buffer, begin, end)
        return Events(buffer, begin, end - 4) if _have_checksums(buffer, packets) else None

    def _one_by_one(self, buffer: Buffer, packets: np.ndarray) -> Events:
        view = memoryview(buffer.data)
        events: list[bytes] = []
        for at, after in pairwise(packets.tolist()):
            length = after - at - _HEAD
            if length == _LONGEST or self._long:
                self._long.append(buffer.data[at + _HEAD : after])
                if len(self._long) > _MOST_PACKETS:
                    raise DecodeError("The server sent a binlog event that is larger than an event can be.")
                if length < _LONGEST:
                    packet = b"".join(self._long)
                    self._long = []
                    self._take(memoryview(packet), events)
            else:
                self._take(view[at + _HEAD : after], events)
        return Events.of(events)

    def _take(self, packet: memoryview, events: list[bytes]) -> None:
        if not packet or packet[0] != _OK:
            _raise_end(bytes(packet))
        if len(packet) < 1 + HEADER + 4 * self._has_checksum:
            raise DecodeError("The server sent a binlog event that is shorter than its header.")
        kind, is_checked = packet[5], self._has_checksum
        if kind == Event.FORMAT_DESCRIPTION:
            # It has a checksum itself even if it says that what follows has none: that must not be a flipped bit.
            self._has_checksum = _is_checksummed(packet[1:])
            is_checked = is_checked or self._has_checksum
        if is_checked and zlib.crc32(packet[1:-4]) != int.from_bytes(packet[-4:], "little"):
            raise DecodeError(
                f"A binlog event that ends at {int.from_bytes(packet[14:18], 'little')} has another checksum.",
                hint="It was damaged on the server's disk or on the way: try mysqlbinlog --verify-binlog-checksum.",
            )
        event = bytes(packet[1:-4] if self._has_checksum else packet[1:])
        if kind == Event.TRANSACTION_PAYLOAD:
            events.extend(_payload(event))
        elif kind in COMPRESSED:
            events.append(_uncompressed(event))
        else:
            events.append(event)


def _length(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "little")


def _packets(data: bytes, size: int) -> np.ndarray:
    """int64[n+1]: where each whole packet in so many bytes begins, and where the last one ends."""
    found: list[int] = []
    begin, unpack, at, last = found.append, struct.Struct("<I").unpack_from, 0, size - _HEAD
    while at <= last:
        begin(at)
        at += _HEAD + (unpack(data, at)[0] & _LONGEST)
    if at <= size:
        begin(at)
    return np.array(found, dtype=np.int64)


def _have_checksums(buffer: Buffer, packets: np.ndarray) -> bool:
    """Whether the events of packets all end in their CRC32, which one look at all of them tells.

    Whatever ends in its own CRC32 leaves one and the same number, and _GLUE, in place of the bytes before an event,
    makes that what a CRC32 begins with. Bursts of up to 32 bits are found for certain, as in a single event.
    """
    glued = buffer.bytes[: packets[-1]].copy()
    for offset, byte in enumerate(_GLUE):
        glued[packets[:-1] + offset] = byte
    return zlib.crc32(glued.data, _RESIDUE) == _RESIDUE


def event_mark(event: bytes) -> int:
    """A number that tells an event at the begin of a log file from what stands there in another of that name.

    Of a format description only when it was written and by which server version: the server sets other fields to what
    the reader at hand should do.
    """
    if event[4] == Event.FORMAT_DESCRIPTION:
        return zlib.crc32(event[:4] + event[HEADER : HEADER + 52])
    return zlib.crc32(event)


def _raise_end(packet: bytes) -> None:
    if packet and packet[0] == _ERROR:
        code = int.from_bytes(packet[1:3], "little")
        text = packet[3:].removeprefix(b"#")
        raise ServerSaid(code, (text[5:] if packet[3:4] == b"#" else text).decode(errors="replace"))
    if packet and packet[0] == _EOF:
        raise ServerSaid(0, "the server ended the stream")
    raise DecodeError("The server sent a packet that is not a binlog event.")


def _is_checksummed(event: memoryview) -> bool:
    """A format description of 5.6.1 and later ends in the algorithm and its own checksum, whatever the algorithm."""
    return event[-5] == _CRC32


def _payload(event: bytes) -> Iterator[bytes]:
    """The events of a transaction that MySQL compressed as a whole (B-21).

    Fields of type, length and value, all packed integers, up to a type 0; then the payload.
    """
    reader = Reader(event, HEADER, f"A compressed transaction that ends at {int.from_bytes(event[13:17], 'little')}")
    kind, size = _UNCOMPRESSED, 0
    while (field := reader.packed()) != 0:
        value = reader.take(reader.packed())
        if field == 2:
            kind = Reader(value, 0, "A compressed transaction").packed()
        elif field == 3:
            size = Reader(value, 0, "A compressed transaction").packed()
    content = reader.rest()
    if kind == _ZSTD:
        content = _unzipped(content, size)
    elif kind != _UNCOMPRESSED:
        raise DecodeError(f"A transaction is compressed by an unknown method, number {kind}.")
    at = 0
    while at + HEADER <= len(content):
        length = int.from_bytes(content[at + 9 : at + 13], "little")
        if length < HEADER or at + length > len(content):
            break
        # The place in the log is that of the whole.
        yield content[at : at + 13] + event[13:17] + content[at + 17 : at + length]
        at += length
    if at != len(content):
        raise DecodeError("A compressed transaction ends inside an event.")


def _unzipped(content: bytes, size: int) -> bytes:
    """What was compressed, if it is of the announced size: never more is made of it than that."""
    if size > _MOST:
        raise DecodeError(f"A compressed transaction claims to hold {size} bytes.")
    try:
        with zstandard.ZstdDecompressor().stream_reader(content) as reader:
            found = reader.read(size + 1)
    except zstandard.ZstdError as error:
        raise DecodeError(f"A compressed transaction cannot be read: {error}.") from error
    if len(found) != size:
        raise DecodeError(f"A compressed transaction does not hold the {size} bytes that it announces.")
    return found


def _uncompressed(event: bytes) -> bytes:
    """A compressed event of MariaDB as the plain one (binlog_buf_uncompress in sql/log_event.cc).

    Behind what stays plain: a byte with the algorithm (high bits, 0 is zlib) and the width of the length, the length
    big-endian, and the content.
    """
    kind = Event(event[4])
    what = f"A {kind.name} event that ends at {int.from_bytes(event[13:17], 'little')}"
    reader = Reader(event, HEADER, what)
    if kind is Event.QUERY_COMPRESSED:
        reader.take(8)  # thread, duration
        name_length = reader.number(1)
        reader.take(2)  # error code
        reader.take(reader.number(2) + name_length + 1)
    else:
        reader.take(8)  # table id, flags
        if kind in (Event.WRITE_ROWS_COMPRESSED, Event.UPDATE_ROWS_COMPRESSED, Event.DELETE_ROWS_COMPRESSED):
            reader.take(reader.number(2) - 2)  # the length counts itself
        columns = reader.packed()
        maps = 2 if kind in (Event.UPDATE_ROWS_COMPRESSED, Event.UPDATE_ROWS_COMPRESSED_V1) else 1
        reader.take(maps * ((columns + 7) // 8))
    plain = event[5 : reader.at]
    head = reader.number(1)
    width = head & 0x07
    if head & 0x70 != 0 or not 1 <= width <= 4:
        raise DecodeError(f"{what} is compressed by an unknown method.")
    size = int.from_bytes(reader.take(width), "big")
    if size > _MOST:
        raise DecodeError(f"{what} claims to hold {size} bytes.")
    try:
        content = zlib.decompressobj().decompress(reader.rest(), size + 1)  # 0 would be no limit
    except zlib.error as error:
        raise DecodeError(f"{what} cannot be uncompressed: {error}.") from error
    if len(content) != size:
        raise DecodeError(f"{what} does not hold the {size} bytes that it announces.")
    return event[:4] + bytes([COMPRESSED[kind]]) + plain + content
