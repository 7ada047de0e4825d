"""PostgreSQL: the WAL through logical decoding (pgoutput), and what was there before it through COPY."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from cdc.selection import Selection
from cdc.sources.postgres.connection import Dsn
from cdc.sources.postgres.source import PostgresSource, Settings
from cdc.sources.postgres.tail import TailSource


def source_factory(
    dsn: str, *, name: str, selection: Selection, include_keyless: bool, workers: int, budget: int
) -> Callable[[], PostgresSource]:
    """Check a DSN's form and return what opens the source; raises UsageError."""
    parsed = Dsn.parse(dsn)
    settings = Settings(name, f"cdc_{name}", selection, include_keyless, workers, budget)
    return lambda: PostgresSource(parsed, settings)


def tail_factory(
    dsn: str, *, slot: str | None, selection: Selection, include_keyless: bool, budget: int
) -> Callable[[], TailSource]:
    """Check a DSN's form and return what opens a source without a snapshot; raises UsageError."""
    parsed = Dsn.parse(dsn)
    name = slot or f"cdc_tail_{secrets.token_hex(4)}"
    settings = Settings("tail", name, selection, include_keyless, 1, budget)
    return lambda: TailSource(parsed, settings, keep=slot is not None)
