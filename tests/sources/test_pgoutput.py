"""The lockstep decoder against an independent one that reads a message at a time."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import DecodeError
from cdc.model.change import ABSENT, Op
from cdc.model.schema import Column, Kind, LogicalType, TableName, TableSchema
from cdc.model.segment import Changes, Evolve, Truncate
from cdc.sources.postgres.pgoutput import Decoded, Decoder, Relation, Resolved
from tests.sources.reference_pgoutput import Reference

LETTERS = {"I": Op.INSERT, "U": Op.UPDATE, "D": Op.DELETE}


@dataclass
class Tables:
    """A catalog that believes whatever the log says."""

    starts: dict[int, int] = field(default_factory=dict)
    known: dict[int, TableSchema] = field(default_factory=dict)

    def start(self, oid: int) -> int:
        return self.starts.get(oid, 0)

    def resolve(self, relation: Relation) -> Resolved:
        schema = TableSchema(
            TableName(relation.namespace, relation.name),
            relation.oid,
            tuple(
                Column(c.name, "text", LogicalType(Kind.TEXT), i, key=None if i else 0)
                for i, c in enumerate(relation.columns)
            ),
            full_before=relation.identity == "f",
        )
        old = self.known.get(relation.oid)
        self.known[relation.oid] = schema
        return Resolved(schema, old)


def wrap(body: bytes) -> bytes:
    return b"w" + bytes(24) + body


def begin(xid: int, commit: int) -> bytes:
    return b"B" + struct.pack(">QqI", commit, 0, xid)


def commit(position: int) -> bytes:
    return b"C" + struct.pack(">BQQq", 0, position, position + 8, 0)


def relation(oid: int, identity: str, columns: list[str]) -> bytes:
    def flag(index: int) -> bytes:
        return bytes([identity == "f" or index == 0])

    return (
        b"R" + struct.pack(">I", oid) + b"s\0" + f"t{oid}\0{identity}".encode() + struct.pack(">H", len(columns))
        + b"".join(flag(i) + name.encode() + b"\0" + struct.pack(">Ii", 25, -1) for i, name in enumerate(columns))
    )  # fmt: skip


def row(values: list[object]) -> bytes:
    def one(value: object) -> bytes:
        if value is None:
            return b"n"
        if value is ...:
            return b"u"
        text = str(value).encode()
        return b"t" + struct.pack(">I", len(text)) + text

    return struct.pack(">H", len(values)) + b"".join(map(one, values))


texts = st.one_of(st.text(max_size=5), st.text(min_size=10, max_size=15), st.just("long " * 30), st.just(""))
nullable = st.one_of(st.none(), texts)
toasted = st.one_of(nullable, st.just(...))


@st.composite
def logs(draw: st.DrawFn) -> list[bytes]:
    """Transactions over up to three tables whose shape and identity change on the way (A-47)."""
    messages: list[bytes] = []
    shapes: dict[int, tuple[str, int]] = {}
    position = 100
    for xid in range(draw(st.integers(1, 5))):
        position += 100
        messages.append(begin(xid, position))
        for _ in range(draw(st.integers(0, 8))):
            oid = draw(st.integers(1, 3))
            if oid not in shapes or draw(st.integers(0, 9)) == 0:
                shapes[oid] = (draw(st.sampled_from("df")), draw(st.integers(1, 4)))
                identity, width = shapes[oid]
                messages.append(relation(oid, identity, [f"c{width}{i}" for i in range(width)]))
            identity, width = shapes[oid]
            # A root on FULL over a leaf that is not has O rows with the key alone (P23). A key that the new row leaves
            # out is in the old one (P12).
            whole = identity == "f" and draw(st.booleans())
            old = row([draw(texts) if i == 0 else draw(nullable) if whole else None for i in range(width)])
            new = row([draw(toasted) for _ in range(width)])
            alone = row([draw(nullable), *(draw(toasted) for _ in range(width - 1))])
            tag = b"O" if identity == "f" else b"K"
            head = struct.pack(">I", oid)
            kind = draw(st.sampled_from(["I", "U", "u", "D", "T", "M", "O", "Y", "A"]))
            if kind == "I":
                messages.append(b"I" + head + b"N" + row([draw(nullable) for _ in range(width)]))
            elif kind == "U" and identity != "f":
                messages.append(b"U" + head + b"N" + alone)
            elif kind in "Uu":
                messages.append(b"U" + head + tag + old + b"N" + new)
            elif kind == "D":
                messages.append(b"D" + head + tag + old)
            elif kind == "T":
                oids = sorted(draw(st.sets(st.sampled_from(sorted(shapes)), min_size=1)))
                messages.append(b"T" + struct.pack(">IB", len(oids), 1) + struct.pack(f">{len(oids)}I", *oids))
            else:
                messages.append(kind.encode() + b"ignored, by name")
        messages.append(commit(position))
    return [wrap(message) for message in messages]


def as_events(decoded: Decoded) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for step in decoded.steps:
        if isinstance(step, Truncate):
            at = decoded.transactions[step.transaction]
            found.append((at.position.order, step.ordinal, "T", step.schema.identity, None, None))
        elif isinstance(step, Changes):
            batch = step.batch
            images = []
            for rows in (batch.before, batch.after):
                columns = []
                for index in range(len(batch.schema.columns)):
                    if rows is None:
                        continue
                    rows.columns[index].validate(full=True)
                    values = rows.columns[index].to_pylist()
                    mask = rows.unchanged[index]
                    columns.append([... if mask is not None and mask[i] else v for i, v in enumerate(values)])
                images.append(list(map(list, zip(*columns, strict=True))))
            for i in range(len(batch)):
                at = decoded.transactions[batch.transaction[i]]
                old = images[0][batch.before_row[i]] if batch.before_row[i] != ABSENT else None
                new = images[1][batch.after_row[i]] if batch.after_row[i] != ABSENT else None
                found.append((at.position.order, int(batch.ordinal[i]), batch.op[i], batch.schema.identity, old, new))
    return sorted(found, key=lambda event: event[:2])


def expected(messages: list[bytes]) -> list[tuple[object, ...]]:
    reference = Reference()
    for message in messages:
        reference.message(message)

    def texts(row: list[object] | None) -> list[object] | None:
        return None if row is None else [value.decode() if isinstance(value, bytes) else value for value in row]

    return [(e.commit, e.ordinal, LETTERS.get(e.op, e.op), e.oid, texts(e.old), texts(e.new)) for e in reference.events]


@given(logs())
def test_decodes_what_a_row_by_row_decoder_does(messages: list[bytes]) -> None:
    """A-37 to A-40, A-43, A-47, A-62, A-66: every change once, in its place, with the values of the shape in force."""
    decoded = Decoder(Tables()).decode(messages)
    assert decoded.consumed == len(messages)
    assert as_events(decoded) == expected(messages)


@given(logs(), st.data())
def test_any_way_to_cut_the_log_gives_the_same(messages: list[bytes], data: st.DataObject) -> None:
    """A-63: transactions pass in parts; whatever is not consumed is given again."""
    decoder = Decoder(Tables())
    found: list[tuple[object, ...]] = []
    pending: list[bytes] = []
    rest = list(messages)
    while rest or pending:
        count = data.draw(st.integers(min(1, len(rest)), len(rest)))
        pending, rest = pending + rest[:count], rest[count:]
        decoded = decoder.decode(pending, allow_part=data.draw(st.booleans()) or not rest) if pending else None
        if decoded is not None:
            found += as_events(decoded)
            pending = pending[decoded.consumed :]
    assert found == expected(messages)
    assert not decoder.inside_transaction


@given(logs(), st.integers(0, 700), st.integers(1, 3))
def test_a_table_starts_at_its_snapshot(messages: list[bytes], start: int, oid: int) -> None:
    """C-01: what was committed before a table's snapshot is skipped, and nothing of any other table."""
    decoded = Decoder(Tables(starts={oid: start})).decode(messages)
    assert as_events(decoded) == [e for e in expected(messages) if e[3] != oid or e[0] >= start]  # type: ignore[operator]


