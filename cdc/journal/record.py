"""Segments as bytes, and back: each a few Arrow IPC streams, one behind the other. No I/O.

The first stream of a record holds its transactions; its schema's metadata, which is called the header here, says what
else comes: the changes of each step that has some, one row per change. A program that can read Arrow IPC streams can
read a file of records: it reads streams until the file ends. Lengths and checksums are in the header, so that nothing
else of a record is given to a parser before it is known to be whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from cdc.errors import JournalDamaged
from cdc.model.arrays import TEXT, take
from cdc.model.change import ABSENT, ChangeBatch, Op, Rows, Transactions
from cdc.model.parts import Part
from cdc.model.position import Checkpoint, Position
from cdc.model.records import read_record
from cdc.model.schema import TableSchema
from cdc.model.segment import Changes, Copied, Drop, Evolve, Gap, Note, Replace, Reset, Segment, Step, Truncate

FORMAT = 1
_MARK = b"\xff\xff\xff\xff"  # of an encapsulated message; its length follows
_LARGEST_HEADER = 1 << 28  # bytes: a source's state has the shapes of all of its tables
_HEADER, _CHECKSUM = b"cdc", b"crc32"
_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")
_TRANSACTIONS = pa.schema(
    [
        ("order", pa.int64()),
        ("position", pa.string()),
        ("transaction", pa.int64()),
        ("committed_at", pa.timestamp("us", "UTC")),
    ]
)
_SCHEMA_LENGTH = _TRANSACTIONS.serialize().size


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """What is known of a `ChangeBatch` beside its columns; the schema by its number."""

    schema: int
    size: int
    copied: bool


@dataclass(frozen=True, slots=True)
class StepHeader:
    """A step of a segment without its columns, the fields of all kinds together; schemas by their numbers."""

    kind: str
    schema: int = -1
    transaction: int = 0
    ordinal: int = 0
    by_parts: bool = False
    old: int | None = None
    fill: dict[int, str] | None = None
    part: Part | None = None
    batches: tuple[BatchHeader, ...] = ()
    note: Note | None = None
    reason: str | None = None
    since: int | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of a record without its columns.

    Attributes:
        format: `FORMAT`.
        number: of the record, from 0, without gaps.
        length, checksum: bytes that follow the header, and their CRC-32.
        size: bytes that the segment counts for back-pressure.
        transactions: how many.
        steps: of the segment.
        schemas: tables' shapes that the records of the same file name for the first time, by the number that they use.
        copying: tables, by identity, that are copied by parts once this is applied.
        order: those of the first and the last transaction's commit; None without any.
        committed_at: when these were, in microseconds since the Unix epoch.
        checkpoint: the source's position; None if the last transaction goes on in the next record.
        state: what the source needs to go on from there; None if it is that of the checkpoint before in the same file.
        read_at: `Segment.read_at`: when it was recorded; None if an older version did.
    """

    format: int
    number: int
    length: int
    checksum: int
    size: int
    transactions: int
    steps: tuple[StepHeader, ...] = ()
    schemas: dict[int, TableSchema] = field(default_factory=dict)
    copying: tuple[int, ...] = ()
    order: tuple[int, ...] | None = None
    committed_at: tuple[int, ...] | None = None
    checkpoint: Position | None = None
    state: str | None = None
    read_at: int | None = None


@dataclass(slots=True)
class Context:
    """What the records of one file share: each says only what is new, so that a file is read from its beginning."""

    schemas: dict[int, TableSchema] = field(default_factory=dict)
    numbers: dict[TableSchema, int] = field(default_factory=dict)
    state: str | None = None

    def number(self, schema: TableSchema, new: dict[int, TableSchema]) -> int:
        """A schema's number in this file; one that is new is added to `new` as well."""
        if schema not in self.numbers:
            self.numbers[schema] = number = len(self.numbers)
            self.schemas[number] = new[number] = schema
        return self.numbers[schema]

    def take(self, header: Header) -> None:
        """Learn what a header says."""
        for number, schema in header.schemas.items():
            self.schemas[number] = schema
            self.numbers[schema] = number
        if header.state is not None:
            self.state = header.state


def encode(segment: Segment, number: int, context: Context, copying: set[int]) -> tuple[Header, bytes]:
    """A segment as a record of the file whose context that is, with its header."""
    sink = pa.BufferOutputStream()
    transactions, new = segment.transactions, dict[int, TableSchema]()
    with pa.ipc.new_stream(sink, _TRANSACTIONS, options=_OPTIONS) as writer:
        if len(transactions):
            writer.write_batch(_transactions(transactions))
    steps = [_write_step(step, sink, context, new) for step in segment.steps]
    payload = sink.getvalue().slice(_SCHEMA_LENGTH)  # the schema comes with the header
    at, state = segment.checkpoint, None
    if at is not None and at.state != context.state:
        state = context.state = at.state
    ends = [0, -1] if len(transactions) else []
    header = Header(
        format=FORMAT,
        number=number,
        length=payload.size,
        checksum=zlib.crc32(payload),
        size=segment.size,
        transactions=len(transactions),
        order=tuple(int(transactions.order[end]) for end in ends) or None,
        committed_at=tuple(int(transactions.committed_at[end]) for end in ends) or None,
        checkpoint=at.position if at is not None else None,
        state=state,
        copying=tuple(sorted(copying)),
        schemas=new,
        steps=tuple(steps),
        read_at=segment.read_at,
    )
    return header, _write_header(header) + bytes(payload)


