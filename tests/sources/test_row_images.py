"""Row images of every type, written and read back."""

from __future__ import annotations

import struct
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from cdc.model.change import events as as_events
from cdc.model.segment import Changes
from cdc.sources.mysql.binlog import Decoder
from cdc.sources.mysql.events import Event
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.types import logical_type, source_type
from tests.sources.row_images import TYPES, Followed, Latin, row_image, rows_event, same_text, table_map

Row = dict[str, str | None]
KINDS = {
    "insert": (Event.WRITE_ROWS, Event.WRITE_ROWS_V1),
    "update": (Event.UPDATE_ROWS, Event.UPDATE_ROWS_V1),
    "delete": (Event.DELETE_ROWS, Event.DELETE_ROWS_V1),
}


def event(kind: int, body: bytes) -> bytes:
    return struct.pack("<IBIIIH", 0, kind, 1, 19 + len(body), 1000, 0) + body


@given(st.lists(st.sampled_from(TYPES), min_size=1, max_size=10), st.randoms(use_true_random=False), st.booleans())
def test_what_is_written_is_read(types: list, random: Random, has_names: bool) -> None:
    """B-40, B-50, B-55, B-56, B-60: every type, null or not, in events of any kind, together and one by one."""
    log = [event(Event.MARIADB_GTID, struct.pack("<QIB", 1, 0, 0) + bytes(6))]
    log.append(event(Event.TABLE_MAP, table_map(7, types, has_names=has_names)))
    wanted: list[tuple[str, Row | None, Row | None]] = []

    def some_row() -> tuple[bytes, Row]:
        drawn = [column.sample(random) if random.random() < 0.8 else (None, None) for column in types]
        return row_image([value for value, _ in drawn]), {f"c{i}": text for i, (_, text) in enumerate(drawn)}

    for _ in range(random.randrange(1, 5)):
        op = random.choice(list(KINDS))
        images = []
        for _ in range(random.randrange(1, 6)):
            (first, before), (second, after) = some_row(), some_row()
            images += [first, second] if op == "update" else [first]
            wanted.append((op, *{"insert": (None, before), "update": (before, after), "delete": (before, None)}[op]))
        kind = random.choice(KINDS[op])
        log.append(event(kind, rows_event(kind, 7, len(types), images)))
    log.append(event(Event.XID, bytes(8)))

    decoded = Decoder(Followed(types), Latin(), LogPlace("f", 0), {}, {}, {}).decode(log)
    found = []
    for step in decoded.steps:
        assert isinstance(step, Changes)
        found += [
            (change.op.label, change.before, change.after) for change in as_events(step.batch, decoded.transactions)
        ]
    assert [op for op, _, _ in found] == [op for op, _, _ in wanted]
    for (_, *ours), (_, *theirs) in zip(found, wanted, strict=True):
        for row, expected in zip(ours, theirs, strict=True):
            assert (row is None) == (expected is None)
            for name, text in (row or {}).items():
                assert expected is not None
                of = types[int(name[1:])].name
                assert same_text(logical_type(source_type(of)).kind, text, expected[name]), (of, text, expected[name])
