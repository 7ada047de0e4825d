"""What MariaDB and MySQL write into their binlog of a history: files of events."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from random import Random

from cdc.model.schema import Column, TableName, TableSchema
from cdc.sources.mysql.catalog import Table
from cdc.sources.mysql.events import ARTIFICIAL_FLAG, HEADER, Event
from cdc.sources.mysql.tablemap import Wire
from cdc.sources.mysql.types import logical_type, source_type
from tests.simulation.history import INT, KEY, NARROW, TEXT, History, Op, Shape, Transaction, Values
from tests.simulation.world import BEGIN

DATABASE = "d"
TYPES = {
    INT: "int",
    TEXT: "varchar(100) character set utf8mb4",
    NARROW: "varchar(5) character set utf8mb4",
}
_BYTES = {TEXT: 400, NARROW: 20}
_STANDALONE = 1  # flag of MariaDB's GTID event


@dataclass(frozen=True)
class Written:
    """One event in a file.

    Attributes:
        gtid: the number of the transaction that it is a part of, 0 outside of any.
    """

    start: int
    end: int
    at: float
    event: bytes
    gtid: int


@dataclass(frozen=True)
class Logged:
    """A transaction of the history in the log: where it begins and ends, both counted through all files."""

    at: float
    begin: int
    end: int


@dataclass
class File:
    """One file of the log, and what lies before it: so many bytes, and transactions up to one."""

    name: str
    before: int
    gtid: int
    events: list[Written] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.events[-1].end if self.events else 4


class BinaryLog:
    """All files of a server.

    Args:
        flavor: mariadb has GTIDs here, mysql has none, so that it is followed by file and byte.
    """

    def __init__(self, rng: Random, history: History, flavor: str) -> None:
        self._rng = rng
        self.flavor = flavor
        self.files: list[File] = []
        self.logged: list[Logged] = []
        self.prepared: dict[int, float] = {}  # when transactions of two phases were prepared
        self._gtid = 0
        self._inside = 0
        self._at = 0.0
        self._new_file()
        known = rng.randint(0, len(history.transactions))
        self._prepared: dict[int, str] = {}
        for number, transaction in enumerate(history.transactions):
            if number >= known:
                self._at += rng.choice([0.0, 0.0, 0.001, 0.001, 0.3, 0.3, 0.3, 0.3, 2.0, 2.0, 11.0, 11.0, 35.0])
            if rng.random() < 0.15:
                self._rotate()
            self._prepare_some(history, number)
            begin = self.files[-1].before + self.files[-1].size
            self._write(transaction, number)
            self.logged.append(Logged(self._at, begin, self.files[-1].before + self.files[-1].size))

    def event(self, kind: int, body: bytes, end: int, flags: int = 0, at: float | None = None) -> bytes:
        """An event without its checksum."""
        seconds = 0 if flags & ARTIFICIAL_FLAG else (BEGIN + int((self._at if at is None else at) * 1e6)) // 1_000_000
        return struct.pack("<IBIIIH", seconds, kind, 1, HEADER + len(body) + 4, end, flags) + body

    def _add(self, kind: int, body: bytes, flags: int = 0) -> None:
        file = self.files[-1]
        start = file.size
        end = start + HEADER + len(body) + 4
        file.events.append(Written(start, end, self._at, self.event(kind, body, end, flags), self._inside))

    def _new_file(self) -> None:
        before = self.files[-1].before + self.files[-1].size if self.files else 0
        self.files.append(File(f"binlog.{len(self.files) + 1:06d}", before, self._gtid))
        version = b"10.11.6-MariaDB" if self.flavor == "mariadb" else b"8.4.0"
        self._add(Event.FORMAT_DESCRIPTION, struct.pack("<H50sIB", 4, version, 0, HEADER) + bytes(40) + b"\1")
        if self.flavor == "mariadb":
            self._add(Event.MARIADB_GTID_LIST, struct.pack("<IIIQ", 1, 0, 1, self._gtid))
        else:
            self._add(Event.PREVIOUS_GTIDS, bytes(8))

    def _rotate(self) -> None:
        self._add(Event.ROTATE, struct.pack("<Q", 4) + f"binlog.{len(self.files) + 1:06d}".encode())
        self._new_file()

    # --- transactions -----------------------------------------------------------------------------------------------

    def _begin(self, *, alone: bool = False) -> None:
        self._gtid += 1
        self._inside = self._gtid
        if self.flavor == "mariadb":
            flags = _STANDALONE if alone else 0
            self._add(Event.MARIADB_GTID, struct.pack("<QIB", self._gtid, 0, flags) + bytes(6))
            return
        self._add(Event.ANONYMOUS_GTID, bytes(25))
        if not alone:
            self.query("BEGIN")

    def query(self, text: str) -> None:
        name = DATABASE.encode()
        self._add(Event.QUERY, struct.pack("<IIBHH", 1, 0, len(name), 0, 0) + name + b"\0" + text.encode())

    def _write(self, transaction: Transaction, number: int) -> None:
        if not transaction.committed:
            if self._rng.random() < 0.3:  # what touched other engines, or temporary tables
                self._begin()
                self.query("ROLLBACK")
                self._inside = 0
            return
        if number in self._prepared:
            self._begin(alone=True)
            self.query(f"XA COMMIT {self._prepared[number]}")
        elif len(transaction.ops) == 1 and transaction.ops[0].what in ("truncate", "reshape"):
            self._begin(alone=True)
            self.query(statement(transaction.ops[0]))
        elif transaction.ops or self._rng.random() < 0.5:
            self._begin()
            self._rows(transaction.ops)
            if self._rng.random() < 0.2:
                self.query("COMMIT")
            else:
                self._add(Event.XID, bytes(8))
        self._inside = 0

    def _prepare_some(self, history: History, number: int) -> None:
        """Log a transaction of two phases where it is prepared; it is applied where it is committed (B-28)."""
        later = number + self._rng.randint(0, 2)
        between = history.transactions[number : later + 1]
        if later >= len(history.transactions) or self._rng.random() > 0.08 or later in self._prepared:
            return
        if any(op.what in ("truncate", "reshape") for t in between for op in t.ops) or not between[-1].ops:
            return
        if not between[-1].committed:
            return
        name = f"X'{later:02x}',X'',1"
        self._gtid += 1
        self._inside = self._gtid
        if self.flavor == "mariadb":
            self._add(Event.MARIADB_GTID, struct.pack("<QIB", self._gtid, 0, 64) + bytes(6))
        else:
            self._add(Event.ANONYMOUS_GTID, bytes(25))
        self.query(f"XA START {name}")
        self._rows(between[-1].ops)
        self.query(f"XA END {name}")
        self._add(Event.XA_PREPARE, b"\0" + struct.pack("<III", 1, 1, 0) + bytes([later]))
        self._inside = 0
        self._prepared[later] = name
        self.prepared[later] = self._at

    def _rows(self, ops: Sequence[Op]) -> None:
        """As few events as the server would make, or more."""
        for (shape, what), some in groupby(ops, key=lambda op: (op.shape, op.what)):
            rows = list(some)
            while rows:
                count = self._rng.randint(1, len(rows))
                if self._rng.random() < 0.3:
                    self._add(Event.ANNOTATE_ROWS if self.flavor == "mariadb" else Event.ROWS_QUERY, b"\0INSERT")
                self._add(Event.TABLE_MAP, table_map(shape))
                self._add(self._kind(what), self._row_event(shape, rows[:count]))
                rows = rows[count:]

    def _kind(self, what: str) -> int:
        v1 = {"insert": Event.WRITE_ROWS_V1, "update": Event.UPDATE_ROWS_V1, "delete": Event.DELETE_ROWS_V1}
        v2 = {"insert": Event.WRITE_ROWS, "update": Event.UPDATE_ROWS, "delete": Event.DELETE_ROWS}
        return (v1 if self.flavor == "mariadb" else v2)[what]

    def _row_event(self, shape: Shape, ops: Sequence[Op]) -> bytes:
        width = len(shape.columns)
        bitmap = ((1 << width) - 1).to_bytes((width + 7) // 8, "little")
        head = shape.oid.to_bytes(6, "little") + b"\1\0" + (b"" if self.flavor == "mariadb" else b"\2\0")
        images = b"".join(
            image(shape, values)
            for op in ops
            for values in ((op.old,) if op.what == "delete" else (op.new,) if op.what == "insert" else (op.old, op.new))
        )
        return head + bytes([width]) + bitmap * (2 if ops[0].what == "update" else 1) + images

    def since(self, file: int, offset: int) -> Iterator[tuple[int, Written]]:
        """Events from a place on, each with the number of its file."""
        for number in range(file, len(self.files)):
            for written in self.files[number].events:
                if number > file or written.start >= offset:
                    yield number, written


def table_map(shape: Shape) -> bytes:
    width = len(shape.columns)
    wires = bytes(Wire.LONG if column.type == INT else Wire.VARCHAR for column in shape.columns)
    meta = b"".join(struct.pack("<H", _BYTES[column.type]) for column in shape.columns if column.type != INT)
    names = b"".join(bytes([len(name)]) + name.encode() + b"\0" for name in (DATABASE, shape.name))
    nullable = ((1 << width) - 1).to_bytes((width + 7) // 8, "little")
    columns = bytes([width]) + wires + bytes([len(meta)]) + meta + nullable
    return shape.oid.to_bytes(6, "little") + b"\1\0" + names + columns


def image(shape: Shape, values: Values) -> bytes:
    row = shape.row(values)
    nulls = sum(1 << index for index, value in enumerate(row) if value is None)
    pieces = [nulls.to_bytes((len(row) + 7) // 8, "little")]
    for column, value in zip(shape.columns, row, strict=True):
        if value is None:
            continue
        if column.type == INT:
            pieces.append(struct.pack("<i", int(value)))
        else:
            text = value.encode()
            pieces.append(struct.pack("<H" if _BYTES[column.type] > 255 else "<B", len(text)) + text)
    return b"".join(pieces)


def table(shape: Shape) -> Table:
    columns = tuple(
        Column(
            c.name,
            TYPES[c.type],
            logical_type(source_type(TYPES[c.type])),
            index,
            0 if shape.keyed and c.number == KEY else None,
            nullable=not (shape.keyed and c.number == KEY),
        )
        for index, c in enumerate(shape.columns, 1)
    )
    name = TableName(DATABASE, shape.name)
    return Table(TableSchema(name, 0, columns, full_before=not shape.keyed), "innodb", "utf8mb4", 0)


def statement(op: Op) -> str:
    """A truncate or a change of shape as SQL."""
    if op.what == "truncate":
        return f"TRUNCATE TABLE `{op.shape.name}`"
    old, new = op.shapes
    if old.name != new.name:
        return f"RENAME TABLE `{old.name}` TO `{new.name}`"
    before, after = ({column.number: column for column in shape.columns} for shape in (old, new))
    for number, column in after.items():
        kind = TYPES[column.type].split(" ")[0]
        if number not in before:
            default = f" DEFAULT '{column.fill}'" if column.fill is not None else ""
            return f"ALTER TABLE `{old.name}` ADD COLUMN `{column.name}` {kind}{default}"
        if before[number].name != column.name:
            return f"ALTER TABLE `{old.name}` RENAME COLUMN `{before[number].name}` TO `{column.name}`"
        if before[number].type != column.type:
            return f"ALTER TABLE `{old.name}` MODIFY COLUMN `{column.name}` {kind}"
    gone = next(column.name for number, column in before.items() if number not in after)
    return f"ALTER TABLE `{old.name}` DROP COLUMN `{gone}`"
