"""How ClickHouse writes names, texts, and the version of a row: UInt128, of ORDER and ORDINAL as one number."""

from __future__ import annotations

from cdc.model.schema import TableName

VERSION = "_cdc_version"
LOW = (1 << 64) - 1


def quoted(name: str) -> str:
    """An identifier."""
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


def qualified(prefix: str, table: TableName) -> str:
    """A table in the database of its schema."""
    return f"{quoted(prefix + table.schema)}.{quoted(table.name)}"


def literal(text: str) -> str:
    """A text."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def order_of(version: str) -> str:
    """The ORDER in a version."""
    return f"toInt64(bitShiftRight({version}, 64))"


def ordinal_of(version: str) -> str:
    """The ORDINAL in it."""
    return f"toUInt64(bitAnd({version}, {LOW}))"


def begin_of(order: str) -> str:
    """The first version that an ORDER can have."""
    return f"bitShiftLeft(toUInt128({order}), 64)"
