"""Copied values, native or not, are those that the stream has as text: in every form, for every reader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cdc.errors import DecodeError
from cdc.formats import debezium_values
from cdc.formats.values import json_value
from cdc.model.arrays import LARGE, TEXT, texts
from cdc.model.canonical import canonical
from cdc.model.change import Rows
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.model.typed import native
from cdc.sources.postgres.copytext import CopyDecoder
from cdc.typed.codec import Codec
from cdc.typed.codecs import TEXT_CODEC, codec_for
from cdc.typed.native import Converter, Home

_ESCAPES = {"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def integers(low: int, high: int) -> st.SearchStrategy[str]:
    return st.one_of(st.integers(low, high), st.sampled_from([low, high, 0])).map(str)


def written(moment: datetime) -> str:
    """As PostgreSQL writes it: without the zeros behind the last digit of a second."""
    text = moment.isoformat(" ", "microseconds")
    return text.rstrip("0").rstrip(".")


clocks = st.one_of(st.timedeltas(timedelta(), timedelta(days=1) - timedelta.resolution), st.just(timedelta()))
moments = st.builds(lambda day, clock: written(datetime.combine(day, datetime.min.time()) + clock), st.dates(), clocks)
plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\b\f\n\r\t\v\\"), max_size=20)
hostile = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    st.sampled_from(
        ["\\N", "\\", "\ufeff", '"', '""', "'", " ", "N", "NULL", "\r\n", "\n", "\t", "x" * 5000, "\\\n\\"]
    ),
)
days = st.dates().map(date.isoformat)

# Values that Arrow's types hold, then such as they do not.
VALUES: dict[LogicalType, tuple[st.SearchStrategy[str], st.SearchStrategy[str]]] = {
    LogicalType(Kind.INT16): (integers(-(2**15), 2**15 - 1),) * 2,
    LogicalType(Kind.INT32): (integers(-(2**31), 2**31 - 1),) * 2,
    LogicalType(Kind.INT64): (integers(-(2**63), 2**63 - 1),) * 2,
    LogicalType(Kind.UINT32): (integers(0, 2**32 - 1),) * 2,
    LogicalType(Kind.UINT64): (integers(0, 2**64 - 1),) * 2,
    LogicalType(Kind.DATE): (days, st.sampled_from(["infinity", "-infinity", "0044-03-15 BC", "5874897-12-31"])),
    LogicalType(Kind.TIMESTAMP): (
        moments,
        st.sampled_from(["infinity", "0044-03-15 12:00:00 BC", "10000-01-01 00:00:00", "294276-12-31 23:59:59.999999"]),
    ),
    LogicalType(Kind.TIMESTAMPTZ): (
        moments.map(lambda text: f"{text}+00"),
        st.sampled_from(["-infinity", "0001-12-31 23:59:59.5+00 BC", "10000-01-01 00:00:00+00"]),
    ),
    LogicalType(Kind.BOOL): (st.sampled_from(["t", "f"]),) * 2,
    LogicalType(Kind.FLOAT64): (
        st.sampled_from(["0", "-0", "1e+15", "1e-05", "0.1"]),
        st.sampled_from(["NaN", "Infinity"]),
    ),
    LogicalType(Kind.DECIMAL, 12, 2): (st.sampled_from(["0.00", "-0.01", "9999999999.99"]), st.just("NaN")),
    LogicalType(Kind.TIME): (st.sampled_from(["00:00:00", "23:59:59.5"]), st.just("24:00:00")),
    LogicalType(Kind.TEXT): (plain, hostile),
    LogicalType(Kind.BYTES): (st.binary(max_size=9).map(lambda value: f"\\x{value.hex()}"),) * 2,
    LogicalType(Kind.OPAQUE): (st.sampled_from(["(1,2)", ""]), hostile),
}
KINDS = list(VALUES)
Row = list[str | None]


@st.composite
def blocks(draw: st.DrawFn) -> tuple[list[LogicalType], list[list[Row]]]:
    """A few columns, and rows of them as they would come one after the other."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6))
    drawn = []
    for _ in range(draw(st.integers(1, 3))):
        values = [
            draw(st.sampled_from([usual, usual, st.one_of(usual, unusual)]))
            for usual, unusual in (VALUES[kind] for kind in kinds)
        ]
        nulls = draw(st.booleans())
        row = st.tuples(*(st.one_of(st.none(), value) if nulls else value for value in values)).map(list)
        drawn.append(draw(st.lists(row, min_size=1, max_size=5)))
    return kinds, drawn


def line(row: Row) -> bytes:
    """A row as CopyOneRowTo (src/backend/commands/copyto.c) writes it."""
    spelled = ("\\N" if value is None else "".join(_ESCAPES.get(letter, letter) for letter in value) for value in row)
    return ("\t".join(spelled) + "\n").encode()


def schema_of(kinds: list[LogicalType]) -> TableSchema:
    columns = tuple(Column(f"c{index}", str(kind.kind), kind, index) for index, kind in enumerate(kinds))
    return TableSchema(TableName("s", "t"), 1, columns)


