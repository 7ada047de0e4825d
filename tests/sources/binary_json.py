"""Writes MySQL's binary JSON, for what has to be read back: format in sql-common/json_binary.h of the server."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_LITERALS = {None: 0, True: 1, False: 2}
_NUMBERS = ((5, "<h"), (6, "<H"), (7, "<i"), (8, "<I"), (9, "<q"), (10, "<Q"))
_REMOVE = 2


@dataclass(frozen=True)
class Diff:
    """A change of a document: 0 replaces, 1 inserts, 2 removes what is at a path."""

    operation: int
    path: str
    value: object


def encoded(tree: object) -> bytes:
    """A document."""
    kind, value = _value(tree)
    return bytes([kind]) + value


def encoded_diffs(diffs: list[Diff]) -> bytes:
    """What a partial update logs."""
    pieces = []
    for diff in diffs:
        pieces += [bytes([diff.operation]), _counted(diff.path.encode())]
        if diff.operation != _REMOVE:
            pieces.append(_counted(encoded(diff.value)))
    return b"".join(pieces)


def _counted(content: bytes) -> bytes:
    length = len(content)
    return (bytes([length]) if length < 0xFB else b"\xfc" + struct.pack("<H", length)) + content


def _value(tree: object) -> tuple[int, bytes]:
    if tree is None or isinstance(tree, bool):
        return 4, bytes([_LITERALS[tree]])
    if isinstance(tree, int):
        for kind, layout in _NUMBERS:
            try:
                return kind, struct.pack(layout, tree)
            except struct.error:
                continue
        raise OverflowError(tree)
    if isinstance(tree, float):
        return 11, struct.pack("<d", tree)
    if isinstance(tree, str):
        text = tree.encode()
        return 12, _length(len(text)) + text
    for large in (False, True):
        try:
            return _container(tree, large=large)
        except struct.error:
            continue
    raise OverflowError("a document of more than 4 GB")


def _container(tree: object, *, large: bool) -> tuple[int, bytes]:
    """Counts; the entries of keys and values; keys; values that are too long for their entries."""
    assert isinstance(tree, dict | list)
    word, width = ("<I", 4) if large else ("<H", 2)
    keys: list[str] = []
    items = list(tree)
    if isinstance(tree, dict):
        keys = sorted(tree, key=lambda key: (len(key.encode()), key.encode()))
        items = [tree[key] for key in keys]
    at = 2 * width + len(keys) * (width + 2) + len(items) * (width + 1)
    head, names, values, behind = b"", b"", b"", b""
    for key in keys:
        head += struct.pack(word, at) + struct.pack("<H", len(key.encode()))
        names += key.encode()
        at += len(key.encode())
    for item in items:
        kind, value = _value(item)
        inline = kind in (4, 5, 6) or (large and kind in (7, 8))
        values += bytes([kind]) + (value.ljust(width, b"\0") if inline else struct.pack(word, at))
        if not inline:
            behind += value
            at += len(value)
    content = head + values + names + behind
    size = 2 * width + len(content)
    kind = 2 * isinstance(tree, list) + large
    return kind, struct.pack(word, len(items)) + struct.pack(word, size) + content


def _length(number: int) -> bytes:
    found = []
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
