"""Copies of tables as of some moment, which take their time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from cdc.model.change import ABSENT, ChangeBatch, Op, Rows
from cdc.model.schema import TableSchema
from cdc.source import Link
from tests.simulation.history import History
from tests.simulation.world import World


class Server(Protocol):
    """What copies need of a scripted server."""

    world: World
    history: History

    def committed(self) -> int:
        """How many transactions are committed now."""


def copy_tables(
    server: Server, number: int, tables: Sequence[tuple[int, Any]], link: Link, copied: Callable[..., Any]
) -> Iterator[Any]:
    """Rows in batches of any size, and the end of each table.

    Args:
        number: how many transactions the snapshot sees.
        tables: each with its number in the history.
        copied: the connector's own class for what happens.
    """
    world, history = server.world, server.history
    for oid, table in tables:
        version = history.states[number][oid]
        rows = [version.shape.row(values) for values in version.rows]
        # What is truncated or rewritten cannot be read any more, by a snapshot from before that either.
        while rows and not link.stopping and not history.has_reshaped(oid, number, server.committed()):
            count = world.rng.randint(1, len(rows))
            yield copied(table, _batch(table.schema, rows[:count]))
            rows = rows[count:]
            world.sleep(world.rng.choice([0.0, 0.001, 0.4]))
        if link.stopping:
            return
        changed = history.has_reshaped(oid, number, server.committed())
        world.coverage["outcome: changed while copied" if changed else "outcome: copied"] += 1
        yield copied(table, None, intact=not changed)


def _batch(schema: TableSchema, rows: list[tuple[str | None, ...]]) -> ChangeBatch:
    """Rows of a snapshot."""
    count = len(rows)
    columns = tuple(pa.array(column, pa.string_view()) for column in zip(*rows, strict=True))
    return ChangeBatch(
        schema=schema,
        op=np.full(count, Op.INSERT, dtype=np.uint8),
        transaction=np.zeros(count, dtype=np.int32),
        ordinal=np.arange(count, dtype=np.int64),
        after=Rows(columns, (None,) * len(columns)),
        after_row=np.arange(count, dtype=np.int64),
        before=None,
        before_row=np.full(count, ABSENT, dtype=np.int64),
        copied=True,
        size=20 * count,
    )
