"""Rows of both sides, read and compared without any code of the product.

Each value is read as text on both servers and brought into one form that depends on its type in the source.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import duckdb

Row = tuple[str | None, ...]
_SHOWN = 4  # rows of a difference


class Kind(Enum):
    """What values of a column are compared as."""

    TEXT = "text"
    PRINTED = "printed"  # as text that the type itself writes: a cast takes blanks off, and gives an inet a netmask
    NUMBER = "number"
    FLOAT = "float"
    MOMENT = "moment"
    SPAN = "span"
    BYTES = "bytes"
    BITS = "bits"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A table of the source as its catalog describes it now.

    Attributes:
        columns: what values of each column are compared as, by name.
        generated: those of them that the target may leave out.
        excuse: why the target need not have its rows; None if it must.
        read: gives the rows of some columns, each value as text. What a column is in the target (`None` if it is unknown)
            decides how a list is written.
    """

    schema: str
    name: str
    columns: Mapping[str, Kind]
    generated: frozenset[str]
    excuse: str | None
    read: Callable[[list[str], Mapping[str, str]], list[Row]] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


class Target:
    """A DuckDB file that nobody writes to."""

    def __init__(self, path: Path) -> None:
        self._connection = duckdb.connect(str(path), read_only=True)
        self._connection.execute("SET TimeZone = 'UTC'")

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def columns(self, schema: str, table: str) -> dict[str, str]:
        """The type of each column; nothing if there is no such table."""
        query = "SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = ? AND table_name = ?"
        return dict(self._connection.execute(query, [schema, table]).fetchall())

    def rows(self, schema: str, table: str, columns: Mapping[str, tuple[Kind, str]]) -> list[Row]:
        """All rows, each value as text. Each column has what it is compared as, and its type here."""
        values = ", ".join(_expression(_quoted(name), *types) for name, types in columns.items())
        found = self._connection.execute(f"SELECT {values} FROM {_quoted(schema)}.{_quoted(table)}").fetchall()
        return [tuple(row) for row in found]


def differences(table: SourceTable, target: Target) -> str | None:
    """How a table differs on the two sides; None if every value of every row is the same."""
    there = target.columns(table.schema, table.name)
    if not there:
        return f"{table} is not in the target"
    missing = table.columns.keys() - there.keys() - table.generated
    extra = there.keys() - table.columns.keys()
    if missing or extra:
        return f"{table}: the target lacks the columns {sorted(missing)} and has {sorted(extra)} beside its own"
    chosen = {name: there[name] for name in table.columns if name in there}
    kinds = [table.columns[name] for name in chosen]
    ours = Counter(_canonical(row, kinds) for row in table.read(list(chosen), chosen))
    theirs = Counter(
        _canonical(row, kinds)
        for row in target.rows(
            table.schema, table.name, {name: (table.columns[name], kind) for name, kind in chosen.items()}
        )
    )
    if ours == theirs:
        return None
    return f"{table} ({', '.join(chosen)}): only in the source {_some(ours - theirs)}, only in the target {_some(theirs - ours)}"


def _some(rows: Counter[Row]) -> str:
    shown = sorted(rows.elements(), key=repr)[:_SHOWN]
    return f"{rows.total()} rows {shown}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _expression(column: str, compared_as: Kind, kind: str) -> str:
    if kind == "BLOB":
        return f"lower(hex({column}))"
    if compared_as is Kind.BYTES:  # a column that was text stays text, and has bytes as a text of PostgreSQL's form
        return f"CASE WHEN starts_with({column}, '\\x') THEN substr({column}, 3) ELSE 'not bytes: ' || {column} END"
    if kind.endswith("]"):
        return f"to_json({column})::VARCHAR"
    if kind == "FLOAT":
        column = f"{column}::DOUBLE"
    return f"CAST({column} AS VARCHAR)"


def _canonical(row: Row, kinds: list[Kind]) -> Row:
    return tuple(None if value is None else _FORMS[kind](value) for value, kind in zip(row, kinds, strict=True))


def _number(text: str) -> str:
    """Fractions digit by digit: one zero less means that the target has another type."""
    return str(int(text)) if re.fullmatch(r"-?\d+", text) else text


def _float(text: str) -> str:
    return repr(float(text))


def _moment(text: str) -> str:
    """Fractions without zeros at their end, and UTC without saying so."""
    plain = re.sub(r"(\.\d*?)0+(?!\d)", r"\1", text).replace(".+", "+").rstrip(".")
    return re.sub(r"\+00(:00)?$", "", plain)


_UNITS = {"year": 12, "mon": 1, "month": 1}


def _span(text: str) -> str:
    """Months, days and microseconds, from PostgreSQL's, MySQL's or DuckDB's way to write them."""
    months = days = microseconds = 0
    for number, unit in re.findall(r"([-+]?\d+) (year|mon|month|day)s?\b", text):
        if unit == "day":
            days += int(number)
        else:
            months += int(number) * _UNITS[unit]
    clock = re.search(r"([-+]?)(\d+):(\d\d):(\d\d)(?:\.(\d+))?", text)
    if clock is not None:
        sign, hours, minutes, seconds, fraction = clock.groups()
        whole = (int(hours) * 3600 + int(minutes) * 60 + int(seconds)) * 1_000_000 + int((fraction or "").ljust(6, "0"))
        microseconds = -whole if sign == "-" else whole
    return f"{months} {days} {microseconds}"


def _list(text: str) -> str:
    """A list in JSON. A text that is not a list stays as it is: the target has it where its lists cannot hold a value."""
    try:
        return json.dumps(_leaves(json.loads(text, parse_float=str, parse_int=str)))
    except ValueError:
        return text


def _leaves(value: Any) -> Any:
    if isinstance(value, list):
        return [_leaves(each) for each in value]
    if value is None:
        return None
    return (
        _number(value) if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?(e[-+]?\d+)?", value) else str(value)
    )


_FORMS: dict[Kind, Callable[[str], str]] = {
    Kind.TEXT: str,
    Kind.PRINTED: str,
    Kind.NUMBER: _number,
    Kind.FLOAT: _float,
    Kind.MOMENT: _moment,
    Kind.SPAN: _span,
    Kind.BYTES: str.lower,
    Kind.BITS: _number,
    Kind.LIST: _list,
}
