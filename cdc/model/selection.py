"""Which tables a user means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cdc.errors import UsageError
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

    def names(self, table: TableName) -> bool:
        """Whether the table is included by its own name, and not as one of many."""
        alone = [pattern for pattern in self.include if not {"*", "?"} & set(pattern)]
        return any(self._means(pattern, table) for pattern in alone)

    def unmatched(self, tables: Iterable[TableName]) -> list[str]:
        """The patterns that none of the tables matches."""
        known = list(tables)
        return [
            pattern
            for pattern in (*self.include, *self.exclude)
            if not any(self._means(pattern, table) for table in known)
        ]

    def unmatched_now(self, selected: Iterable[TableName], followed: Iterable[TableName]) -> list[str]:
        """The patterns of a pipeline that goes on that select none of the tables that are there now.

        It may be a typing error, but also a table that was dropped or got another name, which must not stop others.

        Args:
            selected: those that are there now.
            followed: those that were followed so far.

        Raises:
            UsageError: nothing is selected, and nothing that was followed would be, so that nothing is left.
        """
        known = list(selected)
        if not known and not any(self.matches(table) for table in followed):
            raise UsageError(
                f"No table matches {', '.join(map(repr, self.include)) or 'anything'}.",
                hint="Give the same --tables as before; `cdc status SOURCE TARGET` shows the tables that are followed.",
            )
        return [pattern for pattern in self.include if not any(self._means(pattern, table) for table in known)]

    def _means(self, pattern: str, table: TableName) -> bool:
        """Only * and ? stand for something else, and only in what a user wrote."""
        if "." not in pattern:
            return table.schema == self.default_schema and fnmatchcase(table.name, pattern.replace("[", "[[]"))
        return fnmatchcase(str(table), pattern.replace("[", "[[]"))
