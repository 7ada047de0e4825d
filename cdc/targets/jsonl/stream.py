"""Events as lines on an open stream, for as long as somebody reads them."""

from __future__ import annotations

import array
import fcntl
import os
import select
import stat
import termios
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
import pyarrow as pa

from cdc.errors import Unavailable
from cdc.formats import ALL, Chosen, Format, Shapes
from cdc.model.position import Checkpoint
from cdc.model.segment import Segment, beyond, split

_POLL = 0.002  # seconds between looks whether a pipe is empty
_PATIENCE = 1.0  # seconds for a reader who takes nothing, once the end was asked for


class Output(Protocol):
    """Where lines go."""

    def write(self, lines: bytes | pa.Buffer) -> None:
        """Write all of them, and wait until they are taken; raises if they are not."""


class Taken:
    """A file, a terminal or a pipe. What is in a pipe when its reader dies is lost, so that nobody has taken it yet.

    Args:
        descriptor: of what is open. Python's own object may write less than it is given (PYTHONUNBUFFERED).
        is_running: whether nobody has asked for the end.
    """

    def __init__(self, descriptor: int, is_running: Callable[[], bool]) -> None:
        self._descriptor = descriptor
        self._is_running = is_running
        self._is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        self._moved = 0.0  # when something was taken last

    def write(self, lines: bytes | pa.Buffer) -> None:
        """Write all of them, and wait until they are taken.

        Raises:
            BrokenPipeError: the reader has gone, and has not taken all.
            Unavailable: the end was asked for, and the reader takes nothing.
        """
        self._moved = time.monotonic()
        left, unread = memoryview(lines), 0
        while left:
            while not select.select([], [self._descriptor], [], _POLL)[1]:
                self._mind_the_end()
            # A pipe that can be written to has room for so much; more of it would wait, whatever was asked for.
            left = left[os.write(self._descriptor, left[: select.PIPE_BUF] if self._is_pipe else left) :]
            self._moved = time.monotonic()
        while self._is_pipe and (now := self._unread()):
            if now != unread:
                unread, self._moved = now, time.monotonic()
            self._mind_the_end()
            time.sleep(_POLL)

    def _unread(self) -> int:
        """Bytes that nobody has read yet; raises BrokenPipeError if nobody will."""
        count = array.array("i", [0])
        fcntl.ioctl(self._descriptor, termios.FIONREAD, count)
        poll = select.poll()
        poll.register(self._descriptor, 0)
        if count[0] and poll.poll(0):  # an error: there is no reader any more
            raise BrokenPipeError
        return count[0]

    def _mind_the_end(self) -> None:
        if not self._is_running() and time.monotonic() - self._moved > _PATIENCE:
            raise Unavailable("The reader of the lines reads nothing. The lines that it has not read come again.")


class StreamTarget:
    """Writes each event as one line, in commit order, and remembers for as long as it lives how far it is.

    Args:
        make_format: makes the format of the events; it is called again whenever the source is opened again.
        chosen: which of them.
        since: microseconds since the Unix epoch; transactions that were committed before, up to the first that was not,
            are left out.
    """

    def __init__(
        self, output: Output, make_format: Callable[[], Format], chosen: Chosen = ALL, since: int | None = None
    ) -> None:
        self._output = output
        self._make_format = make_format
        self._chosen = chosen
        self._since = since
        self._format: Format
        self._checkpoint: Checkpoint | None = None
        self._shapes = Shapes({})

    def open(self) -> Checkpoint | None:
        self._format = self._make_format()
        return self._checkpoint

    def apply(self, segment: Segment) -> None:
        at = self._checkpoint.position.order if self._checkpoint is not None else 0
        new = beyond(segment, at)
        if new is not None:
            late = self._late_enough(new)
            self._output.write(self._format.encode(late, self._chosen, self._shapes.new_in(late)).lines())
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
