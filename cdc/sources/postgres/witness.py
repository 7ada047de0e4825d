"""Whether a server's log is the one that was followed, which the log itself is asked (P19).

Two standbys that were promoted from one place have the same system identifier, the same timeline number and the same
history file. So has a server that was set back to an older state and written to since. What they do not have is the
transaction that the target holds last: a checkpoint remembers it. A slot that was read beyond it is proof enough, since
only this pipeline reads from it. Otherwise the log is read from that transaction's commit on, which shows the server's
own transactions there.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from cdc.errors import CdcError, SlotBusy, SourceChanged, Unavailable
from cdc.model.position import Position
from cdc.sources.postgres.connection import Dsn, connect_replication, mapped_errors, server_error
from cdc.sources.postgres.conversation import LINE_IS_DEAD, raise_end, start_command, status_update
from cdc.sources.postgres.identity import (
    RESYNC,
    identify,
    is_at_work,
    verify_publications,
    verify_server,
    verify_slot,
)
from cdc.sources.postgres.position import EPOCH, lsn, write_lsn
from cdc.sources.postgres.relation import HEADER
from cdc.sources.postgres.session import Session
from cdc.sources.postgres.state import SourceState, Witness
from cdc.waiting import MACHINE, Waiting

if TYPE_CHECKING:  # `status` needs no arrays
    from cdc.model.change import Transactions

_IDLE_EVERY = 30.0  # seconds between two that are the same transaction: they only say how far there is no other
_EVERY = 1.0  # seconds between witnesses under load: the whole state is written with each
_TABLES_A_SECOND = 100  # that are written for this purpose: more of them, fewer witnesses
_DATA, _KEEPALIVE, _BEGIN = ord("w"), ord("k"), ord("B")
_ASK_EVERY = 0.1  # seconds
_PATIENCE = 40.0  # seconds without a byte from a server that is not at work


class LastSeen:
    """Chooses the witness of each checkpoint of a session.

    An idle checkpoint has the newest transaction. Under load there is a new one every second, with more than a hundred
    tables more rarely. The first of a session is remembered at once: after a promotion it is the first by which the new
    server differs from others.

    Args:
        publications: that the session reads.
    """

    def __init__(self, waiting: Waiting, publications: Iterable[str] = ()) -> None:
        self._waiting = waiting
        self._publications = tuple(publications)
        self._newest: Witness | None = None
        self._renewed = -math.inf

    def witness(self, state: SourceState, position: Position, transactions: Transactions) -> Witness | None:
        """The witness for a checkpoint at `position`.

        Args:
            state: as of the checkpoint before.
            transactions: those that this checkpoint is the first to hold.
        """
        pause = len(state.tables) / _TABLES_A_SECOND
        if len(transactions):
            pause = max(pause, _EVERY) if self._newest is not None else 0.0
            self._newest = Witness(
                order=int(transactions.order[-1]),
                transaction=int(transactions.identity[-1]),
                committed_at=int(transactions.committed_at[-1]),
                until=position.order,
                publications=self._publications,
            )
        newest = self._newest or state.witness
        if newest is None:
            return None
        if state.witness is not None and newest.order == state.witness.order:
            pause = max(pause, _IDLE_EVERY)
        now = self._waiting.now()
        if now - self._renewed < pause:
            return state.witness
        self._renewed = now
        return replace(newest, until=position.order)


def is_known(state: SourceState, confirmed: int) -> bool:
    """Whether a slot that was read up to `confirmed` (LSN) is proof enough, or nothing is known to ask for."""
    return state.witness is None or confirmed >= state.witness.until


def verify_witness(
    session: Session,
    dsn: Dsn,
    state: SourceState,
    confirmed: int,
    is_at_work: Callable[[], bool],
    goes_on: Callable[[], bool],
) -> None:
    """Refuse a server whose log does not have the transactions that were followed (P19).

    Takes the slot for as long as it reads, and acknowledges nothing.

    Args:
        session: a replication session, which can be used as before when this is done.
        confirmed: LSN up to which the slot was read.
        is_at_work: whether the server's end of the session is busy with something.
        goes_on: called again and again; if it says no, the answer is not waited for any more.

    Raises:
        SourceChanged: it has others there.
        SlotBusy: another session reads from the slot.
    """
    witness = state.witness
    if witness is None or is_known(state, confirmed):
        return
    start = max(confirmed, witness.order)
    known = (witness.order, witness.transaction, witness.committed_at)
    expected = [known] if start == witness.order else []
    with mapped_errors(dsn):
        result = session.run(start_command(session, state.slot, list(witness.publications), lsn(start)))
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise server_error(result)
        begun = _begun(_messages(session, dsn, is_at_work, goes_on), witness.until)
        found = list(islice(begun, len(expected) + 1))
        # The slot is free at once then, which it is not while a closed session ends.
        session.pgconn.put_copy_end()
        for _ in session.copied():
            goes_on()
        session.run_out()
    if found == expected or not goes_on():
        return
    held = f"the target holds transaction {known[1]}, which committed at {write_lsn(known[0])}; " if expected else ""
    other = next((there for there in found if there not in expected), None)
    there = (
        f"transaction {other[1]} at {write_lsn(other[0])}, which the target does not hold" if other else "none there"
    )
    raise SourceChanged(
        f"{dsn} has another history than the server that was followed: {held}this server has {there}.",
        hint="It was promoted beside the server that was followed, or was set back to an older state and written to "
        "since. Point the DSN at the server that was followed. If that is gone: " + RESYNC,
    )


def find_refusal(dsn: Dsn, connection: Session, state: SourceState, position: Position) -> CdcError | None:
    """Why a run could not go on at this server, if it could not. A slot that is in use tells nothing."""
    try:
        with connect_replication(dsn, "cdc status") as session:
            with mapped_errors(dsn):
                verify_server(state, position, identify(session, connection), dsn)
                if not position.order:
                    return None
                slot = verify_slot(state, position, connection, dsn)
                verify_publications(state, connection, dsn)
            reader = session.info.backend_pid
            verify_witness(
                session, dsn, state, slot.confirmed or 0, lambda: is_at_work(connection, reader), lambda: True
            )
    except SlotBusy:
        return None
    except CdcError as error:
        return error
    return None


def _begun(messages: Iterable[bytes], until: int) -> Iterator[tuple[int, int, int]]:
    """The transactions that committed before `until`: LSN of the commit, number, time."""
    for message in messages:
        try:
            at = struct.unpack_from(">Q", message, 1)[0] if message[0] == _KEEPALIVE else 0
            is_begin = message[0] == _DATA and message[HEADER] == _BEGIN
            order, clock, number = struct.unpack_from(">QqI", message, HEADER + 1) if is_begin else (at, 0, 0)
        except (struct.error, IndexError) as error:
            raise psycopg.OperationalError("a message of the log cannot be read") from error
        if order >= until:
            return
        if is_begin:
            yield order, number, clock + EPOCH


def _messages(
    session: Session, dsn: Dsn, is_at_work: Callable[[], bool], goes_on: Callable[[], bool]
) -> Iterator[bytes]:
    """What the server sends, which is asked again and again how far it is. Nothing is acknowledged by that."""
    pgconn = session.pgconn
    heard = MACHINE.now()
    while goes_on():
        pgconn.put_copy_data(status_update(0, 0, MACHINE.clock(), ask=True))
        pgconn.flush()
        if not MACHINE.readable(pgconn.socket, _ASK_EVERY):
            if MACHINE.now() - heard < _PATIENCE:
                continue
            if not is_at_work():
                raise Unavailable(f"{dsn}: the server has said nothing for {_PATIENCE:.0f} s.", hint=LINE_IS_DEAD)
        heard = MACHINE.now()
        pgconn.consume_input()
        while (got := pgconn.get_copy_data(1))[0] > 0:
            yield bytes(got[1])
        if got[0] < 0:
            raise_end(session, dsn)
