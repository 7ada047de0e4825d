"""The tables that are followed, and what becomes of them as the log goes on: what the decoder asks about."""

from __future__ import annotations

import logging
from dataclasses import replace

from cdc import faults
from cdc.errors import OperatorNeeded, SchemaChangeUnsupported
from cdc.model.schema import TableName
from cdc.model.segment import Evolve, Step, Truncate
from cdc.selection import Selection
from cdc.sources.mysql import ddl
from cdc.sources.mysql.batches import Plan
from cdc.sources.mysql.catalog import Table, is_passing
from cdc.sources.mysql.charsets import ServerConverter
from cdc.sources.mysql.connection import Connection
from cdc.sources.mysql.evolution import CopyAgain, evolved, renamed
from cdc.sources.mysql.identity import log_files, log_now, place_of
from cdc.sources.mysql.state import SourceState, TableState
from cdc.sources.mysql.tablemap import TableMap, Wire
from cdc.sources.mysql.transactions import Query
from cdc.sources.mysql.types import fits, source_type

log = logging.getLogger(__name__)

_HIDDEN = ("DB_ROW_HASH_", "!hidden!")  # columns that servers add for themselves (B-46)
_HIDDEN_WIRES = (Wire.LONGLONG, Wire.TIMESTAMP2)


class FollowedTables:
    """The tables of a pipeline's state, as a `cdc.sources.mysql.binlog.Catalog`.

    Args:
        state: changed as the log says.
        connection: asked how far the log is.
        selection: which tables are meant, of the database that the DSN names if it names one.
    """

    def __init__(self, state: SourceState, connection: Connection, selection: Selection) -> None:
        self._state = state
        self._connection = connection
        self._selection = selection
        self._folds_case = connection.variable("lower_case_table_names") != "0"
        self._database = connection.dsn.database.lower() if self._folds_case else connection.dsn.database
        self._converter = ServerConverter(connection)
        self._refreshed: set[tuple[TableName, TableMap]] = set()
        # Once the log has been followed up to here, look for tables that are new, and copy those that have to be: until
        # then the state may know a table by another name than it has now.
        self.look_after: int | None = None

    @property
    def are_complete(self) -> bool:
        """Whether all that are meant have been copied."""
        return self.look_after is None and all(entry.copied for entry in list(self._state.tables.values()))

    @property
    def can_look(self) -> bool:
        """Whether there is a reason to look what the source has now, and the log has been followed far enough."""
        return self.look_after is not None and self._state.place.order >= self.look_after

    def expect(self, table: Table) -> TableState:
        """Number a table that is to be copied."""
        identity = self._state.gone.pop(str(table.name), None)
        if identity is None:
            identity = self._state.next_table
            self._state.next_table += 1
        entry = table.identified(identity).followed(0, copied=False)
        self._state.tables[identity] = entry
        return entry

    def look_soon(self) -> None:
        """Look at what there is once the log up to now has been followed."""
        at = log_now(self._connection)
        self.look_after = place_of(log_files(self._connection), self._state.place, at.file, at.offset).order

    def start(self, name: TableName) -> int:
        """For the decoder: where a table's snapshot is."""
        entry = self._state.named(name)
        return entry.start if entry is not None else 0

    def plan(self, table_map: TableMap) -> Plan | None:
        """For the decoder: how to read a table's rows, if the table is followed."""
        name = TableName(table_map.schema, table_map.table)
        entry = self._state.named(name)
        if entry is None or not entry.copied:
            return None
        plan = plan_rows(entry, table_map)
        if plan is not None:
            return plan
        if (name, table_map) in self._refreshed:
            raise SchemaChangeUnsupported(
                f"The log's rows of {name} have another shape than the table, although it was just copied.",
                hint="Please report it, with SHOW CREATE TABLE. --exclude leaves the table out.",
            )
        self._refreshed.add((name, table_map))
        log.warning("%s has another shape than its statements in the log say; it is copied again", name)
        self._copy_again(entry)
        return None

    def _copy_again(self, entry: TableState) -> None:
        self._state.tables[entry.schema.identity] = replace(entry, copied=False)
        self.look_soon()
        faults.point("copy.again")

    def statement(self, statement: Query, order: int, transaction: int, ordinal: int) -> list[Step]:
        """For the decoder: what a statement does to the tables that are followed."""
        steps: list[Step] = []
        text = self._converter.statement(statement)
        found = ddl.effects(text, statement.schema, sql_mode=statement.sql_mode, folds_case=self._folds_case)
        for effect in found:
            step = self._effect(effect, statement, order, transaction, ordinal + len(steps))
            if step is not None:
                steps.append(step)
        return steps

    def _effect(self, effect: ddl.Effect, statement: Query, order: int, transaction: int, ordinal: int) -> Step | None:
        if isinstance(effect, ddl.Written | ddl.Unclear):
            self._refuse_text(effect, statement)
            return None
        if isinstance(effect, ddl.Renamed):
            return self._rename(effect, order, transaction)
        if isinstance(effect, ddl.Dropped):
            for entry in list(self._state.tables.values()):
                table = entry.schema.table
                if effect.table in (table, TableName(table.schema, "")) and order >= entry.start:
                    log.warning("%s was dropped in the source; the target keeps its rows", table)
                    self._state.forget(entry)
            return None
        known = self._state.named(effect.table)
        if isinstance(effect, ddl.Created):
            if known is None and self._is_meant(effect.table):
                self.look_soon()
            elif known is not None and effect.replaces and order >= known.start:
                self._copy_again(known)
            return None
        if known is None or not known.copied or order < known.start:
            return None
        if isinstance(effect, ddl.Truncated):
            return Truncate(known.schema, transaction, ordinal)
        return self._alter(known, effect, transaction)

    def _is_meant(self, name: TableName) -> bool:
        in_database = self._database in ("", name.schema)
        return in_database and self._selection.matches(name) and not is_passing(name.name)

    def _refuse_text(self, effect: ddl.Written | ddl.Unclear, statement: Query) -> None:
        where = f"{self._state.place.file}:{statement.end}"
        for entry in self._state.tables.values():
            name = entry.schema.table
            if isinstance(effect, ddl.Written) and name in effect.tables:
                raise OperatorNeeded(
                    f"{effect.kind} on {name} was logged as text at {where}: the log does not have its rows.",
                    hint="Set binlog_format = ROW for all sessions. Only a new copy is right again: `cdc teardown`, "
                    "remove the target, start again.",
                )
            if isinstance(effect, ddl.Unclear) and effect.may_name(name):
                raise SchemaChangeUnsupported(
                    f"A statement of the kind {effect.kind!r} at {where} names {name}, and cdc does not understand it.",
                    hint="If it does not touch the table, please report it. Only a new copy is certainly right: "
                    "`cdc teardown`, remove the target, start again.",
                )

    def _rename(self, effect: ddl.Renamed, order: int, transaction: int) -> Step | None:
        """Tables may take each other's names: what matters is who has a name that is followed in the end (B-43)."""
        leaving, arriving = self._state.named(effect.old), self._state.named(effect.new)
        if leaving is None or order < leaving.start:
            # One that is not followed, or was copied under the name that it has after this.
            if arriving is None and self._is_meant(effect.new):
                self.look_soon()
            return None
        if arriving is not None:
            # Copied already under the name that this one takes: it is this one.
            self._state.forget(leaving)
            self.look_soon()
            return None
        if not self._is_meant(effect.new):
            if is_passing(effect.new.name):
                # The new content comes under the old name in a moment, and is copied.
                self._copy_again(leaving)
            else:
                log.warning("%s is %s now, which is not followed", effect.old, effect.new)
                self._state.forget(leaving)
            return None
        after = renamed(leaving, effect.new)
        self._state.tables[leaving.schema.identity] = after
        if not leaving.copied:
            return None
        return Evolve(leaving.schema, after.schema, transaction)

    def _alter(self, entry: TableState, effect: ddl.Altered, transaction: int) -> Step | None:
        faults.point("schema.before")
        try:
            after, fill = evolved(entry, effect.actions, self._state.flavor)
        except CopyAgain:
            log.warning(
                "%s was altered in a way that rewrites rows without logging them; it is copied again", effect.table
            )
            self._copy_again(entry)
            return None
        self._state.tables[entry.schema.identity] = after
        if after.schema == entry.schema:
            return None
        log.info("%s changed its shape", effect.table)
        faults.point("schema.after")
        return Evolve(entry.schema, after.schema, transaction, fill)


