"""How a target keeps what it is given: options that commands declare before any target is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """How a target keeps a table."""

    MIRROR = "mirror"  # as it is now
    HISTORY = "history"  # every version of every row, and as it is now
    SOFT_DELETE = "soft-delete"  # as it is now, and rows that were deleted, marked as such


class Keys(StrEnum):
    """How a target's tables have the keys of the source's."""

    INDEX = "index"  # which finds rows
    PRIMARY = "primary"  # as primary keys, which also keep others from writing rows twice


@dataclass(frozen=True, slots=True)
class Retention:
    """What a target that is a log by itself (a journal) keeps; None for no bound.

    Attributes:
        age: seconds after which what is applied everywhere may go.
        size: bytes beyond which it may go.
        budget: bytes beyond which nothing is written.
    """

    age: float | None = None
    size: int | None = None
    budget: int | None = None


KEEP_ALL = Retention()
