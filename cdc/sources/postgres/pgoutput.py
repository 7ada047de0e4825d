"""The pgoutput protocol, version 1 in text format: bytes of CopyData messages in, batches of changes out, no I/O.

https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html

All messages at hand are one buffer; whatever has the same shape is read in lockstep. Rows of one table between two
barriers (a truncate, a table that changed its shape) become one batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa

from cdc.errors import DecodeError
from cdc.model.change import ABSENT, ChangeBatch, Op, Rows, Transactions
from cdc.model.position import Position
from cdc.model.schema import TableSchema
from cdc.model.segment import Changes, Evolve, Note, Step, Suspect, Truncate
from cdc.sources.lockstep import Buffer, string_array, views_of
from cdc.sources.postgres.moments import native
from cdc.sources.postgres.notes import read_note
from cdc.sources.postgres.position import EPOCH, lsn, write_lsn
from cdc.sources.postgres.relation import HEADER, Moved, Relation, RelationColumn

_BODY = HEADER + 1  # after the message's kind

# O origin, Y type and M message carry no row. An A (stream abort) comes unasked from some releases even where
# streaming is off, and means nothing there. Any other kind is an error.
_KINDS = b"BCRIUDTMOYA"
_KNOWN = np.zeros(256, dtype=bool)
_KNOWN[list(_KINDS)] = True
# How long a body is at least, and of which kinds it is never longer. A length that lies must not make the decoder read
# on in the next message.
_SHORTEST = np.zeros(256, dtype=np.int64)
_SHORTEST[list(b"BCRIUDT")] = 20, 25, 8, 5, 5, 5, 5
_IS_FIXED = np.zeros(256, dtype=bool)
_IS_FIXED[list(b"BC")] = True
_IDENTITIES = "dnfi"
_OPS = np.zeros(256, dtype=np.uint8)
_OPS[ord("I")], _OPS[ord("U")], _OPS[ord("D")] = Op.INSERT, Op.UPDATE, Op.DELETE


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a relation turned out to be.

    Attributes:
        old, fill: if the table had another shape before (see `Evolve`).
        before, after: other tables, whose names change with it.
        doubt: why rows that were there before may be others now (see `Suspect`).
    """

    schema: TableSchema
    old: TableSchema | None = None
    fill: dict[int, str] = field(default_factory=dict)
    before: Sequence[Moved] = ()
    after: Sequence[Moved] = ()
    doubt: str | None = None

    def steps(self, transaction: int) -> list[Evolve | Suspect]:
        """What a target is given for it, as part of a transaction of the segment (see `Evolve`)."""
        steps: list[Evolve | Suspect] = [Evolve(move.old, move.new, transaction) for move in self.before]
        if self.old is not None and self.old != self.schema:
            steps.append(Evolve(self.old, self.schema, transaction, self.fill))
        steps += [Evolve(move.old, move.new, transaction) for move in self.after]
        if self.doubt is not None:
            steps.append(Suspect(self.schema, self.doubt, transaction))
        return steps


class Catalog(Protocol):
    """What the decoder must know about tables."""

    def start(self, oid: int) -> int:
        """The LSN of the table's snapshot: what was committed before it is in the snapshot already."""

    def resolve(self, relation: Relation) -> Resolved | None:
        """The table schema of a relation that has rows now; None if the table is not followed."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What came out of a run of messages.

    Attributes:
        steps, transactions: as in a segment.
        end: the end of the last transaction; None if the messages end inside one.
        consumed: how many of the messages were used; the rest must be given again, before what follows them.
    """

    steps: list[Step]
    transactions: Transactions
    end: Position | None
    consumed: int


@dataclass(slots=True)
class _Open:
    """A transaction that began in earlier messages."""

    order: int
    identity: int
    committed_at: int
    changes: int


@dataclass(frozen=True, slots=True)
class _Messages:
    """A run of messages as arrays, one entry per message."""

    buffer: Buffer
    start: np.ndarray
    end: np.ndarray
    kind: np.ndarray
    transaction: np.ndarray
    ordinal: np.ndarray


