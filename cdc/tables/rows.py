"""Rows of Arrow columns in statements over one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from sqlglot import exp

from cdc import faults
from cdc.errors import TargetDrift
from cdc.model.arrays import unified
from cdc.tables import sql
from cdc.tables.engine import Engine, Input
from cdc.tables.table import TargetTable
from cdc.typed.fitting import Readings

MERGE_ROWS = 500_000  # of one statement; some releases of DuckDB abort on a few million deletes at once (D-12)


class RowStatements:
    """Runs statements that read Arrow columns, inside whatever transaction is open."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def delete_keys(self, table: TargetTable, keys: Sequence[pa.Array]) -> int:
        """Delete the rows that have these keys; how many there were."""
        if not len(keys[0]):
            return 0
        deleted = 0
        data = {f"k{i}": array for i, array in enumerate(keys)}
        for rows in slices(Input(numbered("k", table.schema.key), data), MERGE_ROWS):
            readings = self._engine.fit(table, rows)
            with self._engine.visible(rows, table):
                statement = ("delete", *readings.values())
                if statement not in table.statements:
                    deletion = sql.delete(table.name, self.read_key(table, rows, readings))
                    table.statements[statement] = self._engine.render(deletion)
                deleted += self._engine.run(table.statements[statement])
        return deleted

    def insert(self, table: TargetTable, columns: Sequence[pa.Array | pa.ChunkedArray]) -> None:
        if not columns or not len(columns[0]):
            return
        rows = Input(numbered("c", range(len(columns))), {f"c{i}": column for i, column in enumerate(columns)})
        readings = self._engine.fit(table, rows)
        with self._engine.visible(rows, table):
            key = ("insert", *readings.values())
            if key not in table.statements:
                names = [column.name for column in table.schema.columns]
                values = [self.read(table, rows, name, readings) for name in rows.columns]
                table.statements[key] = self._engine.render(sql.insert(table.name, names, values))
            faults.point("target.before_insert")
            self.verify_all_came(table, self._engine.run(table.statements[key]), len(columns[0]))

    def verify_all_came(self, table: TargetTable, inserted: int, expected: int) -> None:
        """Raise TargetDrift if rows that were inserted are not there: others can have a trigger that takes them out."""
        if inserted != expected:
            raise TargetDrift(
                f"{expected} rows were written to {table.name}, but the target has only {inserted} of them: a trigger "
                "or a rule in the target keeps rows out.",
                hint=f"Drop it, then copy the table again: `cdc resync SOURCE TARGET --tables {table.schema.table}`.",
            )

    def key_texts(self, table: TargetTable, keys: Sequence[pa.Array]) -> list[tuple[str, ...]]:
        """Keys as the texts that the digests have."""
        if not len(keys[0]):
            return []
        rows = Input(numbered("k", table.schema.key), {f"k{i}": array for i, array in enumerate(keys)})
        readings = self._engine.fit(table, rows)
        with self._engine.visible(rows, table):
            texts = [
                table.codecs[index].render(self.read(table, rows, name, readings))
                for name, index in rows.columns.items()
            ]
            return self._engine.ask(sql.select_rows(texts))

    def read(self, table: TargetTable, rows: Input, name: str, readings: Readings) -> exp.Expression:
        """The value that ROWS has under a name."""
        return self._engine.read(table, rows.columns[name], name, readings[name])

    def read_key(self, table: TargetTable, rows: Input, readings: Readings) -> list[tuple[str, exp.Expression]]:
        """Names of the table's key columns, each with the value that ROWS has for it."""
        columns = table.schema.columns
        return [
            (columns[index].name, self.read(table, rows, name, readings))
            for name, index in rows.columns.items()
            if name.startswith("k")
        ]


def slices(rows: Input, size: int) -> Iterator[Input]:
    """The same rows, so many at a time."""
    count = len(next(iter(rows.data.values())))
    for start in range(0, count, size):
        yield Input(rows.columns, {name: array.slice(start, size) for name, array in rows.data.items()})


def joined(parts: Sequence[pa.Array]) -> pa.ChunkedArray:
    return pa.chunked_array(unified(parts))


def numbered(prefix: str, indexes: Sequence[int]) -> dict[str, int]:
    return {f"{prefix}{number}": index for number, index in enumerate(indexes)}
