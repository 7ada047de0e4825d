"""Where in a source's log something is."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, order=True, slots=True)
class Position:
    """A place in one source's log.

    Attributes:
        order: a number that grows along the log; two positions of one source compare by it alone.
        text: the same place as the source itself writes it, for people and for state: `0/16B3748`.
    """

    order: int
    text: str = field(compare=False)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a target holds: everything of the source up to `position`.

    Attributes:
        position: the end of the last transaction that was applied.
        state: what the source needs to go on from there (its identity, copy progress, table schemas), one JSON text
            with a version number that only the source reads.
    """

    position: Position
    state: str
