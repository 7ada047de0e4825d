"""How each logical type lives in DuckDB (see `cdc.typed.codec`)."""

from __future__ import annotations

import re
from functools import cache

from cdc.model.schema import Kind, LogicalType
from cdc.typed.codec import VALUE as _VALUE
from cdc.typed.codec import Codec

MAX_PRECISION = 38


TEXT_CODEC = Codec("VARCHAR", is_text=True)

_AS_TEXT = f"CAST({_VALUE} AS VARCHAR)"


def _plain(sql_type: str) -> Codec:
    """A type that DuckDB reads and writes as PostgreSQL does."""
    return Codec(sql_type, f"CAST({_VALUE} AS {sql_type})", _AS_TEXT, f"TRY_CAST({_VALUE} AS {sql_type})")


def _float(sql_type: str, positional_below: int) -> Codec:
    """PostgreSQL and DuckDB disagree on when to use an exponent.

    float8out and float4out write one below 1e-4 and from 1e15 and 1e6 on (src/common/d2s.c, f2s.c). On the digits they
    agree but for values that lie exactly between two shorter ones: there the text may differ, never the value.
    """
    text = f"CAST(abs({_VALUE}) AS VARCHAR)"
    mantissa = f"split_part({text}, 'e', 1)"
    whole, fraction = f"split_part({mantissa}, '.', 1)", f"rtrim(split_part({mantissa}, '.', 2), '0')"
    digits = f"rtrim(ltrim(concat({whole}, {fraction}), '0'), '0')"
    written = f"coalesce(TRY_CAST(split_part({text}, 'e', 2) AS INTEGER), 0)"
    exponent = (
        f"CAST({written} + CASE WHEN {whole} <> '0' THEN length({whole}) - 1 "
        f"ELSE length(ltrim({fraction}, '0')) - length({fraction}) - 1 END AS INTEGER)"
    )
    scientific = (
        f"concat(left({digits}, 1), CASE WHEN length({digits}) > 1 THEN concat('.', substr({digits}, 2)) ELSE '' END, "
        f"'e', CASE WHEN {exponent} < 0 THEN '-' ELSE '+' END, "
        f"CASE WHEN abs({exponent}) < 10 THEN '0' ELSE '' END, abs({exponent}))"
    )
    positional = (
        f"CASE WHEN {exponent} < 0 THEN concat('0.', repeat('0', -{exponent} - 1), {digits}) "
        f"WHEN length({digits}) <= {exponent} + 1 THEN rpad({digits}, {exponent} + 1, '0') "
        f"ELSE concat(left({digits}, {exponent} + 1), '.', substr({digits}, {exponent} + 2)) END"
    )
    render = (
        f"CASE WHEN {_VALUE} IS NULL THEN NULL WHEN isnan({_VALUE}) THEN 'NaN' "
        f"WHEN isinf({_VALUE}) THEN CASE WHEN {_VALUE} > 0 THEN 'Infinity' ELSE '-Infinity' END "
        f"ELSE concat(CASE WHEN signbit({_VALUE}) THEN '-' ELSE '' END, CASE WHEN {_VALUE} = 0 THEN '0' "
        f"WHEN {exponent} < -4 OR {exponent} >= {positional_below} THEN {scientific} ELSE {positional} END) END"
    )
    return Codec(sql_type, f"CAST({_VALUE} AS {sql_type})", render, f"TRY_CAST({_VALUE} AS {sql_type})")


_BOOL = Codec(
    "BOOLEAN",
    f"CAST({_VALUE} AS BOOLEAN)",
    f"CASE WHEN {_VALUE} IS NULL THEN NULL WHEN {_VALUE} THEN 't' ELSE 'f' END",
    f"TRY_CAST({_VALUE} AS BOOLEAN)",
)

