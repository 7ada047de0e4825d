"""What is asked of versioned tables that no pipeline has open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import TypeVar

from cdc.model.parts import WHOLE, Digest
from cdc.model.position import Checkpoint
from cdc.model.schema import TableSchema
from cdc.model.standing import Standing, State
from cdc.tables.digest import digest
from cdc.tables.failures import mapped_errors
from cdc.tables.versioned import state
from cdc.tables.versioned.layout import Versioned
from cdc.tables.versioned.looking import Looking
from cdc.tables.versioned.shapes import Shapes
from cdc.tables.versioned.store import Store
from cdc.tables.versioned.target import joined
from cdc.target import Mode
from cdc.typed.native import Converter

S = TypeVar("S", bound=Store)


@contextmanager
def opened(store: S) -> Iterator[S]:
    """A store that is open meanwhile; raises TargetBusy if a pipeline keeps others from it."""
    with mapped_errors(store):
        store.open()
        try:
            yield store
        finally:
            store.close()


def read_checkpoint(store: Store) -> Checkpoint | None:
    """The checkpoint that is there."""
    with opened(store):
        return state.checkpoint_of(store.records())


def read_marks(store: Store) -> dict[int, Standing]:
    """The tables, by identity, that are copied by parts or suspect."""
    with opened(store):
        records = store.records()
    found = {table: Standing(State.COPYING) for table in state.copying_of(records)}
    return found | {table: Standing(State.SUSPECT, doubt.reason) for table, doubt in state.suspects_of(records).items()}


def copy_parts(store: Store, schemas: Iterable[TableSchema]) -> None:
    """Have tables copied again, part by part, when a pipeline runs again."""
    with opened(store):
        kept = state.VersionedState(store)
        kept.open()
        for schema in schemas:
            kept.copy_parts(schema.identity)


def table_digests(store: Store, schemas: Iterable[TableSchema]) -> dict[TableSchema, Digest | None]:
    """The digest of each table by its name, whose identity the caller may not know; None for a table that is not
    there."""
    with opened(store), closing(Looking()) as looking, closing(Converter()) as converter:
        kept = state.VersionedState(store)
        kept.open()
        if state.mode_of(store.records()) is Mode.HISTORY:
            store.keep_versions()
        names = kept.names()
        shapes = Shapes(store, kept, converter, with_deleted=False)
        layout = Versioned(store, shapes, converter, looking, Mode.MIRROR)
        found: dict[TableSchema, Digest | None] = {}
        for schema in schemas:
            shape = kept.shape(names.get(schema.table, -1))
            found[schema] = None
            if shape is not None:
                blocks = layout.blocks(layout.as_named(schema, shape), WHOLE)
                found[schema] = joined([digest(looking, block) for block in blocks])
    return found
