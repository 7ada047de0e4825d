"""A target of versioned tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cdc.model.parts import Digest, HashedRow, Key, Part
from cdc.tables.applied import AppliedTables
from cdc.tables.digest import digest, hashed_rows, keys, values
from cdc.tables.failures import mapped_errors
from cdc.tables.table import TargetTable
from cdc.tables.versioned.cleanup import Cleanup
from cdc.tables.versioned.history import VersionedHistory
from cdc.tables.versioned.layout import Versioned, VersionedTable
from cdc.tables.versioned.looking import Looking
from cdc.tables.versioned.shapes import Shapes, place_of
from cdc.tables.versioned.state import VersionedState
from cdc.tables.versioned.store import Store
from cdc.target import Mode
from cdc.typed.native import Converter


class VersionedTarget(AppliedTables):
    """The tables of a store. A table is as of a place in the log that is its own, up to the checkpoint, at which all
    of them are."""

    def __init__(self, store: Store, mode: Mode | None = None) -> None:
        super().__init__(store, mode)
        self._store = store
        self._versions: VersionedState
        self._versioned: Versioned
        self._cleanup: Cleanup | None = None
        self._looks = Looking()
        self._converter = Converter()

    def _open_state(self) -> VersionedState:
        self._versions = VersionedState(self._store)
        return self._versions

    def _layout_for(self, mode: Mode) -> Versioned:
        with_deleted = mode is Mode.SOFT_DELETE
        shapes = Shapes(self._store, self._versions, self._converter, with_deleted=with_deleted)
        if mode is Mode.HISTORY:
            self._store.keep_versions()
            self._versioned = VersionedHistory(self._store, self._versions, shapes, self._converter, self._looks)
        else:
            self._versioned = Versioned(self._store, shapes, self._converter, self._looks, mode)
        if mode is Mode.MIRROR:  # the other modes show deleted rows, or need them
            self._cleanup = Cleanup(self._store, self._versions)
        return self._versioned

    def tidy(self) -> bool:
        if self._cleanup is None or self._at is None:
            return False
        with mapped_errors(self._store):
            return self._cleanup.once(self._at.order)

    def _settle(self) -> None:
        for identity in self._versioned.settle():
            self._tables[identity].stored = place_of(identity)

    def _digest(self, table: TargetTable, part: Part) -> Digest:
        return joined([digest(self._looks, block, part) for block in self._blocks(table, part)])

    def _hashed_rows(self, table: TargetTable, part: Part, buckets: Sequence[int]) -> list[HashedRow]:
        blocks = self._blocks(table, part)
        return [row for block in blocks for row in hashed_rows(self._looks, block, part, buckets)]

    def _values(self, table: TargetTable, keys: Sequence[Key]) -> dict[Key, dict[str, str | None]]:
        found: dict[Key, dict[str, str | None]] = {}
        names = [column.name for column in table.schema.columns]
        for block in self._blocks(table, Part(keys=tuple(keys))):
            for key, row in values(self._looks, block, keys).items():
                found[key] = dict(zip(names, row.values(), strict=True))
        return found

    def _keys(self, table: TargetTable, part: Part) -> set[Key]:
        found: set[Key] = set()
        for block in self._blocks(table, part):
            found |= keys(self._looks, block, part)
        return found

    def _blocks(self, table: TargetTable, part: Part) -> Iterator[TargetTable]:
        assert isinstance(table, VersionedTable)
        return self._versioned.blocks(table, part)


def joined(digests: Sequence[Digest]) -> Digest:
    """The digest of the rows of several ones."""
    sums: dict[int, tuple[int, int]] = {}
    for each in digests:
        for bucket, (count, total) in each.buckets.items():
            before = sums.get(bucket, (0, 0))
            sums[bucket] = before[0] + count, before[1] + total
    return Digest.of((bucket, count, total) for bucket, (count, total) in sums.items())
