"""Why a reader gets no answer, with the code that PostgreSQL has for it (Appendix A of its manual)."""

from __future__ import annotations

import re

import duckdb
import pyarrow as pa

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
TOO_MANY = "53300"
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
# An error that comes after the first rows is Arrow's, and only its text says which of DuckDB's it is.
STREAM_ERRORS = (OSError, pa.ArrowException)
_OF_STREAM: dict[str, type[duckdb.Error]] = {
    "INTERRUPT Error": duckdb.InterruptException,
    "Out of Memory Error": duckdb.OutOfMemoryException,
    "Conversion Error": duckdb.ConversionException,
    "Out of Range Error": duckdb.OutOfRangeException,
    "Invalid Input Error": duckdb.InvalidInputException,
    "Permission Error": duckdb.PermissionException,
    "Not implemented Error": duckdb.NotImplementedException,
}
_NO_TABLE = re.compile(r"Table with name|View with name")
_NO_FUNCTION = re.compile(r"Function with name|No function matches")


def of_stream(error: Exception) -> duckdb.Error:
    """DuckDB's error for one of `STREAM_ERRORS`."""
    text = str(error)
    return _OF_STREAM.get(text.partition(":")[0], duckdb.Error)(text)


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
