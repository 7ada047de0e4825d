"""What the pgoutput protocol says of tables, without the arrays that its rows become."""

from __future__ import annotations

from dataclasses import dataclass

from cdc.model.schema import TableSchema

HEADER = 25  # XLogData: 'w', start of the data, end of the WAL, the server's clock; then one pgoutput message


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """One column of a Relation message."""

    name: str
    type_oid: int
    type_modifier: int
    is_identity: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """A Relation message: the shape that the following rows of a table have."""

    oid: int
    namespace: str
    name: str
    identity: str  # pg_class.relreplident: d default, n nothing, f full, i index
    columns: tuple[RelationColumn, ...]


@dataclass(frozen=True, slots=True)
class Moved:
    """A table that has another name."""

    old: TableSchema
    new: TableSchema
