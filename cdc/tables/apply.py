"""Applying changes of one table: fold them to their net effect, find out how their values fit, merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from sqlglot import exp

from cdc import faults
from cdc.errors import RowDrift
from cdc.model.arrays import take, unified
from cdc.model.change import ChangeBatch, Op
from cdc.model.fold import Folded, fold, fold_in_part, net_rows
from cdc.tables import sql
from cdc.tables.engine import Input
from cdc.tables.rows import RowStatements, joined, numbered
from cdc.tables.table import TargetTable
from cdc.typed.fitting import Readings

_NUMBER, _COPIES = "number", "copies"


class Applier(RowStatements):
    """Writes changes into tables, inside whatever transaction is open."""

    def write(self, table: TargetTable, batches: Sequence[ChangeBatch]) -> None:
        """Bring a table from before the batches to after them.

        Raises:
            RowDrift: a row that is updated or deleted is not there (A-42).
        """
        if table.is_lenient and table.schema.key:
            self._merge_in_part(table, batches)
        elif all((batch.op == Op.INSERT).all() for batch in batches):
            self.insert(table, [pa.chunked_array(unified(parts)) for parts in zip(*map(_after, batches), strict=True)])
        elif table.schema.key:
            self._merge(table, batches)
        else:
            self._match_rows(table, batches)

    def _merge(self, table: TargetTable, batches: Sequence[ChangeBatch]) -> None:
        """Rows that change are taken out and put back as they are now.

        DuckDB can change rows where they are, but pays for each by the vector of 2,048 that it lies in: a few hundred
        updates all over a table then cost as much as writing it again, at every commit, and double the file.
        """
        folded = fold(batches, lambda keys: self._exist(table, keys))
        self._put(table, folded)

    def _put(self, table: TargetTable, folded: Folded) -> None:
        updated = len(folded.updated_key[0])
        is_partial = any(mask is not None for mask in folded.unchanged)
        if is_partial:
            self._complete(table, folded)
        self._delete(table, [joined(parts) for parts in zip(folded.deleted, folded.updated_key, strict=True)])
        if is_partial:
            inserting = sql.insert_completed(table.name, [column.name for column in table.schema.columns])
            self.verify_all_came(table, self._engine.run(inserting), updated)
            self._engine.run(sql.drop_temporary(sql.COMPLETED))
        elif updated:
            self.insert(table, folded.updated)
        faults.point("target.between_merges")
        self.insert(table, folded.inserted)

    def _merge_in_part(self, table: TargetTable, batches: Sequence[ChangeBatch]) -> None:
        """Changes of a table that does not have all of its rows yet: a row that is not there comes with its part.

        Rows that the changes alone do not give are kept in mind, and read again in the end.
        """
        folded, moving = fold_in_part(batches)
        there = self._exist(table, folded.updated_key)
        is_whole = ~there
        for mask in folded.unchanged:
            if mask is not None:
                is_whole &= ~mask
        lacking = [take(column, np.flatnonzero(~there & ~is_whole)) for column in folded.updated_key]
        come = [
            joined((take(updated, np.flatnonzero(is_whole)), inserted))
            for updated, inserted in zip(folded.updated, folded.inserted, strict=True)
        ]
        self._delete(table, moving)
        self._put(table, replace(folded.only(there), inserted=[column.slice(0, 0) for column in folded.inserted]))
        self._delete(table, [come[index] for index in table.schema.key])
        self.insert(table, come)
        for keys in (moving, lacking):
            table.missed |= set(self.key_texts(table, keys))

    def _complete(self, table: TargetTable, folded: Folded) -> None:
        """Set the updated rows aside as they are now, with the values that the log left out from the target (A-41)."""
        keys = table.schema.key
        data = {f"k{i}": array for i, array in enumerate(folded.updated_key)}
        data |= {f"c{i}": array for i, array in enumerate(folded.updated)}
        masks = {i: f"u{i}" for i, mask in enumerate(folded.unchanged) if mask is not None}
        data |= {name: pa.array(folded.unchanged[i]) for i, name in masks.items()}
        rows = Input(numbered("k", keys) | numbered("c", range(len(folded.updated))), data)
        readings = self._engine.fit(table, rows)
        with self._engine.visible(rows, table):
            statement = ("complete", tuple(masks), *readings.values())
            if statement not in table.statements:
                completed = self._completed(table, rows, masks, readings)
                table.statements[statement] = self._engine.render(completed)
            self._engine.run(table.statements[statement])

    def _delete(self, table: TargetTable, keys: Sequence[pa.Array]) -> None:
        """Delete the rows that have these keys, all of which must be there."""
        self._verify(table, self.delete_keys(table, keys), len(keys[0]))

    def _match_rows(self, table: TargetTable, batches: Sequence[ChangeBatch]) -> None:
        """A table without a key: rows are distinguished by all their values, and equal ones are counted (A-46)."""
        columns, counts = net_rows(batches)
        gone, came = np.flatnonzero(counts < 0), np.flatnonzero(counts > 0)
        if len(gone):
            copies = -counts[gone]
            data = {f"c{i}": take(column, gone) for i, column in enumerate(columns)}
            data |= {_NUMBER: pa.array(np.arange(len(gone))), _COPIES: pa.array(copies)}
            rows_in = Input(numbered("c", range(len(columns))), data)
            careful = self._engine.careful(rows_in)
            with self._engine.visible(rows_in, table):
                compared = [
                    (
                        codec.render(self.read(table, rows_in, f"c{i}", careful)),
                        codec.render(sql.column(column.name, "t")),
                    )
                    for i, (column, codec) in enumerate(zip(table.schema.columns, table.codecs, strict=True))
                ]
                deleted = self._engine.run(sql.delete_copies(table.name, compared, _NUMBER, _COPIES))
                self._verify(table, deleted, int(copies.sum()))
        faults.point("target.between_matches")
        if len(came):
            rows = np.repeat(came, counts[came])
            self.insert(table, [take(column, rows) for column in columns])

    def _exist(self, table: TargetTable, keys: Sequence[pa.Array]) -> np.ndarray:
        """bool[n]: which keys the table holds now."""
        count = len(keys[0])
        rows = Input(
            numbered("k", table.schema.key),
            {**{f"k{i}": array for i, array in enumerate(keys)}, _NUMBER: pa.array(np.arange(count))},
        )
        readings = self._engine.fit(table, rows)
        with self._engine.visible(rows, table):
            matching = sql.matching(table.name, self.read_key(table, rows, readings), _NUMBER)
            (found,) = self._engine.numbers(matching)
        exists = np.zeros(count, dtype=bool)
        exists[found] = True
        return exists

    def _completed(self, table: TargetTable, rows: Input, masks: dict[int, str], readings: Readings) -> exp.Expr:
        values: list[tuple[str, exp.Expression]] = []
        for name, index in rows.columns.items():
            if name.startswith("c"):
                text = table.schema.columns[index].name
                value = self.read(table, rows, name, readings)
                if index in masks:
                    value = exp.Case().when(sql.column(masks[index], "s"), sql.column(text, "t")).else_(value)
                values.append((text, value))
        return sql.create_completed(table.name, self.read_key(table, rows, readings), values)

    def _verify(self, table: TargetTable, changed: int, expected: int) -> None:
        """A statement must have met exactly the rows that it named."""
        if changed != expected and not table.is_lenient:
            raise RowDrift(
                f"{expected} rows of {table.name} were changed in the source, but the target holds {changed} of them.",
                hint=f"Read it again: `cdc resync SOURCE TARGET --tables {table.schema.table}`.",
            )


def _after(batch: ChangeBatch) -> list[pa.Array]:
    """The new rows of a batch of inserts, in its order."""
    if batch.after is None:
        return []
    everything = len(batch.after_row) == len(batch.after)
    return list(batch.after.columns) if everything else [take(c, batch.after_row) for c in batch.after.columns]
