"""What a checkpoint remembers of a PostgreSQL source, as one JSON text with a version number."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from cdc.errors import CheckpointUnreadable
from cdc.model.records import read_record
from cdc.model.schema import TableSchema
from cdc.sources.postgres.pgoutput import Relation

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
    """

    schema: TableSchema
    relation: Relation
    start: int
    copied: bool
    followed: bool = True


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
    """

    pipeline: str
    system: str
    database: str
    timeline: int
    slot: str
    publications: dict[str, str] = field(default_factory=dict)
    tables: dict[int, TableState] = field(default_factory=dict)
    changing: list[int] = field(default_factory=list)

    def dump(self) -> str:
        """The state as JSON text."""
        return orjson.dumps({"version": VERSION, "source": "postgresql", **_plain(asdict(self))}).decode()

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


def _plain(value: Any) -> Any:
    """JSON has text keys only."""
    return {**value, "tables": {str(oid): table for oid, table in value["tables"].items()}}
