"""Dates and times that are read from text many at once: what is native says the very text that the server wrote."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdc.model.arrays import texts
from cdc.model.canonical import canonical
from cdc.model.schema import Kind
from cdc.sources.lockstep import Buffer
from cdc.sources.postgres.moments import native

KINDS = (Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ)
dates = st.dates().map(lambda day: f"{day.year:04d}-{day.month:02d}-{day.day:02d}")


def written(moment: datetime) -> str:
    """As PostgreSQL writes it."""
    text = f"{moment.year:04d}-{moment:%m-%d %H:%M:%S}"
    return f"{text}.{moment.microsecond:06d}".rstrip("0") if moment.microsecond else text


moments = st.datetimes().map(written)
plain = {Kind.DATE: dates, Kind.TIMESTAMP: moments, Kind.TIMESTAMPTZ: moments.map(lambda text: f"{text}+00")}
odd = st.sampled_from(
    ["infinity", "-infinity", "0044-03-15 BC", "12024-01-01", "0044-03-15 12:00:00 BC", "0044-03-15 12:00:00+00 BC", ""]
)


def read(values: list[str | None], kind: Kind) -> pa.Array | None:
    data = [(value or "").encode() for value in values]
    length = np.array([len(value) for value in data], dtype=np.int64)
    start = np.cumsum(length) - length
    return native(Buffer(data), kind, start, length, np.array([value is not None for value in values], dtype=bool))


def damaged(text: str, place: int, sign: str) -> str:
    place %= len(text) + 1
    return text[:place] + sign + text[place + 1 :]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_plain_values_are_native_and_say_their_text(kind: Kind, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.one_of(st.none(), plain[kind]), min_size=1))
    array = read(values, kind)
    if all(value is None for value in values):
        assert array is None
        return
    assert array is not None
    array.validate(full=True)
    assert texts(array) == values
    assert canonical(array).to_pylist() == values


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_whatever_is_native_says_its_text(kind: Kind, data: st.DataObject) -> None:
    """Another form of date, or damage, is either left as text or read exactly (A-71)."""
    any_kind = st.one_of(*plain.values())
    near = st.builds(damaged, any_kind, st.integers(0, 30), st.text("0123456789-:. +/;BCd\x00", max_size=2))
    values = data.draw(st.lists(st.one_of(st.none(), plain[kind], near, odd), min_size=1, max_size=4))
    array = read(values, kind)
    assert array is None or texts(array) == values


@example("2024-02-30")
@example("2023-02-29")
@example("2024-00-10")
@example("2024-13-01")
@example("0000-01-01")
@example("9999-12-32")
@given(odd)
def test_what_is_no_plain_date_stays_text(value: str) -> None:
    assert read(["2024-01-01", value], Kind.DATE) is None
    assert read(["2024-01-01 00:00:00", f"{value} 00:00:00"], Kind.TIMESTAMP) is None


@pytest.mark.parametrize("clock", ["24:00:00", "23:60:00", "23:59:60", "23:59:59.", "23:59:59.10", "23:59:59.1234567"])
def test_a_clock_that_postgresql_does_not_write_stays_text(clock: str) -> None:
    assert read([f"2024-01-01 {clock}"], Kind.TIMESTAMP) is None
    assert read([f"2024-01-01 {clock}+00"], Kind.TIMESTAMPTZ) is None
    assert read(["2024-01-01 23:59:59.5+01"], Kind.TIMESTAMPTZ) is None


def test_the_ends_of_the_calendar() -> None:
    array = read(["0001-01-01", "9999-12-31", "1970-01-01", "2000-02-29"], Kind.DATE)
    assert array is not None
    assert array.to_pylist() == [date.min, date.max, date(1970, 1, 1), date(2000, 2, 29)]
    array = read(["9999-12-31 23:59:59.999999+00"], Kind.TIMESTAMPTZ)
    assert array is not None
    assert array.to_pylist() == [datetime.max.replace(tzinfo=UTC)]
