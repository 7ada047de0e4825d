"""Schema changes: from one version of a table to the next, found from a Relation message and today's catalog.

A Relation message says what the columns were when the row was written, but not which column is which. The catalog
knows that (attnum), but only for today. What the two cannot settle between them is not guessed: the table is copied
again. The same goes for a type whose values the target cannot convert as the source did.
"""

from __future__ import annotations

import sys
from bisect import bisect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from cdc.errors import SchemaChangeUnsupported
from cdc.model.schema import Column, TableName, TableSchema
from cdc.sources.postgres.catalog import Table
from cdc.sources.postgres.fingerprint import Fingerprint
from cdc.sources.postgres.relation import Relation, RelationColumn
from cdc.sources.postgres.state import TableState
from cdc.sources.postgres.types import TypeInfo, keeps_values, logical_type


def next_schema(
    old: TableState,
    relation: Relation,
    today: Table | None,
    types: dict[int, TypeInfo],
    dropped: Collection[int] = (),
) -> TableSchema:
    """The table schema that a Relation message describes, its columns identified.

    Args:
        dropped: the numbers of the columns that today's table has no more.

    Raises:
        SchemaChangeUnsupported: it cannot be known which column is which, or a column's values were rewritten.
    """
    table = TableName(relation.namespace, relation.name)
    attnums = match_columns(old, relation, today, dropped)
    if attnums is None:
        raise SchemaChangeUnsupported(
            f"The columns of {table} were changed in a way that the log does not show exactly (a column was dropped "
            "and one of the same name added, or several changes came at once)."
        )
    before = {column.identity: column for column in old.schema.columns}
    described = {column.identity: known for column, known in _zip(old.schema, old.relation)}
    now = {column.identity: column for column in today.schema.columns} if today is not None else {}

    columns = []
    for attnum, said in zip(attnums, relation.columns, strict=True):
        if (was := described.get(attnum)) is not None:
            _refuse_conversion(table, was, said)
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
    key = _key(attnums, relation, old, today)
    columns = [replace(column, key=key.get(column.identity)) for column in columns]
    return TableSchema(table, relation.oid, tuple(columns), _full_before(old, relation, today))


def schema_of(old: TableState, today: Table) -> TableSchema:
    """Today's schema, for where the log has nothing more of what came before it.

    Raises:
        SchemaChangeUnsupported: a column's values were converted.
    """
    described = {column.identity: known for column, known in _zip(old.schema, old.relation)}
    for column, said in _zip(today.schema, today.relation):
        if (was := described.get(column.identity)) is not None:
            _refuse_conversion(today.schema.table, was, said)
    return today.schema


def added_columns(old: TableSchema, new: TableSchema) -> list[Column]:
    """The columns that the older version does not have."""
    had = {column.identity for column in old.columns}
    return [column for column in new.columns if column.identity not in had]


def fill_values(
    added: Sequence[Column], was: Fingerprint, now: Fingerprint, missing: Mapping[int, Mapping[int, str]]
) -> tuple[dict[int, str], list[Column]]:
    """What rows older than added columns hold in them (A-48).

    A leaf whose file is the same was not rewritten: its older rows hold what the catalog says is missing in them, or
    NULL, unless the column was there before, be it as a generated one.

    Args:
        was: taken when the columns were not known yet.
        now: taken before `missing` was.
        missing: see `catalog.missing_values`.

    Returns:
        A value per attnum, and the columns of which that is not certain.
    """
    before, after = was.leaves, now.leaves
    kept = [oid for oid, file in before.items() if after.get(oid) == file]
    fill: dict[int, str] = {}
    uncertain: list[Column] = []
    for column in added:
        known = missing.get(column.identity, {})
        values = {known.get(oid) for oid in kept}
        if len(values) == 1 and (value := next(iter(values))) is not None:
            fill[column.identity] = value
        elif any(value is not None for value in values) or len(kept) < len(before) or column.identity <= was.attributes:
            uncertain.append(column)
    return fill, uncertain


