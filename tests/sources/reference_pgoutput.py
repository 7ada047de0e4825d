"""An independent decoder of pgoutput: one message after the other, one value after the other, no arrays."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field


class Malformed(Exception):
    """The messages are not what a server sends."""


def holds(condition: bool) -> None:
    if not condition:
        raise Malformed


@dataclass
class Reader:
    data: bytes
    at: int = 0

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        holds(len(piece) == count)
        self.at += count
        return piece

    def number(self, layout: str) -> int:
        return struct.unpack(">" + layout, self.take(struct.calcsize(layout)))[0]

    def text(self) -> str:
        end = self.data.find(b"\0", self.at)
        holds(end >= 0)
        piece = self.data[self.at : end]
        self.at = end + 1
        try:
            return piece.decode()
        except UnicodeDecodeError:
            raise Malformed from None

    def row(self, width: int) -> list[object]:
        """Values as bytes: the server has made sure that they are UTF-8."""
        holds(self.number("H") == width)
        values: list[object] = []
        for _ in range(width):
            kind = self.take(1)
            holds(kind in (b"n", b"u", b"t"))
            values.append({b"n": None, b"u": ...}[kind] if kind in b"nu" else self.take(self.number("I")))
        return values


@dataclass
class Event:
    op: str
    oid: int
    columns: tuple[str, ...]
    old: list[object] | None
    new: list[object] | None
    xid: int
    commit: int
    ordinal: int


@dataclass
class Reference:
    relations: dict[int, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    xid: int = 0
    commit: int = 0
    ordinal: int = 0
    inside: bool = False

    def message(self, message: bytes) -> None:
        """Take a message with its header; raises Malformed."""
        holds(len(message) >= 26)
        reader = Reader(message, 25)
        kind = reader.take(1)
        if kind == b"B":
            holds(not self.inside)
            self.commit, _, self.xid = reader.number("q"), reader.number("q"), reader.number("I")
            self.ordinal, self.inside = 0, True
        elif kind == b"C":
            holds(self.inside)
            reader.take(9)
            self.ends.append(reader.number("Q"))
            reader.take(8)
            self.inside = False
        elif kind == b"R":
            self.relation(reader)
        elif kind in (b"I", b"U", b"D"):
            self.change(kind, reader)
        elif kind == b"T":
            holds(self.inside)
            count = reader.number("I")
            reader.take(1)
            for _ in range(count):
                oid = reader.number("I")
                holds(oid in self.relations)
                names = self.relations[oid][1]
                self.events.append(Event("T", oid, names, None, None, self.xid, self.commit, self.ordinal))
                self.ordinal += 1
        else:
            holds(kind in (b"O", b"Y", b"M", b"A"))
            return
        holds(reader.at == len(message))

    def relation(self, reader: Reader) -> None:
        oid = reader.number("I")
        reader.text()
        reader.text()
        identity = reader.take(1)
        holds(identity in (b"d", b"n", b"f", b"i"))
        names = []
        for _ in range(reader.number("H")):
            reader.take(1)
            names.append(reader.text())
            reader.take(8)
        self.relations[oid] = (identity.decode(), tuple(names))

    def change(self, kind: bytes, reader: Reader) -> None:
        holds(self.inside)
        oid = reader.number("I")
        holds(oid in self.relations)
        identity, names = self.relations[oid]
        old = new = None
        tag = reader.take(1)
        if tag in (b"K", b"O"):
            holds(kind != b"I" and tag == (b"O" if identity == "f" else b"K"))
            old = reader.row(len(names))
            tag = reader.take(1) if kind == b"U" else b""
        holds(tag == (b"" if kind == b"D" else b"N"))
        if tag:
            new = reader.row(len(names))
        if old and new:
            new = [was if value is ... and was is not None else value for was, value in zip(old, new, strict=True)]
        holds(not new or new[0] is not ...)  # the first column is the key
        self.events.append(Event(kind.decode(), oid, names, old, new, self.xid, self.commit, self.ordinal))
        self.ordinal += 1
