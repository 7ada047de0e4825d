"""Reading the histories in a file that no pipeline has open: versions of a row, a table as it was, what differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
from sqlglot import exp

from cdc.errors import UsageError
from cdc.model.moment import HOW_TO_WRITE, Moment, written
from cdc.model.schema import TableName
from cdc.tables import sql
from cdc.tables.answers import Event, Known, Place, Row, events, named, not_known, plain, unknown
from cdc.tables.applied import mapped_errors
from cdc.tables.control import opened
from cdc.tables.gaps import Gaps
from cdc.tables.places import SCHEMA, place_macro
from cdc.tables.published import BEGIN, END, SINCE, as_of, inside, stored, versions_view
from cdc.tables.table import OURS
from cdc.targets.duckdb.engine import DuckDbEngine

_MEMORY = 256 << 20
_AT_ONCE = 10_000
_PLAIN = {"BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
_FLOATS = {"FLOAT", "DOUBLE"}


class Histories:
    """The histories of one file."""

    def __init__(self, engine: DuckDbEngine) -> None:
        self._engine = engine
        self._connection = engine.connection
        self._gaps = Gaps(engine)

    def table(self, name: str) -> Known:
        """Find a table by `schema.table`, or by its name alone if there is one of that name.

        Raises:
            UsageError: there is none, or more than one.
        """
        found = [
            Known(identity, TableName(schema, table), tuple(key))
            for schema, table, key, identity in self._connection.execute(
                f"SELECT schema_name, table_name, key, identity FROM {SCHEMA}.tables ORDER BY ALL"
            ).fetchall()
        ]
        return named(name, found, self._engine.place)

    def place(self, known: Known, at: str) -> Place:
        """Where a position or a time is in the history of a table.

        Raises:
            UsageError: it is neither, or not a moment of this history.
            NotKnown: it is in a gap of it.
        """
        asked = Moment.parse(at)
        try:
            found = self._connection.execute("SELECT _cdc_place(?, ?)", [str(asked), known.identity]).fetchone()
        except duckdb.InvalidInputException as error:
            message = str(error).removeprefix("Invalid Input Error: ")
            raise UsageError(f"{known.table}: {message}", hint=HOW_TO_WRITE) from error
        order = int(found[0]) if found is not None else -1
        if (gap := self._gaps.at(known.identity, order)) is not None:
            raise not_known(self._engine.address, known, asked, gap)
        here = self._commit(f"position_order <= {order} ORDER BY position_order DESC") or "unknown"
        ahead = self._commit(f"position_order > {order} AND committed_at > now() ORDER BY position_order")
        return Place(order, str(asked), here, ahead if asked.time is not None else None)

    def _commit(self, which: str) -> str | None:
        """A commit as people read it: its position and its own time."""
        query = f"SELECT position, epoch_us(committed_at) FROM {SCHEMA}.commits WHERE {which} LIMIT 1"
        found = self._connection.execute(query).fetchone()
        return f"{found[0]}, {written(found[1])}" if found is not None else None

    def versions(self, known: Known, key: Sequence[str]) -> list[Event]:
        """What happened to the rows that have had a key, one event after the other."""
        known.refuse_key(key)
        view = versions_view(known.table)
        kinds = self._engine.columns(view)
        columns = [name for name in kinds if not name.startswith(OURS)]
        same = [_is_written(name, kinds[name], text) for name, text in zip(known.key, key, strict=True)]
        ours = [sql.cast(sql.column(name), "VARCHAR") if "time" in name else sql.column(name) for name in BEGIN | END]
        query = (
            exp.select(*self._values(view, columns), *ours)
            .from_(sql.table(view))
            .where(*same)
            .order_by("_cdc_valid_from", "_cdc_ordinal NULLS LAST", "_cdc_valid_to NULLS LAST")
        )
        found = self._connection.execute(self._engine.render(query)).fetchall()
        rows = [plain(columns, row) for row in found]
        told = list(events(rows, [dict(zip(BEGIN | END, row[len(columns) :], strict=True)) for row in found]))
        if told:
            told += [(gap.begins, unknown(gap)) for gap in self._gaps.of(known.identity)]
        return [event for _, event in sorted(told, key=lambda entry: entry[0])]

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
                gone = exp.except_(exp.select("*").from_(old.copy()), exp.select("*").from_(new.copy()), distinct=False)
                query = exp.select(*self._values(known.table, columns)).from_(gone.subquery("gone"))
                yield from ((row, None) if old is then else (None, row) for row in self._rows(columns, query))
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

    def _values(self, of: TableName, columns: Sequence[str], alias: str | None = None) -> list[exp.Expression]:
        """Numbers and booleans as such, everything else as text."""
        kinds = self._engine.columns(of)
        return [
            sql.column(name, alias) if kinds[name] in _PLAIN | _FLOATS else sql.cast(sql.column(name, alias), "VARCHAR")
            for name in columns
        ]

    def _rows(self, columns: Sequence[str], query: exp.Select) -> Iterator[Row]:
        return (plain(columns, row) for row in self._fetched(query))

    def _fetched(self, query: exp.Select) -> Iterator[tuple[Any, ...]]:
        with mapped_errors(self._engine):
            cursor = self._connection.execute(self._engine.render(query))
            while rows := cursor.fetchmany(_AT_ONCE):
                yield from rows


@contextmanager
def open_histories(path: str) -> Iterator[Histories]:
    """The histories of a file.

    Raises:
        TargetBusy: a pipeline has it open.
        UsageError: there is no such file, or no history in it.
    """
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"There is no file {file}.")
    with opened(DuckDbEngine(file, _MEMORY, read_only=True)) as engine:
        yield histories_of(engine)


def histories_of(engine: DuckDbEngine) -> Histories:
    """The histories of an open database; raises UsageError if there are no histories in it."""
    columns = engine.columns(TableName(SCHEMA, "tables"))
    if not columns:
        raise UsageError(
            f"{engine.place} has no history.", hint="`cdc run ... --mode history` keeps one, from then on."
        )
    # Not those of the database, which an older version may have made.
    engine.run(place_macro("_cdc_place", SINCE if "since" in columns else "CAST(NULL AS BIGINT)"))
    return Histories(engine)


def _is_written(name: str, kind: str, text: str) -> exp.Condition:
    """Whether a column has the value that a text stands for; a UUID may be written in other ways than DuckDB's."""
    value = exp.EQ(this=sql.cast(sql.column(name), "VARCHAR"), expression=sql.literal(text))
    if kind != "UUID":
        return value
    return exp.EQ(this=sql.column(name), expression=sql.try_cast(sql.literal(text), kind))


def _rows_at(known: Known, columns: list[str], place: Place) -> exp.Subquery:
    """A table's rows at a place."""
    now, was = map(inside, stored(known.identity))
    return as_of(columns, now, was, str(place.order)).subquery("t")
