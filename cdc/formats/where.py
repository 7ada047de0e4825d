"""A condition in SQL on the rows of changes, decided by DuckDB for a whole batch at once."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa

from cdc.errors import UsageError
from cdc.model.canonical import canonical
from cdc.model.change import ABSENT, ChangeBatch, Rows
from cdc.model.schema import Kind, LogicalType, TableSchema

_TYPES = {
    Kind.BOOL: "BOOLEAN",
    Kind.INT16: "SMALLINT",
    Kind.INT32: "INTEGER",
    Kind.INT64: "BIGINT",
    Kind.UINT32: "UINTEGER",
    Kind.UINT64: "UBIGINT",
    Kind.FLOAT32: "FLOAT",
    Kind.FLOAT64: "DOUBLE",
    Kind.DATE: "DATE",
    Kind.TIME: "TIME",
    Kind.TIMESTAMP: "TIMESTAMP",
    Kind.TIMESTAMPTZ: "TIMESTAMPTZ",
    Kind.INTERVAL: "INTERVAL",
}
_MOST_DIGITS = 38


class Where:
    """Chooses the changes whose row fulfils a condition: the new row, or of a delete the old one.

    A value that the log left out, or that DuckDB has no place for in its type, is NULL to the condition.
    """

    def __init__(self, condition: str) -> None:
        self._condition = condition
        self._connection = duckdb.connect(":memory:", config={"threads": "1"})
        self._connection.execute("SET TimeZone = 'UTC'")
        if not self._is_one(condition):
            raise UsageError("--where is not a condition in SQL.", hint="For example: price > 100 AND note IS NULL")

    def _is_one(self, condition: str) -> bool:
        """Whether it stays inside of the parentheses around it, by themselves and as what is selected (O2)."""
        try:
            return all(
                len(self._connection.extract_statements(statement)) == 1
                for statement in (f"SELECT 1 WHERE ({condition}\n)", f"SELECT coalesce(({condition}\n), false)")
            )
        except duckdb.Error:
            return False

    def __call__(self, batch: ChangeBatch) -> np.ndarray:
        """bool[n]: which changes fulfil it."""
        after = self._fulfil(batch.schema, batch.after)
        before = self._fulfil(batch.schema, batch.before)
        new = after[batch.after_row] & (batch.after_row != ABSENT)
        old = before[batch.before_row] & (batch.before_row != ABSENT) & (batch.after_row == ABSENT)
        found: np.ndarray = new | old
        return found

    def _fulfil(self, schema: TableSchema, rows: Rows | None) -> np.ndarray:
        """bool[m]: which rows do; one that is False for an index of ABSENT."""
        if rows is None or not len(rows):
            return np.zeros(1, dtype=bool)
        _cdc_rows = pa.table({f"c{index}": canonical(column) for index, column in enumerate(rows.columns)})
        columns = ", ".join(
            f'TRY_CAST(c{index} AS {_type(column.type)}) AS "{column.name.replace(chr(34), chr(34) * 2)}"'
            for index, column in enumerate(schema.columns)
        )
        query = f"SELECT coalesce(({self._condition}\n), false) AS fulfilled FROM (SELECT {columns} FROM _cdc_rows)"
        try:
            found = self._connection.execute(query).fetchnumpy()["fulfilled"]
        except duckdb.BinderException as error:
            raise UsageError(
                f"--where does not fit {schema.table}: it names a column that the table does not have, or compares "
                "values that cannot be compared.",
                hint="Choose the tables that have these columns with --tables.",
            ) from error
        except duckdb.Error as error:  # whose text may hold a value
            raise UsageError(
                f"--where cannot be decided for rows of {schema.table} ({type(error).__name__})."
            ) from error
        fulfilled: np.ndarray = np.asarray(found, dtype=bool)
        return fulfilled


def _type(kind: LogicalType) -> str:
    """DuckDB's type for a column; text if DuckDB compares no type as the source would."""
    if kind.kind is Kind.DECIMAL:
        fits = (
            kind.precision is not None and kind.scale is not None and 0 <= kind.scale <= kind.precision <= _MOST_DIGITS
        )
        return f"DECIMAL({kind.precision},{kind.scale})" if fits else "DOUBLE"
    return _TYPES.get(kind.kind, "VARCHAR")
