"""Times and sizes as people write them on a command line."""

from __future__ import annotations

import re
from typing import Annotated, overload

import typer

from cdc.errors import UsageError

_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}

TimeOption = Annotated[str | None, typer.Option("--age", metavar="TIME", help="Older than this: 7d, 12h.")]
BytesOption = Annotated[str | None, typer.Option("--size", metavar="SIZE", help="Beyond so much in all: 100GB.")]


@overload
def seconds_of(text: str) -> float: ...
@overload
def seconds_of(text: str | None) -> float | None: ...
def seconds_of(text: str | None) -> float | None:
    """`90s`, `30m`, `1h` or `1d` in seconds."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        raise UsageError(f"{text!r} is not a time.", hint="Write it as 90s, 30m, 1h or 1d.")
    return float(found[1]) * _TIMES[found[2]]


def bytes_of(text: str | None) -> int | None:
    """`500MB`, `100GB` in bytes."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]B)", text.strip())
    if found is None:
        raise UsageError(f"{text!r} is not a size.", hint="Write it as 500MB or 100GB.")
    return int(float(found[1]) * _SIZES[found[2]])
