"""Applying changes of one table: fold them to their net effect, find out how their values fit, merge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

import duckdb
import numpy as np
import pyarrow as pa
from sqlglot import exp

from cdc.errors import TargetDrift
from cdc.model.arrays import TEXT, take, unified
from cdc.model.change import ChangeBatch, Op
from cdc.model.fold import fold, net_rows
from cdc.targets.duckdb import sql
from cdc.targets.duckdb.codecs import TEXT_CODEC, codec_for
from cdc.targets.duckdb.table import TargetTable

MERGE_ROWS = 500_000  # of one statement; some releases of DuckDB abort on a few million deletes at once (D-12)

_NUMBER, _COPIES, _DELETE = "number", "copies", "gone"


class _Reading(Enum):
    """How one column is read in one statement."""

    FAST = "fast"
    CAREFUL = "careful"
    NATIVE = "native"  # it is no text


@dataclass(frozen=True, slots=True)
class _Input:
    """Text columns that go into a statement under names of their own.

    Attributes:
        columns: name in the statement -> index of the table's column whose type its values have.
        data: Arrow arrays of one length by those names, and whatever else the statement reads.
    """

    columns: dict[str, int]
    data: dict[str, pa.Array]

    def slices(self, size: int) -> Iterator[_Input]:
        count = len(next(iter(self.data.values())))
        for start in range(0, count, size):
            yield _Input(self.columns, {name: array.slice(start, size) for name, array in self.data.items()})


class Applier:
    """Writes changes into the tables of one open file, inside whatever transaction is open."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._rows = pa.table({})

    @contextmanager
    def _visible(self, data: dict[str, pa.Array]) -> Iterator[None]:
        """Let statements see Arrow columns as ROWS."""
        self._rows = pa.table(data)
        try:
            yield
        finally:
            self._rows = pa.table({})

    def _execute(self, statement: str) -> duckdb.DuckDBPyConnection:
        """Run a statement that reads ROWS.

        DuckDB finds them as the variable of that name. Registered, they would be held until the end of the transaction,
        and a large one would hold all of its log in memory (A-63).
        """
        _cdc_rows = self._rows
        return self._connection.execute(statement)

    def write(self, table: TargetTable, batches: Sequence[ChangeBatch]) -> None:
        """Bring a table from before the batches to after them.

        Raises:
            TargetDrift: a row that is updated or deleted is not there (A-42).
        """
        if all((batch.op == Op.INSERT).all() for batch in batches):
            self._insert(table, [pa.chunked_array(unified(parts)) for parts in zip(*map(_after, batches), strict=True)])
        elif table.schema.key:
            self._merge(table, batches)
        else:
            self._match_rows(table, batches)

    def _insert(self, table: TargetTable, columns: Sequence[pa.Array | pa.ChunkedArray]) -> None:
        if not columns or not len(columns[0]):
            return
        rows = _Input(_numbered("c", range(len(columns))), {f"c{i}": column for i, column in enumerate(columns)})
        with self._visible(rows.data):
            readings = self._readings(table, rows)
            key = ("insert", *readings.values())
            if key not in table.statements:
                names = [column.name for column in table.schema.columns]
                values = [_read(table, rows, name, readings) for name in rows.columns]
                table.statements[key] = sql.insert(table.name, names, values)
            self._execute(table.statements[key])

    def _merge(self, table: TargetTable, batches: Sequence[ChangeBatch]) -> None:
        folded = fold(batches, lambda keys: self._exist(table, keys))
        keys = table.schema.key
        if (gone := len(folded.deleted[0])) > 0:
            data = {f"k{i}": array for i, array in enumerate(folded.deleted)}
            rows = _Input(_numbered("k", keys), {**data, _DELETE: pa.repeat(True, gone)})
            for part in rows.slices(MERGE_ROWS):
                self._merge_rows(table, part, {})
        if len(folded.updated_key[0]) > 0:
            columns = _numbered("k", keys) | _numbered("c", range(len(folded.updated)))
            data = {f"k{i}": array for i, array in enumerate(folded.updated_key)}
            data |= {f"c{i}": array for i, array in enumerate(folded.updated)}
            masks = {i: f"u{i}" for i, mask in enumerate(folded.unchanged) if mask is not None}
            data |= {name: pa.array(folded.unchanged[i]) for i, name in masks.items()}
            rows = _Input(columns, {**data, _DELETE: pa.repeat(False, len(folded.updated_key[0]))})
            for part in rows.slices(MERGE_ROWS):
                self._merge_rows(table, part, masks)
        self._insert(table, folded.inserted)

    def _merge_rows(self, table: TargetTable, rows: _Input, masks: dict[int, str]) -> None:
        with self._visible(rows.data):
            readings = self._readings(table, rows)
            statement_key = ("merge", tuple(masks), tuple(rows.columns), *readings.values())
            if statement_key not in table.statements:
                table.statements[statement_key] = _merge_statement(table, rows, masks, readings)
            self._run(table, table.statements[statement_key], len(rows.data[_DELETE]))

    def _match_rows(self, table: TargetTable, batches: Sequence[ChangeBatch]) -> None:
        """A table without a key: rows are told apart by all their values, and equal ones are counted (A-46)."""
        columns, counts = net_rows(batches)
        gone, came = np.flatnonzero(counts < 0), np.flatnonzero(counts > 0)
        if len(gone):
            copies = -counts[gone]
            data = {f"c{i}": take(column, gone) for i, column in enumerate(columns)}
            data |= {_NUMBER: pa.array(np.arange(len(gone))), _COPIES: pa.array(copies)}
            with self._visible(data):
                rows_in = _Input(_numbered("c", range(len(columns))), data)
                careful = {
                    name: _Reading.CAREFUL if data[name].type == TEXT else _Reading.NATIVE for name in rows_in.columns
                }
                compared = [
                    (codec.render(_read(table, rows_in, f"c{i}", careful)), codec.render(sql.column(column.name, "t")))
                    for i, (column, codec) in enumerate(zip(table.schema.columns, table.codecs, strict=True))
                ]
                self._run(table, sql.delete_copies(table.name, compared, _NUMBER, _COPIES), int(copies.sum()))
        if len(came):
            rows = np.repeat(came, counts[came])
            self._insert(table, [take(column, rows) for column in columns])

    def _exist(self, table: TargetTable, keys: Sequence[pa.Array]) -> np.ndarray:
        """bool[n]: which keys the table holds now."""
        count = len(keys[0])
        rows = _Input(
            _numbered("k", table.schema.key),
            {**{f"k{i}": array for i, array in enumerate(keys)}, _NUMBER: pa.array(np.arange(count))},
        )
        with self._visible(rows.data):
            readings = self._readings(table, rows)
            key = [(table.schema.columns[i].name, _read(table, rows, n, readings)) for n, i in rows.columns.items()]
            found = self._execute(sql.matching(table.name, key, _NUMBER)).fetchnumpy()[_NUMBER]
        exists = np.zeros(count, dtype=bool)
        exists[np.asarray(found, dtype=np.int64)] = True
        return exists

    def _run(self, table: TargetTable, statement: str, expected: int) -> None:
        """Run a statement that must meet exactly the rows that it names."""
        changed = self._execute(statement).fetchone()
        if changed is None or changed[0] != expected:
            raise TargetDrift(
                f"{expected} rows of {table.name} were changed in the source, but the target holds "
                f"{changed[0] if changed else 'none'} of them.",
                hint="Somebody else wrote to the target. Restore it from a backup, or remove it and start again.",
            )

    def _readings(self, table: TargetTable, rows: _Input) -> dict[str, _Reading]:
        """How each text column of the visible rows is to be read; widens what cannot hold its values.

        An error in a conversion would end the whole transaction, so that it must be ruled out before.
        """
        readings = {name: _Reading.FAST if rows.data[name].type == TEXT else _Reading.NATIVE for name in rows.columns}
        suspicions = {
            name: suspicion
            for name, index in rows.columns.items()
            if readings[name] is not _Reading.NATIVE
            and (suspicion := table.codecs[index].suspect(sql.column(name, "s"))) is not None
        }
        suspects = self._any(suspicions)
        for name in suspects:
            readings[name] = _Reading.CAREFUL
        misfits = self._any({name: table.codecs[rows.columns[name]].misfit(sql.column(name, "s")) for name in suspects})
        for name in misfits:
            if table.codecs[rows.columns[name]] is not TEXT_CODEC:
                table.widen(self._connection, rows.columns[name])
        for name, index in rows.columns.items():
            if table.codecs[index] is TEXT_CODEC and readings[name] is not _Reading.NATIVE:
                readings[name] = _Reading.FAST
        return readings

    def _any(self, conditions: dict[str, exp.Expression]) -> list[str]:
        """Those of the conditions that some visible row fulfils."""
        if not conditions:
            return []
        answer = self._execute(sql.any_of(list(conditions.values()))).fetchone()
        return [name for name, found in zip(conditions, answer or (), strict=True) if found]


