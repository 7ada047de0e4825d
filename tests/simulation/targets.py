"""The targets that schedules are tried with, and how to look into them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Protocol

from cdc.model.change import Op
from cdc.model.position import Checkpoint
from cdc.model.segment import Segment
from cdc.target import Target
from cdc.targets.duckdb.target import DuckDbTarget
from cdc.testing import MemoryTarget

Held = dict[str, tuple[list[str], list[tuple[Any, ...]]]]  # columns and sorted rows of each table


class Probed(Target, Protocol):
    """A target that can be looked into.

    Attributes:
        checkpoint: what is durable.
        changes: every change that became durable, if the target knows.
    """

    checkpoint: Checkpoint | None
    changes: list[tuple[int, int, Op, int]] | None

    def held(self) -> Held:
        """What is visible in it."""

    def remove(self) -> None:
        """Leave nothing behind."""


class Memory(MemoryTarget):
    """Dictionaries."""

    def held(self) -> Held:
        return {
            str(table.schema.table): ([column.name for column in table.schema.columns], sorted(table.rows(), key=order))
            for table in self.tables.values()
        }

    def remove(self) -> None: ...


class DuckDb:
    """A DuckDB file, which is opened and closed as the process lives and dies."""

    changes = None

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="cdc-simulation-"))
        self._target = DuckDbTarget(self._folder / "t.duckdb", 128 << 20)
        self.checkpoint: Checkpoint | None = None

    def open(self) -> Checkpoint | None:
        found = self._target.open()
        assert found == self.checkpoint, "what was durable is not there any more"
        return found

    def close(self) -> None:
        self._target.close()

    def apply(self, segment: Segment) -> None:
        self._target.apply(segment)
        at = self.checkpoint
        if segment.checkpoint is not None and (at is None or segment.checkpoint.position >= at.position):
            self.checkpoint = segment.checkpoint

    def held(self) -> Held:
        execute = self._target._file.connection.execute
        names = execute(
            "SELECT table_schema, table_name FROM information_schema.tables "
            "WHERE table_catalog = current_database() AND table_schema IN ('s', 'd')"
        ).fetchall()
        found: Held = {}
        for schema, name in names:
            result = execute(f'SELECT COLUMNS(*)::VARCHAR FROM "{schema}"."{name}"')
            columns = [column[0] for column in result.description or ()]
            found[f"{schema}.{name}"] = columns, sorted(result.fetchall(), key=order)
        return found

    def remove(self) -> None:
        shutil.rmtree(self._folder)


def order(row: tuple[Any, ...]) -> list[tuple[bool, str]]:
    """To sort rows by."""
    return [(value is not None, value or "") for value in row]
