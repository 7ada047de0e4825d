"""The project's own JSON against what a plain loop over the same changes says."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from cdc.formats import Chosen, FormatSettings, make
from cdc.model.change import Op
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from tests.formats.segments import FIRST, UNCHANGED, Change, Story, segment, story, write

SETTINGS = FormatSettings("audit", "postgresql")
_INTEGERS = {Kind.INT16, Kind.INT32, Kind.INT64, Kind.UINT64}


def value(text: object, column: Column) -> object:
    """One value as JSON has it."""
    if text is None:
        return None
    assert isinstance(text, str)
    if column.type.kind in _INTEGERS:
        return int(text)
    if column.type.kind is Kind.BOOL:
        return text == "t"
    if column.type.kind is Kind.FLOAT64 and text not in ("NaN", "Infinity", "-Infinity"):
        return float(text)
    return text


def row(change: Change, values: list[object] | None, only: set[int] | None = None) -> dict[str, object] | None:
    if values is None:
        return None
    columns = change.schema.columns
    return {
        column.name: value(text, column)
        for index, (column, text) in enumerate(zip(columns, values, strict=True))
        if text is not UNCHANGED and (only is None or index in only)
    }


def expected(change: Change) -> dict[str, Any]:
    """One change as an event, without its total."""
    schema, key = change.schema, set(change.schema.key)
    known = None if schema.full_before else key
    lacking = [c.name for c, v in zip(schema.columns, change.after or [], strict=False) if v is UNCHANGED]
    identified_by = change.after if change.after is not None else change.before
    if change.op in (Op.INSERT, Op.TRUNCATE):
        before_image = "none"
    elif change.before is None:
        before_image = "unavailable"
    else:
        before_image = "full" if schema.full_before else "key"
    return {
        "id": f"{write(change.order)}:{change.ordinal}",
        "op": change.op.label,
        "table": str(schema.table),
        "key": row(change, identified_by, key) if key and identified_by is not None else None,
        "before": row(change, change.before, known),
        "before_image": before_image,
        "after": row(change, change.after),
        "after_image": "none" if change.after is None else "partial" if lacking else "full",
        "unchanged": lacking,
        "position": write(change.order),
        "ordinal": change.ordinal,
        "transaction": change.order * 7,
        "committed_at": f"2023-11-14T22:13:20.{(FIRST + change.order) % 1_000_000:06d}+00:00",
    }


def lines(script: Story, chosen: Chosen | None = None) -> list[dict[str, Any]]:
    form = make("json", SETTINGS)
    found = []
    for part in script.segments:
        encoded = form.encode(part, chosen) if chosen is not None else form.encode(part)
        found += [json.loads(line) for line in bytes(encoded.lines()).decode().split("\n")[:-1]]
    return found


@pytest.mark.parametrize("seed", range(60))
def test_as_a_plain_loop_says(seed: int) -> None:
    """A-37, A-39, D-23: every change once, in order, each value exact, and NULL, left out and no row three things."""
    script = story(random.Random(seed))
    found = lines(script)
    totals = {change.order: change.ordinal + 1 for change in script.changes}
    for event, change in zip(found, script.changes, strict=True):
        total = event.pop("total")
        assert total in (None, totals[change.order])
        assert event == expected(change)
    assert len({event["id"] for event in found}) == len(found)


def test_minus_zero() -> None:
    """A reader of JSON takes -0 for an integer, which has no sign."""
    columns = (Column("id", "int", LogicalType(Kind.INT32), 1, 0), Column("v", "float8", LogicalType(Kind.FLOAT64), 2))
    schema = TableSchema(TableName("s", "t"), 1, columns)
    part = segment([Change(schema, Op.INSERT, 10, 0, None, ["1", "-0"])], True)
    for name in ("json", "debezium"):
        (message,) = make(name, SETTINGS).messages(part)
        assert repr(json.loads(message.value or b"")["after"]["v"]) == "-0.0"


@pytest.mark.parametrize("seed", range(20))
def test_messages_are_the_lines(seed: int) -> None:
    """The same content and order either way; keys are those of the events."""
    script = story(random.Random(seed))
    form = make("json", SETTINGS)
    messages = [message for part in script.segments for message in form.messages(part)]
    assert [json.loads(message.value or b"") for message in messages] == lines(script)
    for message in messages:
        event = json.loads(message.value or b"")
        assert str(message.table) == event["table"]
        assert (json.loads(message.key) if message.key is not None else None) == event["key"]


@pytest.mark.parametrize("seed", range(20))
def test_a_row_that_moves_is_emitted_under_both_keys(seed: int) -> None:
    """A-37: who reads the events of one key only learns that its row went; nothing else is emitted twice."""
    script = story(random.Random(seed))
    form = make("json", FormatSettings("audit", "postgresql", old_keys=True))
    messages = [message for part in script.segments for message in form.messages(part)]
    events = [json.loads(message.value or b"") for message in messages]
    once, moved = [], []
    for message, event in zip(messages, events, strict=True):
        key = json.loads(message.key) if message.key is not None else None
        if key == event["key"]:
            once.append(event)
            assert [e for _, e in moved if e["id"] == event["id"]] in ([], [event])
        else:
            moved.append((key, event))
    assert once == lines(script)
    assert [(event["id"], key) for key, event in moved] == [
        (event["id"], {name: event["before"][name] for name in event["key"]})
        for event in once
        if event["op"] == "update"
        and event["before"] is not None
        and event["key"] is not None
        and {name: event["before"][name] for name in event["key"]} != event["key"]
    ]


@pytest.mark.parametrize("seed", range(20))
def test_identities_do_not_depend_on_the_cut(seed: int) -> None:
    """D-05: the same events whatever segments they come in; only the total may not be known yet."""
    rng = random.Random(seed)
    script = story(rng)
    whole = lines(Story(script.changes, [segment(script.changes, True)]))
    parts = lines(script)
    assert all(event["total"] is not None for event in whole)
    for one, other in zip(parts, whole, strict=True):
        if one["total"] is None:
            one["total"] = other["total"]
    assert parts == whole


@pytest.mark.parametrize("seed", range(20))
def test_a_choice(seed: int) -> None:
    """What is not chosen is left out, and nothing else changes: not even the total."""
    script = story(random.Random(seed))
    everything = lines(script)
    assert lines(script, Chosen(frozenset({"delete", "truncate"}))) == [
        event for event in everything if event["op"] in ("delete", "truncate")
    ]
    even = Chosen(rows=lambda batch: batch.ordinal % 2 == 0)
    assert lines(script, even) == [e for e in everything if e["ordinal"] % 2 == 0 and e["op"] != "truncate"]
