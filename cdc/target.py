"""The seam to a target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from cdc.errors import UsageError
from cdc.model.schema import TableName, TableSchema

if TYPE_CHECKING:  # commands declare options with what is below: they need no arrays for that
    from cdc.model.change import ChangeBatch
    from cdc.model.parts import Digest, HashedRow, Key, Part
    from cdc.model.position import Checkpoint
    from cdc.model.segment import Segment
    from cdc.model.standing import Suspicion


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
class TargetAbilities:
    """What a kind of target can do, as data: by which a pipeline decides, which `cdc targets` and the documentation
    print, and to which `cdc.testing.conformance` holds each target.

    Attributes:
        product: what it is called.
        keeps: what is there, in a few words: `tables`.
        modes: how it can keep tables; none if it keeps none.
        keyless: the modes in which a table may have no key.
        is_atomic: a transaction of the source becomes visible as a whole, in all tables at once, with the checkpoint.
        is_durable: what it holds outlives the process, and another process finds it there.
        compares: its tables can be compared with the source's and set right (`Comparable`).
        notices_drift: a change of a row that is not there is refused.
        sees_case: names that differ in case alone are different ones.
        tells_notes: it keeps what applications said of their transactions.
        options: those of `cdc run` that it has, beside the ones that every target has.
        needs: what has to be installed beside the package, as a user writes it; empty if nothing has.
    """

    product: str
    keeps: str
    modes: tuple[Mode, ...] = ()
    keyless: tuple[Mode, ...] = ()
    is_atomic: bool = True
    is_durable: bool = True
    compares: bool = False
    notices_drift: bool = True
    sees_case: bool = True
    tells_notes: bool = False
    options: frozenset[str] = frozenset()
    needs: str = ""

    def refuse_mode(self, mode: Mode | None) -> None:
        """Raise UsageError for a mode in which this target keeps no tables."""
        if mode is not None and mode not in self.modes:
            has = " and ".join(f"--mode {each}" for each in self.modes)
            raise UsageError(
                f"{self.product} as a target cannot keep tables as --mode {mode} does.",
                hint=f"It has {has}." if has else "It keeps no tables: leave --mode out.",
            )


class HeldAs(Protocol):
    """How a target holds the values of a column.

    Attributes:
        sql_type: in the target's own words.
        is_text: as the source's texts.
    """

    @property
    def sql_type(self) -> str: ...

    @property
    def is_text(self) -> bool: ...


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
    """What a target knows of the pipeline that writes to it; each takes what concerns it.

    Attributes:
        pipeline: its name.
        source: kind of the source as its DSN says: `postgresql`, `mysql`, `mariadb`, `journal`.
        memory: bytes that the target's engine may use.
        mode: how it keeps the tables; None for as it does already, which is a mirror at first.
        keys: how its tables have their keys; None for as they do already, which is by an index at first.
        retention: for how long a log is kept.
        database: the source's, where its tables do not carry it (PostgreSQL).
        format: how a target writes events that stores no tables (`cdc.formats`); None for as it does already, which is
            `json` at first.
        rotate: bytes after which a file of events is followed by another one.
    """

    pipeline: str
    source: str
    memory: int
    mode: Mode | None = None
    keys: Keys | None = None
    retention: Retention = KEEP_ALL
    database: str = ""
    format: str | None = None
    rotate: int = 256 << 20


# What a kind of target says of tables that come while others are there: those that it cannot take, and why.
SetApart = Callable[[Iterable[TableSchema], Iterable[TableName]], Mapping[TableName, str]]


def takes_all(coming: Iterable[TableSchema], taken: Iterable[TableName]) -> Mapping[TableName, str]:
    """A target to which all names are different ones."""
    return {}


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
class Placed(Target, Protocol):
    """A target that has a name in a file system."""

    def verify_place(self) -> None:
        """Make sure that the name leads to what is written; may be called from any thread.

        Asked before the source may let go of what was applied.

        Raises:
            TargetGone: it was removed, or replaced by something else.
        """


@runtime_checkable
class InOneFile(Target, Protocol):
    """A target of which a copy can be made between two transactions, from which it could go on."""

    def back_up(self, to: Path, alive: Callable[[], None]) -> None:
        """Make a copy that is durable, with the checkpoint.

        Args:
            to: a file, which is replaced in one step.
            alive: called again and again while that takes.

        Raises:
            UsageError: no copy can go there.
        """


@runtime_checkable
class Settling(Target, Protocol):
    """A target that is one file, of which other processes read a copy."""

    def settle(self) -> None:
        """Between two transactions: put everything into the file, so that a copy of it is whole until more is applied.

        Raises:
            Unavailable: not just now.
        """


@dataclass(frozen=True, slots=True)
class QueryWishes:
    """A question in SQL.

    Attributes:
        limit: rows to deliver at most.
        seconds: that it may take.
    """

    sql: str
    limit: int
    seconds: float


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """What a question was answered.

    Attributes:
        rows: an Arrow table; two columns may have the same name.
        types: of the columns, as the database names them.
        is_cut: there are more rows.
    """

    rows: Any
    types: list[str]
    is_cut: bool


@runtime_checkable
class Questioned(Target, Protocol):
    """A target that nobody else can read while it is open, and that answers questions itself, between two transactions.

    What is asked cannot write, and takes memory while nothing is applied: if that is too little, the question fails.
    """

    def query(self, wishes: QueryWishes) -> QueryAnswer:
        """Answer a question.

        Raises:
            UsageError: it does not only read, it failed, or it took too long.
        """

    def histories(self, seconds: float) -> AbstractContextManager[Any]:
        """What answers questions about the past, for so long; raises UsageError if no table is kept so."""


class Copying(Protocol):
    """One copy of a file, made by a process of its own, which has everything ready.

    Attributes:
        written: bytes that were written for it.
        size: bytes that it has.
        pause: seconds for which the file was not to change.
    """

    written: int
    size: int
    pause: float

    def take(self, alive: Callable[[], None]) -> None:
        """Copy what there is, while nothing is applied.

        Args:
            alive: called again and again while that takes.
        """

    def keep(self) -> None:
        """Wait until the copy is durable and has its name, which it gets in one step."""


class Publication(Protocol):
    """A copy of a target's file that other processes read, renewed now and then.

    Attributes:
        file: the copy.
        has_news: the target's file has changed since the last copy, or there is none.
        is_replaced: there is a copy, and this has not made it.
    """

    file: Path

    @property
    def is_replaced(self) -> bool: ...

    @property
    def has_news(self) -> bool: ...

    def refuse_place(self) -> None:
        """Raise UsageError where no copy can go; nothing is changed."""

    def begin(self) -> AbstractContextManager[Copying]:
        """Get a copy ready while the target goes on; without `Copying.keep`, nothing comes of it."""

    def note(self) -> None:
        """The file is as it was copied."""

    def note_kept(self) -> None:
        """The copy has its name."""

    def at_rest(self) -> AbstractContextManager[None]:
        """The target's file, which no pipeline has open, settled and kept from others meanwhile."""


