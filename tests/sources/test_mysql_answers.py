"""E-16: whatever a damaged answer of MySQL or MariaDB looks like, who reads it ends in one error of ours."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.errors import CdcError
from cdc.model.parts import Part
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.model.selection import Selection
from cdc.sources.mysql import catalog, copy, identity
from cdc.sources.mysql.admin import log_status
from cdc.sources.mysql.charsets import ServerConverter
from cdc.sources.mysql.check import check
from cdc.sources.mysql.connection import Connection, Dsn, Version
from cdc.sources.mysql.digest import border, digest, hashed_rows
from cdc.sources.mysql.digest import values as values_of
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.state import SourceState

WORDS = ["", "x", "int", "YES", "PRI", "PRIMARY", "BASE TABLE", "SYSTEM VERSIONED", "InnoDB", "latin1_bin", "shop", "t"]
WORDS += [
    "ON",
    "0-1-5",
    "1b3c5d7e-0000-0000-0000-000000000000:1-5",
    "binlog.000001",
    "enum('a'",
    "7",
    "6xx",
    "GRANT ALL",
]
NAMES = ["file", "position", "executed_gtid_set", "binlog_do_db", "x"]
values = st.one_of(st.sampled_from(WORDS), st.none(), st.integers(-1, 1 << 64), st.binary(max_size=3), st.floats())
rows = st.lists(st.lists(values, min_size=1, max_size=8).map(tuple), max_size=4)
answers = st.lists(rows, min_size=1, max_size=6)

SCHEMA = TableSchema(
    TableName("shop", "t"),
    1,
    (
        Column("id", "int", LogicalType(Kind.INT32), 1, key=0, nullable=False),
        Column("v", "varchar(9) character set latin1", LogicalType(Kind.TEXT), 2),
    ),
)
TABLE = catalog.Table(SCHEMA, "innodb", "latin1", 1_000_000)
STATE = SourceState("p", "mysql", "server", 1, LogPlace("binlog.000001", 0, 4))
READERS: dict[str, Callable[[Connection], object]] = {
    "tables": lambda connection: catalog.user_tables(connection, "shop"),
    "named tables": lambda connection: catalog.named_tables(connection, [SCHEMA.table]),
    "check": lambda connection: check(connection, "shop", Selection()),
    "identity": identity.server_identity,
    "gtids": identity.has_gtids,
    "log": identity.log_now,
    "place": lambda connection: identity.log_now(connection, ("binlog.000001", 4)),
    "files": identity.log_files,
    "filters": identity.log_filters,
    "server": lambda connection: identity.verify_server(connection, STATE),
    "prepared": lambda connection: identity.refuse_prepared(connection, connection.dsn),
    "status": lambda connection: log_status(connection, STATE.dump()),
    "snapshot": copy.Snapshot.place,
    "steps": lambda connection: copy._steps(connection, TABLE, "`id`", 4),
    "digest": lambda connection: digest(connection, SCHEMA),
    "hashed rows": lambda connection: hashed_rows(connection, SCHEMA, Part(), [1]),
    "values": lambda connection: values_of(connection, SCHEMA, [("1",)]),
    "border": lambda connection: border(connection, SCHEMA, [0], None, 5),
    "text": lambda connection: ServerConverter(connection).text("latin1", [b"x", b"yz"]),
}


class Garbled(Connection):
    """A server that answers anything at all, in turn."""

    def __init__(self, flavor: str, answers: list[list[tuple[Any, ...]]]) -> None:
        self.dsn = Dsn.parse(f"{flavor}://cdc@localhost/shop")
        self.version = Version(flavor, (8, 4, 0) if flavor == "mysql" else (11, 8, 0))
        self._answers, self._asked = answers, 0

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        self._asked += 1
        return self._answers[self._asked % len(self._answers)]

    def record(self, statement: str) -> dict[str, Any]:
        found = self.query(statement)
        return dict(zip(NAMES, found[0], strict=False)) if found else {}


@pytest.mark.parametrize("flavor", ["mysql", "mariadb"])
@pytest.mark.parametrize("reader", list(READERS))
@settings(max_examples=40)
@given(answers=answers)
def test_anything(reader: str, flavor: str, answers: list[list[tuple[Any, ...]]]) -> None:
    with suppress(CdcError):
        READERS[reader](Garbled(flavor, answers))