class Decoder:
    """Turns messages into steps. Keeps what the protocol says only once: the relations, and an open transaction.

    Args:
        notes: emit what applications said in their transactions, too.
    """

    def __init__(self, catalog: Catalog, *, notes: bool = False) -> None:
        self._catalog = catalog
        self._tells_notes = notes
        self._noted = (0, 0)  # the last transaction that has notes, and how many
        self._relations: dict[int, Relation] = {}
        self._resolved: dict[int, TableSchema | None] = {}
        self._open: _Open | None = None

    @property
    def inside_transaction(self) -> bool:
        """Whether what was decoded so far ends before its transaction does."""
        return self._open is not None

    def decode(self, messages: list[bytes], *, allow_part: bool = False) -> Decoded:
        """Decode whole transactions, or, if there is no end of one and `allow_part`, what there is of it.

        Args:
            messages: CopyData payloads of XLogData ('w') messages in order, header included.

        Raises:
            DecodeError: a message is of an unknown kind or does not have the shape that it announces.
        """
        buffer = Buffer(messages)
        length = np.fromiter(map(len, messages), dtype=np.int64, count=len(messages))
        if (length <= HEADER).any():
            raise DecodeError("The server sent a logical replication message that is shorter than its header.")
        end = np.cumsum(length)
        start = end - length
        kind = buffer.bytes[start + HEADER]
        self._refuse_unknown(kind)
        _refuse_lengths(buffer, start, length - _BODY, kind)

        count, finished = _whole_transactions(kind, inside=self._open is not None)
        if count == 0 and allow_part:
            count = len(messages)
        if count == 0:
            return Decoded([], Transactions.none(), None, 0)
        run, transactions = self._frame(buffer, start[:count], end[:count], kind[:count])
        steps = list(self._steps(run, transactions))
        if self._tells_notes:
            steps += self._notes(run, transactions)
        position = lsn(int(buffer.int64(run.start[[finished]] + _BODY + 9)[0])) if finished is not None else None
        return Decoded(steps, transactions, position, count)

    @staticmethod
    def _refuse_unknown(kind: np.ndarray) -> None:
        known = _KNOWN[kind]
        if not known.all():
            code = int(kind[np.argmin(known)])
            raise DecodeError(
                f"The server sent a logical replication message of unknown kind {chr(code)!r} (0x{code:02X}).",
                hint="This version of cdc knows protocol version 1; a newer one may know more.",
            )

    def _frame(
        self, buffer: Buffer, start: np.ndarray, end: np.ndarray, kind: np.ndarray
    ) -> tuple[_Messages, Transactions]:
        """Give every message its transaction and its place in it."""
        _refuse_order(buffer, start, kind, inside=self._open is not None)
        begins = np.flatnonzero(kind == ord("B"))
        body = start[begins] + _BODY
        order, committed_at = buffer.int64(body), buffer.int64(body + 8) + EPOCH
        identity = buffer.uint32(body + 16)
        carried = self._open
        if carried is not None:
            order = np.concatenate([[carried.order], order])
            identity = np.concatenate([[carried.identity], identity])
            committed_at = np.concatenate([[carried.committed_at], committed_at])
        transactions = Transactions(order, identity, committed_at, write_lsn)

        transaction = np.cumsum(kind == ord("B")) - (0 if carried is not None else 1)
        weight = (_OPS[kind] > 0).astype(np.int64)
        truncates = np.flatnonzero(kind == ord("T"))
        weight[truncates] = buffer.uint32(start[truncates] + _BODY)
        before = np.cumsum(weight) - weight
        base = before[begins]
        if carried is not None:
            base = np.concatenate([[-carried.changes], base])
        ordinal = before - base[transaction] if len(base) else before

        inside_at_end = _open_after(kind, inside=carried is not None)
        if inside_at_end:
            total = int(weight.sum() - base[-1])
            self._open = _Open(int(order[-1]), int(identity[-1]), int(committed_at[-1]), total)
        else:
            self._open = None
        return _Messages(buffer, start, end, kind, transaction.astype(np.int32), ordinal), transactions

    def _steps(self, run: _Messages, transactions: Transactions) -> Iterator[Step]:
        """Walk from barrier to barrier."""
        changes = np.flatnonzero(_OPS[run.kind] > 0)
        done = 0
        repeated: set[int] = set()
        for at in np.flatnonzero((run.kind == ord("R")) | (run.kind == ord("T"))):
            relation = _relation(run, at) if run.kind[at] == ord("R") else None
            if relation is not None and self._relations.get(relation.oid) == relation:
                # Something has happened to the table, or it has another leaf. Who is asked what it is looks at the
                # present, which is behind all of these messages.
                if relation.oid in repeated:
                    continue
                repeated.add(relation.oid)
            until = int(np.searchsorted(changes, at))
            yield from self._changes(run, transactions, changes[done:until])
            done = until
            if relation is not None:
                self._relations[relation.oid] = relation
                self._resolved.pop(relation.oid, None)
            else:
                yield from self._truncates(run, transactions, int(at))
        yield from self._changes(run, transactions, changes[done:])

    def _notes(self, run: _Messages, transactions: Transactions) -> Iterator[Note]:
        for at in np.flatnonzero(run.kind == ord("M")).tolist():
            index = int(run.transaction[at])
            order = int(transactions.order[index]) if index >= 0 else 0
            number = self._noted[1] if self._noted[0] == order else 0
            body = run.buffer.bytes[run.start[at] + _BODY : run.end[at]].tobytes()
            note = read_note(body, index, int(run.ordinal[at]), number)
            if note is not None and index >= 0:
                self._noted = order, number + 1
                yield note

    def _changes(self, run: _Messages, transactions: Transactions, at: np.ndarray) -> Iterator[Step]:
        """Batches of the messages `at` (int64[n]), one per table."""
        if len(at) == 0:
            return
        oids = run.buffer.uint32(run.start[at] + _BODY)
        for oid in np.unique(oids).tolist():
            rows = at[oids == oid]
            first = self._catalog.start(oid)
            if first:
                rows = rows[transactions.order[run.transaction[rows]] >= first]
            if len(rows) == 0:
                continue
            schema, evolves = self._resolve(oid, int(run.transaction[rows[0]]))
            yield from evolves
            if schema is None:
                continue
            try:
                batch = _batch(run, rows, schema, self._relations[oid])
            except DecodeError as error:
                error.concerns = schema.identity
                raise
            yield Changes(batch)

    def _truncates(self, run: _Messages, transactions: Transactions, at: int) -> Iterator[Step]:
        body = int(run.start[at]) + _BODY
        count = int(run.buffer.uint32(np.array([body]))[0])
        oids = run.buffer.uint32(body + 5 + 4 * np.arange(count))
        index = int(run.transaction[at])
        for offset, oid in enumerate(oids.tolist()):
            if transactions.order[index] < self._catalog.start(oid):
                continue
            schema, evolves = self._resolve(oid, index)
            yield from evolves
            if schema is not None:
                yield Truncate(schema, index, int(run.ordinal[at]) + offset)

    def moved(self, moves: Sequence[Moved]) -> None:
        """Tables have other names from here on, whatever the log says."""
        for move in moves:
            if self._resolved.get(move.new.identity) is not None:
                self._resolved[move.new.identity] = move.new

    def forget(self, oids: Iterable[int]) -> None:
        """Ask again what tables are, at their next rows."""
        for oid in oids:
            self._resolved.pop(oid, None)

    def _resolve(self, oid: int, transaction: int) -> tuple[TableSchema | None, list[Evolve | Suspect]]:
        """The table's schema in force, asked for at its first row only: a shape that no row uses may be long gone."""
        if oid in self._resolved:
            return self._resolved[oid], []
        relation = self._relations.get(oid)
        if relation is None:
            raise DecodeError(f"The server sent a row of relation {oid} before it described that relation.")
        resolved = self._catalog.resolve(relation)
        self._resolved[oid] = resolved.schema if resolved is not None else None
        if resolved is None:
            return None, []
        self.moved([*resolved.before, *resolved.after])
        return resolved.schema, resolved.steps(transaction)


