"""Clients of a cluster, and what their errors mean here."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from cdc.errors import CdcError, OperatorNeeded, TargetBusy, Unavailable, UsageError
from cdc.targets.kafka.settings import KafkaSettings

log = logging.getLogger(__name__)

Client = TypeVar("Client")
Answer = TypeVar("Answer")

_PROPERTY = re.compile(r'property:? "?([a-z0-9._]+)')

PATIENCE = 30.0  # seconds for a request that answers at once on a cluster that is well
_LOOK_EVERY = 0.1  # seconds, whether the cluster refuses

# The time that a broker lets a transaction last by default: a transaction of the source may be large.
_TRANSACTION_TIMEOUT = "900000"
_DEFAULTS = {
    "compression.type": "lz4",
    "linger.ms": "50",  # a commit does not wait for it
    "message.max.bytes": "33554432",  # the topic's own limit is what counts
    "queue.buffering.max.kbytes": "65536",
    "queue.buffering.max.messages": "1000000",
    "message.timeout.ms": "120000",
    # A broker takes any sequence number for a producer's first in a partition. So if it refuses the first request since
    # the topic has just been made, and takes the second one, the client counts the first as delivered, and it is lost.
    "max.in.flight.requests.per.connection": "1",
    "partitioner": "murmur2_random",  # that of Kafka's own clients: equal keys of other producers meet here
    "transaction.timeout.ms": _TRANSACTION_TIMEOUT,
}

_FENCED = {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}
_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
}
TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE}


class Admin(AdminClient):
    """Somebody who looks at topics and makes them."""

    def __init__(self, configuration: Mapping[str, str]) -> None:
        refusals: list[KafkaError] = []
        self._refusals = refusals

        def note(error: KafkaError) -> None:
            if error.code() == KafkaError._AUTHENTICATION or _is_distrusted(error):
                refusals.append(error)

        properties: dict[str, Any] = {**configuration, "error_cb": note}
        super().__init__(properties, logger=log)

    def wait(self, answer: Future[Answer]) -> Answer:
        """What the cluster answers; raises KafkaException.

        The client itself tries again for as long as it may where it is not let in.
        """
        while not wait([answer], _LOOK_EVERY).done:
            self.poll(0)
            if self._refusals:
                raise KafkaException(self._refusals[0])
        return answer.result()


def _is_distrusted(error: KafkaError) -> bool:
    return error.code() == KafkaError._SSL and "certificate verify failed" in error.str()


def make_producer(
    settings: KafkaSettings, pipeline: str, failed: Callable[[KafkaError, Message], None] | None = None
) -> Producer:
    """The producer of a pipeline, of which there is one at a time in a cluster (D-17).

    Args:
        failed: is called with each message that could not be delivered, when the producer is polled.
    """
    configuration = {
        **_DEFAULTS,
        **_client(settings, pipeline),
        "transactional.id": transactional_id(pipeline),
        "delivery.report.only.error": True,
        **({"on_delivery": failed} if failed is not None else {}),
    }
    return _made(lambda: Producer(configuration, logger=log))


def make_reader(settings: KafkaSettings, pipeline: str) -> Consumer:
    """Somebody who reads what was committed, and says where that ends."""
    configuration = {
        **_without_producers(_client(settings, pipeline)),
        "group.id": transactional_id(pipeline),
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",  # never to begin somewhere else in silence
        "fetch.wait.max.ms": 10,  # the end of what there is is what is wanted
    }
    return _made(lambda: Consumer(configuration, logger=log))


def make_admin(settings: KafkaSettings, pipeline: str) -> Admin:
    """Somebody who looks at topics and makes them."""
    return _made(lambda: Admin(_without_producers(_client(settings, pipeline))))


def fence(producer: Producer) -> None:
    """End what an earlier process left open, and shut it out if it lives (D-17)."""
    until = time.monotonic() + 2 * PATIENCE
    while True:
        try:
            producer.init_transactions(PATIENCE)
            return
        except KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() > until:
                raise


def transactional_id(pipeline: str) -> str:
    return f"cdc.{pipeline}"


def transaction_seconds(settings: KafkaSettings) -> float:
    """How long the cluster lets a transaction last."""
    return float(settings.client.get("transaction.timeout.ms", _TRANSACTION_TIMEOUT)) / 1000


@contextmanager
def mapped_errors(pipeline: str) -> Iterator[None]:
    """The client's errors as ours."""
    try:
        yield
    except KafkaException as error:
        raise classify(error.args[0], pipeline) from error


def classify(error: KafkaError, pipeline: str) -> CdcError:
    """What an error of the client means.

    What is not known here is taken to pass: the pipeline opens everything afresh, and the checkpoint says from where.
    """
    code, said = error.code(), error.str()
    if code in _FENCED:
        return TargetBusy(
            f"Another process took over the pipeline {pipeline!r} on this Kafka cluster.",
            hint="Stop one of the two processes, or give one of the pipelines another --name.",
        )
    if code in _DENIED:
        return OperatorNeeded(
            f"The Kafka cluster refuses the pipeline {pipeline!r}: {said}.",
            hint="docs/kafka.md lists the rights that it needs, and where a user and a password belong.",
        )
    if _is_distrusted(error):
        return OperatorNeeded(
            "The Kafka cluster's certificate is not from a trusted authority, or it is for another host.",
            hint="Name the file with the authority's certificate in the client's property ssl.ca.location.",
        )
    if code == KafkaError.INVALID_TRANSACTION_TIMEOUT:
        return OperatorNeeded(
            "The brokers do not let a transaction last as long as transaction.timeout.ms.",
            hint="Lower it in the client's properties, or raise the brokers' transaction.max.timeout.ms.",
        )
    if code in (KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE):
        return UsageError(f"The Kafka brokers are too old: {said}.", hint="Transactions need Kafka 0.11 or newer.")
    if code == KafkaError.POLICY_VIOLATION:
        return OperatorNeeded(f"The Kafka cluster's policy forbids it: {said}.", hint="Make the topics by hand.")
    return Unavailable(f"The Kafka cluster is not usable just now: {said} ({error.name()}).")


def _client(settings: KafkaSettings, pipeline: str) -> dict[str, str]:
    return {"client.id": f"cdc-{pipeline}", **settings.client, "bootstrap.servers": settings.brokers}


def _without_producers(configuration: dict[str, str]) -> dict[str, str]:
    """Without the properties that only a producer takes, since others would complain about them."""
    return {name: value for name, value in configuration.items() if name not in _PRODUCERS}


_PRODUCERS = {*_DEFAULTS, "batch.size", "batch.num.messages", "compression.level", "compression.codec"} - {
    "message.max.bytes"
}


def _made(make: Callable[[], Client]) -> Client:
    try:
        return make()
    except KafkaException as error:
        said = error.args[0].str()
        named = _PROPERTY.search(said)  # no more of it: it has the value, too (E-04)
        raise UsageError(
            f"The Kafka client does not take {f'the property {named[1]}' if named else 'its properties together'}.",
            hint="The properties are those of librdkafka: check the file of ?config=, and the variables CDC_KAFKA_...",
        ) from None
