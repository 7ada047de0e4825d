"""Debezium's envelope against what a plain loop over the same changes says; and CloudEvents around our own events."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from cdc.formats import FormatSettings, Message, make
from cdc.model.change import Op
from cdc.model.schema import Column, Kind
from tests.formats import test_plain
from tests.formats.segments import FIRST, UNCHANGED, Change, Story, segment, story

SETTINGS = FormatSettings("shop", "postgresql", "db", tombstones=True)
UNAVAILABLE = "__debezium_unavailable_value"
Told = tuple[str | None, Any, Any]


def value(text: object, column: Column) -> object:
    kind = column.type.kind
    if text is UNCHANGED:
        return UNAVAILABLE
    if not isinstance(text, str) or "BC" in text or "infinity" in text or text == "24:00:00":
        return text
    if kind is Kind.DATE:
        return (date.fromisoformat(text) - date(1970, 1, 1)).days
    if kind is Kind.TIME:
        return _micros(datetime.fromisoformat(f"1970-01-01 {text}+00:00"))
    if kind is Kind.TIMESTAMP:
        return _micros(datetime.fromisoformat(text).replace(tzinfo=UTC))
    if kind is Kind.TIMESTAMPTZ:
        return text.replace(" ", "T").replace("+00", "Z")
    if kind is Kind.BYTES:
        return text.removeprefix("\\x")
    return test_plain.value(text, column)


def _micros(moment: datetime) -> int:
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds


def row(change: Change, values: list[object] | None) -> dict[str, object] | None:
    if values is None:
        return None
    return {column.name: value(text, column) for column, text in zip(change.schema.columns, values, strict=True)}


def key(change: Change, values: list[object] | None) -> dict[str, object] | None:
    if values is None or not change.schema.key:
        return None
    return {change.schema.columns[i].name: value(values[i], change.schema.columns[i]) for i in change.schema.key}


def expected(change: Change) -> list[Told]:
    """The key, the operation and the images of each message of a change; a tombstone has no operation."""
    before, after = row(change, change.before), row(change, change.after)
    old, new = key(change, change.before), key(change, change.after)
    if change.op == Op.TRUNCATE:
        return [("t", None, (None, None))]
    if change.op == Op.DELETE:
        return [("d", old, (before, None)), *([(None, old, None)] if old is not None else [])]
    if change.op == Op.UPDATE and old is not None and old != new:
        return [("d", old, (before, None)), (None, old, None), ("c", new, (None, after))]
    return [("c" if change.op == Op.INSERT else "u", new, (before, after))]


def told(message: Message) -> Told:
    content = json.loads(message.value) if message.value is not None else None
    where = json.loads(message.key) if message.key is not None else None
    return (content["op"], where, (content["before"], content["after"])) if content else (None, where, None)


def messages(said: Story, settings: FormatSettings = SETTINGS) -> list[Message]:
    form = make("debezium", settings)
    return [message for part in said.segments for message in form.messages(part)]


@pytest.mark.parametrize("seed", range(60))
def test_as_a_plain_loop_says(seed: int) -> None:
    """A-37, A-39: a change of key is a delete, a tombstone and an insert; what the log left out says so."""
    said = story(random.Random(seed))
    found = messages(said)
    assert [told(message) for message in found] == [entry for change in said.changes for entry in expected(change)]
    pairs = [change for change in said.changes for _ in expected(change)]
    for message, change in zip(found, pairs, strict=True):
        assert message.table == change.schema.table
        if message.value is not None:
            source = json.loads(message.value)["source"]
            assert (source["db"], source["schema"], source["table"]) == ("db", "s", change.schema.table.name)
            assert (source["txId"], source["lsn"]) == (change.order * 7, change.order)
            assert source["ts_ms"] == (FIRST + change.order) // 1000


@pytest.mark.parametrize("seed", range(60))
def test_transactions(seed: int) -> None:
    """BEGIN and END around each, with the numbers of its events, however the segments are cut."""
    said = story(random.Random(seed))
    settings = replace(SETTINGS, transactions=True)
    found = [json.loads(m.value) for m in messages(said, settings) if m.value is not None]
    plain = [json.loads(m.value) for m in messages(said) if m.value is not None]
    events = [content for content in found if "op" in content]
    assert [(c["op"], c["before"], c["after"]) for c in events] == [(c["op"], c["before"], c["after"]) for c in plain]
    at: str | None = None
    total, tables = 0, Counter[str]()
    for content in found:
        if "op" not in content:
            if content["status"] == "BEGIN":
                assert at is None
                at, total, tables = content["id"], 0, Counter()
            else:
                assert (content["id"], content["event_count"]) == (at, total)
                counts = {entry["data_collection"]: entry["event_count"] for entry in content["data_collections"]}
                assert counts == tables
                at = None
            continue
        table = f"{content['source']['schema']}.{content['source']['table']}"
        total, tables[table] = total + 1, tables[table] + 1
        numbered = {"id": at, "total_order": total, "data_collection_order": tables[table]}
        assert content["transaction"] == numbered
    assert at is None


@pytest.mark.parametrize("seed", range(20))
def test_schemas(seed: int) -> None:
    """With schemas, the payload is what the message is without them, and each of its fields is described."""
    said = story(random.Random(seed))
    plain = messages(said)
    for with_schema, message in zip(messages(said, replace(SETTINGS, schemas=True)), plain, strict=True):
        for described, bare in ((with_schema.key, message.key), (with_schema.value, message.value)):
            if bare is None:
                assert described is None
                continue
            assert described is not None
            content, payload = json.loads(described), json.loads(bare)
            payload.pop("ts_ms", None), content["payload"].pop("ts_ms", None)
            assert content["payload"] == payload
            assert {field["field"] for field in content["schema"]["fields"]} - {"ts_ms"} == set(payload)


def test_of_a_binlog() -> None:
    """GTIDs where there are any, or file and byte."""
    said = story(random.Random(1))
    for write, expected_place in (
        (lambda order: f"0-1-{order}", ("", lambda order: order, lambda order: f"0-1-{order}")),
        (lambda order: f"binlog.000003:{order}", ("binlog.000003", lambda order: order, lambda _: None)),
    ):
        part = segment(said.changes, True)
        part = replace(part, transactions=replace(part.transactions, write=write))
        form = make("debezium", FormatSettings("shop", "mariadb"))
        contents = [json.loads(message.value or b"") for message in form.messages(part)]
        file, pos, gtid = expected_place
        for content in contents:
            source = content["source"]
            assert (source["connector"], source["db"], source["file"]) == ("mariadb", "s", file)
            assert source["pos"] in {pos(change.order) for change in said.changes}
            assert source["gtid"] == gtid(source["pos"])


@pytest.mark.parametrize("seed", range(20))
def test_cloud_events(seed: int) -> None:
    """D-23: what the specification asks for, around the events as they are otherwise."""
    said = story(random.Random(seed))
    form = make("cloudevents", SETTINGS)
    found = [json.loads(message.value or b"") for part in said.segments for message in form.messages(part)]
    assert [event["data"] for event in found] == test_plain.lines(said)
    for event in found:
        assert event["specversion"] == "1.0"
        assert event["source"] == "/postgresql/db/shop"
        assert (event["id"], event["subject"]) == (event["data"]["id"], event["data"]["table"])
        assert event["type"] == f"cdc.change.{event['data']['op']}"
        assert event["time"] == event["data"]["committed_at"]
        assert event["datacontenttype"] == "application/json"
    assert len({event["id"] for event in found}) == len(found)
