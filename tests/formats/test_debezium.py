"""Debezium's envelope against what a plain loop over the same changes says; and CloudEvents around our own events."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from cdc.formats import FORMATS, FormatSettings, Message, make
from cdc.model.change import Op, Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.model.segment import Changes, Note, Reset, Segment
from tests.formats import test_plain
from tests.formats.segments import FIRST, UNCHANGED, Change, Story, batch, segment, story

SETTINGS = FormatSettings("shop", "postgresql", "db", tombstones=True)
UNAVAILABLE = "__debezium_unavailable_value"
Read = tuple[str | None, Any, Any]


def value(text: object, column: Column) -> object:
    kind = column.type.kind
    if text is UNCHANGED:
        return UNAVAILABLE
    if not isinstance(text, str) or "BC" in text or "infinity" in text or text == "24:00:00":
        return text
    if kind is Kind.UINT64 and int(text) >= 1 << 63:
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


def expected(change: Change) -> list[Read]:
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


def as_read(message: Message) -> Read:
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
    assert [as_read(message) for message in found] == [entry for change in said.changes for entry in expected(change)]
    pairs = [change for change in said.changes for _ in expected(change)]
    for message, change in zip(found, pairs, strict=True):
        assert message.table == change.schema.table
        if message.value is not None:
            source = json.loads(message.value)["source"]
            assert (source["db"], source["schema"], source["table"]) == ("db", "s", change.schema.table.name)
            assert (source["txId"], source["lsn"]) == (change.order * 7, change.order)
            committed_at = FIRST + change.order
            moments = (committed_at // 1000, committed_at, committed_at * 1000)
            assert (source["ts_ms"], source["ts_us"], source["ts_ns"]) == moments


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


def without_moments(payload: dict[str, Any]) -> dict[str, Any]:
    return {name: content for name, content in payload.items() if name not in ("ts_ms", "ts_us", "ts_ns")}


_BITS = {"int16": 16, "int32": 32, "int64": 64}


def assert_described(schema: dict[str, Any], content: object) -> None:
    """A value is exactly what its schema says: JsonConverter reads whatever is not for 0, or null, in silence."""
    kind = schema["type"]
    if content is None:
        assert schema["optional"], schema
    elif kind == "struct":
        assert isinstance(content, dict)
        fields = {field["field"]: field for field in schema["fields"]}
        assert set(content) <= set(fields)
        for name, field in fields.items():
            assert_described(field, content.get(name))
    elif kind == "array":
        assert isinstance(content, list)
        for element in content:
            assert_described(schema["items"], element)
    elif kind in _BITS:
        assert type(content) is int
        assert abs(content) < 1 << _BITS[kind] - 1
    elif kind == "double":
        assert type(content) in (int, float)
    else:
        assert type(content) is {"string": str, "boolean": bool}[kind], (schema, content)


@pytest.mark.parametrize("seed", range(40))
def test_schemas(seed: int) -> None:
    """A-71, A-72: with schemas, the payload is what the message is without them, and its fields are what they say."""
    said = story(random.Random(seed))
    settings = replace(SETTINGS, transactions=seed % 2 == 0)
    plain = messages(said, settings)
    for with_schema, message in zip(messages(said, replace(settings, schemas=True)), plain, strict=True):
        assert with_schema.table == message.table
        for described, bare in ((with_schema.key, message.key), (with_schema.value, message.value)):
            if bare is None:
                assert described is None
                continue
            assert described is not None
            content, payload = json.loads(described), json.loads(bare)
            assert without_moments(content["payload"]) == without_moments(payload)
            assert_described(content["schema"], content["payload"])


def types_of(schema: dict[str, Any], *path: str) -> dict[str, tuple[str, str | None]]:
    """The types of a struct's fields, and what they mean."""
    for name in path:
        (schema,) = (field for field in schema["fields"] if field["field"] == name)
    return {field["field"]: (field["type"], field.get("name")) for field in schema["fields"]}


