"""Records: what is written comes back, can be read by anybody, and is never anything else."""

from __future__ import annotations

import io
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.errors import JournalDamaged
from cdc.journal import record as records
from cdc.journal.record import Context, Header, decode, encode, is_whole, read_header
from cdc.model.segment import Segment
from tests.journal.segments import natives, said, segments


def read(data: bytes, context: Context) -> tuple[Header, Segment]:
    found = read_header(memoryview(data))
    assert found is not None
    header, body = found
    assert is_whole(header, memoryview(data)[body:])
    context.take(header)
    return header, decode(header, memoryview(data), context)


@settings(max_examples=300)
@given(st.data())
def test_a_segment_comes_back(data: st.DataObject) -> None:
    """Every step, value, mask and image, over several records that share what they know."""
    written, wanted, context = [], [], Context()
    for number in range(data.draw(st.integers(1, 3))):
        segment = data.draw(segments(100 * number))
        written.append(encode(segment, number, context, {number})[1])
        wanted.append(segment)
    again = Context()
    for number, (record, segment) in enumerate(zip(written, wanted, strict=True)):
        header, found = read(record, again)
        assert said(found) == said(segment)
        assert (header.number, header.copying) == (number, (number,))


def test_every_form_of_value_comes_back() -> None:
    segment = natives()
    _, record = encode(segment, 0, Context(), set())
    _, found = read(record, Context())
    assert said(found) == said(segment)


def test_a_record_is_streams_that_anybody_can_read() -> None:
    """By Arrow alone, one stream after the other."""
    record = encode(natives(), 0, Context(), set())[1]
    file = io.BytesIO(record + record)
    tables = []
    while file.tell() < len(file.getbuffer()):
        tables.append(pa.ipc.open_stream(file).read_all())
    assert [table.num_rows for table in tables] == [1, 2, 1, 2]
    assert tables[1]["after.a"].to_pylist() == [1, None]
    assert tables[0]["position"].to_pylist() == ["7"]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_damage_goes_unnoticed(data: st.DataObject) -> None:
    """A bit that flips, an end that is missing: the record is not whole, or it says what it said."""
    segment = data.draw(segments())
    _, record = encode(segment, 5, Context(), set())
    bit = data.draw(st.integers(0, 8 * len(record) - 1))
    flipped = bytearray(record)
    flipped[bit // 8] ^= 1 << bit % 8
    cut = record[: data.draw(st.integers(0, len(record) - 1))]
    for damaged in (bytes(flipped), cut):
        try:
            found = read_header(memoryview(damaged))
        except JournalDamaged:
            continue
        if found is None or not is_whole(found[0], memoryview(damaged)[found[1] :]):
            continue
        assert said(read(damaged, Context())[1]) == said(segment)


def test_another_format_is_refused_by_its_number() -> None:
    header = replace(encode(natives(), 0, Context(), set())[0], format=2)
    with pytest.raises(JournalDamaged, match="format 2"):
        read_header(memoryview(records._write_header(header)))
