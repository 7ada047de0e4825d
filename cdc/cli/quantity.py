"""Durations and sizes as people write them on a command line: `30s`, `64MB`."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Annotated, overload

import typer

from cdc.errors import UsageError
from cdc.settings.key import Written

log = logging.getLogger(__name__)

_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}

AgeOption = Annotated[
    str | None, typer.Option("--age", metavar="DURATION", help="Remove files that are older than this: 7d, 12h.")
]
SizeOption = Annotated[
    str | None,
    typer.Option("--size", metavar="SIZE", help="Remove the oldest files if all of them have more than this: 100GB."),
]
MemoryOption = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help="Memory that DuckDB may use, at least 64MB. [default: 256MB]"),
]
LEAST_MEMORY = 64 << 20


@overload
def seconds_of(option: str, text: str) -> float: ...
@overload
def seconds_of(option: str, text: str | None) -> float | None: ...
def seconds_of(option: str, text: str | None) -> float | None:
    """`90s`, `30m`, `1h` or `1d` in seconds.

    Raises:
        UsageError: it is not written so; `option` is what it was given for.
    """
    return _read(option, text, "a duration", _TIMES, "90s, 30m, 1h or 1d", "s")


def share_of(option: str, text: str) -> float:
    """`20%` as 0.2; between 1 and 100 percent."""
    found = re.fullmatch(r"(\d{1,3})%", text.strip())
    if found is None or not 1 <= int(found[1]) <= 100:
        raise UsageError(f"{option} {text!r} is not a share of a core.", hint="Write it as 20%, between 1% and 100%.")
    return int(found[1]) / 100


@overload
def bytes_of(option: str, text: str, least: int = 0, most: int | None = None) -> int: ...
@overload
def bytes_of(option: str, text: str | None, least: int = 0, most: int | None = None) -> int | None: ...
def bytes_of(option: str, text: str | None, least: int = 0, most: int | None = None) -> int | None:
    """`500MB`, `100GB` in bytes.

    Raises:
        UsageError: it is no size, or not between `least` and `most`; `option` is what it was given for.
    """
    found = _read(option, text, "a size", _SIZES, "500MB or 100GB", "MB")
    if found is None:
        return None
    if found < least:
        raise UsageError(f"{option} {text} is too small.", hint=f"Give at least {least >> 20}MB.")
    if most is not None and found > most:
        raise UsageError(f"{option} {text} is too large.", hint=f"Give at most {most >> 20}MB.")
    return int(found)


def _read(
    option: str, text: str | None, what: str, units: Mapping[str, int], examples: str, was_meant: str
) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(rf"(\d+(?:\.\d+)?)\s*({'|'.join(units)})?", text.strip())
    if found is None:
        raise UsageError(f"{option} {text!r} is not {what}.", hint=f"Write it as {examples}.")
    if found[2] is None:
        log.warning("Write %s %s%s: from the next release on, a number needs a unit.", option, text.strip(), was_meant)
    return float(found[1]) * units[found[2] or was_meant]


# The forms of texts by what options have as their metavar.
WRITTEN = {
    "DURATION": Written("a duration", r"^\d+(\.\d+)?\s*[smhd]$", "90s, 30m, 1h or 1d", seconds_of),
    "SIZE": Written("a size", r"^\d+(\.\d+)?\s*(kB|MB|GB|TB)$", "500MB or 100GB", bytes_of),
    "PERCENT": Written("a share", r"^\d{1,3}%$", "10%", share_of),
}