def _refuse_lengths(buffer: Buffer, start: np.ndarray, body: np.ndarray, kind: np.ndarray) -> None:
    """Refuse messages whose bodies, of `body` (int64[n]) bytes, are shorter or longer than their kind."""
    least = _SHORTEST[kind]
    wrong = (body < least) | (_IS_FIXED[kind] & (body != least))
    truncates = np.flatnonzero(kind == ord("T"))
    wrong[truncates] |= body[truncates] != 5 + 4 * buffer.uint32(start[truncates] + _BODY)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DecodeError(
            f"A logical replication message {_called(buffer, start, kind, at)} is longer or shorter than its fields."
        )


def _refuse_order(buffer: Buffer, start: np.ndarray, kind: np.ndarray, *, inside: bool) -> None:
    """Refuse transactions within transactions, ends without a transaction, and changes outside of transactions."""
    depth = np.cumsum((kind == ord("B")).astype(np.int64) - (kind == ord("C"))) + inside
    wrong = (depth < 0) | (depth > 1) | ((depth == 0) & ((_OPS[kind] > 0) | (kind == ord("T"))))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DecodeError(
            f"A logical replication message {_called(buffer, start, kind, at)} is {'out' if depth[at] <= 0 else 'in'}"
            "side of a transaction, where it does not belong."
        )