@runtime_checkable
class Tidied(Target, Protocol):
    """A target that has to be tidied up now and then."""

    def tidy(self) -> bool:
        """Do a piece of it, between two transactions; whether there is more to do at once. What fails of it may be
        left until the next time."""


@runtime_checkable
class Choosy(Target, Protocol):
    """A target that cannot hold every table."""

    def refuse(self, schemas: Sequence[TableSchema]) -> None:
        """Raise UsageError for tables of a first start that it could not hold, before anything is made for them."""


@runtime_checkable
class Replaceable(Target, Protocol):
    """A target into which rows that were read again can be put, between two transactions.

    All of it sees what was applied, whether that is durable already or not.
    """

    def replace(self, schema: TableSchema, part: Part, batches: Sequence[ChangeBatch]) -> None:
        """Put copied rows in the place of a part's. Becomes durable with the segment at hand, or at once.

        Raises:
            HalfWritten: it failed inside a transaction. Whatever else it raises, the part's rows are as they were.
        """

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


@dataclass(frozen=True, slots=True)
class HeldColumn:
    """A column of a table as it is in a target.

    Attributes:
        type: in the target's own words.
        fits: it is one that the target holds the values of the source's column in. One that the pipeline did not make
            never is.
    """

    name: str
    type: str
    fits: bool


@runtime_checkable
class Comparable(Replaceable, Protocol):
    """A target whose tables can be compared with the source's, and set right, between two transactions."""

    def columns(self, schema: TableSchema) -> list[HeldColumn]:
        """The columns that are there for a table's; none if there is no such table.

        Raises:
            TableChanged: the target has brought the table to another shape than that.
        """

    @property
    def suspects(self) -> Mapping[int, Suspicion]:
        """The tables, by identity, whose rows may not be the source's (`Suspect`).

        Until `cleared`, a change of such a table applies to what rows there are, as while it is copied by parts.
        """

    def suspect(self, identity: int, reason: str) -> None:
        """Mark a table as suspect. Becomes durable with the segment at hand, or at once."""

    def cleared(self, identity: int, number: int) -> None:
        """A table has been compared and set right; it stays suspect if it was marked again since mark `number`."""

    def digest(self, schema: TableSchema, part: Part) -> Digest:
        """What the rows of a part are.

        Raises:
            TargetDrift: the table is not as this pipeline made it.
        """

    def rows(self, schema: TableSchema, part: Part, buckets: Sequence[int]) -> list[HashedRow]:
        """Those rows of a part that lie in some buckets of its digest."""

    def values(self, schema: TableSchema, keys: Sequence[Key]) -> dict[Key, dict[str, str | None]]:
        """The rows that have these keys, every value as the source's text."""

    def keys(self, schema: TableSchema, part: Part) -> set[Key]:
        """The keys of a part's rows; of a table without a key one that is empty, if there are any rows.

        Raises:
            UsageError: the part's condition cannot be decided.
        """
