"""Damage that fuzzing found to do harm in what a MySQL or MariaDB server sends: each is refused, and by its name."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
import orjson
import pytest
import zstandard

from cdc.errors import CheckpointUnreadable, DecodeError, UsageError
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.sources.lockstep import Buffer
from cdc.sources.mysql.binlog import Decoder
from cdc.sources.mysql.connection import Dsn
from cdc.sources.mysql.documents import document_texts
from cdc.sources.mysql.events import Event
from cdc.sources.mysql.framing import Framer
from cdc.sources.mysql.gtid import MariaDbGtids, MySqlGtids
from cdc.sources.mysql.jsonb import json_text, patched_text
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.resultset import decode_result
from cdc.sources.mysql.rows import Field
from cdc.sources.mysql.select import RowReader
from cdc.sources.mysql.state import SourceState, TableState
from cdc.sources.mysql.tablemap import Wire, parse_table_map
from cdc.sources.mysql.transactions import begin
from cdc.sources.mysql.types import logical_type, source_type
from tests.sources.binary_json import Diff, encoded, encoded_diffs
from tests.sources.binlog_events import Log, decode
from tests.sources.row_images import TYPES, ColumnType, Followed, Latin, row_image, rows_event, table_map

INT = next(column for column in TYPES if column.name == "int")


def event(kind: int, body: bytes, end: int = 1000) -> bytes:
    return struct.pack("<IBIIIH", 0, kind, 1, 19 + len(body), end, 0) + body


def decode_body(body: bytes, *types: ColumnType) -> None:
    """Decode a transaction of one row event."""
    log = [event(Event.MARIADB_GTID, struct.pack("<QIB", 1, 0, 0) + bytes(6))]
    log += [event(Event.TABLE_MAP, table_map(7, types, has_names=True)), event(Event.WRITE_ROWS, body)]
    Decoder(Followed(types), Latin(), LogPlace("f", 0), {}, {}, {}).decode([*log, event(Event.XID, bytes(8))])


def test_rows_without_columns_end() -> None:
    """B-22: a row of no columns takes no bytes, so that there was no end of them, and no end of memory."""
    body = rows_event(Event.WRITE_ROWS, 7, 1, [bytes(5)]).replace(b"\1\1", b"\1\0", 1)
    with pytest.raises(DecodeError, match="without any of its columns"):
        decode_body(body, INT)


@pytest.mark.parametrize("cut", range(8, 13))
def test_a_row_event_that_ends_before_its_rows(cut: int) -> None:
    """B-22: one that was cut off was taken for one without rows, or read on in the next event."""
    body = rows_event(Event.WRITE_ROWS, 7, 1, [row_image([bytes(4)])])
    decode_body(body, INT)
    with pytest.raises(DecodeError, match=r"cut off|ends before its rows|another number of columns"):
        decode_body(body[:cut], INT)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enum('a','b c','\u00e9')", b"\4"),
        ("set('x','y','z')", b"\x08"),
        ("vector(3)", b"\3\0\0\0abc"),
        ("geometry", b"\2\0\0\0ab"),
        ("binary(6)", b"\x07sevenby"),
        ("varchar(20) character set utf8mb4", b"\2\xff\xfe"),
        ("date", b"\xff\xff\xff"),
        ("datetime(6)", b"\x99\x99\x99\x9f\xff\xff\xff\xff"),
        ("timestamp(6)", b"\1\1\1\1\xff\xff\xff"),
        ("time(6)", b"\xff\xff\xff\xff\xff\xff"),
        ("decimal(9,9)", b"\xff\xff\xff\xff"),
    ],
)
def test_values_that_no_server_stores(name: str, value: bytes) -> None:
    """B-22: they became NULL, were cut, or became other moments."""
    column = next(column for column in TYPES if column.name == name)
    with pytest.raises(DecodeError, match=r"^d\.t\.c0: "):
        decode_body(rows_event(Event.WRITE_ROWS, 7, 1, [row_image([value])]), column)


@pytest.mark.parametrize(
    ("wire", "metadata"),
    [
        (Wire.BLOB, b"\5"),
        (Wire.BLOB, b"\0"),
        (Wire.NEWDECIMAL, b"\5\6"),
        (Wire.NEWDECIMAL, b"\x42\0"),
        (Wire.DATETIME2, b"\7"),
        (Wire.STRING, bytes([Wire.ENUM, 3])),
        (Wire.BIT, b"\1"),
    ],
)
def test_columns_that_there_cannot_be(wire: int, metadata: bytes) -> None:
    """B-22: lengths of lengths, digits and fractions out of their range."""
    body = bytes(8) + b"\1d\0\1t\0" + bytes([1, wire, len(metadata)]) + metadata + b"\1"
    with pytest.raises(DecodeError, match=r"table map"):
        parse_table_map(event(Event.TABLE_MAP, body))


@pytest.mark.parametrize(
    "body", [b"\1d\0\1t\0\xfb", b"\1d\0\1t\0\x09\3", b"\1d\0\1", b"\1d\0\1\xff\0\1\3\0\1", b"\1dx"]
)
def test_table_maps_that_are_cut_off(body: bytes) -> None:
    with pytest.raises(DecodeError, match="table map event is damaged"):
        parse_table_map(event(Event.TABLE_MAP, bytes(8) + body))


def packet(sent: bytes) -> bytes:
    return struct.pack("<I", len(sent) + 1)[:3] + b"\0\0" + sent


def test_what_is_compressed_makes_no_more_than_it_announces() -> None:
    """B-21: a length of 0 was no limit; and a transaction had none at all."""
    bomb = bytes(50 << 20)
    fields = b"\2\1\0\3\1\x05\0" + zstandard.compress(bomb)
    rows = bytes(8) + b"\2\0\1\1\1\0" + zlib.compress(bomb)
    for sent in (event(Event.TRANSACTION_PAYLOAD, fields), event(Event.WRITE_ROWS_COMPRESSED, rows)):
        with pytest.raises(DecodeError, match="does not hold the"):
            Framer(has_checksum=False).feed(packet(sent))


@pytest.mark.parametrize("body", [b"", b"\2", b"\2\1", b"\2\xff\1", b"\3\1\1\2\x09\1"])
def test_compressed_transactions_that_are_cut_off(body: bytes) -> None:
    with pytest.raises(DecodeError, match="is damaged"):
        Framer(has_checksum=False).feed(packet(event(Event.TRANSACTION_PAYLOAD, body)))


def test_an_event_with_a_checksum_is_longer_than_that() -> None:
    """B-14: the checksum of fewer bytes than a header is right, too."""
    short = event(Event.XID, b"")[:15]
    with pytest.raises(DecodeError, match="shorter than its header"):
        Framer(has_checksum=True).feed(packet(short + struct.pack("<I", zlib.crc32(short))))


@pytest.mark.parametrize(
    "body", [struct.pack("<QIB", 0, 0, 0), struct.pack("<QIB", 1 << 63, 0, 0), struct.pack("<QI", 1, 0)]
)
def test_gtids_that_there_cannot_be(body: bytes) -> None:
    """B-06: what goes into the checkpoint has to be read at the next start."""
    with pytest.raises(DecodeError, match="MARIADB_GTID"):
        begin(event(Event.MARIADB_GTID, body))


@pytest.mark.parametrize("number", ["9223372036854775807", "1" * 5000, "\u0661", "1-\u0662"])
def test_gtid_sets_of_numbers_that_there_cannot_be(number: str) -> None:
    with pytest.raises(DecodeError):
        MySqlGtids.parse(f"3e11fa47-71ca-11e1-9e33-c80aa9429562:{number}")
    with pytest.raises(DecodeError):
        MariaDbGtids.parse(f"0-4294967296-{number}")


def test_begins_of_transactions_around_four_gigabytes() -> None:
    """An event that begins before and ends behind them."""
    assert begin(event(Event.MARIADB_GTID, struct.pack("<QIB", 1, 0, 0), end=10)).start == (1 << 32) - 22


def test_a_log_that_goes_back() -> None:
    log = Log().add(Event.ROWS_QUERY, bytes(100)).gtid(1).xid().gtid(2).xid()
    log.events[3] = log.events[3][:13] + struct.pack("<I", 60) + log.events[3][17:]
    with pytest.raises(DecodeError, match="goes back"):
        decode(log.events)


def nested(levels: int) -> bytes:
    """An array that has another one twice, which has another one twice, and so on: all at the same place."""
    content, at = b"", 4 + 2 * 3
    for _ in range(levels):
        content += struct.pack("<HH", 2, 0) + (b"\2" + struct.pack("<H", at)) * 2
    return b"\2" + content + struct.pack("<HH", 0, 4)


@pytest.mark.parametrize(
    "document",
    [
        b"\x0b" + struct.pack("<d", float("nan")),
        b"\x0f\xf6\4\x05\x09\0\0",
        b"\0" + encoded({"a": 1, "b": 2})[1:].replace(b"b", b"a"),
        nested(60),
        b"\x0c\x7f",
    ],
)
def test_documents_that_no_server_writes(document: bytes) -> None:
    """B-60: of values that share their bytes, a few hundred of them made a text without end."""
    with pytest.raises(DecodeError, match="JSON document"):
        json_text(document)


def test_many_documents_are_as_one() -> None:
    """B-60: written together, text that is not UTF-8 went through, as did keys that stand elsewhere."""
    good = encoded({"a": 1, "b": "\u00e9"})
    for documents in ([good] * 19 + [good.replace("\u00e9".encode(), b"\xff\xfe")], [good.replace(b"a", b"\xff")] * 20):
        length = np.array([len(document) for document in documents])
        with pytest.raises(DecodeError, match="JSON document"):
            document_texts(Buffer(documents), Field(np.cumsum(length) - length, length, np.ones(20, dtype=bool)))


@pytest.mark.parametrize(
    "change",
    [
        Diff(3, "$.a", 1),
        Diff(0, "$.b", 1),
        Diff(1, "$.a", 1),
        Diff(0, "$[0]", 1),
        Diff(0, "$.a.b", 1),
        Diff(0, "nonsense.a", 1),
        Diff(0, "$ .a", 1),
        Diff(2, "$", None),
        Diff(2, "$[99999999999]", None),
        Diff(0, '$."\\x"', 1),
    ],
    ids=str,
)
def test_changes_that_do_not_fit(change: Diff) -> None:
    """B-25: they were applied nearly so, or ended in an error of Python's own."""
    with pytest.raises(DecodeError, match="JSON document"):
        patched_text(encoded({"a": 0}), encoded_diffs([change]))


