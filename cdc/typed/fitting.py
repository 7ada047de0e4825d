"""How columns of texts are read as values of some types: at once, or with care where a value needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

import pyarrow as pa
from sqlglot import exp

from cdc.model.arrays import TEXT
from cdc.typed.codec import Codec

DIALECT = "duckdb"  # of everything that is written here
_FEW = 64  # values
ROWS = "_cdc_rows"  # the name under which Arrow columns are visible to a statement


class Reading(Enum):
    """How one column is read in one statement."""

    FAST = "fast"
    CAREFUL = "careful"
    NATIVE = "native"  # it is no text


Readings = dict[str, Reading]


class _Question(NamedTuple):
    """Which columns have a value in the visible rows that has to be read with care.

    Attributes:
        names: of the columns that may have one.
        query: says of each whether it does; empty if there is no such column.
    """

    names: list[str]
    query: str


Ask = Callable[[str], list[tuple[Any, ...]]]  # runs a query that sees some columns as ROWS; its rows


class Fitting:
    """Asks DuckDB how columns that it sees as ROWS are to be read."""

    def __init__(self) -> None:
        self._questions: dict[tuple[tuple[str, str], ...], _Question] = {}

    def of(self, ask: Ask, codecs: Mapping[str, Codec], data: Mapping[str, pa.Array]) -> tuple[Readings, list[str]]:
        """How columns of ROWS are to be read.

        An error in a conversion would end a whole transaction, so that it must be ruled out before.

        Args:
            codecs: of the columns, by their names.
            data: their arrays; what is no text is a value already.

        Returns:
            The reading of each column, and those columns of which a value has no place in the codec's type.
        """
        readings = {name: Reading.FAST if data[name].type == TEXT else Reading.NATIVE for name in codecs}
        texts = {name: codec for name, codec in codecs.items() if readings[name] is Reading.FAST}
        question = self._question(texts)
        answer = [] if all(_is_plain(texts[name], data[name]) for name in question.names) else ask(question.query)
        suspects = [name for name, found in zip(question.names, answer[0], strict=True) if found] if answer else []
        readings.update(dict.fromkeys(suspects, Reading.CAREFUL))
        return readings, _misfits(ask, {name: texts[name] for name in suspects})

    def _question(self, texts: Mapping[str, Codec]) -> _Question:
        """Made once for columns of some types: to build it took longer than a small segment takes to apply (O50)."""
        key = tuple((name, codec.sql_type) for name, codec in texts.items())
        if (question := self._questions.get(key)) is None:
            suspicions = {
                name: suspicion
                for name, codec in texts.items()
                if (suspicion := codec.suspect(column(name))) is not None
            }
            query = any_of(list(suspicions.values())).sql(dialect=DIALECT) if suspicions else ""
            question = self._questions[key] = _Question(list(suspicions), query)
        return question


def _is_plain(codec: Codec, column: pa.Array) -> bool:
    """A question takes longer than all the rest of a small segment (O50), a look at a few texts no time at all."""
    return len(column) <= _FEW and codec.is_plain(column.cast(pa.binary_view()).to_pylist())


def _misfits(ask: Ask, suspects: Mapping[str, Codec]) -> list[str]:
    if not suspects:
        return []
    conditions = [codec.misfit(column(name)) for name, codec in suspects.items()]
    (answer,) = ask(any_of(conditions).sql(dialect=DIALECT))
    return [name for name, found in zip(suspects, answer, strict=True) if found]


def read(codec: Codec, own: Codec, name: str, reading: Reading) -> exp.Expression:
    """The value that a column of ROWS has for a codec.

    Args:
        own: the codec whose values the column has where it is no text.
    """
    text = column(name)
    if reading is Reading.NATIVE:
        value = exp.cast(text, own.type, copy=False)
        return own.render(value) if codec is not own and codec.is_text else value
    return codec.careful(text) if reading is Reading.CAREFUL else codec.parse(text)


def any_of(conditions: Sequence[exp.Expression]) -> exp.Expr:
    """One row that says of each condition whether any row of ROWS fulfils it."""
    return exp.select(*(exp.func("bool_or", condition) for condition in conditions)).from_(rows())


def column(name: str) -> exp.Column:
    """A column of ROWS, which statements call s."""
    return exp.Column(this=exp.to_identifier(name, quoted=True), table=exp.to_identifier("s", quoted=True))


def rows() -> exp.Table:
    """ROWS as s."""
    alias = exp.TableAlias(this=exp.to_identifier("s", quoted=True))
    return exp.Table(this=exp.to_identifier(ROWS, quoted=True), alias=alias)
