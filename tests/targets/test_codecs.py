"""Codecs on values that are known to be hard; any value, on a real server, is integration/test_types.py's."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp

from cdc.model.schema import Kind, LogicalType
from cdc.tables import sql
from cdc.typed.codecs import codec_for, codec_of


def of(kind: Kind, *numbers: int) -> LogicalType:
    return LogicalType(kind, *numbers)


def array(kind: Kind, dimensions: int = 1) -> LogicalType:
    return LogicalType(Kind.LIST, element=of(kind), dimensions=dimensions)


EXACT = [
    (of(Kind.FLOAT64), ["NaN", "Infinity", "-Infinity", "-0", "1e+15", "999999999999999", "1e-05", "0.0001", "5e-324"]),
    (of(Kind.FLOAT32), ["1e+06", "999999", "3.4028235e+38", "1e-45", "-0"]),
    (of(Kind.DECIMAL, 12, 2), ["-0.01", "9999999999.99", "0.00"]),
    (of(Kind.DECIMAL, 3, -2), ["12300"]),
    (of(Kind.DECIMAL, 5, 5), ["0.00001", "-0.99999"]),
    (of(Kind.DATE), ["0044-03-15 BC", "infinity", "-infinity", "5874897-12-31", "0001-01-01"]),
    (of(Kind.TIME), ["24:00:00", "00:00:00.1"]),
    (of(Kind.TIMESTAMP), ["0044-03-15 12:00:00 BC", "infinity", "10000-01-01 00:00:00", "2024-02-29 23:59:59.999999"]),
    (of(Kind.TIMESTAMPTZ), ["0044-03-15 12:00:00.5+00 BC", "-infinity", "2024-02-29 00:00:00+00"]),
    (of(Kind.INTERVAL), ["1 mon -2 days +03:00:00", "-1 years", "00:00:00", "1 day -00:00:00.000001", "100:00:00"]),
    (of(Kind.BYTES), ["\\x", "\\x00ff"]),
    (of(Kind.JSON), ['{"a":1,"a":2}', " [1 ]", "1e400", "12345678901234567890.12345678901234567890", '"\\u00e9"']),
    (array(Kind.INT32), ["{}", "{1,NULL,-3}"]),
    (array(Kind.INT32, 2), ["{{1,2},{3,NULL}}", "{}"]),
    (array(Kind.TEXT), ['{"NULL",NULL,"","a,b","q\\"\\\\",it\'s}', "{}"]),
    (array(Kind.TIMESTAMP), ['{"2024-01-01 00:00:00",NULL,infinity}']),
]
MISFITS = [
    (of(Kind.DECIMAL, 12, 2), "NaN"),
    (of(Kind.TIMESTAMP), "294276-12-31 23:59:59.999999"),
    (of(Kind.INTERVAL), "infinity"),
    (of(Kind.JSON), '"\\ud800"'),
    (array(Kind.INT32), "{{1,2},{3,4}}"),
    (array(Kind.INT32), "[0:1]={1,2}"),
    (array(Kind.TEXT), "{{a,b},{c,d}}"),
    (array(Kind.TIMESTAMP), '{"0044-03-15 12:00:00 BC"}'),
    (array(Kind.FLOAT64), "{{1,2},{3,4}}"),
]


def ask(texts: list[str], *questions: exp.Expression | None) -> list[tuple[object, ...]]:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    _cdc_rows = pa.table({"v": pa.array(texts, pa.string_view())})
    asked = [question if question is not None else exp.false() for question in questions]
    return connection.execute(exp.select(*asked).from_(sql.rows()).sql(sql.DIALECT)).fetchall()


TEXT = sql.column("v", "s")


@pytest.mark.parametrize(("logical", "texts"), EXACT, ids=str)
def test_what_fits_comes_back_as_it_was(logical: LogicalType, texts: list[str]) -> None:
    """A-71, A-74, A-75, A-77."""
    codec = codec_for(logical)
    for text in texts:
        ((back, misfit, suspect),) = ask(
            [text], codec.render(codec.careful(TEXT)), codec.misfit(TEXT), codec.suspect(TEXT)
        )
        assert back == text
        assert not misfit
        if not suspect:
            assert ask([text], codec.render(codec.parse(TEXT))) == [(text,)]


LIKELY = [
    (of(Kind.DECIMAL, 12, 2), r"N?-?[0-9N]{0,3}(\.[0-9]{1,3})?"),
    (of(Kind.DATE), r"[0-9]{4,5}-[013][0-9]-[0-3][0-9]( BC)?"),
    (of(Kind.TIMESTAMP), r"[0-9]{4,5}-[013][0-9]-[0-3][0-9] [0-2][0-9]:00:59(\.[0-9]{1,6})?( BC)?"),
    (of(Kind.TIMESTAMPTZ), r"[0-9]{4,5}-[013][0-9]-[0-3][0-9] [0-2][0-9]:00:59(\.[0-9]{1,6})?[+-]0[0-9]( BC)?"),
    (of(Kind.JSON), r'"(\\|\\\\|\\u00e9|\\n|[a-zé\n])*"'),
]


@pytest.mark.parametrize(("logical", "likely"), LIKELY, ids=lambda value: str(getattr(value, "kind", "")))
@given(data=st.data())
def test_what_looks_plain_needs_no_care(logical: LogicalType, likely: str, data: st.DataObject) -> None:
    """O50: a few values are looked at, and DuckDB is not asked about them."""
    codec = codec_for(logical)
    texts = data.draw(st.lists(st.from_regex(likely, fullmatch=True) | st.text(max_size=12), max_size=20))
    plain = [text for text in texts if codec.is_plain([text.encode()])]
    assert all(suspect is False for (suspect,) in ask(plain, codec.suspect(TEXT)))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind.DATE, "2024-02-28"),
        (Kind.TIMESTAMP, "2024-12-01 23:59:59.5"),
        (Kind.TIMESTAMPTZ, "2024-12-01 00:00:00+00"),
        (Kind.JSON, '{"a": [1, null]}'),
    ],
)
def test_most_values_look_plain(kind: Kind, text: str) -> None:
    assert codec_for(of(kind)).is_plain([text.encode(), None])


@pytest.mark.parametrize(("logical", "text"), MISFITS, ids=str)
def test_what_does_not_fit_is_found_out(logical: LogicalType, text: str) -> None:
    """A-71, A-72, A-74, A-75: suspected, and then known; never parsed as it stands."""
    codec = codec_for(logical)
    assert ask([text], codec.suspect(TEXT), codec.misfit(TEXT)) == [(True, True)]


def test_a_codec_is_known_by_its_type() -> None:
    """B-42: what a column holds is found out from the file when its table is copied again."""
    for logical, _ in EXACT:
        codec = codec_for(logical)

        assert codec_of(codec.sql_type) == codec
    assert codec_of("HUGEINT") is None
