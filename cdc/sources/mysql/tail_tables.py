"""The tables of a tail: nothing is copied, so every change is emitted or is an error, and no change is skipped (H5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import replace

from cdc.errors import SchemaChangeUnsupported
from cdc.model.change import ABSENT
from cdc.model.schema import TableName
from cdc.model.segment import Step
from cdc.options import KeptOptions
from cdc.sources.mysql.batches import Plan
from cdc.sources.mysql.catalog import Table, named_tables
from cdc.sources.mysql.connection import Connection
from cdc.sources.mysql.effects import Altered, Effect
from cdc.sources.mysql.ghosts import is_ghost_of
from cdc.sources.mysql.state import SourceState, TableState
from cdc.sources.mysql.tablemap import TableMap
from cdc.sources.mysql.tables import FollowedTables, plan_rows

log = logging.getLogger(__name__)


class TailTables(FollowedTables):
    """A table whose shape the log does not say is taken to have the one that it has now. If its rows say otherwise,
    that is an error.

    Args:
        described: makes what is known of a table that is as it is now.

    Attributes:
        as_now_until: order of the place up to which all tables are taken so, whatever statements there are.
    """

    def __init__(
        self, state: SourceState, connection: Connection, options: KeptOptions, described: Callable[[Table], TableState]
    ) -> None:
        super().__init__(state, connection, options.selection)
        self._described = described
        self.as_now_until = 0

    def plan(self, table_map: TableMap) -> Plan | None:
        name = TableName(table_map.schema, table_map.table)
        entry = self._state.named(name)
        if entry is not None and entry.is_followed and (plan := plan_rows(entry, table_map)) is not None:
            return plan
        if entry is None and not self._is_emitted(name):
            return None
        if (table := named_tables(self._connection, [name]).get(name)) is None:
            raise _unreadable(name, "which is not there any more under that name")
        if table.trouble is not None:
            raise _unreadable(name, f"which cannot be read: {table.trouble}")
        entry = self._take_now(entry or self.expect(table), table)
        if (plan := plan_rows(entry, table_map)) is None:
            raise _unreadable(name, "which has another shape now")
        return plan

    def _is_emitted(self, name: TableName) -> bool:
        followed = [entry.schema.table for entry in self._state.tables.values()]
        return self._is_meant(name) and not any(is_ghost_of(name, table) for table in followed)

    def _take_now(self, entry: TableState, table: Table) -> TableState:
        after = self._described(table.identified(entry.schema.identity))
        self._state.tables[entry.schema.identity] = after
        return after

    def copy_again(self, entry: TableState, why: str, transaction: int = ABSENT) -> None:
        """From here on the table is as it is now, which its rows have yet to show."""
        log.warning("cdc assumes that %s has the shape that it has now: %s", entry.schema.table, why)
        table = named_tables(self._connection, [entry.schema.table]).get(entry.schema.table)
        if table is None:
            self._state.forget(entry)
        else:
            self._take_now(entry, table)

    def hold(self, entry: TableState, why: str) -> None:
        raise _unreadable(entry.schema.table, why)

    def doubted(self, name: TableName, why: str, transaction: int) -> list[Step] | None:
        """What the log leaves out is emitted as left out."""
        log.warning("%s: %s", name, why)
        return []

    def unsaid(self, names: Collection[TableName] | None, why: str, order: int, transaction: int) -> list[Step]:
        raise SchemaChangeUnsupported(
            f"The log lacks changes, and it is not known which: {why}.", hint="Begin after that position (--from)."
        )

    def _effect(self, effect: Effect, order: int, transaction: int, ordinal: int) -> list[Step]:
        known = self._state.named(effect.table) if isinstance(effect, Altered) else None
        if known is not None and order < self.as_now_until:
            self.copy_again(known, "it was altered")
            return []
        return super()._effect(effect, order, transaction, ordinal)

    def _rekeyed(self, entry: TableState) -> TableState:
        return replace(entry, rekeyed=False)


def _unreadable(name: TableName, why: str) -> SchemaChangeUnsupported:
    return SchemaChangeUnsupported(
        f"The log has rows of {name}, {why}: they cannot be read.",
        hint="Begin after the statement that changed the table (--from), or leave the table out: "
        f"`cdc tail SOURCE --exclude {name}`.",
    )
