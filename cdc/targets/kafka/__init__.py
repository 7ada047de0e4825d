"""Kafka: change events as messages, a topic for each table, the checkpoint in the same transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing

from cdc.errors import UsageError
from cdc.model.parts import Digest
from cdc.model.position import Checkpoint
from cdc.model.schema import TableSchema
from cdc.target import TargetSettings

try:
    import confluent_kafka  # noqa: F401
except ImportError:
    raise UsageError(
        "A Kafka target needs the package confluent-kafka.", hint="pip install 'cdc-replicator[kafka]'"
    ) from None

from cdc.targets.kafka import admin
from cdc.targets.kafka.settings import read_settings
from cdc.targets.kafka.target import KafkaTarget

TELLS_NOTES = True  # annotations of transactions are events, too


def read_checkpoint(address: str, pipeline: str) -> Checkpoint | None:
    """The checkpoint of a pipeline, whether it runs or not."""
    return admin.read_checkpoint(read_settings(address), pipeline)


def copy_parts(address: str, pipeline: str, schemas: Iterable[TableSchema]) -> None:
    """Have the rows of tables told anew, part by part, when the pipeline runs again."""
    settings = TargetSettings(pipeline, "", 0, format=admin.format_of(read_settings(address), pipeline))
    with closing(target_factory(address, settings)()) as target:
        target.open()
        for schema in schemas:
            target.copy_parts(schema)


def teardown_target(address: str, pipeline: str) -> list[str]:
    """Remove a pipeline's checkpoint; the topics of its tables stay. Says what was removed."""
    return admin.teardown(read_settings(address), pipeline)


def digest_tables(address: str, schemas: Iterable[TableSchema]) -> dict[TableSchema, Digest | None]:
    """Events have no digest."""
    raise UsageError(f"kafka:{address} holds events, not tables.", hint="Compare a DuckDB target.")


def target_factory(address: str, settings: TargetSettings) -> Callable[[], KafkaTarget]:
    """What opens the target; raises UsageError for options of a format that is not the one."""
    kafka = read_settings(address)
    of_debezium = {"tombstones": kafka.tombstones, "schemas": kafka.schemas, "transactions": kafka.transactions}
    given = [name for name, choice in of_debezium.items() if choice is not None]
    if given and settings.format != "debezium":
        raise UsageError(f"?{given[0]}= belongs to Debezium's format.", hint="--format debezium, or leave it out.")
    return lambda: KafkaTarget(kafka, settings)
