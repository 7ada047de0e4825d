"""Names that go from one followed table to another: no two tables of a target have one name at any moment.

The log says a table's name with its next row only, which may never come: a table that was renamed `t_old`, and has no
row since, is still `t` to us when the new `t` comes. What it is called now is in the catalog.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from cdc.model.schema import TableName
from cdc.sources.postgres.catalog import Table
from cdc.sources.postgres.relation import Moved
from cdc.sources.postgres.state import SourceState

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Moves:
    """What makes room for names: of other tables, before and after those names are taken."""

    before: list[Moved] = field(default_factory=list)
    after: list[Moved] = field(default_factory=list)


def make_room(state: SourceState, claims: Mapping[int, TableName], today: Mapping[int, Table]) -> Moves:
    """Give other tables the names that they have now, or one that nobody has, in the state as well.

    Args:
        claims: the names that some tables, by oid, are about to have.
        today: those of the state's tables that exist now.
    """
    moves, names = Moves(), dict(claims)  # what each table is called in the end
    while (displaced := next(_displaced(state, names), None)) is not None:
        now = today[displaced].schema.table if displaced in today else None
        if now is not None and now not in names.values():
            names[displaced] = now
            if now not in {entry.schema.table for entry in state.tables.values()}:
                moves.before.append(_rename(state, displaced, now))
                continue
        moves.before.append(_rename(state, displaced, _parked(state, displaced, was_dropped=now is None)))
    for oid in state.tables.keys() & today.keys() - names.keys():
        if state.tables[oid].schema.table.name.endswith(_parking(oid)):
            now = today[oid].schema.table
            if now not in {names.get(other, entry.schema.table) for other, entry in state.tables.items()}:
                names[oid] = now
    for oid, name in names.items():
        if oid not in claims and state.tables[oid].schema.table != name:
            moves.after.append(_rename(state, oid, name))
    return moves


def _displaced(state: SourceState, names: Mapping[int, TableName]) -> Iterator[int]:
    """Tables that have a name which another one is to have."""
    taken = set(names.values())
    return (oid for oid, entry in state.tables.items() if oid not in names and entry.schema.table in taken)


def _parking(oid: int) -> str:
    return f"_renamed_{oid}"


def _parked(state: SourceState, oid: int, *, was_dropped: bool) -> TableName:
    """A name for a table that has none of its own, for good or for the moment."""
    return state.tables[oid].schema.table.parked(f"_dropped_{oid}" if was_dropped else _parking(oid))


def _rename(state: SourceState, oid: int, name: TableName) -> Moved:
    """What the log said of it last stays as it is: if it says so again, that is no news."""
    entry = state.tables[oid]
    state.tables[oid] = replace(entry, schema=replace(entry.schema, table=name))
    log.info("%s is called %s from here on", entry.schema.table, name)
    return Moved(entry.schema, state.tables[oid].schema)
