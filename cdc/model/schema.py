"""Table schemas: what one version of one table looks like, in terms that no single database owns."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import takewhile

_MOST_DIMENSIONS = 1 << 15
_LONGEST_NAME = 63


class Kind(StrEnum):
    """The kinds of logical type, each with the canonical text that its values travel as until a target parses them."""

    BOOL = "bool"  # t, f
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT32 = "uint32"
    UINT64 = "uint64"
    FLOAT32 = "float32"  # shortest text that reads back to the same value; NaN, Infinity, -Infinity
    FLOAT64 = "float64"
    DECIMAL = (
        "decimal"  # with precision and scale; may still hold NaN (and, from PostgreSQL 14, infinities if unbounded)
    )
    TEXT = "text"
    BYTES = "bytes"  # \x followed by hexadecimal digits
    DATE = "date"  # 2024-12-31, 0044-03-15 BC, infinity
    TIME = "time"  # 23:59:59.123456, 24:00:00
    TIMESTAMP = "timestamp"  # 2024-12-31 23:59:59.123456, with BC after it where it applies
    TIMESTAMPTZ = "timestamptz"  # 2024-12-31 23:59:59.123456+00, always in UTC
    INTERVAL = "interval"  # 1 year 2 mons -3 days +04:05:06.789
    UUID = "uuid"
    JSON = "json"  # byte for byte as the source has it
    LIST = "list"  # {1,2,NULL}, {{"a b",c},{d,e}}
    VECTOR = "vector"  # a list of 32-bit floats: {1,-2.5}
    OPAQUE = "opaque"  # anything else: the source's own text, kept as it is


@dataclass(frozen=True, slots=True)
class LogicalType:
    """A column's type, free of the source's names for it.

    Attributes:
        kind: which family of values.
        precision, scale: of a DECIMAL; None where the source sets no bound.
        element: of a LIST, the type of the innermost elements.
        dimensions: of a LIST, how deep the source declares it (1 for `int[]`, 2 for `int[][]`).
    """

    kind: Kind
    precision: int | None = None
    scale: int | None = None
    element: LogicalType | None = None
    dimensions: int = 0

    def __post_init__(self) -> None:
        is_list = self.element is not None
        if (self.kind is Kind.LIST) != is_list or not is_list <= self.dimensions < _MOST_DIMENSIONS:
            raise ValueError(f"{self} is not a type")


@dataclass(frozen=True, order=True, slots=True)
class TableName:
    """A table's qualified name."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    def parked(self, suffix: str) -> TableName:
        """Another name for a table that has lost this one, as long as any database takes it (63 bytes: PostgreSQL)."""
        kept = self.name.encode()[: _LONGEST_NAME - len(suffix.encode())].decode(errors="ignore")
        return replace(self, name=f"{kept}{suffix}")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of one version of a table.

    Attributes:
        name: as the source spells it.
        source_type: as the source writes it: `numeric(12,2)`.
        type: what it means.
        identity: a number that stays the column's own through renames (PostgreSQL: attnum), so that drop-and-add of
            one name is distinguished from a rename (A-50).
        key: place in the key, from 0, or None.
        nullable: whether the source allows NULL.
    """

    name: str
    source_type: str
    type: LogicalType
    identity: int
    key: int | None = None
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class TableSchema:
    """One version of one table.

    Attributes:
        table: its qualified name.
        identity: a number that stays the table's own through renames (PostgreSQL: oid).
        columns: in the order in which the log gives them.
        full_before: whether updates and deletes carry the whole old row (REPLICA IDENTITY FULL).
    """

    table: TableName
    identity: int
    columns: tuple[Column, ...]
    full_before: bool = False

    @property
    def key(self) -> tuple[int, ...]:
        """Indexes into `columns` of the key, in key order; empty for a table without one."""
        keyed = [(column.key, index) for index, column in enumerate(self.columns) if column.key is not None]
        return tuple(index for _, index in sorted(keyed))

    def key_before_other(self, kinds: Set[Kind]) -> tuple[int, ...]:
        """Indexes of the key's columns up to the first one that is of no such kind."""
        return tuple(takewhile(lambda index: self.columns[index].type.kind in kinds, self.key))
