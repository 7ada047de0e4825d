"""Places in the binlog: a file and a byte in it, as one number that grows along the whole log."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cdc.model.position import Position

_WORD = 1 << 32  # events know the lower 32 bits of their place


@dataclass(frozen=True, slots=True)
class LogPlace:
    """A byte of a log file.

    Attributes:
        file: its name.
        base: the order of the file's first byte: what all files before it hold, since the pipeline began.
        offset: the byte.
    """

    file: str
    base: int
    offset: int = 4

    @property
    def order(self) -> int:
        return self.base + self.offset

    def at(self, offset: int) -> LogPlace:
        """Another byte of the same file."""
        return replace(self, offset=offset)

    def near(self, low: int) -> LogPlace:
        """The byte near this one whose lower 32 bits these are: a huge transaction makes files of more than 4 GB."""
        full = self.offset & -_WORD | low
        if full < self.offset - _WORD // 2:
            full += _WORD
        elif full > self.offset + _WORD // 2 and full >= _WORD:
            full -= _WORD
        return LogPlace(self.file, self.base, full)

    def following(self, file: str, offset: int) -> LogPlace:
        """A place in the file after this one, which ends here."""
        return LogPlace(file, self.base + self.offset, offset)

    def position(self, text: str | None = None) -> Position:
        """As a position; its text is `file:offset` unless the server has GTIDs."""
        return Position(self.order, text or f"{self.file}:{self.offset}")
