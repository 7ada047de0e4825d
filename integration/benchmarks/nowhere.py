"""`python -m integration.benchmarks.nowhere SOURCE CHECKPOINT NAME`: follow a log to its end and keep nothing.

CHECKPOINT is a DuckDB file whose checkpoint is where to begin.
"""

from __future__ import annotations

import sys

from cdc.connectors import source_factory, target_module
from cdc.engine.pipeline import Pipeline
from cdc.model.position import Checkpoint
from cdc.model.segment import Segment
from cdc.options import Options


class Nowhere:
    """A target that takes everything at once."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def open(self) -> Checkpoint:
        return self._checkpoint

    def apply(self, segment: Segment) -> None:
        self._checkpoint = segment.checkpoint or self._checkpoint

    def close(self) -> None: ...


def main(source: str, target: str, name: str) -> None:
    module, path = target_module(target)
    options = Options(name=name)
    make = source_factory(source, target, options)
    nowhere = Nowhere(module.read_checkpoint(path, name))
    Pipeline(make, lambda: nowhere, queue_bytes=options.queue_bytes, until_caught_up=True).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
