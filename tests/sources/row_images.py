"""Writes table maps and row images for columns of any type: the way back from what the decoder reads."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from random import Random

from cdc.model.schema import Column, Kind, TableName, TableSchema
from cdc.model.segment import Step, Suspect
from cdc.sources.mysql.batches import Plan
from cdc.sources.mysql.events import Event
from cdc.sources.mysql.state import TableState
from cdc.sources.mysql.tablemap import TableMap, Wire, decimal_bytes
from cdc.sources.mysql.tables import plan_rows
from cdc.sources.mysql.transactions import Query
from cdc.sources.mysql.types import logical_type, source_type
from tests.sources.binary_json import encoded

WORDS = ["", "a", "it's", "twelve bytes", "more than twelve bytes", "\u00e9\u4e16\U0001f600", "x" * 300, 'q"\\']
EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class ColumnType:
    """A type of column.

    Attributes:
        name: as information_schema writes it.
        wire, metadata: as a table map has it.
        sample: some value, as bytes of a row image and as canonical text.
        is_numeric: a table map may say whether it has a sign.
    """

    name: str
    wire: int
    metadata: bytes
    sample: Callable[[Random], tuple[bytes, str]]
    is_numeric: bool = False


def integer(name: str, wire: Wire, size: int) -> list[ColumnType]:
    def sample(unsigned: bool) -> Callable[[Random], tuple[bytes, str]]:
        low, high = (0, 256**size - 1) if unsigned else (-(256**size) // 2, 256**size // 2 - 1)

        def draw(random: Random) -> tuple[bytes, str]:
            number = random.choice([low, high, 0, 1, random.randint(low, high)])
            return number.to_bytes(size, "little", signed=not unsigned), str(number)

        return draw

    return [
        ColumnType(name + " unsigned" * unsigned, wire, b"", sample(unsigned), is_numeric=True)
        for unsigned in (False, True)
    ]


def floating(name: str, wire: Wire, layout: str) -> ColumnType:
    def draw(random: Random) -> tuple[bytes, str]:
        packed = struct.pack(layout, random.choice([0.0, -1.5, 1e30, 2.0**-20, random.uniform(-1e6, 1e6)]))
        return packed, repr(struct.unpack(layout, packed)[0])

    return ColumnType(name, wire, bytes([len(struct.pack(layout, 0))]), draw, is_numeric=True)


def decimal(precision: int, scale: int) -> ColumnType:
    def draw(random: Random) -> tuple[bytes, str]:
        digits = "".join(random.choice("0129") for _ in range(random.choice([0, 1, precision]))).rjust(precision, "0")
        whole, fraction = digits[: precision - scale], digits[precision - scale :]
        pieces = [*_groups(whole, from_right=True), *_groups(fraction, from_right=False)]
        packed = bytearray(b"".join(int(part).to_bytes(decimal_bytes(len(part), 0), "big") for part in pieces))
        negative = random.random() < 0.5 and int(digits) != 0
        packed[0] ^= 0x80
        if negative:
            packed = bytearray(byte ^ 0xFF for byte in packed)
        text = (whole.lstrip("0") or "0") + (f".{fraction}" if scale else "")
        assert Decimal(text) == int(digits) / Decimal(10) ** scale or precision > 28
        return bytes(packed), "-" * negative + text

    name = f"decimal({precision},{scale})"
    return ColumnType(name, Wire.NEWDECIMAL, bytes([precision, scale]), draw, is_numeric=True)


def _groups(digits: str, *, from_right: bool) -> list[str]:
    first = len(digits) % 9 if from_right else min(9, len(digits))
    groups = [digits[:first], *(digits[at : at + 9] for at in range(first, len(digits), 9))]
    return [group for group in groups if group]


def bits(count: int) -> ColumnType:
    def draw(random: Random) -> tuple[bytes, str]:
        number = random.getrandbits(count)
        return number.to_bytes((count + 7) // 8, "big"), str(number)

    return ColumnType(f"bit({count})", Wire.BIT, bytes([count % 8, count // 8]), draw)


def day(random: Random) -> tuple[bytes, str]:
    drawn = EPOCH + timedelta(random.randint(-100_000, 100_000))
    packed = drawn.year << 9 | drawn.month << 5 | drawn.day
    return packed.to_bytes(3, "little"), drawn.isoformat()


def _fraction(random: Random, digits: int) -> tuple[int, bytes, str]:
    """Microseconds, as they are stored and as they are written."""
    number = random.choice([0, 10**digits - 1, random.randrange(10**digits)]) if digits else 0
    micros = number * 10 ** (6 - digits)
    stored = number * 10 if digits % 2 else number
    return micros, stored.to_bytes((digits + 1) // 2, "big"), f".{micros:06d}".rstrip("0") if micros else ""


def moment(base: str, digits: int) -> ColumnType:
    def draw(random: Random) -> tuple[bytes, str]:
        _, stored, fraction = _fraction(random, digits)
        drawn = EPOCH + timedelta(random.randint(1, 20_000))
        hour, minute, second = random.randrange(24), random.randrange(60), random.randrange(60)
        text = f"{drawn.isoformat()} {hour:02d}:{minute:02d}:{second:02d}{fraction}"
        if base == "timestamp":
            seconds = (drawn - EPOCH).days * 86400 + hour * 3600 + minute * 60 + second
            return struct.pack(">I", seconds) + stored, f"{text}+00"
        whole = (drawn.year * 13 + drawn.month) << 22 | drawn.day << 17 | hour << 12 | minute << 6 | second
        return (whole + 0x8000000000).to_bytes(5, "big") + stored, text

    wire = Wire.TIMESTAMP2 if base == "timestamp" else Wire.DATETIME2
    return ColumnType(f"{base}({digits})" if digits else base, wire, bytes([digits]), draw)


def span(digits: int) -> ColumnType:
    def draw(random: Random) -> tuple[bytes, str]:
        micros, stored, fraction = _fraction(random, digits)
        hour, minute, second = random.randrange(839), random.randrange(60), random.randrange(60)
        packed = int.from_bytes((hour << 12 | minute << 6 | second).to_bytes(3, "big") + stored, "big")
        text = f"{hour:02d}:{minute:02d}:{second:02d}{fraction}"
        negative = random.random() < 0.5 and (hour or minute or second or micros)
        signed = (-packed if negative else packed) + (0x800000 << 8 * len(stored))
        return signed.to_bytes(3 + len(stored), "big"), f"-{text}" if negative else text

    return ColumnType(f"time({digits})" if digits else "time", Wire.TIME2, bytes([digits]), draw)


def text(name: str, wire: Wire, metadata: bytes, prefix: int, longest: int) -> ColumnType:
    def draw(random: Random) -> tuple[bytes, str]:
        drawn = random.choice([word for word in WORDS if len(word.encode()) <= longest])
        content = drawn.encode()
        return len(content).to_bytes(prefix, "little") + content, drawn

    return ColumnType(f"{name} character set utf8mb4", wire, metadata, draw)


def binary(name: str, wire: Wire, metadata: bytes, prefix: int, fixed: int = 0, front: bytes = b"") -> ColumnType:
    def draw(random: Random) -> tuple[bytes, str]:
        content = random.randbytes(random.randrange(fixed + 1 if fixed else 20)).rstrip(b"\0")
        whole = content.ljust(fixed, b"\0")
        stored = front + (content if fixed else whole)
        return len(stored).to_bytes(prefix, "little") + stored, f"\\x{whole.hex()}"

    return ColumnType(name, wire, metadata, draw)


def document(random: Random) -> tuple[bytes, str]:
    def tree(depth: int) -> object:
        kind = random.randrange(4) if depth < 3 else 2
        if kind == 0:
            keys = random.sample(["a", "b", "key", 'k"'], random.randrange(4))
            return {key: tree(depth + 1) for key in sorted(keys, key=lambda key: (len(key), key))}
        if kind == 1:
            return [tree(depth + 1) for _ in range(random.randrange(4))]
        return random.choice([None, True, 0, -70000, 1 << 40, (1 << 64) - 1, 0.5, "", "text", "\u00e9\n"])

    drawn = tree(0)
    content = encoded(drawn)
    return struct.pack("<I", len(content)) + content, json.dumps(drawn, ensure_ascii=False)


def vector(random: Random) -> tuple[bytes, str]:
    numbers = [random.choice([0.5, -2.0, 1024.0]) for _ in range(random.randrange(1, 4))]
    content = struct.pack(f"<{len(numbers)}f", *numbers)
    return struct.pack("<I", len(content)) + content, "{" + ",".join(map(str, numbers)) + "}"


def chosen(name: str, wire: Wire, labels: Sequence[str]) -> ColumnType:
    def draw(random: Random) -> tuple[bytes, str]:
        if wire is Wire.ENUM:
            number = random.randrange(len(labels) + 1)
            return bytes([number]), ["", *labels][number]
        mask = random.getrandbits(len(labels))
        return bytes([mask]), ",".join(label for i, label in enumerate(labels) if mask >> i & 1)

    declared = f"{name}(" + ",".join(f"'{label}'" for label in labels) + ")"
    return ColumnType(declared, Wire.STRING, bytes([wire, 1]), draw)


TYPES = [
    *integer("tinyint", Wire.TINY, 1),
    *integer("smallint", Wire.SHORT, 2),
    *integer("mediumint", Wire.INT24, 3),
    *integer("int", Wire.LONG, 4),
    *integer("bigint", Wire.LONGLONG, 8),
    floating("float", Wire.FLOAT, "<f"),
    floating("double", Wire.DOUBLE, "<d"),
    *(decimal(*numbers) for numbers in [(10, 2), (65, 30), (9, 9), (1, 0), (18, 0), (20, 11)]),
    *map(bits, [1, 8, 13, 64]),
    ColumnType(
        "year",
        Wire.YEAR,
        b"",
        lambda random: random.choice([(b"\0", "0"), (b"\1", "1901"), (b"\xff", "2155")]),
        is_numeric=True,
    ),
    ColumnType("date", Wire.DATE, b"", day),
    *(moment(base, digits) for base in ("datetime", "timestamp") for digits in (0, 1, 3, 6)),
    *map(span, [0, 1, 3, 6]),
    text("varchar(20)", Wire.VARCHAR, struct.pack("<H", 80), 1, 80),
    text("varchar(300)", Wire.VARCHAR, struct.pack("<H", 1200), 2, 1200),
    text("char(5)", Wire.STRING, bytes([254, 20]), 1, 20),
    text("char(200)", Wire.STRING, bytes([254 ^ 0x30, 800 - 768]), 2, 800),
    text("tinytext", Wire.BLOB, b"\1", 1, 255),
    text("longtext", Wire.BLOB, b"\4", 4, 1 << 20),
    binary("varbinary(50)", Wire.VARCHAR, struct.pack("<H", 50), 1),
    binary("binary(6)", Wire.STRING, bytes([254, 6]), 1, fixed=6),
    binary("blob", Wire.BLOB, b"\2", 2),
    binary("mediumblob", Wire.BLOB, b"\3", 3),
    binary("geometry", Wire.GEOMETRY, b"\4", 4, front=bytes(4)),
    ColumnType("json", Wire.JSON, b"\4", document),
    ColumnType("vector(3)", Wire.VECTOR, b"\4", vector),
    chosen("enum", Wire.ENUM, ["a", "b c", "\u00e9"]),
    chosen("set", Wire.SET, ["x", "y", "z"]),
]


def others(name: str, metadata: bytes, sizes: Sequence[int], wire: int = Wire.STRING) -> ColumnType:
    def draw(random: Random) -> tuple[bytes, str]:
        content = random.randbytes(random.choice(sizes))
        return bytes([len(content)]) + content, ""

    return ColumnType(name, wire, metadata, draw)


# What has bytes of its own, but a text that is worked out on the way.
OTHERS = [
    others("uuid", bytes([254, 16]), [0, 16]),
    others("inet6", bytes([254, 16]), [0, 16]),
    others("inet4", bytes([254, 4]), [0, 4]),
    others("varchar(9) character set latin1", b"\x09\0", [0, 5, 9], Wire.VARCHAR),
    ColumnType("timestamp", Wire.TIMESTAMP, b"", lambda random: (random.randbytes(4), "")),
    ColumnType("datetime", Wire.DATETIME, b"", lambda random: (random.randbytes(8), "")),
    ColumnType("time", Wire.TIME, b"", lambda random: (random.randbytes(3), "")),
]


def table_map(number: int, types: Sequence[ColumnType], *, has_names: bool) -> bytes:
    """The body of a table map event of `d.t`, whose columns are c0, c1 and so on."""
    metadata = b"".join(column.metadata for column in types)
    content = [
        number.to_bytes(6, "little") + b"\1\0\1d\0\1t\0",
        bytes([len(types)]) + bytes(column.wire for column in types),
        bytes([len(metadata)]) + metadata,
        b"\xff" * ((len(types) + 7) // 8),
    ]
    if has_names:
        names = b"".join(bytes([len(f"c{i}")]) + f"c{i}".encode() for i in range(len(types)))
        signs = "".join(
            str(int("unsigned" in column.name or column.name == "year")) for column in types if column.is_numeric
        )
        packed = bytes(int(signs[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(signs), 8))
        content += [b"\1" + bytes([len(packed)]) + packed, b"\4" + bytes([len(names)]) + names]
    return b"".join(content)


def row_image(values: Sequence[bytes | None]) -> bytes:
    """A row in which all columns are: which of them are null, and the others."""
    nulls = sum(1 << index for index, value in enumerate(values) if value is None)
    return nulls.to_bytes((len(values) + 7) // 8, "little") + b"".join(value for value in values if value is not None)


def rows_event(kind: int, number: int, width: int, images: Sequence[bytes]) -> bytes:
    """The body of a row event."""
    everything = ((1 << width) - 1).to_bytes((width + 7) // 8, "little")
    maps = everything * (2 if kind in (Event.UPDATE_ROWS, Event.UPDATE_ROWS_V1, Event.PARTIAL_UPDATE_ROWS) else 1)
    extra = b"" if kind <= Event.DELETE_ROWS_V1 else b"\2\0"
    return number.to_bytes(6, "little") + b"\1\0" + extra + bytes([width]) + maps + b"".join(images)


class Followed:
    """A catalog with one table, which it follows as a pipeline does."""

    def __init__(self, types: Sequence[ColumnType]) -> None:
        columns = tuple(
            Column(f"c{i}", column.name, logical_type(source_type(column.name)), i + 1)
            for i, column in enumerate(types)
        )
        schema = TableSchema(TableName("d", "t"), 1, columns, full_before=True)
        self._entry = TableState(schema, "utf8mb4", 0, copied=True, next_column=len(types) + 1)

    def start(self, identity: int) -> int:
        return 0

    def plan(self, described: TableMap) -> Plan | None:
        return plan_rows(self._entry, described)

    def doubted(self, name: TableName, why: str, transaction: int) -> list[Step] | None:
        return [Suspect(self._entry.schema, why, transaction)]

    def unsaid(self, names: Collection[TableName] | None, why: str, order: int, transaction: int) -> list[Step]:
        return [Suspect(self._entry.schema, why, transaction)]

    def statement(self, statement: Query, order: int, transaction: int, ordinal: int) -> list[Step]:
        return []


class Latin:
    """A converter that knows one character set."""

    def text(self, charset: str, values: list[bytes]) -> list[str]:
        return [value.decode("latin-1") for value in values]


def same_text(kind: Kind, found: str | None, wanted: str | None) -> bool:
    """Whether two canonical texts are of one value; floats are written in more than one way."""
    if kind not in (Kind.FLOAT32, Kind.FLOAT64, Kind.VECTOR) or found is None or wanted is None:
        return found == wanted
    ours, theirs = (list(map(float, text.strip("{}").split(","))) for text in (found, wanted))
    nearly = 1e-7 if kind is Kind.FLOAT32 else 0  # nine digits are as exact as seventeen
    return len(ours) == len(theirs) and all(
        math.isclose(*pair, rel_tol=nearly) for pair in zip(ours, theirs, strict=True)
    )
