"""MySQL's binary JSON to the text that the server itself writes for it (B-60). Sans I/O.

Format: sql-common/json_binary.h of the server; text: Json_wrapper::to_string in sql-common/json_dom.cc.
"""

from __future__ import annotations

import base64
import re
import struct
from decimal import Decimal
from math import isfinite
from typing import Any

import orjson

from cdc.errors import DecodeError
from cdc.sources.mysql.reader import Reader
from cdc.sources.mysql.tablemap import MOST_DIGITS, Wire, decimal_bytes

_SMALL_OBJECT, _LARGE_OBJECT, _SMALL_ARRAY, _LARGE_ARRAY, _LITERAL = range(5)
_INT16, _UINT16, _INT32, _UINT32, _INT64, _UINT64, _DOUBLE, _STRING = range(5, 13)
_OPAQUE = 15
_REPLACE, _INSERT, _REMOVE = range(3)
_STEP = re.compile(r'\.(?P<quoted>"(?:[^"\\]|\\.)*")|\.(?P<key>[^.\["]+)|\[(?P<index>[0-9]{1,10})\]')
_LITERALS = {0: "null", 1: "true", 2: "false"}
_SCALARS = {
    _INT16: struct.Struct("<h"),
    _UINT16: struct.Struct("<H"),
    _INT32: struct.Struct("<i"),
    _UINT32: struct.Struct("<I"),
    _INT64: struct.Struct("<q"),
    _UINT64: struct.Struct("<Q"),
}
_ESCAPES = {ord(c): f"\\{e}" for c, e in zip('"\\\b\f\n\r\t', '"\\bfnrt', strict=True)} | {
    code: f"\\u{code:04x}" for code in range(32) if chr(code) not in "\b\f\n\r\t"
}
_MOST_DIGITS = 15  # before or after the point; beyond, my_gcvt writes an exponent (strings/dtoa.cc)
_DEEPEST = 100  # the server refuses deeper documents


class _Scalar(str):
    """A scalar's text as it stands in the document."""

    __slots__ = ()


_Tree = dict[str, "_Tree"] | list["_Tree"] | _Scalar


def json_text(document: bytes) -> str:
    """A binary document as text; raises DecodeError if it is damaged."""
    return _written(_parsed(document))


def patched_text(document: bytes, changes: bytes) -> str:
    """A document after the changes that a partial update logged for it (B-25), as text.

    Json_diff in sql-common/json_diff.h: an operation, a path, and a value unless something is removed.

    Raises:
        DecodeError: the changes do not fit the document, or one of them is damaged.
    """
    tree = _parsed(document)
    reader = Reader(changes, 0, "A partial update of a JSON document")
    try:
        while reader.has_more:
            operation = reader.number(1)
            path = _path(reader.text(reader.packed()))
            value = _parsed(reader.take(reader.packed())) if operation != _REMOVE else _Scalar("null")
            tree = _changed(tree, operation, path, value)
    except (IndexError, KeyError, ValueError) as error:
        raise DecodeError("A partial update of a JSON document does not fit the document.") from error
    return _written(tree)


def _changed(tree: _Tree, operation: int, path: list[str | int], value: _Tree) -> _Tree:
    if not path:
        if operation != _REPLACE:
            raise ValueError(operation)
        return value
    parent: _Tree = tree
    for step in path[:-1]:
        parent = _members(parent, step)[step]
    last = path[-1]
    members = _members(parent, last)
    if operation == _REMOVE:
        del members[last]
    elif operation == _REPLACE:
        members[last]  # it must be there
        members[last] = value
    elif operation != _INSERT:
        raise ValueError(operation)
    elif isinstance(parent, list):
        members.insert(last, value)
    elif last in members:
        raise KeyError(last)
    else:
        # Members are kept by the length of their keys, then by their bytes.
        entries = sorted([*members.items(), (last, value)], key=lambda item: (len(item[0].encode()), item[0].encode()))
        members.clear()
        members.update(entries)
    return tree


def _members(tree: _Tree, step: str | int) -> Any:
    """What a step of a path goes into: an object by a key, or an array by a number."""
    if not isinstance(tree, dict if isinstance(step, str) else list):
        raise KeyError(step)
    return tree


