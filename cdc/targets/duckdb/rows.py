"""Rows of Arrow columns in statements: how their values are read into the types that a table holds them in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

import duckdb
import pyarrow as pa
from sqlglot import exp

from cdc import faults
from cdc.model.arrays import TEXT, unified
from cdc.targets.duckdb import sql
from cdc.targets.duckdb.codecs import TEXT_CODEC, codec_for
from cdc.targets.duckdb.table import Question, TargetTable

MERGE_ROWS = 500_000  # of one statement; some releases of DuckDB abort on a few million deletes at once (D-12)


class Reading(Enum):
    """How one column is read in one statement."""

    FAST = "fast"
    CAREFUL = "careful"
    NATIVE = "native"  # it is no text


@dataclass(frozen=True, slots=True)
class Input:
    """Text columns that go into a statement under names of their own.

    Attributes:
        columns: name in the statement -> index of the table's column whose type its values have.
        data: Arrow arrays of one length by those names, and whatever else the statement reads.
    """

    columns: dict[str, int]
    data: dict[str, pa.Array]

    def slices(self, size: int) -> Iterator[Input]:
        count = len(next(iter(self.data.values())))
        for start in range(0, count, size):
            yield Input(self.columns, {name: array.slice(start, size) for name, array in self.data.items()})


class RowStatements:
    """Runs statements that read Arrow columns, on one open file, inside whatever transaction is open."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._rows = pa.table({})

    @contextmanager
    def visible(self, data: dict[str, pa.Array]) -> Iterator[None]:
        """Let statements see Arrow columns as ROWS."""
        self._rows = pa.table(data)
        try:
            yield
        finally:
            self._rows = pa.table({})

    def execute(self, statement: str) -> duckdb.DuckDBPyConnection:
        """Run a statement that reads ROWS.

        DuckDB finds them as the variable of that name. Registered, they would be held until the end of the transaction,
        and a large one would hold all of its log in memory (A-63).
        """
        _cdc_rows = self._rows
        return self._connection.execute(statement)

    def changed(self, statement: str) -> int:
        """Run a statement that changes rows; how many it did."""
        answer = self.execute(statement).fetchone()
        return answer[0] if answer is not None else 0

    def delete_keys(self, table: TargetTable, keys: Sequence[pa.Array]) -> int:
        """Delete the rows that have these keys; how many there were."""
        if not len(keys[0]):
            return 0
        deleted = 0
        data = {f"k{i}": array for i, array in enumerate(keys)}
        for rows in Input(numbered("k", table.schema.key), data).slices(MERGE_ROWS):
            with self.visible(rows.data):
                readings = self.readings(table, rows)
                statement = ("delete", *readings.values())
                if statement not in table.statements:
                    table.statements[statement] = sql.delete(table.name, read_key(table, rows, readings))
                deleted += self.changed(table.statements[statement])
        return deleted

    def insert(self, table: TargetTable, columns: Sequence[pa.Array | pa.ChunkedArray]) -> None:
        if not columns or not len(columns[0]):
            return
        rows = Input(numbered("c", range(len(columns))), {f"c{i}": column for i, column in enumerate(columns)})
        with self.visible(rows.data):
            readings = self.readings(table, rows)
            key = ("insert", *readings.values())
            if key not in table.statements:
                names = [column.name for column in table.schema.columns]
                values = [read(table, rows, name, readings) for name in rows.columns]
                table.statements[key] = sql.insert(table.name, names, values)
            faults.point("target.before_insert")
            self.execute(table.statements[key])

    def key_texts(self, table: TargetTable, keys: Sequence[pa.Array]) -> list[tuple[str, ...]]:
        """Keys as the texts that the digests have."""
        if not len(keys[0]):
            return []
        rows = Input(numbered("k", table.schema.key), {f"k{i}": array for i, array in enumerate(keys)})
        with self.visible(rows.data):
            readings = self.readings(table, rows)
            texts = [
                table.codecs[index].render(read(table, rows, name, readings)) for name, index in rows.columns.items()
            ]
            return self.execute(sql.select_rows(texts)).fetchall()

    def readings(self, table: TargetTable, rows: Input) -> dict[str, Reading]:
        """How each text column of the visible rows is to be read; widens what cannot hold its values.

        An error in a conversion would end the whole transaction, so that it must be ruled out before.
        """
        readings = {name: Reading.FAST if rows.data[name].type == TEXT else Reading.NATIVE for name in rows.columns}
        texts = {name: index for name, index in rows.columns.items() if readings[name] is Reading.FAST}
        names, query = _question(table, texts)
        answer = self.execute(query).fetchone() if query else None
        suspects = [name for name, found in zip(names, answer, strict=True) if found] if answer is not None else []
        for name in suspects:
            readings[name] = Reading.CAREFUL
        misfits = self._any({name: table.codecs[rows.columns[name]].misfit(sql.column(name, "s")) for name in suspects})
        for name in misfits:
            if table.codecs[rows.columns[name]] is not TEXT_CODEC:
                table.widen(self._connection, rows.columns[name])
        for name, index in rows.columns.items():
            if table.codecs[index] is TEXT_CODEC and readings[name] is not Reading.NATIVE:
                readings[name] = Reading.FAST
        return readings

    def _any(self, conditions: dict[str, exp.Expression]) -> list[str]:
        """Those of the conditions that some visible row fulfils."""
        if not conditions:
            return []
        answer = self.execute(sql.any_of(list(conditions.values()))).fetchone()
        return [name for name, found in zip(conditions, answer or (), strict=True) if found]


def _question(table: TargetTable, texts: dict[str, int]) -> Question:
    """Made once for a shape: to build it took longer than a small segment takes to be applied (O50)."""
    key = tuple(texts.items())
    if (question := table.questions.get(key)) is None:
        suspicions = {
            name: suspicion
            for name, index in texts.items()
            if (suspicion := table.codecs[index].suspect(sql.column(name, "s"))) is not None
        }
        query = sql.any_of(list(suspicions.values())) if suspicions else ""
        question = table.questions[key] = Question(list(suspicions), query)
    return question


def read(table: TargetTable, rows: Input, name: str, readings: dict[str, Reading]) -> exp.Expression:
    index = rows.columns[name]
    codec, text = table.codecs[index], sql.column(name, "s")
    if readings[name] is Reading.NATIVE:
        own = codec_for(table.schema.columns[index].type)
        value = sql.cast(text, own.sql_type)
        return own.render(value) if codec is not own and codec is TEXT_CODEC else value
    return codec.careful(text) if readings[name] is Reading.CAREFUL else codec.parse(text)


def read_key(table: TargetTable, rows: Input, readings: dict[str, Reading]) -> list[tuple[str, exp.Expression]]:
    """Names of the table's key columns, each with the value that ROWS has for it."""
    columns = table.schema.columns
    return [(columns[i].name, read(table, rows, n, readings)) for n, i in rows.columns.items() if n.startswith("k")]


def joined(parts: Sequence[pa.Array]) -> pa.ChunkedArray:
    return pa.chunked_array(unified(parts))


def numbered(prefix: str, indexes: Sequence[int]) -> dict[str, int]:
    return {f"{prefix}{number}": index for number, index in enumerate(indexes)}
