"""The binlog's decoder, without a server."""

from __future__ import annotations

import contextlib
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import CdcError, DecodeError, LogLost
from cdc.sources.mysql.dump import FramerBehind
from cdc.sources.mysql.events import Event
from cdc.sources.mysql.framing import Framer, ServerSaid
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.transactions import event_end
from tests.sources.binlog_events import Log, Tables, changes_of, decode, decoder

KNOWN = {int(event) for event in Event}


def transaction(*rows: tuple[int, str | None]) -> Log:
    return Log().gtid(1).table(7).rows(Event.WRITE_ROWS, 7, *rows).xid()


def test_rows_of_several_events_and_tables() -> None:
    log = Log().gtid(1).table(7).table(8, "u")
    log.rows(Event.WRITE_ROWS, 7, (1, "a"), (2, None)).rows(Event.WRITE_ROWS_V1, 8, (9, "")).rows(
        Event.WRITE_ROWS, 7, (3, "ccc")
    )
    log.xid().gtid(2).table(7).rows(Event.UPDATE_ROWS, 7, (1, "a"), (4, "d")).rows(
        Event.DELETE_ROWS, 7, (2, None)
    ).xid()
    assert decode(log.events) == [
        ("insert", "t", 1, "a"),
        ("insert", "t", 2, None),
        ("insert", "t", 3, "ccc"),
        ("update", "t", 4, "d"),
        ("delete", "t", 2, None),
        ("insert", "u", 9, ""),
    ]


@pytest.mark.parametrize("kind", sorted(set(range(256)) - KNOWN))
def test_unknown_events_stop(kind: int) -> None:
    """B-22: a type that is on no list stops with its number and place, unless the server says it may be ignored."""
    log = transaction((1, "a")).add(kind, b"whatever")
    with pytest.raises(DecodeError, match=rf"number {kind} \(0x{kind:02X}\) that ends at binlog\.000001:\d+"):
        decoder().decode(log.events)
    assert decode(transaction((1, "a")).add(kind, b"", flags=0x80).events) == [("insert", "t", 1, "a")]


@pytest.mark.parametrize("kind", [Event.PARTIAL_ROW_DATA, Event.START_V3])
def test_events_that_are_refused_by_name(kind: Event) -> None:
    """B-16, B-22: known by name, and not understood."""
    with pytest.raises(DecodeError, match=kind.name):
        decoder().decode(transaction((1, "a")).add(kind, b"").events)


@pytest.mark.parametrize("before", ["nothing", "gtid", "rows"])
def test_incident(before: str) -> None:
    """B-13: the server says that its log lacks something, alone or where a transaction has begun: any table may lack
    it, and the log goes on behind it."""
    log = transaction((1, "a"))
    if before != "nothing":
        log.gtid(2)
    if before == "rows":
        log.table(7).rows(Event.WRITE_ROWS, 7, (2, "b"))
    log.add(Event.INCIDENT, b"\1\0\4oops").gtid(3).table(7).rows(Event.WRITE_ROWS, 7, (3, "c")).xid()
    tables = Tables()
    decoded = decoder(tables).decode(log.events)
    ((names, why, at),) = tables.lacking
    assert (names, at) == (None, 1)
    assert "an incident at binlog.000001:" in why
    assert decoded.consumed == len(log.events)
    assert len(decoded.transactions) == 3
    assert changes_of(decoded) == [("insert", "t", 1, "a"), ("insert", "t", 3, "c")]


def test_only_whole_transactions_move_the_position() -> None:
    """B-10: what has begun is given back until it ends, or in parts if it must be."""
    log = transaction((1, "a")).gtid(2).table(7).rows(Event.WRITE_ROWS, 7, (2, "b")).rows(Event.WRITE_ROWS, 7, (3, "c"))
    one = decoder()
    decoded = one.decode(log.events)
    assert decoded.consumed == 4
    assert [str(gtid) for gtid in one.gtids] == ["0-1-1"]
    assert one.end.offset == int.from_bytes(log.events[3][13:17], "little")
    rest = log.events[4:]
    assert one.decode(rest).consumed == 0
    part = one.decode(rest, allow_part=True)
    assert (part.consumed, part.end, one.inside_transaction) == (4, None, True)
    assert len(one.gtids) == 1
    end = one.decode(log.xid().events[-1:])
    assert (end.consumed, one.inside_transaction, str(one.gtids[-1])) == (1, False, "0-1-2")


