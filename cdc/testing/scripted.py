"""A source that says what a test has written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableName, TableSchema
from cdc.model.segment import Segment
from cdc.model.standing import Standing
from cdc.source import Head, Link

_POLL = 0.002  # seconds between looks at a link that is paused


class ScriptedSource:
    """A `cdc.source.Source` that gives segments from a script and says what it would have acknowledged.

    It goes on after the checkpoint that it is opened with, as a database does, and may be opened any number of times.

    Args:
        script: segments in the order of the log, and exceptions, each of which is raised once where it stands.
        copied: segments of a snapshot, given when there is no checkpoint yet.
        overlap: how many segments before the checkpoint are given again when it is opened with one (D-05).
        sleep: how to wait while the hand-off is full.

    Attributes:
        opened: the checkpoints that it was opened with.
        acknowledged: the positions that it read from its link, each when it had become another one.
    """

    def __init__(
        self,
        script: Sequence[Segment | Exception],
        *,
        copied: Sequence[Segment] = (),
        overlap: int = 0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._script = list(script)
        self._copied = list(copied)
        self._overlap = overlap
        self._sleep = sleep
        self._link: Link | None = None
        self._at = 0
        self.opened: list[Checkpoint | None] = []
        self.acknowledged: list[Position] = []

    @property
    def head(self) -> Head:
        last = next((step for step in reversed(self._segments()) if step.checkpoint is not None), None)
        clock = int(last.transactions.committed_at[-1]) if last is not None and len(last.transactions) else 0
        return Head(last.checkpoint.position if last is not None and last.checkpoint else Position(0, "0"), clock)

    @property
    def estimates(self) -> Mapping[TableName, int]:
        return {}

    @property
    def followed(self) -> Mapping[int, TableName]:
        return {}

    @property
    def apart(self) -> Mapping[TableName, Standing]:
        return {}

    @property
    def meant(self) -> list[TableSchema]:
        return []

    @property
    def is_complete(self) -> bool:
        return True

    def _segments(self) -> list[Segment]:
        return [*self._copied, *(step for step in self._script if isinstance(step, Segment))]

    def open(self, resume: Checkpoint | None) -> None:
        self.opened.append(resume)
        self._at = 0
        if resume is None:
            return
        for index, step in enumerate(self._script):
            if (
                isinstance(step, Segment)
                and step.checkpoint is not None
                and step.checkpoint.position <= resume.position
            ):
                self._at = index + 1
        self._at = max(0, self._at - self._overlap)

    def copy(self, link: Link) -> Iterator[Segment]:
        if self.opened[-1] is None:
            yield from self._give(self._copied, link)

    def stream(self, link: Link) -> Iterator[Segment]:
        self._link = link
        rest = self._script[self._at :]
        for index, step in enumerate(rest, self._at):
            if isinstance(step, Exception):
                del self._script[index]
                raise step
            yield from self._give([step], link)

    def _give(self, segments: Sequence[Segment], link: Link) -> Iterator[Segment]:
        self._link = link
        for segment in segments:
            self._look()
            while link.paused and not link.stopping:
                self._look()
                self._sleep(_POLL)
            if link.stopping:
                return
            yield segment

    def _look(self) -> None:
        """Read what is durable, which is all that a source could acknowledge."""
        durable = self._link.durable if self._link is not None else None
        if durable is not None and durable not in self.acknowledged[-1:]:
            self.acknowledged.append(durable)

    def close(self) -> None:
        self._look()
        self._link = None
