"""Debezium's envelope, for consumers that were written for it; docs/audit.md says with which of its settings.

https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-events
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc.formats.chosen import ALL, Chosen
from cdc.formats.debezium_schemas import Schemas, Texts, stray, table_change
from cdc.formats.debezium_values import UNAVAILABLE, spelled
from cdc.formats.encoded import LAST, Block, Encoded, Message, in_order
from cdc.formats.images import Images, or_null
from cdc.formats.shapes import Shape, key_of
from cdc.formats.text import Piece, joined, literal, numbers, pick
from cdc.model.arrays import LARGE
from cdc.model.change import ABSENT, ChangeBatch, Op, Transactions
from cdc.model.schema import TableName, TableSchema
from cdc.model.segment import Changes, Note, Reset, Segment, Truncate
from cdc.version import VERSION

if TYPE_CHECKING:
    from cdc.formats import FormatSettings

_CODES = ["", "c", "u", "d", "t"]
_GTID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}:.+|\d+-\d+-\d+")
_BEGIN, _END = -1, LAST + 1  # ordinals of the messages about a transaction itself
_NOTES = 1 << 40  # more than a transaction has; they come before the change of their ordinal
_SHAPE = -2 * _NOTES  # rank of the message with a table's shape, which comes before those
_COPIED = LAST - 1  # ordinal of rows that were copied after a transaction; before them comes the begin of the copy
_DIGITS = 19  # of the largest number that a place in the log has
# Of a row whose key moves, at its delete and its create (RelationalChangeRecordEmitter); a tombstone has its delete's.
_NEW_KEY, _OLD_KEY = "__debezium.newkey", "__debezium.oldkey"


@dataclass(slots=True)
class _Open:
    """A transaction as far as it was emitted: how many events, of all tables and of each."""

    order: int
    identity: str
    committed_at: int
    events: int = 0
    tables: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Known:
    """What messages say of transactions, arrays of one length.

    Attributes:
        order: int64[n].
        source: what a source block says of them, as far as the ordinal (`_ordinals`).
        identity: their own.
    """

    order: np.ndarray
    source: pa.Array
    identity: list[str]


class DebeziumFormat:
    """One message per change; a change of key is a delete and an insert."""

    def __init__(self, settings: FormatSettings) -> None:
        self._settings = settings
        self._connector = "postgresql" if settings.source.startswith("postgres") else settings.source
        self._schemas = Schemas(settings.pipeline, self._connector)
        self._open: _Open | None = None
        self._at = 0
        self._done = 0  # all that was emitted is of transactions up to there

    def messages(self, segment: Segment, shapes: Sequence[Shape] = ()) -> Iterator[Message]:
        return self.encode(segment, ALL, shapes).messages()

    def encode(self, segment: Segment, chosen: Chosen = ALL, shapes: Sequence[Shape] = ()) -> Encoded:
        transactions = segment.transactions
        now = time.time_ns() // 1000
        if segment.checkpoint is not None and not len(transactions):
            self._at = segment.checkpoint.position.order
            self._done = max(self._at - 1, 0)  # a transaction that is there itself is still to come
        known = self._known(transactions)
        bodies: list[_Body] = []
        about_shapes = [self._shape(shape, known, now) for shape in shapes if chosen.has("schema")]
        last = ABSENT
        for step in segment.steps:
            if isinstance(step, Changes):
                batch = chosen.of(step.batch)
                if len(batch):
                    bodies += self._changes(batch, known, now, last)
                    last = last if batch.copied else int(batch.transaction[-1])
            elif isinstance(step, Truncate):
                last = step.transaction
                if chosen.has("truncate"):
                    bodies.append(self._emptied(step.schema, known, now, step.transaction, step.ordinal))
            elif isinstance(step, Note):
                last = step.transaction
                if chosen.has("note"):
                    bodies.append(self._note(step, known, now))
            elif isinstance(step, Reset) and chosen.has("reset"):
                bodies.append(self._emptied(step.schema, known, now, ABSENT, last))
        if len(transactions):
            self._at = self._done = int(transactions.order[-1])
        if not self._settings.transactions:
            return in_order([*about_shapes, *(body.unnumbered() for body in bodies)])
        return in_order([*about_shapes, *self._numbered(bodies, segment, known, now)])

    # --- changes ----------------------------------------------------------------------------------------------------

    def _changes(self, batch: ChangeBatch, known: _Known, now: int, last: int) -> Iterator[_Body]:
        images = Images(batch, spelled, UNAVAILABLE)
        before, after = or_null(images.before), or_null(images.after)
        of = np.full(len(batch), last, dtype=np.int64) if batch.copied else batch.transaction.astype(np.int64)
        ordinal = np.full(len(batch), _COPIED) if batch.copied else batch.ordinal
        source = self._source(batch, known, last, ordinal)
        moved, table = images.moved, batch.schema
        codes: Piece = "r" if batch.copied else _coded(batch.op)
        stays, moves = np.flatnonzero(~moved), np.flatnonzero(moved)
        gone = np.flatnonzero((batch.op == Op.DELETE) | moved)
        texts = self._texts(images, table)
        old_key = self._keyed(table, images.old_key, texts.old_key)
        new_key = self._keyed(table, images.new_key, texts.new_key)

        def body(
            rows: np.ndarray,
            rank: int,
            op: Piece,
            old: pa.Array | None,
            new: pa.Array | None,
            key: pa.Array,
            **headers: pa.Array,
        ) -> _Body:
            pieces = [pick(array, rows) if array is not None else "null" for array in (old, new)]
            code = op if isinstance(op, str) else pick(op, rows)
            value = joined('"before":', pieces[0], ',"after":', pieces[1], ',"source":{', pick(source, rows))
            value = joined(value, '},"op":"', code, f'",{_moments(now)}')
            said = [_picked(found, rows, image) for found, image in ((texts.before, old), (texts.after, new))]
            made = self._body(table, of[rows], ordinal[rows], rank, pick(key, rows), value, *said)
            return replace(made, headers={name: pick(array, rows) for name, array in headers.items()})

        if len(stays):
            yield body(stays, 0, codes, before, after, new_key)
        if len(moves):
            yield body(moves, 0, "d", before, None, old_key, **{_NEW_KEY: new_key})
            yield body(moves, 2, "c", None, after, new_key, **{_OLD_KEY: old_key})
        if self._settings.tombstones and len(gone) and table.key:
            nothing = pa.nulls(len(gone), LARGE)
            headers = {_NEW_KEY: pick(new_key, np.where(moved[gone], gone, ABSENT))} if len(moves) else {}
            yield _Body(table.table, of[gone], ordinal[gone], 1, pick(old_key, gone), nothing, "", headers)

    def _emptied(self, schema: TableSchema, known: _Known, now: int, transaction: int, place: int) -> _Body:
        """A truncate; and the begin of a copy, before which a consumer's rows are void."""
        at, ordinal = (place, _COPIED - 1) if transaction == ABSENT else (transaction, place)
        source = self._single_source(schema.table, known, at, ordinal, is_copied=transaction == ABSENT)
        value = pa.array([f'"before":null,"after":null,"source":{{{source}}},"op":"t",{_moments(now)}'], LARGE)
        return self._body(schema, np.array([at]), np.array([ordinal]), 0, pa.nulls(1, LARGE), value, {}, {})

    def _shape(self, shape: Shape, known: _Known, now: int) -> Block:
        """A table's shape, as far as the log has it in the form of Debezium's schema changes."""
        schema, table, at = shape.schema, shape.schema.table, shape.transaction
        ordinal = _COPIED - 1 if shape.ordinal is None else shape.ordinal
        source = self._single_source(table, known, at, ordinal, is_copied=shape.ordinal is None)
        is_postgres = self._connector == "postgresql"
        content = {
            "databaseName": self._settings.database if is_postgres else table.schema,
            "schemaName": table.schema if is_postgres else None,
            "ddl": None,
            "tableChanges": [table_change(schema, is_first=shape.is_first)],
        }
        key = key_of(schema)
        value = f'{{"source":{{{source}}},{_moments(now)},{literal(content)[1:]}'
        if self._settings.schemas:
            of_key, of_value = self._schemas.shape
            key, value = _beside(of_key, key), _beside(of_value, value)
        places = np.array([at]), np.array([ordinal]), np.array([_SHAPE])
        return Block(table, *places, pa.array([key], LARGE), pa.array([value], LARGE), is_schema=True)

    def _note(self, step: Note, known: _Known, now: int) -> _Body:
        """A logical decoding message, which has neither a table nor a number in its transaction."""
        place = self._single_source(TableName("", ""), known, step.transaction, step.ordinal)
        content = literal({"prefix": step.prefix, "content": step.content.encode().hex()})
        key = literal({"prefix": step.prefix})
        value = f'"op":"m",{_moments(now)},"source":{{{place}}},"message":{content}'
        head, tail = "{", ""
        if self._settings.schemas:
            of_key, of_value = self._schemas.note
            key, head, tail = _beside(of_key, key), f'{{"schema":{of_value},"payload":{{', "}"
        at, ordinal = np.array([step.transaction]), np.array([step.ordinal])
        values = pa.array([head + value], LARGE)
        return _Body(None, at, ordinal, step.number - _NOTES, pa.array([key], LARGE), values, tail)

    def _body(
        self,
        schema: TableSchema,
        of: np.ndarray,
        ordinal: np.ndarray,
        rank: int,
        key: pa.Array,
        value: pa.Array,
        before: Texts,
        after: Texts,
    ) -> _Body:
        head: list[Piece] = ["{"]
        tail = ""
        if self._settings.schemas:
            head, tail = ['{"schema":', *self._schemas.value(schema, before, after), ',"payload":{'], "}"
        return _Body(schema.table, of, ordinal, rank, key, joined(*head, value), tail)

    def _keyed(self, schema: TableSchema, key: pa.Array, texts: Texts) -> pa.Array:
        if not self._settings.schemas or not schema.key:
            return key
        return joined('{"schema":', *self._schemas.key(schema, texts), ',"payload":', key, "}")

    def _texts(self, images: Images, schema: TableSchema) -> _Texts:
        """Where texts stand for numbers, which is nobody's concern but a schema's."""
        if not self._settings.schemas:
            return _Texts({}, {}, {}, {})
        strays = {i: begin for i, column in enumerate(schema.columns) if (begin := stray(column)) is not None}
        before, after = images.texts_before(strays), images.texts_after(strays)
        old_key = {index: before[index] for index in schema.key if index in before}
        new_key = {
            index: np.where(images.key_is_of_after, after.get(index, False), before.get(index, False))
            for index in schema.key
            if index in before or index in after
        }
        return _Texts(before, after, old_key, new_key)

    # --- where they are from ----------------------------------------------------------------------------------------

    def _of_table(self, table: TableName) -> str:
        """What a source block says of a table; the rest of it follows."""
        place = {"version": VERSION, "connector": self._connector, "name": self._settings.pipeline}
        if self._connector == "postgresql":
            place |= {"db": self._settings.database, "schema": table.schema, "table": table.name}
        else:
            place |= {"db": table.schema, "table": table.name}
        return literal(place)[1:-1] + ","

    def _source(self, batch: ChangeBatch, known: _Known, last: int, ordinal: np.ndarray) -> pa.Array:
        index = batch.transaction.astype(np.int64)
        of: Piece = self._copied(known, last) if batch.copied else pick(known.source, index)
        row: tuple[Piece, ...] = () if self._connector == "postgresql" else (',"row":', numbers(batch.ordinal))
        return joined(self._of_table(batch.schema.table), of, _ordinals(ordinal), *row)

    def _single_source(self, table: TableName, known: _Known, at: int, ordinal: int, *, is_copied: bool = False) -> str:
        """Of a message that is about no row: of a transaction, or of a copy behind it."""
        of: str = self._copied(known, at) if is_copied else known.source[at].as_py()
        return self._of_table(table) + of + _ordinals(np.array([ordinal]))[0].as_py()  # type: ignore[no-any-return]

    def _copied(self, known: _Known, last: int) -> str:
        """Of rows that are copied behind the last transaction that was emitted, of the segment at hand or before it."""
        at, emitted = (self._at, self._done) if last == ABSENT else (int(known.order[last]),) * 2
        place = literal(self._place("", 0, at))[1:-1]
        return f'{_moments(time.time_ns() // 1000)},"snapshot":"true",{place},{_sequence(emitted)}'

    def _known(self, transactions: Transactions) -> _Known:
        sources, identities = [], []
        rows = zip(
            *(a.tolist() for a in (transactions.order, transactions.identity, transactions.committed_at)), strict=True
        )
        for order, identity, committed_at in rows:
            text = transactions.write(order)
            place = literal(self._place(text, identity, order))[1:-1]
            sources.append(f'{_moments(committed_at)},"snapshot":"false",{place},{_sequence(order)}')
            identities.append(f"{identity}:{order}" if self._connector == "postgresql" else text)
        return _Known(transactions.order, pa.array(sources, LARGE), identities)

    def _place(self, position: str, identity: int, order: int) -> dict[str, object]:
        if self._connector == "postgresql":
            return {"txId": identity or None, "lsn": order, "xmin": None}
        is_gtid = _GTID.fullmatch(position) is not None
        file, _, offset = ("", "", "") if is_gtid else position.rpartition(":")
        return {
            "server_id": 0,
            "gtid": position if is_gtid else None,
            "file": file,
            "pos": int(offset) if offset.isdecimal() else order,
            "thread": None,
            "query": None,
        }

    # --- transactions -----------------------------------------------------------------------------------------------

    def _numbered(self, bodies: list[_Body], segment: Segment, known: _Known, now: int) -> Iterator[Block]:
        """Bodies with their numbers in their transactions, and the messages about these."""
        opened = self._opened(segment.transactions, known)
        identities = pa.array([literal(text) for text in known.identity], LARGE)
        numbered = [body for body in bodies if body.is_numbered]
        places = [np.concatenate([body.keys(name) for body in numbered] or [np.empty(0, int)]) for name in _ORDER]
        order = np.lexsort(places)
        of = places[-1][order]
        names = sorted({str(body.table) for body in numbered})
        table = np.repeat([names.index(str(body.table)) for body in numbered], [len(body.of) for body in numbered])
        table = table.astype(np.int64)[order]
        pair = of * len(names) + table
        total, own = np.empty(len(order), dtype=np.int64), np.empty(len(order), dtype=np.int64)
        if len(order):
            total[order] = _running(of) + np.array([t.events for t in opened])[of]
            own[order] = (
                _running(pair) + np.array([[t.tables.get(name, 0) for name in names] for t in opened])[of, table]
            )
        for number, count in zip(*(found.tolist() for found in np.unique(pair, return_counts=True)), strict=True):
            transaction, name = opened[number // len(names)], names[number % len(names)]
            transaction.events += count
            transaction.tables[name] = transaction.tables.get(name, 0) + count
        at = 0
        for body in bodies:
            if not body.is_numbered:
                yield body.unnumbered()
                continue
            rows = slice(at, at + len(body.of))
            at = rows.stop
            identity = pick(identities, body.of)
            value = joined(
                *(body.value, ',"transaction":{"id":', identity, ',"total_order":', numbers(total[rows])),
                *(',"data_collection_order":', numbers(own[rows]), "}}", body.tail),
            )
            yield body.block(value)
        yield from self._boundaries(opened, segment, now)

    def _opened(self, transactions: Transactions, known: _Known) -> list[_Open]:
        rows = zip(transactions.order.tolist(), known.identity, transactions.committed_at.tolist(), strict=True)
        opened = [_Open(*row) for row in rows]
        if opened and self._open is not None and self._open.order == opened[0].order:
            opened[0] = replace(self._open)
        return opened

    def _boundaries(self, opened: list[_Open], segment: Segment, now: int) -> Iterator[Block]:
        """BEGIN and END of transactions that have events."""
        goes_on = self._open is not None and bool(opened) and opened[0].order == self._open.order
        if self._open is not None and not goes_on and (opened or segment.checkpoint is not None):
            yield self._about(_ended(self._open, now), ABSENT, _BEGIN - 1)
        for index, transaction in enumerate(opened):
            if transaction.events and not (index == 0 and goes_on and self._open is not None and self._open.events):
                begun = {"status": "BEGIN", "id": transaction.identity, "ts_ms": transaction.committed_at // 1000}
                yield self._about(begun | {"event_count": None, "data_collections": None}, index, _BEGIN)
            is_last = index == len(opened) - 1
            if transaction.events and not (is_last and segment.checkpoint is None):
                yield self._about(_ended(transaction, now), index, _END)
        if opened or segment.checkpoint is not None:
            last = opened[-1] if opened and segment.checkpoint is None else None
            self._open = last if last is not None and last.events else None

    def _about(self, content: dict[str, object], transaction: int, ordinal: int) -> Block:
        """A message about a transaction."""
        key, value = literal({"id": content["id"]}), literal(content)
        if self._settings.schemas:
            of_key, of_value = self._schemas.transaction
            key, value = _beside(of_key, key), _beside(of_value, value)
        at = np.array([transaction]), np.array([ordinal]), np.zeros(1, dtype=np.int64)
        return Block(None, *at, pa.array([key], LARGE), pa.array([value], LARGE))


@dataclass(frozen=True, slots=True)
class _Texts:
    """Where texts stand for numbers: in the rows before and after each change, and in the keys before and after it."""

    before: Texts
    after: Texts
    old_key: Texts
    new_key: Texts


@dataclass(frozen=True, slots=True)
class _Body:
    """Messages that lack what is said of their transaction. A value is null in all of them (tombstones) or in none."""

    table: TableName | None
    of: np.ndarray
    ordinal: np.ndarray
    rank: int
    key: pa.Array
    value: pa.Array
    tail: str
    headers: Mapping[str, pa.Array] = field(default_factory=dict)

    def block(self, value: pa.Array) -> Block:
        return Block(self.table, self.of, self.ordinal, self.keys("rank"), self.key, value, headers=self.headers)

    def unnumbered(self) -> Block:
        """As they are where nothing is said of transactions."""
        return self.block(joined(self.value, ',"transaction":null}', self.tail))

    @property
    def is_numbered(self) -> bool:
        """Whether they are events of transactions: neither tombstones nor copied rows nor notes."""
        return self.table is not None and self.value.null_count == 0 and not (self.ordinal >= _COPIED - 1).any()

    def keys(self, name: str) -> np.ndarray:
        """One of what orders them."""
        found: np.ndarray = np.full(len(self.of), self.rank) if name == "rank" else getattr(self, name)
        return found


_ORDER = ("rank", "ordinal", "of")


def _moments(microseconds: int) -> str:
    """A moment in each of the units in which messages have it."""
    return f'"ts_ms":{microseconds // 1000},"ts_us":{microseconds},"ts_ns":{microseconds}000'


def _sequence(order: int) -> str:
    """The begin of what compares as text as messages do in the log: Debezium's list of two texts, of a fixed width."""
    return f'"sequence":"[\\"{order:0{_DIGITS}d}\\",\\"'


def _ordinals(ordinal: np.ndarray) -> pa.Array:
    """The rest of it."""
    return joined(pc.ascii_lpad(numbers(ordinal), _DIGITS, "0"), '\\"]"')


def _beside(schema: str, payload: str) -> str:
    return f'{{"schema":{schema},"payload":{payload}}}'


def _picked(texts: Texts, rows: np.ndarray, image: pa.Array | None) -> Texts:
    """The texts of some changes; nothing if their image is missing."""
    return {index: found[rows] for index, found in texts.items()} if image is not None else {}


def _coded(ops: np.ndarray) -> Piece:
    """Debezium's letters."""
    first = int(ops[0])
    return _CODES[first] if (ops == first).all() else pa.array(_CODES, LARGE).take(pa.array(ops))


def _running(groups: np.ndarray) -> np.ndarray:
    """int64[n]: for each element how many of its group there are up to it."""
    order = np.argsort(groups, kind="stable")
    found = np.empty(len(groups), dtype=np.int64)
    in_order_ = groups[order]
    begins = np.concatenate([[True], in_order_[1:] != in_order_[:-1]]) if len(groups) else np.empty(0, dtype=bool)
    index = np.arange(len(groups))
    found[order] = index - np.maximum.accumulate(np.where(begins, index, 0)) + 1
    return found


def _ended(transaction: _Open, now: int) -> dict[str, object]:
    tables = [{"data_collection": name, "event_count": count} for name, count in sorted(transaction.tables.items())]
    ended = {"status": "END", "id": transaction.identity, "ts_ms": now // 1000, "event_count": transaction.events}
    return ended | {"data_collections": tables}
