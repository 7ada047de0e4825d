"""One target table: how its columns hold their values now, and the statements that change its shape."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from sqlglot import exp

from cdc import faults
from cdc.errors import InvariantError, TargetDrift, UsageError
from cdc.model.schema import Column, Kind, TableName, TableSchema
from cdc.tables import sql
from cdc.tables.engine import Database, Engine
from cdc.target import HeldColumn
from cdc.typed.codec import Codec

log = logging.getLogger(__name__)

OURS = "_cdc_"  # begins the names of columns that the source does not have
DROPPED = f"{OURS}dropped_"  # and of those that it has no more


@dataclass(slots=True)
class TargetTable:
    """A table as it is in the target.

    Attributes:
        schema: its shape by the source.
        codecs: per column of the schema, how the target holds its values: as the type asks for, or, once a value came
            that this type has no place for, as the source's own text.
        statements: made for this shape already, by what they are for.
        is_lenient: it may lack rows, since it is copied by parts or suspect; changes of these are no drift.
        missed: keys of rows whose changes could not be applied while it is.
        stored: where its rows are, unless under the source's name for it.
        past: where its former rows are, if these are kept apart (`cdc.tables.history`).
        views: that show it to users, and are made again whenever its columns hold their values in another way.
        had_rows: it may have had some when its copy began.
        live: what its rows fulfil, if the table has others as well.
    """

    schema: TableSchema
    codecs: list[Codec]
    statements: dict[object, str] = field(default_factory=dict)
    is_lenient: bool = False
    missed: set[tuple[str, ...]] = field(default_factory=set)
    stored: TableName | None = None
    past: TableName | None = None
    views: tuple[TableName, ...] = ()
    had_rows: bool = False
    live: exp.Expression | None = None

    @property
    def name(self) -> TableName:
        return self.stored or self.schema.table

    @property
    def key(self) -> list[str]:
        """The names of its key's columns."""
        return [self.schema.columns[index].name for index in self.schema.key]

    @property
    def places(self) -> list[TableName]:
        """Every table of the target that has its columns."""
        return [self.name] if self.past is None else [self.name, self.past]

    def widen(self, engine: Engine, index: int) -> None:
        """Hold a column as text from now on, what is there already included."""
        column, codec = self.schema.columns[index], self.codecs[index]
        log.warning(
            "%s.%s holds a value that %s's %s cannot; the column is kept as text from now on",
            self.schema.table,
            column.name,
            engine.product,
            codec.sql_type,
        )
        using = codec.render(sql.column(column.name))
        for place in self.places:
            engine.retype(place, column.name, engine.text, using, self.views)
        faults.point("target.widened")
        self.codecs[index] = engine.text
        self.forget_statements()

    def forget_statements(self) -> None:
        """Make them again when they are needed: the columns hold their values otherwise than before."""
        self.statements.clear()


def create(
    engine: Engine,
    schema: TableSchema,
    stored: TableName | None = None,
    ours: Mapping[str, str] = MappingProxyType({}),
    *,
    is_past: bool = False,
) -> TargetTable:
    """Make an empty table.

    Args:
        stored: its name in the file; the source's if there is none.
        ours: names and types of further columns.
        is_past: it is for former rows, of which any number may have one key.
    """
    refuse_collisions(engine, schema)
    codecs = [engine.codec(column) for column in schema.columns]
    name = stored or schema.table
    engine.run(sql.create_schema(name.schema))
    columns: list[tuple[str, sql.Type]] = [
        (column.name, codec.type) for column, codec in zip(schema.columns, codecs, strict=True)
    ]
    engine.run(sql.create_table(name, [*columns, *ours.items()]))
    table = TargetTable(schema, codecs, stored=stored)
    engine.made(name, table.key, is_unique=not is_past)
    return table


def emptied(engine: Engine, schema: TableSchema) -> TargetTable | None:
    """A table without the rows that it had; None if it is not what `create` would make."""
    codecs = [engine.codec(column) for column in schema.columns]
    made = [(column.name, codec.sql_type) for column, codec in zip(schema.columns, codecs, strict=True)]
    if list(engine.columns(schema.table).items()) != made:
        return None
    engine.run(sql.delete_all(schema.table))
    table = TargetTable(schema, codecs)
    engine.made(schema.table, table.key, is_unique=True)
    return table


def inspect(
    engine: Engine,
    schema: TableSchema,
    stored: TableName | None = None,
    ours: Iterable[str] = (),
) -> TargetTable:
    """Find a table as this pipeline left it.

    Args:
        stored, ours: as `create` has them.

    Raises:
        TargetDrift: it is not there, or its columns are others than the pipeline's (D-08).
    """
    described = engine.columns(stored or schema.table)
    if not described:
        raise TargetDrift(
            f"The table {schema.table} is gone from the target.",
            hint=f"Copy it again: `cdc resync SOURCE TARGET --tables {schema.table}`.",
        )
    found = _of_now(described, stored)
    expected = {column.name for column in schema.columns} | set(ours)
    if set(found) != expected:
        other = ", ".join(sorted(set(found) ^ expected))
        raise TargetDrift(
            f"The columns of {schema.table} in the target are not those that the pipeline made: {other}.",
            hint="Undo what was changed by hand (a view can add columns), or copy it again: "
            f"`cdc resync SOURCE TARGET --tables {schema.table}`.",
        )
    codecs = [_held_as(engine, schema, column, found[column.name]) for column in schema.columns]
    return TargetTable(schema, codecs, stored=stored)


