"""What a user sees of a history: views and functions under the source's names, and commits to look places up in.

`shop.orders` is the table as it is now, `shop_history.orders` has all versions, and `shop.orders_as_of(...)` is the
table as it was.
"""

from __future__ import annotations

from sqlglot import exp

from cdc.model.schema import TableName, TableSchema
from cdc.tables import gaps, sql
from cdc.tables.engine import Engine, Input
from cdc.tables.layout import refusing_foreign
from cdc.tables.moments import Moments
from cdc.tables.places import AT, NOT_YET, PLACE, SCHEMA, TABLE, place_query
from cdc.tables.table import DROPPED, TargetTable

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

# As `sql.worded` takes them.
_CREATE = (
    f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}",
    f"CREATE TABLE IF NOT EXISTS {SCHEMA}.commits (position_order BIGINT, position VARCHAR, committed_at TIMESTAMPTZ, "
    "transaction BIGINT)",
    f"CREATE TABLE IF NOT EXISTS {SCHEMA}.tables (identity BIGINT, schema_name VARCHAR, table_name VARCHAR, "
    "key VARCHAR[], copied_since BIGINT)",
    f"ALTER TABLE {SCHEMA}.tables ADD COLUMN IF NOT EXISTS since BIGINT",
    f"CREATE OR REPLACE VIEW {SCHEMA}.times AS SELECT *, max(committed_at) OVER (ORDER BY position_order) AS time "
    f"FROM {SCHEMA}.commits WHERE transaction IS NOT NULL",
    *gaps.CREATE,
)
_PLACES, _PLACE = "_cdc_places", "_cdc_place"
SINCE = f"(SELECT since FROM {SCHEMA}.tables WHERE identity = {TABLE})"


class Registry:
    """The tables of a target that have a history, and the commits that it knows. Nothing here commits."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._last: int | None = None  # order of the newest commit
        self._is_copying = True  # a copy may have been cut off
        self._gaps = gaps.Gaps(engine)

    def commits(self, moments: Moments) -> None:
        """Add moments; those that came already are left out."""
        last = self._last if self._last is not None else self._begin()
        with self._engine.visible(Input({}, dict(zip(("o", "p", "t", "x"), moments.columns, strict=True)))):
            self._engine.run(f"INSERT INTO {SCHEMA}.commits SELECT o, p, t, x FROM {sql.ROWS} WHERE o > {last}")
        self._last = max(last, int(moments.order[-1]))

    def _begin(self) -> int:
        """Make what is not there, also in a file that an older version made; the order of the newest commit, or -1."""
        for statement in _CREATE:
            self._engine.run(sql.worded(self._engine, statement))
        for looked_up in ("position_order", "position"):
            self._engine.made(TableName(SCHEMA, "commits"), [looked_up], is_unique=False)
        self._engine.make_lookup(PLACE, AT, TABLE, place_query(self._engine, SINCE, gaps.UNKNOWN))
        ((known,),) = self._engine.ask(f"SELECT max(position_order) FROM {SCHEMA}.commits")
        self._last = int(known) if known is not None else -1
        return self._last

    def begin(self, schema: TableSchema, order: int) -> None:
        """A table's history begins at a place, or NOT_YET; what it was before is not known."""
        self._name(schema, None, order)

    def is_whole(self, schema: TableSchema, order: int) -> None:
        """A table that came by parts has all of them at a place, where its history begins unless it has begun."""
        self._engine.run(
            f"UPDATE {SCHEMA}.tables SET since = ? WHERE identity = ? AND since = {NOT_YET}", [order, schema.identity]
        )

    def name(self, schema: TableSchema) -> None:
        """Remember the name and the key that a table has now."""
        if self._last is None:
            self._begin()
        found = self._engine.ask(
            f"SELECT copied_since, since FROM {SCHEMA}.tables WHERE identity = ?", [schema.identity]
        )
        self._name(schema, *(found[0] if found else (None, None)))

    def _name(self, schema: TableSchema, copied_since: int | None, since: int | None) -> None:
        self._engine.run(f"DELETE FROM {SCHEMA}.tables WHERE identity = ?", [schema.identity])
        key = [schema.columns[index].name for index in schema.key]
        values = [schema.identity, schema.table.schema, schema.table.name, key, copied_since, since]
        self._engine.run(f"INSERT INTO {SCHEMA}.tables VALUES (?, ?, ?, ?, ?, ?)", values)

    def copy_begins(self, schema: TableSchema, order: int) -> None:
        """A table's versions end at a place, to go on if the copy finds them again."""
        self._is_copying = True
        self._engine.run(
            f"UPDATE {SCHEMA}.tables SET copied_since = coalesce(copied_since, ?) WHERE identity = ?",
            [order, schema.identity],
        )

    def unknown_from(self, identity: int, order: int, reason: str, *, is_doubt: bool, is_skipped: bool) -> None:
        """From a place on it is not known what a table was."""
        if self._last is None:
            self._begin()
        self._gaps.begin(identity, order, reason, is_doubt=is_doubt, is_skipped=is_skipped)

    def nothing_is_skipped(self, identity: int) -> None:
        """A table's changes are followed from here on."""
        if self._last is None:
            self._begin()
        self._gaps.copy_begins(identity)

    def differed(self, identity: int) -> None:
        """Rows of a table were other ones than they should have been."""
        if self._last is None:
            self._begin()
        self._gaps.confirm(identity)

    def known_at(self, identity: int, order: int) -> None:
        """At a place it is known again."""
        if self._last is None:
            self._begin()
        self._gaps.end(identity, order)

    def copied_since(self, schema: TableSchema) -> int | None:
        """Where the copy of a table that has not ended, or the first try of it, began."""
        query = f"SELECT copied_since FROM {SCHEMA}.tables WHERE identity = ?"
        found = self._engine.ask(query, [schema.identity])
        return found[0][0] if found else None

    def copies_end(self, order: int) -> None:
        """All copies that had begun are complete, as of a place: what they did not find again has gone."""
        if self._is_copying:
            self._gaps.end_copied(order)
            self._engine.run(f"UPDATE {SCHEMA}.tables SET copied_since = NULL WHERE copied_since IS NOT NULL")
            self._is_copying = False


