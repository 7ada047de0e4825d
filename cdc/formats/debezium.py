"""Debezium's envelope, for consumers that were written for it; docs/audit.md says with which of its settings.

https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-events
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from cdc.formats.chosen import ALL, Chosen
from cdc.formats.debezium_schemas import Schemas, Texts, is_text
from cdc.formats.debezium_values import UNAVAILABLE, spelled
from cdc.formats.encoded import LAST, Block, Encoded, Message, in_order
from cdc.formats.images import Images, or_null
from cdc.formats.text import LARGE, Piece, constant, joined, literal, numbers, pick
from cdc.model.change import ABSENT, ChangeBatch, Op, Transactions
from cdc.model.schema import TableName, TableSchema
from cdc.model.segment import Changes, Note, Reset, Segment, Truncate
from cdc.version import VERSION

if TYPE_CHECKING:
    from cdc.formats import FormatSettings

_CODES = ["", "c", "u", "d", "t"]
_GTID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}:.+|\d+-\d+-\d+")
_BEGIN, _END = -1, LAST + 1  # ordinals of what is told of a transaction itself
_NOTES = 1 << 40  # more than a transaction has; they come before the change of their ordinal
_COPIED = LAST - 1  # ordinal of rows that were copied after a transaction; before them comes the begin of the copy


@dataclass(slots=True)
class _Open:
    """A transaction as far as it was told: how many events, of all tables and of each."""

    order: int
    identity: str
    committed_at: int
    events: int = 0
    tables: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Known:
    """What messages say of transactions, arrays of one length: of their source, and their identities."""

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

    def messages(self, segment: Segment) -> Iterator[Message]:
        return self.encode(segment).messages()

    def encode(self, segment: Segment, chosen: Chosen = ALL) -> Encoded:
        transactions = segment.transactions
        now = time.time_ns() // 1000
        if segment.checkpoint is not None and not len(transactions):
            self._at = segment.checkpoint.position.order
        known = self._known(transactions)
        bodies: list[_Body] = []
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
            self._at = int(transactions.order[-1])
        if not self._settings.transactions:
            return in_order([body.unnumbered() for body in bodies])
        return in_order(list(self._numbered(bodies, segment, known, now)))

    # --- changes ----------------------------------------------------------------------------------------------------

    def _changes(self, batch: ChangeBatch, known: _Known, now: int, last: int) -> Iterator[_Body]:
        images = Images(batch, spelled, UNAVAILABLE)
        before, after = or_null(images.before), or_null(images.after)
        source = self._source(batch, known)
        of = np.full(len(batch), last, dtype=np.int64) if batch.copied else batch.transaction.astype(np.int64)
        ordinal = np.full(len(batch), _COPIED) if batch.copied else batch.ordinal
        moved, table = images.moved, batch.schema
        codes: Piece = "r" if batch.copied else _coded(batch.op)
        stays, moves = np.flatnonzero(~moved), np.flatnonzero(moved)
        gone = np.flatnonzero((batch.op == Op.DELETE) | moved)
        texts = self._texts(images, table)
        old_key = self._keyed(table, images.old_key, texts.old_key)
        new_key = self._keyed(table, images.new_key, texts.new_key)

        def body(
            rows: np.ndarray, rank: int, op: Piece, old: pa.Array | None, new: pa.Array | None, key: pa.Array
        ) -> _Body:
            pieces = [pick(array, rows) if array is not None else "null" for array in (old, new)]
            code = op if isinstance(op, str) else pick(op, rows)
            value = joined('"before":', pieces[0], ',"after":', pieces[1], ',"source":{', pick(source, rows))
            value = joined(value, '},"op":"', code, f'",{_moments(now)}')
            said = [_picked(found, rows, image) for found, image in ((texts.before, old), (texts.after, new))]
            return self._body(table, of[rows], ordinal[rows], rank, pick(key, rows), value, *said)

        if len(stays):
            yield body(stays, 0, codes, before, after, new_key)
        if len(moves):
            yield body(moves, 0, "d", before, None, old_key)
            yield body(moves, 2, "c", None, after, new_key)
        if self._settings.tombstones and len(gone) and table.key:
            key = pick(old_key, gone)
            yield _Body(table.table, of[gone], ordinal[gone], 1, key, pa.nulls(len(gone), LARGE), "")

    def _emptied(self, schema: TableSchema, known: _Known, now: int, transaction: int, place: int) -> _Body:
        """A truncate; and the begin of a copy, before which a consumer's rows are void."""
        is_copy = transaction == ABSENT
        source = self._copied(1) if is_copy else pick(known.source, np.array([transaction]))
        source = joined(self._of_table(schema.table), source)
        value = joined('"before":null,"after":null,"source":{', source, f'}},"op":"t",{_moments(now)}')
        at, ordinal = (place, _COPIED - 1) if is_copy else (transaction, place)
        return self._body(schema, np.array([at]), np.array([ordinal]), 0, pa.nulls(1, LARGE), value, {}, {})

    def _note(self, step: Note, known: _Known, now: int) -> _Body:
        """A logical decoding message, which has neither a table nor a number in its transaction."""
        place = self._of_table(TableName("", "")) + known.source[step.transaction].as_py()
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
        numeric = [index for index, column in enumerate(schema.columns) if not is_text(column.type.kind)]
        before, after = images.texts_before(numeric), images.texts_after(numeric)
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

    def _source(self, batch: ChangeBatch, known: _Known) -> pa.Array:
        of = self._copied(len(batch)) if batch.copied else pick(known.source, batch.transaction.astype(np.int64))
        row: tuple[Piece, ...] = () if self._connector == "postgresql" else (',"row":', numbers(batch.ordinal))
        return joined(self._of_table(batch.schema.table), of, *row)

    def _copied(self, count: int) -> pa.Array:
        place = self._place("", 0, self._at)
        return constant(f'{_moments(time.time_ns() // 1000)},"snapshot":"true",{literal(place)[1:-1]}', count)

    def _known(self, transactions: Transactions) -> _Known:
        sources, identities = [], []
        rows = zip(
            *(a.tolist() for a in (transactions.order, transactions.identity, transactions.committed_at)), strict=True
        )
        for order, identity, committed_at in rows:
            text = transactions.write(order)
            place = literal(self._place(text, identity, order))[1:-1]
            sources.append(f'{_moments(committed_at)},"snapshot":"false",{place}')
            identities.append(f"{identity}:{order}" if self._connector == "postgresql" else text)
        return _Known(pa.array(sources, LARGE), identities)

    def _place(self, position: str, identity: int, order: int) -> dict[str, object]:
        if self._connector == "postgresql":
            return {"sequence": None, "txId": identity or None, "lsn": order, "xmin": None}
        is_gtid = _GTID.fullmatch(position) is not None
        file, _, offset = ("", "", "") if is_gtid else position.rpartition(":")
        return {
            "sequence": None,
            "server_id": 0,
            "gtid": position if is_gtid else None,
            "file": file,
            "pos": int(offset) if offset.isdecimal() else order,
            "thread": None,
            "query": None,
        }

    # --- transactions -----------------------------------------------------------------------------------------------

    def _numbered(self, bodies: list[_Body], segment: Segment, known: _Known, now: int) -> Iterator[Block]:
        """Bodies with their numbers in their transactions, and what is told of these."""
        opened = self._opened(segment.transactions, known)
        identities = pa.array([literal(text) for text in known.identity], LARGE)
        told = [body for body in bodies if body.is_numbered]
        places = [np.concatenate([body.keys(name) for body in told] or [np.empty(0, int)]) for name in _ORDER]
        order = np.lexsort(places)
        of = places[-1][order]
        names = sorted({str(body.table) for body in told})
        table = np.repeat([names.index(str(body.table)) for body in told], [len(body.of) for body in told])
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
        yield from self._told(opened, segment, now)

    def _opened(self, transactions: Transactions, known: _Known) -> list[_Open]:
        rows = zip(transactions.order.tolist(), known.identity, transactions.committed_at.tolist(), strict=True)
        opened = [_Open(*row) for row in rows]
        if opened and self._open is not None and self._open.order == opened[0].order:
            opened[0] = replace(self._open)
        return opened

    def _told(self, opened: list[_Open], segment: Segment, now: int) -> Iterator[Block]:
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

    def block(self, value: pa.Array) -> Block:
        return Block(self.table, self.of, self.ordinal, self.keys("rank"), self.key, value)

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


def _beside(schema: str, payload: str) -> str:
    return f'{{"schema":{schema},"payload":{payload}}}'


def _picked(texts: Texts, rows: np.ndarray, image: pa.Array | None) -> Texts:
    """Of some changes, of which an image may not be told."""
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
