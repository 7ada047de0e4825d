"""Whether a value as this program spells it is the one that `pymysqlreplication` made an object of."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import orjson

from cdc.model.schema import Kind
from cdc.sources.mysql.types import SourceType, logical_type

_NOT_COMPARED = frozenset({"uuid", "inet4", "inet6", "vector"})  # of which the library knows the bytes at best
_SECOND = datetime.timedelta(seconds=1)
_YEAR_OF_ZERO = 1900  # what the library says for 0000


def are_alike(of: SourceType, ours: str | None, theirs: Any) -> bool:
    """Whether both have read the same value; True where the library has no form for the type.

    Args:
        ours: text, as a `ChangeEvent` has it.
        theirs: an object of Python.
    """
    if of.base in _NOT_COMPARED:
        return True
    if ours is None or theirs is None:
        return ours is None and theirs is None
    try:
        return _rule(of)(ours, theirs)
    except (ValueError, TypeError, ArithmeticError, UnicodeError):
        return False


def _rule(of: SourceType) -> Callable[[str, Any], bool]:
    if of.is_geometry:
        return _geometry
    return _RULES.get(of.base, _bytes if logical_type(of).kind is Kind.BYTES else _text)


def _number(ours: str, theirs: Any) -> bool:
    return Decimal(ours) == Decimal(theirs)


def _float(ours: str, theirs: Any) -> bool:
    return bool(np.float32(ours) == np.float32(theirs))


def _double(ours: str, theirs: Any) -> bool:
    return bool(float(ours) == theirs)


def _year(ours: str, theirs: Any) -> bool:
    return bool(int(ours) == (0 if theirs == _YEAR_OF_ZERO else theirs))


def _bit(ours: str, theirs: Any) -> bool:
    return int(ours) == int(theirs, 2)


def _date(ours: str, theirs: Any) -> bool:
    return bool(datetime.date.fromisoformat(ours) == theirs)


def _moment(ours: str, theirs: Any) -> bool:
    return bool(datetime.datetime.fromisoformat(ours).replace(tzinfo=None) == theirs)


def _time(ours: str, theirs: Any) -> bool:
    hours, minutes, seconds = ours.removeprefix("-").split(":")
    found = datetime.timedelta(hours=int(hours), minutes=int(minutes), microseconds=int(Decimal(seconds) * 1_000_000))
    if not ours.startswith("-"):
        return bool(found == theirs)
    # The library takes the fraction of a negative time for what is missing to the next second.
    return bool(found // _SECOND == -theirs // _SECOND)


def _set(ours: str, theirs: Any) -> bool:
    return bool(set(ours.split(",") if ours else ()) == theirs)


def _json(ours: str, theirs: Any) -> bool:
    return _same_document(orjson.loads(ours), theirs)


def _same_document(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, bytes):
        theirs = theirs.decode()
    if isinstance(theirs, dict):
        named = {name.decode() if isinstance(name, bytes) else name: value for name, value in theirs.items()}
        return ours.keys() == named.keys() and all(_same_document(ours[name], named[name]) for name in named)
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(_same_document(*pair) for pair in zip(ours, theirs, strict=True))
    if isinstance(theirs, (datetime.date, datetime.time, datetime.timedelta)):
        return isinstance(ours, str)  # which spells it in a way of its own
    if isinstance(theirs, Decimal):
        return bool(float(theirs) == ours)
    return bool(ours == theirs)


def _text(ours: str, theirs: Any) -> bool:
    """A charset that Python does not have leaves the library with bytes."""
    return bool(ours == theirs or isinstance(theirs, bytes))


def _geometry(ours: str, theirs: Any) -> bool:
    """Which the log has behind the number of its reference system."""
    return bytes.fromhex(ours.removeprefix("\\x")) in (theirs, theirs[4:])


def _bytes(ours: str, theirs: Any) -> bool:
    """The log leaves out zeros at the end of BINARY(n), and the library takes bytes for letters."""
    raw = theirs if isinstance(theirs, bytes) else theirs.encode("latin1")
    return bytes.fromhex(ours.removeprefix("\\x")).rstrip(b"\0") == raw.rstrip(b"\0")


_RULES: dict[str, Callable[[str, Any], bool]] = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint", "decimal"), _number),
    "float": _float,
    "double": _double,
    "year": _year,
    "bit": _bit,
    "date": _date,
    **dict.fromkeys(("datetime", "timestamp"), _moment),
    "time": _time,
    "set": _set,
    "json": _json,
}
