"""Why a reader gets no answer, with the code that PostgreSQL has for it (Appendix A of its manual)."""

from __future__ import annotations

import re

import duckdb

from cdc.errors import UsageError


class Refused(UsageError):
    """A statement gets no answer, or not all of it."""

    def __init__(self, message: str, sqlstate: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.sqlstate = sqlstate


READ_ONLY = "25006"
TOO_LONG = "57014"
TOO_LARGE = "54000"
NOT_OFFERED = "0A000"
NO_FILE = "57P03"
_INTERNAL = "XX000"

_CODES: tuple[tuple[type[duckdb.Error], str], ...] = (
    (duckdb.InterruptException, TOO_LONG),
    (duckdb.ParserException, "42601"),
    (duckdb.PermissionException, "42501"),
    (duckdb.OutOfMemoryException, "53200"),
    (duckdb.ConversionException, "22P02"),
    (duckdb.OutOfRangeException, "22003"),
    (duckdb.BinderException, "42703"),
    (duckdb.InvalidInputException, "22023"),
    (duckdb.NotImplementedException, NOT_OFFERED),
)
_NO_TABLE = re.compile(r"Table with name|View with name")
_NO_FUNCTION = re.compile(r"Function with name|No function matches")


def refusal(error: duckdb.Error) -> Refused:
    """What an error of DuckDB means for the reader who caused it."""
    text = str(error)
    if isinstance(error, duckdb.CatalogException) or _NO_FUNCTION.search(text):
        if _NO_TABLE.search(text):
            return Refused(text, "42P01")
        return Refused(text, "42883" if _NO_FUNCTION.search(text) else "42704")
    code = next((code for kind, code in _CODES if isinstance(error, kind)), _INTERNAL)
    hint = "Ask for less, or give it more with --serve-memory." if code == "53200" else None
    return Refused(text, code, hint=hint)