_BYTES = Codec(
    "BLOB",
    f"unhex(substr({_VALUE}, 3))",
    f"CASE WHEN {_VALUE} IS NULL THEN NULL ELSE concat('\\x', lower(hex({_VALUE}))) END",
    f"CASE WHEN regexp_full_match({_VALUE}, '\\\\x([0-9a-f]{{2}})*') THEN unhex(substr({_VALUE}, 3)) END",
)


def _off_calendar(sql_type: str) -> str:
    """MySQL takes dates that do not exist: a month or a day 0, with ALLOW_INVALID_DATES also 30 February (B-51)."""
    return (
        f"CASE WHEN substr({_VALUE}, 9, 2) >= '29' THEN TRY_CAST({_VALUE} AS {sql_type}) IS NULL "
        f"ELSE contains({_VALUE}, '-00') END"
    )


# What most values look like, so that nobody has to ask the database about a few of them (`Codec.is_plain`).
_PLAIN_DAY = rb"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
_PLAIN_DATE = re.compile(_PLAIN_DAY)
_PLAIN_TIMESTAMP = re.compile(_PLAIN_DAY + rb" [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:\+00)?")
_PLAIN_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?")
_PLAIN_JSON = re.compile(rb"[^\\]*")


# DuckDB writes years before Christ as `0044-03-15 (BC) 12:00:00`, and, read with BC at the end, takes them for years
# after: nothing that ends so, or whose year has another number of digits, goes through the plain cast.
_DATE = Codec(
    "DATE",
    f"CAST({_VALUE} AS DATE)",
    f"replace(CAST({_VALUE} AS VARCHAR), ' (BC)', ' BC')",
    f"TRY_CAST(replace({_VALUE}, ' BC', ' (BC)') AS DATE)",
    f"length({_VALUE}) <> 10 OR {_off_calendar('DATE')}",
    _plain=_PLAIN_DATE,
)


def _timestamp(sql_type: str) -> Codec:
    text = f"CAST({_VALUE} AS VARCHAR)"
    return Codec(
        sql_type,
        f"CAST({_VALUE} AS {sql_type})",
        f"CASE WHEN contains({text}, '(BC)') THEN concat(replace({text}, ' (BC)', ''), ' BC') ELSE {text} END",
        f"TRY_CAST(CASE WHEN suffix({_VALUE}, ' BC') THEN concat(split_part({_VALUE}, ' ', 1), ' (BC) ', "
        f"split_part({_VALUE}, ' ', 2)) ELSE {_VALUE} END AS {sql_type})",
        f"substr({_VALUE}, 5, 1) <> '-' OR substr({_VALUE}, 11, 1) <> ' ' OR suffix({_VALUE}, 'C') "
        f"OR {_off_calendar(sql_type)}",
        _plain=_PLAIN_TIMESTAMP,
    )


def _interval() -> Codec:
    """As EncodeInterval (src/backend/utils/adt/datetime.c) writes it: a field after a negative one carries its sign."""
    year, month, day = (f"datepart('{unit}', {_VALUE})" for unit in ("year", "month", "day"))
    hour, minute = (f"datepart('{unit}', {_VALUE})" for unit in ("hour", "minute"))
    second = f"datepart('microsecond', {_VALUE})"  # with the whole seconds
    after_year = f"{year} < 0"
    after_month = f"CASE WHEN {month} <> 0 THEN {month} < 0 ELSE {after_year} END"
    after_day = f"CASE WHEN {day} <> 0 THEN {day} < 0 ELSE {after_month} END"

    def part(amount: str, unit: str, after_negative: str) -> str:
        return (
            f"CASE WHEN {amount} <> 0 THEN concat(CASE WHEN {after_negative} AND {amount} > 0 THEN '+' ELSE '' END, "
            f"{amount}, ' {unit}', CASE WHEN {amount} = 1 THEN '' ELSE 's' END) END"
        )

    seconds = f"(abs({second}) // 1000000)"
    micros = f"(abs({second}) % 1000000)"
    clock = (
        f"CASE WHEN ({year} = 0 AND {month} = 0 AND {day} = 0) OR {hour} <> 0 OR {minute} <> 0 OR {second} <> 0 THEN "
        f"concat(CASE WHEN {hour} < 0 OR {minute} < 0 OR {second} < 0 THEN '-' WHEN {after_day} THEN '+' ELSE '' END, "
        f"printf('%02d:%02d:%02d', abs({hour}), abs({minute}), {seconds}), "
        f"CASE WHEN {micros} = 0 THEN '' ELSE concat('.', rtrim(printf('%06d', {micros}), '0')) END) END"
    )
    render = (
        f"CASE WHEN {_VALUE} IS NULL THEN NULL ELSE concat_ws(' ', {part(year, 'year', 'FALSE')}, "
        f"{part(month, 'mon', after_year)}, {part(day, 'day', after_month)}, {clock}) END"
    )
    read = f"TRY_CAST(replace({_VALUE}, '+', '') AS INTERVAL)"
    return Codec("INTERVAL", read, render, read, "TRUE")


