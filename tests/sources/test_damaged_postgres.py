"""Damage that fuzzing found to do harm in what PostgreSQL sends: each is refused, and by its name."""

from __future__ import annotations

import struct

import pytest

from cdc.errors import CheckpointUnreadable, DecodeError, UsageError
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.model.selection import Selection
from cdc.sources.postgres.connection import Dsn
from cdc.sources.postgres.copytext import CopyDecoder
from cdc.sources.postgres.pgoutput import Decoder
from cdc.sources.postgres.position import parse_lsn
from cdc.sources.postgres.state import SourceState
from tests.sources.test_pgoutput import Tables, begin, commit, relation, row, wrap

TABLE = relation(1, "d", ["a"])
INSERT = b"I\0\0\0\1N" + row(["x"])


def decode(*messages: bytes) -> None:
    Decoder(Tables()).decode([wrap(message) for message in messages], allow_part=True)


@pytest.mark.parametrize(
    "messages",
    [
        [begin(1, 9)[:-1], INSERT, commit(9)],
        [begin(1, 9), INSERT, commit(9)[:-1]],
        [begin(1, 9), INSERT, commit(9) + b"\0"],
        [begin(1, 9), b"T\xff\xff\xff\xff\0" + struct.pack(">I", 1), commit(9)],
        [begin(1, 9), b"T" + struct.pack(">IBI", 2, 0, 1), commit(9)],
        [begin(1, 9), b"I\0\0", commit(9)],
    ],
)
def test_messages_of_another_length_than_their_fields(messages: list[bytes]) -> None:
    """A-60: they were read on in the next message; a truncate of four thousand million tables took all memory."""
    with pytest.raises(DecodeError, match=r"of kind '.' at 0/0 is longer or shorter"):
        decode(begin(1, 5), TABLE, commit(5), *messages)


def test_a_message_of_a_header_only() -> None:
    with pytest.raises(DecodeError, match="shorter than its header"):
        Decoder(Tables()).decode([wrap(begin(1, 5)), wrap(b""), wrap(commit(5))])


@pytest.mark.parametrize(
    "messages",
    [
        [begin(1, 5), begin(2, 6), commit(6)],
        [begin(1, 5), commit(5), commit(6)],
        [commit(5)],
        [begin(1, 5), commit(5), INSERT, begin(2, 6), commit(6)],
        [begin(1, 5), commit(5), b"T" + struct.pack(">IBI", 1, 0, 1)],
    ],
)
def test_transactions_begin_and_end_in_turn(messages: list[bytes]) -> None:
    """A-61: a change between two transactions was taken for one of the first."""
    with pytest.raises(DecodeError, match="side of a transaction"):
        decode(TABLE, *messages)


@pytest.mark.parametrize(
    "described",
    [
        b"R\0\0\0\1noend\0\0\0",
        TABLE[:-1],
        TABLE + b"\0",
        TABLE.replace(b"t1\0d", b"t1\0x"),
        TABLE.replace(b"t1", b"\xff1"),
        TABLE.replace(b"d\0\1", b"d\xff\xff"),
    ],
)
def test_descriptions_of_no_table(described: bytes) -> None:
    """A-47: they ended in errors of Python's own, or their end was left out."""
    assert described != TABLE
    with pytest.raises(DecodeError, match="does not describe a table"):
        decode(begin(1, 5), described, commit(5))


def copied(width: int, *rows: bytes) -> list[list[str | None]]:
    columns = tuple(Column(f"c{i}", "text", LogicalType(Kind.TEXT), i) for i in range(width))
    batch = CopyDecoder(TableSchema(TableName("s", "t"), 1, columns)).decode(list(rows))
    assert batch.after is not None
    return [column.to_pylist() for column in batch.after.columns]


@pytest.mark.parametrize(
    ("width", "rows"),
    [
        (1, [b"a\nlost"]),
        (2, [b"a\nb\n"]),
        (2, [b"a\tb\tc\n", b"d\n"]),
        (1, [b"a\\N\n"]),
        (1, [b"\\x41\n"]),
        (1, [b"a\\\n"]),
        (1, [b"\\.\n"]),
    ],
)
def test_copied_rows_that_are_no_lines(width: int, rows: list[bytes]) -> None:
    """A-80: bytes behind the last newline were lost, and escapes that no server writes were guessed at."""
    assert copied(1, b"a\\\\N\n", b"\\N\n") == [["a\\N", None]]
    with pytest.raises(DecodeError, match=r"s\.t"):
        copied(width, *rows)


@pytest.mark.parametrize("text", ["", "0", "0/", "/0", "0x1/0", "1_0/0", "123456789/0", "-1/0", " 0/0"])
def test_places_that_there_cannot_be(text: str) -> None:
    assert parse_lsn("16/B374D848") == 0x16_B374D848
    with pytest.raises(DecodeError):
        parse_lsn(text)


@pytest.mark.parametrize("text", ["postgresql://h/\udcff", "postgresql://h/d\0ropped"])
def test_dsns_that_libpq_would_not_see_in_full(text: str) -> None:
    """E-03."""
    with pytest.raises(UsageError):
        Dsn.parse(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [("timeline", "1"), ("timeline", True), ("tables", []), ("publications", {"p": 1}), ("slot", None)],
)
def test_state_records_of_other_types(field: str, value: object) -> None:
    """E-10."""
    state = SourceState("p", "s", "d", 1, "slot")
    assert SourceState.load(state.dump()) == state
    setattr(state, field, value)
    if field == "tables":
        text = SourceState("p", "s", "d", 1, "slot").dump().replace('"tables":{}', '"tables":[]')
    else:
        text = state.dump()
    with pytest.raises(CheckpointUnreadable):
        SourceState.load(text)


def test_a_bracket_in_a_pattern_is_one() -> None:
    """E-07: it began a set of characters, so that a table of such a name could be neither chosen nor left out."""
    selection = Selection(exclude=("s.t[1]",), default_schema="s")
    assert not selection.matches(TableName("s", "t[1]"))
    assert selection.matches(TableName("s", "t1"))
