"""How values live in PostgreSQL: a type takes the source's text if what it writes of it is that text again."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlglot import exp

from cdc.model.schema import Column, Kind, LogicalType
from cdc.tables import sql
from cdc.typed.codec import Codec

DIALECT = "postgres"
_MOST_DIGITS = 1000


@dataclass(frozen=True, slots=True)
class OutputCodec(Codec):
    """A type by its own input and output functions. A cast to text would not do for the latter: it trims char(n) and
    writes booleans in full.

    Attributes:
        is_same: the texts are written by this very type, whose texts are the same in all versions and places. To look
            at each of them took longer than all else.
    """

    dialect: str = DIALECT
    is_same: bool = False

    @property
    def type(self) -> exp.DataType:
        return exp.DataType(this=exp.DataType.Type.USERDEFINED, kind=self.sql_type)

    def parse(self, text: exp.Expression) -> exp.Expression:
        return exp.Cast(this=text, to=self.type)

    def careful(self, text: exp.Expression) -> exp.Expression:
        """`pg_input_is_valid` is there since PostgreSQL 16. A constant would be cast before it was asked."""
        valid = exp.Anonymous(this="pg_input_is_valid", expressions=[text.copy(), sql.literal(self.sql_type)])
        value = (
            exp.select(sql.cast(text.copy(), "VARCHAR")).subquery() if isinstance(text, exp.Literal) else text.copy()
        )
        return exp.Case().when(valid, exp.Cast(this=value, to=self.type))

    def suspect(self, text: exp.Expression) -> exp.Expression | None:
        return None if self.is_same else self.misfit(text)

    def render(self, value: exp.Expression) -> exp.Expression:
        is_null = exp.NullSafeEQ(this=value.copy(), expression=exp.Null())  # a row of NULLs IS NULL, and is none
        output = exp.Anonymous(this="concat", expressions=[value.copy()])
        return exp.Case().when(is_null, exp.Null()).else_(output)


@dataclass(frozen=True, slots=True)
class FloatCodec(OutputCodec):
    """A float may have other texts than the shortest one of this server, of the same value."""

    def misfit(self, text: exp.Expression) -> exp.Expression:
        valid = exp.Anonymous(this="pg_input_is_valid", expressions=[text.copy(), sql.literal(self.sql_type)])
        return exp.Not(this=valid)


@dataclass(frozen=True, slots=True)
class TextCodec(OutputCodec):
    """The source's text as it is."""

    sql_type: str = "text"
    is_text: bool = True

    def parse(self, text: exp.Expression) -> exp.Expression:
        return text

    def careful(self, text: exp.Expression) -> exp.Expression:
        return text

    def suspect(self, text: exp.Expression) -> exp.Expression | None:
        return None

    def render(self, value: exp.Expression) -> exp.Expression:
        return value.copy()


TEXT = TextCodec()
_TYPES = {
    Kind.BOOL: "boolean",
    Kind.INT16: "smallint",
    Kind.INT32: "integer",
    Kind.INT64: "bigint",
    Kind.UINT32: "bigint",
    Kind.UINT64: "numeric(20,0)",
    Kind.FLOAT32: "real",
    Kind.FLOAT64: "double precision",
    Kind.BYTES: "bytea",
    Kind.DATE: "date",
    Kind.TIME: "time without time zone",
    Kind.TIMESTAMP: "timestamp without time zone",
    Kind.TIMESTAMPTZ: "timestamp with time zone",
    Kind.INTERVAL: "interval",
    Kind.UUID: "uuid",
    Kind.JSON: "json",  # which keeps its text; jsonb does not
}

# Others depend on what else a database has (regclass), on its locale (money), or took another value once (interval).
_SAME = frozenset(
    "boolean smallint integer bigint numeric real bytea date uuid json jsonb inet cidr macaddr macaddr8 bit".split()
) | {
    *("double precision", "character", "character varying", "bit varying"),
    *(f"{kind} {zone} time zone" for kind in ("time", "timestamp") for zone in ("with", "without")),
}
_UNPARAMETERED = re.compile(r"\([\d,]+\)")  # numeric(12,2), timestamp(3) without time zone


def codec_for(column: Column, *, keeps_types: bool) -> Codec:
    """The codec that a column begins with.

    Args:
        keeps_types: the source is PostgreSQL, whose own types are there too. Those of its extensions and its users have
            the name of a schema before them, and may not be.
    """
    if keeps_types and "." not in column.source_type and '"' not in column.source_type:
        return _own(column.source_type, is_same=_UNPARAMETERED.sub("", column.source_type) in _SAME)
    return _of(column.type)


def codec_of(sql_type: str) -> Codec:
    """The codec of a column that is there."""
    return _own(sql_type)


def _own(sql_type: str, *, is_same: bool = False) -> Codec:
    if sql_type in ("real", "double precision"):
        return FloatCodec(sql_type, is_same=is_same)
    return TEXT if sql_type == TEXT.sql_type else OutputCodec(sql_type, is_same=is_same)


def _of(kind: LogicalType) -> Codec:
    if kind.kind is Kind.DECIMAL:
        if kind.precision is None or kind.scale is None:
            return OutputCodec("numeric")
        scale, precision = max(kind.scale, 0), max(kind.precision - min(kind.scale, 0), kind.scale)
        return OutputCodec(f"numeric({precision},{scale})") if precision <= _MOST_DIGITS else TEXT
    sql_type = _TYPES.get(kind.kind)
    return _own(sql_type) if sql_type is not None else TEXT