_JSON = Codec(
    "JSON",
    f"CAST({_VALUE} AS JSON)",
    _AS_TEXT,
    f"TRY_CAST({_VALUE} AS JSON)",
    f"contains({_VALUE}, '\\u')",  # half of a surrogate pair is refused by DuckDB
    _plain=_PLAIN_JSON,
)

_CODECS = {
    Kind.BOOL: _BOOL,
    Kind.INT16: _plain("SMALLINT"),
    Kind.INT32: _plain("INTEGER"),
    Kind.INT64: _plain("BIGINT"),
    Kind.UINT32: _plain("UINTEGER"),
    Kind.UINT64: _plain("UBIGINT"),
    Kind.FLOAT32: _float("FLOAT", 6),
    Kind.FLOAT64: _float("DOUBLE", 15),
    Kind.TEXT: TEXT_CODEC,
    Kind.BYTES: _BYTES,
    Kind.DATE: _DATE,
    Kind.TIME: _plain("TIME"),
    Kind.TIMESTAMP: _timestamp("TIMESTAMP"),
    Kind.TIMESTAMPTZ: _timestamp("TIMESTAMP WITH TIME ZONE"),
    Kind.INTERVAL: _interval(),
    Kind.UUID: _plain("UUID"),
    Kind.JSON: _JSON,
    Kind.OPAQUE: TEXT_CODEC,
}
_KINDS = {codec.sql_type: kind for kind, codec in _CODECS.items()}
_DECIMAL_TYPE = re.compile(r"DECIMAL\((\d+),(\d+)\)")
# Elements that DuckDB reads from the text of a whole list. The others come out of an array one by one, as text.
_LIST_CAST = {
    Kind.BOOL,
    Kind.INT16,
    Kind.INT32,
    Kind.INT64,
    Kind.UINT32,
    Kind.UINT64,
    Kind.FLOAT32,
    Kind.FLOAT64,
    Kind.DECIMAL,
    Kind.DATE,
    Kind.TIME,
    Kind.TIMESTAMP,
    Kind.TIMESTAMPTZ,
    Kind.UUID,
}


# DuckDB makes NULL of an element that it cannot read.
_FLOAT_TEXT = r"(?:NULL|NaN|-?Infinity|-?[0-9]+(?:\.[0-9]+)?(?:e[+-][0-9]+)?)"
_FLOATS = rf"\{{(?:{_FLOAT_TEXT}(?:,{_FLOAT_TEXT})*)?\}}"


@cache
def codec_for(logical: LogicalType) -> Codec:
    """The codec that a column of this type begins with."""
    if logical.kind is Kind.DECIMAL:
        return _decimal(logical)
    if logical.kind is Kind.VECTOR:
        return _list(LogicalType(Kind.FLOAT32), 1)
    if logical.kind is Kind.LIST and logical.element is not None:
        return _list(logical.element, logical.dimensions)
    return _CODECS[logical.kind]


