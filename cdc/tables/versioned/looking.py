"""Rows of versioned tables in a DuckDB in memory, where they can be digested, chosen and compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from sqlglot import exp

from cdc.model.parts import Part
from cdc.model.schema import TableName, TableSchema
from cdc.tables import sql
from cdc.tables.digest import part_condition
from cdc.tables.table import TargetTable
from cdc.typed.digests import DuckDbDigests
from cdc.typed.memory import Memory
from cdc.typed.native import Home

_BLOCK = TableName("main", "block")


class Looking(DuckDbDigests):
    """Holds one block of rows at a time (see `cdc.tables.engine.Digesting`)."""

    product = "DuckDB"

    def __init__(self) -> None:
        self._memory = Memory()
        self._memory.ask(f"ATTACH ':memory:' AS {sql.CATALOG}")

    def close(self) -> None:
        """May be called twice."""
        self._memory.close()

    def ask(self, query: exp.Expr | str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        text = query if isinstance(query, str) else query.sql(dialect=sql.DIALECT)
        return self._memory.ask(text)

    def load(self, schema: TableSchema, homes: Sequence[Home], block: pa.Table) -> TargetTable:
        """Put rows in the place of those that are there.

        Args:
            block: all columns of a table, or those of its key, as a database answers with them.
        """
        listed = [
            exp.alias_(
                exp.cast(sql.column(column.name), home.codec.type, copy=False)
                if column.name in block.column_names
                else exp.cast(exp.Null(), home.codec.type, copy=False),
                column.name,
                quoted=True,
            )
            for column, home in zip(schema.columns, homes, strict=True)
        ]
        query = exp.select(*listed).from_(sql.rows())
        made = exp.Create(kind="TABLE", this=sql.table(_BLOCK), replace=True, expression=query)
        self._memory.ask(made.sql(dialect=sql.DIALECT), block)
        return TargetTable(schema, [home.codec for home in homes], stored=_BLOCK)

    def numbers(self, table: TargetTable, part: Part) -> list[int]:
        """Which rows of the block, as it came, belong to a part."""
        chosen = exp.select(sql.row_id()).from_(sql.table(table.name)).where(part_condition(self, table, part))
        return [number for (number,) in self.ask(chosen.order_by(sql.row_id()))]
