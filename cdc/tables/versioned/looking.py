"""Rows of versioned tables in a DuckDB in memory, where they can be digested, chosen and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from sqlglot import exp

from cdc.model.parts import Part
from cdc.model.schema import TableName, TableSchema
from cdc.tables import sql
from cdc.tables.digest import part_condition
from cdc.tables.names import CATALOG
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
        self._memory.ask(f"ATTACH ':memory:' AS {CATALOG}")

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
        seen = _distinct(schema)
        listed = [
            exp.alias_(exp.cast(_given(column.name, block), home.codec.type, copy=False), alike.name, quoted=True)
            for column, alike, home in zip(schema.columns, seen.columns, homes, strict=True)
        ]
        named = block.rename_columns([f"c{number}" for number in range(block.num_columns)])
        query = exp.select(*listed).from_(sql.rows())
        made = exp.Create(kind="TABLE", this=sql.table(_BLOCK), replace=True, expression=query)
        self._memory.ask(made.sql(dialect=sql.DIALECT), named)
        return TargetTable(seen, [home.codec for home in homes], stored=_BLOCK)

    def numbers(self, table: TargetTable, part: Part) -> list[int]:
        """Which rows of the block, as it came, belong to a part."""
        chosen = exp.select(sql.row_id()).from_(sql.table(table.name)).where(part_condition(self, table, part))
        return [number for (number,) in self.ask(chosen.order_by(sql.row_id()))]


def _given(name: str, block: pa.Table) -> exp.Expression:
    """A column of a block whose columns are numbered; NULL if it does not have it."""
    return sql.column(f"c{block.column_names.index(name)}") if name in block.column_names else exp.Null()


def _distinct(schema: TableSchema) -> TableSchema:
    """With other names where those of two columns are one to DuckDB, which does not see case."""
    folded = [column.name.lower() for column in schema.columns]
    if len(set(folded)) == len(folded):
        return schema
    columns = [
        replace(column, name=f"{column.name}_{number}" if folded.count(name) > 1 else column.name)
        for number, (column, name) in enumerate(zip(schema.columns, folded, strict=True))
    ]
    return replace(schema, columns=tuple(columns))
