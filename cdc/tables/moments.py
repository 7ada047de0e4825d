"""When changes were committed, as Arrow columns: what a version of a row is stamped with."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from cdc.model.arrays import take
from cdc.model.change import Transactions
from cdc.model.position import Position

MOMENT = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class Moments:
    """The transactions that changes refer to; or the one moment of a copy, which is of no transaction.

    Attributes:
        order: int64[n], places in the log.
        transactions: None for a copy, of which all that is known is where in the log it is.
        place: of the copy.
        read_at: when that was, in microseconds since the Unix epoch; None for just now.
    """

    order: np.ndarray
    transactions: Transactions | None = None
    place: Position | None = None
    read_at: int | None = None

    @classmethod
    def of(cls, transactions: Transactions) -> Moments:
        """Those of a segment."""
        return cls(transactions.order, transactions)

    @classmethod
    def copied(cls, place: Position, read_at: int | None) -> Moments:
        """That of rows that were read at a place in the log. The time is that of the machine that read them, in whole
        seconds: a source may have no finer ones, and what it commits afterwards must not seem to be earlier."""
        return cls(np.array([place.order], dtype=np.int64), None, place, read_at)

    @cached_property
    def columns(self) -> tuple[pa.Array, pa.Array, pa.Array, pa.Array]:
        """Order, position, time and the source's number of each."""
        if (known := self.transactions) is None:
            at = self.read_at if self.read_at is not None else int(time.time() * 1e6)
            now = pa.array([at // 1_000_000 * 1_000_000], MOMENT)
            text = self.place.text if self.place is not None else ""
            return pa.array(self.order), pa.array([text]), now, pa.nulls(1, pa.int64())
        texts = pa.array([known.write(order) for order in known.order.tolist()], pa.string())
        return pa.array(known.order), texts, pa.array(known.committed_at).cast(MOMENT), pa.array(known.identity)

    def at(self, index: np.ndarray) -> list[pa.Array]:
        """These columns at some of the moments (int64[m]); null where negative."""
        return [take(column, index) for column in self.columns]
