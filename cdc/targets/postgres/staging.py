"""Arrow columns as a temporary table, for the statements that read them."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from cdc.errors import ValueRefused
from cdc.model.canonical import canonical
from cdc.model.schema import TableSchema
from cdc.tables import sql
from cdc.tables.engine import Input
from cdc.targets.postgres.connection import Session

_TYPES = {
    pa.int8(): "smallint",
    pa.int16(): "smallint",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.bool_(): "boolean",
    pa.timestamp("us", "UTC"): "timestamp with time zone",
}
_OPTIONS = pyarrow.csv.WriteOptions(include_header=False, quoting_style="all_valid")  # '' is quoted, and NULL is not


def stage(session: Session, rows: Input, schema: TableSchema | None) -> None:
    """Make ROWS, in the place of those that were there.

    Args:
        schema: of the table whose columns those of `rows.columns` are; their values are staged as texts.

    Raises:
        ValueRefused: a text has the character U+0000.
    """
    texts = set(rows.columns) if schema is not None else set()
    arrays = {name: canonical(array) if name in texts else array for name, array in rows.data.items()}
    types = {name: "text" if name in texts else _TYPES.get(array.type, "text") for name, array in arrays.items()}
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(pa.table({name: _plain(array) for name, array in arrays.items()}), buffer, _OPTIONS)
    written = buffer.getvalue()
    if b"\0" in written and schema is not None:
        raise _refusal(schema, rows, arrays)
    definitions = ", ".join(f"{name} {kind}" for name, kind in types.items())
    session.execute(f"DROP TABLE IF EXISTS {sql.ROWS}; CREATE TEMPORARY TABLE {sql.ROWS} ({definitions})".encode())
    with session.cursor().copy(f"COPY {sql.ROWS} FROM STDIN (FORMAT csv)".encode()) as copy:
        copy.write(written)


def _refusal(schema: TableSchema, rows: Input, texts: Mapping[str, pa.Array]) -> ValueRefused:
    """What is said of texts that MySQL may hold, and PostgreSQL may not."""
    refused = {index for name, index in rows.columns.items() if pc.any(pc.match_substring(texts[name], "\0")).as_py()}
    names = [schema.columns[index].name for index in sorted(refused)]
    cleared = ", ".join(f"`{name}` = REPLACE(`{name}`, '\\0', '')" for name in names)
    table = schema.table
    return ValueRefused(
        f"{table} has a text with the character U+0000 in {', '.join(names)}, which PostgreSQL cannot hold.",
        hint=f"Remove it in the source, for example with UPDATE `{table.schema}`.`{table.name}` SET {cleared}; then "
        "copy the "
        f"table again: `cdc resync SOURCE TARGET --tables {table}`. Or leave it out with --exclude.",
    )


def _plain(array: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """What `pyarrow.csv` can write."""
    return array.cast(pa.string()) if array.type in (pa.string_view(), pa.large_string()) else array
