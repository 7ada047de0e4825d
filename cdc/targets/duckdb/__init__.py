"""DuckDB: an embedded file that holds the tables, and the checkpoint in the same transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cdc.errors import UsageError
from cdc.model.parts import Digest
from cdc.model.position import Checkpoint
from cdc.model.schema import Column, TableSchema
from cdc.model.standing import Standing
from cdc.removal import Removal
from cdc.tables.owned import first_come
from cdc.target import HeldAs, Mode, QueryAnswer, QueryWishes, SetApart, TargetAbilities, TargetSettings
from cdc.targets.duckdb.product import PRODUCT, SEES_CASE

if TYPE_CHECKING:
    from cdc.tables.histories import Histories
    from cdc.targets.duckdb.publication import DuckDbPublication
    from cdc.targets.duckdb.target import DuckDbTarget

ABILITIES = TargetAbilities(
    product=PRODUCT,
    keeps="tables",
    modes=tuple(Mode),
    keyless=(Mode.MIRROR, Mode.HISTORY),
    compares=True,
    sees_case=SEES_CASE,
    options=frozenset({"--mode", "--memory", "--publish"}),
)
set_apart: SetApart = first_come(PRODUCT)
_SMALL = 64 << 20  # bytes of buffers, for a look at state tables
_LARGE = 256 << 20  # for one at rows


def file_of(path: str) -> Path | None:
    """The file itself."""
    return Path(path)


def held_as(column: Column, _source: str) -> HeldAs:
    """How a column's values are held."""
    from cdc.typed.codecs import codec_for

    return codec_for(column.type)


def table_digests(path: str, _source: str, schemas: Iterable[TableSchema]) -> dict[TableSchema, Digest | None]:
    """The digest of each table that the file holds; None for a table that it does not."""
    from cdc.tables import control
    from cdc.targets.duckdb.engine import DuckDbEngine

    return control.table_digests(DuckDbEngine(Path(path), _LARGE, read_only=True), schemas)


def read_checkpoint(path: str, _pipeline: str) -> Checkpoint | None:
    """The checkpoint of a file that no pipeline has open; raises TargetBusy if one does."""
    file = Path(path)
    if not file.exists():
        return None
    from cdc.tables import control
    from cdc.targets.duckdb.file import DuckDbFile

    return control.read_checkpoint(DuckDbFile(file, _SMALL, read_only=True))


def read_marks(path: str, _pipeline: str) -> dict[int, Standing]:
    """The tables, by identity, that are copied by parts or suspect; raises TargetBusy if a pipeline has the file."""
    from cdc.tables import control
    from cdc.targets.duckdb.file import DuckDbFile

    return control.read_marks(DuckDbFile(Path(path), _SMALL, read_only=True))


def copy_parts(path: str, _pipeline: str, schemas: Iterable[TableSchema]) -> None:
    """Have tables of a file that no pipeline has open copied again, part by part, when one does again."""
    from cdc.tables import control
    from cdc.targets.duckdb.file import DuckDbFile

    control.copy_parts(DuckDbFile(Path(path), _SMALL), schemas)


def back_up(path: str, to: Path) -> Checkpoint | None:
    """Make a copy of a file that no pipeline has open; what checkpoint it has. Raises TargetBusy if one does."""
    from cdc.tables import control
    from cdc.targets.duckdb.backup import back_up as copy_file
    from cdc.targets.duckdb.engine import DuckDbEngine

    file = Path(path)
    if not file.exists():
        raise UsageError(f"There is no {file}.", hint="`cdc run SOURCE TARGET` makes it.")
    with control.opened(DuckDbEngine(file, _SMALL)) as engine:
        copy_file(engine.connection, file, to, lambda: None)
    return read_checkpoint(str(to), "")


def make_publication(path: str, to: Path) -> DuckDbPublication:
    """A copy of a file for those who read it while a pipeline writes."""
    from cdc.targets.duckdb.publication import DuckDbPublication

    return DuckDbPublication(Path(path), to)


def query(path: str, wishes: QueryWishes) -> QueryAnswer:
    """Answer a question to a file that no pipeline has open; raises TargetBusy if one does, UsageError."""
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"There is no file {file}.", hint="`cdc run SOURCE TARGET` makes it.")
    from cdc.tables import control
    from cdc.targets.duckdb import questions
    from cdc.targets.duckdb.engine import DuckDbEngine

    with control.opened(DuckDbEngine(file, _LARGE, read_only=True)) as engine:
        return questions.answer(engine.connection, wishes)


@contextmanager
def open_histories(path: str) -> Iterator[Histories]:
    """The histories of a file.

    Raises:
        TargetBusy: a pipeline has it open.
        UsageError: there is no such file, or no history in it.
    """
    from cdc.tables import control
    from cdc.tables.histories import Histories
    from cdc.targets.duckdb.engine import DuckDbEngine

    file = Path(path)
    if not file.is_file():
        raise UsageError(f"There is no file {file}.")
    with control.opened(DuckDbEngine(file, _LARGE, read_only=True)) as engine:
        yield Histories(engine)


def target_removals(path: str, _pipeline: str) -> list[Removal]:
    """What a pipeline keeps in a file beside its tables, which stay."""
    from cdc.tables import control
    from cdc.tables.state import SCHEMA
    from cdc.targets.duckdb.file import DuckDbFile

    return [Removal(f"schema {SCHEMA} in {path}", lambda: control.drop_state(DuckDbFile(Path(path), _SMALL)))]


def target_factory(path: str, settings: TargetSettings) -> Callable[[], DuckDbTarget]:
    """What opens the target."""
    from cdc.targets.duckdb.target import DuckDbTarget

    return lambda: DuckDbTarget(Path(path), settings.memory, settings.mode)
