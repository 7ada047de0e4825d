"""The seam to a source database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from cdc.model.position import Checkpoint, Position
from cdc.model.segment import Segment


class Link(Protocol):
    """What a source may know of the stages after it. It reads; nobody tells it (DESIGN: durability is pulled)."""

    @property
    def durable(self) -> Position | None:
        """Everything up to here is durable in the target; the only thing that feedback may ever carry (A-05)."""

    @property
    def paused(self) -> bool:
        """The hand-off is full: stop reading, keep talking (A-19)."""

    @property
    def idle(self) -> bool:
        """The applier has nothing to do, so that even a small segment should go at once."""

    @property
    def stopping(self) -> bool:
        """Somebody asked for an end; `stream` returns at the next commit boundary."""


class Source(Protocol):
    """A database whose log is followed. All of it runs on the reader thread."""

    def open(self, resume: Checkpoint | None) -> None:
        """Claim the slot and prove that it, the server and the checkpoint belong together.

        Raises:
            OperatorNeeded: they do not; nothing has been changed.
            Unavailable: not just now.
        """

    def copy(self, link: Link) -> Iterator[Segment]:
        """Give the rows that were there before the log is followed, of every table that has not been copied yet."""

    def stream(self, link: Link) -> Iterator[Segment]:
        """Give committed transactions from the checkpoint on, for ever, or until `link.stopping`."""

    def close(self) -> None:
        """Let go of everything that was opened. May be called twice."""
