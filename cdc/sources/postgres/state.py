"""What a checkpoint remembers of a PostgreSQL source, as one JSON text with a version number."""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson

from cdc.errors import CheckpointUnreadable
from cdc.model.records import named_in_json, read_record, stored
from cdc.model.schema import TableName, TableSchema
from cdc.model.standing import Apart, Standing, State
from cdc.options import KeptOptions
from cdc.sources.postgres.fingerprint import Fingerprint
from cdc.sources.postgres.relation import Relation

VERSION = 1
NEVER = 1 << 62  # start of a table whose changes mean nothing: they are passed over


@dataclass(frozen=True, slots=True)
class TableState:
    """One table as the target holds it.

    Attributes:
        schema: its shape.
        relation: the same as the log describes it.
        start: LSN of the snapshot that it was copied from; changes committed before it are in the copy.
        copied: whether that copy is complete, or goes on part by part while the log is followed.
        followed: not taken out of the selection. If it was, what the target has of it stays as it is.
        held: why it cannot be followed just now; its changes are skipped until somebody wants it to be copied again.
        fingerprint: what the catalog said that its rows are made of; None if nobody has looked.
    """

    schema: TableSchema
    relation: Relation
    start: int
    copied: bool
    followed: bool = True
    held: str | None = None
    fingerprint: Fingerprint | None = None


@dataclass(frozen=True, slots=True)
class Switch:
    """One step of a server's history: it left `timeline` at the LSN `at`."""

    timeline: int
    at: int


@dataclass(frozen=True, slots=True)
class Witness:
    """A transaction by which a server is known again as the one that was followed (P19).

    Attributes:
        order: LSN of its commit.
        transaction, committed_at: its number and time (microseconds since the Unix epoch), as the log has them.
        until: between its commit and this LSN, the log has no other transaction for the pipeline.
        publications: with which the log was read.
    """

    order: int
    transaction: int
    committed_at: int
    until: int
    publications: tuple[str, ...]


@dataclass(slots=True)
class SourceState:
    """A source as of a checkpoint.

    Attributes:
        pipeline: name of the pipeline.
        system, database: what server and database it is, by the server's own identifiers.
        timeline: the history of the server that the position belongs to.
        slot: name of the replication slot.
        publications: names, each with what it held (see `catalog.publication_fingerprint`).
        tables: by oid.
        changing: tables, by oid, that are about to be put in or taken out of the publications, or were just.
        apart: tables of the selection that were never followed, and why.
        history: how the server came to its timeline, oldest step first.
        witness: by which the server is known; None until a transaction has come.
        types: by oid, what the catalog said of the types that the tables use, and of those inside of them; never
            changed in place.
        options: the options of the last run that concern the tables; None in a state of an older version.
        looked: how far the log was when the catalog last said nothing that is not in the state; 0 if that is not known.
    """

    pipeline: str
    system: str
    database: str
    timeline: int
    slot: str
    publications: dict[str, str] = field(default_factory=dict)
    tables: dict[int, TableState] = field(default_factory=dict)
    changing: list[int] = field(default_factory=list)
    apart: list[Apart] = field(default_factory=list)
    history: tuple[Switch, ...] = ()
    witness: Witness | None = None
    types: dict[int, dict[str, str]] = field(default_factory=dict)
    options: KeptOptions | None = field(default=None, metadata=named_in_json("told"))
    looked: int = 0

    def dump(self) -> str:
        """The state as JSON text."""
        # Under load this is written every second, with another witness: `asdict` would take ten times as long.
        state = {"version": VERSION, "source": "postgresql", **stored(self)}
        return orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS).decode()

    @classmethod
    def load(cls, text: str) -> SourceState:
        """Read what `dump` wrote; raises CheckpointUnreadable for anything else (E-10)."""
        try:
            raw = orjson.loads(text)
            version = raw.pop("version")
            if raw.pop("source") != "postgresql" or version != VERSION:
                raise CheckpointUnreadable(
                    f"The target's checkpoint was written by another version of cdc (format {version!r}).",
                    hint=f"This one reads format {VERSION}; use the version of cdc that wrote it, or a newer one.",
                )
            state = read_record(cls, raw)
            for oid, table in state.tables.items():
                if oid != table.schema.identity or len(table.schema.columns) != len(table.relation.columns):
                    raise ValueError(oid)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointUnreadable(
                "The target's checkpoint cannot be read: it is damaged or not one of cdc.",
                hint="Restore the target from a backup, or remove it and start again.",
            ) from error
        return state


def standings(state: SourceState, *, only_apart: bool = False) -> dict[TableName, Standing]:
    """How the tables of the selection stand as far as the source knows, by name.

    Args:
        only_apart: without those that are simply followed.
    """
    found = {entry.table: entry.standing for entry in list(state.apart)}
    for entry in list(state.tables.values()):
        if not entry.followed:
            continue
        if entry.held is not None:
            found[entry.schema.table] = Standing(State.HELD, entry.held)
        elif entry.start == NEVER or not entry.copied:
            found[entry.schema.table] = Standing(State.COPYING)
        elif not only_apart:
            found[entry.schema.table] = Standing(State.FOLLOWING)
    return found
