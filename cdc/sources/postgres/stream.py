"""The replication stream: the copy-both loop over libpq, keepalives and feedback.

psycopg has no replication API, so this speaks to its `pq` layer.
https://www.postgresql.org/docs/current/protocol-replication.html
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import psycopg
from psycopg import pq

from cdc import faults
from cdc.errors import DecodeError, Unavailable
from cdc.model.change import Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.segment import Segment, bytes_held, fitting
from cdc.source import Head, Link
from cdc.sources.postgres.connection import Dsn, classify, mapped_errors, server_error
from cdc.sources.postgres.conversation import LINE_IS_DEAD, raise_end, start_command, status_update
from cdc.sources.postgres.pgoutput import Decoder
from cdc.sources.postgres.position import EPOCH, lsn
from cdc.sources.postgres.relation import HEADER
from cdc.sources.postgres.session import Session
from cdc.waiting import MACHINE, Waiting

_DATA, _KEEPALIVE = ord("w"), ord("k")
_KEEPALIVE_LENGTH = 18
_COMMIT, _MESSAGE, _ABORT = ord("C"), ord("M"), ord("A")
_FEEDBACK_EVERY = 1.0  # seconds; wal_sender_timeout is a minute by default and rarely under two seconds
_TICK_EVERY = 1.0  # seconds
_HURRIED_TICK_EVERY = 0.1  # where a run has a goal, for which tables may have to come and go first
_IDLE_CHECKPOINT_EVERY = 10.0  # seconds between checkpoints that only move the position
_QUIET_FOR = 10.0  # seconds without a byte after which the server is asked whether it is there
_ASKS = 3  # times that it is asked; by itself an idle server speaks only after half of wal_sender_timeout
_ASK_EVERY = 0.05  # seconds between requests for a keepalive while a run has a goal
_GATHER = 0.0005  # seconds to let the server fill the socket: without it reads of a few rows cost most of the time
_FIRST = 4  # part of the budget that is taken before it is known what it becomes in memory
_POLL = 0.002  # seconds between looks at the applier while rows wait for it
_LITTLE = 64 << 10  # bytes: less than this goes to an idle applier at once
_PATIENCE = 0.25  # seconds that more than that may wait for what comes behind it: a few large merges beat many small
_LULL = 0.05  # seconds without anything new, after which it waits no longer
_WAIT = 0.1  # seconds to wait for the server when there is nothing to do


class ReplicationStream:
    """One START_REPLICATION session as segments.

    Args:
        is_at_work: says whether the server's end of this session is busy with something, by another session.
    """

    def __init__(
        self,
        connection: Session,
        dsn: Dsn,
        decoder: Decoder,
        budget: int,
        is_at_work: Callable[[], bool],
        waiting: Waiting = MACHINE,
        *,
        acknowledges: bool = True,
    ) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._dsn = dsn
        self._decoder = decoder
        self._most = budget
        self._budget = budget // _FIRST
        self._waiting = waiting
        self._is_at_work = is_at_work
        self._acknowledges = acknowledges
        self._messages: list[bytes] = []
        self._size = 0
        self._has_commit = False
        # What libpq has read already no socket shows: more than fitted into the budget or, with the start of the
        # stream, even the error that ends it.
        self._is_left_over = True
        self._waiting_since = 0.0
        self._received = 0  # end of the WAL that the server has read for us
        self.head: Head | None = None  # as the newest message has it
        self._nothing_before = 0  # the server had nothing for us before this LSN, by its last keepalive
        self._reply_wanted = False
        self._fed_back = 0.0
        self._asked = 0.0
        self._ticked = 0.0
        self._wanted = False  # a checkpoint, whether anything has happened or not
        self._heard = self._waiting.now()  # when a byte came last, or the server was asked for one
        self._awaits_answer = False  # it was asked, and no whole message has come since
        self._unanswered = 0  # times that it was asked out of a silence since then

    def start(self, slot: str, publications: list[str], after: Position) -> None:
        """Take the slot and ask for what was committed after a position.

        Raises:
            SlotBusy: another session reads from it.
            OperatorNeeded: the slot, the publication or the WAL is gone.
        """
        command = start_command(self._connection, slot, publications, after)
        faults.point("stream.before_start")
        with mapped_errors(self._dsn):
            result = self._connection.run(command)
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise classify(server_error(result), self._dsn)
        faults.point("stream.started")
        self._pgconn.nonblocking = 1
        self._received = after.order

    def segments(
        self,
        link: Link,
        checkpoint: Callable[[Position, Transactions], Checkpoint],
        after: Position,
        tick: Callable[[], bool],
    ) -> Iterator[Segment]:
        """Segments until `link.stopping`.

        Small ones go at once while the applier is idle; while it is busy they grow, up to the budget.

        Args:
            link: what is known of the applier.
            checkpoint: makes the checkpoint for the end of a segment, whose transactions it is given.
            after: where the stream started.
            tick: called about every second; may raise. Says whether it wants to be given a checkpoint soon, even if
                nothing has happened.
        """
        emitted = after
        last_checkpoint = self._waiting.now()
        while not link.stopping:
            link.alive()
            self._keep_talking(link, tick)
            has_more = self._size < self._budget and self._read(link)
            if link.paused:
                self._heard = self._waiting.now()  # nobody listens
                if self._size >= self._budget:
                    self._waiting.sleep(_POLL)
                continue
            segment = None
            if self._has_commit and (self._size >= self._budget or (link.idle and not self._gathers(has_more))):
                segment = self._decode(checkpoint, allow_part=False)
            elif self._size >= self._budget:
                segment = self._decode(checkpoint, allow_part=True)
            elif self._is_quiet(link, emitted):
                now = self._waiting.now()
                if (
                    link.goal is not None
                    or self._reply_wanted
                    or self._wanted
                    or now - last_checkpoint >= _IDLE_CHECKPOINT_EVERY
                ):
                    segment = Segment(
                        [], Transactions.none(), checkpoint(lsn(self._nothing_before), Transactions.none())
                    )
            elif self._wanted and not self._messages and not self._decoder.inside_transaction:
                segment = Segment([], Transactions.none(), checkpoint(emitted, Transactions.none()))
            if segment is not None:
                if segment.checkpoint is not None:
                    self._wanted = False
                    emitted = segment.checkpoint.position
                    last_checkpoint = self._waiting.now()
                faults.point("stream.segment")
                yield segment

    def _gathers(self, has_more: bool) -> bool:
        """Whether to let rows pile up although the applier is idle: a stream that flows is merged in larger pieces."""
        return has_more and self._size > _LITTLE and self._waiting.now() - self._waiting_since < _PATIENCE

    def _is_quiet(self, link: Link, emitted: Position) -> bool:
        """Nothing is in flight and the server has read further: the position may move without any row (A-06)."""
        if self._messages or self._decoder.inside_transaction or self._nothing_before <= emitted.order:
            return False
        # Somebody who waits for a place in the log must hear of it even while the applier waits with him.
        return link.goal is not None or (link.idle and link.durable in (None, emitted))

    def _decode(self, checkpoint: Callable[[Position, Transactions], Checkpoint], *, allow_part: bool) -> Segment:
        faults.point("stream.before_decode")
        decoded = self._decoder.decode(self._messages, allow_part=allow_part)
        size = self._size
        self._messages = self._messages[decoded.consumed :]
        self._size = sum(map(len, self._messages))
        self._has_commit = False
        self._waiting_since = self._waiting.now()
        faults.point("stream.before_checkpoint")
        held, log = bytes_held(decoded.steps), size - self._size
        self._budget = fitting(self._most, log, held)
        at = checkpoint(decoded.end, decoded.transactions) if decoded.end is not None else None
        return Segment(decoded.steps, decoded.transactions, at, max(held, log))

    def _read(self, link: Link) -> bool:
        """Take what the server has sent, up to the budget, and say whether there was anything."""
        if self._size < _LITTLE and (rest := link.rest):
            self._waiting.sleep(min(rest, _WAIT))  # what comes meanwhile is taken at once, not commit by commit (O50)
        if not self._is_readable(0):
            if not self._is_readable(self._worth_waiting(link)):
                self._mind_the_silence(link)
                return False
        elif self._size:
            self._waiting.sleep(_GATHER)
        if not self._size:
            self._waiting_since = self._waiting.now()
        # libpq reads no more at a time than its buffer holds (64 kB), so that one pause is followed by many reads.
        while self._size < self._budget:
            try:
                self._pgconn.consume_input()
            except psycopg.OperationalError as error:
                raise classify(error, self._dsn) from error
            self._heard = self._waiting.now()
            self._drain()
            if not self._is_readable(0):
                break
        return True

    def _is_readable(self, wait: float) -> bool:
        return self._is_left_over or self._waiting.readable(self._pgconn.socket, wait)

    def _mind_the_silence(self, link: Link) -> None:
        """Ask the server whether it is there, and give it up if no whole message comes back.

        Its answer comes behind all that it sent before. So if that stays in pieces, it was damaged on the way: a line
        without TLS has nothing that would notice otherwise.
        """
        now = self._waiting.now()
        if now - self._heard < _QUIET_FOR:
            return
        self._heard = now
        if self._unanswered < _ASKS:
            self._unanswered += 1
            self.feed_back(link.durable, ask=True)
        elif self._is_at_work():
            self._unanswered = 0  # it is reading a large transaction of tables that are not followed
        else:
            raise Unavailable(
                f"{self._dsn}: the server has said nothing that can be read for {_QUIET_FOR * (_ASKS + 1):.0f} s.",
                hint=LINE_IS_DEAD,
            )

    def _worth_waiting(self, link: Link) -> float:
        """Seconds to wait for the server, by what else there is to do."""
        if not self._has_commit:
            return _ASK_EVERY if link.goal is not None else _WAIT
        if link.idle:
            return _LULL if self._size > _LITTLE else 0
        return max(_POLL, min(link.rest, _WAIT))

    def _drain(self) -> None:
        """Sort out what libpq has buffered."""
        get, append = self._pgconn.get_copy_data, self._messages.append
        size, budget, has_commit = self._size, self._budget, self._has_commit
        while size < budget:
            length, data = get(1)
            if length <= 0:
                if length < 0:
                    raise_end(self._connection, self._dsn)
                self._is_left_over = False
                break
            message = bytes(data)
            self._awaits_answer, self._unanswered = False, 0
            if length > HEADER and message[0] == _DATA:
                kind = message[HEADER]
                if kind == _ABORT or (kind == _MESSAGE and message[HEADER + 1 : HEADER + 2] == b"\0"):
                    continue  # not part of a transaction, so that no commit would ever take it away
                append(message)
                size += length
                if kind == _COMMIT:
                    has_commit = True
            elif length == _KEEPALIVE_LENGTH and message[0] == _KEEPALIVE:
                self._size, self._has_commit = size, has_commit
                self._keepalive(message)
            else:
                raise DecodeError(
                    f"The server sent a copy message that is unknown or cut off: {length} bytes, 0x{message[:1].hex()}."
                )
        else:
            self._is_left_over = True
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

    def _keep_talking(self, link: Link, tick: Callable[[], bool]) -> None:
        now = self._waiting.now()
        if now - self._ticked >= (_TICK_EVERY if link.goal is None else _HURRIED_TICK_EVERY):
            self._ticked = now
            faults.point("stream.tick")
            self._wanted = tick() or self._wanted
        ask = link.goal is not None and not self._awaits_answer and now - self._asked >= _ASK_EVERY
        if now - self._fed_back < _FEEDBACK_EVERY and not self._reply_wanted and not ask:
            return
        self._fed_back = now
        if ask:
            self._asked = now
        self._reply_wanted = False
        faults.point("stream.before_feedback")
        self.feed_back(link.durable, ask=ask)

    def feed_back(self, durable: Position | None, *, ask: bool = False) -> None:
        """Tell the server what is durable in the target, and nothing else (A-05). With `ask` it answers at once."""
        self._awaits_answer = self._awaits_answer or ask
        flushed = durable.order if durable is not None and self._acknowledges else 0
        received = max(self._received, flushed)
        try:
            self._pgconn.put_copy_data(status_update(received, flushed, self._waiting.clock(), ask=ask))
            self._pgconn.flush()
        except psycopg.OperationalError as error:
            raise classify(error, self._dsn) from error

    def close(self) -> None:
        """End the session; the server lets go of the slot."""
        self._connection.close()
