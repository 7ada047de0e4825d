"""ClickHouse: versioned tables, and a view of each as it is now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from cdc.model.parts import Digest
from cdc.model.position import Checkpoint
from cdc.model.schema import Column, TableName, TableSchema
from cdc.model.standing import Standing
from cdc.removal import Removal
from cdc.tables.state import SCHEMA
from cdc.tables.versioned import control
from cdc.tables.versioned.layout import unfit
from cdc.tables.versioned.target import VersionedTarget
from cdc.target import HeldAs, Mode, SetApart, TargetAbilities, TargetSettings
from cdc.targets.clickhouse.address import Server
from cdc.targets.clickhouse.histories import open_histories as open_histories
from cdc.targets.clickhouse.store import ClickHouseStore
from cdc.targets.clickhouse.types import NARROW, home_of

ABILITIES = TargetAbilities(
    product=ClickHouseStore.product,
    keeps="tables",
    modes=(Mode.MIRROR, Mode.HISTORY, Mode.SOFT_DELETE),
    is_atomic=False,
    compares=True,
    notices_drift=False,
    sees_case=ClickHouseStore.abilities.sees_case,
    options=frozenset({"--mode"}),
    needs="pip install '.[clickhouse]'",
)


def _without_key(coming: Iterable[TableSchema], _taken: Iterable[TableName]) -> Mapping[TableName, str]:
    return {schema.table: why for schema in coming if (why := unfit(schema)) is not None}


set_apart: SetApart = _without_key


def file_of(place: str) -> Path | None:
    """None: a server has it."""
    return None


def held_as(column: Column, _source: str) -> HeldAs:
    """How a column's values are held by any version of the server."""
    return home_of(column.type, NARROW)


def table_digests(place: str, _source: str, schemas: Iterable[TableSchema]) -> dict[TableSchema, Digest | None]:
    """The digest of each table that is there; None for a table that is not."""
    return control.table_digests(_reading(place), schemas)


def read_checkpoint(place: str, _pipeline: str) -> Checkpoint | None:
    """The checkpoint, whether a pipeline writes there or not."""
    return control.read_checkpoint(_reading(place))


def read_marks(place: str, _pipeline: str) -> dict[int, Standing]:
    """The tables, by identity, that are copied by parts or suspect."""
    return control.read_marks(_reading(place))


def copy_parts(place: str, _pipeline: str, schemas: Iterable[TableSchema]) -> None:
    """Have tables that no pipeline writes to copied again, part by part, when one does again."""
    control.copy_parts(ClickHouseStore(Server.parse(place)), schemas)


def target_removals(place: str, _pipeline: str) -> list[Removal]:
    """What a pipeline keeps beside its tables, which stay."""
    server = Server.parse(place)
    store = ClickHouseStore(server)

    def remove() -> None:
        with control.opened(store):
            store.forget()

    return [Removal(f"database {server.prefix}{SCHEMA} in {server}", remove)]


def target_factory(place: str, settings: TargetSettings) -> Callable[[], VersionedTarget]:
    """What opens the target; raises UsageError."""
    server = Server.parse(place)
    return lambda: VersionedTarget(ClickHouseStore(server), settings.mode)


def _reading(place: str) -> ClickHouseStore:
    return ClickHouseStore(Server.parse(place), read_only=True)