def test_table_numbers_change_their_meaning() -> None:
    """B-45: with a new description of the same number, and with a new file."""
    log = transaction((1, "a")).gtid(2).table(7, "u").rows(Event.WRITE_ROWS, 7, (2, "b")).xid()
    log.add(Event.FORMAT_DESCRIPTION, struct.pack("<H50sIB", 4, b"10.11", 0, 19) + bytes(40) + b"\1")
    log.gtid(3).table(7, "w").rows(Event.WRITE_ROWS, 7, (3, "c")).xid()
    assert [(table, number) for _, table, number, _ in decode(log.events)] == [("t", 1), ("u", 2), ("w", 3)]
    orphan = transaction((1, "a"))
    del orphan.events[1]
    with pytest.raises(DecodeError, match="before it described"):
        decode(orphan.events)


def test_prepared_transactions_wait() -> None:
    """B-28: nothing before XA COMMIT, and then from where it was prepared."""
    name = b"\0" + struct.pack("<III", 1, 1, 0) + b"x"
    log = Log().gtid(1, flags=64).table(7).rows(Event.WRITE_ROWS, 7, (1, "a")).add(Event.XA_PREPARE, name)
    one = decoder()
    assert one.decode(log.events).steps == []
    assert list(one.prepared) == ["X'78',X'',1"]
    commit = Log().gtid(2).query("XA COMMIT X'78',X'',1").events
    wanted = one.decode(commit)
    assert wanted.wanted == ("X'78',X'',1", LogPlace("binlog.000001", 0, 4))
    assert wanted.consumed == 0
    one.supply("X'78',X'',1")
    assert len(one.decode([commit[0], *log.events[1:3], commit[1]]).steps) == 1
    assert one.prepared == {}
    tables = Tables()
    assert len(decoder(tables).decode(commit).transactions) == 1
    ((names, why, at),) = tables.lacking
    assert (names, at) == (None, 0)
    assert "prepared before the log" in why
    assert decoder(tables).decode(Log().gtid(2).query("XA ROLLBACK X'78',X'',1").events).steps == []
    assert len(tables.lacking) == 1


def test_one_phase_larger_than_a_segment() -> None:
    """B-28: rows that were passed over because the transaction was to be prepared only, and then it is committed: any
    table may lack them."""
    tables = Tables()
    one = decoder(tables)
    log = Log().gtid(1).query("XA START X'78',X'',1").table(7).rows(Event.WRITE_ROWS, 7, (1, "a"))
    assert one.decode(log.events, allow_part=True).steps == []
    end = Log().query("XA END X'78',X'',1").add(Event.XA_PREPARE, b"\1" + struct.pack("<III", 1, 1, 0) + b"x")
    assert one.decode(end.events).steps == []
    ((names, why, at),) = tables.lacking
    assert (names, at) == (None, 0)
    assert "larger than a segment" in why
    whole = Log().gtid(1).query("XA START X'78',X'',1").table(7).rows(Event.WRITE_ROWS, 7, (1, "a"))
    assert decode([*whole.events, *end.events]) == [("insert", "t", 1, "a")]


def test_statements_are_passed_on() -> None:
    """B-30: what stands among the rows is a barrier, but for what belongs to the transaction itself."""
    tables = Tables()
    log = Log().gtid(1).query("BEGIN").query("SAVEPOINT a").query("CREATE TEMPORARY TABLE x (a int)").query("COMMIT")
    log.gtid(2, flags=1).query("ALTER TABLE t ADD x int")
    decoded = decoder(tables).decode(log.events)
    assert tables.statements == ["CREATE TEMPORARY TABLE x (a int)", "ALTER TABLE t ADD x int"]
    assert len(decoded.transactions) == 2


def test_rollback_with_rows() -> None:
    """B-29: engines without transactions keep rows that others roll back, and the log has both: nothing of it is
    emitted, and the tables may lack what stayed."""
    log = Log().gtid(1).table(7).table(8, "u").rows(Event.WRITE_ROWS, 7, (1, "a")).rows(Event.WRITE_ROWS, 8, (2, "b"))
    tables = Tables()
    decoded = decoder(tables).decode(log.query("ROLLBACK").events)
    ((names, why, at),) = tables.lacking
    assert (names, at, decoded.steps) == ({"t", "u"}, 0, [])
    assert "mixes engines" in why
    assert decoder().decode(Log().gtid(1).query("BEGIN").query("ROLLBACK").events).steps == []


