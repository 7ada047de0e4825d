"""The replication stream: the copy-both loop over libpq, keepalives and feedback.

psycopg has no replication API, so this speaks to its `pq` layer.
https://www.postgresql.org/docs/current/protocol-replication.html
"""

from __future__ import annotations

import select
import struct
import time
from collections.abc import Callable, Iterator

import psycopg
from psycopg import pq, sql

from cdc import faults
from cdc.errors import DecodeError, Unavailable
from cdc.model.change import Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.segment import Segment
from cdc.source import Head, Link
from cdc.sources.postgres.connection import Dsn, classify, server_error
from cdc.sources.postgres.pgoutput import HEADER, Decoder
from cdc.sources.postgres.position import EPOCH, lsn

_DATA, _KEEPALIVE = ord("w"), ord("k")
_COMMIT, _MESSAGE = ord("C"), ord("M")
_FEEDBACK_EVERY = 1.0  # seconds; wal_sender_timeout is a minute by default and rarely under two seconds
_TICK_EVERY = 1.0  # seconds
_IDLE_CHECKPOINT_EVERY = 10.0  # seconds between checkpoints that only move the position
_ASK_EVERY = 0.05  # seconds between requests for a keepalive while a run has a goal
_GATHER = 0.0005  # seconds to let the server fill the socket: without it reads of a few rows cost most of the time
_POLL = 0.002  # seconds between looks at the applier while rows wait for it
_LITTLE = 64 << 10  # bytes: less than this goes to an idle applier at once
_PATIENCE = 0.25  # seconds that more than that may wait for what comes behind it: a few large merges beat many small
_LULL = 0.05  # seconds without anything new, after which it waits no longer
_WAIT = 0.1  # seconds to wait for the server when there is nothing to do


