"""The topics of a pipeline: what they are called, that they are there, and that they are still the same."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
    TopicDescription,
)

from cdc import faults
from cdc.errors import TargetDrift, Unavailable, UsageError
from cdc.model.schema import TableName
from cdc.targets.kafka.connection import PATIENCE, Admin, mapped_errors
from cdc.targets.kafka.settings import KafkaSettings

_LONGEST_NAME = 249
_ILLEGAL = re.compile(r"[^A-Za-z0-9._-]")
_LOOK_EVERY = 0.1  # seconds, until a topic that was made is known everywhere


@dataclass(frozen=True, slots=True)
class Known:
    """A topic as the checkpoint remembers it.

    Attributes:
        identity: that the cluster gave it; one that was deleted and made again has another.
        schema, table: whose changes are in it; None for what belongs to no table alone.
    """

    identity: str
    schema: str | None
    table: str | None


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that can be written to."""

    name: str
    partitions: int


def checkpoint_topic(pipeline: str) -> str:
    """Where a pipeline's checkpoint is."""
    return f"_cdc.{pipeline}"


def schema_topic(pipeline: str) -> str:
    """The topic into which a pipeline emits the shapes of its tables."""
    return f"{pipeline}.schema"


def topic_name(template: str, pipeline: str, table: TableName | None) -> str:
    """The topic of a table; of what belongs to no table, if that is None.

    Raises:
        UsageError: Kafka takes no such name.
    """
    if table is None:
        return f"{pipeline}.transaction"
    name = template
    for word, text in {"pipeline": pipeline, "schema": table.schema, "table": table.name}.items():
        # What is put in has no braces any more, so that nothing is put into it.
        name = name.replace(f"{{{word}}}", _ILLEGAL.sub("_", text))
    if _ILLEGAL.search(name) or len(name) > _LONGEST_NAME or name in (".", ".."):
        raise UsageError(
            f"The topic of {table} would have a name that Kafka does not take.",
            hint=f"It may have {_LONGEST_NAME} letters, digits, '.', '_' and '-'; change the template, ?topic=...",
        )
    return name


class Topics:
    """The topics that one open target writes to.

    Args:
        known: those that the checkpoint names.
    """

    def __init__(self, admin: Admin, settings: KafkaSettings, pipeline: str, known: Mapping[str, Known]) -> None:
        self._admin = admin
        self._settings = settings
        self._pipeline = pipeline
        self.known = dict(known)
        self._tables: dict[str, TableName | None] = {}
        self._open: dict[TableName | None, Topic] = {}
        self._of_schemas: Topic | None = None

    def verify(self) -> None:
        """See that no topic is gone, or another one of the same name; raises TargetDrift."""
        found = describe(self._admin, self.known, self._pipeline)
        for name, known in self.known.items():
            if name not in found or str(found[name].topic_id) != known.identity:
                what = "was deleted and made again" if name in found else "is gone"
                raise TargetDrift(
                    f"The topic {name}, which this pipeline writes to, {what}.",
                    hint="Its messages are lost. Run `cdc teardown SOURCE TARGET`, and begin a new copy.",
                )

    def table_of(self, topic: str) -> TableName | None:
        """Whose topic it is."""
        return self._tables.get(topic)

    def is_known(self, table: TableName) -> bool:
        """Whether this pipeline has written to a table's topic."""
        return topic_name(self._settings.topic, self._pipeline, table) in self.known

    def of(self, table: TableName | None) -> Topic:
        """The topic of a table, which is made if it is missing.

        Raises:
            UsageError: another table has the same topic; or it is missing, and must not be made.
        """
        if table not in self._open:
            name = topic_name(self._settings.topic, self._pipeline, table)
            # Of what belongs to no table the order is all that matters.
            self._open[table] = self._opened(name, table, self._settings.partitions if table is not None else 1, {})
        return self._open[table]

    @property
    def of_schemas(self) -> Topic:
        """The topic of the tables' shapes, of which the last of each table stays.

        Raises:
            UsageError: a table has the same topic; or it is missing, and must not be made; or it is not compacted.
        """
        if self._of_schemas is None:
            name = schema_topic(self._pipeline)
            self._of_schemas = self._opened(name, None, 1, {"cleanup.policy": "compact"})
            verify_compacted(self._admin, name, self._pipeline, "tables' shapes")
        return self._of_schemas

    def _opened(self, name: str, table: TableName | None, partitions: int, configuration: Mapping[str, str]) -> Topic:
        self._refuse_clash(name, table)
        found = describe(self._admin, [name], self._pipeline).get(name)
        if found is None:
            found = create(self._admin, self._settings, self._pipeline, name, partitions, configuration)
        self._tables[name] = table
        self.known[name] = Known(str(found.topic_id), *((table.schema, table.name) if table else (None, None)))
        return Topic(name, len(found.partitions))

    def _refuse_clash(self, name: str, table: TableName | None) -> None:
        """Kafka itself takes '.' and '_' for one character when it compares the names of topics."""
        mine = _compared(name)
        if mine == _compared(checkpoint_topic(self._pipeline)):
            raise UsageError(f"The topic of {table} would be the pipeline's own.", hint="Change the template: ?topic=")
        for other, known in self.known.items():
            if _compared(other) == mine and (other, (known.schema, known.table)) != (name, _parts(table)):
                owner = f"{known.schema}.{known.table}" if known.table is not None else "what belongs to no table"
                raise UsageError(
                    f"{table or 'What belongs to no table'} and {owner} would share the topic {name}.",
                    hint="Leave one of them out with --exclude, or change the template, ?topic=...",
                )


