"""The shapes of tables as messages: each once, before the first message that has it, also after a restart."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from cdc.formats import FORMATS, FormatSettings, Message, Shapes, make
from cdc.model.change import Op, Transactions
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.model.segment import Changes, Note, Reset, Segment
from tests.formats.segments import Change, batch, segment, story
from tests.formats.test_debezium import assert_described

SETTINGS = FormatSettings("shop", "postgresql", "db", tombstones=True, transactions=True)


def columns(content: dict[str, Any]) -> list[str]:
    """The names that a message about a shape gives, in any of the formats."""
    content = content.get("payload", content)
    if "tableChanges" in content:
        (change,) = content["tableChanges"]
        return [column["name"] for column in change["table"]["columns"]]
    return [column["name"] for column in content.get("data", content)["columns"]]


def identity(content: dict[str, Any]) -> int:
    content = content.get("payload", content)
    found: int = (
        content["tableChanges"][0]["table"]["identity"]
        if "tableChanges" in content
        else (content.get("data", content)["identity"])
    )
    return found


def reshaped(schema: TableSchema) -> TableSchema:
    """The same table with one column more."""
    more = Column("more", "text", LogicalType(Kind.TEXT), 99)
    return replace(schema, columns=(*schema.columns, more))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seed", range(6))
def test_each_shape_is_emitted_once_and_first(name: str, seed: int) -> None:
    """A-50, D-05: whatever the segments are, and wherever a target is opened again with what it has kept."""
    rng = random.Random(seed)
    said = story(rng)
    settings = replace(SETTINGS, schemas=name == "debezium" and seed % 2 == 0)
    middle = len(said.changes) // 2
    for change in said.changes[middle:]:  # from some transaction on, all tables have a column more
        if change.order > said.changes[middle].order:
            change.schema = reshaped(change.schema)
            change.before, change.after = (row and [*row, None] for row in (change.before, change.after))
    shapes, form, found = Shapes({}), make(name, settings), list[Message]()
    for order in sorted({change.order for change in said.changes}):
        if rng.random() < 0.3:
            shapes, form = Shapes(shapes.emitted), make(name, settings)
        part = segment([change for change in said.changes if change.order == order], True)
        found += form.messages(part, shapes.new_in(part))
    current: dict[int, list[str]] = {}
    seen = []
    identities = {change.schema.table: change.schema.identity for change in said.changes}
    for message in found:
        content = json.loads(message.value) if message.value is not None else {}
        if message.is_schema:
            assert message.table is not None
            key = json.loads(message.key or b"")
            assert key.get("payload", key) == {"identity": identity(content)} == {"identity": identities[message.table]}
            current[identity(content)] = columns(content)
            seen.append((identity(content), columns(content)))
        elif message.table is not None:
            row = content.get("payload", content)
            row = row.get("data", row)
            fields = set((row.get("before") or {}) | (row.get("after") or {}))
            if row and "unchanged" not in row and row["op"] != "t":
                assert fields == set(current[identities[message.table]])
            assert fields <= set(current[identities[message.table]])
    assert len(seen) == len({(number, tuple(names)) for number, names in seen})
    assert {number for number, _ in seen} == set(identities.values())


@pytest.mark.parametrize("name", FORMATS)
def test_before_a_copy_and_among_notes(name: str) -> None:
    """A-50: before a reset, before the first copied row, before a note that comes before the first change."""
    (schema,) = {
        change.schema.table: change.schema for change in story(random.Random(1)).changes if change.schema.key
    }.values()
    row: list[object] = ["1", *[None] * (len(schema.columns) - 1)]
    copied = replace(batch([Change(schema, Op.INSERT, 0, 0, None, row)], [0]), copied=True)
    other = replace(reshaped(schema), identity=77)
    later = replace(batch([Change(other, Op.INSERT, 0, 0, None, [*row, None])], [0]), copied=True)
    steps = [Reset(schema), Changes(copied), Changes(later)]
    shapes, form = Shapes({}), make(name, SETTINGS)
    part = Segment([*steps], Transactions.none(), None)
    found = list(form.messages(part, shapes.new_in(part)))
    assert sorted(message.is_schema for message in found) == [False] * 3 + [True] * 2
    for table in (1, 77):
        of_one = [m for m in found if (m.is_schema and identity(json.loads(m.value or b"")) == table)]
        assert len(of_one) == 1
    assert found[0].is_schema
    assert found[-1].is_schema is False
    noted = segment([Change(reshaped(schema), Op.INSERT, 10, 0, None, [*row, None])], True)
    noted = replace(noted, steps=[Note(0, 0, 0, "who", "why"), *noted.steps])
    found = [m for m in form.messages(noted, shapes.new_in(noted)) if m.table is not None or b"who" in (m.value or b"")]
    assert [(message.is_schema, message.table is None) for message in found] == [
        (True, False),
        (False, True),
        (False, False),
    ]


def test_a_table_that_is_renamed() -> None:
    """A-51: its shape is emitted again under the same key, with the new name."""
    changes = [change for change in story(random.Random(3)).changes if change.schema.identity == 1]
    part = segment(changes[:1], True)
    shapes, form = Shapes({}), make("json", SETTINGS)
    found = [*form.messages(part, shapes.new_in(part))]
    changes[0].schema = replace(changes[0].schema, table=TableName("s", "other"))
    part = segment(changes[:1], True)
    found += form.messages(part, shapes.new_in(part))
    assert [message.is_schema for message in found] == [True, False] * 2
    assert found[0].key == found[2].key
    assert [json.loads(message.value or b"")["table"] for message in found[2:]] == ["s.other"] * 2


def test_what_is_said_of_a_shape() -> None:
    """A-50: columns have identities, so that a rename is distinguished from a column that came and one that went."""
    said = story(random.Random(3))
    part = segment(said.changes, True)
    schema = said.changes[0].schema
    plain = next(iter(make("json", SETTINGS).messages(part, Shapes({}).new_in(part))))
    content = json.loads(plain.value or b"")
    assert (content["op"], content["table"]) == ("schema", str(schema.table))
    assert content["columns"] == [
        {"name": c.name, "type": c.source_type, "key": c.key, "identity": c.identity} for c in schema.columns
    ]
    assert (content["position"], content["ordinal"]) == (f"0/{said.changes[0].order:X}", said.changes[0].ordinal)
    shapes = Shapes({schema.identity: "another"})
    form = make("debezium", replace(SETTINGS, schemas=True, transactions=False))
    message = next(iter(form.messages(part, shapes.new_in(part))))
    described = json.loads(message.value or b"")
    assert_described(described["schema"], described["payload"])
    key = json.loads(message.key or b"")
    assert_described(key["schema"], key["payload"])
    (change,) = described["payload"]["tableChanges"]
    quoted = schema.table.name.replace('"', '""')
    assert (change["type"], change["id"]) == ("ALTER", f'"s"."{quoted}"')
    assert change["table"]["primaryKeyColumnNames"] == [schema.columns[i].name for i in schema.key]
