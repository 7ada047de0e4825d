"""DuckDB: an embedded file that holds the tables, and the checkpoint in the same transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from cdc.errors import UsageError
from cdc.model.parts import Digest
from cdc.model.position import Checkpoint
from cdc.model.schema import TableSchema
from cdc.model.standing import Standing
from cdc.removal import Removal
from cdc.target import Mode, SetApart, TargetSettings
from cdc.targets.duckdb.backup import back_up as copy_file
from cdc.targets.duckdb.connection import mapped_errors, open_file
from cdc.targets.duckdb.digest import digest
from cdc.targets.duckdb.owned import first_come
from cdc.targets.duckdb.reading import open_histories as open_histories
from cdc.targets.duckdb.state import SCHEMA, StateTables, drop, read_file, read_mode
from cdc.targets.duckdb.state import read_marks as read_file_marks
from cdc.targets.duckdb.table import actual_columns
from cdc.targets.duckdb.target import DuckDbTarget, layout_for

TELLS_NOTES = False
OPTIONS = frozenset({"--mode", "--memory"})  # of `cdc run`, what this target has
set_apart: SetApart = first_come


def table_digests(path: str, schemas: Iterable[TableSchema]) -> dict[TableSchema, Digest | None]:
    """The digest of each table that the file holds; None for a table that it does not."""
    connection = open_file(Path(path), 256 << 20, read_only=True)
    try:
        with mapped_errors(Path(path)):
            mode = read_mode(connection)
            # By name, since the caller may not know the tables' identities: a history has a view that is a mirror.
            layout = layout_for(Mode.MIRROR if mode is Mode.HISTORY else mode, connection, Path(path))
            return {
                schema: digest(connection, layout.find(schema)) if actual_columns(connection, schema.table) else None
                for schema in schemas
            }
    finally:
        connection.close()


def read_checkpoint(path: str, _pipeline: str) -> Checkpoint | None:
    """The checkpoint of a file that no pipeline has open; raises TargetBusy if one does."""
    return read_file(Path(path))


def read_marks(path: str, _pipeline: str) -> dict[int, Standing]:
    """The tables, by identity, that are copied by parts or suspect; raises TargetBusy if a pipeline has the file."""
    return read_file_marks(Path(path))


def copy_parts(path: str, _pipeline: str, schemas: Iterable[TableSchema]) -> None:
    """Have tables of a file that no pipeline has open copied again, part by part, when one does again."""
    connection = open_file(Path(path), 64 << 20)
    try:
        with mapped_errors(Path(path)):
            state = StateTables(connection)
            state.open()
            for schema in schemas:
                state.copy_parts(schema.identity)
    finally:
        connection.close()


def back_up(path: str, to: Path) -> Checkpoint | None:
    """Make a copy of a file that no pipeline has open; what checkpoint it has. Raises TargetBusy if one does."""
    file = Path(path)
    if not file.exists():
        raise UsageError(f"There is no {file}.", hint="`cdc run SOURCE TARGET` makes it.")
    connection = open_file(file, 64 << 20)
    try:
        copy_file(connection, file, to, lambda: None)
    finally:
        connection.close()
    return read_file(to)


def target_removals(path: str, _pipeline: str) -> list[Removal]:
    """What a pipeline keeps in a file beside its tables, which stay."""
    return [Removal(f"schema {SCHEMA} in {path}", lambda: _drop_state(Path(path)))]


def _drop_state(file: Path) -> None:
    connection = open_file(file, 64 << 20)
    try:
        with mapped_errors(file):
            drop(connection)
    finally:
        connection.close()


def target_factory(path: str, settings: TargetSettings) -> Callable[[], DuckDbTarget]:
    """What opens the target."""
    return lambda: DuckDbTarget(Path(path), settings.memory, settings.mode)