def _read(table: TargetTable, rows: _Input, name: str, readings: dict[str, _Reading]) -> exp.Expression:
    index = rows.columns[name]
    codec, text = table.codecs[index], sql.column(name, "s")
    if readings[name] is _Reading.NATIVE:
        own = codec_for(table.schema.columns[index].type)
        value = sql.cast(text, own.sql_type)
        return own.render(value) if codec is not own and codec is TEXT_CODEC else value
    return codec.careful(text) if readings[name] is _Reading.CAREFUL else codec.parse(text)


def _merge_statement(table: TargetTable, rows: _Input, masks: dict[int, str], readings: dict[str, _Reading]) -> str:
    names = [column.name for column in table.schema.columns]
    key: list[tuple[str, exp.Expression]] = []
    assignments: list[tuple[str, exp.Expression]] = []
    for name, index in rows.columns.items():
        value = _read(table, rows, name, readings)
        if name.startswith("k"):
            key.append((names[index], value))
        elif index in masks:
            kept = exp.Case().when(sql.column(masks[index], "s"), sql.column(names[index], "t")).else_(value)
            assignments.append((names[index], kept))
        else:
            assignments.append((names[index], value))
    return sql.merge(table.name, key, assignments, sql.column(_DELETE, "s"))


def _numbered(prefix: str, indexes: Sequence[int]) -> dict[str, int]:
    return {f"{prefix}{number}": index for number, index in enumerate(indexes)}


def _after(batch: ChangeBatch) -> list[pa.Array]:
    """The new rows of a batch of inserts, in its order."""
    if batch.after is None:
        return []
    everything = len(batch.after_row) == len(batch.after)
    return list(batch.after.columns) if everything else [take(c, batch.after_row) for c in batch.after.columns]
