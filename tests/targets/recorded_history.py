"""A small history, as a target makes it, whose commits have times of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np

from cdc.model.change import Op, Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableName, TableSchema
from cdc.model.segment import Changes, Reset, Segment
from cdc.tables.target import TableTarget
from cdc.target import Mode
from cdc.targets.duckdb.target import DuckDbTarget
from tests.model.batches import batch, table

ZONE = "America/New_York"
TIMES = {
    10: "2025-01-01 00:00:00+00",
    12: "2025-07-01 00:00:00+00",
    13: "2025-08-01 00:00:00+00",
    14: "2026-01-31 12:00:00+00",
    15: "2001-09-09 01:46:40+00",
}


def keep(path: Path, *, is_whole: bool = True) -> Path:
    """The history in a file."""
    fill(DuckDbTarget(path, 128 << 20, Mode.HISTORY), is_whole=is_whole)
    with duckdb.connect(str(path)) as connection:
        for order, time in TIMES.items():
            connection.execute(
                "UPDATE _cdc_history.commits SET committed_at = ?::TIMESTAMPTZ WHERE position_order = ?", [time, order]
            )
    return path


def fill(target: TableTarget, *, is_whole: bool = True) -> None:
    """Rows '1' to '4' of `s.t` came at 10 (a copy), 12, 14 and 15; `s.empty` has none; `s.late` is there from 13 on,
    and of `s.parted` all parts, if it is whole, at 15. The times are this machine's."""
    target.open()
    t, empty, late, parted = (_table(n, name) for n, name in enumerate(("t", "empty", "late", "parted"), 1))
    target.apply(Segment([Reset(t), Reset(empty), _rows(t, "1", copied=True)], Transactions.none(), _at(11, "0/A")))
    target.apply(Segment([_rows(t, "2")], _commits(12), _at(13, "0/D")))
    target.apply(Segment([Reset(late)], Transactions.none(), _at(14, "0/D")))
    target.apply(Segment([_rows(t, "3")], _commits(14), _at(15, "0/F")))
    target.apply(Segment([Reset(parted, by_parts=True)], Transactions.none(), _at(15, "0/F")))
    target.apply(Segment([_rows(t, "4")], _commits(15), _at(20, "0/14")))
    if is_whole:
        target.copied(parted)
    target.close()


def _table(identity: int, name: str) -> TableSchema:
    return replace(table(1, (0,)), identity=identity, table=TableName("s", name))


def _rows(schema: TableSchema, key: str, *, copied: bool = False) -> Changes:
    return Changes(replace(batch(schema, [(Op.INSERT, None, (key,))]), copied=copied))


def _commits(order: int) -> Transactions:
    orders = np.array([order], dtype=np.int64)
    return Transactions(orders, orders, orders, lambda at: f"0/{at:X}")


def _at(order: int, text: str) -> Checkpoint:
    return Checkpoint(Position(order, text), "{}")
