"""The project's own JSON: one object per event, which docs/audit.md describes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc.formats.chosen import ALL, Chosen
from cdc.formats.encoded import LAST, Block, Encoded, Message, in_order
from cdc.formats.images import Images, or_null
from cdc.formats.shapes import Shape, key_of
from cdc.formats.shapes import described as shape_of
from cdc.formats.text import Piece, constant, joined, literal, numbers, pick
from cdc.formats.transactions import UNKNOWN, Described, Totals, described
from cdc.formats.values import Value, json_value
from cdc.model.arrays import LARGE
from cdc.model.change import ABSENT, ChangeBatch, Op
from cdc.model.schema import Column, TableName
from cdc.model.segment import Changes, Drop, Gap, Note, Reset, Segment, Truncate

if TYPE_CHECKING:
    from cdc.formats import FormatSettings

_OPS = ["", *(op.label for op in Op)]
# What is known of a row: there is none; all of it; the log left columns out; its key alone; nothing.
_NONE, _FULL, _PARTIAL, _KEY, _UNAVAILABLE = range(5)
_NOTES = 1 << 40  # more than a transaction has; they come before the change of their ordinal, in their own order
_SHAPE = -2 * _NOTES  # before those
_IMAGES = ["none", "full", "partial", "key", "unavailable"]


@dataclass(frozen=True, slots=True)
class Event:
    """Events of one table, as arrays of one length; a text is one for all of them.

    Attributes:
        table: None for an annotation.
        identity, op, committed_at: as they stand in a JSON string; no moment where there is no transaction.
        value: the objects.
    """

    table: TableName | None
    identity: pa.Array
    op: Piece
    committed_at: pa.Array | None
    value: pa.Array


@dataclass(frozen=True, slots=True)
class _Places:
    """Where changes are in the log, as arrays of one length.

    Attributes:
        transaction, ordinal: int64[n], what orders them.
        position, number: as they stand in JSON; number is what tells one from the others at its position.
        identity: of the events.
        committed_at: see `Event`.
        rest: JSON of what else is said of the transaction.
    """

    transaction: np.ndarray
    ordinal: np.ndarray
    position: pa.Array
    number: pa.Array
    identity: pa.Array
    committed_at: pa.Array | None
    rest: pa.Array


class PlainFormat:
    """One JSON object per event. Its `id` is the position and the ordinal, the same whenever the log is read.

    Rows that are copied have no place in the log: each time that one is read is an event of its own.

    Args:
        wrap: puts the objects into others.
    """

    def __init__(self, settings: FormatSettings, wrap: Callable[[Event], pa.Array] = lambda event: event.value) -> None:
        self._wrap = wrap
        self._tells_old_keys = settings.old_keys
        self._totals = Totals()
        self._at = ""  # the last position
        self._run = secrets.token_hex(4)
        self._read = 0  # rows that were copied in this run

    def messages(self, segment: Segment, shapes: Sequence[Shape] = ()) -> Iterator[Message]:
        return self.encode(segment, ALL, shapes).messages()

    def encode(self, segment: Segment, chosen: Chosen = ALL, shapes: Sequence[Shape] = ()) -> Encoded:
        known, totals = described(segment.transactions), self._totals.of(segment)
        if segment.checkpoint is not None and not len(totals):
            self._at = segment.checkpoint.position.text
        blocks = [self._shape(shape, known, totals) for shape in shapes if chosen.has("schema")]
        last = ABSENT  # the transaction at hand, for steps that belong to none
        for step in segment.steps:
            if isinstance(step, Changes):
                batch = chosen.of(step.batch)
                if not len(batch):
                    continue
                places = self._read_now(batch, last) if batch.copied else _logged(batch, known, totals)
                blocks += self._blocks(batch, places)
                last = int(places.transaction[-1])
            elif isinstance(step, Truncate):
                last = step.transaction
                if chosen.has("truncate"):
                    blocks.append(self._truncate(step, known, totals))
            elif isinstance(step, Note):
                last = step.transaction
                if chosen.has("note"):
                    blocks.append(self._note(step, known, totals))
            elif isinstance(step, Gap) and chosen.has("gap"):
                blocks.append(self._mark("gap", step, known, totals, last, {"reason": step.reason}))
            elif isinstance(step, Drop) and chosen.has("drop"):
                blocks.append(self._mark("drop", step, known, totals, last, {}))
            elif isinstance(step, Reset) and chosen.has("reset"):
                blocks.append(self._reset(step, last))
        if len(totals):
            self._at = segment.transactions[-1].position.text
        return in_order(blocks)

    def _read_now(self, batch: ChangeBatch, after: int) -> _Places:
        """Copied rows have the position of the stream."""
        count = len(batch)
        ordinal = np.arange(self._read, self._read + count)
        self._read += count
        number = numbers(ordinal)
        position = constant(_inside(self._at), count)
        return _Places(
            np.full(count, after, dtype=np.int64),
            LAST + ordinal,
            position,
            number,
            joined(position, f":copy-{self._run}-", number),
            None,
            constant('"total":null,"transaction":null', count),
        )

    def _blocks(self, batch: ChangeBatch, places: _Places) -> Iterator[Block]:
        images = Images(batch, _spelled)
        op = "copy" if batch.copied else _worded(batch.op, _OPS)
        moment = ("null",) if places.committed_at is None else ('"', places.committed_at, '"')
        value = joined(
            *('{"id":"', places.identity, '","op":"', op, f'","table":{literal(str(batch.schema.table))}'),
            *(',"key":', or_null(images.new_key)),
            *(',"before":', or_null(images.before), ',"before_image":"', _worded(_before(batch, images), _IMAGES)),
            *('","after":', or_null(images.after), ',"after_image":"', _worded(_after(batch, images), _IMAGES)),
            *('","unchanged":', images.unchanged, ',"position":"', places.position, '","ordinal":', places.number),
            *(",", places.rest, ',"committed_at":', *moment, "}"),
        )
        event = Event(batch.schema.table, places.identity, op, places.committed_at, value)
        rank = np.zeros(len(batch), dtype=np.int64)
        table, value = batch.schema.table, self._wrap(event)
        if self._tells_old_keys and len(moved := np.flatnonzero(images.moved)):
            key, again = images.old_key.take(pa.array(moved)), value.take(pa.array(moved))
            yield Block(table, places.transaction[moved], places.ordinal[moved], rank[moved] - 1, key, again)
        yield Block(table, places.transaction, places.ordinal, rank, images.new_key, value)

    def _truncate(self, step: Truncate, known: Described, totals: np.ndarray) -> Block:
        at, place = step.transaction, _placed(step.transaction, step.ordinal, known, totals)
        return self._single("truncate", str(step.ordinal), step.schema.table, at, step.ordinal, place)

    def _note(self, step: Note, known: Described, totals: np.ndarray) -> Block:
        """An annotation comes before the change that has the same ordinal."""
        at, place = step.transaction, _placed(step.transaction, step.ordinal, known, totals)
        content = {"prefix": step.prefix, "content": step.content, **place}
        return self._single("note", f"note-{step.number}", None, at, step.ordinal, content, rank=step.number - _NOTES)

    def _mark(
        self, op: str, step: Gap | Drop, known: Described, totals: np.ndarray, after: int, content: dict[str, object]
    ) -> Block:
        """What became of a table: it stands before the change that has the same ordinal."""
        table = step.schema
        if step.transaction == ABSENT:
            number, place = self._copied()
            return self._single(op, f"copy-{self._run}-{number}", table.table, after, LAST + number, content | place)
        place = _placed(step.transaction, step.ordinal, known, totals)
        name = f"{op}-{table.identity}"
        return self._single(op, name, table.table, step.transaction, step.ordinal, content | place, rank=-1)

    def _reset(self, step: Reset, after: int) -> Block:
        """Whatever was emitted of the table's rows before is void: it is about to be copied."""
        number, place = self._copied()
        return self._single("reset", f"copy-{self._run}-{number}", step.schema.table, after, LAST + number, place)

    def _shape(self, shape: Shape, known: Described, totals: np.ndarray) -> Block:
        """The shape of a table comes before the change that has the same ordinal; or before rows that are copied."""
        if shape.ordinal is None:
            number, place = self._copied()
            name, ordinal = f"copy-{self._run}-{number}", LAST + number
        else:
            place = _placed(shape.transaction, shape.ordinal, known, totals)
            name, ordinal = f"schema-{shape.ordinal}", shape.ordinal
        content = {**shape_of(shape.schema), **place}
        made = self._single("schema", name, shape.schema.table, shape.transaction, ordinal, content, rank=_SHAPE)
        return replace(made, key=pa.array([key_of(shape.schema)], LARGE), is_schema=True)

    def _copied(self) -> tuple[int, dict[str, object]]:
        """A number for an event of a copy, and where it is."""
        number = self._read
        self._read += 1
        nothing = dict.fromkeys(("total", "transaction", "committed_at"))
        return number, {"position": self._at, "ordinal": number, **nothing}

    def _single(
        self,
        op: str,
        number: str,
        table: TableName | None,
        transaction: int,
        ordinal: int,
        content: dict[str, object],
        *,
        rank: int = 0,
    ) -> Block:
        """An event that is no row's; `number` tells it from others at its position."""
        identity = f"{content['position']}:{number}"
        named = str(table) if table is not None else None
        no_row: dict[str, object] = {"before": None, "before_image": "none", "after": None, "after_image": "none"}
        value = literal({"id": identity, "op": op, "table": named, "key": None, **no_row, "unchanged": [], **content})
        moment = content["committed_at"]
        event = Event(
            table,
            pa.array([_inside(identity)], LARGE),
            op,
            pa.array([moment], LARGE) if moment is not None else None,
            pa.array([value], LARGE),
        )
        places = np.array([transaction]), np.array([ordinal]), np.array([rank])
        return Block(table, *places, pa.nulls(1, LARGE), self._wrap(event))


