"""What events say of their transactions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc.formats.text import escaped, joined, numbers
from cdc.model.arrays import LARGE
from cdc.model.change import Transactions
from cdc.model.segment import Changes, Segment, Truncate

UNKNOWN = -1  # total of a transaction that goes on in the next segment


class Totals:
    """Counts the changes of transactions, one segment after the other."""

    def __init__(self) -> None:
        self._open: tuple[int, int] | None = None  # the order of the last commit, and its changes so far

    def of(self, segment: Segment) -> np.ndarray:
        """int64[n]: for each transaction of a segment how many changes it has, or UNKNOWN."""
        order = segment.transactions.order
        totals = np.zeros(len(order), dtype=np.int64)
        for step in segment.steps:
            if isinstance(step, Changes) and not step.batch.copied:
                np.maximum.at(totals, step.batch.transaction, step.batch.ordinal + 1)
            elif isinstance(step, Truncate):
                totals[step.transaction] = max(totals[step.transaction], step.ordinal + 1)
        if not len(order):
            return totals
        if self._open is not None and self._open[0] == order[0]:
            totals[0] = max(totals[0], self._open[1])
        self._open = None
        if segment.checkpoint is None:
            self._open = int(order[-1]), int(totals[-1])
            totals[-1] = UNKNOWN
        return totals


@dataclass(frozen=True, slots=True)
class Described:
    """Transactions as text, arrays of one length.

    Attributes:
        texts: their positions.
        position: the same as they stand in a JSON string.
        number: int64[n], the source's numbers for them.
        identity: the same as text.
        committed_at: ISO 8601, in UTC, with microseconds.
    """

    texts: list[str]
    position: pa.Array
    number: np.ndarray
    identity: pa.Array
    committed_at: pa.Array


def described(transactions: Transactions) -> Described:
    """The texts of transactions."""
    positions = [transactions.write(order) for order in transactions.order.tolist()]
    return Described(
        positions,
        escaped(pa.array(positions, LARGE)),
        transactions.identity,
        numbers(transactions.identity),
        moments(transactions.committed_at),
    )


def moments(microseconds: np.ndarray) -> pa.Array:
    """Microseconds since the Unix epoch as `2024-12-31T23:59:59.123456+00:00`."""
    text = pa.array(microseconds, pa.int64()).cast(pa.timestamp("us")).cast(LARGE)
    return joined(pc.binary_replace_slice(text, 10, 11, "T"), "+00:00")
