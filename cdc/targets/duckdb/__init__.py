"""DuckDB: an embedded file that holds the tables, and the checkpoint in the same transactions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cdc.targets.duckdb.target import DuckDbTarget


def target_factory(path: str, *, memory: int) -> Callable[[], DuckDbTarget]:
    """What opens the target."""
    return lambda: DuckDbTarget(Path(path), memory)
