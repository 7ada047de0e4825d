"""PostgreSQL as a target: tables with the source's types, and the checkpoint in the same transactions."""

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
from cdc.tables.state import SCHEMA
from cdc.target import HeldAs, Mode, SetApart, TargetAbilities, TargetSettings, takes_all
from cdc.targets.postgres.codecs import codec_for
from cdc.targets.postgres.connection import Server
from cdc.targets.postgres.engine import PostgresEngine
from cdc.targets.postgres.target import PostgresTarget

ABILITIES = TargetAbilities(
    product=PostgresEngine.product,
    keeps="tables",
    modes=tuple(Mode),
    keyless=(Mode.MIRROR, Mode.HISTORY),
    compares=True,
    sees_case=PostgresEngine.abilities.sees_case,
    options=frozenset({"--mode", "--keys"}),
)
set_apart: SetApart = takes_all
_OWN = ("postgresql", "postgres")  # kinds of sources whose types this target has as well


def file_of(place: str) -> Path | None:
    """None: a server has it."""
    return None


def held_as(column: Column, source: str) -> HeldAs:
    """How a column's values are held."""
    return codec_for(column, keeps_types=source in _OWN)


def table_digests(place: str, source: str, schemas: Iterable[TableSchema]) -> dict[TableSchema, Digest | None]:
    """The digest of each table that the database holds; None for a table that it does not."""
    return control.table_digests(_engine(place, source, read_only=True), schemas)


def read_checkpoint(place: str, _pipeline: str) -> Checkpoint | None:
    """The checkpoint of a database, whether a pipeline writes to it or not."""
    return control.read_checkpoint(_engine(place, read_only=True))


def read_marks(place: str, _pipeline: str) -> dict[int, Standing]:
    """The tables, by identity, that are copied by parts or suspect."""
    return control.read_marks(_engine(place, read_only=True))


def copy_parts(place: str, _pipeline: str, schemas: Iterable[TableSchema]) -> None:
    """Have tables of a database that no pipeline writes to copied again, part by part, when one does again."""
    control.copy_parts(_engine(place), schemas)


@contextmanager
def open_histories(place: str) -> Iterator[Histories]:
    """The histories of a database, as of this moment, whether a pipeline writes to it or not; raises UsageError."""
    with control.opened(_engine(place, read_only=True)) as engine:
        engine.look_back()
        yield Histories(engine)


def target_removals(place: str, _pipeline: str) -> list[Removal]:
    """What a pipeline keeps in a database beside its tables, which stay."""
    return [Removal(f"schema {SCHEMA} in {Server.parse(_dsn(place))}", lambda: control.drop_state(_engine(place)))]


def target_factory(place: str, settings: TargetSettings) -> Callable[[], PostgresTarget]:
    """What opens the target; raises UsageError."""
    server = Server.parse(_dsn(place))
    keeps_types = settings.source in _OWN
    return lambda: PostgresTarget(PostgresEngine(server, keeps_types=keeps_types), settings.mode, settings.keys)


def _engine(place: str, source: str = "", *, read_only: bool = False) -> PostgresEngine:
    return PostgresEngine(Server.parse(_dsn(place)), keeps_types=source in _OWN, read_only=read_only)


def _dsn(place: str) -> str:
    return f"postgresql:{place}"