def stored(identity: int) -> tuple[TableName, TableName]:
    """Where the current and the past versions of a table are, by the source's number for it."""
    return TableName(SCHEMA, f"current_{identity}"), TableName(SCHEMA, f"past_{identity}")


def versions_view(table: TableName) -> TableName:
    """The view that has all versions of a table."""
    return TableName(f"{table.schema}_history", table.name)


def views(table: TableName) -> tuple[TableName, TableName]:
    """The views of a table: of its rows as they are now, and of all versions."""
    return table, versions_view(table)


def refuse_taken(engine: Engine, table: TableName) -> None:
    """Raise UsageError if the target has something else under a name that a table's views are to have."""
    for name in views(table):
        with refusing_foreign(engine, name):  # `publish` puts the view in the place of this one
            engine.run(sql.create_schema(name.schema))
            engine.run(exp.Create(kind="VIEW", this=sql.table(name), expression=exp.select("1")))


def unpublish(engine: Engine, table: TableName) -> None:
    """Take away the views and the function of a table."""
    engine.drop_rows(_as_of(table))
    for view in views(table):
        engine.run(sql.drop_view(view))


def publish(engine: Engine, table: TargetTable) -> None:
    """Make the views and the function of a table as it is now."""
    assert table.past is not None
    name = table.schema.table
    columns = [column.name for column in table.schema.columns]
    dropped = sorted(other for other in engine.columns(table.name) if other.startswith(DROPPED))
    everything = [*columns, *dropped, *BEGIN]
    now, was = inside(table.name), inside(table.past)
    ends = [exp.alias_(sql.cast(exp.Null(), kind), text, quoted=True) for text, kind in END.items()]
    current = exp.select(*map(sql.column, everything), *ends).from_(now)
    ended = exp.select(*map(sql.column, [*everything, *END])).from_(was)
    for view, query in zip(
        views(name),
        (exp.select(*map(sql.column, columns)).from_(now), exp.union(current, ended, distinct=False)),
        strict=True,
    ):
        engine.run(sql.create_schema(view.schema))
        engine.make_view(view, query)
    place = exp.Dot(
        this=sql.name(PLACE.schema),
        expression=exp.Anonymous(
            this=sql.name(PLACE.name), expressions=[sql.column(AT), exp.convert(table.schema.identity)]
        ),
    )
    held = dict(zip(columns, table.codecs, strict=True))
    engine.make_rows(_as_of(name), AT, held, as_of(columns, now, was, place))


def as_of(columns: list[str], now: exp.Table, was: exp.Table, place: exp.Expr) -> exp.Query:
    """The versions that had begun at a place, and had not ended.

    Args:
        now, was: the current versions, and the past ones.
        place: is looked up once, and also where there is no row: it may be an error. PostgreSQL does so since each part
            asks first, without any row, whether there is one.
    """
    at = exp.select(_PLACE).from_(_PLACES).subquery()
    is_there = exp.Not(this=exp.Is(this=at, expression=exp.Null()))
    begun = exp.and_(is_there, exp.LTE(this=sql.column("_cdc_valid_from"), expression=at.copy()))
    lasts = exp.GT(this=sql.column("_cdc_valid_to"), expression=at.copy())
    shown = [sql.column(text) for text in columns]
    still = exp.select(*shown).from_(now).where(begun)
    ended = exp.select(*(column.copy() for column in shown)).from_(was).where(exp.and_(begun.copy(), lasts))
    rows = exp.union(still, ended, distinct=False)
    return rows.with_(_PLACES, exp.select(exp.alias_(place, _PLACE)), materialized=True)


def _as_of(table: TableName) -> TableName:
    """The function that has the rows of a table as they were."""
    return TableName(table.schema, f"{table.name}_as_of")


def inside(table: TableName) -> exp.Table:
    """A table as views name it: without the name of the file, which is another one for each who opens it."""
    return exp.Table(this=sql.name(table.name), db=sql.name(table.schema))
