"""What identifies a table's rows in the log, and what keeps its updates from being published.

PostgreSQL asks the table that holds the row: of a partitioned table, the leaf. A published table whose rows have no
identity cannot be updated by anybody, the application first (A-35).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from cdc.model.schema import TableName

_REFUSES_GENERATED = 180000  # the first version that refuses identities with generated columns that are not published


@dataclass(frozen=True, slots=True)
class Leaf:
    """A table that holds rows: an ordinary one is its own, a partitioned one has any number.

    Attributes:
        table: its name.
        kind: p permanent, u unlogged, f foreign.
        identity: pg_class.relreplident: d default, n nothing, f full, i index.
        index: names of the columns of the index that identifies its rows; empty without one, and on FULL.
        generated: names of its generated columns, which the log leaves out.
    """

    table: TableName
    kind: str
    identity: str
    index: frozenset[str]
    generated: frozenset[str]


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why the updates and deletes of a table cannot be followed.

    Attributes:
        message: what is so.
        fix: the SQL that changes it.
        is_of_inserts: its inserts cannot be followed either.
    """

    message: str
    fix: str
    is_of_inserts: bool = False


def carries_whole_rows(identity: str, leaves: Sequence[Leaf]) -> bool:
    """Whether the old row of every change is whole: the table says so, and each of its leaves does."""
    return identity == "f" and all(leaf.identity == "f" for leaf in leaves)


def find_obstacle(
    table: TableName, identity: str, key: frozenset[str], leaves: Sequence[Leaf], version: int
) -> Obstacle | None:
    """What keeps the changes of a table from being published, or from being followed.

    Args:
        identity: pg_class.relreplident of the table itself.
        key: names of the columns of its key, generated ones among them.
        leaves: that hold its rows.
        version: of the server, as 180004.
    """
    for leaf in leaves:
        if leaf.kind == "f":
            detach = f"ALTER TABLE {_quoted(table)} DETACH PARTITION {_quoted(leaf.table)};"
            return Obstacle(f"Its partition {leaf.table} is a foreign table, which the log lacks", detach, True)
        if leaf.kind != "p":
            set_logged = f"ALTER TABLE {_quoted(leaf.table)} SET LOGGED;"
            return Obstacle(f"Its partition {leaf.table} is unlogged", set_logged, True)
    for leaf in leaves:
        what = "It" if leaf.table == table else f"Its partition {leaf.table}"
        if leaf.identity == "f":
            if leaf.generated and version >= _REFUSES_GENERATED:
                return Obstacle(f"{what} has generated columns and REPLICA IDENTITY FULL", _default(table, leaf, key))
        elif not leaf.index:
            return Obstacle(_nothing(what, leaf.identity), _identify_leaf(table, identity, leaf, key, version))
        elif leaf.index & leaf.generated:
            return Obstacle(f"{what} is identified by a generated column, which the log leaves out", _index(leaf.table))
    if carries_whole_rows(identity, leaves):
        return None
    if not key:
        return Obstacle(_nothing("It", identity), _identify(table, identity, full_helps=_full_helps(leaves, version)))
    for leaf in leaves:
        if leaf.identity != "f" and not key <= leaf.index:
            return Obstacle(
                f"Its partition {leaf.table} is identified by other columns than the table",
                f"ALTER TABLE {_quoted(leaf.table)} REPLICA IDENTITY {'FULL' if identity == 'i' else 'DEFAULT'};",
            )
    return None


def _nothing(what: str, identity: str) -> str:
    match identity:
        case "n":
            return f"{what} has REPLICA IDENTITY NOTHING"
        case "i":
            return f"{what} has lost the index of its replica identity"
        case _:
            return f"{what} has no primary key, or one that is deferrable"


def _full_helps(leaves: Sequence[Leaf], version: int) -> bool:
    return version < _REFUSES_GENERATED or not any(leaf.generated for leaf in leaves)


def _identify(table: TableName, identity: str, *, full_helps: bool) -> str:
    """How a table without an identity gets one."""
    name = _quoted(table)
    fix = (
        f"ALTER TABLE {name} REPLICA IDENTITY DEFAULT;  -- with a primary key" if identity in "ni" else _add_key(table)
    )
    return fix + (f"  -- or: ALTER TABLE {name} REPLICA IDENTITY FULL;" if full_helps else "")


def _identify_leaf(table: TableName, identity: str, leaf: Leaf, key: frozenset[str], version: int) -> str:
    full_helps = _full_helps([leaf], version)
    if leaf.table == table:
        return _identify(table, identity, full_helps=full_helps)
    if key and identity != "i":
        return f"ALTER TABLE {_quoted(leaf.table)} REPLICA IDENTITY DEFAULT;"
    return f"ALTER TABLE {_quoted(leaf.table)} REPLICA IDENTITY FULL;" if full_helps else _add_key(table)


def _default(table: TableName, leaf: Leaf, key: frozenset[str]) -> str:
    """How a leaf gets away from FULL."""
    default = f"ALTER TABLE {_quoted(leaf.table)} REPLICA IDENTITY DEFAULT;"
    return default if key and not key & leaf.generated else f"{_add_key(table)} {default}"


def _add_key(table: TableName) -> str:
    return f"ALTER TABLE {_quoted(table)} ADD PRIMARY KEY (...);"


def _index(table: TableName) -> str:
    return f"ALTER TABLE {_quoted(table)} REPLICA IDENTITY USING INDEX ...;  -- a unique one of NOT NULL columns"


def _quoted(table: TableName) -> str:
    return sql.Identifier(table.schema, table.name).as_string()