def match_columns(
    old: TableState, relation: Relation, today: Table | None, dropped: Collection[int] = ()
) -> list[int] | None:
    """The attnum of each column of a Relation message, or None if there is not exactly one way to see it.

    A name is looked up in the version that we had and in today's. A column whose name neither has is one that has been
    renamed or dropped since. What both versions have was there all the time, and columns come in the order of their
    attnums, which settles most of what is left.
    """
    was = _by_name(old.schema, old.relation)
    now = _by_name(today.schema, today.relation) if today is not None else {}
    versions = [dict(names.values()) for names in (was, now)]
    before, after = (set(version) for version in versions)
    unknown = dropped if today is not None else range(1, max(before, default=0) + 1)
    everything = sorted((before | after).union(unknown))

    choices = []
    for column in relation.columns:
        same_name = {entry[0] for names in (was, now) if (entry := names.get(column.name))}
        options = sorted(same_name) or everything
        same_type = [
            attnum
            for attnum in options
            if all(_plausible(version[attnum], column) for version in versions if attnum in version)
        ]
        choices.append(same_type or options)
    return only_way(choices, before & after)


def _plausible(known: RelationColumn, said: RelationColumn) -> bool:
    same = (known.type_oid, known.type_modifier), (said.type_oid, said.type_modifier)
    return keeps_values(*same) or keeps_values(*reversed(same))


def only_way(choices: Sequence[Sequence[int]], required: Collection[int]) -> list[int] | None:
    """One of each choice, growing strictly, with all that is required; None unless there is exactly one such way."""
    must = [*sorted(required), sys.maxsize]
    ways: dict[int, list[tuple[int, ...]]] = {0: [()]}  # by their last element: two of each are enough
    for options in choices:
        longer: dict[int, list[tuple[int, ...]]] = {}
        for last, known in ways.items():
            for option in options:
                if last < option <= must[bisect(must, last)]:
                    longer[option] = [*longer.get(option, ()), *((*way, option) for way in known)][:2]
        ways = longer
    complete = [way for last, known in ways.items() if must[bisect(must, last)] == sys.maxsize for way in known]
    return list(complete[0]) if len(complete) == 1 else None


def _refuse_conversion(table: TableName, was: RelationColumn, said: RelationColumn) -> None:
    if not keeps_values((was.type_oid, was.type_modifier), (said.type_oid, said.type_modifier)):
        raise SchemaChangeUnsupported(
            f"The type of {table}.{said.name} was changed; the log does not carry what the existing rows became."
        )


def _key(attnums: Sequence[int], relation: Relation, old: TableState, today: Table | None) -> dict[int, int]:
    """Key ordinal per attnum. A FULL identity flags every column, so its key is the one that is known already.

    The flags leave out the generated columns of a key, so that they are not to be trusted where today's table has none.
    """
    flagged = {attnum for attnum, column in zip(attnums, relation.columns, strict=True) if column.is_identity}
    for schema in (old.schema, *([today.schema] if today is not None else [])):
        key = {schema.columns[index].identity: ordinal for ordinal, index in enumerate(schema.key)}
        if key and (set(key) == flagged or (relation.identity == "f" and set(key) <= set(attnums))):
            return key
    if relation.identity == "f" or (today is not None and not today.schema.key):
        return {}
    return {attnum: ordinal for ordinal, attnum in enumerate(sorted(flagged))}


def _full_before(old: TableState, relation: Relation, today: Table | None) -> bool:
    """Whether old rows are whole. Those of a partitioned table are its leaves', of which only the catalog tells."""
    if relation.identity != "f":
        return False
    if today is not None and today.kind == "p" and today.schema.key:
        return today.schema.full_before
    return old.schema.full_before or old.relation.identity != "f"


def _zip(schema: TableSchema, relation: Relation) -> list[tuple[Column, RelationColumn]]:
    return list(zip(schema.columns, relation.columns, strict=True))


def _by_name(schema: TableSchema, relation: Relation) -> dict[str, tuple[int, RelationColumn]]:
    return {said.name: (column.identity, said) for column, said in _zip(schema, relation)}
