"""Which statements a reader may have run: those that only read."""

from __future__ import annotations

import re

import duckdb

from cdc.serve.refusals import READ_ONLY, Refused, refusal

_EXPLAIN = re.compile(
    r"""(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*explain\b(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*(?:analy[sz]e\b)?
        (?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*(?:\([^()]*\))?""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)


def statements(sql: str) -> list[str]:
    """Cut a text into its statements.

    Raises:
        Refused: its syntax is wrong.
    """
    try:
        return [found.query for found in duckdb.extract_statements(sql)]
    except duckdb.Error as error:
        raise refusal(error) from error


def refuse_writing(statement: str) -> None:
    """Let through what only reads. DuckDB parses it, so nothing can be hidden in a comment or a quoted name.

    Raises:
        Refused: it is another statement, or more than one.
    """
    kinds = _kinds(statement)
    if kinds == [duckdb.StatementType.EXPLAIN]:
        inner = _EXPLAIN.match(statement)
        kinds = _kinds(statement[inner.end() :]) if inner is not None else kinds
    if kinds != [duckdb.StatementType.SELECT]:
        named = ", ".join(kind.name.replace("_", " ") for kind in kinds) or "an empty statement"
        raise Refused(
            f"This copy is read only: SELECT and EXPLAIN are answered, {named} is not.",
            READ_ONLY,
            hint="The pipeline alone writes; change the source.",
        )


def _kinds(sql: str) -> list[duckdb.StatementType]:
    try:
        return [found.type for found in duckdb.extract_statements(sql)]
    except duckdb.Error as error:
        raise refusal(error) from error
