"""The Kafka target by itself against a real broker: what it does with segments, topics and a broker that refuses."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import pytest
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from cdc.errors import (
    CheckpointUnreadable,
    OperatorNeeded,
    RowTooLarge,
    TargetBusy,
    TargetDrift,
    Unavailable,
    UsageError,
)
from cdc.formats import FormatSettings, make
from cdc.model.change import Op, Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.model.segment import Reset, Segment
from cdc.target import Replaceable, TargetSettings
from cdc.targets.kafka import admin, copy_parts, read_checkpoint, target_factory, target_removals
from cdc.targets.kafka.checkpoint import TOPIC
from cdc.targets.kafka.connection import make_producer
from cdc.targets.kafka.settings import read_settings
from cdc.targets.kafka.target import KafkaTarget
from cdc.targets.kafka.topics import topic_name
from integration.kafka import USER, PrivateKafka, Record
from tests.formats.segments import Change, segment, story

_numbers = count(1)


@pytest.fixture
def name() -> str:
    """A pipeline that there has not been yet."""
    return f"alone_{next(_numbers)}"


def make_target(kafka: PrivateKafka, name: str, *options: str, format: str = "json") -> KafkaTarget:  # noqa: A002
    return target_factory(kafka.address(*options), TargetSettings(name, "postgresql", 0, format=format))()


def table(schema: str = "s", name: str = "t", identity: int = 1) -> TableSchema:
    columns = (
        Column("id", "int", LogicalType(Kind.INT32), 1, 0),
        Column("v", "text", LogicalType(Kind.TEXT), 2),
    )
    return TableSchema(TableName(schema, name), identity, columns)


def rows(schema: TableSchema, order: int, many: int = 1, text: str = "v", is_whole: bool = True) -> Segment:
    """One transaction with new rows."""
    changes = [Change(schema, Op.INSERT, order, i, None, [str(order * 1000 + i), text]) for i in range(many)]
    return segment(changes, is_whole)


def values(records: list[Record]) -> list[dict[str, Any]]:
    return [json.loads(record.value or b"") for record in records]


@pytest.mark.parametrize("seed", range(6))
def test_segments_that_come_again(kafka: PrivateKafka, name: str, seed: int) -> None:
    """D-05, D-14, D-23: opened afresh anywhere, given again what it had: every message once, in order."""
    rng = random.Random(seed)
    script = story(rng)
    expected = Counter()
    form = make("json", FormatSettings(name, "postgresql", old_keys=True))
    for part in script.segments:
        expected += Counter((m.table, m.key, without_total(m.value)) for m in form.messages(part))
    target = make_target(kafka, name, "partitions=2")
    target.open()
    at = durable = 0
    while at < len(script.segments):
        target.apply(script.segments[at])
        at += 1
        durable = max(durable, at) if script.segments[at - 1].checkpoint is not None else durable
        if rng.random() < 0.4:
            if rng.random() < 0.5:
                target.close()
            target = make_target(kafka, name, "partitions=2")
            checkpoint = target.open()
            last = script.segments[durable - 1].checkpoint if durable else None
            assert (checkpoint and checkpoint.position) == (last and last.position)
            at = rng.randint(0, durable)
            while at and script.segments[at - 1].checkpoint is None:  # the log is read again from the begin of one
                at -= 1
    target.close()
    found = kafka.events(name)
    keyless = {change.schema.table for change in script.changes if not change.schema.key}
    partitions: dict[Any, set[int]] = {}
    seen: Counter[Any] = Counter()
    for record in found:
        about = TableName(*record.topic.removeprefix(f"{name}.").split(".", 1))
        place = (record.key, without_total(record.value))
        partitions.setdefault((record.topic, place), set()).add(record.partition)
        spreads = record.key is None and about.name.replace('"', "_") not in {t.name.replace('"', "_") for t in keyless}
        if not spreads or record.partition == 0:
            seen[place] += 1
        if spreads:
            assert record.partition in (0, 1)
    assert seen == Counter({(key, value): times for (_, key, value), times in expected.items()})
    shapes = [record.key for record in kafka.read(f"{name}.schema")]
    identities = {change.schema.identity for change in script.changes}
    assert Counter(shapes) == {b'{"identity":%d}' % identity: 1 for identity in identities}


@pytest.mark.parametrize("options", ["", "&tombstones=no", "&schemas=yes&transactions=yes"])
def test_debezium(kafka: PrivateKafka, name: str, options: str) -> None:
    """D-23: its messages, a delete's tombstone in the partition of its row, what is about no row in every partition."""
    script = story(random.Random(4))
    about = FormatSettings(
        name,
        "postgresql",
        schemas="schemas" in options,
        tombstones="tombstones" not in options,
        transactions="transactions" in options,
    )
    form = make("debezium", about)
    target = make_target(kafka, name, f"partitions=3{options}", format="debezium")
    target.open()
    expected: dict[tuple[str, bytes | None], list[str]] = {}
    for part in script.segments:
        target.apply(part)
        for message in form.messages(part):
            topic = topic_name("{pipeline}.{schema}.{table}", name, message.table)
            expected.setdefault((topic, message.key), []).append(without_moments(message.value))
    target.close()
    found: dict[tuple[str, bytes | None], list[str]] = {}
    partitions: dict[tuple[str, bytes | None], set[int]] = {}
    for record in kafka.events(name):
        place = record.topic, record.key
        partitions.setdefault(place, set()).add(record.partition)
        if record.key is not None or record.partition == 0:
            found.setdefault(place, []).append(without_moments(record.value))
    assert found == expected
    assert all(len(where) == 1 for (_, key), where in partitions.items() if key is not None)
    assert any(None in said for said in found.values()) is about.tombstones
    assert any(topic == f"{name}.transaction" for topic, _ in found) is about.transactions
    other = f"partitions=3&schemas={'no' if about.schemas else 'yes'}"
    with pytest.raises(UsageError, match="schemas"):
        make_target(kafka, name, other, format="debezium").open()


