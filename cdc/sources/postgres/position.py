"""Log sequence numbers, as PostgreSQL writes them, and its clock."""

from __future__ import annotations

import re

from cdc.errors import DecodeError
from cdc.model.position import Position

EPOCH = 946_684_800_000_000  # PostgreSQL counts microseconds from 2000-01-01; this is that day in Unix microseconds

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


def write_lsn(order: int) -> str:
    """23935560 -> `0/16D3748`."""
    return f"{order >> 32:X}/{order & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> int:
    """`0/16D3748` -> 23935560; raises DecodeError for anything else."""
    found = _LSN.fullmatch(text)
    if found is None:
        raise DecodeError(f"{text!r} is not a position in a log of PostgreSQL.")
    return (int(found[1], 16) << 32) | int(found[2], 16)


def lsn(order: int) -> Position:
    """The position at an LSN."""
    return Position(order, write_lsn(order))
