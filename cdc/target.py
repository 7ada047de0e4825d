"""The seam to a target."""

from __future__ import annotations

from typing import Protocol

from cdc.model.position import Checkpoint
from cdc.model.segment import Segment


class Target(Protocol):
    """A place that is kept equal to a source. All of it runs on the applier thread."""

    def open(self) -> Checkpoint | None:
        """Take the lease and return the last durable checkpoint, None if this pipeline never wrote here.

        Raises:
            TargetBusy: another process has it.
            UsageError: it is not something that this target can write to.
        """

    def apply(self, segment: Segment) -> None:
        """Apply a segment; return only once it is durable together with its checkpoint.

        A segment without a checkpoint stays invisible until the one that ends its transaction. Whatever lies before
        the target's own checkpoint is ignored, so that a segment, or an overlapping one, can be applied again (D-05).
        """

    def close(self) -> None:
        """Roll back what is not durable and let go of the lease. May be called twice."""