def test_changes_that_nest_too_deeply() -> None:
    """B-25: documents may be a hundred levels deep, but what changes make of them was not looked at."""
    deep: object = 0
    for _ in range(90):
        deep = [deep]
    changes = [Diff(0, "$" + "[0]" * 89 * number, deep) for number in range(12)]
    with pytest.raises(DecodeError, match="nested too deeply"):
        patched_text(encoded(deep), encoded_diffs(changes))


def result(*names: str) -> TableSchema:
    columns = (Column(name, name, logical_type(source_type(name)), 1) for name in names)
    return TableSchema(TableName("d", "t"), 1, tuple(columns))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("blob", b"\xfa" + bytes(9)),
        ("blob", b"\xfb"),
        ("blob", b"\xff"),
        ("blob", b"\xfe" + struct.pack("<q", -9)),
        ("blob", b"\xfe" + struct.pack("<q", (1 << 63) - 1)),
        ("int", b"\1\2"),
        ("date", b"\3\1\2\3"),
        ("time", b"\4\0\0\0\0"),
        ("bit(13)", b"\1\1"),
        ("datetime", b"\7\xe8\7\1\2\x19\0\0"),
        ("varchar(9)", b"\1\xff"),
    ],
)
def test_copied_values_that_no_server_sends(name: str, value: bytes) -> None:
    """B-57: lengths were believed before they were held against the row."""
    row = b"\0\0" + value
    with pytest.raises(DecodeError, match=r"d\.t"):
        decode_result([row], np.array([0]), np.array([len(row)]), result(name))


