"""Binlog events as slices of one piece of memory, so that there is no object for each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from cdc.sources.lockstep import Buffer
from cdc.sources.mysql.events import HEADER


@dataclass(frozen=True, slots=True)
class Events(Sequence[bytes]):
    """Plain events, each with its header. One by one they are `bytes`, which costs as much as in a list of them.

    Attributes:
        buffer: what they lie in, with other bytes between them.
        begin, end: int64[n], where each of them lies.
    """

    buffer: Buffer
    begin: np.ndarray
    end: np.ndarray

    @classmethod
    def of(cls, events: Sequence[bytes]) -> Events:
        """Events that are objects, one behind the other."""
        if isinstance(events, Events):
            return events
        end = np.cumsum(np.fromiter(map(len, events), dtype=np.int64, count=len(events)))
        return cls(Buffer(events), np.concatenate([np.zeros(1, dtype=np.int64), end])[:-1], end)

    @classmethod
    def joined(cls, parts: Sequence[Events]) -> Events:
        """Several runs of events as one; nothing is copied if only one of them has any."""
        parts = [part for part in parts if len(part)]
        if len(parts) <= 1:
            return parts[0] if parts else cls.of([])
        spans = [(int(part.begin.min()), int(part.end.max())) for part in parts]
        by = np.cumsum([0, *(end - begin for begin, end in spans)])[:-1] - [begin for begin, _ in spans]
        return cls(
            Buffer([memoryview(part.buffer.data)[begin:end] for part, (begin, end) in zip(parts, spans, strict=True)]),
            np.concatenate([part.begin + moved for part, moved in zip(parts, by.tolist(), strict=True)]),
            np.concatenate([part.end + moved for part, moved in zip(parts, by.tolist(), strict=True)]),
        )

    @property
    def kind(self) -> np.ndarray:
        """uint8[n]: their types."""
        kind: np.ndarray = self.buffer.bytes[self.begin + 4]
        return kind

    @property
    def length(self) -> np.ndarray:
        """int64[n]: how many bytes each has."""
        length: np.ndarray = self.end - self.begin
        return length

    def chosen(self, which: np.ndarray) -> Events:
        """Some of them, by a mask (bool[n]) or by their indexes (int64[m])."""
        return Events(self.buffer, self.begin[which], self.end[which])

    def numbers(self, at: np.ndarray) -> np.ndarray:
        """int64[n]: the table numbers of table maps and row events, by their indexes."""
        body = self.begin[at] + HEADER
        low: np.ndarray = self.buffer.at("<u4")[body].astype(np.int64)
        low |= self.buffer.at("<u2")[body + 4].astype(np.int64) << 32
        return low

    def all_end_in(self, at: np.ndarray, offset: int, content: bytes) -> bool:
        """Whether some events (int64[n], their indexes) all have the same bytes from an offset on."""
        if (self.length[at] != offset + len(content)).any():
            return False
        if not content:
            return True
        found = self.buffer.at(f"V{len(content)}")[self.begin[at] + offset]
        return bool(found.tobytes() == content * len(at))

    def __len__(self) -> int:
        return len(self.begin)

    def __iter__(self) -> Iterator[bytes]:
        data = self.buffer.data
        for begin, end in zip(self.begin.tolist(), self.end.tolist(), strict=True):
            yield data[begin:end]

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Events: ...
    def __getitem__(self, index: int | slice) -> bytes | Events:
        if isinstance(index, slice):
            return Events(self.buffer, self.begin[index], self.end[index])
        return self.buffer.data[self.begin[index] : self.end[index]]


def grouped(numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each of some numbers (int64[n]) with the places where it stands (int64[m]), in order."""
    order = np.argsort(numbers, kind="stable")
    found, first = np.unique(numbers[order], return_index=True)
    yield from zip(found.tolist(), np.split(order, first[1:]), strict=True) if len(found) else ()
