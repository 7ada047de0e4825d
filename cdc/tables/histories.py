"""Reading the histories in a database: versions of a row, a table as it was, what differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlglot import exp

from cdc.errors import UsageError
from cdc.model.moment import HOW_TO_WRITE, Moment, written
from cdc.model.schema import TableName
from cdc.tables import sql
from cdc.tables.answers import Event, Known, Place, Row, events, named, not_known, plain, unknown
from cdc.tables.engine import Engine
from cdc.tables.failures import mapped_errors
from cdc.tables.gaps import Gaps
from cdc.tables.places import SCHEMA, place_query
from cdc.tables.published import BEGIN, END, SINCE, as_of, inside, stored, versions_view
from cdc.tables.table import OURS


class Histories:
    """The histories of one open database.

    Raises:
        UsageError: there are none in it.
    """

    def __init__(self, engine: Engine) -> None:
        columns = engine.columns(TableName(SCHEMA, "tables"))
        if not columns:
            raise UsageError(
                f"{engine.place} has no history.", hint="`cdc run ... --mode history` keeps one, from then on."
            )
        self._engine = engine
        self._gaps = Gaps(engine)
        self._since = SINCE if "since" in columns else "CAST(NULL AS BIGINT)"  # which older versions did not have

    def table(self, name: str) -> Known:
        """Find a table by `schema.table`, or by its name alone if there is one of that name.

        Raises:
            UsageError: no table has that name, or several have.
        """
        found = [
            Known(identity, TableName(schema, table), tuple(key))
            for schema, table, key, identity in self._engine.ask(
                f"SELECT schema_name, table_name, key, identity FROM {SCHEMA}.tables ORDER BY 1, 2, 3, 4"
            )
        ]
        return named(name, found, self._engine.place)

    def place(self, known: Known, at: str) -> Place:
        """Where a position or a time is in the history of a table.

        Raises:
            UsageError: it is neither, or not a moment of this history.
            NotKnown: it is in a gap of it.
        """
        asked = Moment.parse(at)
        # Not by the function of the database, which an older version may have made.
        query = place_query(self._engine, self._since, at=sql.literal(str(asked)), table=exp.convert(known.identity))
        ((place, refusal),) = self._engine.ask(query)
        if refusal is not None:
            raise UsageError(f"{known.table}: {refusal}", hint=HOW_TO_WRITE)
        order = int(place)
        if (gap := self._gaps.at(known.identity, order)) is not None:
            raise not_known(self._engine.address, known, asked, gap)
        here = self._commit(f"position_order <= {order} ORDER BY position_order DESC") or "unknown"
        ahead = self._commit(f"position_order > {order} AND committed_at > now() ORDER BY position_order")
        return Place(order, str(asked), here, ahead if asked.time is not None else None)

    def _commit(self, which: str) -> str | None:
        """A commit as people read it: its position and its own time."""
        query = f"SELECT position, micros(committed_at) FROM {SCHEMA}.commits WHERE {which} LIMIT 1"
        found = self._engine.ask(sql.worded(self._engine, query))
        return f"{found[0][0]}, {written(found[0][1])}" if found else None

    def versions(self, known: Known, key: Sequence[str]) -> list[Event]:
        """What happened to the rows that have had a key, one event after the other."""
        known.refuse_key(key)
        view = versions_view(known.table)
        kinds = self._engine.columns(view)
        columns = [name for name in kinds if not name.startswith(OURS)]
        same = [self._engine.is_written(name, kinds[name], text) for name, text in zip(known.key, key, strict=True)]
        ours = [sql.cast(sql.column(name), "VARCHAR") if "time" in name else sql.column(name) for name in BEGIN | END]
        query = (
            exp.select(*self._values(view, columns), *ours)
            .from_(sql.table(view))
            .where(*same)
            .order_by("_cdc_valid_from", "_cdc_ordinal NULLS LAST", "_cdc_valid_to NULLS LAST")
        )
        found = self._engine.ask(query)
        rows = [plain(columns, row) for row in found]
        entries = list(events(rows, [dict(zip(BEGIN | END, row[len(columns) :], strict=True)) for row in found]))
        if entries:
            entries += [(gap.begins, unknown(gap)) for gap in self._gaps.of(known.identity)]
        return [event for _, event in sorted(entries, key=lambda entry: entry[0])]

    def as_of(self, known: Known, place: Place) -> tuple[list[str], Iterator[Row]]:
        """The names of a table's columns, and its rows as they were."""
        columns = list(self._engine.columns(known.table))
        query = exp.select(*self._values(known.table, columns)).from_(_rows_at(known, columns, place))
        if known.key:
            query = query.order_by(*map(sql.column, known.key))
        return columns, self._rows(columns, query)

    def diff(self, known: Known, before: Place, after: Place) -> Iterator[tuple[Row | None, Row | None]]:
        """Rows that differ between two places, as they were at each; None where there was none."""
        columns = list(self._engine.columns(known.table))
        then, now = (_rows_at(known, columns, place) for place in (before, after))
        if not known.key:
            for old, new in ((then, now), (now, then)):
                had, has = (exp.select(*self._values(known.table, columns)).from_(rows.copy()) for rows in (old, new))
                gone = exp.except_(had, has, distinct=False)
                yield from ((row, None) if old is then else (None, row) for row in self._rows(columns, gone))
            return
        then.set("alias", exp.TableAlias(this=sql.name("a")))
        now.set("alias", exp.TableAlias(this=sql.name("b")))
        same = [exp.EQ(this=sql.column(name, "a"), expression=sql.column(name, "b")) for name in known.key]
        texts = [[sql.cast(sql.column(name, side), "VARCHAR") for name in columns] for side in ("a", "b")]
        differs = exp.or_(*(exp.NullSafeNEQ(this=a, expression=b) for a, b in zip(*texts, strict=True)))
        query = (
            exp.select(
                *(exp.Not(this=exp.Is(this=sql.column(known.key[0], s), expression=exp.Null())) for s in ("a", "b")),
                *self._values(known.table, columns, "a"),
                *self._values(known.table, columns, "b"),
            )
            .from_(then)
            .join(now, on=exp.and_(*same), join_type="full")
            .where(differs)
            .order_by(*(exp.func("coalesce", sql.column(name, "a"), sql.column(name, "b")) for name in known.key))
        )
        width = len(columns)
        for was, is_there, *values in self._fetched(query):
            yield (
                plain(columns, values[:width]) if was else None,
                plain(columns, values[width:]) if is_there else None,
            )

    def _values(self, of: TableName, columns: Sequence[str], alias: str | None = None) -> list[exp.Expr]:
        """Values as JSON has them, under their names."""
        kinds = self._engine.columns(of)
        return [
            exp.alias_(self._engine.as_json(sql.column(name, alias), kinds[name]), name, quoted=True)
            for name in columns
        ]

    def _rows(self, columns: Sequence[str], query: exp.Query) -> Iterator[Row]:
        return (plain(columns, row) for row in self._fetched(query))

    def _fetched(self, query: exp.Query) -> Iterator[tuple[Any, ...]]:
        with mapped_errors(self._engine):
            yield from self._engine.each(query)


def _rows_at(known: Known, columns: list[str], place: Place) -> exp.Subquery:
    """A table's rows at a place."""
    now, was = map(inside, stored(known.identity))
    return as_of(columns, now, was, exp.convert(place.order)).subquery("t")
