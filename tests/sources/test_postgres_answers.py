"""E-16: whatever a damaged answer of PostgreSQL looks like, who reads it ends in one error that is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.errors import CdcError
from cdc.model.parts import Part
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.model.selection import Selection
from cdc.sources.postgres import catalog, copy, fingerprint, forecast, identity
from cdc.sources.postgres.admin import made_by, slot_status
from cdc.sources.postgres.check import check
from cdc.sources.postgres.digest import border, digest, hashed_rows
from cdc.sources.postgres.digest import values as values_of
from cdc.sources.postgres.pgoutput import Relation

WORDS = ["", "x", "t", "logical", "r", "heap", "0/16B3748", "16/4", "7", "6xx", "pgoutput", "on"]
STATUS = ["active", "wal_status", "confirmed_flush_lsn", "current_text", "current", "confirmed", "retained", "clock"]
plain = st.one_of(st.sampled_from(WORDS), st.none(), st.integers(-1, 1 << 64), st.booleans(), st.floats())
values = st.one_of(plain, st.lists(plain, max_size=3), st.dictionaries(st.sampled_from(STATUS), plain))
rows = st.lists(st.lists(values, min_size=1, max_size=8).map(tuple), max_size=4)
answers = st.lists(rows, min_size=1, max_size=6)

SCHEMA = TableSchema(
    TableName("public", "t"),
    16384,
    (
        Column("id", "integer", LogicalType(Kind.INT32), 1, key=0, nullable=False),
        Column("v", "text", LogicalType(Kind.TEXT), 2),
    ),
)
TABLE = catalog.Table(SCHEMA, Relation(16384, "public", "t", "d", ()), "r", 1_000_000)


class Garbled:
    """A server that answers anything at all, in turn."""

    info = SimpleNamespace(server_version=180000)

    def __init__(self, answers: list[list[tuple[Any, ...]]]) -> None:
        self._answers, self._asked = answers, 0

    def transaction(self) -> AbstractContextManager[None]:
        return nullcontext()

    def execute(self, *_: object) -> Answer:
        self._asked += 1
        return Answer(self._answers[self._asked % len(self._answers)])


@dataclass
class Answer:
    rows: list[tuple[Any, ...]]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.rows

    def fetchone(self) -> tuple[Any, ...] | None:
        return self.rows[0] if self.rows else None

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.rows)


READERS: dict[str, Callable[[Any], object]] = {
    "tables": catalog.user_tables,
    "tables by oid": lambda connection: catalog.tables_by_oid(connection, [16384]),
    "fingerprint": lambda connection: catalog.publication_fingerprint(connection, ["p"]),
    "missing values": lambda connection: catalog.missing_values(connection, 16384, [16384]),
    "dropped columns": lambda connection: catalog.dropped_columns(connection, 16384),
    "look": lambda connection: fingerprint.look(connection, [16384]),
    "leaves": lambda connection: fingerprint.are_empty(connection, [16384]),
    "check": lambda connection: check(connection, None, Selection()),  # type: ignore[arg-type]
    "server": lambda connection: identity.identify(connection, connection),
    "slot": lambda connection: identity.read_slot(connection, "s"),
    "at work": lambda connection: identity.is_at_work(connection, 7),
    "holder": lambda connection: identity.holder(connection, "s"),
    "status": lambda connection: slot_status(connection, "s"),
    "made by": lambda connection: made_by(connection, "p"),
    "shapes": lambda connection: copy.shapes(connection, [16384]),
    "chunks": lambda connection: copy._chunks(connection, [TABLE]),
    "safe bytes": lambda connection: forecast.safe_bytes(connection, "s"),
    "digest": lambda connection: digest(connection, SCHEMA),
    "hashed rows": lambda connection: hashed_rows(connection, SCHEMA, Part(), [1]),
    "values": lambda connection: values_of(connection, SCHEMA, [("1",)]),
    "border": lambda connection: border(connection, SCHEMA, [0], None, 5),
}


@pytest.fixture(autouse=True, scope="module")
def replication() -> Iterator[None]:
    """What a replication session says is as good as the rest."""
    names = ["systemid", "timeline", "xlogpos"]

    def run_command(connection: Garbled, command: str) -> list[dict[str, Any]]:
        return [dict(zip(names, row, strict=False)) for row in connection.execute(command)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "run_command", run_command)
        patch.setattr(import_module("cdc.sources.postgres.check"), "_replication_session", lambda dsn: [])
        yield


@pytest.mark.parametrize("reader", list(READERS))
@settings(max_examples=40)
@given(answers=answers)
def test_anything(reader: str, answers: list[list[tuple[Any, ...]]]) -> None:
    with suppress(CdcError, psycopg.OperationalError):
        READERS[reader](Garbled(answers))
