"""A binlog dump as segments: reading, back-pressure, and noticing that nobody talks any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from cdc import faults
from cdc.errors import DecodeError, Unavailable
from cdc.model.change import Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.segment import Segment, bytes_held, fitting
from cdc.source import Head, Link
from cdc.sources.mysql.binlog import Decoder
from cdc.sources.mysql.connection import Connection, server_error
from cdc.sources.mysql.events import Event
from cdc.sources.mysql.framing import Framer, ServerSaid
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.slices import Events
from cdc.sources.mysql.transactions import event_end
from cdc.waiting import MACHINE, Waiting

HEARTBEAT_EVERY = 1.0  # seconds of silence after which the server says that it is there
SILENT_FOR = 15.0  # seconds of silence after which it is taken for gone (B-12)
# Seconds that the server waits for somebody to read on before it gives a dump up. MariaDB lets every new dump of a
# pipeline wait for the end of the one before, which may be a dead line that nobody will ever read from (B-12).
UNREAD_FOR = 120
# Bytes, and how many times in that span: both ends let the other know of room only when a good part of their buffers,
# which may have grown to some megabytes, is free.
_SIP, _SIPS = 512 << 10, 12
_TRICKLE = 64 << 10  # bytes that show in this time, even without a whole event, that one is on its way
_READ = 1 << 20
_TICK_EVERY = 1.0  # seconds
_HURRIED_TICK_EVERY = 0.1  # where a run has a goal, for which tables may have to come first
_IDLE_CHECKPOINT_EVERY = 10.0  # seconds between checkpoints that only move the position
_GATHER = 0.0005  # seconds to let the server fill the socket
_FIRST = 4  # part of the budget that is taken before it is known what it becomes in memory
_POLL = 0.002  # seconds between looks at the applier while rows wait for it
_LITTLE = 64 << 10  # bytes: less than this goes to an idle applier at once
_PATIENCE = 0.25  # seconds that more than that may wait for what comes behind it
_LULL = 0.05  # seconds without anything new, after which it waits no longer
_WAIT = 0.1  # seconds to wait for the server when there is nothing to do
_ENDS, _HEARTBEATS = np.zeros((2, 256), dtype=bool)
_ENDS[[Event.XID, Event.QUERY, Event.XA_PREPARE]] = True  # with which a transaction may end
_HEARTBEATS[[Event.HEARTBEAT, Event.HEARTBEAT_V2]] = True


class BinlogStream:
    """One dump as segments.

    Args:
        connection: on which the dump was asked for.
        fetch: gets the row events of a transaction of some name that was prepared at a place of the log.
    """

    def __init__(
        self,
        connection: Connection,
        framer: Framer,
        decoder: Decoder,
        budget: int,
        fetch: Callable[[str, LogPlace], list[bytes]],
        waiting: Waiting = MACHINE,
    ) -> None:
        self._connection = connection
        self._framer = framer
        self._decoder = decoder
        self._most = budget
        self._budget = budget // _FIRST
        self._fetch = fetch
        self._waiting = waiting
        self._events: list[Events] = []  # in runs, as they came
        self._size = 0
        self._has_end = False
        self._waiting_since = 0.0
        self._heard = self._waiting.now()
        self._trickled = 0  # bytes since then
        self._taken = self._heard
        self._ticked = 0.0
        self.head: Head | None = None

    def segments(
        self, link: Link, checkpoint: Callable[[Position], Checkpoint], after: Position, tick: Callable[[], bool]
    ) -> Iterator[Segment]:
        """Segments until `link.stopping`.

        Small ones go at once while the applier is idle; while it is busy they grow, up to the budget.

        Args:
            link: what is known of the applier.
            checkpoint: makes the checkpoint for the end of a segment.
            after: where the dump started.
            tick: called about every second; may raise. Says whether it wants to be given a checkpoint soon, even if
                nothing has happened.
        """
        emitted = after
        last_checkpoint = self._waiting.now()
        wanted = False  # a checkpoint, whether anything has happened or not
        while not link.stopping:
            link.alive()
            now = self._waiting.now()
            if now - self._ticked >= (_TICK_EVERY if link.goal is None else _HURRIED_TICK_EVERY):
                self._ticked = now
                faults.point("stream.tick")
                wanted = tick() or wanted
            has_more = self._size < self._budget and self._read(link)
            if link.paused:
                self._heard = self._waiting.now()
                if self._size >= self._budget:
                    self._sip()
                    self._waiting.sleep(_POLL)
                continue
            segment = None
            if self._has_end and (self._size >= self._budget or (link.idle and not self._gathers(has_more))):
                segment = self._decode(checkpoint, allow_part=False)
            elif self._size >= self._budget:
                segment = self._decode(checkpoint, allow_part=True)
            elif self._events and not self._has_end and not self._decoder.inside_transaction and link.idle:
                self._decode(checkpoint, allow_part=False)  # events between transactions: another file, most likely
            if segment is None and self._is_quiet(link) and (wanted or self._decoder.place.order > emitted.order):
                waited = self._waiting.now() - last_checkpoint >= _IDLE_CHECKPOINT_EVERY
                if link.goal is not None or waited or wanted:
                    # A dump by GTIDs begins with the head of the file, which lies before the place that it goes on at.
                    at = max(emitted, self._decoder.place.position())
                    segment = Segment([], Transactions.none(), checkpoint(at))
            if segment is not None:
                if segment.checkpoint is not None:
                    wanted = False
                    emitted = segment.checkpoint.position
                    last_checkpoint = self._waiting.now()
                faults.point("stream.segment")
                yield segment

    def _gathers(self, has_more: bool) -> bool:
        """Whether to let rows pile up although the applier is idle: a stream that flows is merged in larger pieces."""
        return has_more and self._size > _LITTLE and self._waiting.now() - self._waiting_since < _PATIENCE

    def _is_quiet(self, link: Link) -> bool:
        return not self._events and not self._decoder.inside_transaction and link.idle

    def _decode(self, checkpoint: Callable[[Position], Checkpoint], *, allow_part: bool) -> Segment | None:
        faults.point("stream.before_decode")
        with self._advised():
            events = Events.joined(self._events)
            decoded = self._decoder.decode(events, allow_part=allow_part)
        size = self._size
        rest = events[decoded.consumed :]
        self._events = [rest] if len(rest) else []
        if decoded.wanted is not None:
            self._events = [rest[:1], Events.of(self._fetch(*decoded.wanted)), rest[1:]]
            self._decoder.supply(decoded.wanted[0])
        self._size = sum(int(run.length.sum()) for run in self._events)
        self._has_end = decoded.wanted is not None
        self._waiting_since = self._waiting.now()
        if not len(decoded.transactions):
            return None
        faults.point("stream.before_checkpoint")
        held, log = bytes_held(decoded.steps), max(size - self._size, 0)
        self._budget = fitting(self._most, log, held)
        at = checkpoint(decoded.end) if decoded.end is not None else None
        return Segment(decoded.steps, decoded.transactions, at, max(held, log))

    @contextmanager
    def _advised(self) -> Iterator[None]:
        """What is not understood is shown to somebody else."""
        try:
            yield
        except DecodeError as error:
            advice = (
                f"`cdc check SOURCE --log {self._decoder.place.file}` says what another decoder makes of that file."
            )
            error.hint = f"{error.hint} {advice}" if error.hint else advice
            raise

    def _read(self, link: Link) -> bool:
        """Take what the server has sent, up to the budget, and say whether there was anything."""
        if self._size < _LITTLE and (rest := link.rest):
            self._waiting.sleep(min(rest, _WAIT))  # what comes meanwhile is taken at once, not commit by commit (O50)
        if not self._is_readable(0):
            if not self._is_readable(self._worth_waiting(link)):
                self._mind_the_silence()
                return False
        elif self._size:
            self._waiting.sleep(_GATHER)
        if not self._size:
            self._waiting_since = self._waiting.now()
        while self._size < self._budget:
            self._take_read()
            if not self._is_readable(0):
                break
        self._mind_the_silence()
        return True

    def _take_read(self) -> None:
        """Take about so much at a time that it stays in the processor's cache; TLS hands over 16 KB at once."""
        pieces: list[bytes] = []
        size = 0
        try:
            while size < _READ and (not pieces or self._is_readable(0)):
                pieces.append(self._connection.receive(_READ))
                size += len(pieces[-1])
        finally:  # what the server said before it closed the connection may be why it did
            if pieces:
                self._take(b"".join(pieces))

    def _sip(self) -> None:
        """A target may take longer for what it has than the server waits for us to read on."""
        if self._waiting.now() - self._taken > UNREAD_FOR / _SIPS and self._is_readable(0):
            self._take(self._connection.receive(_SIP))

    def _mind_the_silence(self) -> None:
        """Whole events are a sign of life. A length that was damaged on the way would have us wait for an event that
        heartbeats do not fill in hours."""
        if self._waiting.now() - self._heard > SILENT_FOR:
            raise Unavailable(
                f"{self._connection.dsn}: the server has said nothing that can be read for {SILENT_FOR:.0f} s.",
                hint="The connection is dead, or something between drops or damages data. It is opened again.",
            )

    def _is_readable(self, wait: float) -> bool:
        socket = self._connection.socket
        pending = getattr(socket, "pending", None)  # decrypted already, so that select does not know of it
        return bool((pending is not None and pending()) or self._waiting.readable(socket, wait))

    def _worth_waiting(self, link: Link) -> float:
        """Seconds to wait for the server, by what else there is to do."""
        if not self._has_end:
            return _POLL if self._events and link.idle else _WAIT
        if link.idle:
            return _LULL if self._size > _LITTLE else 0
        return max(_POLL, min(link.rest, _WAIT))

    def _take(self, data: bytes) -> None:
        try:
            with self._advised():
                events = self._framer.feed(data)
        except ServerSaid as said:
            raise server_error(said.code, said.message, self._connection.dsn) from said
        self._taken = self._waiting.now()
        self._trickled += len(data)
        if len(events) or self._trickled >= _TRICKLE:
            self._heard, self._trickled = self._taken, 0
        kind = events.kind
        if (beats := _HEARTBEATS[kind]).any():
            events, kind = events.chosen(~beats), kind[~beats]
        if not len(events):
            return
        self._events.append(events)
        self._size += int(events.length.sum())
        self._has_end = self._has_end or bool(_ENDS[kind].any())
        last = events[-1]
        if event_end(last):
            clock = int.from_bytes(last[:4], "little") * 1_000_000
            self.head = Head(self._decoder.place.near(event_end(last)).position(), clock)

    def close(self) -> None:
        """End the session; the server notices when it writes next."""
        self._connection.close()
