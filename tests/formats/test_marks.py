"""Events that say what became of a table: where its changes are missing, and where it is no more."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cdc.formats import FormatSettings, make
from cdc.model.change import Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.segment import Drop, Gap, Segment
from tests.model.batches import table

SCHEMA = table(2, (0,))


def segment(*steps: Gap | Drop, commits: int = 2) -> Segment:
    orders = np.arange(1, commits + 1, dtype=np.int64) * 10
    transactions = Transactions(orders, orders, orders, str)
    return Segment(list(steps), transactions, Checkpoint(Position(100, "100"), ""))


@pytest.mark.parametrize("form", ["json", "cloudevents"])
def test_gaps_and_drops_are_emitted(form: str) -> None:
    """H4, H7: in the place of the log where they are, with identities that stay the same."""
    made = [
        make(form, FormatSettings("audit", "mysql")).messages(segment(Drop(SCHEMA, 1), Gap(SCHEMA, "why", 0)))
        for _ in range(2)
    ]
    first, again = ([json.loads(message.value or b"") for message in messages] for messages in made)
    assert first == again
    answer = [event["data"] if form == "cloudevents" else event for event in first]
    assert [(event["op"], event["position"], event["table"]) for event in answer] == [
        ("gap", "10", "s.t"),
        ("drop", "20", "s.t"),
    ]
    assert answer[0]["reason"] == "why"
    assert len({event["id"] for event in answer}) == 2


def test_what_the_log_does_not_place() -> None:
    """H7: PostgreSQL's catalog tells of a drop between two transactions."""
    (message,) = make("json", FormatSettings("audit", "postgresql")).messages(segment(Drop(SCHEMA), commits=0))
    event = json.loads(message.value or b"")
    assert (event["op"], event["position"], event["committed_at"]) == ("drop", "100", None)


def test_debezium_has_neither() -> None:
    """They are left out by name, and nothing else changes."""
    form = make("debezium", FormatSettings("audit", "mysql"))
    assert list(form.messages(segment(Drop(SCHEMA, 1), Gap(SCHEMA, "why", 0)))) == []
