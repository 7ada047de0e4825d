"""How a type of a target's database holds the values of a logical type: read from the source's text, and written back
as exactly that text.

Everything rests on one property, which the tests hold against real servers: `render(careful(text)) == text`, or the
type has no place for the value and the column becomes text. Where `suspect(text)` is false, `parse` is as good as
`careful`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from sqlglot import exp, parse_one

VALUE = "value_"  # stands in a template for the expression that is put there


@dataclass(frozen=True, slots=True)
class Codec:
    """One type of a database as the home of one logical type; the templates are SQL over `value_`.

    Attributes:
        sql_type: as the database names it where it lists the columns of a table.
        dialect: of the templates and the type.
        is_text: it holds the source's text as it is.
    """

    sql_type: str
    _parse: str = VALUE
    _render: str = VALUE
    _careful: str | None = None
    _suspect: str | None = None
    _fits: str | None = None
    dialect: str = "duckdb"
    is_text: bool = False
    _plain: re.Pattern[bytes] | None = None

    @property
    def type(self) -> exp.DataType:
        """The type in statements."""
        return exp.DataType.build(self.sql_type, dialect=self.dialect, udt=True)

    @property
    def rendering(self) -> str:
        """The template that writes a value."""
        return self._render

    def parse(self, text: exp.Expression) -> exp.Expression:
        """Text to value; may fail or change the value where `suspect` holds."""
        return self._fill(self._parse, text)

    def careful(self, text: exp.Expression) -> exp.Expression:
        """Text to value, or NULL where the type cannot hold it."""
        return self._fill(self._careful or self._parse, text)

    def suspect(self, text: exp.Expression) -> exp.Expression | None:
        """Whether `parse` must not be trusted with a text; None if it always may be."""
        return self._fill(self._suspect, text) if self._suspect is not None else None

    def is_plain(self, texts: Iterable[bytes | None]) -> bool:
        """Whether `suspect` is known to be false for each of some texts, without a question to the database."""
        plain = self._plain
        return plain is not None and all(text is None or plain.fullmatch(text) for text in texts)

    def misfit(self, text: exp.Expression) -> exp.Expression:
        """Whether the type has no place for a text: it does not come back as it went in."""
        if self._fits is not None:
            return exp.Not(this=self._fill(self._fits, text))
        back = self.render(self.careful(text))
        changed = exp.NullSafeNEQ(this=back, expression=text.copy())
        return exp.And(this=exp.Not(this=exp.Is(this=text.copy(), expression=exp.Null())), expression=changed)

    def render(self, value: exp.Expression) -> exp.Expression:
        """Value to the source's text."""
        return self._fill(self._render, value)

    def _fill(self, template: str, value: exp.Expression) -> exp.Expression:
        def put(node: exp.Expression) -> exp.Expression:
            return value.copy() if isinstance(node, exp.Column) and node.name == VALUE else node

        return exp.paren(_parsed(template, self.dialect).transform(put), copy=False)


@cache
def _parsed(template: str, dialect: str) -> exp.Expression:
    parsed = parse_one(template, dialect=dialect)
    assert isinstance(parsed, exp.Expression)
    return parsed