def _placed(at: int, ordinal: int, known: Described, totals: np.ndarray) -> dict[str, object]:
    """Where something is in the log."""
    return {
        "position": known.texts[at],
        "ordinal": ordinal,
        "total": int(totals[at]) if totals[at] != UNKNOWN else None,
        "transaction": int(known.number[at]),
        "committed_at": known.committed_at[at].as_py(),
    }


def _logged(batch: ChangeBatch, known: Described, totals: np.ndarray) -> _Places:
    """Where the log has the changes of a batch."""
    of = batch.transaction.astype(np.int64)
    position, number = pick(known.position, of), numbers(batch.ordinal)
    total = numbers(totals)
    if (totals == UNKNOWN).any():
        total = pc.if_else(totals == UNKNOWN, "null", total)
    rest = joined('"total":', total, ',"transaction":', known.identity)
    return _Places(
        of,
        batch.ordinal,
        position,
        number,
        joined(position, ":", number),
        pick(known.committed_at, of),
        pick(rest, of),
    )


def _spelled(array: pa.Array, column: Column) -> Value:
    return json_value(array, column.type)


def _before(batch: ChangeBatch, images: Images) -> np.ndarray:
    """What is known of each row before its change."""
    found = np.full(len(batch), _FULL if batch.schema.full_before else _KEY)
    found[images.before_is_partial] = _PARTIAL
    found[batch.before_row == ABSENT] = _UNAVAILABLE
    found[batch.op == Op.INSERT] = _NONE
    return found


def _after(batch: ChangeBatch, images: Images) -> np.ndarray:
    """What is known of each row after its change."""
    found = np.full(len(batch), _FULL)
    found[images.after_is_partial] = _PARTIAL
    found[batch.after_row == ABSENT] = _NONE
    return found


def _worded(codes: np.ndarray, words: list[str]) -> Piece:
    """The word for each code; one text if it is the same everywhere."""
    first = int(codes[0])
    return words[first] if (codes == first).all() else pa.array(words, LARGE).take(pa.array(codes))


def _inside(text: str) -> str:
    """Text as it stands in a JSON string."""
    return literal(text)[1:-1]
