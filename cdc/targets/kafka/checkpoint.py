"""The checkpoint of a pipeline in Kafka: two records of a compacted topic, written in the transaction of the data.

What changes with every segment (the position) is one record, what changes seldom (the source's state, which holds every
table's schema) is another, so that a small transaction stays small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from cdc.errors import CheckpointUnreadable, Unavailable
from cdc.model.position import Checkpoint, Position
from cdc.model.records import read_record
from cdc.targets.kafka.connection import PATIENCE, make_reader, mapped_errors
from cdc.targets.kafka.settings import KafkaSettings
from cdc.targets.kafka.topics import Known, checkpoint_topic

FORMAT = 1
# Small parts, so that little is left to read when a pipeline begins; what a topic of many schemas takes at once.
TOPIC = {"cleanup.policy": "compact", "segment.bytes": "1048576", "max.message.bytes": "33554432"}

_CHECKPOINT, _STATE = b"checkpoint", b"state"


@dataclass(frozen=True, slots=True)
class _Place:
    """The record that changes with every segment."""

    format: int
    sequence: int
    order: int
    position: str


@dataclass(frozen=True, slots=True)
class _State:
    """The record that changes seldom."""

    format: int
    state: str
    messages: str
    topics: dict[str, Known]
    copying: list[int]
    schemas: bool = False
    shapes: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stored:
    """What a pipeline remembers.

    Attributes:
        checkpoint: None before the first.
        sequence: how often it was written.
        format: of the messages.
        topics: those that were written to, by name.
        copying: the tables, by identity, that are copied part by part.
        schemas: whether keys and values describe themselves.
        shapes: by table identity, the shape that was emitted last (`cdc.formats.Shapes`).
    """

    checkpoint: Checkpoint | None = None
    sequence: int = 0
    format: str | None = None
    topics: dict[str, Known] = field(default_factory=dict)
    copying: frozenset[int] = frozenset()
    schemas: bool = False
    shapes: dict[int, str] = field(default_factory=dict)

    def followed_by(
        self,
        checkpoint: Checkpoint | None,
        messages: str,
        topics: Mapping[str, Known],
        copying: Iterable[int],
        shapes: Mapping[int, str],
        *,
        schemas: bool = False,
    ) -> Stored:
        """What comes after this one; without a checkpoint it stays where it is."""
        at, sequence = checkpoint or self.checkpoint, self.sequence + 1
        return Stored(at, sequence, messages, dict(topics), frozenset(copying), schemas, dict(shapes))

    def records(self, before: Stored) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values that turn what was stored before into this; none before the first checkpoint."""
        if self.checkpoint is None:
            return
        state = self._state()
        if state is not None and state != before._state():
            yield _STATE, orjson.dumps(asdict(state), option=orjson.OPT_NON_STR_KEYS)
        position = self.checkpoint.position
        yield _CHECKPOINT, orjson.dumps(asdict(_Place(FORMAT, self.sequence, position.order, position.text)))

    def _state(self) -> _State | None:
        if self.checkpoint is None or self.format is None:
            return None
        copying = sorted(self.copying)
        return _State(FORMAT, self.checkpoint.state, self.format, self.topics, copying, self.schemas, self.shapes)


def read_stored(settings: KafkaSettings, pipeline: str) -> Stored:
    """What is committed of a pipeline's checkpoint, whose topic there has to be.

    Raises:
        CheckpointUnreadable: it is of another version of this program, or damaged.
    """
    topic = checkpoint_topic(pipeline)
    reader = make_reader(settings, pipeline)
    try:
        with mapped_errors(pipeline):
            found = dict(_records(reader, topic))
    finally:
        reader.close()
    if not found:
        return Stored()
    try:
        place, state = read_record(_Place, _loaded(found, _CHECKPOINT)), read_record(_State, _loaded(found, _STATE))
    except (KeyError, ValueError) as error:
        raise CheckpointUnreadable(
            f"The checkpoint in the topic {topic} is not one that this version of cdc writes (format {FORMAT}).",
            hint="Use the version of cdc that wrote it, or a newer one.",
        ) from error
    checkpoint = Checkpoint(Position(place.order, place.position), state.state)
    copying = frozenset(state.copying)
    return Stored(checkpoint, place.sequence, state.messages, state.topics, copying, state.schemas, state.shapes)


def _loaded(found: dict[bytes, bytes], key: bytes) -> object:
    content = orjson.loads(found[key])
    if content["format"] != FORMAT:
        raise ValueError("another format")
    return content


def _records(reader: Consumer, topic: str) -> Iterator[tuple[bytes, bytes]]:
    """All records of the topic's only partition up to its end."""
    first, _ = reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=PATIENCE)
    reader.assign([TopicPartition(topic, 0, first)])
    while True:
        message = reader.poll(PATIENCE)
        if message is None:
            raise Unavailable(f"The topic {topic} cannot be read: the Kafka cluster does not answer.")
        if (error := message.error()) is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                return
            raise KafkaException(error)
        key, value = message.key(), message.value()
        if key is not None and value is not None:
            yield bytes(key), bytes(value)