def test_packets_that_are_no_rows() -> None:
    with pytest.raises(DecodeError, match="empty packet"):
        RowReader().feed(bytes(4))


def wrong(change: Callable[[dict], object]) -> str:
    schema = TableSchema(TableName("d", "t"), 1, (Column("a", "int", LogicalType(Kind.INT32), 1),))
    table = TableState(schema, None, 0, copied=True, next_column=2)
    state = SourceState("p", "mysql", "s", 1, LogPlace("f", 0))
    state.tables[1] = table
    raw = orjson.loads(state.dump())
    change(raw)
    return orjson.dumps(raw).decode()


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.update(place=None),
        lambda raw: raw["place"].update(offset=-1),
        lambda raw: raw.update(server_id="1"),
        lambda raw: raw.update(server_id=True),
        lambda raw: raw.update(gone=[]),
        lambda raw: raw.update(prepared={"x": 1}),
        lambda raw: raw.update(unknown=1),
        lambda raw: raw.pop("place"),
        lambda raw: raw["tables"].append(raw["tables"][0]),
        lambda raw: raw["tables"][0].update(start="0"),
        lambda raw: raw["tables"][0]["schema"]["columns"][0]["type"].update(kind="list"),
        lambda raw: raw["tables"][0]["schema"]["columns"][0]["type"].update(dimensions=1 << 40),
    ],
)
def test_state_records_of_other_types(change: Callable[[dict], object]) -> None:
    """E-10: what is read is of the right type in every field, or it is not read."""
    assert SourceState.load(wrong(lambda raw: raw)).place.file == "f"
    with pytest.raises(CheckpointUnreadable):
        SourceState.load(wrong(change))


@pytest.mark.parametrize("text", ["mysql://h/\udcff", "mysql://h/\0", "mysql://h/d?connect_timeout=soon"])
def test_dsns_that_cannot_be_used(text: str) -> None:
    """E-03: refused by their form, before anything is opened."""
    with pytest.raises(UsageError):
        Dsn.parse(text)
