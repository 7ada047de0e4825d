"""Looking at a source beside a pipeline that is fed from a journal of it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from cdc.errors import CheckpointUnreadable, UsageError
from cdc.journal.folder import Folder
from cdc.journal.state import JournalState
from cdc.model.schema import TableName, TableSchema
from cdc.model.selection import Selection
from cdc.model.standing import Standing, State

if TYPE_CHECKING:  # `status` needs no arrays
    from cdc.model.parts import Key
    from cdc.observer import Look, Observer, Selected


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

    def held(self, state: str) -> dict[TableSchema, str]:
        return self._observer.held(source_state(state))

    def selected(self, selection: Selection) -> list[Selected]:
        return self._observer.selected(selection)

    def rows_estimated(self, schema: TableSchema) -> int:
        return self._observer.rows_estimated(schema)

    def leading(self, schema: TableSchema) -> tuple[int, ...]:
        return self._observer.leading(schema)

    def border(self, schema: TableSchema, after: Key | None, rows: int) -> Key | None:
        return self._observer.border(schema, after, rows)

    def look(self, *schemas: TableSchema, exact: bool = False) -> AbstractContextManager[Look]:
        return self._observer.look(*schemas, exact=exact)

    def close(self) -> None:
        self._observer.close()


def source_state(state: str) -> str:
    """The source's own state, out of one of a target that is fed from a journal; any other one as it is.

    Raises:
        UsageError: the journal is no longer where it was.
    """
    try:
        fed = JournalState.load(state)
    except CheckpointUnreadable:
        return state
    folder = Folder(Path(fed.folder))
    if not folder.exists:
        raise UsageError(
            f"The target is fed from a journal in {folder.path}, but there is no journal now.",
            hint="If it was moved, name the new folder: cdc run SOURCE --journal DIR --to TARGET",
        )
    from cdc.journal.reader import Reader  # noqa: PLC0415 - only the few targets that a journal feeds need it

    return Reader(folder, fed.next - 1).state()


def journal_of(state: str) -> str | None:
    """The journal that feeds a target, as a source; None if none does."""
    try:
        return f"journal:{JournalState.load(state).folder}"
    except CheckpointUnreadable:
        return None


def held_tables(state: str) -> dict[TableName, Standing]:
    """The tables that a target which is fed from a journal cannot take."""
    try:
        fed = JournalState.load(state)
    except CheckpointUnreadable:
        return {}
    return {held.table: Standing(State.HELD, held.reason) for held in fed.held}
