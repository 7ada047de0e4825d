"""Texts in DuckDB: whatever they are, each comes back as it was or is known not to fit; no statement fails."""

from __future__ import annotations

import re
from functools import cache

import duckdb
import numpy as np
import pyarrow as pa
from sqlglot import exp

from cdc.model.schema import Kind, LogicalType
from cdc.tables import sql
from cdc.typed.codecs import codec_for
from tests.fuzz.draw import Draw
from tests.targets.test_codecs import EXACT, MISFITS, TEXT

_OTHERS = [
    (Kind.BOOL, ["t", "f", "true", "1"]),
    (Kind.INT16, ["-32768", "32768", "007", "1_0", "1e2", " 1"]),
    (Kind.INT64, ["-9223372036854775808"]),
    (Kind.UINT64, ["18446744073709551615", "-1"]),
    (Kind.UUID, ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}"]),
    (Kind.TEXT, ["", "x"]),
    (Kind.OPAQUE, ["$12.50"]),
]
SEEDS: dict[LogicalType, list[str]] = {
    **{LogicalType(kind): texts for kind, texts in _OTHERS},
    **{kind: list(texts) for kind, texts in EXACT},
}
for _kind, _text in MISFITS:
    SEEDS.setdefault(_kind, []).append(_text)
SEEDS[LogicalType(Kind.VECTOR)] = ["{1,-2.5}", "{NaN}", "{}"]
SEEDS[LogicalType(Kind.LIST, element=LogicalType(Kind.JSON), dimensions=1)] = ['{"{\\"a\\": 1}",NULL}']
SEEDS[LogicalType(Kind.LIST, element=LogicalType(Kind.BOOL), dimensions=3)] = ["{{{t,f}}}"]
KINDS = list(SEEDS)
_BITS = [*"09-+.:,{}[]()\"'\\eExTZ \n\t\u0664", *"NaN inf infinity BC (BC) NULL null mon year 24:00:00".split()]
_CONNECTION = duckdb.connect(config={"threads": 1, "memory_limit": "512MB"})
_CONNECTION.execute("SET TimeZone = 'UTC'")


def one_input(data: bytes) -> None:
    draw = Draw(data)
    logical = KINDS[draw.ConsumeIntInRange(0, len(KINDS) - 1)]
    texts = [None, *(_text(draw, SEEDS[logical]) for _ in range(draw.ConsumeIntInRange(1, 100)))]
    trusted = []
    for text, (back, misfit, suspect) in zip(texts, _asked(_with_care(logical), texts), strict=True):
        if text is None:
            assert (back, misfit) == (None, False)
        elif not misfit:
            assert back == text or _is_same_number(logical, text, back), (logical, text, back)
            trusted += [text] if not suspect else []
    if trusted:
        for text, (back,) in zip(trusted, _asked(_at_once(logical), trusted), strict=True):
            assert back == text or _is_same_number(logical, text, back), (logical, text, back)


def _text(draw: Draw, seeds: list[str]) -> str:
    text = seeds[draw.ConsumeIntInRange(0, len(seeds) - 1)] if draw.ConsumeIntInRange(0, 9) else draw.ConsumeUnicode(30)
    for _ in range(draw.ConsumeIntInRange(0, 3)):
        at = draw.ConsumeIntInRange(0, len(text))
        piece = _BITS[draw.ConsumeIntInRange(0, len(_BITS) - 1)]
        text = text[:at] + piece + text[at + draw.ConsumeIntInRange(0, 2) :]
    return text.encode(errors="replace").decode()


def _asked(statement: str, texts: list[str | None]) -> list[tuple[object, ...]]:
    _cdc_rows = pa.table({"v": pa.array(texts, pa.string_view())})
    return _CONNECTION.execute(statement).fetchall()


@cache
def _with_care(logical: LogicalType) -> str:
    codec = codec_for(logical)
    suspicion = codec.suspect(TEXT) or exp.false()
    return _select(codec.render(codec.careful(TEXT)), codec.misfit(TEXT), suspicion)


@cache
def _at_once(logical: LogicalType) -> str:
    codec = codec_for(logical)
    return _select(codec.render(codec.parse(TEXT)))


def _select(*columns: exp.Expression) -> str:
    return exp.select(*columns).from_(sql.rows()).sql(sql.DIALECT)


def _is_same_number(logical: LogicalType, text: str, back: object) -> bool:
    """PostgreSQL and DuckDB may write one float with other digits, in an array (elsewhere it counts as a misfit)."""
    of = logical.element.kind if logical.element else logical.kind
    if of not in (Kind.FLOAT32, Kind.FLOAT64, Kind.VECTOR) or logical.kind in (Kind.FLOAT32, Kind.FLOAT64):
        return False
    ours, theirs = (re.sub(r"\s", "", each).strip("{}").split(",") for each in (str(back), text))
    kind = np.float64 if of is Kind.FLOAT64 else np.float32
    return len(ours) == len(theirs) and all(
        one == other or ("NULL" not in (one, other) and np.array_equal(kind(one), kind(other), equal_nan=True))
        for one, other in zip(ours, theirs, strict=True)
    )
