"""What is asked of a target of tables that no pipeline has open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from cdc.model.parts import Digest
from cdc.model.position import Checkpoint
from cdc.model.schema import TableSchema
from cdc.model.standing import Standing
from cdc.tables import state
from cdc.tables.failures import mapped_errors
from cdc.target import Mode

if TYPE_CHECKING:
    from cdc.tables.engine import Engine

E = TypeVar("E", bound=state.Asked)


@contextmanager
def opened(engine: E) -> Iterator[E]:
    """An engine that is open meanwhile; raises TargetBusy if a pipeline keeps others from it."""
    with mapped_errors(engine):
        engine.open()
        try:
            yield engine
        finally:
            engine.close()


def read_checkpoint(engine: state.Asked) -> Checkpoint | None:
    """The checkpoint that is there."""
    with opened(engine):
        return state.read(engine).checkpoint


def read_marks(engine: state.Asked) -> dict[int, Standing]:
    """The tables, by identity, that are copied by parts or suspect."""
    with opened(engine):
        return state.read_marks(engine)


def copy_parts(engine: state.Asked, schemas: Iterable[TableSchema]) -> None:
    """Have tables copied again, part by part, when a pipeline runs again."""
    with opened(engine):
        tables = state.StateTables(engine)
        tables.open()
        for schema in schemas:
            tables.copy_parts(schema.identity)


def drop_state(engine: state.Asked) -> None:
    """Remove what a pipeline keeps beside its tables, which stay."""
    with opened(engine):
        state.drop(engine)


def table_digests(engine: Engine, schemas: Iterable[TableSchema]) -> dict[TableSchema, Digest | None]:
    """The digest of each table; None for a table that is not there."""
    # Who asks for the state alone, as `cdc status` does, waits for none of these.
    from cdc.tables.digest import digest  # noqa: PLC0415
    from cdc.tables.target import layout_for  # noqa: PLC0415

    with opened(engine):
        mode = state.read_mode(engine)
        # By name, since the caller may not know the tables' identities: a history has a view that is a mirror.
        layout = layout_for(Mode.MIRROR if mode is Mode.HISTORY else mode, engine)
        return {
            schema: digest(engine, layout.find(schema)) if engine.columns(schema.table) else None for schema in schemas
        }
