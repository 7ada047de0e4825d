"""The values of a statement's parameters, as a driver sends them, as SQL."""

from __future__ import annotations

import datetime
import re
import uuid
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import Format

from cdc.serve.pgwire import values
from cdc.targets.duckdb.refusals import Refused

_CASTS = {
    values.BOOL: "BOOLEAN",
    values.DATE: "DATE",
    values.TIME: "TIME",
    values.TIMETZ: "TIMETZ",
    values.JSON: "JSON",
    values.TIMESTAMP: "TIMESTAMP",
    values.TIMESTAMPTZ: "TIMESTAMPTZ",
    values.INTERVAL: "INTERVAL",
    values.UUID: "UUID",
    3802: "JSON",
    values.FLOAT4: "FLOAT",
    values.FLOAT8: "DOUBLE",
}
_INTEGERS = (values.INT2, values.INT4, values.INT8, 26)
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def literal(content: bytes | None, oid: int, form: Format) -> str:
    """A value as SQL.

    A text of no type stays one without: DuckDB then reads `id = '5'` as the number, as PostgreSQL does.

    Raises:
        Refused: it cannot be read as what it is said to be.
    """
    if content is None:
        return "NULL"
    try:
        if form is Format.TEXT:
            text = content.decode()
            if (oid in _INTEGERS or oid == values.NUMERIC) and _NUMBER.fullmatch(text):
                return f"({text})"
            if oid == values.NUMERIC or oid in _INTEGERS:
                return f"CAST({_quoted(text)} AS DOUBLE)"
            if oid in _CASTS:
                return f"CAST({_quoted(text)} AS {_CASTS[oid]})"
            if oid not in values.ARRAYS.values() and oid != values.BYTEA:
                return _quoted(text)
        return written(Transformer().get_loader(oid or values.TEXT, form).load(content))
    except (psycopg.Error, ValueError, TypeError) as error:
        raise Refused(f"A parameter is not a value of its type: {error}", "22P02") from error


def written(value: Any) -> str:
    """A value as SQL; raises ValueError or Refused if it cannot be."""
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).upper()
        case int() | Decimal() if _NUMBER.fullmatch(str(value)):
            return f"({value})"
        case float() | Decimal():
            return f"CAST({_quoted(str(value))} AS DOUBLE)"
        case bytes():
            return f"unhex({_quoted(value.hex())})"
        case datetime.datetime():
            return f"CAST({_quoted(str(value))} AS {'TIMESTAMPTZ' if value.tzinfo else 'TIMESTAMP'})"
        case datetime.date():
            return f"CAST({_quoted(str(value))} AS DATE)"
        case datetime.time():
            return f"CAST({_quoted(str(value))} AS {'TIMETZ' if value.tzinfo else 'TIME'})"
        case datetime.timedelta():
            return f"to_microseconds({value // datetime.timedelta(microseconds=1)})"
        case uuid.UUID():
            return f"CAST({_quoted(str(value))} AS UUID)"
        case list():
            return f"[{', '.join(map(written, value))}]"
        case str():
            return _quoted(value)
    raise Refused(f"A parameter of the type {type(value).__name__} cannot be given.", "0A000")


def _quoted(text: str) -> str:
    if "\0" in text:
        raise ValueError("a zero byte")
    return "'" + text.replace("'", "''") + "'"
