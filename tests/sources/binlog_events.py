"""Binlog events made by hand, which no release server can be made to write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Mapping, Sequence

from cdc.model.change import events as as_events
from cdc.model.schema import Column, TableName, TableSchema
from cdc.model.segment import Changes, Step
from cdc.sources.mysql.batches import Plan
from cdc.sources.mysql.binlog import Decoded, Decoder
from cdc.sources.mysql.events import Event
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.tablemap import TableMap
from cdc.sources.mysql.transactions import Query
from cdc.sources.mysql.types import fits, logical_type, source_type


class Log:
    """Writes events one behind the other."""

    def __init__(self, at: int = 4) -> None:
        self.events: list[bytes] = []
        self._at = at

    def add(self, kind: int, body: bytes, flags: int = 0) -> Log:
        size = 19 + len(body) + 4
        self._at += size
        header = struct.pack("<IBIIIH", 1_700_000_000, kind, 1, size, self._at % (1 << 32), flags)
        self.events.append(header + body)
        return self

    def skip(self, size: int) -> Log:
        """Leave room for events that nobody makes."""
        self._at += size
        return self

    def gtid(self, number: int, flags: int = 0) -> Log:
        return self.add(Event.MARIADB_GTID, struct.pack("<QIB", number, 0, flags) + bytes(6))

    def table(self, number: int, name: str = "t") -> Log:
        """A table `d.<name>` of an INT and a VARCHAR(20), without metadata."""
        head = number.to_bytes(6, "little") + b"\1\0"
        names = b"\1d\0" + bytes([len(name)]) + name.encode() + b"\0"
        return self.add(Event.TABLE_MAP, head + names + b"\2\3\x0f\2\x14\0\2")

    def rows(self, kind: int, number: int, *rows: tuple[int, str | None]) -> Log:
        maps = b"\3\3" if kind in (Event.UPDATE_ROWS, Event.UPDATE_ROWS_V1) else b"\3"
        extra = b"" if kind <= Event.DELETE_ROWS_V1 else b"\2\0"
        return self.add(
            kind, number.to_bytes(6, "little") + b"\1\0" + extra + b"\2" + maps + b"".join(map(image, rows))
        )

    def query(self, text: str) -> Log:
        return self.add(Event.QUERY, struct.pack("<IIBHH", 1, 0, 1, 0, 0) + b"d\0" + text.encode())

    def xid(self) -> Log:
        return self.add(Event.XID, bytes(8))

    def packets(self) -> bytes:
        """As a server sends them, with checksums."""
        sent = b""
        for number, event in enumerate(self.events):
            packet = b"\0" + event + struct.pack("<I", zlib.crc32(event))
            sent += struct.pack("<I", len(packet))[:3] + bytes([number % 256]) + packet
        return sent


def image(row: tuple[int, str | None]) -> bytes:
    number, text = row
    nulls = bytes([2 if text is None else 0])
    return nulls + struct.pack("<i", number) + (b"" if text is None else bytes([len(text.encode())]) + text.encode())


class Tables:
    """A catalog in which every table is followed."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.lacking: list[tuple[set[str] | None, str, int]] = []

    def start(self, name: TableName) -> int:
        return 0

    def plan(self, table_map: TableMap) -> Plan | None:
        sources = (source_type("int"), source_type("varchar(20) character set utf8mb4"))
        if len(table_map.columns) == len(sources) and not all(map(fits, sources, table_map.columns)):
            return None
        columns = tuple(
            Column(name, "", logical_type(source), number, 0 if number == 1 else None)
            for number, (name, source) in enumerate(zip(("id", "v"), sources, strict=True), 1)
        )
        identity = sum(table_map.table.encode())
        schema = TableSchema(TableName(table_map.schema, table_map.table), identity, columns)
        return Plan(schema, table_map.columns, (0, 1), sources, (None, None))

    def doubted(self, name: TableName, why: str, transaction: int) -> list[Step] | None:
        raise AssertionError(why)

    def unsaid(self, names: Collection[TableName] | None, why: str, order: int, transaction: int) -> list[Step]:
        self.lacking.append(({name.name for name in names} if names is not None else None, why, transaction))
        return []

    def statement(self, statement: Query, order: int, transaction: int, ordinal: int) -> list[Step]:
        self.statements.append(statement.text)
        return []


class NoConverter:
    def text(self, charset: str, values: list[bytes]) -> list[str]:
        raise AssertionError(charset)


def decoder(tables: Tables | None = None, prepared: Mapping[str, LogPlace] | None = None) -> Decoder:
    return Decoder(tables or Tables(), NoConverter(), LogPlace("binlog.000001", 0), {}, prepared or {}, {})


def decode(events: Sequence[bytes]) -> list[tuple[str, str, int | None, str | None]]:
    """Operation, table, and new row (old key for a delete) of each change, in order of table and change."""
    return changes_of(decoder().decode(events))


def changes_of(decoded: Decoded) -> list[tuple[str, str, int | None, str | None]]:
    """The same of what was decoded."""
    found = []
    for step in decoded.steps:
        assert isinstance(step, Changes)
        for event in as_events(step.batch, decoded.transactions):
            row = event.after or event.before or {}
            number = row.get("id")
            found.append((event.op.label, event.table.name, int(number) if number else None, row.get("v")))
    return found
