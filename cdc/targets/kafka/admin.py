"""What is asked of a pipeline's topics by others than the pipeline."""

from __future__ import annotations

from cdc.errors import UsageError
from cdc.model.position import Checkpoint
from cdc.targets.kafka.checkpoint import Stored, read_stored
from cdc.targets.kafka.connection import PATIENCE, fence, make_admin, make_producer, mapped_errors
from cdc.targets.kafka.settings import KafkaSettings
from cdc.targets.kafka.topics import checkpoint_topic, describe


def read_checkpoint(settings: KafkaSettings, pipeline: str) -> Checkpoint | None:
    """The last one that is committed."""
    return _stored(settings, pipeline).checkpoint


def verify_there(settings: KafkaSettings, pipeline: str) -> None:
    """Raise UsageError if there is no such pipeline."""
    if _stored(settings, pipeline).format is None:
        raise UsageError(
            f"No pipeline {pipeline!r} writes to this Kafka cluster.", hint="`cdc run SOURCE TARGET` makes it one."
        )


def _stored(settings: KafkaSettings, pipeline: str) -> Stored:
    admin = make_admin(settings, pipeline)
    is_there = describe(admin, [checkpoint_topic(pipeline)], pipeline)
    return read_stored(settings, pipeline) if is_there else Stored()


def teardown(settings: KafkaSettings, pipeline: str) -> None:
    """Shut out whatever process still writes, and remove the checkpoint."""
    admin, topic = make_admin(settings, pipeline), checkpoint_topic(pipeline)
    if not describe(admin, [topic], pipeline):  # which says at once that somebody is not let in
        return
    with mapped_errors(pipeline):
        fence(make_producer(settings, pipeline))
        admin.delete_topics([topic], operation_timeout=PATIENCE, request_timeout=PATIENCE)[topic].result()