def _path(text: str) -> list[str | int]:
    """The steps of a path: `$.a[0]."b c"`."""
    if not text.startswith("$"):
        raise ValueError(text)
    steps, at = [], 1
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None:
            raise ValueError(text)
        steps.append(_step(found))
        at = found.end()
    return steps


def _step(found: re.Match[str]) -> str | int:
    if found["index"] is not None:
        return int(found["index"])
    if found["quoted"] is not None:
        text: str = orjson.loads(found["quoted"])
        return text
    return found["key"]


def _parsed(document: bytes) -> _Tree:
    if not document:
        return _Scalar("null")  # what an INSERT IGNORE leaves of an invalid document
    try:
        return _Document(document).value(document[0], 1, 0)
    except (IndexError, struct.error, UnicodeDecodeError, KeyError) as error:
        raise DecodeError("A JSON document in the log is damaged.") from error


def _written(tree: _Tree, depth: int = 0) -> str:
    if isinstance(tree, _Scalar):
        return tree
    if depth > _DEEPEST:  # which changes can make of documents that are not
        raise DecodeError("A JSON document in the log is nested too deeply.")
    if isinstance(tree, dict):
        return "{" + ", ".join([f"{quoted(key)}: {_written(value, depth + 1)}" for key, value in tree.items()]) + "}"
    return "[" + ", ".join([_written(value, depth + 1) for value in tree]) + "]"


