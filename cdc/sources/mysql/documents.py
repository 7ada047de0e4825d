"""Columns of binary JSON to text. Documents that differ in their values only are written together, as arrays.

Most applications write the same few shapes of flat objects. Whatever is not one (arrays, objects within, floats, text
that needs escapes) is written one by one by `jsonb`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cdc.errors import DecodeError
from cdc.sources.lockstep import Buffer, string_array, string_views
from cdc.sources.mysql.jsonb import json_text, quoted
from cdc.sources.mysql.rows import Field

_SMALL_OBJECT, _LITERAL, _STRING = 0, 4, 12
_NUMBERS = {5: "<i2", 6: "<u2", 7: "<i4", 8: "<u4", 9: "<i8", 10: "<u8"}  # by their type
_INLINE = (_LITERAL, 5, 6)  # types whose value stands in its entry
_LITERALS = pa.array(["null", "true", "false"])
_SHAPES = 32  # tried before what is left is written one by one
_LONGEST = 200  # bytes of a string that is looked at for characters to escape
_NO_TEXT = "\ufffd"  # what stands for bytes that are not UTF-8
_FEW = 16  # documents that are not worth a shape
_ESCAPED = np.zeros(256, dtype=bool)
_ESCAPED[:32] = _ESCAPED[ord('"')] = _ESCAPED[ord("\\")] = True


@dataclass(frozen=True, slots=True)
class _Shape:
    """A flat object: its keys, the types of their values, and the bytes that all documents of it have in common."""

    keys: list[str]
    types: list[int]
    places: np.ndarray
    common: np.ndarray


@dataclass(frozen=True, slots=True)
class _Texts:
    """n pieces of text: where each begins in some bytes, and how long it is."""

    data: np.ndarray
    start: np.ndarray
    length: np.ndarray


def document_texts(buffer: Buffer, field: Field) -> pa.Array:
    """Binary documents as `string_view` text; raises DecodeError if one is damaged."""
    left = np.flatnonzero(field.valid & (field.length > 0))
    views = np.zeros((len(field.start), 16), dtype=np.uint8)
    written: list[tuple[np.ndarray, np.ndarray, _Texts]] = []
    slow: list[np.ndarray] = [np.flatnonzero(field.valid & (field.length == 0))]
    for _ in range(_SHAPES):
        if len(left) < _FEW:
            break
        shape = _shape(buffer, int(field.start[left[0]]), int(field.length[left[0]]))
        if shape is None:
            slow.append(left[:1])
            left = left[1:]
            continue
        same = _has_shape(buffer, field, left, shape)
        rows, left = left[same], left[~same]
        good, texts = _written(buffer, field.start[rows], field.length[rows], shape)
        slow.append(rows[~good])
        written.append((rows[good], np.flatnonzero(good), texts))
    rest = np.concatenate([*slow, left])
    memory = memoryview(buffer.payload)
    one_by_one = [
        json_text(bytes(memory[start : start + length])).encode()
        for start, length in zip(field.start[rest].tolist(), field.length[rest].tolist(), strict=True)
    ]
    pieces = [b"".join(one_by_one), *(texts.data.tobytes() for _, _, texts in written)]
    text = Buffer(pieces)
    start, length = np.zeros(len(views), dtype=np.int64), np.zeros(len(views), dtype=np.int64)
    length[rest] = [len(one) for one in one_by_one]
    start[rest] = np.cumsum(length[rest]) - length[rest]
    base = len(pieces[0])
    for rows, which, texts in written:
        start[rows], length[rows] = base + texts.start[which], texts.length[which]
        base += len(texts.data)
    array = string_array(text, string_views(text, start, length), field.valid)
    if written:
        _refuse_damaged_text(text, array)
    return array


def _refuse_damaged_text(text: Buffer, array: pa.Array) -> None:
    """Nobody has looked at the bytes of strings that were not written one by one."""
    if text.bytes.max() < 0x80:
        return
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DecodeError("A JSON document in the log is damaged: it holds a string that is not UTF-8.") from error


def _shape(buffer: Buffer, start: int, length: int) -> _Shape | None:
    """The shape of one document; None if it is not flat."""
    data = buffer.bytes[start : start + length].tobytes()
    if data[0] != _SMALL_OBJECT or length < 5:
        return None
    count = int.from_bytes(data[1:3], "little")
    values, keys_at = 5 + 4 * count, 5 + 7 * count
    if keys_at > length:
        return None
    keys, types, end = [], [], keys_at
    for number in range(count):
        entry = 5 + 4 * number
        begin = 1 + int.from_bytes(data[entry : entry + 2], "little")
        if begin != end:  # they stand one behind the other
            return None
        end = begin + int.from_bytes(data[entry + 2 : entry + 4], "little")
        keys.append(data[begin:end].decode(errors="replace"))
        types.append(data[values + 3 * number])
    if end > length or len(set(keys)) != count or any(_NO_TEXT in key for key in keys):
        return None
    if not all(kind in (_LITERAL, _STRING) or kind in _NUMBERS for kind in types):
        return None
    # Type and count; not the size; the entries of the keys; the types of the values; the keys.
    places = [0, 1, 2, *range(5, values), *range(values, keys_at, 3), *range(keys_at, end)]
    common = np.array(places, dtype=np.int64)
    return _Shape(keys, types, common, buffer.bytes[start + common])


def _has_shape(buffer: Buffer, field: Field, rows: np.ndarray, shape: _Shape) -> np.ndarray:
    """bool[n]: which documents are of a shape."""
    same: np.ndarray = field.length[rows] > shape.places[-1]
    found = np.flatnonzero(same)
    start = field.start[rows[found]]
    for place, byte in zip(shape.places.tolist(), shape.common.tolist(), strict=True):
        equal = buffer.bytes[start + place] == byte
        if not equal.all():
            found, start = found[equal], start[equal]
    same[:] = False
    same[found] = True
    return same


def _written(buffer: Buffer, start: np.ndarray, length: np.ndarray, shape: _Shape) -> tuple[np.ndarray, _Texts]:
    """The text of documents of one shape, and which of them it is right for."""
    count = len(start)
    good = np.ones(count, dtype=bool)
    pieces: list[bytes | _Texts] = []
    entries = start + 5 + 4 * len(shape.keys)
    left = length - 5 - 7 * len(shape.keys) - sum(len(key.encode()) for key in shape.keys)
    before = "{"
    for number, (key, kind) in enumerate(zip(shape.keys, shape.types, strict=True)):
        entry = entries + 3 * number + 1
        quote = '"' if kind == _STRING else ""
        pieces.append(f"{before}{quoted(key)}: {quote}".encode())
        if kind not in _INLINE:
            offset = buffer.at("<u2")[entry].astype(np.int64)
            size = np.dtype(_NUMBERS[kind]).itemsize if kind in _NUMBERS else 1
            good &= offset + 1 + size <= length
            left = left - size
            entry = np.where(good, start + 1 + offset, start)
        if kind == _STRING:
            texts, is_plain = _strings(buffer, entry, start + length)
            good &= is_plain
            left = left - texts.length
            pieces.append(texts)
        elif kind == _LITERAL:
            value = buffer.bytes[entry]
            good &= value < len(_LITERALS)
            pieces.append(_arrow(_LITERALS.take(pa.array(np.minimum(value, 2)))))
        else:
            pieces.append(_arrow(pa.array(buffer.at(_NUMBERS[kind])[entry]).cast(pa.string())))
        before = f"{quote}, "
    pieces.append((before.removesuffix(", ") + "}").encode() if shape.keys else b"{}")
    good &= left >= 0  # or else they share their bytes
    return good, _joined(pieces, count)


def _strings(buffer: Buffer, at: np.ndarray, limit: np.ndarray) -> tuple[_Texts, np.ndarray]:
    """Strings with their length in front, of one byte or two, and which of them need no escapes."""
    first, second = buffer.bytes[at].astype(np.int64), buffer.bytes[at + 1].astype(np.int64)
    long = first >= 0x80
    length = np.where(long, (first & 0x7F) | (second & 0x7F) << 7, first)
    start = at + 1 + long
    good = ~(long & (second >= 0x80)) & (start + length <= limit)
    length = np.where(good, length, 0)
    for offset in range(min(int(length.max(initial=0)), _LONGEST)):
        rows = np.flatnonzero(length > offset)
        good[rows] &= ~_ESCAPED[buffer.bytes[start[rows] + offset]]
    good &= length <= _LONGEST
    return _Texts(buffer.bytes, start, np.where(good, length, 0)), good


def _arrow(texts: pa.Array) -> _Texts:
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int32)[: len(texts) + 1].astype(np.int64)
    return _Texts(np.frombuffer(data, dtype=np.uint8), bounds[:-1], np.diff(bounds))


def _joined(pieces: list[bytes | _Texts], count: int) -> _Texts:
    """Row by row the pieces one after the other."""
    total = np.zeros(count, dtype=np.int64)
    for piece in pieces:
        total += len(piece) if isinstance(piece, bytes) else piece.length
    end = np.cumsum(total)
    start = end - total
    out = np.empty(int(end[-1]) if count else 0, dtype=np.uint8)
    cursor = start.copy()
    for piece in pieces:
        if isinstance(piece, bytes):
            for offset, byte in enumerate(piece):
                out[cursor + offset] = byte
            cursor += len(piece)
            continue
        width = int(piece.length.max(initial=0))
        if width <= 4 * max(1, int(piece.length.mean())):
            for offset in range(width):
                rows = np.flatnonzero(piece.length > offset)
                out[cursor[rows] + offset] = piece.data[piece.start[rows] + offset]
        else:
            step = np.arange(int(piece.length.sum())) - np.repeat(np.cumsum(piece.length) - piece.length, piece.length)
            out[np.repeat(cursor, piece.length) + step] = piece.data[np.repeat(piece.start, piece.length) + step]
        cursor += piece.length
    return _Texts(out, start, total)
