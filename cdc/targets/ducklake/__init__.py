"""DuckLake: tables as Parquet files with a catalogue in a database, which many can read while a pipeline writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cdc.model.parts import Digest
from cdc.model.position import Checkpoint
from cdc.model.schema import Column, TableSchema
from cdc.model.standing import Standing
from cdc.removal import Removal
from cdc.tables import control
from cdc.tables.histories import Histories
from cdc.tables.owned import first_come
from cdc.tables.state import SCHEMA
from cdc.target import HeldAs, Mode, QueryAnswer, QueryWishes, SetApart, TargetAbilities, TargetSettings
from cdc.targets.duckdb import questions
from cdc.targets.ducklake.address import parse
from cdc.targets.ducklake.codecs import codec_for
from cdc.targets.ducklake.engine import DuckLakeEngine
from cdc.targets.ducklake.target import DuckLakeTarget

ABILITIES = TargetAbilities(
    product=DuckLakeEngine.product,
    keeps="tables",
    modes=tuple(Mode),
    keyless=(Mode.MIRROR, Mode.HISTORY),
    compares=True,
    sees_case=DuckLakeEngine.abilities.sees_case,
    options=frozenset({"--mode", "--memory", "--every"}),
    needs="DuckDB's extension ducklake, which comes by itself where there is a network",
)
EVERY = 5.0  # seconds
set_apart: SetApart = first_come(DuckLakeEngine.product)
_MEMORY = 256 << 20


def file_of(place: str) -> Path | None:
    """The catalogue, unless a server has it."""
    return parse(place).file


def held_as(column: Column, _source: str) -> HeldAs:
    """How a column's values are held."""
    return codec_for(column.type)


def table_digests(place: str, _source: str, schemas: Iterable[TableSchema]) -> dict[TableSchema, Digest | None]:
    """The digest of each table that the lake holds; None for a table that it does not."""
    return control.table_digests(_reading(place), schemas)


def read_checkpoint(place: str, _pipeline: str) -> Checkpoint | None:
    """The checkpoint of a lake; raises TargetBusy if a pipeline has it open, and its catalogue is a DuckDB file."""
    file = file_of(place)
    return control.read_checkpoint(_reading(place)) if file is None or file.exists() else None


def read_marks(place: str, _pipeline: str) -> dict[int, Standing]:
    """The tables, by identity, that are copied by parts or suspect."""
    return control.read_marks(_reading(place))


def copy_parts(place: str, _pipeline: str, schemas: Iterable[TableSchema]) -> None:
    """Have tables of a lake that no pipeline has open copied again, part by part, when one does again."""
    control.copy_parts(DuckLakeEngine(parse(place), _MEMORY), schemas)


def target_removals(place: str, _pipeline: str) -> list[Removal]:
    """What a pipeline keeps in a lake beside its tables, which stay."""
    lake = parse(place)
    return [Removal(f"schema {SCHEMA} in {lake}", lambda: control.drop_state(DuckLakeEngine(lake, _MEMORY)))]


def query(place: str, wishes: QueryWishes) -> QueryAnswer:
    """Answer a question to a lake; raises UsageError, and TargetBusy where a pipeline has its catalogue's file open."""
    with control.opened(_reading(place)) as engine:
        return questions.answer(engine.connection, wishes)


@contextmanager
def open_histories(place: str) -> Iterator[Histories]:
    """The histories of a lake; raises TargetBusy, UsageError."""
    with control.opened(_reading(place)) as engine:
        yield Histories(engine)


def target_factory(place: str, settings: TargetSettings) -> Callable[[], DuckLakeTarget]:
    """What opens the target."""
    lake = parse(place)
    return lambda: DuckLakeTarget(lake, settings.memory, settings.mode)


def _reading(place: str) -> DuckLakeEngine:
    return DuckLakeEngine(parse(place), _MEMORY, read_only=True)
