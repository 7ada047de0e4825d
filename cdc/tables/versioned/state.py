"""What a pipeline keeps beside versioned tables: records by name, all of which are read once."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import orjson

from cdc import faults
from cdc.errors import CheckpointUnreadable, UsageError
from cdc.model.position import Checkpoint, Position
from cdc.model.records import read_record
from cdc.model.schema import TableName, TableSchema
from cdc.model.standing import Standing, Suspicion
from cdc.tables.owned import OwnedTables
from cdc.tables.versioned.store import Store
from cdc.target import Mode

FORMAT = 1


@dataclass(frozen=True, slots=True)
class _Stored:
    """The checkpoint as it is kept."""

    format: int
    order: int
    position: str
    state: str


@dataclass(frozen=True, slots=True)
class _Freshness:
    """What people may ask of the checkpoint (docs/reading.md).

    Attributes:
        committed_at: when its last transaction was committed, in microseconds since the Unix epoch; None before one.
        applied_at: when it was applied, by this machine's clock.
    """

    position: str
    committed_at: int | None
    applied_at: int


@dataclass(frozen=True, slots=True)
class Becoming:
    """The shape that a table was about to get.

    Attributes:
        schema: that shape.
        texts: identities of the columns that hold text.
        fill: see `cdc.model.segment.Evolve`.
    """

    schema: TableSchema
    texts: tuple[int, ...]
    fill: dict[int, str]


@dataclass(frozen=True, slots=True)
class Shape:
    """A table as it is in the database, which may be ahead of the checkpoint: a change of shape is durable at once.

    Attributes:
        schema: its shape.
        texts: identities of the columns that hold text, since a value had no place in their types.
        order, ordinal: the place in the log up to which all of its changes are there.
        passed: shapes that it had since the checkpoint.
        becoming: another one that it was about to get, or has got.
    """

    schema: TableSchema
    texts: tuple[int, ...] = ()
    order: int = -1
    ordinal: int = -1
    passed: tuple[TableSchema, ...] = ()
    becoming: Becoming | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """A gap in the history of a table (see `cdc.tables.gaps`).

    Attributes:
        begins, ends: the places from where to where, without the latter; -1 where it has not ended.
        reason: why, in a sentence.
        is_doubt: if no row turns out to be another one, all that were there to the end have been right.
        is_skipped: changes are skipped from there on, until a copy begins.
    """

    begins: int
    ends: int
    reason: str
    is_doubt: bool
    is_skipped: bool


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of the past of a table.

    Attributes:
        since: the place where its history begins.
        copied_since: where a copy has begun, which has ended where a later transaction comes; -1 for none.
        unknown: its gaps, in order.
    """

    since: int
    copied_since: int = -1
    unknown: tuple[Unknown, ...] = ()