def codec_of(sql_type: str) -> Codec | None:
    """The codec of a column that is there, by DuckDB's name for its type; None if no codec has that type."""
    inner = sql_type.rstrip("[]")
    dimensions = (len(sql_type) - len(inner)) // 2
    if (decimal := _DECIMAL_TYPE.fullmatch(inner)) is not None:
        logical = LogicalType(Kind.DECIMAL, int(decimal[1]), int(decimal[2]))
    elif (kind := _KINDS.get(inner)) is not None:
        logical = LogicalType(kind)
    else:
        return None
    return codec_for(LogicalType(Kind.LIST, element=logical, dimensions=dimensions) if dimensions else logical)


def _decimal(logical: LogicalType) -> Codec:
    """PostgreSQL's scale may be negative (then zeros fill up) or greater than the precision.

    One digit more than the scale makes DuckDB write the zero before the point.
    """
    if logical.precision is None or logical.scale is None:
        return TEXT_CODEC
    scale = max(logical.scale, 0)
    precision = max(logical.precision - min(logical.scale, 0), scale + 1)
    if precision > MAX_PRECISION:
        return TEXT_CODEC
    sql_type = f"DECIMAL({precision},{scale})"
    return Codec(
        sql_type,
        f"CAST({_VALUE} AS {sql_type})",
        _AS_TEXT,
        f"TRY_CAST({_VALUE} AS {sql_type})",
        f"prefix({_VALUE}, 'N')",  # NaN; a bounded numeric has no infinities
        _plain=_PLAIN_NUMBER,
    )


def _list(element: LogicalType, dimensions: int) -> Codec:
    """Arrays are always read with care: PostgreSQL enforces neither the declared depth nor the lower bounds (A-75)."""
    inner = codec_for(element)
    if element.kind in _LIST_CAST and inner is not TEXT_CODEC:
        sql_type = inner.sql_type + "[]" * dimensions
        read = f"TRY_CAST(translate({_VALUE}, '{{}}', '[]') AS {sql_type})"
    elif dimensions == 1:
        sql_type, inner = "VARCHAR[]", TEXT_CODEC
        token = r"""regexp_extract_all(substr(value_, 2, length(value_) - 2), '"(?:[^"\\]|\\.)*"|[^",]+')""".replace(
            "value_", _VALUE
        )
        unquoted = r"""regexp_replace(substr(t, 2, length(t) - 2), '\\(.)', '\1', 'gs')"""
        read = (
            f"list_transform({token}, lambda t: CASE WHEN prefix(t, '\"') THEN {unquoted} WHEN t = 'NULL' THEN NULL "
            "ELSE t END)"
        )
    else:
        return TEXT_CODEC
    fits = None
    if element.kind in (Kind.FLOAT32, Kind.FLOAT64) and dimensions == 1:
        fits = f"{_VALUE} IS NULL OR regexp_full_match({_VALUE}, '{_FLOATS}')"  # see `_float` on its text
    return Codec(sql_type, read, _render_list(inner, dimensions), read, "TRUE", fits)


_QUOTED = r"""CASE WHEN t = '' OR upper(t) = 'NULL' OR regexp_matches(t, '[{}",\\ \t\n\r\v\f]')
THEN concat('"', replace(replace(t, '\', '\\'), '"', '\"'), '"') ELSE t END"""


def _render_list(inner: Codec, dimensions: int) -> str:
    element = inner.rendering.replace(_VALUE, "e1")
    text = f"list_transform(list_transform(VALUE, lambda e1: {element}), lambda t: coalesce({_QUOTED}, 'NULL'))"
    render = f"concat('{{', array_to_string({text}, ','), '}}')"
    for depth in range(2, dimensions + 1):
        nested = render.replace("VALUE", f"e{depth}")
        render = f"concat('{{', array_to_string(list_transform(VALUE, lambda e{depth}: {nested}), ','), '}}')"
    return f"CASE WHEN {_VALUE} IS NULL THEN NULL ELSE {render.replace('VALUE', _VALUE)} END"
