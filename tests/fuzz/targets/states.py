"""State records: what is read can be written and read again as the same, and anything else is refused (E-10)."""

from __future__ import annotations

import json

import orjson

from cdc.errors import CheckpointUnreadable
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.state import SourceState as MySqlState
from cdc.sources.mysql.state import TableState as MySqlTable
from cdc.sources.postgres.pgoutput import Relation, RelationColumn
from cdc.sources.postgres.state import SourceState as PostgresState
from cdc.sources.postgres.state import TableState as PostgresTable
from cdc.typed.codecs import codec_for
from tests.fuzz.draw import Draw, changed, damaged

_LIST = LogicalType(Kind.LIST, element=LogicalType(Kind.DECIMAL, 10, 2), dimensions=1)
_SCHEMA = TableSchema(TableName("d", "t"), 7, (Column("a", "numeric(10,2)[]", _LIST, 1, 0, nullable=False),))
_PLACE = LogPlace("binlog.000001", 0)
STATES = [
    PostgresState(
        "p", "7", "5", 1, "slot", {"pub": "x"},
        {7: PostgresTable(_SCHEMA, Relation(7, "d", "t", "d", (RelationColumn("a", 1231, -1, True),)), 5, copied=True)},
    ),
    MySqlState(
        "p", "mysql", "s", 5, _PLACE, [1, 2], "", {7: MySqlTable(_SCHEMA, "utf8mb4", 5, copied=True, next_column=2)},
        8, {"d.u": 3}, {"X'78',X'',1": _PLACE},
    ),
]  # fmt: skip


def one_input(data: bytes) -> None:
    draw = Draw(data)
    index = draw.ConsumeIntInRange(0, 1)
    text = STATES[index].dump()
    if draw.ConsumeBool():
        text = b"".join(damaged(draw, [text.encode()])).decode(errors="replace")
    else:
        tree = orjson.loads(text)
        for _ in range(draw.ConsumeIntInRange(1, 2)):
            changed(draw, tree)
        text = json.dumps(tree)  # which writes numbers of any size
    try:
        state = type(STATES[index]).load(text)
    except CheckpointUnreadable:
        return
    again = type(state).load(state.dump())
    assert again == state
    assert repr(again) == repr(state)  # 1 equals True
    _use(state)


def _use(state: MySqlState | PostgresState) -> None:
    """What a start does with a state does not fail, which it would if a field were of another type."""
    if isinstance(state, MySqlState):
        assert state.place.position().order >= state.place.base
    for table in state.tables.values():
        assert table.schema.key in [(), (0,)]
        assert codec_for(table.schema.columns[0].type) if table.schema.columns else True
