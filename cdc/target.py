"""The seam to a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from cdc.model.change import ChangeBatch
from cdc.model.parts import Digest, HashedRow, Key, Part
from cdc.model.position import Checkpoint
from cdc.model.schema import TableSchema
from cdc.model.segment import Segment


class Mode(StrEnum):
    """How a target keeps a table."""

    MIRROR = "mirror"  # as it is now
    HISTORY = "history"  # every version of every row, and as it is now
    SOFT_DELETE = "soft-delete"  # as it is now, and rows that were deleted, marked as such


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


@dataclass(frozen=True, slots=True)
class TargetSettings:
    """What a target is told about the pipeline that writes to it; each takes what concerns it.

    Attributes:
        pipeline: its name.
        source: kind of the source as its DSN says: `postgresql`, `mysql`, `mariadb`, `journal`.
        memory: bytes that the target's engine may use.
        mode: how it keeps the tables; None for as it does already, which is a mirror at first.
        retention: for how long a log is kept.
        database: the source's, where its tables do not carry it (PostgreSQL).
        format: how a target writes events that stores no tables (`cdc.formats`).
        rotate: bytes after which a file of events is followed by another one.
    """

    pipeline: str
    source: str
    memory: int
    mode: Mode | None = None
    retention: Retention = KEEP_ALL
    database: str = ""
    format: str = "json"
    rotate: int = 256 << 20


class Target(Protocol):
    """A place that is kept equal to a source. All of it runs on the applier thread."""

    def open(self) -> Checkpoint | None:
        """Take the lease and return the last durable checkpoint, None if this pipeline never wrote here.

        Raises:
            TargetBusy: another process has it.
            UsageError: it is not something that this target can write to.
        """

    def apply(self, segment: Segment) -> None:
        """Apply a segment; return only once it is durable together with its checkpoint.

        A segment without a checkpoint stays invisible until the one that ends its transaction. Whatever lies before
        the target's own checkpoint is ignored, so that a segment, or an overlapping one, can be applied again (D-05).
        """

    def close(self) -> None:
        """Roll back what is not durable and let go of the lease. May be called twice."""


@runtime_checkable
class Replaceable(Target, Protocol):
    """A target into which rows that were read anew can be put, between two transactions.

    All of it sees what was applied, whether that is durable already or not.
    """

    def replace(self, schema: TableSchema, part: Part, batches: Sequence[ChangeBatch]) -> None:
        """Put copied rows in the place of a part's. Becomes durable with the segment at hand, or at once."""

    @property
    def copying(self) -> set[int]:
        """The tables, by identity, that are copied part by part while the log is followed.

        Until `copied`, a change of such a table applies to what rows there are.
        """

    def copy_parts(self, schema: TableSchema) -> None:
        """Begin to copy a table so: its rows stay until their parts are replaced."""

    def copied(self, schema: TableSchema) -> None:
        """All parts of a table have been replaced."""

    def take_missed(self, schema: TableSchema) -> list[Key]:
        """The keys of rows whose changes did not carry enough to apply them while their table was copied."""


@runtime_checkable
class Comparable(Replaceable, Protocol):
    """A target whose tables can be compared with the source's, and set right, between two transactions."""

    def digest(self, schema: TableSchema, part: Part) -> Digest:
        """What the rows of a part are.

        Raises:
            TargetDrift: the table is not as this pipeline made it.
        """

    def rows(self, schema: TableSchema, part: Part, buckets: Sequence[int]) -> list[HashedRow]:
        """Those rows of a part that lie in some buckets of its digest."""

    def values(self, schema: TableSchema, keys: Sequence[Key]) -> dict[Key, dict[str, str | None]]:
        """The rows that have these keys, every value as the source's text."""