def _called(buffer: Buffer, start: np.ndarray, kind: np.ndarray, at: int) -> str:
    """How to speak of a message."""
    return f"of kind {chr(kind[at])!r} at {write_lsn(int(buffer.at('>u8')[start[at] + 1]))}"


def _whole_transactions(kind: np.ndarray, *, inside: bool) -> tuple[int, int | None]:
    """How many messages hold whole transactions, and the index of the last commit among them."""
    commits = np.flatnonzero(kind == ord("C"))
    begins = np.flatnonzero(kind == ord("B"))
    if len(commits) == 0:
        nothing_open = not inside and len(begins) == 0  # only messages that belong to no transaction
        return (len(kind) if nothing_open else 0), None
    last = int(commits[-1])
    later = begins[begins > last]
    return (int(later[0]) if len(later) else len(kind)), last


def _open_after(kind: np.ndarray, *, inside: bool) -> bool:
    borders = np.flatnonzero((kind == ord("B")) | (kind == ord("C")))
    return bool(kind[borders[-1]] == ord("B")) if len(borders) else inside


def _relation(run: _Messages, at: np.intp) -> Relation:
    body = run.buffer.bytes[run.start[at] + _BODY : run.end[at]].tobytes()
    try:
        return _parsed_relation(body)
    except (IndexError, ValueError) as error:  # a text without its end, or not UTF-8; more columns than there are
        raise DecodeError(
            f"A logical replication message {_called(run.buffer, run.start, run.kind, int(at))} does not describe a "
            "table."
        ) from error


def _parsed_relation(body: bytes) -> Relation:
    namespace, name, rest = body[4:].split(b"\0", 2)
    if len(rest) < 3:
        raise IndexError
    identity, count = chr(rest[0]), int.from_bytes(rest[1:3], "big")
    if identity not in _IDENTITIES:
        raise ValueError(identity)
    columns = []
    rest = rest[3:]
    for _ in range(count):
        flags = rest[0]
        column, tail = rest[1:].split(b"\0", 1)
        type_oid, modifier = int.from_bytes(tail[:4], "big"), int.from_bytes(tail[4:8], "big", signed=True)
        columns.append(RelationColumn(column.decode(), type_oid, modifier, bool(flags & 1)))
        if len(tail) < 8:
            raise IndexError
        rest = tail[8:]
    if rest:
        raise ValueError("bytes behind the last column")
    return Relation(
        oid=int.from_bytes(body[:4], "big"),
        namespace=namespace.decode() or "pg_catalog",
        name=name.decode(),
        identity=identity,
        columns=tuple(columns),
    )


@dataclass(slots=True)
class _Column:
    """One column of many tuples: view structs uint8[n, 16], which are not null, which the log left out; the same as
    an array of the column's own type, if there is one."""

    views: np.ndarray
    valid: np.ndarray
    unchanged: np.ndarray | None
    native: pa.Array | None