@given(logs())
def test_a_new_shape_is_a_barrier(messages: list[bytes]) -> None:
    """A-47: the evolve step stands before the first rows of the new shape, and each batch has the shape in force."""
    now: dict[int, TableSchema] = {}
    for step in Decoder(Tables()).decode(messages).steps:
        if isinstance(step, Evolve):
            assert now[step.old.identity] == step.old
            now[step.new.identity] = step.new
        elif isinstance(step, Changes):
            schema = step.batch.schema
            assert now.setdefault(schema.identity, schema) == schema
        elif isinstance(step, Truncate):
            assert now.setdefault(step.schema.identity, step.schema) == step.schema


def test_a_key_that_is_left_out_is_in_the_old_row() -> None:
    """P12: the new row has the key, whatever else it leaves out stays left out."""
    update = b"U\0\0\0\1K" + row(["k" * 3000, None, None]) + b"N" + row([..., "2", ...])
    described = relation(1, "d", ["k", "v", "big"])
    (step,) = Decoder(Tables()).decode([wrap(m) for m in (begin(1, 2), described, update, commit(2))]).steps
    assert isinstance(step, Changes)
    assert step.batch.after is not None
    assert [column.to_pylist() for column in step.batch.after.columns] == [["k" * 3000], ["2"], [None]]
    assert step.batch.after.unchanged[:2] == (None, None)
    assert step.batch.after.unchanged[2] is not None


