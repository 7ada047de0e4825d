"""Which tables a user means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cdc.model.schema import TableName


@dataclass(frozen=True, slots=True)
class Selection:
    """Tables by patterns of `schema.table` with `*` and `?`, case and all; a bare name means the schema `public`.

    Attributes:
        include: what to take; everything if empty.
        exclude: what to leave out of that.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def matches(self, table: TableName) -> bool:
        """Whether the table is meant."""
        included = not self.include or any(_matches(pattern, table) for pattern in self.include)
        return included and not any(_matches(pattern, table) for pattern in self.exclude)

    def unmatched(self, tables: Iterable[TableName]) -> list[str]:
        """The patterns that none of the tables matches."""
        known = list(tables)
        return [
            pattern
            for pattern in (*self.include, *self.exclude)
            if not any(_matches(pattern, table) for table in known)
        ]


def _matches(pattern: str, table: TableName) -> bool:
    qualified = pattern if "." in pattern else f"public.{pattern}"
    return fnmatchcase(str(table), qualified)
