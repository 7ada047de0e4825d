"""The tables that are followed, and what becomes of them as the log goes on: what the decoder asks about."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace

from cdc import faults
from cdc.errors import DecodeError, SchemaChangeUnsupported
from cdc.model.change import ABSENT
from cdc.model.schema import TableName
from cdc.model.segment import Drop, Evolve, Gap, Step, Suspect, Truncate
from cdc.model.selection import Selection
from cdc.sources.mysql import ddl
from cdc.sources.mysql.batches import Plan
from cdc.sources.mysql.catalog import Table, has_column_grants, is_of_server
from cdc.sources.mysql.charsets import ServerConverter
from cdc.sources.mysql.connection import Connection
from cdc.sources.mysql.effects import Action, Created, Dropped, Effect, Moved, Renamed, Truncated, Unproven, Unreadable
from cdc.sources.mysql.evolution import CopyAgain, evolved, renamed
from cdc.sources.mysql.ghosts import Ghosts, is_ghost_of
from cdc.sources.mysql.identity import log_files, log_now, place_of
from cdc.sources.mysql.state import SourceState, TableState
from cdc.sources.mysql.tablemap import TableMap
from cdc.sources.mysql.transactions import Query
from cdc.sources.mysql.types import SourceType, fits, laid_out, source_type

log = logging.getLogger(__name__)

_HIDDEN = ("DB_ROW_HASH_", "!hidden!")  # columns that servers add for themselves (B-46)
_MOMENT = SourceType("timestamp", (6,))


class FollowedTables:
    """The tables of a pipeline's state, as a `cdc.sources.mysql.binlog.Catalog`.

    Args:
        state: changed as the log says.
        connection: asked how far the log is.
        selection: which tables are meant, of the database that the DSN names if it names one.
        holds_tables: what concerns one table holds that table; otherwise it ends the run.
        by_parts: tables are copied again part by part, beside the stream; otherwise the stream waits for them.
        numbers: which table has got which number, so that it gets the same one in another try.
    """

    def __init__(
        self,
        state: SourceState,
        connection: Connection,
        selection: Selection,
        *,
        holds_tables: bool = True,
        by_parts: bool = True,
        numbers: dict[TableName, int] | None = None,
    ) -> None:
        self._numbers = numbers if numbers is not None else {}
        self._holds_tables = holds_tables
        self._by_parts = by_parts
        self._state = state
        self._connection = connection
        self._selection = selection
        self._folds_case = connection.variable("lower_case_table_names") != "0"
        self._database = connection.dsn.database.lower() if self._folds_case else connection.dsn.database
        self._converter = ServerConverter(connection)
        self._refreshed: set[tuple[TableName, TableMap]] = set()
        self._sought: set[TableName] = set()  # that have rows, are not known, and were looked for
        self.ghosts = Ghosts()
        # Once the log has been followed up to here, look for tables that are new, and copy those that have to be: until
        # then the state may know a table by another name than it has now.
        self.look_after: int | None = None
        self._gaps: list[Gap] = []  # that have begun and are not emitted yet

    @property
    def are_complete(self) -> bool:
        """Whether all that are meant have been copied."""
        entries = list(self._state.tables.values())
        return self.look_after is None and all(entry.is_settled for entry in entries)

    @property
    def can_look(self) -> bool:
        """Whether there is a reason to look what the source has now, and the log has been followed far enough."""
        return self.look_after is not None and self._state.place.order >= self.look_after

    def expect(self, table: Table) -> TableState:
        """Number a table that is to be copied."""
        identity = self._state.recall(table.name)
        if identity is None:
            identity = self._numbers.get(table.name, 0)
            if identity < self._state.next_table:
                identity = max(self._state.next_table, 1 + max(self._numbers.values(), default=0))
            self._numbers[table.name] = identity
            self._state.next_table = identity + 1
        entry = table.identified(identity).followed(0, copied=False)
        self._state.tables[identity] = entry
        return entry

    def take_gaps(self) -> list[Gap]:
        """The tables whose changes are passed over from here on, once each."""
        taken, self._gaps = self._gaps, []
        return taken

    def look_soon(self) -> None:
        """Look at what there is once the log up to now has been followed."""
        at = log_now(self._connection)
        self.look_after = place_of(log_files(self._connection), self._state.place, at.file, at.offset).order

    def tick(self, now: float) -> None:
        """Some time has passed; `now` is in seconds."""
        if self.ghosts.grown_old(now):
            self.look_soon()

    def start(self, name: TableName) -> int:
        """For the decoder: where a table's snapshot is."""
        entry = self._state.named(name)
        return entry.start if entry is not None else 0

    def plan(self, table_map: TableMap) -> Plan | None:
        """For the decoder: how to read a table's rows, if the table is followed."""
        name = TableName(table_map.schema, table_map.table)
        entry = self._state.named(name)
        if entry is None:
            self._seek(name)
        if entry is None or not entry.is_followed:
            return None
        plan = plan_rows(entry, table_map)
        if plan is not None:
            return plan
        if (name, table_map) in self._refreshed or has_column_grants(self._connection, name):
            self.hold(
                entry,
                f"The log's rows of {name} have {len(table_map.columns)} columns, and do not go with the "
                f"{len(entry.schema.columns)} that can be seen. If the user may read some of its columns only, the way "
                f"back is: GRANT SELECT ON {name}",
            )
            return None
        self._refreshed.add((name, table_map))
        self.copy_again(entry, "its rows have another shape than its statements in the log say")
        return None

    def _seek(self, name: TableName) -> None:
        """Look for a table that has rows, is meant, and is not known: it is never passed over (M13)."""
        if self.look_after is None and name not in self._sought and self._is_meant(name):
            log.warning("%s has rows in the log, but is not known yet; cdc looks for it", name)
            self._sought.add(name)
            self.look_soon()

    def suspect(self, entry: TableState, why: str, transaction: int = ABSENT) -> list[Step]:
        """Have a table compared with the source, since rows may have changed without an event; or copied again, if
        nothing comes by parts."""
        if not self._by_parts:
            self.copy_again(entry, why, transaction)
            return []
        log.warning("%s is suspect: %s", entry.schema.table, why)
        return [Suspect(entry.schema, why, transaction)]

    def doubted(self, name: TableName, why: str, transaction: int) -> list[Step] | None:
        """For the decoder: changes of a table do not tell all that they did, so that its rows are read again."""
        entry = self._state.named(name)
        if entry is None:
            return None
        if entry.schema.key:
            return self.suspect(entry, why, transaction) or None
        # Without a key a row is known by its values only, and they are not all there.
        if entry.is_followed:
            self.copy_again(entry, why, transaction)
        return None

    def unsaid(self, names: Collection[TableName] | None, why: str, order: int, transaction: int) -> list[Step]:
        """For the decoder: the log lacks changes of some tables, or of any, so that they are compared with the source.

        Raises:
            SchemaChangeUnsupported: what concerns one table ends the run.
        """
        if not self._holds_tables:
            raise SchemaChangeUnsupported(f"{why[0].upper()}{why[1:]}. It is not known which rows that concerns.")
        known = list(self._state.tables.values())
        if names is not None:
            known = [entry for name in sorted(names) if (entry := self._state.named(name)) is not None]
        concerned = [entry for entry in known if entry.is_followed and order >= entry.start]
        return [step for entry in concerned for step in self.doubted(entry.schema.table, why, transaction) or ()]

    def copy_again(self, entry: TableState, why: str, transaction: int = ABSENT) -> None:
        """Skip the changes of a table until it has been taken in as it is now, and copy it by parts.

        Args:
            transaction: index of the first one whose changes are skipped, among those that are being decoded.
        """
        log.warning("%s is copied again: %s", entry.schema.table, why)
        self.lose(entry, why, transaction)
        again = entry.copied and self._by_parts  # a copy that was cut off begins again anyway
        self._state.tables[entry.schema.identity] = replace(
            entry, again=again, copied=entry.copied and again, held=None
        )
        self.look_soon()
        faults.point("copy.again")

    def hold(self, entry: TableState, why: str) -> None:
        """Skip the changes of a table until somebody wants it to be copied again.

        Raises:
            SchemaChangeUnsupported: what concerns one table ends the run.
        """
        if not self._holds_tables:
            raise SchemaChangeUnsupported(why, hint="--exclude leaves the table out.")
        log.error("%s is held, its changes are skipped: %s", entry.schema.table, why)
        self.lose(entry, why)
        self._state.tables[entry.schema.identity] = replace(entry, held=why)

    def lose(self, entry: TableState, why: str, transaction: int = ABSENT) -> None:
        """From here on it is not known what a table's rows are; a target that keeps them has to know that (H4)."""
        if entry.copied:
            self._gaps.append(Gap(entry.schema, why, transaction))

    def forget(self, entry: TableState, why: str, transaction: int = ABSENT) -> None:
        """Follow a table no more; the target keeps what it has of it."""
        self.lose(entry, why, transaction)
        self._state.forget(entry)

    def take_in(self, entry: TableState, table: Table, start: int) -> TableState:
        """Follow a table as it is now, from a place in the log on; it is copied by parts."""
        after = table.identified(entry.schema.identity).followed(start, copied=True)
        self._state.tables[entry.schema.identity] = after
        return after

    def statement(self, statement: Query, order: int, transaction: int, ordinal: int) -> list[Step]:
        """For the decoder: what a statement does to the tables that are followed."""
        steps: list[Step] = []
        for effect in self._effects(statement):
            steps += self._effect(effect, order, transaction, ordinal + len(steps))
        return steps

    def _effects(self, statement: Query) -> list[Effect]:
        try:
            text = self._converter.statement(statement)
        except DecodeError:  # of a character set that the server does not name
            return [ddl.unreadable(statement.text, statement.schema, folds_case=self._folds_case)]
        return ddl.effects(
            text,
            statement.schema,
            sql_mode=statement.sql_mode,
            folds_case=self._folds_case,
            is_mariadb=self._state.flavor == "mariadb",
        )

    def _effect(self, effect: Effect, order: int, transaction: int, ordinal: int) -> list[Step]:
        if isinstance(effect, Unproven | Unreadable):
            return self._doubt(effect, order, transaction)
        if isinstance(effect, Renamed):
            return self._rename_all(effect, order, transaction)
        if isinstance(effect, Dropped):
            return self._drop(effect.table, order, transaction, ordinal)
        known = self._state.named(effect.table)
        if isinstance(effect, Created):
            self._create(effect, known, order, transaction)
            return []
        if known is None or not known.is_followed or order < known.start:
            return []
        if isinstance(effect, Truncated):
            return [Truncate(known.schema, transaction, ordinal)]
        return self._alter(known, effect.actions, transaction)

    def _doubt(self, effect: Unproven | Unreadable, order: int, transaction: int) -> list[Step]:
        """What is not proven harmless is not taken for it, whatever it is (M2).

        Raises:
            SchemaChangeUnsupported: what concerns one table ends the run.
        """
        steps: list[Step] = []
        why = f"a statement of the kind {effect.kind!r} may have changed it, and the log does not have its rows"
        for entry in list(self._state.tables.values()):
            if not entry.is_followed or order < entry.start:
                continue
            if not self._holds_tables and effect.may_change(entry.schema.table):
                raise SchemaChangeUnsupported(f"{entry.schema.table}: {why}.")
            if effect.may_reshape(entry.schema.table):
                self.copy_again(entry, why, transaction)
            elif effect.may_change(entry.schema.table):
                steps += self.suspect(entry, why, transaction)
        return steps

    def _drop(self, dropped: TableName, order: int, transaction: int, ordinal: int) -> list[Step]:
        steps: list[Step] = []
        self.ghosts.gone(dropped)
        for entry in list(self._state.tables.values()):
            table = entry.schema.table
            if dropped in (table, TableName(table.schema, "")) and order >= entry.start:
                log.warning("%s was dropped in the source; the target keeps its rows", table)
                self._state.forget(entry)
                if entry.copied and entry.held is None:  # what cannot be taken cannot be ended either
                    steps.append(Drop(entry.schema, transaction, ordinal + len(steps)))
        return steps

    def _create(self, effect: Created, known: TableState | None, order: int, transaction: int) -> None:
        name = effect.table
        self._sought.discard(name)
        if known is not None:
            # A tail copies nothing, so that its tables start at 0, and may be made after the place where it begins.
            if effect.is_new and 0 < known.start <= order:
                self.copy_again(known, "it was replaced by another one", transaction)
            return
        if self._is_meant(name) and (kept := self._state.kept_as(name)) is not None:
            self._gaps.append(Gap(kept, "it was made again, and is copied", transaction))
        if not self._selection.names(name):
            self.ghosts.made(name, [entry.schema.table for entry in self._state.tables.values()])
        if self._is_meant(name):
            self.look_soon()

    def is_selected(self, name: TableName) -> bool:
        """Whether the selection has a table of this name, as the server writes it, in the database that is meant."""
        return self._database in ("", name.schema) and self._selection.matches(name)

    def _is_meant(self, name: TableName) -> bool:
        return self.is_selected(name) and name not in self.ghosts and not is_of_server(name.name)

    def _rename_all(self, effect: Renamed, order: int, transaction: int) -> list[Step]:
        """Tables may take each other's names: what matters is who has a name that is followed in the end (B-43)."""
        steps: list[Step] = []
        for number, (old, new) in enumerate(effect.names):
            self.ghosts.gone(old)
            self._sought.discard(new)
            comes_back = any(other == old for _, other in effect.names[number + 1 :])
            if comes_back and is_ghost_of(new, old) and not self._selection.names(new):
                self._swap(old, order, transaction)
            else:
                steps += self._rename(old, new, order, transaction)
        return steps

    def _swap(self, name: TableName, order: int, transaction: int) -> None:
        """An online schema change is done: another table has a table's name from here on, and this one goes soon."""
        entry = self._state.named(name)
        if entry is not None and order >= entry.start:
            self.copy_again(entry, "an online schema change has put another table in its place", transaction)

    def _rename(self, old: TableName, new: TableName, order: int, transaction: int) -> list[Step]:
        leaving, arriving = self._state.named(old), self._state.named(new)
        if leaving is None or order < leaving.start:
            # One that is not followed, or was copied under the name that it has after this.
            if arriving is None and self._is_meant(new):
                self.look_soon()
            return []
        if arriving is not None:
            # Copied already under the name that this one takes: it is this one.
            self.forget(leaving, f"it is followed as {new} from here on", transaction)
            self.look_soon()
            return []
        if not self._is_meant(new):
            log.warning("%s is %s now, which is not followed", old, new)
            self.forget(leaving, f"it is {new} now, which is not followed", transaction)
            return []
        after = renamed(leaving, new)
        self._state.tables[leaving.schema.identity] = after
        if not leaving.copied:
            return []
        # The target has it under its old name even while its changes are skipped.
        return [*self._free(new, transaction), Evolve(leaving.schema, after.schema, transaction)]

    def _free(self, name: TableName, transaction: int) -> list[Step]:
        """Have the target give another name to the rows of a table that was dropped under this one (M9)."""
        steps: list[Step] = []
        for kept in list(self._state.kept):
            table = kept.table
            if (table.schema.lower(), table.name.lower()) == (name.schema.lower(), name.name.lower()):
                parked = replace(kept, table=table.parked(f"_dropped_{kept.identity}"))
                self._state.park(kept, parked)
                log.info("the rows of %s that the target keeps are in %s from here on", table, parked.table)
                steps.append(Evolve(kept, parked, transaction))
        return steps

    def _alter(self, entry: TableState, actions: tuple[Action, ...], transaction: int) -> list[Step]:
        faults.point("schema.before")
        try:
            found = evolved(entry, actions, self._state.flavor)
        except CopyAgain:
            self.copy_again(entry, "it was altered in a way that the log does not show", transaction)
            return []
        after = found.entry
        if after.key_index != entry.key_index and after.schema.key != entry.schema.key:
            after = self._rekeyed(after)
        self._state.tables[entry.schema.identity] = after
        steps: list[Step] = []
        if after.schema != entry.schema:
            log.info("%s changed its shape", entry.schema.table)
            faults.point("schema.after")
            steps.append(Evolve(entry.schema, after.schema, transaction, found.fill))
        if found.doubt is not None:
            steps += self.suspect(after, found.doubt, transaction)
        if moved := ", ".join(action.what for action in actions if isinstance(action, Moved)):
            steps += self.suspect(after, f"{moved} changes rows, and the log does not have them", transaction)
        return steps

    def _rekeyed(self, entry: TableState) -> TableState:
        """A table that has another key, by which those who keep its rows have to find them again."""
        log.warning("%s is copied again: it has another key", entry.schema.table)
        self.look_soon()
        return replace(entry, rekeyed=True)


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
        # Hashes, expressions and moments that the server keeps for itself stand behind the others. Without names
        # only their number tells that nothing else does: a column that nobody knows is never taken for one (M7, M20).
        moments = 0 if entry.row_end is None else 2
        if len(wire) != len(schema.columns) + moments + entry.hidden or entry.row_end:
            return None
        if entry.row_end is not None:
            row_end = len(schema.columns) + 1
        chosen = tuple(range(len(schema.columns)))
    if not all(fits(source, wire[place]) for source, place in zip(sources, chosen, strict=True)):
        return None
    laid = {place: laid_out(source, wire[place]) for source, place in zip(sources, chosen, strict=True)}
    if row_end is not None:  # a moment, of six digits in both of its columns
        laid |= {n: laid_out(_MOMENT, column) for n, column in enumerate(wire) if n not in laid}
    wire = tuple(laid.get(place, column) for place, column in enumerate(wire))
    of = {default.column: default for default in entry.defaults}
    defaults = tuple(of.get(column.identity) for column in schema.columns)
    place_of_column = {column.identity: place for column, place in zip(schema.columns, chosen, strict=True)}
    bases = {
        place_of_column[one.column]: tuple(place_of_column.get(base, -1) for base in one.bases)
        for one in entry.generated
        if one.column in place_of_column
    }
    return Plan(schema, wire, chosen, sources, defaults, row_end, bases)
