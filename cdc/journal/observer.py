"""Looking at a source beside a pipeline that is fed from a journal of it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from cdc.errors import CheckpointUnreadable
from cdc.journal.folder import Folder
from cdc.journal.reader import Reader
from cdc.journal.source import JournalState
from cdc.model.parts import Key
from cdc.model.schema import TableSchema
from cdc.observer import Look, Observer


class JournalAware:
    """An observer that also understands the state of a target that is fed from a journal: it is that of the record
    before. Everything else is the observer's own, since positions and transactions in a journal are the source's."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    @property
    def dialect(self) -> str:
        return self._observer.dialect

    @property
    def default_schema(self) -> str:
        return self._observer.default_schema

    def followed(self, state: str) -> dict[TableSchema, bool]:
        return self._observer.followed(source_state(state))

    def rows_estimated(self, schema: TableSchema) -> int:
        return self._observer.rows_estimated(schema)

    def leading(self, schema: TableSchema) -> tuple[int, ...]:
        return self._observer.leading(schema)

    def border(self, schema: TableSchema, after: Key | None, rows: int) -> Key | None:
        return self._observer.border(schema, after, rows)

    def look(self, schema: TableSchema, *, exact: bool = False) -> AbstractContextManager[Look]:
        return self._observer.look(schema, exact=exact)

    def close(self) -> None:
        self._observer.close()


def source_state(state: str) -> str:
    """The source's own state, out of one of a target that is fed from a journal; any other one as it is."""
    try:
        fed = JournalState.load(state)
    except CheckpointUnreadable:
        return state
    return Reader(Folder(Path(fed.folder)), fed.next - 1).state()
