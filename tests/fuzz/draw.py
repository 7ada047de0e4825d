"""Drawing plausible structures from fuzz input, and damaging them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import atheris

Draw = atheris.FuzzedDataProvider
_VALUES = [None, True, 0, -1, 1 << 70, 1.5, "", "x", [], [1], {}, {"a": 1}, "\u00e9"]


def damaged(draw: Draw, pieces: list[bytes]) -> list[bytes]:
    """Some pieces with a byte changed, cut off, put in, or with one of them left out, twice or elsewhere."""
    pieces = list(pieces)
    for _ in range(draw.ConsumeIntInRange(0, 3)):
        if not pieces:
            break
        index = draw.ConsumeIntInRange(0, len(pieces) - 1)
        piece = pieces[index]
        at = draw.ConsumeIntInRange(0, len(piece))
        what = draw.ConsumeIntInRange(0, 7)
        if what <= 2:
            pieces[index] = piece[:at] + draw.ConsumeBytes(1) + piece[at + 1 :]
        elif what == 3:
            pieces[index] = piece[:at]
        elif what == 4:
            pieces[index] = piece[:at] + draw.ConsumeBytes(draw.ConsumeIntInRange(0, 8)) + piece[at:]
        elif what == 5:
            del pieces[index]
        elif what == 6:
            pieces.insert(index, piece)
        else:
            pieces.insert(draw.ConsumeIntInRange(0, len(pieces) - 1), pieces.pop(index))
    return pieces


def changed(draw: Draw, tree: object) -> None:
    """Put something else in the place of some value, at any depth."""
    while isinstance(tree, dict | list) and tree:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        key = keys[draw.ConsumeIntInRange(0, len(keys) - 1)]
        if not tree[key] or draw.ConsumeIntInRange(0, 2) == 0:
            if draw.ConsumeIntInRange(0, 3) == 0:
                del tree[key]
            else:
                tree[key] = deepcopy(_VALUES[draw.ConsumeIntInRange(0, len(_VALUES) - 1)])
            return
        tree = tree[key]


def cut(draw: Draw) -> list[bytes]:
    """What is left of the input as pieces."""
    pieces = []
    while draw.remaining_bytes() > 0:
        pieces.append(draw.ConsumeBytes(draw.ConsumeIntInRange(0, 80)))
    return pieces


def some(draw: Draw, values: Sequence[str], most: int) -> list[str]:
    """Up to so many of some words, at least one."""
    return [values[draw.ConsumeIntInRange(0, len(values) - 1)] for _ in range(draw.ConsumeIntInRange(1, most))]
