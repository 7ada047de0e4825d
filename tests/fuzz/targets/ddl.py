"""Statements: whatever the text, either what it does to tables or that it is not understood."""

from __future__ import annotations

import orjson

from cdc import logs
from cdc.errors import UsageError
from cdc.model.schema import Column, TableName, TableSchema
from cdc.sources.mysql.ddl import effects
from cdc.sources.mysql.effects import Altered, Unproven, Unreadable
from cdc.sources.mysql.evolution import CopyAgain, evolved
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.state import SourceState, TableState
from cdc.sources.mysql.types import label_bytes, logical_type, source_type
from tests.fuzz.draw import Draw

WORDS = (
    "ALTER TABLE ADD DROP COLUMN RENAME TO CREATE TRUNCATE DATABASE IF EXISTS NOT OR REPLACE TEMPORARY t d.t `t` "
    "`a``b` \"q\" c1 c2 INT BIGINT VARCHAR(20) DECIMAL(10,2) UNSIGNED NULL DEFAULT 5 'x' AFTER FIRST "
    "CHARACTER SET latin1 COLLATE CHANGE MODIFY CONVERT PARTITION PRIMARY KEY ( ) , . ; /*!50000 */ /* -- # \\ "
    "ENUM('a','b') JSON BINARY GENERATED ALWAYS AS (c1+1) VIRTUAL COMMENT '' WAIT 5 INSERT UPDATE XA GRANT @x := "
    "IGNORE EXCHANGE WITH STATEMENT FOR INDEX UNIQUE ONLINE ORDER BY /*M! */ 1e999 0x 1.t \u00e9 \udce9"
).split(" ")
logs.configure(logs.Settings())
TYPES = ["enum('a','b''c')", "set(')')", "decimal", "int(11) unsigned", "x(", "bit(64)", "varchar(20) character set x"]
_COLUMNS = tuple(Column(f"c{i}", "int", logical_type(source_type("int")), i, key=0 if i == 1 else None) for i in (1, 2))
_TABLE = TableState(TableSchema(TableName("d", "t"), 1, _COLUMNS), "utf8mb4", 0, copied=True, next_column=3)


def one_input(data: bytes) -> None:
    draw = Draw(data)
    if draw.ConsumeIntInRange(0, 3) == 0:
        text = draw.ConsumeBytes(draw.ConsumeIntInRange(0, 300)).decode("utf-8", "surrogateescape")
    else:
        picked = [WORDS[draw.ConsumeIntInRange(0, len(WORDS) - 1)] for _ in range(draw.ConsumeIntInRange(0, 30))]
        text = draw.PickValueInList([" ", " ", "", "\n"]).join(["ALTER TABLE t ADD c "] * draw.ConsumeBool() + picked)
    modes = draw.PickValueInList([0, 4, 1 << 20, 4 | 1 << 20])  # ANSI_QUOTES, NO_BACKSLASH_ESCAPES
    flavor = draw.PickValueInList(["mysql", "mariadb"])
    for effect in effects(text, "d", sql_mode=modes, folds_case=draw.ConsumeBool(), is_mariadb=flavor == "mariadb"):
        if isinstance(effect, Altered):
            _evolved(effect, flavor)
        elif isinstance(effect, Unproven | Unreadable):
            assert effect.may_change(_TABLE.schema.table) or not effect.may_reshape(_TABLE.schema.table)
    _type(draw.PickValueInList(TYPES) + draw.ConsumeUnicode(20))


def _evolved(effect: Altered, flavor: str) -> None:
    """What a table becomes goes into the checkpoint, from which the next start reads it."""
    try:
        found = evolved(_TABLE, effect.actions, flavor)
    except CopyAgain:
        return
    after, fill = found.entry, found.fill
    names = [column.name.lower() for column in after.schema.columns]
    assert len(set(names)) == len(names), names
    assert set(fill) <= {column.identity for column in after.schema.columns}
    for column in after.schema.columns:
        assert logical_type(source_type(column.source_type)) == column.type
    state = SourceState("p", flavor, "s", 1, LogPlace("f", 0), tables={1: after})
    assert SourceState.load(state.dump()) == state
    orjson.dumps(list(fill.values()))


def _type(text: str) -> None:
    try:
        source = source_type(text)
    except UsageError:
        return
    logical_type(source)
    if source.base in ("enum", "set"):
        label_bytes(source)
