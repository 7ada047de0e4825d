"""What real servers sent, replayed in any pieces; the server's own tables say what must come of it."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from cdc.model.change import Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableSchema
from cdc.model.segment import Reset, Segment
from cdc.model.selection import Selection
from cdc.sources.mysql import binlog, tables
from cdc.sources.mysql.framing import Framer
from cdc.sources.mysql.state import SourceState as MyState
from cdc.sources.mysql.tables import FollowedTables
from cdc.sources.postgres import pgoutput
from cdc.sources.postgres.catalog import Table
from cdc.sources.postgres.evolution import added_columns, fill_values, next_schema
from cdc.sources.postgres.fingerprint import Fingerprint
from cdc.sources.postgres.pgoutput import HEADER, Relation, Resolved
from cdc.sources.postgres.state import SourceState
from cdc.sources.postgres.types import TypeInfo
from cdc.testing import MemoryTarget
from tests.recorded.session import Session, ordered

_TYPES = {oid: TypeInfo(oid, "", 0, 0, -1, 0, ",") for oid in (16, 20, 23, 25, 1043, 1184, 1700)}
_TYPES[1009] = TypeInfo(1009, "A", 25, 0, -1, 0, ",")


class Catalog:
    """What the recorded server's catalog said; the rest is the source's own way to find shapes."""

    def __init__(self, session: Session, state: str) -> None:
        self.state = SourceState.load(state)
        self._later = SourceState.load(session.later)
        self._missing = session.missing

    def start(self, oid: int) -> int:
        return self.state.tables[oid].start

    def resolve(self, relation: Relation) -> Resolved:
        entry, now = self.state.tables[relation.oid], self._later.tables[relation.oid]
        today = Table(now.schema, now.relation, "r", 0)
        schema = next_schema(entry, relation, today, _TYPES)
        if schema == entry.schema and relation == entry.relation:
            return Resolved(schema)
        known = self._missing[str(relation.oid)].items()
        missing = {int(number): {relation.oid: value} for number, value in known}
        seen = Fingerprint(f"{relation.oid}:1", 0, 1)  # nothing was rewritten
        fill, _ = fill_values(added_columns(entry.schema, schema), seen, seen, missing)
        self.state.tables[relation.oid] = replace(entry, schema=schema, relation=relation)
        return Resolved(schema, entry.schema, fill)


def begin(target: MemoryTarget, schemas: Sequence[TableSchema], state: str) -> None:
    """Empty tables, as the state says that they are copied."""
    resets = [Reset(schema) for schema in schemas]
    target.apply(Segment(list(resets), Transactions.none(), Checkpoint(Position(0, "0"), state)))


def assert_holds(target: MemoryTarget, session: Session) -> None:
    """The target has what the server's tables had, and every change that came, came once."""
    held = {str(table.schema.table): table for table in target.tables.values()}
    assert sorted(held) == sorted(session.tables)
    for name, (columns, rows) in session.tables.items():
        assert [column.name for column in held[name].schema.columns] == columns
        assert ordered([list(row) for row in held[name].rows()]) == rows
    assert len(set(target.changes)) == len(target.changes) > 500


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


def postgres_segments(session: Session, checkpoint: Checkpoint, rng: random.Random) -> Iterator[Segment]:
    """What comes after a checkpoint, as one connection would bring it, in pieces of any size."""
    catalog = Catalog(session, checkpoint.state)
    decoder = pgoutput.Decoder(catalog)
    pending: list[bytes] = []
    rest = messages_after(session, checkpoint.position.order)
    while rest or pending:
        count = rng.choice([1, 5, 100, len(rest)])
        pending, rest = pending + rest[:count], rest[count:]
        decoded = decoder.decode(pending, allow_part=rng.random() < 0.3 or not rest)
        pending = pending[decoded.consumed :]
        end = Checkpoint(decoded.end, catalog.state.dump()) if decoded.end is not None else None
        if len(decoded.transactions):
            yield Segment(decoded.steps, decoded.transactions, end)