def test_rollback_to_a_savepoint_with_rows() -> None:
    """B-29: what comes behind it is of the same transaction, and is emitted."""
    log = Log().gtid(1).query("BEGIN").table(7).rows(Event.WRITE_ROWS, 7, (1, "a")).query("ROLLBACK TO a")
    log.rows(Event.WRITE_ROWS, 7, (2, "b")).xid()
    tables = Tables()
    decoded = decoder(tables).decode(log.events)
    assert [names for names, _, _ in tables.lacking] == [{"t"}]
    assert changes_of(decoded) == [("insert", "t", 2, "b")]


def test_rollback_of_a_transaction_that_came_in_part() -> None:
    """B-29, D-16: what was emitted of it is of tables that are not known any more."""
    log = Log().gtid(1).query("BEGIN").table(7).rows(Event.WRITE_ROWS, 7, (1, "a"))
    tables = Tables()
    one = decoder(tables)
    assert len(one.decode(log.events, allow_part=True).steps) == 1
    assert one.decode(log.query("ROLLBACK").events[-1:]).steps == []
    assert [names for names, _, _ in tables.lacking] == [None]


def test_load_data_is_a_statement() -> None:
    """B-23: LOAD DATA, which the log has as a file and a text that says more of it than others do."""
    tables = Tables()
    log = Log().gtid(1).query("BEGIN").add(Event.BEGIN_LOAD_QUERY, b"\1\0\0\0data")
    text = b"LOAD DATA INFILE 'x' INTO TABLE t"
    log.add(Event.EXECUTE_LOAD_QUERY, struct.pack("<IIBHH", 1, 0, 1, 0, 0) + bytes(13) + b"d\0" + text).xid()
    decoder(tables).decode(log.events)
    assert tables.statements == [text.decode()]
    with pytest.raises(DecodeError, match="damaged"):
        decoder().decode(Log().gtid(1).add(Event.EXECUTE_LOAD_QUERY, bytes(14)).xid().events)


def test_places_beyond_four_gigabytes() -> None:
    """Events know 32 bits of their place."""
    place = LogPlace("binlog.000001", 0, (1 << 32) - 100)
    assert place.near(50).offset == (1 << 32) + 50
    assert place.near(50).near((1 << 32) - 60).offset == (1 << 32) - 60
    assert place.near((1 << 32) - 10).offset == (1 << 32) - 10


def test_a_transaction_longer_than_its_places_can_tell() -> None:
    """M12: a transaction of more than 4 GB, of which an event comes in each part, ends where it does in the file."""
    known, whole = decoder(), Log().gtid(1).table(7)
    spans = 0
    for number in range(7):
        whole.rows(Event.WRITE_ROWS, 7, (number, "x"))
        whole.skip(1 << 30)
        spans += 1 << 30
    events = whole.xid().events
    for event in events[:-1]:
        assert known.decode([event], allow_part=True).end is None
    end = known.decode(events[-1:]).end
    assert end is not None
    assert end.order == spans + sum(len(event) + 4 for event in events) + 4
    after = known.decode(Log(at=end.order).gtid(2).table(7).rows(Event.WRITE_ROWS, 7, (9, "y")).xid().events)
    assert after.end is not None
    assert after.transactions.order[0] == end.order


def test_a_dump_that_begins_before_its_place() -> None:
    """M12: a server begins a dump at no byte beyond 4 GB, so that what lies before the place is left out here, in
    whatever pieces it comes."""
    log = Log()
    for number in range(1, 11):
        log.gtid(number).table(7).rows(Event.WRITE_ROWS, 7, (number, "x")).xid()
        log.skip(1 << 30)
    ends = [event_end(event) for event in log.events]
    for count in (4, 20, 36):
        place = LogPlace("binlog.000001", 0, 4)
        for end in ends[:count]:
            place = place.near(end)
        for pieces in ([log.packets()], [log.packets()[at : at + 50] for at in range(0, len(log.packets()), 50)]):
            behind = FramerBehind(Framer(has_checksum=True), place)
            found = [event for piece in pieces for event in behind.feed(piece)]
            assert found == log.events[count:], (count, place)
    with pytest.raises(LogLost, match="no event that ends at"):
        FramerBehind(Framer(has_checksum=True), LogPlace("binlog.000001", 0, ends[3] + 1)).feed(log.packets())