def test_a_key_that_is_nowhere_is_refused() -> None:
    """P12: a release before 14.2 leaves a key that is stored out of line out of both rows: the others can go on."""
    update = b"U\0\0\0\1N" + row([..., "2"])
    with pytest.raises(DecodeError, match="a part of its key") as caught:
        Decoder(Tables()).decode([wrap(m) for m in (begin(1, 2), relation(1, "d", ["k", "v"]), update, commit(2))])
    assert caught.value.concerns == 1


def test_nothing_is_decoded_before_the_commit() -> None:
    messages = [wrap(m) for m in (begin(1, 200), relation(1, "d", ["a"]), b"I\0\0\0\1N" + row(["x"]))]
    decoder = Decoder(Tables())
    assert decoder.decode(messages).consumed == 0
    assert decoder.decode(messages, allow_part=True).end is None
    assert decoder.inside_transaction
    done = decoder.decode([wrap(commit(200))])
    assert done.end is not None
    assert done.end.order == 208


@pytest.mark.parametrize("kind", [b"S", b"E", b"c", b"P", b"\0"])
def test_an_unknown_message_is_named(kind: bytes) -> None:
    """A-60, A-62: a kind of message that is not of protocol version 1 must never be skipped."""
    with pytest.raises(DecodeError, match="unknown kind"):
        Decoder(Tables()).decode([wrap(begin(1, 2)), wrap(kind + b"\0\0\0\1"), wrap(commit(2))])


@pytest.mark.parametrize(
    "damaged",
    [
        b"I\0\0\0\1N" + row(["x", "y"]),  # a column too many
        b"I\0\0\0\1N" + row(["x"]) + b"t",  # bytes after the row
        b"I\0\0\0\1N\0\1t\0\0\xff\xff",  # a value longer than the message
        b"I\0\0\0\1N\0\1b\0\0\0\1x",  # binary, which was not asked for
        b"I\0\0\0\1K" + row(["x"]),  # an insert that has an old row
        b"U\0\0\0\1K" + row(["x"]) + b"X" + row(["x"]),
        b"D\0\0\0\1O" + row(["x"]),  # a full old row where the relation promises a key
        b"I\0\0\0\2N" + row(["x"]),  # a relation that was not described
    ],
)
def test_a_damaged_row_is_refused(damaged: bytes) -> None:
    """Lengths and tags must add up to the byte."""
    with pytest.raises(DecodeError):
        Decoder(Tables()).decode([wrap(m) for m in (begin(1, 2), relation(1, "d", ["a"]), damaged, commit(2))])
