"""Events as lines on an open stream, for as long as somebody reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from cdc.formats import ALL, Chosen, Format
from cdc.model.position import Checkpoint
from cdc.model.segment import Segment, beyond, split


class StreamTarget:
    """Writes each event as one line, in commit order, and remembers for as long as it lives how far it is.

    Args:
        make_format: makes how events are written; anew whenever the source is opened anew.
        chosen: which of them.
        since: microseconds since the Unix epoch; transactions that were committed before, up to the first that was not,
            are left out.
    """

    def __init__(
        self, output: BinaryIO, make_format: Callable[[], Format], chosen: Chosen = ALL, since: int | None = None
    ) -> None:
        self._output = output
        self._make_format = make_format
        self._chosen = chosen
        self._since = since
        self._format: Format
        self._checkpoint: Checkpoint | None = None

    def open(self) -> Checkpoint | None:
        self._format = self._make_format()
        return self._checkpoint

    def apply(self, segment: Segment) -> None:
        at = self._checkpoint.position.order if self._checkpoint is not None else 0
        new = beyond(segment, at)
        if new is not None:
            self._output.write(self._format.encode(self._late_enough(new), self._chosen).lines())
            self._output.flush()
            self._checkpoint = segment.checkpoint or self._checkpoint

    def _late_enough(self, segment: Segment) -> Segment:
        if self._since is None or not len(segment.transactions):
            return segment
        late = segment.transactions.committed_at >= self._since
        early = int(np.argmax(late)) if late.any() else len(late)
        if early < len(late):
            self._since = None
        return split(segment, early)[1]

    def close(self) -> None:
        """Nothing is held."""
