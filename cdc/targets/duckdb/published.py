"""What a user sees of a history: views and macros under the source's names, and commits to look places up in.

`shop.orders` is the table as it is now, `shop_history.orders` has all versions, and `shop.orders_as_of(...)` is the
table as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
from sqlglot import exp

from cdc.model.schema import TableName, TableSchema
from cdc.targets.duckdb import sql
from cdc.targets.duckdb.layout import refuse_foreign
from cdc.targets.duckdb.moments import Moments
from cdc.targets.duckdb.table import DROPPED, TargetTable, actual_columns

SCHEMA = "_cdc_history"

BEGIN = {
    "_cdc_valid_from": "BIGINT",
    "_cdc_valid_from_position": "VARCHAR",
    "_cdc_valid_from_time": "TIMESTAMP WITH TIME ZONE",
    "_cdc_op": "VARCHAR",
    "_cdc_transaction": "BIGINT",
    "_cdc_ordinal": "BIGINT",
}
END = {
    "_cdc_valid_to": "BIGINT",
    "_cdc_valid_to_position": "VARCHAR",
    "_cdc_valid_to_time": "TIMESTAMP WITH TIME ZONE",
    "_cdc_ended_by": "VARCHAR",
    "_cdc_ended_transaction": "BIGINT",
    "_cdc_ended_ordinal": "BIGINT",
}

_AT = "_cdc_at"  # the macros' parameter, which no column of a followed table can be called

# A place is a number, a position's text, or a time, which is that of the last commit up to then: commits do not always
# come in the order of their times, and the state is always one that the source was in. A place in the log of
# PostgreSQL need not be that of a commit: it stands for all that were before it.
_PLACE = f"""
CREATE OR REPLACE MACRO {SCHEMA}.place({_AT}) AS coalesce(
    TRY_CAST(CAST({_AT} AS VARCHAR) AS BIGINT),
    (SELECT max(position_order) FROM {SCHEMA}.commits WHERE position = CAST({_AT} AS VARCHAR)),
    CASE WHEN regexp_full_match(CAST({_AT} AS VARCHAR), '[0-9A-Fa-f]{{1,8}}/[0-9A-Fa-f]{{1,8}}')
        THEN CAST('0x' || split_part(CAST({_AT} AS VARCHAR), '/', 1) AS BIGINT) * 4294967296
            + CAST('0x' || split_part(CAST({_AT} AS VARCHAR), '/', 2) AS BIGINT) - 1 END,
    CASE WHEN TRY_CAST(CAST({_AT} AS VARCHAR) AS TIMESTAMPTZ) IS NULL
        THEN CAST(error('not a position of this history, and not a time: ' || CAST({_AT} AS VARCHAR)) AS BIGINT) END,
    (SELECT max(position_order) FROM {SCHEMA}.commits
        WHERE committed_at <= TRY_CAST(CAST({_AT} AS VARCHAR) AS TIMESTAMPTZ)),
    -1);
"""
_CREATE = f"""
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
CREATE TABLE IF NOT EXISTS {SCHEMA}.commits (
    position_order BIGINT, position VARCHAR, committed_at TIMESTAMPTZ, transaction BIGINT);
CREATE TABLE IF NOT EXISTS {SCHEMA}.tables (
    identity BIGINT, schema_name VARCHAR, table_name VARCHAR, key VARCHAR[], copied_since BIGINT);