def held_columns(
    engine: Engine,
    schema: TableSchema,
    stored: TableName | None = None,
    ours: Iterable[str] = (),
) -> list[HeldColumn]:
    """The columns of a table as they are; none if it is not there. The arguments are those of `inspect`."""
    types = {column.name: engine.codec(column).sql_type for column in schema.columns}
    return [
        HeldColumn(name, kind, name in types and kind in (types[name], engine.text.sql_type))
        for name, kind in _of_now(engine.columns(stored or schema.table), stored).items()
        if name not in ours
    ]


def _of_now(columns: dict[str, str], stored: TableName | None) -> dict[str, str]:
    """Names and types of columns, without those that the source had once."""
    return {name: kind for name, kind in columns.items() if stored is None or not name.startswith(DROPPED)}


def _held_as(engine: Engine, schema: TableSchema, column: Column, actual: str) -> Codec:
    codec = engine.codec(column)
    if actual == codec.sql_type:
        return codec
    if actual == engine.text.sql_type:
        return engine.text
    raise TargetDrift(
        f"{schema.table}.{column.name} is {actual} in the target, the pipeline made it {codec.sql_type}.",
        hint=f"Undo what was changed by hand, or copy it again: `cdc resync SOURCE TARGET --tables {schema.table}`.",
    )


def refuse_collisions(database: Database, schema: TableSchema) -> None:
    """Refuse names that the database has no place for, and columns that it could not tell apart, such as `a` and `A`
    (E-06)."""
    longest, row_id = database.abilities.longest_name, database.abilities.row_id
    columns = [column.name for column in schema.columns]
    for name in (schema.table.schema, schema.table.name, *columns):
        if longest is not None and len(name.encode()) > longest:
            raise UsageError(
                f"{schema.table}: the name {name} has more than {longest} bytes, and {database.product} would cut it.",
                hint="Leave the table out with --exclude, or rename it.",
            )
    if own := sorted(database.abilities.own_columns.intersection(columns)):
        raise UsageError(
            f"{schema.table} has a column {', '.join(own)}, but every table of {database.product} has one of that "
            "name by itself.",
            hint="Leave the table out with --exclude, or rename the column.",
        )
    if not schema.key and any(column.name.lower() == row_id for column in schema.columns):
        raise UsageError(
            f"{schema.table} has no key and a column {row_id}, which hides the one by which {database.product} "
            "distinguishes equal rows.",
            hint="Give the table a key, leave it out with --exclude, or rename the column.",
        )
    if database.abilities.sees_case:
        return
    seen: dict[str, str] = {}
    for column in schema.columns:
        other = seen.setdefault(column.name.lower(), column.name)
        if other != column.name:
            raise UsageError(
                f"{schema.table} has columns {other!r} and {column.name!r}, which are the same name in "
                f"{database.product}.",
                hint="Leave the table out with --exclude, or rename a column.",
            )


def evolve(engine: Engine, table: TargetTable, new: TableSchema, fill: dict[int, str]) -> TargetTable:
    """Give a table another shape. Columns are matched by identity, so that a rename moves no value (A-50)."""
    refuse_collisions(engine, new)
    old = table.schema
    if table.stored is None and old.table != new.table:
        rename(engine, old.table, new.table)
    made = replace(table, schema=new, codecs=[], statements={})
    held = {column.identity: codec for column, codec in zip(old.columns, table.codecs, strict=True)}
    stays = {column.identity: column for column in new.columns}
    for place in made.places:
        for column in old.columns:
            if column.identity not in stays:
                remove_column(engine, place, column.name, keep=made.past is not None)
        _rename_columns(engine, place, old, new)
    faults.point("target.evolve")
    types = {column.identity: column.type for column in old.columns}
    for column in new.columns:
        codec = held.get(column.identity)
        if codec is not None and types[column.identity] != column.type and not _holds(engine, made, column, codec):
            for place in made.places:
                remove_column(engine, place, column.name, keep=made.past is not None)
            codec = None
        if codec is None:
            made.codecs.append(add_column(engine, made, column, fill.get(column.identity)))
        else:
            made.codecs.append(_retype(engine, made, column, codec))
    _find_by_key(engine, made)
    return made


