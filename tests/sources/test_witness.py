"""Which transaction a checkpoint remembers, so that another server is recognised by it (P19)."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import psycopg
import pytest

from cdc.model.change import Transactions
from cdc.sources.postgres.position import EPOCH, lsn
from cdc.sources.postgres.state import SourceState, Switch, Witness
from cdc.sources.postgres.witness import LastSeen, _begun, is_known

NONE = Transactions.none()


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.time = 100.0
        self.waiting: Any = SimpleNamespace(now=lambda: self.time)


def transaction(order: int) -> Transactions:
    return Transactions(np.array([order - 1, order]), np.array([6, order + 1]), np.array([8, order + 2]), str)


def made() -> tuple[SourceState, LastSeen, Clock]:
    clock = Clock()
    return SourceState("p", "s", "d", 2, "slot"), LastSeen(clock.waiting, ["a", "b"]), clock


def test_the_last_of_a_segment() -> None:
    """P19: with its number, its time, and the publications that it was read with."""
    state, seen, _ = made()
    assert seen.witness(state, lsn(50), NONE) is None
    assert seen.witness(state, lsn(60), transaction(55)) == Witness(55, 56, 57, 60, ("a", "b"))


def test_under_load_every_second() -> None:
    """P19: the first of a session at once, the others once a second; an idle checkpoint has the newest."""
    state, seen, clock = made()
    state.witness = seen.witness(state, lsn(60), transaction(55))
    state.witness = seen.witness(state, lsn(70), transaction(65))
    assert state.witness is not None
    assert state.witness.order == 55
    state.witness = seen.witness(state, lsn(80), NONE)
    assert state.witness == Witness(65, 66, 67, 80, ("a", "b"))
    clock.time += 1.1
    state.witness = seen.witness(state, lsn(90), transaction(85))
    assert state.witness == Witness(85, 86, 87, 90, ("a", "b"))


def test_the_first_of_a_session_after_an_idle_checkpoint() -> None:
    """P19: what a promoted server commits first is remembered, however soon after the first look at it."""
    state, seen, _ = made()
    state.witness = Witness(20, 1, 2, 30, ("a",))
    state.witness = seen.witness(state, lsn(50), NONE)
    assert state.witness == Witness(20, 1, 2, 50, ("a",))
    state.witness = seen.witness(state, lsn(60), transaction(55))
    assert state.witness == Witness(55, 56, 57, 60, ("a", "b"))


def test_how_far_there_is_no_other() -> None:
    """P19: an idle pipeline says so at its begin and every half minute, not with every position."""
    state, seen, clock = made()
    state.witness = seen.witness(state, lsn(60), transaction(55))
    clock.time += 29
    assert seen.witness(state, lsn(70), NONE) == state.witness
    clock.time += 2
    assert seen.witness(state, lsn(80), NONE) == Witness(55, 56, 57, 80, ("a", "b"))


def test_messages_that_are_cut_off() -> None:
    """E-16: whatever was damaged on the way is asked for again; it says nothing about the server."""
    whole = b"w" + bytes(24) + b"B" + bytes(20)
    assert list(_begun([b"k" + bytes(17), whole, b"w" + bytes(24) + b"R"], 5)) == [(0, 0, EPOCH)]
    for message in (b"k" + bytes(5), b"w" + bytes(20), whole[:-1]):
        with pytest.raises(psycopg.OperationalError):
            list(_begun([message], 5))


def test_thousands_of_tables_are_not_written_every_second() -> None:
    """P21: the state is as large as its tables are many."""
    state, seen, clock = made()
    state.tables = dict.fromkeys(range(5000), None)  # type: ignore[arg-type]
    state.witness = seen.witness(state, lsn(60), transaction(55))
    clock.time += 49
    assert seen.witness(state, lsn(70), transaction(65)) == state.witness
    assert seen.witness(state, lsn(70), NONE) == state.witness
    clock.time += 2
    assert seen.witness(state, lsn(80), NONE) == Witness(65, 66, 67, 80, ("a", "b"))


def test_what_a_slot_proves() -> None:
    """P19: only this pipeline reads from it, so that a place behind the witness is one that it came to itself."""
    state, _, _ = made()
    assert is_known(state, 0)
    state.witness = Witness(55, 56, 57, 60, ("a",))
    assert [is_known(state, confirmed) for confirmed in (0, 55, 59, 60, 61)] == [False, False, False, True, True]


def test_a_state_keeps_both() -> None:
    """P19: history and witness are in the checkpoint, and one of an older version has neither."""
    state, _, _ = made()
    state.history, state.witness = (Switch(1, 30),), Witness(55, 56, 57, 60, ("a", "b"))
    assert SourceState.load(state.dump()) == state
    older = replace(state, history=(), witness=None)
    text = older.dump().replace(',"history":[],"witness":null', "")
    assert "witness" not in text
    assert SourceState.load(text) == older
