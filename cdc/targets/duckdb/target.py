"""The DuckDB target: tables in one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cdc.errors import InvariantError
from cdc.tables.target import TableTarget
from cdc.target import Mode, QueryAnswer, QueryWishes
from cdc.targets.duckdb.engine import DuckDbEngine

if TYPE_CHECKING:  # what few runs need is loaded when it is asked for
    from cdc.tables.histories import Histories


class DuckDbTarget(TableTarget):
    """One DuckDB file as a `cdc.target.Target`."""

    def __init__(self, path: Path, memory: int, mode: Mode | None = None) -> None:
        self._file = DuckDbEngine(path, memory)
        self._path = path
        super().__init__(self._file, mode)

    def verify_place(self) -> None:
        self._file.inode.verify()

    def settle(self) -> None:
        if self._in_transaction:
            raise InvariantError("A copy was to be made of a target inside a transaction.")
        from cdc.targets.duckdb.backup import settle  # noqa: PLC0415

        self.verify_place()
        settle(self._file.connection, self._path)

    def back_up(self, to: Path, alive: Callable[[], None]) -> None:
        if self._in_transaction:
            raise InvariantError("A copy was to be made of a target inside a transaction.")
        from cdc.targets.duckdb.backup import back_up  # noqa: PLC0415

        back_up(self._file.connection, self._path, to, alive)

    def query(self, wishes: QueryWishes) -> QueryAnswer:
        from cdc.targets.duckdb import questions  # noqa: PLC0415

        return questions.answer(self._file.connection, wishes)

    @contextmanager
    def histories(self, seconds: float) -> Iterator[Histories]:
        from cdc.tables.histories import Histories  # noqa: PLC0415
        from cdc.targets.duckdb import questions  # noqa: PLC0415

        with questions.looking(self._file.connection, seconds) as cursor:
            yield Histories(self._file.beside(cursor))