def _write_header(header: Header) -> bytes:
    text = orjson.dumps(asdict(header, dict_factory=_without_nothing), option=orjson.OPT_NON_STR_KEYS)
    schema = _TRANSACTIONS.with_metadata({_HEADER: text, _CHECKSUM: str(zlib.crc32(text)).encode()})
    return bytes(schema.serialize())


def _without_nothing(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in fields if value is not None}


def read_header(data: memoryview) -> tuple[Header, int] | None:
    """The header at the beginning of some bytes, and its own length; None if they end before it does.

    Raises:
        JournalDamaged: there is something else.
    """
    if len(data) < 8:
        return None
    length = int.from_bytes(data[4:8], "little")
    if data[:4] != _MARK or not 0 < length <= _LARGEST_HEADER:
        raise JournalDamaged("There is no record where one should begin.")
    end = 8 + length
    if len(data) < end:
        return None
    try:
        schema = pa.ipc.read_schema(pa.py_buffer(data[:end]))
        metadata: Mapping[bytes, bytes] = schema.metadata or {}
        text = metadata[_HEADER]
        if schema != _TRANSACTIONS or int(metadata[_CHECKSUM]) != zlib.crc32(text):
            raise ValueError
        header = read_record(Header, orjson.loads(text))
    except (pa.ArrowException, OSError, ValueError, KeyError, UnicodeDecodeError):
        raise JournalDamaged("The beginning of a record is not what was written.") from None
    if header.format != FORMAT:
        raise JournalDamaged(f"A record has format {header.format}; this version of cdc reads format {FORMAT}.")
    return header, end


def is_whole(header: Header, payload: memoryview) -> bool:
    """Whether the bytes after a header are those that were written."""
    return len(payload) == header.length and zlib.crc32(payload) == header.checksum


def decode(header: Header, record: memoryview, context: Context) -> Segment:
    """The segment of a record (header included) that is whole; the context has taken its header.

    The position of its checkpoint is the source's, the state, too.

    Raises:
        JournalDamaged: the parts of the record do not fit together, or not what the file said before.
    """
    source = pa.BufferReader(pa.py_buffer(record))
    try:
        batches = list(pa.ipc.open_stream(source))
        transactions = _read_transactions(batches[0]) if batches else Transactions.none()
        steps = [_read_step(raw, source, context) for raw in header.steps]
    except (pa.ArrowException, OSError, LookupError, ValueError) as error:
        raise JournalDamaged(f"A record does not hold what its header says ({error}).") from None
    at = Checkpoint(header.checkpoint, context.state or "") if header.checkpoint is not None else None
    return Segment(steps, transactions, at, header.size, header.read_at)


def _put(sink: pa.NativeFile, batch: pa.RecordBatch) -> None:
    with pa.ipc.new_stream(sink, batch.schema, options=_OPTIONS) as writer:
        writer.write_batch(batch)


def _get(source: pa.NativeFile) -> pa.RecordBatch:
    (batch,) = pa.ipc.open_stream(source)
    return batch


def _transactions(transactions: Transactions) -> pa.RecordBatch:
    texts = [transactions.write(order) for order in transactions.order.tolist()]
    committed = pa.array(transactions.committed_at).cast(pa.timestamp("us", "UTC"))
    columns = [pa.array(transactions.order), pa.array(texts), pa.array(transactions.identity), committed]
    return pa.RecordBatch.from_arrays(columns, schema=_TRANSACTIONS)


def _read_transactions(batch: pa.RecordBatch) -> Transactions:
    order, positions, identity, committed = batch.columns
    orders = order.to_numpy()

    def write(at: int) -> str:
        text: str = positions[int(np.searchsorted(orders, at))].as_py()
        return text

    return Transactions(orders, identity.to_numpy(), committed.cast(pa.int64()).to_numpy(), write)


# --- steps ----------------------------------------------------------------------------------------------------------


def _write_step(step: Step, sink: pa.NativeFile, context: Context, new: dict[int, TableSchema]) -> StepHeader:
    if isinstance(step, Changes):
        batch = _write_batch(step.batch, sink, context, new)
        return StepHeader("changes", batch.schema, batches=(batch,))
    if isinstance(step, Evolve):
        old, now = context.number(step.old, new), context.number(step.new, new)
        return StepHeader("evolve", now, step.transaction, old=old, fill=step.fill)
    if isinstance(step, Note):
        return StepHeader("note", note=step)
    schema = context.number(step.schema, new)
    if isinstance(step, Reset):
        # An older version wrote none of its place, which is between two transactions then.
        return StepHeader("reset", schema, step.transaction - ABSENT, by_parts=step.by_parts)
    if isinstance(step, Truncate):
        return StepHeader("truncate", schema, step.transaction, step.ordinal)
    if isinstance(step, Gap):
        return StepHeader("gap", schema, step.transaction, step.ordinal, reason=step.reason, since=step.since)
    if isinstance(step, Drop):
        return StepHeader("drop", schema, step.transaction, step.ordinal)
    if isinstance(step, Replace):
        batches = tuple(_write_batch(batch, sink, context, new) for batch in step.batches)
        return StepHeader("replace", schema, part=step.part, batches=batches)
    return StepHeader("copied", schema)