def test_what_a_type_has_no_place_for() -> None:
    """A-71: such a value is a text, in its own message alone; a key's, too, and under the old key the old one's."""
    columns = (
        Column("id", "date", LogicalType(Kind.DATE), 1, 0),
        Column("f", "float8", LogicalType(Kind.FLOAT64), 2),
        Column("u", "xid8", LogicalType(Kind.UINT64), 3),
    )
    schema = TableSchema(TableName("s", "t"), 1, columns)
    changes = [
        Change(schema, Op.INSERT, 10, 0, None, ["2024-01-01", "1.5", "1"]),
        Change(schema, Op.INSERT, 10, 1, None, ["2024-01-02", "NaN", "18446744073709551615"]),
        Change(schema, Op.UPDATE, 10, 2, ["infinity", None, None], ["2024-01-03", UNCHANGED, "2"]),
    ]
    form = make("debezium", replace(SETTINGS, schemas=True))
    found = list(form.messages(segment(changes, True)))
    date_, text = ("int32", "io.debezium.time.Date"), ("string", None)
    number, whole = ("double", None), ("int64", None)
    keys = [types_of(json.loads(message.key or b"")["schema"]) for message in found]
    assert keys == [{"id": kind} for kind in (date_, date_, text, text, date_)]
    values = [json.loads(message.value) for message in found if message.value is not None]
    after = [types_of(value["schema"], "after") for value in values]
    usual = {"id": date_, "f": number, "u": whole}
    assert after == [usual, {"id": date_, "f": text, "u": text}, usual, {"id": date_, "f": text, "u": whole}]
    before = [types_of(value["schema"], "before") for value in values]
    assert before == [usual, usual, {"id": text, "f": number, "u": whole}, usual]
    assert values[3]["payload"]["after"] == {"id": 19725, "f": UNAVAILABLE, "u": 2}


def test_forms_of_its_own() -> None:
    """H14: times of a zone in Greenwich's, money without its sign, bits as bytes; what does not fit is the text."""
    values = {
        "time with time zone": ["23:59:59.5+02", "00:30:00-00:45:30", "24:00:00+00", None],
        "time(3) with time zone": ["00:00:00+00", "01:00:00+14", "12:00:00.001-05:30", None],
        "money": ["-$1,234,567.50", "$0.00", "12,50 €", None],
        "bit(1)": ["1", "0", "1", None],
        "bit(9)": ["000000001", "100000010", UNCHANGED, None],
        "bit(65)": ["1" * 65, "0" * 65, "1" * 65, None],
        "bit varying(9)": ["0001", "", "1", None],
        "point": ["(1,2)", "(1e20,-0)", "(0,0)", None],
    }
    special = {
        "time with time zone": ["21:59:59.5Z", "01:15:30Z", "24:00:00+00", None],
        "time(3) with time zone": ["00:00:00Z", "11:00:00Z", "17:30:00.001Z", None],
        "money": ["-1234567.50", "0.00", "12,50 €", None],
        "bit(1)": [True, False, True, None],
        "bit(9)": ["AQA=", "AgE=", UNAVAILABLE, None],
    }
    zoned = ("string", "io.debezium.time.ZonedTime")
    kinds = {"time with time zone": zoned, "time(3) with time zone": zoned, "bit(1)": ("boolean", None)}
    kinds |= {"bit(9)": ("bytes", "io.debezium.data.Bits")}
    opaque = [Column(name, name, LogicalType(Kind.OPAQUE), 2 + i) for i, name in enumerate(values)]
    columns = (Column("id", "int", LogicalType(Kind.INT32), 1, 0), *opaque)
    columns = (*columns, Column("mysql", "bit(9) stored", LogicalType(Kind.UINT64), 99))
    schema = TableSchema(TableName("s", "t"), 1, columns)
    rows = [[str(i), *(texts[i] for texts in values.values()), str(i + 255)] for i in range(4)]
    changes = [Change(schema, Op.UPDATE, 10, i, None, [*row]) for i, row in enumerate(rows)]
    form = make("debezium", replace(SETTINGS, schemas=True))
    contents = [json.loads(m.value or b"") for m in form.messages(segment(changes, True))]
    for i, content in enumerate(contents):
        row = {name: (special.get(name) or texts)[i] for name, texts in values.items()}
        assert content["payload"]["after"] == {"id": i, **row, "mysql": ["/wA=", "AAE=", "AQE=", "AgE="][i]}
        found = types_of(content["schema"], "after")
        own = {name: kinds.get(name, ("string", None)) for name in values} | {"mysql": kinds["bit(9)"]}
        if i == 2:
            own["bit(9)"] = ("string", None)  # JsonConverter would read other bytes out of a text
        assert found == {"id": ("int32", None), **own}
    (after,) = (field for field in contents[0]["schema"]["fields"] if field["field"] == "after")
    assert [f["parameters"] for f in after["fields"] if f["type"] == "bytes"] == [{"length": "9"}] * 2


def test_a_day_that_does_not_exist() -> None:
    """A-71: a 30th of February, which MySQL can be set to allow, changes nothing for the rows beside it."""
    columns = (Column("id", "int", LogicalType(Kind.INT32), 1, 0), Column("d", "date", LogicalType(Kind.DATE), 2))
    schema = TableSchema(TableName("s", "t"), 1, columns)
    days = ["2024-01-01", "2024-02-30", "2024-02-29"]
    changes = [Change(schema, Op.INSERT, 10, i, None, [str(i), day]) for i, day in enumerate(days)]
    found = [
        json.loads(m.value or b"")["after"]["d"] for m in make("debezium", SETTINGS).messages(segment(changes, True))
    ]
    assert found == [19723, "2024-02-30", 19782]


