"""Reading records from a journal's files, in order, as far as they are durable."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cdc.errors import JournalDamaged
from cdc.journal.folder import Durable, Folder
from cdc.journal.record import Context, Header, decode, is_whole, read_header
from cdc.model.segment import Segment


@dataclass(frozen=True, slots=True)
class Found:
    """A record in a file.

    Attributes:
        header: what it says of itself.
        begin, body, end: where it begins, where the header ends, and where it ends.
    """

    header: Header
    begin: int
    body: int
    end: int


def missing(path: Path) -> JournalDamaged:
    return JournalDamaged(f"{path} is missing.", hint="Restore it from a backup, or build the journal again.")


class DataFile:
    """One file of records, open for reading up to some byte.

    Args:
        size: how much of it may be read; the rest is not known to be durable.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.context = Context()
        self._map: mmap.mmap | None = None
        self._view = memoryview(b"")
        self.extend(size)

    def extend(self, size: int) -> None:
        """See more of it. What was read before stays valid, since segments refer to it."""
        if size == len(self._view):
            return
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < size:
                    raise self.damaged("is shorter than it was", size)
                self._map = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise missing(self.path) from None
        self._view = memoryview(self._map)

    def damaged(self, what: str, at: int) -> JournalDamaged:
        return JournalDamaged(
            f"{self.path} {what} (byte {at:,}).",
            hint="Restore the file from a backup; without one, only what comes before can be used.",
        )

    def find(self, begin: int) -> Found | None:
        """The record that begins there; None if there is not a whole one, as at the end.

        Raises:
            JournalDamaged: there is something else.
        """
        try:
            found = read_header(self._view[begin:])
        except JournalDamaged as error:
            raise self.damaged(f"is damaged: {error}", begin) from None
        if found is None:
            return None
        header, length = found
        end = begin + length + header.length
        return Found(header, begin, begin + length, end) if end <= len(self._view) else None

    def is_whole(self, found: Found) -> bool:
        """Whether the bytes of a record are what was written."""
        return is_whole(found.header, self._view[found.body : found.end])

    def segment(self, found: Found) -> Segment:
        """A record's segment; the context has taken its header.

        Raises:
            JournalDamaged: the bytes are not what was written.
        """
        if not self.is_whole(found):
            raise self.damaged("is damaged: a record is not what was written", found.begin)
        try:
            return decode(found.header, self._view[found.begin : found.end], self.context)
        except JournalDamaged as error:
            raise self.damaged(f"cannot be read: {error}", found.begin) from None


class Reader:
    """Gives the records of a journal from one on.

    Args:
        number: of the first record to give.
    """

    def __init__(self, folder: Folder, number: int) -> None:
        self._folder = folder
        self.next = number
        self._file: DataFile | None = None
        self._first = 0  # record of the file
        self._at = 0
        self._durable: Durable | None = None

    def read(self) -> tuple[Header, Segment] | None:
        """The next record, if it is durable already."""
        found = self._advance()
        if found is None or self._file is None:
            return None
        segment = self._file.segment(found)
        self._at, self.next = found.end, self.next + 1
        return found.header, segment

    def peek(self) -> Header | None:
        """The header of the next record, if it is durable already."""
        found = self._advance()
        return found.header if found is not None else None

    def state(self) -> str:
        """The source's state at the last checkpoint up to the next record, with it.

        Raises:
            JournalDamaged: there is no such record any more.
        """
        found = self._advance()
        if found is None or self._file is None or self._file.context.state is None:
            raise JournalDamaged(f"The journal in {self._folder.path} does not have record {self.next}.")
        return self._file.context.state

    def skip(self) -> None:
        """Pass over the record that was peeked at."""
        found = self._advance()
        if found is not None:
            self._at, self.next = found.end, self.next + 1

    def _advance(self) -> Found | None:
        """The next record, with its file open and its header taken."""
        if not self._is_durable():
            return None
        if self._file is None:
            self._open()
        while True:
            assert self._file is not None
            found = self._file.find(self._at)
            if found is None:
                self._open_next()
                continue
            self._file.context.take(found.header)
            if found.header.number == self.next:
                return found
            if found.header.number > self.next:
                raise self._file.damaged(f"has no record {self.next}", found.begin)
            self._at = found.end

    def _is_durable(self) -> bool:
        if self._durable is None or self.next >= self._durable.next:
            durable = self._folder.read_durable()
            if durable is None or self.next >= durable.next:
                return False
            self._durable = durable
            if self._file is not None:
                self._file.extend(self._size())
        return True

    def _size(self) -> int:
        """Bytes of the file at hand that may be read."""
        assert self._durable is not None
        if self._first == self._durable.file:
            return self._durable.end
        return _size(self._folder.file(self._first))

    def _open(self) -> None:
        numbers = [first for first in self._folder.files() if first <= self.next]
        if not numbers:
            raise JournalDamaged(f"The file in {self._folder.path} that held record {self.next} is missing.")
        self._first, self._at = numbers[-1], 0
        self._file = DataFile(self._folder.file(self._first), self._size())

    def _open_next(self) -> None:
        """The file that the record to come is the first of."""
        assert self._file is not None
        if self._first == self.next or (self._durable is not None and self._first >= self._durable.file):
            raise self._file.damaged(f"ends before record {self.next}", self._at)
        self._first, self._at = self.next, 0
        self._file = DataFile(self._folder.file(self._first), self._size())


def whole_records(file: DataFile) -> Iterator[Found]:
    """The records of a file up to the first one that is not what was written: cut off by a crash, or damaged."""
    at = 0
    while True:
        try:
            found = file.find(at)
        except JournalDamaged:
            return
        if found is None or not file.is_whole(found):
            return
        yield found
        at = found.end


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise missing(path) from None
