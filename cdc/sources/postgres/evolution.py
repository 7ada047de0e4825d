"""Schema changes: from one version of a table to the next, told from a Relation message and today's catalog.

A Relation message says what the columns were when the row was written, but not which column is which. The catalog
knows that (attnum), but only for today. What the two cannot settle between them is not guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cdc.errors import SchemaChangeUnsupported
from cdc.model.schema import Column, TableName, TableSchema
from cdc.sources.postgres.catalog import Table
from cdc.sources.postgres.pgoutput import Relation, RelationColumn
from cdc.sources.postgres.state import TableState
from cdc.sources.postgres.types import TypeInfo, keeps_values, logical_type

_RESYNC = "Run `cdc teardown` for this pipeline, remove the target, and start again."


def next_schema(old: TableState, relation: Relation, today: Table | None, types: dict[int, TypeInfo]) -> TableSchema:
    """The table schema that a Relation message describes, its columns identified.

    Raises:
        SchemaChangeUnsupported: it cannot be told which column is which, or a column's values were rewritten.
    """
    table = TableName(relation.namespace, relation.name)
    attnums = match_columns(old, relation, today)
    if attnums is None:
        raise SchemaChangeUnsupported(
            f"The columns of {table} were changed in a way that the log does not tell apart from another one "
            "(a column was dropped and one of the same name added, or several changes came at once).",
            hint=_RESYNC,
        )
    before = {column.identity: column for column in old.schema.columns}
    described = {column.identity: known for column, known in _zip(old.schema, old.relation)}
    now = {column.identity: column for column in today.schema.columns} if today is not None else {}

    columns = []
    for attnum, said in zip(attnums, relation.columns, strict=True):
        if (was := described.get(attnum)) is not None:
            _refuse_rewrite(table, was, said)
            if (was.type_oid, was.type_modifier) == (said.type_oid, said.type_modifier):
                columns.append(replace(before[attnum], name=said.name))
                continue
        known = now.get(attnum) or before.get(attnum)
        dimensions = known.type.dimensions if known is not None else 0
        columns.append(
            Column(
                name=said.name,
                source_type=known.source_type if known is not None else "",
                type=logical_type(types, said.type_oid, said.type_modifier, dimensions),
                identity=attnum,
                nullable=known.nullable if known is not None else True,
            )
        )
    key = _key(attnums, relation, [old.schema, *([today.schema] if today is not None else [])])
    columns = [replace(column, key=key.get(column.identity)) for column in columns]
    return TableSchema(table, relation.oid, tuple(columns), full_before=relation.identity == "f")


def added_columns(old: TableSchema, new: TableSchema) -> list[Column]:
    """The columns that the older version does not have."""
    had = {column.identity for column in old.columns}
    return [column for column in new.columns if column.identity not in had]


def fill_values(old: TableSchema, new: TableSchema, missing: dict[int, tuple[bool, str | None]]) -> dict[int, str]:
    """What rows older than an added column hold in it (A-48), per attnum; see `catalog.missing_values`.

    Raises:
        SchemaChangeUnsupported: the column has a default, but the table was rewritten since, so that the catalog no
            longer says what the older rows got.
    """
    fill = {}
    for column in added_columns(old, new):
        has_default, value = missing.get(column.identity, (False, None))
        if value is not None:
            fill[column.identity] = value
        elif has_default:
            raise SchemaChangeUnsupported(
                f"Column {new.table}.{column.name} was added with a default that PostgreSQL wrote into the existing "
                "rows (or the default came later); the log does not carry what they hold now.",
                hint=_RESYNC,
            )
    return fill


def match_columns(old: TableState, relation: Relation, today: Table | None) -> list[int] | None:
    """The attnum of each column of a Relation message, or None if there is not exactly one way to see it.

    A name is looked up in the version that we had and in today's. Columns come in the order of their attnums, which
    settles most of what is left.
    """
    was = _by_name(old.schema, old.relation)
    now = _by_name(today.schema, today.relation) if today is not None else {}
    named = {attnum for attnum, _ in (*was.values(), *now.values())}
    renamed_away = {attnum for name, (attnum, _) in was.items() if name not in now or now[name][0] != attnum}
    last = max(named, default=0)
    unnamed = sorted(renamed_away | (set(range(1, last + 1)) - named))

    choices = []
    for column in relation.columns:
        same_name = [entry for names in (was, now) if (entry := names.get(column.name))]
        same_type = {attnum for attnum, known in same_name if _plausible(known, column)}
        choices.append(sorted(same_type or {attnum for attnum, _ in same_name}) or unnamed)
    lowest = _lowest(choices)
    return lowest if lowest == _highest(choices, last + 1) else None  # every other way would lie between the two


def _plausible(known: RelationColumn, said: RelationColumn) -> bool:
    same = (known.type_oid, known.type_modifier), (said.type_oid, said.type_modifier)
    return keeps_values(*same) or keeps_values(*reversed(same))


def _lowest(choices: Sequence[Sequence[int]]) -> list[int] | None:
    """One of each that grow strictly, each as small as it can be; None if there is no such way."""
    taken, above = [], 0
    for options in choices:
        chosen = min((option for option in options if option > above), default=None)
        if chosen is None:
            return None
        taken.append(chosen)
        above = chosen
    return taken


def _highest(choices: Sequence[Sequence[int]], top: int) -> list[int] | None:
    """The same, each as large as it can be."""
    mirrored = _lowest([[top - option for option in options] for options in reversed(choices)])
    return [top - option for option in reversed(mirrored)] if mirrored is not None else None


def _refuse_rewrite(table: TableName, was: RelationColumn, said: RelationColumn) -> None:
    if not keeps_values((was.type_oid, was.type_modifier), (said.type_oid, said.type_modifier)):
        raise SchemaChangeUnsupported(
            f"The type of {table}.{said.name} was changed; the log does not carry what the existing rows became.",
            hint=_RESYNC,
        )


def _key(attnums: Sequence[int], relation: Relation, known: Sequence[TableSchema]) -> dict[int, int]:
    """Key ordinal per attnum. A FULL identity flags every column, so its key is the one that is known already."""
    flagged = {attnum for attnum, column in zip(attnums, relation.columns, strict=True) if column.is_identity}
    for schema in known:
        key = {schema.columns[index].identity: ordinal for ordinal, index in enumerate(schema.key)}
        if key and (set(key) == flagged or (relation.identity == "f" and set(key) <= set(attnums))):
            return key
    if relation.identity == "f":
        return {}
    return {attnum: ordinal for ordinal, attnum in enumerate(sorted(flagged))}


def _zip(schema: TableSchema, relation: Relation) -> list[tuple[Column, RelationColumn]]:
    return list(zip(schema.columns, relation.columns, strict=True))


def _by_name(schema: TableSchema, relation: Relation) -> dict[str, tuple[int, RelationColumn]]:
    return {said.name: (column.identity, said) for column, said in _zip(schema, relation)}