"""


class Registry:
    """The tables of a file that have a history, and the commits that it knows. Nothing here commits."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._last: int | None = None  # order of the newest commit
        self._is_copying = True  # a copy may have been cut off

    def commits(self, execute: Callable[[str], object], moments: Moments) -> None:
        """Add moments, which ROWS has as o, p, t and x; those that came already are left out."""
        if self._last is None:
            self._connection.execute(_CREATE + _PLACE)
            known = self._connection.execute(f"SELECT max(position_order) FROM {SCHEMA}.commits").fetchone()
            self._last = known[0] if known is not None and known[0] is not None else -1
        execute(f"INSERT INTO {SCHEMA}.commits SELECT o, p, t, x FROM {sql.ROWS} WHERE o > {self._last}")
        self._last = max(self._last, int(moments.order[-1]))

    def name(self, schema: TableSchema) -> None:
        """Remember the name and the key that a table has now."""
        since = self.copied_since(schema)
        self._connection.execute(f"DELETE FROM {SCHEMA}.tables WHERE identity = ?", [schema.identity])
        key = [schema.columns[index].name for index in schema.key]
        values = [schema.identity, schema.table.schema, schema.table.name, key, since]
        self._connection.execute(f"INSERT INTO {SCHEMA}.tables VALUES (?, ?, ?, ?, ?)", values)

    def copy_begins(self, schema: TableSchema, order: int) -> None:
        """A table's versions end at a place, to go on if the copy finds them again."""
        self._is_copying = True
        self._connection.execute(
            f"UPDATE {SCHEMA}.tables SET copied_since = coalesce(copied_since, ?) WHERE identity = ?",
            [order, schema.identity],
        )

    def copied_since(self, schema: TableSchema) -> int | None:
        """Where the copy of a table that has not ended, or the first try of it, began."""
        query = f"SELECT copied_since FROM {SCHEMA}.tables WHERE identity = ?"
        found = self._connection.execute(query, [schema.identity]).fetchone()
        return found[0] if found is not None else None

    def copies_end(self) -> None:
        """All copies that had begun are complete: what they did not find again has gone."""
        if self._is_copying:
            self._connection.execute(f"UPDATE {SCHEMA}.tables SET copied_since = NULL WHERE copied_since IS NOT NULL")
            self._is_copying = False


def versions_view(table: TableName) -> TableName:
    """The view that has all versions of a table."""
    return TableName(f"{table.schema}_history", table.name)


def refuse_taken(connection: duckdb.DuckDBPyConnection, path: Path, table: TableName) -> None:
    """Raise UsageError if the file has something else under a name that a table's views are to have."""
    for name in (table, versions_view(table)):
        refuse_foreign(connection, path, name)


def unpublish(connection: duckdb.DuckDBPyConnection, table: TableName) -> None:
    """Take away the views and the macro of a table."""
    for view in (table, versions_view(table)):
        connection.execute(sql.render(exp.Drop(kind="VIEW", tables=[sql.table(view)], exists=True)))
    connection.execute(f"DROP MACRO TABLE IF EXISTS {_macro(table)}")


def publish(connection: duckdb.DuckDBPyConnection, table: TargetTable) -> None:
    """Make the views and the macro of a table as it is now."""
    assert table.past is not None
    name = table.schema.table
    columns = [column.name for column in table.schema.columns]
    dropped = sorted(other for other in actual_columns(connection, table.name) if other.startswith(DROPPED))
    everything = [*columns, *dropped, *BEGIN]
    now, was = _inside(table.name), _inside(table.past)
    ends = [exp.alias_(sql.cast(exp.Null(), kind), text, quoted=True) for text, kind in END.items()]
    current = exp.select(*map(sql.column, everything), *ends).from_(now)
    ended = exp.select(*map(sql.column, [*everything, *END])).from_(was)
    for view, query in (
        (name, exp.select(*map(sql.column, columns)).from_(now)),
        (versions_view(name), exp.union(current, ended, distinct=False)),
    ):
        connection.execute(sql.create_schema(view.schema))
        connection.execute(sql.render(exp.Create(kind="VIEW", this=sql.table(view), expression=query, replace=True)))
    connection.execute(f"CREATE OR REPLACE MACRO {_macro(name)}({_AT}) AS TABLE {_as_of(columns, now, was)}")


def _as_of(columns: list[str], now: exp.Table, was: exp.Table) -> str:
    """The versions that had begun at a place, and had not ended."""
    place = exp.Dot(this=exp.to_identifier(SCHEMA), expression=exp.Anonymous(this="place", expressions=[exp.var(_AT)]))
    begun = exp.LTE(this=sql.column("_cdc_valid_from"), expression=place)
    lasts = exp.GT(this=sql.column("_cdc_valid_to"), expression=place.copy())
    shown = [sql.column(text) for text in columns]
    still = exp.select(*shown).from_(now).where(begun)
    ended = exp.select(*(column.copy() for column in shown)).from_(was).where(exp.and_(begun.copy(), lasts))
    return sql.render(exp.union(still, ended, distinct=False))


def _macro(table: TableName) -> str:
    return sql.render(sql.table(TableName(table.schema, f"{table.name}_as_of")))


def _inside(table: TableName) -> exp.Table:
    """A table as views name it: without the name of the file, which is another one for each who opens it."""
    return exp.Table(this=sql.name(table.name), db=sql.name(table.schema))
