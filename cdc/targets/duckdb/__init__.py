"""DuckDB: an embedded file that holds the tables, and the checkpoint in the same transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cdc.errors import UsageError
from cdc.model.parts import Digest
from cdc.model.position import Checkpoint
from cdc.model.schema import TableSchema
from cdc.model.standing import Standing
from cdc.removal import Removal
from cdc.tables import state
from cdc.tables.digest import digest
from cdc.tables.owned import first_come
from cdc.tables.target import layout_for
from cdc.target import Mode, SetApart, TargetSettings
from cdc.targets.duckdb.backup import back_up as copy_file
from cdc.targets.duckdb.connection import mapped_errors, open_file
from cdc.targets.duckdb.engine import DuckDbEngine
from cdc.targets.duckdb.histories import open_histories as open_histories
from cdc.targets.duckdb.target import DuckDbTarget

TELLS_NOTES = False
OPTIONS = frozenset({"--mode", "--memory"})  # of `cdc run`, what this target has
set_apart: SetApart = first_come(DuckDbEngine.product)
_SMALL = 64 << 20  # bytes of buffers, for a look at state tables


def table_digests(path: str, schemas: Iterable[TableSchema]) -> dict[TableSchema, Digest | None]:
    """The digest of each table that the file holds; None for a table that it does not."""
    with _opened(Path(path), 256 << 20, read_only=True) as engine:
        mode = state.read_mode(engine)
        # By name, since the caller may not know the tables' identities: a history has a view that is a mirror.
        layout = layout_for(Mode.MIRROR if mode is Mode.HISTORY else mode, engine)
        return {
            schema: digest(engine, layout.find(schema)) if engine.columns(schema.table) else None for schema in schemas
        }


def read_checkpoint(path: str, _pipeline: str) -> Checkpoint | None:
    """The checkpoint of a file that no pipeline has open; raises TargetBusy if one does."""
    file = Path(path)
    if not file.exists():
        return None
    with _opened(file, read_only=True) as engine:
        return state.read(engine).checkpoint


def read_marks(path: str, _pipeline: str) -> dict[int, Standing]:
    """The tables, by identity, that are copied by parts or suspect; raises TargetBusy if a pipeline has the file."""
    with _opened(Path(path), read_only=True) as engine:
        return state.read_marks(engine)


def copy_parts(path: str, _pipeline: str, schemas: Iterable[TableSchema]) -> None:
    """Have tables of a file that no pipeline has open copied again, part by part, when one does again."""
    with _opened(Path(path)) as engine:
        tables = state.StateTables(engine)
        tables.open()
        for schema in schemas:
            tables.copy_parts(schema.identity)


def back_up(path: str, to: Path) -> Checkpoint | None:
    """Make a copy of a file that no pipeline has open; what checkpoint it has. Raises TargetBusy if one does."""
    file = Path(path)
    if not file.exists():
        raise UsageError(f"There is no {file}.", hint="`cdc run SOURCE TARGET` makes it.")
    connection = open_file(file, _SMALL)
    try:
        copy_file(connection, file, to, lambda: None)
    finally:
        connection.close()
    return read_checkpoint(str(to), "")


def target_removals(path: str, _pipeline: str) -> list[Removal]:
    """What a pipeline keeps in a file beside its tables, which stay."""
    return [Removal(f"schema {state.SCHEMA} in {path}", lambda: _drop_state(Path(path)))]


def _drop_state(file: Path) -> None:
    with _opened(file) as engine:
        state.drop(engine)


@contextmanager
def _opened(file: Path, memory: int = _SMALL, *, read_only: bool = False) -> Iterator[DuckDbEngine]:
    """A file that no pipeline has open; raises TargetBusy if one does."""
    engine = DuckDbEngine(file, memory, read_only=read_only)
    with mapped_errors(file):
        engine.open()
        try:
            yield engine
        finally:
            engine.close()


def target_factory(path: str, settings: TargetSettings) -> Callable[[], DuckDbTarget]:
    """What opens the target."""
    return lambda: DuckDbTarget(Path(path), settings.memory, settings.mode)