def test_an_annotation() -> None:
    """As binary.handling.mode=hex has it, and described as all else."""
    said = story(random.Random(1)).segments[0]
    noted = replace(said, steps=[Note(0, 0, 0, "who", "é"), *said.steps])
    message = next(iter(make("debezium", replace(SETTINGS, schemas=True)).messages(noted)))
    key, value = json.loads(message.key or b""), json.loads(message.value or b"")
    assert_described(key["schema"], key["payload"])
    assert_described(value["schema"], value["payload"])
    assert (key["payload"], value["payload"]["op"]) == ({"prefix": "who"}, "m")
    assert value["payload"]["message"] == {"prefix": "who", "content": "é".encode().hex()}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("schemas", [False, True])
def test_what_is_about_all_rows_has_no_key(name: str, schemas: bool) -> None:
    """A key that is no row's would be taken for a row, and for a place among the others."""
    columns = (Column("id", "int", LogicalType(Kind.INT32), 1, 0),)
    schema = TableSchema(TableName("s", "t"), 1, columns)
    settings = replace(SETTINGS, schemas=schemas, old_keys=True)
    part = segment([Change(schema, Op.INSERT, 10, 0, None, ["1"]), Change(schema, Op.TRUNCATE, 10, 1)], True)
    found = list(make(name, settings).messages(replace(part, steps=[*part.steps, Reset(schema)])))
    assert [message.key is None for message in found] == [False, True, True]


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


@pytest.mark.parametrize("seed", range(10))
def test_the_place_of_each_message(seed: int) -> None:
    """A-37, D-05: `sequence` is commit and ordinal, of one width, so that it compares as text as the log does."""
    said = story(random.Random(seed))
    found = [json.loads(m.value)["source"]["sequence"] for m in messages(said) if m.value is not None]
    places = [[c.order, c.ordinal] for c in said.changes for op, _, _ in expected(c) if op is not None]
    assert [[int(number) for number in json.loads(place)] for place in found] == places
    assert found == sorted(found)
    assert len({len(place) for place in found}) == 1


def test_the_place_of_copied_rows() -> None:
    """A-37, D-05: they come behind all that was emitted and before all that comes, also after a restart."""
    schema = TableSchema(TableName("s", "t"), 1, (Column("id", "int", LogicalType(Kind.INT32), 1, 0),))

    def changed(order: int) -> Segment:
        return segment([Change(schema, Op.INSERT, order, i, None, [str(i)]) for i in range(12)], True)

    def copied(checkpoint: Checkpoint | None) -> Segment:
        rows = replace(batch([Change(schema, Op.INSERT, 0, 0, None, ["7"])], [0]), copied=True)
        return Segment([Reset(schema), Changes(rows)], Transactions.none(), checkpoint)

    before, after = make("debezium", SETTINGS), make("debezium", SETTINGS)
    with_copy = replace(changed(99), steps=[*changed(99).steps, *copied(None).steps])
    batches = [before.messages(part) for part in (copied(Checkpoint(Position(9, "9"), "{}")), changed(9), copied(None))]
    batches.append(before.messages(with_copy))
    at = changed(100).checkpoint  # a commit may be where this is
    assert at is not None
    batches += [before.messages(changed(100)), after.messages(Segment([], Transactions.none(), at))]
    batches += [after.messages(part) for part in (copied(None), changed(at.position.order), copied(None))]
    found = [json.loads(message.value or b"")["source"]["sequence"] for part in batches for message in part]
    assert found == sorted(found)
    assert len(set(found)) == 4 * 12 + 5 * 2


@pytest.mark.parametrize("schemas", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_a_key_that_moves(seed: int, schemas: bool) -> None:
    """A-37, A-39: each of the two rows names the other, so that a value that the log left out is not lost."""
    said = story(random.Random(seed))
    found = messages(said, replace(SETTINGS, schemas=schemas))
    kinds = [as_read(message)[0] for message in messages(said)]
    for at, message in enumerate(found):
        if kinds[at : at + 3] == ["d", None, "c"] and dict(message.headers):
            gone, tombstone, new = found[at : at + 3]
            assert gone.headers == tombstone.headers == (("__debezium.newkey", new.key),)
            assert new.headers == (("__debezium.oldkey", gone.key),)
    moves = sum(change.op == Op.UPDATE and len(expected(change)) == 3 for change in said.changes)
    assert sum(bool(message.headers) for message in found) == 3 * moves
