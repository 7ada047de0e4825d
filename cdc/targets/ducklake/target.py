"""The DuckLake target: tables of one lake."""

from __future__ import annotations

from cdc.tables.target import TableTarget
from cdc.target import Mode
from cdc.targets.ducklake.address import Lake
from cdc.targets.ducklake.engine import DuckLakeEngine


class DuckLakeTarget(TableTarget):
    """One lake as a `cdc.target.Target`."""

    def __init__(self, lake: Lake, memory: int, mode: Mode | None = None) -> None:
        self._lake = DuckLakeEngine(lake, memory)
        super().__init__(self._lake, mode)

    def verify_place(self) -> None:
        self._lake.verify_place()
