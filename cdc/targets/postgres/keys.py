"""How tables have the keys of the source's: with an index that finds rows by them, or as primary keys."""

from __future__ import annotations

from collections.abc import Sequence

from cdc.errors import UsageError
from cdc.model.schema import TableName
from cdc.tables.engine import Engine
from cdc.tables.state import SCHEMA
from cdc.target import Keys
from cdc.targets.postgres.connection import Session

_INDEXES = """
SELECT c.conname, (
    SELECT array_agg(a.attname::text ORDER BY k.place)
    FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number WHERE k.place <= i.indnkeyatts)
FROM pg_index i LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.contype = 'p'
WHERE i.indrelid = to_regclass(%s) AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
"""
_REQUIRED = """
SELECT attname::text FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped AND attnotnull AND attname <> ALL(%s)
"""


def take_keys(engine: Engine, wanted: Keys | None, *, is_new: bool) -> Keys:
    """How the tables of a target have their keys; one without any tables takes on what is wanted.

    Raises:
        UsageError: it is another way than is wanted.
    """
    engine.run(f"CREATE TABLE IF NOT EXISTS {SCHEMA}.keys (keys VARCHAR)")
    rows = engine.ask(f"SELECT keys FROM {SCHEMA}.keys")
    found = Keys(rows[0][0]) if rows else Keys.INDEX
    if is_new:
        found = wanted or Keys.INDEX
        engine.run(f"DELETE FROM {SCHEMA}.keys")
        engine.run(f"INSERT INTO {SCHEMA}.keys VALUES (?)", [found.value])
    if wanted is not None and found is not wanted:
        raise UsageError(
            f"The target's tables were made with --keys {found}, and cannot go on with {wanted}.",
            hint=f"Leave --keys out (or write {found}), or copy into another database. Keys and indexes that you make "
            "yourself are left alone.",
        )
    return found


def index_key(session: Session, table: TableName, key: Sequence[str]) -> None:
    """Have an index by which the rows of a table are found, unless there is one already. It is not a unique one: it
    stays when the key becomes another one, and values of the former may come again."""
    indexes = session.execute(_INDEXES, [quoted(table)]).fetchall()
    if key and not any(columns[: len(key)] == list(key) for _, columns in indexes):
        session.execute(f"CREATE INDEX ON {quoted(table)} ({_listed(key)})".encode())


def make_primary(session: Session, table: TableName, key: Sequence[str]) -> None:
    """Have a primary key of these columns, in the place of another one, which makes its columns required no longer."""
    found = session.execute(_INDEXES, [quoted(table)]).fetchall()
    primary = {name: columns for name, columns in found if name is not None}
    if list(primary.values()) == ([list(key)] if key else []):
        return
    for name in primary:
        session.execute(f"ALTER TABLE {quoted(table)} DROP CONSTRAINT {quoted_name(name)}".encode())
    required = session.execute(_REQUIRED, [quoted(table), list(key)]).fetchall()
    actions = [f"ALTER {quoted_name(name)} DROP NOT NULL" for (name,) in required]
    if key:
        actions.append(f"ADD PRIMARY KEY ({_listed(key)})")
    if actions:
        session.execute(f"ALTER TABLE {quoted(table)} {', '.join(actions)}".encode())


def quoted(table: TableName) -> str:
    return f"{quoted_name(table.schema)}.{quoted_name(table.name)}"


def quoted_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(quoted_name, names))
