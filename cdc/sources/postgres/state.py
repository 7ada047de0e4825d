"""What a checkpoint remembers of a PostgreSQL source, as one JSON text with a version number."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from cdc.errors import CheckpointUnreadable
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.sources.postgres.pgoutput import Relation, RelationColumn

VERSION = 1


@dataclass(frozen=True, slots=True)
class TableState:
    """One table as the target holds it.

    Attributes:
        schema: its shape.
        relation: the same as the log describes it.
        start: LSN of the snapshot that it was copied from; changes committed before it are in the copy.
        copied: whether that copy is complete.
    """

    schema: TableSchema
    relation: Relation
    start: int
    copied: bool


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
    """

    pipeline: str
    system: str
    database: str
    timeline: int
    slot: str
    publications: dict[str, str] = field(default_factory=dict)
    tables: dict[int, TableState] = field(default_factory=dict)

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
            raw["tables"] = {int(oid): _table(table) for oid, table in raw["tables"].items()}
            return cls(**raw)
        except CheckpointUnreadable:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointUnreadable(
                "The target's checkpoint cannot be read: it is damaged or not one of cdc.",
                hint="Restore the target from a backup, or remove it and start again.",
            ) from error


def _plain(value: Any) -> Any:
    """JSON has text keys only."""
    return {**value, "tables": {str(oid): table for oid, table in value["tables"].items()}}


def _table(raw: dict[str, Any]) -> TableState:
    schema, relation = raw["schema"], raw["relation"]
    return TableState(
        schema=TableSchema(
            table=TableName(**schema["table"]),
            identity=schema["identity"],
            columns=tuple(Column(**{**column, "type": _type(column["type"])}) for column in schema["columns"]),
            full_before=schema["full_before"],
        ),
        relation=Relation(**{**relation, "columns": tuple(RelationColumn(**column) for column in relation["columns"])}),
        start=raw["start"],
        copied=raw["copied"],
    )


def _type(raw: dict[str, Any]) -> LogicalType:
    element = _type(raw["element"]) if raw["element"] else None
    return LogicalType(Kind(raw["kind"]), raw["precision"], raw["scale"], element, raw["dimensions"])
