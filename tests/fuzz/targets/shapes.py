"""Tables of PostgreSQL that change: from a Relation message and today's catalog to the next shape, or a refusal."""

from __future__ import annotations

from contextlib import suppress

from cdc.errors import SchemaChangeUnsupported
from cdc.model.schema import Column, TableName, TableSchema
from cdc.sources.postgres.catalog import Table
from cdc.sources.postgres.evolution import added_columns, fill_values, match_columns, next_schema, schema_of
from cdc.sources.postgres.fingerprint import Fingerprint
from cdc.sources.postgres.pgoutput import Relation, RelationColumn
from cdc.sources.postgres.state import SourceState, TableState
from cdc.sources.postgres.types import TypeInfo, logical_type
from cdc.typed.codecs import codec_for
from tests.fuzz.draw import Draw

OIDS = [20, 21, 23, 25, 1043, 1700, 1231, 2277, 90001, 90002, 90003, 90004, 99999, 0]
MODIFIERS = [-1, 0, 4, 5, (10 << 16 | 2) + 4, (3 << 16 | 2046) + 4, (1 << 31) - 1, -(1 << 31)]
TYPES = {
    oid: TypeInfo(oid, category, element, base, modifier, dimensions, delimiter)
    for oid, category, element, base, modifier, dimensions, delimiter in [
        *((oid, "", 0, 0, -1, 0, ",") for oid in (20, 21, 23, 25, 1043, 1700)),
        (1231, "A", 1700, 0, -1, 0, ","),
        (90001, "d", 0, 90002, 5, 1, ","),
        (90002, "d", 0, 1231, (5 << 16) + 4, 2, ","),
        (90003, "A", 1231, 0, -1, 0, ";"),
        (90004, "A", 99999, 0, -1, 0, ","),
    ]
}


def one_input(data: bytes) -> None:
    draw = Draw(data)
    old, today, said = (_table(draw) for _ in range(3))
    if old is None or said is None:
        return
    entry = TableState(old.schema, old.relation, 0, copied=True)
    dropped = draw.ConsumeIntListInRange(draw.ConsumeIntInRange(0, 2), 1, 6)
    attnums = match_columns(entry, said.relation, today, dropped)
    if attnums is not None:
        assert attnums == sorted(set(attnums))
    if today is not None:
        with suppress(SchemaChangeUnsupported):
            assert schema_of(entry, today) == today.schema
    try:
        after = next_schema(entry, said.relation, today, TYPES, dropped)
    except SchemaChangeUnsupported:
        return
    assert [column.name for column in after.columns] == [column.name for column in said.relation.columns]
    assert all(codec_for(column.type) for column in after.columns)
    assert [after.columns[index].key for index in after.key] == list(range(len(after.key)))
    added = added_columns(old.schema, after)
    missing = {column.identity: {7: "x"} for column in added if draw.ConsumeBool()}
    seen = Fingerprint("7:70", draw.ConsumeIntInRange(0, 5), 1)
    fill, uncertain = fill_values(added, seen, seen, missing)
    assert fill.keys() == missing.keys()
    assert fill.keys().isdisjoint(column.identity for column in uncertain)
    state = SourceState("p", "s", "d", 1, "slot", {}, {1: TableState(after, said.relation, 0, copied=True)})
    assert SourceState.load(state.dump()) == state


def _table(draw: Draw) -> Table | None:
    """A table with some columns of some names, in the order of their numbers."""
    identity = "dfni"[draw.ConsumeIntInRange(0, 3)]
    numbers = sorted(set(draw.ConsumeIntListInRange(draw.ConsumeIntInRange(0, 4), 1, 5)))
    names = list("abcdefg")
    columns, described = [], []
    for number in numbers:
        name = names.pop(draw.ConsumeIntInRange(0, len(names) - 1))
        oid = OIDS[draw.ConsumeIntInRange(0, len(OIDS) - 1)]
        modifier = MODIFIERS[draw.ConsumeIntInRange(0, len(MODIFIERS) - 1)]
        is_key = draw.ConsumeBool()
        kind = logical_type(TYPES, oid, modifier, draw.ConsumeIntInRange(0, 3))
        columns.append(Column(name, "", kind, number, None))
        described.append(RelationColumn(name, oid, modifier, identity == "f" or is_key))
    schema = TableSchema(TableName("s", "t"), 1, tuple(columns), full_before=identity == "f")
    return Table(schema, Relation(1, "s", "t", identity, tuple(described)), "r", 0)
