"""Kafka: change events as messages, a topic for each table, the checkpoint in the same transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from cdc.errors import UsageError
from cdc.model.position import Checkpoint
from cdc.model.schema import TableSchema
from cdc.model.standing import Standing, State
from cdc.removal import Removal
from cdc.target import SetApart, TargetAbilities, TargetSettings, takes_all

try:
    import confluent_kafka  # noqa: F401
except ImportError:
    raise UsageError(
        "A Kafka target needs the package confluent-kafka.", hint="pip install 'confluent-kafka>=2.16'"
    ) from None

from cdc.targets.kafka import admin
from cdc.targets.kafka.checkpoint import read_stored
from cdc.targets.kafka.settings import read_settings
from cdc.targets.kafka.target import KafkaTarget
from cdc.targets.kafka.topics import checkpoint_topic

ABILITIES = TargetAbilities(
    product="Kafka",
    keeps="events",
    tells_notes=True,
    options=frozenset({"--format"}),
    needs="pip install '.[kafka]'",
)
set_apart: SetApart = takes_all


def read_checkpoint(address: str, pipeline: str) -> Checkpoint | None:
    """The checkpoint of a pipeline, whether it runs or not."""
    return admin.read_checkpoint(read_settings(address), pipeline)


def read_marks(address: str, pipeline: str) -> dict[int, Standing]:
    """The tables, by identity, that are copied by parts."""
    return dict.fromkeys(read_stored(read_settings(address), pipeline).copying, Standing(State.COPYING))


def copy_parts(address: str, pipeline: str, schemas: Iterable[TableSchema]) -> None:
    """Have the rows of tables emitted again, part by part, when the pipeline runs again."""
    admin.verify_there(read_settings(address), pipeline)
    with closing(target_factory(address, TargetSettings(pipeline, "", 0))()) as target:
        target.open()
        for schema in schemas:
            target.copy_parts(schema)


def target_removals(address: str, pipeline: str) -> list[Removal]:
    """A pipeline's checkpoint; the topics of its tables stay."""
    settings = read_settings(address)
    return [Removal(f"topic {checkpoint_topic(pipeline)}", lambda: admin.teardown(settings, pipeline))]


def file_of(address: str) -> Path | None:
    """None: several pipelines may write to the brokers, and each is known by its name alone."""
    return None


def target_factory(address: str, settings: TargetSettings) -> Callable[[], KafkaTarget]:
    """What opens the target; raises UsageError for options of a format that is not the one."""
    kafka = read_settings(address)
    if settings.format is not None:
        kafka.refuse_other_than(settings.format)
    return lambda: KafkaTarget(kafka, settings)
