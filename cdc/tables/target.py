"""A target of tables whose rows change where they are, in transactions."""

from __future__ import annotations

from collections.abc import Sequence

from cdc.model.change import ChangeBatch
from cdc.model.parts import Digest, HashedRow, Key, Part
from cdc.model.schema import TableSchema
from cdc.tables.applied import AppliedTables
from cdc.tables.digest import digest, hashed_rows, keys, values
from cdc.tables.engine import Engine
from cdc.tables.layout import Layout, Mirror
from cdc.tables.state import StateTables
from cdc.tables.table import TargetTable
from cdc.target import Mode


class TableTarget(AppliedTables):
    """The tables of an engine. Whole transactions become visible, together with their checkpoint."""

    def __init__(self, engine: Engine, mode: Mode | None = None) -> None:
        super().__init__(engine, mode)
        self._engine = engine

    def _open_state(self) -> StateTables:
        return StateTables(self._engine)

    def _layout_for(self, mode: Mode) -> Layout:
        return layout_for(mode, self._engine)

    def _settle(self) -> None:
        """A transaction has it all."""

    def replace(self, schema: TableSchema, part: Part, batches: Sequence[ChangeBatch]) -> None:
        with self._looking():
            table = self._same(schema)
        codecs = list(table.codecs)
        try:
            super().replace(schema, part, batches)
        except BaseException:
            table.codecs = codecs  # a column that was widened is as it was
            table.forget_statements()
            raise

    def _digest(self, table: TargetTable, part: Part) -> Digest:
        return digest(self._engine, table, part)

    def _hashed_rows(self, table: TargetTable, part: Part, buckets: Sequence[int]) -> list[HashedRow]:
        return hashed_rows(self._engine, table, part, buckets)

    def _values(self, table: TargetTable, keys: Sequence[Key]) -> dict[Key, dict[str, str | None]]:
        return values(self._engine, table, keys)

    def _keys(self, table: TargetTable, part: Part) -> set[Key]:
        return keys(self._engine, table, part)


def layout_for(mode: Mode, engine: Engine) -> Layout:
    """What keeps the tables of a target."""
    match mode:
        case Mode.MIRROR:
            return Mirror(engine)
        case Mode.HISTORY:
            from cdc.tables.history import History  # noqa: PLC0415  # most targets are mirrors

            return History(engine)
        case Mode.SOFT_DELETE:
            from cdc.tables.soft_delete import SoftDelete  # noqa: PLC0415

            return SoftDelete(engine)
