"""Reading one event field by field, never beyond its end. For what comes once in a while: rows are read in lockstep."""

from __future__ import annotations

from cdc.errors import DecodeError

_WIDTHS = {0xFC: 2, 0xFD: 3, 0xFE: 8}  # of a packed integer, by its first byte


class Reader:
    """Bytes, and how far they have been read.

    Args:
        at: where to begin.
        what: how to speak of them: `A table map event`.
    """

    def __init__(self, data: bytes, at: int, what: str) -> None:
        self._data = data
        self._what = what
        self.at = at

    @property
    def has_more(self) -> bool:
        return self.at < len(self._data)

    def take(self, size: int) -> bytes:
        """The next bytes; raises DecodeError if there are not as many, as all methods do."""
        end = self.at + size
        if size < 0 or end > len(self._data):
            raise DecodeError(f"{self._what} is damaged: it ends inside a field.")
        found = self._data[self.at : end]
        self.at = end
        return found

    def number(self, size: int) -> int:
        """A little-endian unsigned integer of so many bytes."""
        return int.from_bytes(self.take(size), "little")

    def packed(self) -> int:
        """An integer of one byte, or of more behind a mark that says how many."""
        first = self.number(1)
        if first < 0xFB:
            return first
        if first not in _WIDTHS:
            raise DecodeError(f"{self._what} is damaged: one of its lengths is not valid.")
        return self.number(_WIDTHS[first])

    def text(self, size: int) -> str:
        """UTF-8."""
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise DecodeError(f"{self._what} is damaged: it has a name that is not text.") from None

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self.at)
