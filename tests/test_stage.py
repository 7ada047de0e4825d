"""The applying side: what is cut up for a look counts as one segment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from cdc.engine.handoff import Handoff
from cdc.engine.liveness import Watch
from cdc.engine.stage import Stage
from cdc.model.change import Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.segment import Segment
from cdc.observer import UNKNOWN
from cdc.testing import MemoryTarget


@dataclass
class Somewhere:
    """A look that does not tell what it has seen of the transactions up to some place."""

    until: Position
    is_exact: bool = False

    def sees(self, transactions: Transactions) -> np.ndarray:
        return np.full(len(transactions), UNKNOWN, dtype=np.int8)


def segment(*orders: int) -> Segment:
    order = np.array(orders, dtype=np.int64)
    transactions = Transactions(order, order, order * 1000, str)
    return Segment([], transactions, Checkpoint(Position(orders[-1] + 1, "end"), ""), 1)


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_nothing_is_late_after_a_look(looks: int) -> None:
    """O16: the last place of a look lies behind the last transaction of a segment, so that the rest of it has none: it
    is durable all the same, and the oldest commit that is not is the next one."""
    handoff, target = Handoff(1 << 20), MemoryTarget()
    target.open()
    stage = Stage(target, handoff, None, lambda _segment, _seconds: None, Watch().target)
    handoff.put(segment(10, 20))
    assert handoff.oldest == 10_000
    with stage.places(Somewhere(Position(21, "end"))) as places:
        for _ in range(looks):
            next(places)
    assert handoff.oldest is None
    handoff.put(segment(30))
    assert handoff.oldest == 30_000
    handoff.finish()
    stage.run()
    assert handoff.oldest is None
