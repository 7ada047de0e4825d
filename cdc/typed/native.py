"""Columns as native Arrow arrays of exactly the types that a database's columns have.

A database that reads a wider value than its column holds, or a text, may clamp it, wrap it or make NULL of it without a
word. So values are made native and held against the column's range here, before the database sees them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
from sqlglot import exp, parse_one

from cdc.model.arrays import LARGE, TEXT
from cdc.model.schema import LogicalType
from cdc.typed.codec import VALUE, Codec
from cdc.typed.codecs import codec_for
from cdc.typed.fitting import DIALECT, Ask, Fitting, any_of, column, read
from cdc.typed.fitting import rows as visible_rows
from cdc.typed.memory import Memory


@dataclass(frozen=True, slots=True)
class Home:
    """How a database keeps the values of a column.

    Attributes:
        sql_type: what the database calls it.
        codec: DuckDB's type through which the values go, and which writes them as the source's text.
        arrow: the type of the arrays that the database is fed with and answers with. Text, while the codec's type is
            another one, is the canonical text of a value that this type has proved.
        within: a condition in SQL over `value_`, of the codec's type, that each value fulfils which the database has a
            place for; None if it has one for all of them.
    """

    sql_type: str
    codec: Codec
    arrow: pa.DataType
    within: str | None = None

    @property
    def is_text(self) -> bool:
        """It holds the source's texts as they are."""
        return self.codec.is_text

    def outside(self, value: exp.Expression) -> exp.Expression:
        """Whether the database has no place for a value that the codec's type holds."""
        condition = parse_one(self.within or "TRUE", dialect=DIALECT).transform(
            lambda node: value.copy() if isinstance(node, exp.Column) and node.name == VALUE else node
        )
        return exp.Not(this=exp.paren(condition, copy=False))

    def fed(self, value: exp.Expression) -> exp.Expression:
        """A value of the codec's type as the database is fed with it."""
        return self.codec.render(value) if self.arrow == LARGE and not self.is_text else value


class Converter:
    """Makes arrays native by a DuckDB in memory."""

    def __init__(self) -> None:
        self._memory = Memory()
        self._fitting = Fitting()
        self._statements: dict[object, str] = {}

    def close(self) -> None:
        """May be called twice."""
        self._memory.close()

    def texts(self, homes: Mapping[str, Home], rows: pa.Table) -> pa.Table:
        """The canonical texts of what a database answered with, under the same names."""
        names = {name: f"c{number}" for number, name in enumerate(homes)}
        listed = [
            exp.alias_(homes[name].codec.render(exp.cast(column(number), homes[name].codec.type, copy=False)), number)
            for name, number in names.items()
        ]
        query = exp.select(*listed).from_(visible_rows()).sql(dialect=DIALECT)
        found = self._memory.table(query, pa.table({number: rows.column(name) for name, number in names.items()}))
        return pa.table([each.cast(TEXT) for each in found.columns], names=list(homes))

    def native(
        self, homes: Mapping[str, Home], types: Mapping[str, LogicalType], data: Mapping[str, pa.Array]
    ) -> tuple[pa.Table, list[str]]:
        """Columns in the Arrow types of their homes.

        Args:
            homes, types: of each column, by its name.
            data: texts, or arrays of what the types mean.

        Returns:
            The columns under their names, and the names of those that have a value which has no place in its home; if
            there are any, the columns are of no rows.
        """
        if not homes:
            return pa.table({}), []
        names = {name: f"c{number}" for number, name in enumerate(homes)}
        # What a source knows as NULL everywhere may be of any type.
        given = {number: _seen(data[name]) for name, number in names.items()}
        ask = partial(self._memory.ask, rows=pa.table(given))
        readings, misfits = self._fitting.of(ask, {names[name]: home.codec for name, home in homes.items()}, given)
        values = {
            name: read(homes[name].codec, codec_for(types[name]), number, readings[number])
            for name, number in names.items()
            if number not in misfits
        }
        shape = tuple((home.sql_type, types[name], readings[names[name]]) for name, home in homes.items())
        wrong = [name for name, number in names.items() if number in misfits]
        wrong += self._outside(ask, shape, {name: homes[name] for name in values}, values)
        if wrong:
            return pa.table({}), wrong
        if shape not in self._statements:
            listed = [exp.alias_(homes[name].fed(value), names[name]) for name, value in values.items()]
            self._statements[shape] = exp.select(*listed).from_(visible_rows()).sql(dialect=DIALECT)
        return _cast(self._memory.table(self._statements[shape], pa.table(given)), homes), []

    def _outside(
        self, ask: Ask, shape: tuple[object, ...], homes: Mapping[str, Home], values: Mapping[str, exp.Expression]
    ) -> list[str]:
        asked = [name for name, home in homes.items() if home.within is not None]
        if not asked:
            return []
        key = ("outside", tuple(asked), *shape)
        if key not in self._statements:
            conditions = [homes[name].outside(values[name]) for name in asked]
            self._statements[key] = any_of(conditions).sql(dialect=DIALECT)
        (answer,) = ask(self._statements[key])
        return [name for name, found in zip(asked, answer, strict=True) if found]


def _seen(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """As DuckDB can see it."""
    return array.cast(TEXT) if pa.types.is_null(array.type) else array


def _cast(made: pa.Table, homes: Mapping[str, Home]) -> pa.Table:
    arrays = [column.cast(home.arrow) for column, home in zip(made.columns, homes.values(), strict=True)]
    return pa.table(arrays, names=list(homes))
