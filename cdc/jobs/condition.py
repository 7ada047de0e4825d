"""Reading a condition that a user writes: one expression, and nothing that a server could take for anything else."""

from __future__ import annotations

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import SqlglotError

from cdc.errors import UsageError
from cdc.model.parts import Condition

_WRITES = (exp.DML, exp.DDL, exp.Command, exp.Into, exp.Lock, exp.PropertyEQ)
_LACKS = (exp.Placeholder, exp.Parameter)


def read_condition(text: str, dialect: str) -> Condition:
    """A condition as sqlglot understands it, written out again from that alone.

    So neither what ends the statement around it nor a comment that a server runs (`/*! ... */`) gets through (O2).

    Args:
        text: what stands after WHERE.
        dialect: sqlglot's name of the SQL that it is written in.

    Raises:
        UsageError: it is not exactly one expression, or something in it writes, locks or lacks a value.
    """
    try:
        (found,) = Dialect.get_or_raise(dialect).parse_into(exp.Condition, text)
    except (SqlglotError, ValueError, RecursionError) as error:
        raise _not_one("It cannot be read") from error
    if found is None or isinstance(found, exp.Star):
        raise _not_one("It is empty")
    for node in found.walk():
        if isinstance(node, _WRITES):
            raise _not_one("A part of it writes or locks")
        if isinstance(node, _LACKS):
            raise _not_one("It has a parameter or a variable")
    return Condition(found.sql(dialect=dialect, comments=False), dialect)


def _not_one(why: str) -> UsageError:
    return UsageError(
        f"--where is not a single condition in SQL: {why[0].lower()}{why[1:]}.",
        hint="Write what stands after WHERE: price > 100 AND note IS NULL",
    )