def _batch(run: _Messages, rows: np.ndarray, schema: TableSchema, relation: Relation) -> ChangeBatch:
    """Decode the messages `rows` (int64[n]), all of one table in one shape.

    The tag of an old row follows the identity of the relation, which of a partitioned table is not that of its leaves.
    """
    buffer, width = run.buffer, len(schema.columns)
    op = _OPS[run.kind[rows]]
    cursor = run.start[rows] + _BODY + 4  # at the first tuple's tag
    tag = buffer.bytes[cursor]
    has_before = (tag == ord("K")) | (tag == ord("O"))
    has_after = op != Op.DELETE
    if not (has_before | has_after).all() or (has_before & (op == Op.INSERT)).any():
        raise DecodeError(f"A change of {schema.table} has no row where one belongs.")
    if (tag[has_before] != ord("O" if relation.identity == "f" else "K")).any():
        raise DecodeError(f"A change of {schema.table} identifies its row in another way than the table says.")

    before_at, after_at = np.flatnonzero(has_before), np.flatnonzero(has_after)
    before, after = None, None
    if len(before_at):
        before, cursor[before_at] = _tuples(buffer, cursor[before_at] + 1, width, schema)
    if len(after_at):
        if (buffer.bytes[cursor[after_at]] != ord("N")).any():
            raise DecodeError(f"A change of {schema.table} has no new row where one belongs.")
        after, cursor[after_at] = _tuples(buffer, cursor[after_at] + 1, width, schema)
    if not np.array_equal(cursor, run.end[rows]):
        raise DecodeError(f"A change of {schema.table} is longer or shorter than its columns.")

    before_row = _places(len(rows), before_at)
    if before is not None and after is not None:
        _restore_unchanged(after, before, before_row[after_at])
    if after is not None and any(after[index].unchanged is not None for index in schema.key):
        raise DecodeError(
            f"A change of {schema.table} leaves out a part of its key, which is stored out of line.",
            hint="Releases before 13.6 and 14.2 do not log such keys: update the server, then `cdc resync "
            "SOURCE TARGET --tables TABLE`.",
        )
    return ChangeBatch(
        schema=schema,
        op=op,
        transaction=run.transaction[rows],
        ordinal=run.ordinal[rows],
        after=_rows(buffer, after),
        after_row=_places(len(rows), after_at),
        before=_rows(buffer, before),
        before_row=before_row,
        size=int((run.end[rows] - run.start[rows]).sum()),
    )


def _tuples(buffer: Buffer, cursor: np.ndarray, width: int, schema: TableSchema) -> tuple[list[_Column], np.ndarray]:
    """Read one tuple per cursor, column by column; returns the columns and where each tuple ends."""
    if (buffer.uint16(cursor) != width).any():
        raise DecodeError(f"A row of {schema.table} has another number of columns than the table.")
    cursor = cursor + 2
    columns = []
    for index in range(width):
        # Behind a value's form come its length and itself: what an Arrow view begins with, but for the length's byte
        # order. It is all fetched at once, since most of the time is spent waiting for memory. A cursor on the last
        # value may stand near the end of the buffer: the padding makes the read harmless.
        head = buffer.at("V24")[cursor - 7].view("<u8").reshape(-1, 3)
        form = (head[:, 0] >> 56).astype(np.uint8)
        length = head[:, 1].astype(np.uint32).byteswap().astype(np.int64)
        is_text, is_unchanged = form == ord("t"), form == ord("u")
        if is_text.all():
            start = cursor + 5
            cursor = start + length
        else:
            if not (is_text | is_unchanged | (form == ord("n"))).all():
                column = schema.columns[index].name
                raise DecodeError(f"A value of {schema.table}.{column} is in a format that was not asked for.")
            length = np.where(is_text, length, 0)
            start = cursor + 5 * is_text
            cursor = start + length + ~is_text
        if len(cursor) and cursor.max() > buffer.size:
            raise DecodeError(f"A row of {schema.table} is longer than its message.")
        views = views_of(head[:, 1], head[:, 2], start, length)
        unchanged = is_unchanged if is_unchanged.any() else None
        kind = schema.columns[index].type.kind
        moments = native(buffer, kind, start, length, is_text) if unchanged is None else None
        columns.append(_Column(views, is_text, unchanged, moments))
    return columns, cursor


def _restore_unchanged(after: list[_Column], before: list[_Column], before_row: np.ndarray) -> None:
    """What the new row leaves out is in the old one, as far as that has it: all of it, or a key (A-40).

    A value that is left out is stored out of line, so that it is never NULL: where the old row says NULL, it has none.
    """
    for new, old in zip(after, before, strict=True):
        if new.unchanged is None:
            continue
        rows = np.flatnonzero(new.unchanged & (before_row != ABSENT))
        rows = rows[old.valid[before_row[rows]]]
        source = before_row[rows]
        new.views[rows] = old.views[source]
        new.valid[rows] = True
        new.unchanged[rows] = False
        if not new.unchanged.any():
            new.unchanged = None


def _places(count: int, present: np.ndarray) -> np.ndarray:
    """int64[count]: for the entries at `present` their running number, ABSENT for the others."""
    places = np.full(count, ABSENT, dtype=np.int64)
    places[present] = np.arange(len(present))
    return places


def _rows(buffer: Buffer, columns: list[_Column] | None) -> Rows | None:
    if columns is None:
        return None
    return Rows(
        columns=tuple(
            string_array(buffer, column.views, column.valid) if column.native is None else column.native
            for column in columns
        ),
        unchanged=tuple(column.unchanged for column in columns),
    )
