"""The Kafka target without a broker: addresses, properties, names of topics, the checkpoint's records."""

from __future__ import annotations

import builtins
import importlib
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.connectors import target_module
from cdc.errors import UsageError
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableName
from cdc.target import TargetSettings
from cdc.targets.kafka import target_factory
from cdc.targets.kafka.checkpoint import Stored
from cdc.targets.kafka.connection import make_producer
from cdc.targets.kafka.settings import read_settings
from cdc.targets.kafka.topics import Known, topic_name
from cdc.whereabouts import control_socket, status_file

LETTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


@pytest.mark.parametrize(
    ("address", "brokers"),
    [
        ("//host", "host:9092"),
        ("//host:1,other", "host:1,other:9092"),
        ("//10.0.0.1:9093/", "10.0.0.1:9093"),
        ("//[::1]:9093,[::1]", "[::1]:9093,[::1]:9092"),
    ],
)
def test_brokers(address: str, brokers: str) -> None:
    assert read_settings(address, {}).brokers == brokers


def test_options() -> None:
    found = read_settings("//h?topic=x.{schema}.{table}&partitions=6&replication=3&create=no", {})
    assert (found.topic, found.partitions, found.replication, found.create) == ("x.{schema}.{table}", 6, 3, False)
    plain = read_settings("//h", {})
    assert (plain.topic, plain.partitions, plain.replication, plain.create) == (
        "{pipeline}.{schema}.{table}",
        -1,
        -1,
        True,
    )


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("//h?tombstones=never", "tombstones"),
        ("host:9092", "names no brokers"),
        ("//", "names no brokers"),
        ("//a b", "names no brokers"),
        ("//h?topics={table}", "no option 'topics'"),
        ("//h?partitions", "NAME=VALUE"),
        ("//h?partitions=0", "partitions"),
        ("//h?partitions=x", "partitions"),
        ("//h?create=maybe", "create"),
        ("//h?create=no&create=yes", "twice"),
        ("//h?topic=all", "template"),
        ("//h?topic={table}.{column}", "template"),
        ("//h?config=/no/such/file", "cannot be read"),
    ],
)
def test_what_is_refused(address: str, said: str) -> None:
    """Whatever is written wrongly is named, with what to write instead."""
    with pytest.raises(UsageError, match=said) as caught:
        read_settings(address, {})
    assert caught.value.hint or "cannot be read" in said


def test_no_password_in_an_address() -> None:
    """E-04: it is refused, and not said again."""
    with pytest.raises(UsageError) as caught:
        read_settings("//app:s3cret@host:9092", {})
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"


def test_properties(tmp_path: Path) -> None:
    """Of a file, and over them those of the environment; what exactly-once delivery rests on is nobody's to set."""
    file = tmp_path / "client.properties"
    file.write_text("# comment\n\nsecurity.protocol = SASL_SSL\nsasl.password=a=b\n")
    found = read_settings(f"//h?config={file}", {"CDC_KAFKA_SASL_PASSWORD": "c", "OTHER": "d"}).client
    assert found == {"security.protocol": "SASL_SSL", "sasl.password": "c"}
    file.write_text("transactional.id=mine\n")
    with pytest.raises(UsageError, match=r"transactional\.id"):
        read_settings(f"//h?config={file}", {})
    with pytest.raises(UsageError, match="acks"):
        read_settings("//h", {"CDC_KAFKA_ACKS": "1"})
    file.write_text("nothing\n")
    with pytest.raises(UsageError, match="Line 1"):
        read_settings(f"//h?config={file}", {})


@pytest.mark.parametrize(
    ("name", "value"), [("no.such.thing", "s3cret"), ("sasl.mechanism", "s3cret"), ("ssl.key.pem", "s3cret")]
)
def test_properties_that_the_client_does_not_take(name: str, value: str) -> None:
    """E-04: the property is named, its value is not."""
    settings = read_settings(
        "//h", {f"CDC_KAFKA_{name.upper().replace('.', '_')}": value, "CDC_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}
    )
    with pytest.raises(UsageError) as caught:
        make_producer(settings, "x")
    assert "s3cret" not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"


@pytest.mark.parametrize("option", ["tombstones=yes", "schemas=no", "transactions=yes"])
def test_options_of_another_format(option: str) -> None:
    """They are refused where nothing would come of them."""
    with pytest.raises(UsageError, match="Debezium's format"):
        target_factory(f"//h?{option}", TargetSettings("x", "postgresql", 0, format="json"))
    target_factory(f"//h?{option}", TargetSettings("x", "postgresql", 0, format="debezium"))


@given(st.text())
def test_any_address(text: str) -> None:
    """It is read, or refused as any mistake is."""
    for address in (text, f"//{text}", f"//h?{text}", f"//h?topic={text}"):
        with suppress(UsageError):
            read_settings(address, {})


@given(st.text(min_size=1, max_size=63), st.text(min_size=1, max_size=63))
def test_names_of_topics(schema: str, table: str) -> None:
    """E-07: any table has a topic whose name Kafka takes, and nothing in a name is taken for the template's."""
    name = topic_name("{pipeline}.{schema}.{table}", "shop", TableName(schema, table))
    assert set(name) <= LETTERS
    assert len(name) == len(f"shop.{schema}.{table}")
    assert name.startswith("shop.")


@pytest.mark.parametrize(("template", "table"), [("{table}", "."), ("{table}", "x" * 250), ("ü{table}", "t")])
def test_names_that_kafka_does_not_take(template: str, table: str) -> None:
    with pytest.raises(UsageError, match="name that Kafka does not take"):
        topic_name(template, "shop", TableName("s", table))


def test_records_of_a_checkpoint() -> None:
    """What changes seldom is written when it does; the position always."""
    at = Checkpoint(Position(7, "0/7"), "{}")
    known = {"a": Known("id", "s", "t")}
    first = Stored().followed_by(at, "json", known, (), {})
    assert [key for key, _ in first.records(Stored())] == [b"state", b"checkpoint"]
    second = first.followed_by(Checkpoint(Position(8, "0/8"), "{}"), "json", known, (), {})
    assert [key for key, _ in second.records(first)] == [b"checkpoint"]
    assert second.sequence == first.sequence + 1
    for other in (
        second.followed_by(Checkpoint(Position(9, "0/9"), "{1}"), "json", known, (), {}),
        second.followed_by(at, "json", {}, (), {}),
        second.followed_by(None, "json", known, (3,), {}),
        second.followed_by(None, "json", known, (), {1: "a"}),
    ):
        assert [key for key, _ in other.records(second)] == [b"state", b"checkpoint"]
    assert list(Stored().followed_by(None, "json", {}, (), {}).records(Stored())) == []


def test_one_cluster_has_many_pipelines() -> None:
    """Each has a socket and a status file of its own, however the address says to write."""
    one, same, other = (
        control_socket("kafka://h:9092", "a"),
        control_socket("kafka://h:9092?partitions=3", "a"),
        control_socket("kafka://h:9092", "b"),
    )
    assert one == same != other
    assert status_file("kafka://h:9092", "a") == one.with_suffix(".json")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without the client learns how to get it; nobody else needs it."""
    for module in [module for module in sys.modules if module.startswith(("cdc.targets.kafka", "confluent_kafka"))]:
        monkeypatch.delitem(sys.modules, module)
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("confluent_kafka"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert importlib.import_module("cdc.connectors")
    with pytest.raises(UsageError, match="confluent-kafka") as caught:
        target_module("kafka://host")
    assert "pip install 'confluent-kafka" in str(caught.value.hint)
