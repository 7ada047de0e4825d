"""The change stream alone: no snapshot, and no target that keeps its position beyond this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cdc.model.position import Checkpoint
from cdc.model.segment import Segment
from cdc.source import Link
from cdc.sources.mysql.catalog import Table, named_tables
from cdc.sources.mysql.identity import log_now
from cdc.sources.mysql.source import MySqlSource
from cdc.sources.mysql.state import TableState


class TailSource(MySqlSource):
    """What is committed from now on. After a lost connection it goes on where it was."""

    def open(self, resume: Checkpoint | None) -> None:
        super().open(resume)
        if self._is_new:
            self._begin_at(log_now(self._connection))
            for table in self._selected:
                self._tables.expect(table)
            self._describe()

    def copy(self, link: Link) -> Iterator[Segment]:
        """Nothing: only what happens is told."""
        yield from ()

    def _copy_missing(self, link: Link) -> Iterator[Segment]:
        """A table that came, or that was altered beyond what can be followed, is as it is now."""
        self._describe()
        yield from ()

    def _describe(self) -> None:
        images_are_full = (self._connection.variable("binlog_row_image") or "").upper() == "FULL"
        missing = [entry for entry in self._state.tables.values() if not entry.copied]
        found = named_tables(self._connection, [entry.schema.table for entry in missing])
        for entry in missing:
            table = found.get(entry.schema.table)
            if table is None:
                self._state.forget(entry)
                continue
            self._state.tables[entry.schema.identity] = _told(table.identified(entry.schema.identity), images_are_full)


def _told(table: Table, images_are_full: bool) -> TableState:
    """With whole rows before a change, if the log has them."""
    schema = replace(table.schema, full_before=images_are_full or table.schema.full_before)
    return TableState(schema, table.charset, 0, True, len(schema.columns) + 1, table.row_end)