def frame(data: bytes, sizes: list[int]) -> list[bytes]:
    framer, events, at = Framer(has_checksum=True), [], 0
    for size in [*sizes, len(data)]:
        events += framer.feed(data[at : at + size])
        at += size
    return events


def test_framing_whatever_the_pieces() -> None:
    log = transaction((1, "a"), (2, "b"))
    rng = random.Random(3)
    for _ in range(50):
        assert frame(log.packets(), [rng.randint(1, 30) for _ in range(20)]) == log.events


def test_a_flipped_bit_is_found() -> None:
    """B-14: wherever in an event it is."""
    data = transaction((1, "abc")).packets()
    for at in range(len(data)):
        if at % 7 == 0:
            damaged = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
            try:
                events = frame(damaged, [])
            except (DecodeError, ServerSaid):
                continue
            assert events != transaction((1, "abc")).events


def test_checksums_cannot_be_switched_off_by_a_flipped_bit() -> None:
    """B-14: the last byte of a format description says whether events have checksums; it has one itself either way."""
    said, denied = (Log().add(Event.FORMAT_DESCRIPTION, b"\4\0" + bytes(80) + bytes([how])) for how in (1, 0))
    assert frame(said.packets(), []) == said.events
    assert frame(denied.packets(), []) == [denied.events[0] + denied.packets()[-4:]]
    damaged = bytearray(said.packets())
    damaged[-5] ^= 1
    with pytest.raises(DecodeError, match="checksum"):
        frame(bytes(damaged), [])


def test_the_server_ends_the_stream() -> None:
    error = b"\xff" + struct.pack("<H", 1236) + b"#HY000gone"
    with pytest.raises(ServerSaid) as caught:
        Framer(has_checksum=True).feed(struct.pack("<I", len(error)) + error)
    assert (caught.value.code, caught.value.message) == (1236, "gone")


@given(st.data())
def test_damage_ends_in_our_own_error(data: st.DataObject) -> None:
    """B-22: bytes that are anything at all, past the checksum: an error of ours, or rows; nothing else."""
    log = Log().gtid(1).query("BEGIN").table(7).rows(Event.UPDATE_ROWS, 7, (1, "abc"), (2, None)).xid()
    events = [bytearray(event) for event in log.events]
    for _ in range(data.draw(st.integers(1, 4))):
        event = events[data.draw(st.integers(0, len(events) - 1))]
        event[data.draw(st.integers(0, len(event) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CdcError):
        decoder().decode([bytes(event) for event in events])


def test_the_first_transaction_of_a_file_is_part_of_its_mark() -> None:
    """B-02: but only if it is the first one there, which in a dump by GTIDs it need not be."""
    whole = Log().add(Event.FORMAT_DESCRIPTION, b"\4\0" + bytes(80)).gtid(1).xid()
    one = decoder()
    one.decode(whole.events)
    first, second = one.marks["binlog.000001"]
    one.decode(whole.events)  # the same file again, as after a lost connection
    assert one.marks == {"binlog.000001": [first, second]}
    later = Log().add(Event.FORMAT_DESCRIPTION, b"\4\0" + bytes(80))
    skipped = Log().add(Event.FORMAT_DESCRIPTION, b"\4\0" + bytes(80)).gtid(1).xid().gtid(2).xid()
    other = decoder()
    other.decode([*later.events, *skipped.events[3:]])
    assert other.marks == {"binlog.000001": [first]}
    checked = Log().add(Event.FORMAT_DESCRIPTION, b"\4\0" + bytes(80)).gtid(1).xid()
    checked.add(Event.BINLOG_CHECKPOINT, b"\4\0\0\0file").gtid(2).xid()
    behind = decoder()
    behind.decode(checked.events[:1])
    behind.decode(checked.events[3:])  # MariaDB writes this kind among the transactions, too
    assert behind.marks == {"binlog.000001": [first]}
