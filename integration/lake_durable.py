"""`cdc` with a lake whose every commit is looked at: `python lake_durable.py ARGUMENTS`.

Says at the end how many files there were, and ends with an error if the disk did not have one of them, or its name, when
the catalogue got it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from cdc.targets.ducklake import engine

_synced: set[str] = set()
_late: list[str] = []
_fsync = os.fsync


def fsync(descriptor: int) -> None:
    _synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    _fsync(descriptor)


class Watched:
    """A connection to a lake. What is done outside of a transaction is committed at once."""

    def __init__(self, connection: Any, folder: Path) -> None:
        self._connection, self._folder, self._is_inside = connection, folder, False
        self._before = {str(path) for path in folder.rglob("*")}  # what the run before has left

    def execute(self, statement: Any, *values: Any) -> Any:
        _cdc_rows = sys._getframe(1).f_locals.get("_cdc_rows")  # DuckDB looks for it where it is called
        text = statement if isinstance(statement, str) else statement.query
        if text == "COMMIT":
            self.look()
        self._is_inside = text != "COMMIT" and (self._is_inside or text == "BEGIN TRANSACTION")
        answer = self._connection.execute(statement, *values)
        if not self._is_inside:
            self.look()
        return answer

    def look(self) -> None:
        for file in self._folder.rglob("*.parquet"):
            _late.extend({str(file), str(file.parent), str(file.parent.parent)} - _synced - self._before)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def main() -> None:
    open_lake = engine.open_lake
    os.fsync = fsync
    engine._UPKEEP_EVERY = 0.0
    engine.open_lake = lambda lake, *rest, **named: Watched(open_lake(lake, *rest, **named), Path(lake.data))  # type: ignore[assignment,return-value]
    from cdc.cli import main as run

    try:
        run()
    finally:
        print(sum(path.endswith(".parquet") for path in _synced))
        if _late:
            sys.exit(f"not durable: {sorted(set(_late))}")


if __name__ == "__main__":
    main()