class ReplicationStream:
    """One START_REPLICATION session as segments."""

    def __init__(
        self,
        connection: psycopg.Connection[tuple[object, ...]],
        dsn: Dsn,
        decoder: Decoder,
        budget: int,
    ) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._dsn = dsn
        self._decoder = decoder
        self._budget = budget
        self._messages: list[bytes] = []
        self._size = 0
        self._has_commit = False
        self._waiting_since = 0.0
        self._received = 0  # end of the WAL that the server has read for us
        self.head: Head | None = None  # as the newest message has it
        self._nothing_before = 0  # the server had nothing for us before this LSN, by its last keepalive
        self._reply_wanted = False
        self._fed_back = 0.0
        self._asked = 0.0
        self._ticked = 0.0

    def start(self, slot: str, publications: list[str], after: Position) -> None:
        """Take the slot and ask for what was committed after a position.

        Raises:
            SlotBusy: another session reads from it.
            OperatorNeeded: the slot, the publication or the WAL is gone.
        """
        version = self._connection.info.server_version
        names = ",".join('"' + name.replace('"', '""') + '"' for name in publications)
        options = [f"proto_version '1', publication_names {sql.Literal(names).as_string(self._connection)}"]
        if version >= 140000:
            options.append("messages 'true'")  # the heartbeat's
        slot_name = sql.Identifier(slot).as_string(self._connection)
        command = f"START_REPLICATION SLOT {slot_name} LOGICAL {after.text} ({', '.join(options)})"
        result = self._pgconn.exec_(command.encode())
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise classify(server_error(result), self._dsn)
        self._pgconn.nonblocking = 1
        self._received = after.order

    def segments(
        self, link: Link, checkpoint: Callable[[Position], Checkpoint], after: Position, tick: Callable[[], None]
    ) -> Iterator[Segment]:
        """Segments until `link.stopping`.

        Small ones go at once while the applier is idle; while it is busy they grow, up to the budget.

        Args:
            link: what is known of the applier.
            checkpoint: makes the checkpoint for the end of a segment.
            after: where the stream started.
            tick: called about every second; may raise.
        """
        emitted = after
        last_checkpoint = time.monotonic()
        while not link.stopping:
            self._keep_talking(link, tick)
            has_more = self._size < self._budget and self._read(link)
            if link.paused:
                if self._size >= self._budget:
                    time.sleep(_POLL)
                continue
            segment = None
            if self._has_commit and (self._size >= self._budget or (link.idle and not self._gathers(has_more))):
                segment = self._decode(checkpoint, allow_part=False)
            elif self._size >= self._budget:
                segment = self._decode(checkpoint, allow_part=True)
            elif self._is_quiet(link, emitted):
                now = time.monotonic()
                if link.goal is not None or self._reply_wanted or now - last_checkpoint >= _IDLE_CHECKPOINT_EVERY:
                    segment = Segment([], Transactions.none(), checkpoint(lsn(self._nothing_before)))
            if segment is not None:
                if segment.checkpoint is not None:
                    emitted = segment.checkpoint.position
                    last_checkpoint = time.monotonic()
                faults.point("stream.segment")
                yield segment

    def _gathers(self, has_more: bool) -> bool:
        """Whether to let rows pile up although the applier is idle: a stream that flows is merged in larger pieces."""
        return has_more and self._size > _LITTLE and time.monotonic() - self._waiting_since < _PATIENCE

    def _is_quiet(self, link: Link, emitted: Position) -> bool:
        """Nothing is in flight and the server has read further: the position may move without any row (A-06)."""
        in_flight = self._messages or self._decoder.inside_transaction or not link.idle
        return not in_flight and link.durable in (None, emitted) and self._nothing_before > emitted.order

    def _decode(self, checkpoint: Callable[[Position], Checkpoint], *, allow_part: bool) -> Segment:
        decoded = self._decoder.decode(self._messages, allow_part=allow_part)
        size = self._size
        self._messages = self._messages[decoded.consumed :]
        self._size = sum(map(len, self._messages))
        self._has_commit = False
        self._waiting_since = time.monotonic()
        at = checkpoint(decoded.end) if decoded.end is not None else None
        return Segment(decoded.steps, decoded.transactions, at, size - self._size)

    def _read(self, link: Link) -> bool:
        """Take what the server has sent, up to the budget, and say whether there was anything."""
        ready, _, _ = select.select([self._pgconn.socket], [], [], 0)
        if not ready:
            ready, _, _ = select.select([self._pgconn.socket], [], [], self._worth_waiting(link))
            if not ready:
                return False
        elif self._size:
            time.sleep(_GATHER)
        if not self._size:
            self._waiting_since = time.monotonic()
        # libpq reads no more at a time than its buffer holds (16 kB), so that one pause is followed by many reads.
        while ready and self._size < self._budget:
            try:
                self._pgconn.consume_input()
            except psycopg.OperationalError as error:
                raise classify(error, self._dsn) from error
            self._drain()
            ready, _, _ = select.select([self._pgconn.socket], [], [], 0)
        return True

    def _worth_waiting(self, link: Link) -> float:
        """Seconds to wait for the server, by what else there is to do."""
        if not self._has_commit:
            return _ASK_EVERY if link.goal is not None else _WAIT
        if link.idle:
            return _LULL if self._size > _LITTLE else 0
        return _POLL

    def _drain(self) -> None:
        """Sort out what libpq has buffered."""
        get, append = self._pgconn.get_copy_data, self._messages.append
        size, budget, has_commit = self._size, self._budget, self._has_commit
        while size < budget:
            length, data = get(1)
            if length <= 0:
                if length < 0:
                    self._raise_end()
                break
            message = bytes(data)
            if message[0] == _DATA:
                if message[HEADER] == _MESSAGE and not message[HEADER + 1]:
                    continue  # not part of a transaction, so that no commit would ever take it away
                append(message)
                size += length
                if message[HEADER] == _COMMIT:
                    has_commit = True
            elif message[0] == _KEEPALIVE:
                self._size, self._has_commit = size, has_commit
                self._keepalive(message)
            else:
                raise DecodeError(f"The server sent an unknown kind of copy message, 0x{message[0]:02X}.")
        if size != self._size:
            end, clock = struct.unpack_from(">Qq", self._messages[-1], 9)
            self.head = Head(lsn(end), clock + EPOCH)
        self._size, self._has_commit = size, has_commit

    def _keepalive(self, message: bytes) -> None:
        """A keepalive comes after all data before its position, so that with nothing pending we have all of it."""
        end, clock, reply = struct.unpack_from(">QqB", message, 1)
        self.head = Head(lsn(end), clock + EPOCH)
        self._received = max(self._received, end)
        if not self._messages and not self._decoder.inside_transaction:
            self._nothing_before = max(self._nothing_before, end)
        self._reply_wanted = self._reply_wanted or bool(reply)

    def _raise_end(self) -> None:
        """get_copy_data says -1 for an error as for an end; only the result tells which (A-32)."""
        result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            raise classify(server_error(result), self._dsn)
        raise Unavailable(f"{self._dsn}: the server ended the stream.", hint="It is shutting down or was told to.")

    def _keep_talking(self, link: Link, tick: Callable[[], None]) -> None:
        now = time.monotonic()
        if now - self._ticked >= _TICK_EVERY:
            self._ticked = now
            tick()
        ask = link.goal is not None and now - self._asked >= _ASK_EVERY
        if now - self._fed_back < _FEEDBACK_EVERY and not self._reply_wanted and not ask:
            return
        self._fed_back = now
        if ask:
            self._asked = now
        self._reply_wanted = False
        self.feed_back(link.durable, ask=ask)

    def feed_back(self, durable: Position | None, *, ask: bool = False) -> None:
        """Tell the server what is durable in the target, and nothing else (A-05). With `ask` it answers at once."""
        flushed = durable.order if durable is not None else 0
        clock = int(time.time() * 1_000_000) - EPOCH
        received = max(self._received, flushed)
        try:
            self._pgconn.put_copy_data(struct.pack(">cQQQqB", b"r", received, flushed, flushed, clock, ask))
            self._pgconn.flush()
        except psycopg.OperationalError as error:
            raise classify(error, self._dsn) from error

    def close(self) -> None:
        """End the session; the server lets go of the slot."""
        self._connection.close()