def _parts(table: TableName | None) -> tuple[str | None, str | None]:
    return (table.schema, table.name) if table is not None else (None, None)


def _compared(name: str) -> str:
    return name.replace(".", "_")


def describe(admin: Admin, names: Iterable[str], pipeline: str) -> dict[str, TopicDescription]:
    """Those of some topics that there are."""
    wanted = list(names)
    if not wanted:
        return {}
    found = {}
    with mapped_errors(pipeline):
        answers = admin.describe_topics(TopicCollection(wanted), request_timeout=PATIENCE)
        for name, answer in answers.items():
            try:
                found[name] = admin.wait(answer)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
    return found


def create(
    admin: Admin,
    settings: KafkaSettings,
    pipeline: str,
    name: str,
    partitions: int,
    configuration: Mapping[str, str] | None = None,
) -> TopicDescription:
    """Make a topic, and wait until it is known.

    Raises:
        UsageError: topics are to be made by hand.
    """
    if not settings.create:
        count = partitions if partitions > 0 else 1
        options = "".join(f" --config {key}={value}" for key, value in (configuration or {}).items())
        raise UsageError(
            f"There is no topic {name}, and ?create=no says that cdc makes none.",
            hint=f"kafka-topics.sh --create --topic {name} --partitions {count}{options}",
        )
    new = NewTopic(name, partitions, settings.replication, config=dict(configuration or {}))
    with mapped_errors(pipeline):
        try:
            admin.create_topics([new], operation_timeout=PATIENCE, request_timeout=PATIENCE)[name].result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.INVALID_REPLICATION_FACTOR:
                raise UsageError(
                    f"The topic {name} cannot be made: {error.args[0].str()}.", hint="Give another ?replication=."
                ) from error
            if error.args[0].code() == KafkaError.TOPIC_EXCEPTION:  # it clashes with somebody else's
                raise UsageError(
                    f"The topic {name} cannot be made: {error.args[0].str()}.", hint="Change the template: ?topic="
                ) from error
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
    faults.point("kafka.topic")
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if found := describe(admin, [name], pipeline):
            return found[name]
        time.sleep(_LOOK_EVERY)
    raise Unavailable(f"The topic {name} was made, but it does not appear.")


def verify_compacted(admin: Admin, topic: str, pipeline: str, content: str) -> None:
    """See that the cluster never throws what is in a topic away because it is old; raises UsageError."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    with mapped_errors(pipeline):
        found: dict[str, ConfigEntry] = admin.describe_configs([resource], request_timeout=PATIENCE)[resource].result()
    policy = found["cleanup.policy"].value
    if policy != "compact":
        raise UsageError(
            f"The topic {topic} holds the pipeline's {content} and has cleanup.policy={policy}.",
            hint="Kafka would delete it one day. Run: kafka-configs.sh --alter --entity-type topics "
            f"--entity-name {topic} --add-config cleanup.policy=compact",
        )
