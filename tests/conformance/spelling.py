"""DuckDB's values as the source's texts, spelled by Python: no line of cdc has a part in it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

_QUOTED = re.compile(r'[{}",\\\s]')
_UNITS = ("year", "mon", "day")


def asked(column: str, kind: str) -> str:
    """What to ask DuckDB for, of a column of a type."""
    if kind.startswith(("FLOAT", "DOUBLE")):
        return column
    if kind == "BLOB":
        return f"hex({column})"
    if kind == "INTERVAL":
        parts = [f"datepart('{unit}', {column})" for unit in ("year", "month", "day", "hour", "minute", "microsecond")]
        return f"CASE WHEN {column} IS NOT NULL THEN [{', '.join(parts)}] END"
    if kind.endswith("[]"):
        return f"CAST({column} AS VARCHAR{kind[len(kind.rstrip('[]')) :]})"
    return f"CAST({column} AS VARCHAR)"


def speller(kind: str) -> Callable[[Any], str | None]:
    """What makes a text of what DuckDB answers."""
    if kind.endswith("[]"):
        inner = speller(kind.removesuffix("[]"))
        return lambda value: None if value is None else _list([inner(each) for each in value], kind)
    spell = _SPELLERS.get(kind, str)
    return lambda value: None if value is None else spell(value)


def _list(elements: list[str | None], kind: str) -> str:
    return "{" + ",".join(_element(each, is_list=kind.endswith("[][]")) for each in elements) + "}"


def _element(text: str | None, *, is_list: bool) -> str:
    if text is None:
        return "NULL"
    if not is_list and (text == "" or text.upper() == "NULL" or _QUOTED.search(text)):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


def _float(value: float, shortest: str, digits: int) -> str:
    """As PostgreSQL writes them since 12: the shortest digits, and an exponent from so many on."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    mantissa, _, exponent = shortest.partition("e")
    mantissa = mantissa.removesuffix(".").removesuffix(".0")
    if value == 0 or -5 < int(exponent) < digits:
        return np.format_float_positional(np.float32(value) if digits == 6 else value, unique=True, trim="-")
    return f"{mantissa}e{int(exponent):+03d}"


def double(value: float) -> str:
    """A 64-bit floating-point number."""
    return _float(value, np.format_float_scientific(value, unique=True, trim="-"), 15)


def single(value: float) -> str:
    """A 32-bit one."""
    return _float(value, np.format_float_scientific(np.float32(value), unique=True, trim="-"), 6)


def _moment(text: str) -> str:
    return text.replace(" (BC)", "") + " BC" if "(BC)" in text else text


def _interval(parts: list[int]) -> str:
    *dates, hour, minute, micros = parts
    text, after_negative = [], False
    for amount, unit in zip(dates, _UNITS, strict=True):
        if amount:
            text.append(f"{'+' if after_negative and amount > 0 else ''}{amount} {unit}{'s' * (amount != 1)}")
            after_negative = amount < 0
    if hour or minute or micros or not text:
        sign = "-" if min(hour, minute, micros) < 0 else "+" if after_negative else ""
        seconds, rest = divmod(abs(micros), 1_000_000)
        fraction = f".{rest:06d}".rstrip("0") if rest else ""
        text.append(f"{sign}{abs(hour):02d}:{abs(minute):02d}:{seconds:02d}{fraction}")
    return " ".join(text)


_SPELLERS: dict[str, Callable[[Any], str]] = {
    "BOOLEAN": lambda text: text[0],
    "BLOB": lambda text: f"\\x{text.lower()}",
    "FLOAT": single,
    "DOUBLE": double,
    "DATE": _moment,
    "TIMESTAMP": _moment,
    "TIMESTAMP WITH TIME ZONE": _moment,
    "INTERVAL": _interval,
}