def decoded(decoder: CopyDecoder, block: list[Row]) -> Rows:
    batch = decoder.decode([line(row) for row in block])
    assert batch.after is not None
    assert batch.size == sum(len(line(row)) for row in block)
    return batch.after


@given(blocks())
@example(([LogicalType(Kind.TEXT)], [[[""], [None], [""]], [["\ufeff"], ["\ufeff"]], [["\\N"]]]))
@example(([LogicalType(Kind.DATE)] * 2, [[[None, None]], [["2024-02-29", "infinity"]], [["2024-02-29", "0001-01-01"]]]))
def test_values_are_the_texts_that_the_server_wrote(drawn: tuple[list[LogicalType], list[list[Row]]]) -> None:
    """A-71, A-80: by a decoder that reads one batch after the other, as the stream's texts would read."""
    kinds, each = drawn
    decoder = CopyDecoder(schema_of(kinds))
    for block in each:
        for index, (column, found) in enumerate(
            zip(decoder.schema.columns, decoded(decoder, block).columns, strict=True)
        ):
            found.validate(full=True)
            wanted = pa.array([row[index] for row in block], TEXT)
            assert texts(found) == wanted.to_pylist()
            assert canonical(found).to_pylist() == wanted.to_pylist()
            assert json_value(found, column.type).whole.equals(json_value(wanted, column.type).whole)
            spelled = (debezium_values.spelled(values, column).whole for values in (found, wanted))
            assert next(spelled).equals(next(spelled))
            meant = [native(values, column) for values in (found, wanted)]
            assert meant[0].type == meant[1].type
            assert canonical(meant[0]).equals(canonical(meant[1]))


@pytest.fixture(scope="module")
def converter() -> Iterator[Converter]:
    converter = Converter()
    yield converter
    converter.close()


@settings(max_examples=30)
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4), st.data())
def test_duckdb_reads_the_same_from_native_values(
    converter: Converter, kinds: list[LogicalType], data: st.DataObject
) -> None:
    """A-71 to A-77: what a target makes of copied values, in their own types and in columns that have become text."""
    row = st.tuples(*(st.one_of(st.none(), *VALUES[kind]) for kind in kinds)).map(list)
    block = data.draw(st.lists(row, min_size=1, max_size=4))
    copied = decoded(CopyDecoder(schema_of(kinds)), block).columns
    streamed = [pa.array(values, TEXT) for values in zip(*block, strict=True)]
    for own in (True, False):
        codecs = [codec_for(kind) if own else TEXT_CODEC for kind in kinds]
        assert in_duckdb(converter, kinds, codecs, copied) == in_duckdb(converter, kinds, codecs, streamed)


def in_duckdb(
    converter: Converter, kinds: list[LogicalType], codecs: Sequence[Codec], columns: Sequence[pa.Array]
) -> tuple[dict[str, list[str | None]], list[str]]:
    """What DuckDB's types hold of some columns, as texts, and the columns for which they have no place."""
    names = [f"c{index}" for index in range(len(kinds))]
    homes = {name: Home(codec.sql_type, codec, LARGE) for name, codec in zip(names, codecs, strict=True)}
    made, misfits = converter.native(
        homes, dict(zip(names, kinds, strict=True)), dict(zip(names, columns, strict=True))
    )
    return made.to_pydict(), misfits


@pytest.mark.parametrize("width", [1, 2, 1600])
def test_rows_without_a_text(width: int) -> None:
    """A-80: an empty line is a row of one empty value, and no row of two."""
    kinds = [LogicalType(Kind.TEXT)] * width
    rows = decoded(CopyDecoder(schema_of(kinds)), [[""] * width, [None] * width, [""] * width])
    assert [column.to_pylist() for column in rows.columns] == [["", None, ""]] * width
    for lines in ([b"\n", b"\n"], [b"\t" * (width - 1) + b"\n", b"\n"]):
        if width > 1:
            with pytest.raises(DecodeError):
                CopyDecoder(schema_of(kinds)).decode(lines)


def test_a_value_without_a_place_makes_its_column_text_from_there_on() -> None:
    """A-71: and no other column, and none of what came before."""
    decoder = CopyDecoder(schema_of([LogicalType(Kind.INT64), LogicalType(Kind.DATE)]))
    days = ["2024-02-29", "infinity", "2024-02-29"]
    found = [[column.type for column in decoded(decoder, [["1", day]]).columns] for day in days]
    assert found == [[pa.int64(), pa.date32()], [pa.int64(), TEXT], [pa.int64(), TEXT]]


def test_a_row_of_many_megabytes() -> None:
    """A-80: longer than what the reader of CSV takes at once by itself."""
    long = "x\ty" * (1 << 20)
    rows = decoded(CopyDecoder(schema_of([LogicalType(Kind.TEXT)] * 2)), [[long, None], [None, "é"]])
    assert [column.to_pylist() for column in rows.columns] == [[long, None], [None, "é"]]