def _read_step(header: StepHeader, source: pa.NativeFile, context: Context) -> Step:
    if header.note is not None:
        return header.note
    schema = context.schemas[header.schema]
    batches = tuple(_read_batch(batch, source, context) for batch in header.batches)
    match header.kind:
        case "changes" if len(batches) == 1:
            return Changes(batches[0])
        case "evolve" if header.old is not None:
            return Evolve(context.schemas[header.old], schema, header.transaction, header.fill or {})
        case "reset":
            return Reset(schema, header.by_parts, header.transaction + ABSENT)
        case "truncate":
            return Truncate(schema, header.transaction, header.ordinal)
        case "gap" if header.reason is not None:
            return Gap(schema, header.reason, header.transaction, header.ordinal, header.since)
        case "drop":
            return Drop(schema, header.transaction, header.ordinal)
        case "replace" if header.part is not None:
            return Replace(schema, header.part, batches)
        case "copied":
            return Copied(schema)
    raise JournalDamaged(f"A record has a step that this version of cdc does not know: {header.kind!r}.")


def _write_batch(batch: ChangeBatch, sink: pa.NativeFile, context: Context, new: dict[int, TableSchema]) -> BatchHeader:
    """Put the changes into a stream of their own, one row each; what a change has no image of is null."""
    schema = batch.schema
    columns: dict[str, pa.Array] = {
        "op": pa.array(batch.op),
        "transaction": pa.array(batch.transaction),
        "ordinal": pa.array(batch.ordinal),
    }
    if batch.after is not None and (batch.after_row != ABSENT).any():
        columns |= _images(schema, batch.after, batch.after_row, range(len(schema.columns)), "after")
    has_before = batch.before_row != ABSENT
    if batch.before is not None and has_before.any():
        known = range(len(schema.columns)) if schema.full_before else schema.key
        columns["has_before"] = pa.array(has_before)
        columns |= _images(schema, batch.before, batch.before_row, known, "before")
    _put(sink, pa.RecordBatch.from_pydict(columns))
    return BatchHeader(context.number(schema, new), batch.size, batch.copied)


def _images(
    schema: TableSchema, rows: Rows, at: np.ndarray, which: range | tuple[int, ...], name: str
) -> Iterator[tuple[str, pa.Array]]:
    """The columns of row images, and the masks of what the log left out, in the order of the changes."""
    is_same = len(at) == len(rows) and bool((at == np.arange(len(at))).all())
    for index in which:
        column, mask = rows.columns[index], rows.unchanged[index]
        values = column if is_same else take(column, at)
        yield f"{name}.{schema.columns[index].name}", values.cast(pa.string()) if values.type == TEXT else values
        if mask is not None:
            aligned = mask if is_same else np.where(at != ABSENT, mask[at], False)
            yield f"unchanged {name}.{schema.columns[index].name}", pa.array(aligned)


def _read_batch(header: BatchHeader, source: pa.NativeFile, context: Context) -> ChangeBatch:
    schema, batch = context.schemas[header.schema], _get(source)
    op = batch["op"].to_numpy()
    after = _read_images(schema, batch, "after")
    before = _read_images(schema, batch, "before")
    places = np.arange(len(op), dtype=np.int64)
    has_before = batch["has_before"].to_numpy(zero_copy_only=False) if before is not None else np.zeros(len(op), bool)
    return ChangeBatch(
        schema=schema,
        op=op,
        transaction=batch["transaction"].to_numpy(),
        ordinal=batch["ordinal"].to_numpy(),
        after=after,
        after_row=np.where((op != Op.DELETE) & (after is not None), places, ABSENT),
        before=before,
        before_row=np.where(has_before, places, ABSENT),
        copied=header.copied,
        size=header.size,
    )


def _read_images(schema: TableSchema, batch: pa.RecordBatch, name: str) -> Rows | None:
    """Row images, one for each change; None if the record has none at all."""
    there = set(batch.schema.names)
    columns: list[pa.Array] = []
    masks: list[np.ndarray | None] = []
    for column in schema.columns:
        label = f"{name}.{column.name}"
        mask = f"unchanged {label}"
        columns.append(_native(batch[label]) if label in there else pa.nulls(len(batch), TEXT))
        masks.append(batch[mask].to_numpy(zero_copy_only=False) if mask in there else None)
    has_any = any(label.startswith(f"{name}.") for label in there)
    return Rows(tuple(columns), tuple(masks)) if has_any else None


def _native(values: pa.Array) -> pa.Array:
    """Values as they move through the pipeline: texts as views."""
    return values.cast(TEXT) if values.type == pa.string() else values