def plan_rows(entry: TableState, table_map: TableMap) -> Plan | None:
    """Which column of a row image is which of the table; None if they do not go together."""
    schema, wire = entry.schema, table_map.columns
    sources = tuple(source_type(column.source_type) for column in schema.columns)
    row_end = None
    if all(column.name is not None for column in wire):
        places = {column.name: place for place, column in enumerate(wire)}
        known = {column.name for column in schema.columns}
        others = [name for name in places if name not in known and not str(name).startswith(_HIDDEN)]
        if entry.row_end is not None:
            row_end = places.get(entry.row_end or "row_end")
            others = [] if row_end is not None and len(others) == 2 else ["row_start"]
        if others or not known <= set(places):
            return None
        chosen = tuple(places[column.name] for column in schema.columns)
    else:
        hidden = wire[len(schema.columns) :]  # hashes and moments that the server keeps for itself stand at the end
        if len(wire) < len(schema.columns) or entry.row_end or not all(c.wire in _HIDDEN_WIRES for c in hidden):
            return None
        if entry.row_end is not None:
            row_end = len(wire) - 1
        chosen = tuple(range(len(schema.columns)))
    if not all(fits(source, wire[place]) for source, place in zip(sources, chosen, strict=True)):
        return None
    of = {default.column: default for default in entry.defaults}
    defaults = tuple(of.get(column.identity) for column in schema.columns)
    return Plan(schema, wire, chosen, sources, defaults, row_end)
