"""Tables that online schema changes work with and throw away: gh-ost, pt-online-schema-change, Percona, LHM (B-43).

A name alone is no proof (M14). Such a table is known by its life: it is made beside the table that its name speaks of
while the log is followed, and takes that one's place within a day.
"""

from __future__ import annotations

from collections.abc import Iterable

from cdc.model.schema import TableName

_LIVES = 24 * 3600.0  # seconds; who still has its name then is an ordinary table
# What their names have before and behind the name of the table that is changed.
_NAMES = (
    ("_", "_gho"),
    ("_", "_ghc"),
    ("_", "_del"),
    ("_", "_new"),
    ("__", "_new"),
    ("_", "_old"),
    ("lhmn_", ""),
)


def is_ghost_of(name: TableName, table: TableName) -> bool:
    """Whether a name is one that an online schema change of a table gives."""
    if name.schema != table.schema:
        return False
    is_archive = name.name.startswith("lhma_") and name.name.endswith(f"_{table.name}")
    return is_archive or any(name.name == f"{begin}{table.name}{end}" for begin, end in _NAMES)


class Ghosts:
    """Tables that may be ghosts, since they were made under the name of one beside the table that it speaks of."""

    def __init__(self) -> None:
        self._seen: dict[TableName, float | None] = {}

    def __contains__(self, name: TableName) -> bool:
        return name in self._seen

    def made(self, name: TableName, tables: Iterable[TableName]) -> None:
        """A table was made beside others."""
        if any(is_ghost_of(name, table) for table in tables):
            self._seen[name] = None

    def gone(self, name: TableName) -> None:
        """There is no table of that name any more."""
        self._seen.pop(name, None)

    def grown_old(self, now: float) -> bool:
        """Forget those that were no ghosts; whether there were any.

        Args:
            now: seconds.
        """
        old = [name for name, since in self._seen.items() if since is not None and now - since > _LIVES]
        self._seen = {name: now if since is None else since for name, since in self._seen.items() if name not in old}
        return bool(old)
