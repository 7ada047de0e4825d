"""Inserts into ClickHouse that are cut off: what one place of the log appends is there together, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import OperationalError

from cdc.errors import Unavailable
from cdc.model.change import Op, Transactions
from cdc.model.segment import Changes, Reset, Segment
from cdc.tables.versioned.target import VersionedTarget
from cdc.target import TargetSettings
from cdc.targets.clickhouse import blocks, target_factory
from cdc.testing.batches import batch
from cdc.testing.conformance.work import at, keyed, transactions
from integration.clickhouse import PrivateClickHouse

_REST = ("a", "1", None, None, None)


@pytest.fixture(scope="module")
def house() -> Iterator[PrivateClickHouse]:
    with PrivateClickHouse() as server:
        yield server


@pytest.mark.parametrize("come", range(1, 6))
def test_a_key_that_moves_while_the_insert_is_cut(
    house: PrivateClickHouse, monkeypatch: pytest.MonkeyPatch, come: int
) -> None:
    """C-04, D-01: the old key goes with the row that has the new one, wherever the insert was cut between pieces."""
    place, table = f"cut{come}", keyed()

    def opened() -> VersionedTarget:
        dsn = house.dsn(place).removeprefix("clickhouse:")
        target = target_factory(dsn, TargetSettings("p", "postgresql", 1 << 28))()
        target.open()
        return target

    rows = replace(batch(table, [(Op.INSERT, None, (str(key), *_REST)) for key in range(3)]), copied=True)
    moves = [(Op.UPDATE, (str(key), *[None] * 5), (str(key + 10), *_REST)) for key in range(3)]
    target = opened()
    target.apply(Segment([Reset(table), Changes(rows)], Transactions.none(), at(10)))
    monkeypatch.setattr(blocks, "_BYTES", 1)
    with monkeypatch.context() as cut:
        insert, done = Client.insert_arrow, [0]

        def insert_some(client: Client, name: str, *given: Any, **more: Any) -> Any:
            if "_cdc_rows" in name:
                done[0] += 1
                if done[0] > come:
                    raise OperationalError("the connection is gone")
            return insert(client, name, *given, **more)

        cut.setattr(Client, "insert_arrow", insert_some)
        segment = Segment([Changes(batch(table, moves))], transactions([20]), at(21))
        with suppress(Unavailable):
            target.apply(segment)
        target.close()
    target = opened()
    target.apply(segment)
    target.close()
    found = house.rows(f"SELECT id FROM {place}_conformance.{table.table.name} ORDER BY id")
    assert found == [(10,), (11,), (12,)]
