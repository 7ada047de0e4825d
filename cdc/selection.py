"""Which tables a user means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cdc.model.schema import TableName


@dataclass(frozen=True, slots=True)
class Selection:
    """Tables by patterns of `schema.table` with `*` and `?`, case and all.

    Attributes:
        include: what to take; everything if empty.
        exclude: what to leave out of that.
        default_schema: what a pattern without a schema means.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    default_schema: str = "public"

    def matches(self, table: TableName) -> bool:
        """Whether the table is meant."""
        included = not self.include or any(self._means(pattern, table) for pattern in self.include)
        return included and not any(self._means(pattern, table) for pattern in self.exclude)

    def unmatched(self, tables: Iterable[TableName]) -> list[str]:
        """The patterns that none of the tables matches."""
        known = list(tables)
        return [
            pattern
            for pattern in (*self.include, *self.exclude)
            if not any(self._means(pattern, table) for table in known)
        ]

    def _means(self, pattern: str, table: TableName) -> bool:
        """Only * and ? stand for something else, and only in what a user wrote."""
        if "." not in pattern:
            return table.schema == self.default_schema and fnmatchcase(table.name, pattern.replace("[", "[[]"))
        return fnmatchcase(str(table), pattern.replace("[", "[[]"))
