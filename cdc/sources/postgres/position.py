"""Log sequence numbers, as PostgreSQL writes them, and its clock."""

from __future__ import annotations

from cdc.model.position import Position

EPOCH = 946_684_800_000_000  # PostgreSQL counts microseconds from 2000-01-01; this is that day in Unix microseconds


def write_lsn(order: int) -> str:
    """23935560 -> `0/16D3748`."""
    return f"{order >> 32:X}/{order & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> int:
    """`0/16D3748` -> 23935560."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) | int(low, 16)


def lsn(order: int) -> Position:
    """The position at an LSN."""
    return Position(order, write_lsn(order))
