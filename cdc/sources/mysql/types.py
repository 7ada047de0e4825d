"""MySQL's and MariaDB's column types: read from how the server writes them, what they mean, how they lie in the log."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache

from cdc.errors import UsageError
from cdc.model.schema import Kind, LogicalType
from cdc.sources.mysql.tablemap import HIGH_RESOLUTION, Wire, WireColumn

_FORM = re.compile(r"(?P<base>\w+)(?:\((?P<inside>.*)\))?(?P<rest>[^()]*)", re.DOTALL)
_CHARSET = re.compile(r" character set (\w+)$")  # a label may have these words too
_LABEL = re.compile(r"'((?:[^']|'')*)'")
_ESCAPED = re.compile(r"''|\\.")

_GEOMETRIES = frozenset(
    [
        "geometry",
        "point",
        "linestring",
        "polygon",
        "multipoint",
        "multilinestring",
        "multipolygon",
        "geometrycollection",
        "geomcollection",
    ]
)
_TEXTS = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext"}
_BLOBS = {"tinyblob", "blob", "mediumblob", "longblob"}
_WIRES: dict[str, tuple[Wire, ...]] = {
    "tinyint": (Wire.TINY,),
    "smallint": (Wire.SHORT,),
    "mediumint": (Wire.INT24,),
    "int": (Wire.LONG,),
    "bigint": (Wire.LONGLONG,),
    "float": (Wire.FLOAT,),
    "double": (Wire.DOUBLE,),
    "decimal": (Wire.NEWDECIMAL,),
    "bit": (Wire.BIT,),
    "year": (Wire.YEAR,),
    "date": (Wire.DATE, Wire.NEWDATE),
    "datetime": (Wire.DATETIME2, Wire.DATETIME),
    "timestamp": (Wire.TIMESTAMP2, Wire.TIMESTAMP),
    "time": (Wire.TIME2, Wire.TIME),
    "char": (Wire.STRING, Wire.VAR_STRING),
    "binary": (Wire.STRING,),
    "varchar": (Wire.VARCHAR, Wire.VAR_STRING),
    "varbinary": (Wire.VARCHAR, Wire.VAR_STRING),
    "enum": (Wire.ENUM,),
    "set": (Wire.SET,),
    "json": (Wire.JSON,),
    "vector": (Wire.VECTOR, Wire.VARCHAR),
    "uuid": (Wire.STRING,),
    "inet6": (Wire.STRING,),
    "inet4": (Wire.STRING,),
} | dict.fromkeys([*(_TEXTS - {"char", "varchar"}), *_BLOBS], (Wire.BLOB,))
_WIRES |= dict.fromkeys(_GEOMETRIES, (Wire.GEOMETRY,))

# (signed, unsigned): the smallest kind that holds every value.
_INTEGERS = {
    "tinyint": (Kind.INT16, Kind.INT16),
    "smallint": (Kind.INT16, Kind.INT32),
    "mediumint": (Kind.INT32, Kind.INT32),
    "int": (Kind.INT32, Kind.UINT32),
    "bigint": (Kind.INT64, Kind.UINT64),
}
_KINDS = {
    "float": Kind.FLOAT32,
    "double": Kind.FLOAT64,
    "bit": Kind.UINT64,
    "year": Kind.INT16,
    "date": Kind.DATE,
    "datetime": Kind.TIMESTAMP,
    "timestamp": Kind.TIMESTAMPTZ,
    "time": Kind.INTERVAL,  # it holds -838:59:59 to 838:59:59, which is no time of day
    "enum": Kind.TEXT,
    "set": Kind.TEXT,
    "json": Kind.JSON,
    "uuid": Kind.UUID,
    "inet4": Kind.OPAQUE,
    "inet6": Kind.OPAQUE,
    "binary": Kind.BYTES,
    "varbinary": Kind.BYTES,
}


@dataclass(frozen=True, slots=True)
class SourceType:
    """A column type, taken apart.

    Attributes:
        base: its name, without aliases.
        numbers: what stands in its parentheses: a length, precision and scale, fractional digits.
        labels: of an enum or a set, in their declared order.
        unsigned: whether it is.
        charset: of text; None for everything else.
        generated: the server works it out from other columns, and MariaDB's log may lack it, whatever becomes of it.
    """

    base: str
    numbers: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    unsigned: bool = False
    charset: str | None = None
    generated: bool = False

    @property
    def is_text(self) -> bool:
        return self.base in _TEXTS

    @property
    def is_geometry(self) -> bool:
        return self.base in _GEOMETRIES


@cache
def source_type(text: str) -> SourceType:
    """Take apart what information_schema.columns.column_type says, with ` character set x` behind it, and ` virtual` or
    ` stored` (MariaDB's generated columns).

    Raises:
        UsageError: cdc does not know the type.
    """
    plain = text.removesuffix(" virtual").removesuffix(" stored")
    generated = plain != text
    charset, plain = _CHARSET.search(plain), _CHARSET.sub("", plain)
    if "COMPRESSED" in plain:  # B-61
        raise UsageError(f"A column is of the type {plain!r}, whose values cdc cannot read.")
    match = _FORM.fullmatch(plain)
    if match is None or match["base"] not in _WIRES:
        raise UsageError(f"A column is of the type {plain!r}, which cdc does not know.")
    base, inside, rest = match["base"], match["inside"], match["rest"].split()
    if base in ("enum", "set"):
        labels = tuple(_ESCAPED.sub(_unescaped, label) for label in _LABEL.findall(inside or ""))
        return SourceType(base, labels=labels, generated=generated)
    numbers = tuple(int(number) for number in (inside or "").split(",") if number.strip().isdecimal())
    unsigned = "unsigned" in rest or "zerofill" in rest
    return SourceType(base, numbers, unsigned=unsigned, charset=charset[1] if charset else None, generated=generated)


def logical_type(of: SourceType) -> LogicalType:
    """What a column type means, free of the server's names for it."""
    if of.base in _INTEGERS:
        return LogicalType(_INTEGERS[of.base][of.unsigned])
    if of.base == "decimal":
        precision, scale = (*of.numbers, 10, 0)[:2] if not of.numbers else (*of.numbers, 0)[:2]
        return LogicalType(Kind.DECIMAL, precision, scale)
    if of.base == "vector":
        return LogicalType(Kind.VECTOR)
    if of.base in _KINDS:
        return LogicalType(_KINDS[of.base])
    if of.is_text:
        return LogicalType(Kind.BYTES if of.charset == "binary" else Kind.TEXT)
    return LogicalType(Kind.BYTES)


def laid_out(of: SourceType, column: WireColumn) -> WireColumn:
    """How values of a type lie in a row image, where the table map says too little of that.

    That is so of what MariaDB 5.3 to 10.0 made with fractional digits, and still makes with
    `mysql56_temporal_format = OFF` (M11).
    """
    digits = of.numbers[0] if of.numbers else 0
    if column.wire not in HIGH_RESOLUTION or digits == 0:
        return column
    return replace(column, size=HIGH_RESOLUTION[column.wire][digits], length=digits)


def fits(of: SourceType, column: WireColumn) -> bool:
    """Whether the log lays out a column as one of this type; if not, the table has another shape than we believe."""
    if column.wire not in _WIRES[of.base]:
        return False
    if column.unsigned is not None and column.unsigned != of.unsigned:
        return False
    if column.wire is Wire.NEWDECIMAL:
        logical = logical_type(of)
        return (column.length, column.scale) == (logical.precision, logical.scale)
    if column.wire in (Wire.TIMESTAMP2, Wire.DATETIME2, Wire.TIME2):
        return column.length == (of.numbers or (0,))[0]
    if of.base == "bit":
        return column.length == (of.numbers or (1,))[0]
    if of.base in ("enum", "set"):
        return column.size == label_bytes(of)
    if of.base in ("binary", "varbinary"):
        return column.length == of.numbers[0]
    return True


_SIZES = {"tinyint": 1, "smallint": 2, "mediumint": 3, "int": 4, "bigint": 8}
_LONGER = ("tinytext", "text", "mediumtext", "longtext"), ("tinyblob", "blob", "mediumblob", "longblob")


def keeps_values(old: SourceType, new: SourceType) -> bool:
    """Whether every value of a column stays the same, as a value, when it gets another type."""
    if old.generated or new.generated or old.charset != new.charset:
        return False
    if old.base in _SIZES and new.base in _SIZES:
        larger = _SIZES[new.base] - _SIZES[old.base]
        return larger >= 0 if old.unsigned == new.unsigned else larger > 0 and old.unsigned
    if old.base == new.base == "decimal" and old.unsigned == new.unsigned:
        was, now = logical_type(old), logical_type(new)
        digits, scale = (now.precision or 0) - (was.precision or 0), (now.scale or 0) - (was.scale or 0)
        return scale >= 0 and digits >= scale
    if old.base == new.base and old.base in ("char", "varchar", "varbinary"):
        return bool(old.numbers and new.numbers) and old.numbers <= new.numbers
    return any(
        old.base in kinds and new.base in kinds and kinds.index(old.base) <= kinds.index(new.base) for kinds in _LONGER
    )


def _unescaped(escape: re.Match[str]) -> str:
    """information_schema writes labels as SQL does by default, whatever the sql_mode (its append_unescaped)."""
    return {"0": "\0", "n": "\n", "r": "\r"}.get(escape[0][1], escape[0][1])


def label_bytes(of: SourceType) -> int:
    """How many bytes a value of an enum (a number) or of a set (a mask) takes."""
    if of.base == "enum":
        return 1 if len(of.labels) < 256 else 2
    whole = (len(of.labels) + 7) // 8
    return whole if whole <= 4 else 8