def without_moments(value: bytes | None) -> str | None:
    """A message without when it was made, which is another moment each time."""
    return (
        re.sub(rb'("op":"."|"status":"END").*?(,"(transaction|event_count)")', rb"\1\2", value).decode()
        if value
        else None
    )


def without_total(value: bytes | None) -> str:
    """A total is not known where a transaction goes on in the next segment."""
    return json.dumps(json.loads(value or b"") | {"total": None}, sort_keys=True)


def test_a_transaction_in_parts_is_seen_whole_or_not_at_all(kafka: PrivateKafka, name: str) -> None:
    """D-12: nothing of it may be read before its last segment; nothing at all if that never comes."""
    target = make_target(kafka, name)
    target.open()
    target.apply(rows(table(), 10))
    target.apply(rows(table(), 20, is_whole=False))
    assert len(kafka.events(name)) == 1
    target.close()
    target.open()
    assert len(kafka.events(name)) == 1
    target.apply(rows(table(), 20, is_whole=False))
    rest = segment([Change(table(), Op.INSERT, 20, 1, None, ["7", "x"])], True)
    target.apply(rest)
    target.close()
    assert [event["id"] for event in values(kafka.events(name))] == ["0/A:0", "0/14:0", "0/14:1"]


def test_a_shape_is_seen_with_the_first_message_that_has_it(kafka: PrivateKafka, name: str) -> None:
    """A-50, D-23: in one Kafka transaction, so that there is neither without the other; and never twice."""
    wider = replace(table(), columns=(*table().columns, Column("w", "text", LogicalType(Kind.TEXT), 3)))

    def widened(order: int, *, is_whole: bool = True) -> Segment:
        return segment([Change(wider, Op.INSERT, order, 0, None, ["7", "v", "w"])], is_whole)

    def shapes() -> list[tuple[list[str], str]]:
        script = values(kafka.read(f"{name}.schema"))
        return [([column["name"] for column in shape["columns"]], shape["position"]) for shape in script]

    target = make_target(kafka, name)
    target.open()
    target.apply(rows(table(), 10))
    first = ["id", "v"], "0/A"
    for _ in range(2):  # what was sent is given up
        target.apply(widened(20, is_whole=False))
        assert shapes() == [first]
        target.close()
        target.open()
    target.apply(widened(20))
    assert shapes() == [first, (["id", "v", "w"], "0/14")]
    assert {record.key for record in kafka.read(f"{name}.schema")} == {b'{"identity":1}'}
    target.close()
    target.open()
    target.apply(widened(30))
    target.close()
    assert len(shapes()) == 2
    assert len(kafka.events(name)) == 3