def messages_after(session: Session, position: int) -> list[bytes]:
    """The transactions after a position. A server describes every table again to every connection."""
    found: list[bytes] = []
    shapes: dict[bytes, bytes] = {}
    wanted, described = False, set[bytes]()
    for message in (piece for piece in session.pieces if piece[:1] == b"w"):
        kind, oid = message[HEADER : HEADER + 1], message[HEADER + 1 : HEADER + 5]
        if kind == b"B":
            wanted = struct.unpack_from(">Q", message, HEADER + 1)[0] >= position
        if kind == b"R":
            shapes[oid] = message
        if not wanted:
            continue
        if kind == b"R":
            described.add(oid)
        for known in shapes.keys() - described if kind in b"IUDT" else ():
            found.append(shapes[known])
            described.add(known)
        found.append(message)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_postgres(seed: int) -> None:
    """A-37 to A-41, A-43, A-46, A-47, A-48, A-66: a session of PostgreSQL 18, cut anywhere, resumed anywhere."""
    session = Session.load("postgres")
    rng = random.Random(seed)
    target = MemoryTarget()
    schemas = [entry.schema for entry in SourceState.load(session.state).tables.values()]
    begin(target, schemas, session.state)
    replay(target, lambda checkpoint: postgres_segments(session, checkpoint, rng), rng)
    assert_holds(target, session)


def replay(
    target: MemoryTarget, segments: Callable[[Checkpoint], Iterator[Segment]], rng: random.Random, lost: int = 4
) -> None:
    """Apply segments, with connections lost so many times, and segments that come again (D-05)."""
    checkpoint = target.open()
    assert checkpoint is not None
    for segment in segments(checkpoint):
        target.apply(segment)
        if segment.checkpoint is not None and rng.random() < 0.2:
            target.apply(segment)
        if lost and rng.random() < 0.05:
            replay(target, segments, rng, lost - 1)
            return


# --- MariaDB and MySQL ------------------------------------------------------------------------------------------------


def binlog_segments(session: Session, rng: random.Random) -> Iterator[Segment]:
    """The whole dump in pieces of any size, down to single bytes."""
    state = MyState.load(session.state)
    database = SimpleNamespace(dsn=SimpleNamespace(database="s"), variable={"lower_case_table_names": "0"}.get)
    catalog = FollowedTables(state, database, Selection(()))  # type: ignore[arg-type]
    is_mariadb = state.flavor == "mariadb"
    decoder = binlog.Decoder(catalog, None, state.place, {}, {}, {}, is_mariadb=is_mariadb)  # type: ignore[arg-type]
    framer = Framer(has_checksum=True)
    data, at = b"".join(session.pieces), 0
    pending: list[bytes] = []
    while at < len(data):
        size = rng.choice([1, 50, 3000, 100_000])
        pending += framer.feed(data[at : at + size])
        at += size
        decoded = decoder.decode(pending, allow_part=rng.random() < 0.3)
        pending = pending[decoded.consumed :]
        if len(decoded.transactions):
            yield Segment(
                decoded.steps, decoded.transactions, Checkpoint(decoded.end, "") if decoded.end is not None else None
            )
    assert pending == []
    assert not decoder.inside_transaction


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("flavor", ["mariadb", "mysql"])
def test_binlog(flavor: str, seed: int) -> None:
    """B-10, B-24, B-30, B-45: a dump of MariaDB and of MySQL, cut anywhere."""
    session = Session.load(flavor)
    rng = random.Random(seed)
    target = MemoryTarget()
    state = MyState.load(session.state)
    begin(target, [entry.schema for entry in state.tables.values()], session.state)
    with patch.object(tables, "log_now", side_effect=AssertionError("nothing new comes")):
        for segment in binlog_segments(session, rng):
            target.apply(segment)
            if segment.checkpoint is not None and rng.random() < 0.2:
                target.apply(segment)
    assert_holds(target, session)


def test_the_recordings_are_small_and_mixed() -> None:
    """They hold inserts, updates, deletes, truncates, and a change of shape of more than one table."""
    for name in ("postgres", "mariadb", "mysql"):
        session = Session.load(name)
        assert sum(map(len, session.pieces)) < 1_000_000
        assert {table.split(".")[1] for table in session.tables} == {"a", "b", "c"}
        assert all(rows for _, rows in session.tables.values())
    kinds = {piece[HEADER : HEADER + 1] for piece in Session.load("postgres").pieces if piece[:1] == b"w"}
    assert kinds >= {b"B", b"C", b"R", b"I", b"U", b"D", b"T"}
