"""MySQL's binary JSON to the text that the server itself writes for it (B-60). Sans I/O.

Format: sql-common/json_binary.h of the server; text: Json_wrapper::to_string in sql-common/json_dom.cc.
"""

from __future__ import annotations

import base64
import re
import struct
from decimal import Decimal
from typing import Any

import orjson

from cdc.errors import DecodeError
from cdc.sources.mysql.tablemap import Wire, decimal_bytes

_SMALL_OBJECT, _LARGE_OBJECT, _SMALL_ARRAY, _LARGE_ARRAY, _LITERAL = range(5)
_INT16, _UINT16, _INT32, _UINT32, _INT64, _UINT64, _DOUBLE, _STRING = range(5, 13)
_OPAQUE = 15
_REPLACE, _INSERT, _REMOVE = range(3)
_STEP = re.compile(r'\.(?P<quoted>"(?:[^"\\]|\\.)*")|\.(?P<key>[^.\["]+)|\[(?P<index>\d+)\]')
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
    try:
        at = 0
        while at < len(changes):
            operation = changes[at]
            length, at = _packed(changes, at + 1)
            path, at = changes[at : at + length].decode(), at + length
            value: _Tree = _Scalar("null")
            if operation != _REMOVE:
                length, at = _packed(changes, at)
                value, at = _parsed(changes[at : at + length]), at + length
            tree = _changed(tree, operation, [_step(found) for found in _STEP.finditer(path, 1)], value)
    except (IndexError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise DecodeError("A partial update of a JSON document does not fit the document.") from error
    return _written(tree)


def _changed(tree: _Tree, operation: int, path: list[str | int], value: _Tree) -> _Tree:
    if not path:
        return value
    parent: _Tree = tree
    for step in path[:-1]:
        parent = _inside(parent)[step]
    last = path[-1]
    if operation == _REMOVE:
        del _inside(parent)[last]
    elif operation == _INSERT and isinstance(parent, list) and isinstance(last, int):
        parent.insert(last, value)
    else:
        _inside(parent)[last] = value
        if isinstance(parent, dict):  # members are kept by the length of their keys, then by their bytes
            members = sorted(parent.items(), key=lambda item: (len(item[0].encode()), item[0].encode()))
            parent.clear()
            parent.update(members)
    return tree


def _inside(tree: _Tree) -> Any:
    """An object or an array, whose members a step of a path names: a key or a number, whichever it must be."""
    if isinstance(tree, _Scalar):
        raise TypeError
    return tree


def _step(found: re.Match[str]) -> str | int:
    if found["index"] is not None:
        return int(found["index"])
    if found["quoted"] is not None:
        text: str = orjson.loads(found["quoted"])
        return text
    return found["key"]


def _packed(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    if first < 0xFB:
        return first, at + 1
    width = {0xFC: 2, 0xFD: 3, 0xFE: 8}[first]
    return int.from_bytes(data[at + 1 : at + 1 + width], "little"), at + 1 + width


def _parsed(document: bytes) -> _Tree:
    if not document:
        return _Scalar("null")  # what an INSERT IGNORE leaves of an invalid document
    try:
        return _value(document[0], document, 1, 0)
    except (IndexError, struct.error, UnicodeDecodeError, KeyError) as error:
        raise DecodeError("A JSON document in the log is damaged.") from error


def _written(tree: _Tree) -> str:
    if isinstance(tree, dict):
        return "{" + ", ".join([f"{quoted(key)}: {_written(value)}" for key, value in tree.items()]) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join([_written(value) for value in tree]) + "]"
    return tree


def _value(kind: int, data: bytes, at: int, depth: int) -> _Tree:
    if depth > _DEEPEST:
        raise DecodeError("A JSON document in the log is nested too deeply.")
    if kind in _SCALARS:
        return _Scalar(_SCALARS[kind].unpack_from(data, at)[0])
    if kind == _STRING:
        length, begin = _length(data, at)
        if begin + length > len(data):
            raise IndexError
        return _Scalar(quoted(data[begin : begin + length].decode()))
    if kind in (_SMALL_OBJECT, _LARGE_OBJECT):
        return _object(data, at, depth, large=kind == _LARGE_OBJECT)
    if kind in (_SMALL_ARRAY, _LARGE_ARRAY):
        return _array(data, at, depth, large=kind == _LARGE_ARRAY)
    if kind == _LITERAL:
        return _Scalar(_LITERALS[data[at]])
    if kind == _DOUBLE:
        return _Scalar(double_text(struct.unpack_from("<d", data, at)[0]))
    if kind == _OPAQUE:
        return _Scalar(_opaque(data, at))
    raise DecodeError(f"A JSON document in the log holds a value of unknown kind {kind}.")


def _object(data: bytes, at: int, depth: int, *, large: bool) -> _Tree:
    width, word = (4, "<I") if large else (2, "<H")
    count = struct.unpack_from(word, data, at)[0]
    keys = at + 2 * width
    values = keys + count * (width + 2)
    if values + count * (1 + width) > len(data):
        raise IndexError
    members: dict[str, _Tree] = {}
    for number in range(count):
        entry = keys + number * (width + 2)
        begin = at + struct.unpack_from(word, data, entry)[0]
        length = struct.unpack_from("<H", data, entry + width)[0]
        key = data[begin : begin + length].decode()
        members[key] = _entry(data, at, values + number * (1 + width), depth, large=large)
    return members


def _array(data: bytes, at: int, depth: int, *, large: bool) -> _Tree:
    width, word = (4, "<I") if large else (2, "<H")
    count = struct.unpack_from(word, data, at)[0]
    values = at + 2 * width
    if values + count * (1 + width) > len(data):
        raise IndexError
    places = range(values, values + count * (1 + width), 1 + width)
    return [_entry(data, at, place, depth, large=large) for place in places]


def _entry(data: bytes, container: int, at: int, depth: int, *, large: bool) -> _Tree:
    """A value entry: its type, then the value itself if it is small enough, else where it is."""
    kind = data[at]
    if kind in (_LITERAL, _INT16, _UINT16) or (large and kind in (_INT32, _UINT32)):
        return _value(kind, data, at + 1, depth + 1)
    offset = struct.unpack_from("<I" if large else "<H", data, at + 1)[0]
    return _value(kind, data, container + offset, depth + 1)


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
    """The shortest digits that read back, positional where the exponent is small; always told from an integer."""
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
    packed = bytearray(value[2 : 2 + decimal_bytes(precision, scale)])
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