class _Document:
    """A binary document. No byte of it is part of two values, so that its text is never much longer than itself."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = len(data)

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise DecodeError("A JSON document in the log is damaged: some of its values share their bytes.")

    def value(self, kind: int, at: int, depth: int) -> _Tree:
        data = self._data
        if depth > _DEEPEST:
            raise DecodeError("A JSON document in the log is nested too deeply.")
        if kind in _SCALARS:
            return _Scalar(_SCALARS[kind].unpack_from(data, at)[0])
        if kind == _STRING:
            length, begin = _length(data, at)
            if begin + length > len(data):
                raise IndexError
            self._take(length)
            return _Scalar(quoted(data[begin : begin + length].decode()))
        if kind in (_SMALL_OBJECT, _LARGE_OBJECT):
            return self._object(at, depth, large=kind == _LARGE_OBJECT)
        if kind in (_SMALL_ARRAY, _LARGE_ARRAY):
            return self._array(at, depth, large=kind == _LARGE_ARRAY)
        if kind == _LITERAL:
            return _Scalar(_LITERALS[data[at]])
        if kind == _DOUBLE:
            return _Scalar(double_text(struct.unpack_from("<d", data, at)[0]))
        if kind == _OPAQUE:
            self._take(_length(data, at + 1)[0])
            return _Scalar(_opaque(data, at))
        raise DecodeError(f"A JSON document in the log holds a value of unknown kind {kind}.")

    def _object(self, at: int, depth: int, *, large: bool) -> _Tree:
        data = self._data
        width, word = (4, "<I") if large else (2, "<H")
        count = struct.unpack_from(word, data, at)[0]
        keys = at + 2 * width
        values = keys + count * (width + 2)
        if values + count * (1 + width) > len(data):
            raise IndexError
        self._take(values + count * (1 + width) - at)
        members: dict[str, _Tree] = {}
        for number in range(count):
            entry = keys + number * (width + 2)
            begin = at + struct.unpack_from(word, data, entry)[0]
            length = struct.unpack_from("<H", data, entry + width)[0]
            self._take(length)
            if begin + length > len(data):
                raise IndexError
            key = data[begin : begin + length].decode()
            members[key] = self._entry(at, values + number * (1 + width), depth, large=large)
        if len(members) != count:
            raise KeyError
        return members

    def _array(self, at: int, depth: int, *, large: bool) -> _Tree:
        width, word = (4, "<I") if large else (2, "<H")
        count = struct.unpack_from(word, self._data, at)[0]
        values = at + 2 * width
        end = values + count * (1 + width)
        if end > len(self._data):
            raise IndexError
        self._take(end - at)
        return [self._entry(at, place, depth, large=large) for place in range(values, end, 1 + width)]

    def _entry(self, container: int, at: int, depth: int, *, large: bool) -> _Tree:
        """A value entry: its type, then the value itself if it is small enough, else where it is."""
        data = self._data
        kind = data[at]
        if kind in (_LITERAL, _INT16, _UINT16) or (large and kind in (_INT32, _UINT32)):
            return self.value(kind, at + 1, depth + 1)
        offset = struct.unpack_from("<I" if large else "<H", data, at + 1)[0]
        return self.value(kind, container + offset, depth + 1)


def _length(data: bytes, at: int) -> tuple[int, int]:
    """Seven bits of a length per byte, the lowest first; the eighth says that there are more."""
    length = 0
    for number in range(5):
        byte = data[at + number]
        length |= (byte & 0x7F) << 7 * number
        if not byte & 0x80:
            return length, at + number + 1
    raise IndexError


def quoted(text: str) -> str:
    """As the server quotes it: what must be escaped, and nothing else."""
    return '"' + text.translate(_ESCAPES) + '"'


def double_text(value: float) -> str:
    """The shortest digits that read back, positional where the exponent is small; always distinct from an integer."""
    if not isfinite(value):
        raise DecodeError("A JSON document in the log holds a number that is not finite.")
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits))
    stripped = text.rstrip("0") or "0"
    exponent += len(text) - len(stripped)
    point = len(stripped) + exponent  # how many digits stand before the point
    if stripped == "0":
        written = "0.0"
    elif -_MOST_DIGITS < point <= _MOST_DIGITS:
        if point <= 0:
            written = "0." + "0" * -point + stripped
        elif point >= len(stripped):
            written = stripped + "0" * (point - len(stripped)) + ".0"
        else:
            written = f"{stripped[:point]}.{stripped[point:]}"
    else:
        written = stripped[0] + (f".{stripped[1:]}" if len(stripped) > 1 else "") + f"e{point - 1}"
    return f"-{written}" if sign else written


def _opaque(data: bytes, at: int) -> str:
    kind = data[at]
    length, begin = _length(data, at + 1)
    value = data[begin : begin + length]
    if len(value) != length:
        raise IndexError
    if kind == Wire.NEWDECIMAL:
        return _decimal(value)
    if kind in (Wire.DATE, Wire.TIME, Wire.DATETIME, Wire.TIMESTAMP):
        return f'"{_temporal(kind, struct.unpack("<q", value)[0])}"'
    return f'"base64:type{kind}:{base64.b64encode(value).decode()}"'


def _decimal(value: bytes) -> str:
    precision, scale = value[0], value[1]
    if not 0 <= scale <= precision <= MOST_DIGITS or not len(value) - 2 == decimal_bytes(precision, scale) > 0:
        raise IndexError
    packed = bytearray(value[2:])
    negative = packed[0] < 0x80
    packed[0] ^= 0x80
    if negative:
        packed = bytearray(byte ^ 0xFF for byte in packed)
    digits, at = "", 0
    whole = precision - scale
    for count in filter(None, [whole % 9, *[9] * (whole // 9), *[9] * (scale // 9), scale % 9]):
        size = decimal_bytes(count, 0)
        digits += str(int.from_bytes(packed[at : at + size], "big")).zfill(count)
        at += size
    if len(digits) != precision:
        raise IndexError
    text = digits[:whole].lstrip("0") or "0"
    return ("-" if negative else "") + text + (f".{digits[whole:]}" if scale else "")


def _temporal(kind: int, packed: int) -> str:
    sign = "-" if packed < 0 else ""
    whole, micros = abs(packed) >> 24, abs(packed) & 0xFFFFFF
    clock = f"{whole >> 6 & 63:02d}:{whole & 63:02d}.{micros:06d}"
    if kind == Wire.TIME:
        return f"{sign}{whole >> 12 & 0x3FF:02d}:{clock}"
    day, hour = whole >> 17, whole >> 12 & 31
    date = f"{(day >> 5) // 13:04d}-{(day >> 5) % 13:02d}-{day & 31:02d}"
    return date if kind == Wire.DATE else f"{date} {hour:02d}:{clock}"
