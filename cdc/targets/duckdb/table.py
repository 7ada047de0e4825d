"""One target table: how its columns hold their values now, and the statements that change its shape."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import duckdb

from cdc.errors import TargetDrift, UsageError
from cdc.model.schema import Column, TableName, TableSchema
from cdc.targets.duckdb import sql
from cdc.targets.duckdb.codecs import TEXT_CODEC, Codec, codec_for

log = logging.getLogger(__name__)


@dataclass(slots=True)
class TargetTable:
    """A table as it is in the file.

    Attributes:
        schema: its shape by the source.
        codecs: per column of the schema, how the file holds its values: as the type asks for, or, once a value came
            that this type has no place for, as the source's own text.
        statements: made for this shape already, by what they are for.
    """

    schema: TableSchema
    codecs: list[Codec]
    statements: dict[object, str] = field(default_factory=dict)

    @property
    def name(self) -> TableName:
        return self.schema.table

    def widen(self, connection: duckdb.DuckDBPyConnection, index: int) -> None:
        """Hold a column as text from now on, what is there already included."""
        column, codec = self.schema.columns[index], self.codecs[index]
        log.warning(
            "%s.%s holds a value that DuckDB's %s cannot; the column is kept as text from now on",
            self.name,
            column.name,
            codec.sql_type,
        )
        using = codec.render(sql.column(column.name))
        connection.execute(sql.retype_column(self.name, column.name, TEXT_CODEC.sql_type, using))
        self.codecs[index] = TEXT_CODEC
        self.statements.clear()


def create(connection: duckdb.DuckDBPyConnection, schema: TableSchema) -> TargetTable:
    """Make an empty table."""
    refuse_collisions(schema)
    codecs = [codec_for(column.type) for column in schema.columns]
    connection.execute(sql.create_schema(schema.table.schema))
    columns = [(column.name, codec.sql_type) for column, codec in zip(schema.columns, codecs, strict=True)]
    connection.execute(sql.create_table(schema.table, columns))
    return TargetTable(schema, codecs)


def inspect(connection: duckdb.DuckDBPyConnection, schema: TableSchema) -> TargetTable:
    """Find a table as this pipeline left it.

    Raises:
        TargetDrift: it is not there, or its columns are others than the pipeline's (D-08).
    """
    found = actual_columns(connection, schema.table)
    if not found:
        raise TargetDrift(
            f"The table {schema.table} is gone from the target.",
            hint="Restore it from a backup of the whole file, or remove the target and start again.",
        )
    expected = {column.name for column in schema.columns}
    if set(found) != expected:
        other = ", ".join(sorted(set(found) ^ expected))
        raise TargetDrift(
            f"The columns of {schema.table} in the target are not those that the pipeline made: {other}.",
            hint="Undo what was changed by hand (a view can add columns), or remove the target and start again.",
        )
    return TargetTable(schema, [_held_as(schema, column, found[column.name]) for column in schema.columns])


def _held_as(schema: TableSchema, column: Column, actual: str) -> Codec:
    codec = codec_for(column.type)
    if actual == codec.sql_type:
        return codec
    if actual == TEXT_CODEC.sql_type:
        return TEXT_CODEC
    raise TargetDrift(
        f"{schema.table}.{column.name} is {actual} in the target, the pipeline made it {codec.sql_type}.",
        hint="Undo what was changed by hand, or remove the target and start again.",
    )


def actual_columns(connection: duckdb.DuckDBPyConnection, table: TableName) -> dict[str, str]:
    """Names and types of a table's columns as DuckDB has them; empty if there is no such table."""
    return dict(
        connection.execute(
            "SELECT column_name, data_type FROM duckdb_columns() "
            "WHERE database_name = current_database() AND schema_name = ? AND table_name = ?",
            [table.schema, table.name],
        ).fetchall()
    )


def refuse_collisions(schema: TableSchema) -> None:
    """DuckDB finds names without regard to case, so that `a` and `A` are one column to it (E-06)."""
    seen: dict[str, str] = {}
    for column in schema.columns:
        other = seen.setdefault(column.name.lower(), column.name)
        if other != column.name:
            raise UsageError(
                f"{schema.table} has columns {other!r} and {column.name!r}, which are one name to DuckDB.",
                hint="Leave the table out with --exclude, or rename a column.",
            )


def evolve(
    connection: duckdb.DuckDBPyConnection, table: TargetTable, new: TableSchema, fill: dict[int, str]
) -> TargetTable:
    """Give a table another shape. Columns are matched by identity, so that a rename moves no value (A-50)."""
    refuse_collisions(new)
    old = table.schema
    if old.table != new.table:
        _rename(connection, old.table, new.table)
    held = {column.identity: codec for column, codec in zip(old.columns, table.codecs, strict=True)}
    stays = {column.identity: column for column in new.columns}
    for column in old.columns:
        if column.identity not in stays:
            connection.execute(sql.drop_column(new.table, column.name))
    _rename_columns(connection, old, new)
    codecs = []
    for column in new.columns:
        if (codec := held.get(column.identity)) is None:
            codecs.append(_add(connection, new.table, column, fill.get(column.identity)))
        else:
            codecs.append(_retype(connection, new.table, column, codec))
    return TargetTable(new, codecs)


def _rename(connection: duckdb.DuckDBPyConnection, old: TableName, new: TableName) -> None:
    if old.schema == new.schema:
        connection.execute(sql.rename_table(old, new.name))
        return
    connection.execute(sql.create_schema(new.schema))
    connection.execute(sql.copy_table(old, new))
    connection.execute(sql.drop_table(old))


def _rename_columns(connection: duckdb.DuckDBPyConnection, old: TableSchema, new: TableSchema) -> None:
    """By way of names that nobody has, since columns may have swapped theirs."""
    now = {column.identity: column.name for column in new.columns}
    moves = [(c.name, now[c.identity]) for c in old.columns if c.identity in now and c.name != now[c.identity]]
    for number, (was, _) in enumerate(moves):
        connection.execute(sql.rename_column(new.table, was, f"_cdc_renamed_{number}"))
    for number, (_, becomes) in enumerate(moves):
        connection.execute(sql.rename_column(new.table, f"_cdc_renamed_{number}", becomes))


def _add(connection: duckdb.DuckDBPyConnection, table: TableName, column: Column, value: str | None) -> Codec:
    codec = codec_for(column.type)
    if value is not None and not _can_hold(connection, codec, value):
        codec = TEXT_CODEC
    connection.execute(sql.add_column(table, column.name, codec.sql_type))
    if value is not None:
        connection.execute(sql.fill_column(table, column.name, codec.careful(sql.literal(value))))
    return codec


def _can_hold(connection: duckdb.DuckDBPyConnection, codec: Codec, value: str) -> bool:
    text = codec.render(codec.careful(sql.literal(value)))
    answer = connection.execute(sql.scalar(text)).fetchone()
    return answer is not None and answer[0] == value


def _retype(connection: duckdb.DuckDBPyConnection, table: TableName, column: Column, held: Codec) -> Codec:
    codec = codec_for(column.type)
    if codec.sql_type == held.sql_type or held is TEXT_CODEC:
        return codec if codec.sql_type == held.sql_type else TEXT_CODEC
    value = sql.column(column.name)
    using = held.render(value) if codec.sql_type == TEXT_CODEC.sql_type else sql.cast(value, codec.sql_type)
    connection.execute(sql.retype_column(table, column.name, codec.sql_type, using))
    return codec