class VersionedState:
    """The records of one open database (see `cdc.tables.state.KeptState`)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._records: dict[str, str] = {}
        self._checkpoint: Checkpoint | None = None
        self._committed_at: int | None = None

    def open(self) -> Checkpoint | None:
        faults.point("target.before_state")
        self._records = self._store.records()
        self._checkpoint = checkpoint_of(self._records)
        if (kept := self._records.get("freshness")) is not None:
            self._committed_at = read_record(_Freshness, orjson.loads(kept)).committed_at
        return self._checkpoint

    @property
    def position(self) -> Position | None:
        return self._checkpoint.position if self._checkpoint is not None else None

    def write(self, checkpoint: Checkpoint, committed_at: int | None) -> None:
        at = checkpoint.position
        if committed_at is not None:
            self._committed_at = committed_at
        freshness = _Freshness(at.text, self._committed_at, time.time_ns() // 1000)
        stored = _Stored(FORMAT, at.order, at.text, checkpoint.state)
        self._put_all({"checkpoint": _text(stored), "freshness": _text(freshness)})
        self._checkpoint = checkpoint

    def take_mode(self, wanted: Mode | None) -> Mode:
        found = mode_of(self._records)
        if not any(_numbers(self._records, "table")):
            found = wanted or Mode.MIRROR
            self._put("mode", found.value)
        if wanted is not None and found is not wanted:
            raise UsageError(
                f"The target keeps its tables as {found}, and cannot go on as {wanted}.",
                hint=f"Leave --mode out (or write {found}), or copy into another place.",
            )
        return found

    def owned(self) -> OwnedTables:
        return OwnedTables(self._owned())

    def names(self) -> dict[TableName, int]:
        """The tables that this pipeline made, by their names: those that are shown, whether they are owned already or a
        crash was before that."""
        made = {shape.schema.table: shape.schema.identity for shape in self.shapes()}
        return made | {table: identity for identity, table in self._owned().items()}

    def _owned(self) -> dict[int, TableName]:
        numbers = _numbers(self._records, "table")
        return {each: read_record(TableName, orjson.loads(self._records[f"table:{each}"])) for each in numbers}

    def own(self, identity: int, table: TableName, *, is_known: bool) -> None:
        self._put(f"table:{identity}", _text(table))

    def shape(self, identity: int) -> Shape | None:
        """The shape of a table; None if it was never made."""
        found = self._records.get(f"shape:{identity}")
        return read_record(Shape, orjson.loads(found)) if found is not None else None

    def shapes(self) -> list[Shape]:
        """The shapes of all tables that were made."""
        found = [self.shape(identity) for identity in _numbers(self._records, "shape")]
        return [shape for shape in found if shape is not None]

    def floor(self, identity: int) -> int | None:
        """The order in the log below which a table refuses rows; None for one that takes all."""
        found = self._records.get(f"floor:{identity}")
        return int(found) if found is not None else None

    def keep_floor(self, identity: int, order: int) -> None:
        """Remember below which order a table refuses rows."""
        self._put(f"floor:{identity}", str(order))

    def keep_shape(self, shape: Shape) -> None:
        """Remember how a table is."""
        self._put(f"shape:{shape.schema.identity}", _text(shape))

    def pasts(self) -> dict[int, Past]:
        """What is known of the pasts of tables, by their identity."""
        return {
            each: read_record(Past, orjson.loads(self._records[f"past:{each}"]))
            for each in _numbers(self._records, "past")
        }

    def keep_past(self, identity: int, past: Past) -> None:
        """Remember what is known of the past of a table."""
        self._put(f"past:{identity}", _text(past))

    def settled(self, shapes: list[Shape]) -> None:
        """Keep what is left of the ways to shapes that a checkpoint does not know yet."""
        self._put_all({f"shape:{each.schema.identity}": _text(each) for each in shapes})

    def copying(self) -> set[int]:
        return set(_numbers(self._records, "copying"))

    def copy_parts(self, identity: int) -> None:
        self._put(f"copying:{identity}", "")

    def copied(self, identity: int) -> None:
        self._forget(f"copying:{identity}")

    def suspects(self) -> dict[int, Suspicion]:
        return suspects_of(self._records)

    def suspect(self, identity: int, suspicion: Suspicion) -> None:
        self._put(f"suspect:{identity}", _text(suspicion))

    def clear(self, identity: int) -> None:
        self._forget(f"suspect:{identity}")

    def set_apart(self, identity: int, standing: Standing) -> None:
        self._put(f"apart:{identity}", _text(standing))

    def rejoin(self, identity: int) -> None:
        self._forget(f"apart:{identity}")

    def apart(self) -> set[int]:
        return set(_numbers(self._records, "apart"))

    def _put(self, key: str, content: str) -> None:
        self._put_all({key: content})

    def _put_all(self, records: dict[str, str]) -> None:
        if records:
            self._store.record(records)
            self._records |= records

    def _forget(self, key: str) -> None:
        if key in self._records:
            self._store.record({key: None})
            del self._records[key]


def checkpoint_of(records: dict[str, str]) -> Checkpoint | None:
    """The checkpoint among records; raises CheckpointUnreadable."""
    if "checkpoint" not in records:
        return None
    try:
        stored = read_record(_Stored, orjson.loads(records["checkpoint"]))
    except ValueError as error:
        raise CheckpointUnreadable(
            "The target's checkpoint cannot be read.", hint="Use the version of cdc that wrote it, or a newer one."
        ) from error
    if stored.format != FORMAT:
        raise CheckpointUnreadable(
            f"The target's checkpoint has format {stored.format}; this version of cdc writes {FORMAT}.",
            hint="Use the version of cdc that wrote it, or a newer one.",
        )
    return Checkpoint(Position(stored.order, stored.position), stored.state)


def mode_of(records: dict[str, str]) -> Mode:
    """How the tables are kept."""
    return Mode(records.get("mode", Mode.MIRROR))


def copying_of(records: dict[str, str]) -> set[int]:
    """The tables, by identity, that are copied part by part."""
    return set(_numbers(records, "copying"))


def suspects_of(records: dict[str, str]) -> dict[int, Suspicion]:
    """The tables, by identity, that have to be compared with the source."""
    return {
        identity: read_record(Suspicion, orjson.loads(records[f"suspect:{identity}"]))
        for identity in _numbers(records, "suspect")
    }


def _numbers(records: dict[str, str], kind: str) -> list[int]:
    return [int(number) for name, _, number in (key.partition(":") for key in records) if name == kind and number]


def _text(record: TableName | Standing | Suspicion | Shape | Past | _Stored | _Freshness) -> str:
    return orjson.dumps(asdict(record), option=orjson.OPT_NON_STR_KEYS).decode()
