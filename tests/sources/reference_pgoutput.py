"""An independent decoder of pgoutput: one message after the other, one value after the other, no arrays."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field


@dataclass
class Reader:
    data: bytes
    at: int = 0

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        assert len(piece) == count
        self.at += count
        return piece

    def number(self, layout: str) -> int:
        return struct.unpack(">" + layout, self.take(struct.calcsize(layout)))[0]

    def text(self) -> str:
        end = self.data.index(b"\0", self.at)
        piece = self.data[self.at : end]
        self.at = end + 1
        return piece.decode()

    def row(self) -> list[object]:
        values: list[object] = []
        for _ in range(self.number("H")):
            kind = self.take(1)
            values.append({b"n": None, b"u": ...}[kind] if kind in b"nu" else self.take(self.number("I")).decode())
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

    def message(self, body: bytes) -> None:
        reader = Reader(body)
        kind = reader.take(1)
        if kind == b"B":
            self.commit, _, self.xid = reader.number("Q"), reader.number("q"), reader.number("I")
            self.ordinal = 0
        elif kind == b"C":
            reader.take(9)
            self.ends.append(reader.number("Q"))
        elif kind == b"R":
            oid = reader.number("I")
            reader.text()
            reader.text()
            identity = reader.take(1).decode()
            names = []
            for _ in range(reader.number("H")):
                reader.take(1)
                names.append(reader.text())
                reader.take(8)
            self.relations[oid] = (identity, tuple(names))
        elif kind in b"IUD":
            oid = reader.number("I")
            old = new = None
            tag = reader.take(1)
            if tag in b"KO":
                old = reader.row()
                tag = reader.take(1) if kind == b"U" else b""
            if tag == b"N":
                new = reader.row()
            identity, names = self.relations[oid]
            if identity == "f" and old and new:
                new = [was if value is ... else value for was, value in zip(old, new, strict=True)]
            self.events.append(Event(kind.decode(), oid, names, old, new, self.xid, self.commit, self.ordinal))
            self.ordinal += 1
        elif kind == b"T":
            count = reader.number("I")
            reader.take(1)
            for _ in range(count):
                oid = reader.number("I")
                names = self.relations[oid][1]
                self.events.append(Event("T", oid, names, None, None, self.xid, self.commit, self.ordinal))
                self.ordinal += 1