def test_a_topic_of_shapes_that_is_not_compacted(kafka: PrivateKafka, name: str) -> None:
    """A-50: what is current would be thrown away one day."""
    topic = f"{name}.schema"
    admin = kafka.admin()
    admin.create_topics([NewTopic(topic, 1, 1)], operation_timeout=30)[topic].result()
    target = make_target(kafka, name)
    target.open()
    with pytest.raises(UsageError, match=r"tables' shapes and has cleanup\.policy=delete"):
        target.apply(rows(table(), 10))
    target.close()
    clashing = make_target(kafka, f"{name}_x", "topic={pipeline}.{table}")
    clashing.open()
    clashing.apply(rows(table(), 10))
    with pytest.raises(UsageError, match="share the topic"):
        clashing.apply(rows(table("s", "schema", 2), 20))
    clashing.close()


def test_the_checkpoint_is_a_watermark(kafka: PrivateKafka, name: str) -> None:
    """D-23: a reader who has read a checkpoint finds every event before it, in the topics of all tables."""
    target = make_target(kafka, name, "partitions=2", format="debezium")
    target.open()
    tables = [table("s", "t", 1), table("s", "u", 2)]
    for order in (10, 20):
        target.apply(rows(tables[order // 10 % 2], order, many=3, is_whole=False))
        target.apply(rows(tables[order // 10 % 2], order, many=3))
        (last,) = (record for record in kafka.read(f"_cdc.{name}")[-1:])
        watermark = json.loads(last.value or b"")
        assert (last.key, watermark["order"], watermark["position"]) == (b"checkpoint", order + 1, f"0/{order + 1:X}")
        found = [json.loads(event["source"]["sequence"]) for event in values(kafka.events(name))]
        assert {int(commit) for commit, _ in found} == set(range(10, order + 1, 10))
        assert all(int(commit) < watermark["order"] for commit, _ in found)
    target.close()


@pytest.mark.parametrize("later", [0.0, 2.0])
def test_the_older_of_two_is_shut_out(kafka: PrivateKafka, name: str, later: float) -> None:
    """D-17: what it had in hand is not committed, and it ends for good, also where its client has found out before."""
    first, second = make_target(kafka, name), make_target(kafka, name)
    first.open()
    first.apply(rows(table(), 10))
    first.apply(rows(table(), 20, is_whole=False))
    checkpoint = second.open()
    assert checkpoint is not None
    assert checkpoint.position.order == 11
    if later:
        first.apply(rows(table(), 20, is_whole=False))
        time.sleep(later)
    with pytest.raises(TargetBusy, match="took over"):
        first.apply(rows(table(), 20))
    first.close()
    second.apply(rows(table(), 30))
    second.close()
    assert [event["id"] for event in values(kafka.events(name))] == ["0/A:0", "0/1E:0"]


def test_a_row_that_is_too_large(kafka: PrivateKafka, name: str) -> None:
    """D-15, E-04: for the brokers or for the client: the table and the setting are named, no value is."""
    target = make_target(kafka, name)
    target.open()
    for letter, size in (("q", 3 << 20), ("r", 40 << 20)):
        noise = letter + random.Random(size).randbytes(size // 2).hex()
        with pytest.raises(RowTooLarge, match=r"s\.t") as caught:
            target.apply(rows(table(), 10, text=noise))
        assert "max.message.bytes" in str(caught.value.hint)
        assert caught.value.concerns == table().identity  # so that the other tables can go on
        assert noise[:20] not in str(caught.value)
        target.close()
        target.open()
    target.apply(rows(table(), 10))
    target.close()
    assert len(kafka.events(name)) == 1


def test_a_topic_that_is_gone_or_another_one(kafka: PrivateKafka, name: str) -> None:
    """D-08: a topic is never made again in silence when something was in it."""
    target = make_target(kafka, name)
    target.open()
    target.apply(rows(table(), 10))
    target.close()
    topic, admin = f"{name}.s.t", kafka.admin()
    admin.delete_topics([topic], operation_timeout=30)[topic].result()
    with pytest.raises(TargetDrift, match="is gone"):
        make_target(kafka, name).open()
    admin.create_topics([NewTopic(topic, 1, 1)], operation_timeout=30)[topic].result()
    with pytest.raises(TargetDrift, match="was deleted and made again"):
        make_target(kafka, name).open()


def test_topics_that_clash(kafka: PrivateKafka, name: str) -> None:
    """E-07: two tables never share a topic, also not by what Kafka takes for one name, nor after a restart."""
    target = make_target(kafka, name)
    target.open()
    target.apply(rows(table("s", "a b"), 10))
    target.close()
    for other in ("a_b", "a.b", "a/b"):
        target.open()
        with pytest.raises(UsageError, match="share the topic"):
            target.apply(rows(table("s", other, 2), 20))
        target.close()
    target.open()
    target.apply(rows(table("s", "a b"), 20))
    target.close()


def test_topics_are_made_by_hand(kafka: PrivateKafka, name: str) -> None:
    """`?create=no`: what is missing is named with the command that makes it; what is there is used as it is."""
    admin = kafka.admin()

    def make_topic(topic: str, partitions: int, **settings: str) -> None:
        new = NewTopic(topic, partitions, 1, config={key.replace("_", "."): value for key, value in settings.items()})
        admin.create_topics([new], operation_timeout=30)[topic].result()

    own = f"_cdc.{name}"
    with pytest.raises(UsageError, match=own) as caught:
        make_target(kafka, name, "create=no").open()
    assert f"kafka-topics.sh --create --topic {own}" in str(caught.value.hint)
    make_topic(own, 1, cleanup_policy="delete")
    with pytest.raises(UsageError, match=r"cleanup\.policy=delete"):
        make_target(kafka, name, "create=no").open()
    entry = ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, own, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result()
    target = make_target(kafka, name, "create=no")
    target.open()
    with pytest.raises(UsageError, match=f"no topic {name}.schema"):
        target.apply(rows(table(), 10))
    target.close()
    make_topic(f"{name}.s.t", 4)
    make_topic(f"{name}.schema", 1, cleanup_policy="compact")
    target.open()
    target.apply(rows(table(), 10, many=100))
    target.close()
    assert {record.partition for record in kafka.events(name)} == {0, 1, 2, 3}


def test_topics_are_made_as_wished(kafka: PrivateKafka, name: str) -> None:
    """Partitions, and the settings of the pipeline's own topic, without which the checkpoint would be lost one day."""
    target = make_target(kafka, name, "partitions=5&replication=1&topic={schema}-{table}-{pipeline}")
    target.open()
    target.apply(rows(table(), 10))
    target.close()
    own, of_table = f"_cdc.{name}", f"s-t-{name}"
    admin = kafka.admin()
    found = admin.describe_topics(TopicCollection([own, of_table]))
    assert {topic: len(found[topic].result().partitions) for topic in found} == {own: 1, of_table: 5}
    resource = ConfigResource(ResourceType.TOPIC, own)
    settings = admin.describe_configs([resource])[resource].result()
    assert {setting: settings[setting].value for setting in TOPIC} == TOPIC
    with pytest.raises(UsageError, match="cannot be made"):
        make_target(kafka, f"{name}_x", "replication=3").open()


def test_a_transaction_that_takes_too_long(kafka: PrivateKafka, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-12: the brokers end it and shut the writer out; the limit is named, instead of another process."""
    monkeypatch.setenv("CDC_KAFKA_TRANSACTION_TIMEOUT_MS", "2000")
    monkeypatch.setenv("CDC_KAFKA_MESSAGE_TIMEOUT_MS", "2000")
    target = make_target(kafka, name)
    target.open()
    target.apply(rows(table(), 10, is_whole=False))
    threading.Event().wait(5)
    with pytest.raises(OperatorNeeded, match=r"longer than a Kafka transaction may last \(2 s\)"):
        target.apply(rows(table(), 10))
    target.close()
    monkeypatch.setenv("CDC_KAFKA_TRANSACTION_TIMEOUT_MS", "3600000")
    with pytest.raises(OperatorNeeded, match=r"transaction\.timeout\.ms"):
        make_target(kafka, f"{name}_x").open()


def test_what_is_copied_is_remembered(kafka: PrivateKafka, name: str) -> None:
    """C-07: tables that are copied part by part, through restarts, and from another process."""
    assert isinstance(make_target(kafka, name), Replaceable)
    address = kafka.address()
    with pytest.raises(UsageError, match="No pipeline"):
        copy_parts(address, name, [table()])
    target = make_target(kafka, name)
    target.open()
    at = Checkpoint(Position(5, "0/5"), "{}")
    target.apply(Segment([Reset(table(), by_parts=True)], Transactions.none(), at))
    target.close()
    target.open()
    assert target.copying == {1}
    target.copied(table())
    target.close()
    copy_parts(address, name, [table("s", "u", 2)])
    target.open()
    assert target.copying == {2}
    target.close()
    assert [(event["op"], event["table"]) for event in values(kafka.events(name))] == [
        ("reset", "s.t"),
        ("reset", "s.u"),
    ]
    assert read_checkpoint(address, name) == at
    (removal,) = target_removals(address, name)
    assert removal.what == f"topic _cdc.{name}"
    removal.remove()
    assert read_checkpoint(address, name) is None


def test_another_format_and_a_newer_checkpoint(kafka: PrivateKafka, name: str) -> None:
    """A pipeline goes on as it began; what another version wrote is not guessed at."""
    target = make_target(kafka, name)
    target.open()
    target.apply(rows(table(), 10))
    target.close()
    with pytest.raises(UsageError, match="writes its events as json"):
        make_target(kafka, name, format="cloudevents").open()
    producer = make_producer(read_settings(kafka.address()), name)
    for written in (b'{"format":2}', b"{}", b"[", b'{"format":1,"sequence":1}'):
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(f"_cdc.{name}", written, b"checkpoint")
        producer.commit_transaction(30)
        with pytest.raises(CheckpointUnreadable, match="format 1"):
            make_target(kafka, name).open()
        producer = make_producer(read_settings(kafka.address()), name)


def test_nobody_answers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline that follows tries again; at a first start the failure is reported at once."""
    for module in ("connection", "topics", "checkpoint", "admin"):
        monkeypatch.setattr(f"cdc.targets.kafka.{module}.PATIENCE", 2.0)
    nowhere = target_factory("//127.0.0.1:9", TargetSettings(name, "postgresql", 0))()
    with pytest.raises(Unavailable):
        nowhere.open()
    nowhere.close()


def test_the_first_messages_of_new_topics(kafka: PrivateKafka, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-14, D-23: a broker that refuses a topic's first request, since it has just made it, may take the second one."""
    monkeypatch.setenv("CDC_KAFKA_BATCH_NUM_MESSAGES", "1")
    target = make_target(kafka, name)
    target.open()
    for number in range(1, 31):
        target.apply(rows(table("s", f"t{number}", number), number * 10, many=4))
    target.close()
    found = kafka.events(name)
    assert Counter(record.topic for record in found) == {f"{name}.s.t{number}": 4 for number in range(1, 31)}


def let_in(kafka: PrivateKafka, monkeypatch: pytest.MonkeyPatch, **other: str) -> str:
    """The address at which the broker asks who comes, and what is answered."""
    properties = {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_username": USER,
        "sasl_password": kafka.password,
        "ssl_ca_location": str(kafka.authority.file),
    }
    for key, value in (properties | other).items():
        monkeypatch.setenv(f"CDC_KAFKA_{key.upper()}", value)
    return f"//127.0.0.1:{kafka.secure_port}"


def test_encrypted_and_with_a_password(kafka: PrivateKafka, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS and SASL are the client's own properties, for all of what the target does."""
    address = let_in(kafka, monkeypatch)
    target = target_factory(address, TargetSettings(name, "postgresql", 0))()
    target.open()
    target.apply(rows(table(), 10))
    target.close()
    assert read_checkpoint(address, name) is not None
    assert len(kafka.events(name)) == 1


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"sasl_password": "wrong"}, "refuses the pipeline"),
        ({"sasl_mechanism": "SCRAM-SHA-256"}, "refuses the pipeline"),
        ({"ssl_ca_location": "/etc/ssl/certs/ca-certificates.crt"}, "certificate"),
    ],
)
def test_who_is_not_let_in(
    kafka: PrivateKafka, name: str, monkeypatch: pytest.MonkeyPatch, other: dict[str, str], said: str
) -> None:
    """E-03: it is said at once that somebody has to act; nothing waits for what never comes, nor says the password."""
    address = let_in(kafka, monkeypatch, **other)
    target = target_factory(address, TargetSettings(name, "postgresql", 0))()
    for attempt in (
        target.open,
        partial(read_checkpoint, address, name),
        partial(admin.teardown, read_settings(address), name),
    ):
        with pytest.raises(OperatorNeeded, match=said) as caught:
            attempt()
        assert caught.value.hint
        assert not {kafka.password, "wrong"} & set(re.findall(r"\w+", f"{caught.value} {caught.value.hint}"))
    target.close()


def test_a_topic_that_is_compacted(kafka: PrivateKafka, name: str) -> None:
    """A first copy and rows can go there, as Debezium's do; what has no key is refused by the broker, and stops us."""
    topic = f"{name}.s.t"
    admin = kafka.admin()
    admin.create_topics([NewTopic(topic, 1, 1, config={"cleanup.policy": "compact"})])[topic].result()
    target = make_target(kafka, name, format="debezium")
    target.open()
    target.apply(replace(rows(table(), 10), steps=[Reset(table()), *rows(table(), 10).steps]))
    assert [event["op"] for event in values(kafka.read(topic))] == ["c"]
    with pytest.raises(OperatorNeeded, match=f"{topic} does not take a message without a key"):
        target.apply(replace(rows(table(), 20), steps=[Reset(table())]))
    target.close()


def test_a_slow_broker_holds_the_target_back(kafka: PrivateKafka, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-13: a queue that is full is waited for, and nothing is left out."""
    monkeypatch.setenv("CDC_KAFKA_QUEUE_BUFFERING_MAX_MESSAGES", "50")
    target = make_target(kafka, name)
    target.open()
    target.apply(rows(table(), 10, many=900))
    target.close()
    assert [event["ordinal"] for event in values(kafka.events(name))] == list(range(900))


def test_rows_without_a_key_stay_in_order(kafka: PrivateKafka, name: str) -> None:
    """A-46: they are in one partition, since nothing else would tell which of two changes came first."""
    schema = replace(table(), columns=tuple(replace(column, key=None) for column in table().columns))
    target = make_target(kafka, name, "partitions=3")
    target.open()
    target.apply(rows(schema, 10, many=50))
    target.close()
    found = kafka.events(name)
    assert {record.partition for record in found} == {0}
    assert [event["ordinal"] for event in values(found)] == list(range(50))