def kept_as_text(old: TableSchema, table: TargetTable) -> str | None:
    """Why values may not be the source's texts any more: those of a column that is kept as text had another type."""
    types = {column.identity: (column.type.kind, column.type.scale) for column in old.columns}
    changed = [
        column.name
        for column, codec in zip(table.schema.columns, table.codecs, strict=True)
        if codec.is_text and column.type.kind is not Kind.TEXT
        if (now := (column.type.kind, column.type.scale)) != types.get(column.identity, now)
    ]
    return f"{', '.join(changed)} has another type, and is kept as text" if changed else None


def reshape(
    engine: Engine,
    schema: TableSchema,
    stored: TableName,
    past: TableName | None,
    views: tuple[TableName, ...] = (),
) -> TargetTable:
    """Give a table that was not followed for a while the shape that it has now: columns are matched by their names.

    One of another type keeps its values if the type that it has now holds each of them. Otherwise it is not the same
    column.
    """
    refuse_collisions(engine, schema)
    table = TargetTable(schema, [], stored=stored, past=past, views=views)
    found = {name: kind for name, kind in engine.columns(stored).items() if not name.startswith(OURS)}
    held = {
        column.name: codec
        for column in schema.columns
        if (codec := engine.codec_of(found.get(column.name, ""))) is not None and _holds(engine, table, column, codec)
    }
    for name in found.keys() - held.keys():
        for place in table.places:
            remove_column(engine, place, name, keep=past is not None)
    for column in schema.columns:
        codec = held.get(column.name)
        made = add_column(engine, table, column) if codec is None else _retype(engine, table, column, codec)
        table.codecs.append(made)
    _find_by_key(engine, table)
    return table


def _find_by_key(engine: Engine, table: TargetTable) -> None:
    for place in table.places:
        engine.made(place, table.key, is_unique=place != table.past)


def _holds(engine: Engine, table: TargetTable, column: Column, held: Codec) -> bool:
    """Whether a column's type has a place for every value that is there: text always has, as what is text stays it."""
    codec = engine.codec(column)
    if codec.sql_type == held.sql_type or codec.is_text or held.is_text:
        return True
    value = sql.column(column.name)
    there = engine.changed(value, held, codec)
    back = engine.changed(there, codec, held) if there is not None else None
    if back is None:
        return False
    changed = exp.NullSafeNEQ(this=back, expression=value.copy())
    return not any(engine.ask(sql.select_one(place, changed)) for place in table.places)


def remove_column(engine: Engine, of: TableName, column: str, *, keep: bool) -> None:
    """Drop a column; or, to keep its values, give it a name that no other column comes to have."""
    if not keep:
        engine.run(sql.drop_column(of, column))
        return
    number = 1 + sum(name.startswith(DROPPED) for name in engine.columns(of))
    engine.run(sql.rename_column(of, column, f"{DROPPED}{number}_{column}"))


def rename(engine: Engine, old: TableName, new: TableName) -> None:
    """Give a table another name."""
    if old.schema == new.schema:
        engine.run(sql.rename_table(old, new.name))
        return
    engine.run(sql.create_schema(new.schema))
    engine.run(sql.copy_table(old, new))
    engine.run(sql.drop_table(old))


def _rename_columns(engine: Engine, of: TableName, old: TableSchema, new: TableSchema) -> None:
    """By way of names that nobody has, since columns may have swapped theirs."""
    now = {column.identity: column.name for column in new.columns}
    moves = [(c.name, now[c.identity]) for c in old.columns if c.identity in now and c.name != now[c.identity]]
    for number, (was, _) in enumerate(moves):
        engine.run(sql.rename_column(of, was, f"_cdc_renamed_{number}"))
    for number, (_, becomes) in enumerate(moves):
        engine.run(sql.rename_column(of, f"_cdc_renamed_{number}", becomes))


def add_column(engine: Engine, table: TargetTable, column: Column, value: str | None = None) -> Codec:
    """Add a column, in which the present rows have a value, and the former ones have NULL."""
    codec = engine.codec(column)
    if value is not None and not _can_hold(engine, codec, value):
        codec = engine.text
    for place in table.places:
        engine.run(sql.add_column(place, column.name, codec.type))
    if value is not None:
        engine.run(sql.fill_column(table.name, column.name, codec.careful(sql.literal(value)), table.live))
    return codec


def _can_hold(engine: Engine, codec: Codec, value: str) -> bool:
    text = codec.render(codec.careful(sql.literal(value)))
    return engine.ask(sql.scalar(text)) == [(value,)]


def _retype(engine: Engine, table: TargetTable, column: Column, held: Codec) -> Codec:
    codec = engine.codec(column)
    if codec.sql_type == held.sql_type or held.is_text:
        return codec if codec.sql_type == held.sql_type else engine.text
    value = sql.column(column.name)
    using = held.render(value) if codec.is_text else engine.changed(value, held, codec)
    if using is None:
        raise InvariantError(f"{table.schema.table}.{column.name} cannot become {codec.sql_type}.")
    for place in table.places:
        engine.retype(place, column.name, codec, using, table.views)
    return codec
