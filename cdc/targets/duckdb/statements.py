"""Cutting a text into statements, and which of them a reader may have run: those that only read."""

from __future__ import annotations

import re
from collections.abc import Iterator

import duckdb

from cdc.targets.duckdb.refusals import READ_ONLY, Refused, refusal

_EXPLAIN = re.compile(r"explain\b\s*(?:analy[sz]e\b)?\s*(?:\([^()]*\))?", re.IGNORECASE)


def tokens(sql: str) -> Iterator[tuple[str, duckdb.token_type]]:
    """The words of a text with what stands between them, by DuckDB's own lexer.

    Raises:
        Refused: there is an end missing.
    """
    text = sql.encode()
    try:
        found = duckdb.tokenize(sql)
    except duckdb.Error as error:
        raise refusal(error) from error
    ends = [place for place, _ in found[1:]] + [len(text)]
    for (begins, kind), ends_at in zip(found, ends, strict=True):
        yield text[begins:ends_at].decode(), kind


def statements(sql: str) -> list[str]:
    """The statements of a text, without comments, and none that is empty."""
    found = [""]
    for token, kind in tokens(sql):
        if kind == duckdb.token_type.comment:
            found[-1] += " "
        elif kind == duckdb.token_type.operator and token.startswith(";"):
            found.append("")
        else:
            found[-1] += token
    return [text for statement in found if (text := statement.strip())]


def with_values(sql: str, values: list[str]) -> str:
    """A statement with SQL in the places of `$1`, `$2`, or of each `?`.

    Raises:
        Refused: there is a place for which there is no value.
    """
    if (count := places(sql)) > len(values):
        raise Refused(f"There is no value for the parameter ${count}.", "42P02")
    return "".join(f" {values[place - 1]} " if place is not None else token for token, place in _places(sql))


def places(sql: str) -> int:
    """How many parameters a statement has."""
    return max((place for _, place in _places(sql) if place is not None), default=0)


def _places(sql: str) -> Iterator[tuple[str, int | None]]:
    """The words of a statement, each that stands for a value with its number."""
    asked, is_place = 0, False
    for token, kind in tokens(sql):
        is_operator = kind == duckdb.token_type.operator
        if is_place and kind == duckdb.token_type.numeric_const and token.strip().isdigit():
            yield token, int(token)
        elif is_operator and token.strip() == "?":
            asked += 1
            yield token, asked
        elif not (is_operator and token == "$"):
            yield token, None
        is_place = is_operator and token == "$"


def refuse_writing(statement: str) -> None:
    """Let through what only reads. DuckDB parses it, so nothing can be hidden in a comment or a quoted name.

    Raises:
        Refused: it is another statement, or more than one.
    """
    kinds = _kinds(statement)
    if kinds == [duckdb.StatementType.EXPLAIN]:  # EXPLAIN ANALYZE carries out what follows
        inner = _EXPLAIN.match("".join(statements(statement)))
        kinds = _kinds("".join(statements(statement))[inner.end() :]) if inner is not None else []
    if kinds == [duckdb.StatementType.MULTI]:
        raise Refused(
            "DuckDB makes a type for this statement, and nothing is written here.",
            READ_ONLY,
            hint="Name the values of a PIVOT: PIVOT orders ON kind IN ('a', 'b') USING sum(price)",
        )
    if kinds != [duckdb.StatementType.SELECT]:
        named = ", ".join(kind.name.replace("_", " ") for kind in kinds) or "an empty statement"
        raise Refused(
            f"Nothing is written here: SELECT and EXPLAIN are answered, {named} is not.",
            READ_ONLY,
            hint="The pipeline alone writes; change the source.",
        )


def _kinds(sql: str) -> list[duckdb.StatementType]:
    try:
        return [found.type for found in duckdb.extract_statements(sql)]
    except duckdb.Error as error:
        raise refusal(error) from error
