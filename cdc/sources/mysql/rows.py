"""Row images: where each value of many rows lies. Sans I/O, in lockstep.

An image has no length, so that a row's start is known only once the row before it has been walked. Lockstep therefore
goes across events: the first row of every event together, then the second of every event that has one, and so on.
https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Rows__event.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cdc.errors import DecodeError
from cdc.sources.lockstep import Buffer
from cdc.sources.mysql.tablemap import Wire, WireColumn

_MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class Field:
    """One column of n rows: int64[n] where each value starts and how long it is, bool[n] which of them there are.

    What stands where a value is null means nothing, and is no bytes long. `partial` marks JSON values that are changes
    to the value before.
    """

    start: np.ndarray
    length: np.ndarray
    valid: np.ndarray
    partial: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """What kind of image a row event has: the columns that are in it, by their places in the table."""

    present: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Walked:
    """Rows of many events in log order.

    Attributes:
        event: int64[n], which event each row is from.
        images: one list of fields for each image of a row: column place -> field.
    """

    event: np.ndarray
    images: list[dict[int, Field]]


def walk_rows(
    buffer: Buffer,
    start: np.ndarray,
    end: np.ndarray,
    columns: Sequence[WireColumn],
    images: Sequence[Image],
    *,
    partial: bool = False,
) -> Walked:
    """Find every field of every row.

    Args:
        start, end: int64[m], for each event where its first row begins and its last one ends.
        images: of one row: one image, or for an update the one before and the one after.
        partial: the image after may hold changes of JSON values instead of the values (B-25): a byte of options and a
            bit for every JSON column of the table come first.

    Raises:
        DecodeError: a row goes on beyond its event.
    """
    event = np.arange(len(start), dtype=np.int64)
    cursor = start.astype(np.int64)
    documents = [place for place, column in enumerate(columns) if column.wire is Wire.JSON]
    events: list[np.ndarray] = []
    steps: list[list[list[tuple[np.ndarray, ...]]]] = [[[] for _ in image.present] for image in images]
    while True:
        active = cursor < end[event]
        if not active.all():
            cursor, event = cursor[active], event[active]
        if not len(cursor):
            break
        events.append(event)
        for image, fields in zip(images, steps, strict=True):
            has_changes = partial and image is images[-1]
            if has_changes:
                options, marks = buffer.bytes[cursor] & 1, cursor + 1
                cursor = marks + np.where(options, (len(documents) + 7) // 8, 0)
            bitmap, cursor = cursor, cursor + (len(image.present) + 7) // 8
            if (cursor > end[event]).any():
                raise DecodeError("A row event ends inside a row.")
            for number, place in enumerate(image.present):
                column = columns[place]
                valid = (buffer.bytes[bitmap + number // 8] >> (number % 8)) & 1 == 0
                value = cursor
                length = np.full(len(cursor), column.size, dtype=np.int64)
                if column.variable:
                    length, value = _little(buffer, cursor, column.size), cursor + column.size
                if not valid.all():
                    length, value = np.where(valid, length, 0), np.where(valid, value, cursor)
                cursor = value + length
                if (cursor > end[event]).any():
                    raise DecodeError("A row event ends inside a value.")
                if has_changes and place in documents:
                    bit = documents.index(place)
                    mark = options & (buffer.bytes[marks + bit // 8] >> (bit % 8)) & 1 == 1
                    fields[number].append((value, length, valid, mark))
                else:
                    fields[number].append((value, length, valid))
    rows = np.concatenate(events) if events else event
    order = np.argsort(rows, kind="stable") if len(events) > 1 else None

    def joined(parts: list[tuple[np.ndarray, ...]]) -> Field:
        if not parts:
            return Field(rows, rows, rows.astype(bool))
        if order is None:
            return Field(*parts[0])
        return Field(*(np.concatenate(part)[order] for part in zip(*parts, strict=True)))

    return Walked(
        rows if order is None else rows[order],
        [
            {place: joined(fields[number]) for number, place in enumerate(image.present)}
            for image, fields in zip(images, steps, strict=True)
        ],
    )


def _little(buffer: Buffer, at: np.ndarray, size: int) -> np.ndarray:
    """int64[n]: little-endian unsigned integers of 1 to 4 bytes."""
    found: np.ndarray
    if size == 1:
        found = buffer.bytes[at].astype(np.int64)
    elif size == 3:
        found = buffer.at("<u4")[at].astype(np.int64) & 0xFFFFFF
    else:
        found = buffer.at(f"<u{size}")[at].astype(np.int64)
    return found


def joined_fields(fields: Sequence[Field]) -> Field:
    """The rows of several fields, one behind the other."""
    if len(fields) == 1:
        return fields[0]
    partial = None
    if any(field.partial is not None for field in fields):
        partial = np.concatenate([f.partial if f.partial is not None else np.zeros(len(f.start), bool) for f in fields])
    return Field(
        np.concatenate([field.start for field in fields]),
        np.concatenate([field.length for field in fields]),
        np.concatenate([field.valid for field in fields]),
        partial,
    )


def chosen_rows(field: Field, which: np.ndarray) -> Field:
    """Some rows of a field."""
    partial = field.partial[which] if field.partial is not None else None
    return Field(field.start[which], field.length[which], field.valid[which], partial)


def no_values(count: int) -> Field:
    """So many nulls."""
    zero = np.zeros(count, dtype=np.int64)
    return Field(zero, zero, np.zeros(count, dtype=bool))


def same_values(buffer: Buffer, one: Field, other: Field) -> np.ndarray:
    """bool[n]: whether two fields have the same bytes, eight at a time."""
    same: np.ndarray = (one.length == other.length) & (one.valid == other.valid)
    words = buffer.at("<u8")
    last = len(words) - 1
    for offset in range(0, int(one.length[same].max(initial=0)), 8):
        mask = _MASKS[np.clip(one.length - offset, 0, 8)]
        here, there = (words[np.minimum(field.start + offset, last)] for field in (one, other))
        same &= (here ^ there) & mask == 0
    return same
