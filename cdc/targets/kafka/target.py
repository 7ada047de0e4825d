"""The Kafka target: whole source transactions as messages, each in one Kafka transaction with its checkpoint.

A reader with `isolation.level=read_committed` sees each event exactly once. A process that dies leaves a Kafka
transaction behind that the next one's `init_transactions` aborts, and a process that lives on is fenced by it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc import faults
from cdc.errors import CdcError, OperatorNeeded, RowTooLarge, TargetBusy, Unavailable, UsageError
from cdc.formats import Format, FormatSettings, Shapes, make
from cdc.formats.encoded import Headers
from cdc.formats.reread import Reread
from cdc.model.change import ChangeBatch, Transactions
from cdc.model.parts import Key, Part
from cdc.model.position import Checkpoint
from cdc.model.schema import TableName, TableSchema
from cdc.model.segment import Changes, Drop, Evolve, Gap, Reset, Segment, Step, Truncate, beyond
from cdc.target import TargetSettings
from cdc.targets.kafka.checkpoint import TOPIC, Stored, read_stored
from cdc.targets.kafka.connection import (
    PATIENCE,
    TOO_LARGE,
    Admin,
    classify,
    fence,
    make_admin,
    make_producer,
    mapped_errors,
    transaction_seconds,
)
from cdc.targets.kafka.settings import KafkaSettings
from cdc.targets.kafka.topics import Topics, checkpoint_topic, create, describe, verify_compacted

log = logging.getLogger(__name__)

_BY_KEY = -1  # which partition is found by the key
_WAIT = 0.1  # seconds between looks whether something has failed
_ROOM_WITHIN = 300.0  # seconds for the brokers to take messages, before everything is opened afresh
_CLOSE_WITHIN = 10.0
_FALLOUT = {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError._FATAL}  # of a failure that comes by itself


class KafkaTarget:
    """The topics of one pipeline in a cluster as a `cdc.target.Target`. The transactional id is the lease (D-17)."""

    def __init__(self, kafka: KafkaSettings, settings: TargetSettings) -> None:
        self._kafka = kafka
        self._settings = settings
        self._pipeline = settings.pipeline
        self._checkpoint_topic = checkpoint_topic(settings.pipeline)
        self._producer: Producer | None = None
        self._topics: Topics
        self._format: Format
        self._messages = ""  # the format's name
        self._stored = Stored()
        self._reread = Reread(())
        self._shapes = Shapes({})
        self._begun_at: float | None = None  # of the transaction that is open
        self._failure: CdcError | None = None
        self._identities: dict[TableName, int] = {}  # of the tables that have come

    # --- opening and closing ----------------------------------------------------------------------------------------

    def open(self) -> Checkpoint | None:
        self._begun_at, self._failure = None, None
        admin = make_admin(self._kafka, self._pipeline)
        self._open_checkpoint_topic(admin)
        self._producer = make_producer(self._kafka, self._pipeline, self._note_failure)
        with mapped_errors(self._pipeline):
            fence(self._producer)
        faults.point("kafka.fenced")
        self._stored = read_stored(self._kafka, self._pipeline)
        self._open_format()
        self._reread = Reread(self._stored.copying)
        self._shapes = Shapes(self._stored.shapes)
        self._topics = Topics(admin, self._kafka, self._pipeline, self._stored.topics)
        self._topics.verify()
        return self._stored.checkpoint

    def _open_format(self) -> None:
        settings, stored = self._settings, self._stored
        self._messages = stored.format or settings.format or "json"
        if settings.format not in (None, self._messages):
            raise UsageError(
                f"The pipeline {self._pipeline!r} writes its events as {stored.format}, not as {settings.format}.",
                hint=f"Go on with --format {stored.format}, or begin a new pipeline with another --name.",
            )
        self._kafka.refuse_other_than(self._messages)
        schemas = self._kafka.schemas is True
        if stored.format is not None and stored.schemas != schemas:
            raise UsageError(
                f"The pipeline {self._pipeline!r} writes its keys {'with' if stored.schemas else 'without'} schemas.",
                hint="Other keys would be in other partitions: go on with ?schemas="
                f"{'yes' if stored.schemas else 'no'}, or begin a new pipeline with another --name.",
            )
        about = FormatSettings(
            settings.pipeline,
            settings.source,
            settings.database,
            schemas=schemas,
            tombstones=self._kafka.tombstones is not False,
            transactions=self._kafka.transactions is True,
            old_keys=True,
        )
        self._format = make(self._messages, about)
        self._format.encode(Segment([], Transactions.none(), stored.checkpoint))  # no event, but where it begins

    def _open_checkpoint_topic(self, admin: Admin) -> None:
        if not describe(admin, [self._checkpoint_topic], self._pipeline):
            create(admin, self._kafka, self._pipeline, self._checkpoint_topic, 1, TOPIC)
        verify_compacted(admin, self._checkpoint_topic, self._pipeline, "checkpoint")

    @property
    def _client(self) -> Producer:
        assert self._producer is not None
        return self._producer

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        faults.point("kafka.before_close")
        if self._begun_at is not None:
            self._begun_at = None
            try:
                producer.abort_transaction(_CLOSE_WITHIN)
            except KafkaException as error:  # the next one's `init_transactions` does it, or the time limit
                log.debug("the Kafka transaction was not aborted: %s", error.args[0].str())

    # --- applying ---------------------------------------------------------------------------------------------------

    def apply(self, segment: Segment) -> None:
        checkpoint = self._stored.checkpoint
        new = beyond(segment, checkpoint.position.order if checkpoint is not None else None)
        if new is None:
            return
        self._identities |= {schema.table: schema.identity for schema in _schemas(new)}
        with self._mapped_errors():
            self._begin()
            self._send(self._worth_emitting(self._reread.emitted(new)))
            if segment.checkpoint is not None:
                self._commit(segment.checkpoint)

    def _begin(self) -> None:
        if self._begun_at is None:
            self._client.begin_transaction()
            self._begun_at = time.monotonic()
            faults.point("kafka.begun")

    def _worth_emitting(self, segment: Segment) -> Segment:
        """Without the begin of a table's first copy in Debezium's format, which emits it as a truncate."""
        if self._messages != "debezium":
            return segment
        steps = [s for s in segment.steps if not isinstance(s, Reset) or self._topics.is_known(s.schema.table)]
        return replace(segment, steps=steps)

    def _send(self, segment: Segment) -> None:
        """Queue the messages of a segment."""
        keyless = {schema.table for schema in _schemas(segment) if not schema.key}
        at, of_schema, topic, everywhere = object(), False, None, range(0)
        for table, key, value, is_schema, headers in self._format.messages(segment, self._shapes.new_in(segment)):
            if table is not at or is_schema is not of_schema:
                at, of_schema = table, is_schema
                topic = self._topics.of_schemas if is_schema else self._topics.of(table)
                # What is about all rows of a table has to stand between the changes of each of them.
                everywhere = range(1 if table is None or table in keyless else topic.partitions)
            assert topic is not None
            if key is not None:
                self._produce(topic.name, value, key, headers=headers)
            else:
                for partition in everywhere:
                    self._produce(topic.name, value, None, partition)
        self._client.poll(0)
        self._verify_delivered()

    def _produce(
        self, topic: str, value: bytes | None, key: bytes | None, partition: int = _BY_KEY, headers: Headers = ()
    ) -> None:
        while True:
            try:
                self._client.produce(topic, value, key, partition=partition, headers=list(headers))
                return
            except BufferError:
                if not len(self._client):  # it alone is more than the queue holds
                    raise self._too_large(topic) from None
                self._wait_for_room()
            except KafkaException as error:
                raise self._meaning(self._cause(error.args[0]), topic) from error

    def _wait_for_room(self) -> None:
        """The brokers are slower than the source."""
        until = time.monotonic() + _ROOM_WITHIN
        room = len(self._client) * 3 // 4
        while len(self._client) > room:
            self._client.poll(_WAIT)
            self._verify_delivered()
            if time.monotonic() > until:
                raise Unavailable("The Kafka brokers do not accept messages any more.")

    def _commit(self, checkpoint: Checkpoint | None) -> None:
        """End the Kafka transaction, with the checkpoint in it; None leaves that where it is."""
        stored = self._stored.followed_by(
            checkpoint,
            self._messages,
            self._topics.known,
            self._reread.copying,
            self._shapes.emitted,
            schemas=self._kafka.schemas is True,
        )
        faults.point("kafka.before_checkpoint")
        for key, value in stored.records(self._stored):
            self._produce(self._checkpoint_topic, value, key)
        while self._client.flush(_WAIT):
            self._verify_delivered()
        self._verify_delivered()
        faults.point("kafka.before_commit")
        self._end_transaction()
        self._begun_at = None
        self._stored = stored
        faults.point("kafka.after_commit")

    def _end_transaction(self) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self._client.commit_transaction(_CLOSE_WITHIN)
                return
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > until:
                    raise

    # --- failures ---------------------------------------------------------------------------------------------------

    def _note_failure(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and error.code() not in _FALLOUT and self._failure is None:
            self._failure = self._meaning(error, message.topic())

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        """The client's errors as ours; what a message met on its way comes before what the transaction met by that."""
        try:
            yield
        except KafkaException as error:
            raise (self._failure or self._meaning(error.args[0], None)) from error

    def _verify_delivered(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _cause(self, error: KafkaError) -> KafkaError:
        """The failure behind a fatal one, which the client names only to a caller that ends a transaction."""
        if error.code() == KafkaError._FATAL:
            try:
                self._client.abort_transaction(PATIENCE)
            except KafkaException as cause:
                return cause.args[0]  # type: ignore[no-any-return]
        return error

    def _meaning(self, error: KafkaError, topic: str | None) -> CdcError:
        if error.code() in TOO_LARGE and topic is not None:
            return self._too_large(topic)
        if error.code() == KafkaError.INVALID_RECORD and topic is not None:
            return OperatorNeeded(
                f"The topic {topic} does not take a message without a key, such as one about all rows of a table.",
                hint="A topic with such messages must not be compacted: give it cleanup.policy=delete (docs/kafka.md).",
            )
        meant = classify(error, self._pipeline)
        limit = transaction_seconds(self._kafka)
        if isinstance(meant, TargetBusy) and self._begun_at is not None:
            lasted = time.monotonic() - self._begun_at
            if lasted >= limit:  # the brokers fence a producer that is too slow as well
                return OperatorNeeded(
                    f"A transaction of the source took longer than a Kafka transaction may last ({limit:.0f} s).",
                    hint="Raise transaction.timeout.ms in the client's properties, and the brokers' "
                    "transaction.max.timeout.ms; docs/kafka.md.",
                )
        return meant

    def _too_large(self, topic: str) -> RowTooLarge:
        table = self._topics.table_of(topic)
        error = RowTooLarge(
            f"A message for the topic {topic} ({table or 'no row, but what belongs to the pipeline'}) is larger than "
            "Kafka accepts.",
            hint="Raise the topic's max.message.bytes (or the brokers' message.max.bytes); above 32 MB also the "
            "client's message.max.bytes and queue.buffering.max.kbytes. Or leave the table out: --exclude.",
        )
        error.concerns = self._identities.get(table) if table is not None else None
        return error

    # --- rows that are read again -----------------------------------------------------------------------------------

    def replace(self, schema: TableSchema, part: Part, batches: Sequence[ChangeBatch]) -> None:
        self._emit(self._reread.part(schema, part, batches))

    @property
    def copying(self) -> set[int]:
        return set(self._reread.copying)

    def copy_parts(self, schema: TableSchema) -> None:
        steps = self._reread.begin(schema)
        self._reread.mind(steps)
        self._emit(steps)

    def copied(self, schema: TableSchema) -> None:
        self._reread.copying.discard(schema.identity)
        self._emit([])

    def take_missed(self, schema: TableSchema) -> list[Key]:
        return self._reread.take_missed(schema)

    def _emit(self, steps: list[Step]) -> None:
        """Emit steps: durable at once, unless a transaction is open, with which they become so."""
        is_inside = self._begun_at is not None
        with self._mapped_errors():
            self._begin()
            self._send(self._worth_emitting(Segment(steps, Transactions.none(), None)))
            if not is_inside:
                self._commit(None)


def _schemas(segment: Segment) -> Iterator[TableSchema]:
    for step in segment.steps:
        if isinstance(step, Changes):
            yield step.batch.schema
        elif isinstance(step, Truncate | Reset | Gap | Drop):
            yield step.schema
        elif isinstance(step, Evolve):
            yield step.new
