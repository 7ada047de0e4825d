"""Binary JSON: one document, many at once, and documents with changes to them."""

from __future__ import annotations

import numpy as np

from cdc.errors import DecodeError
from cdc.sources.lockstep import Buffer
from cdc.sources.mysql.documents import document_texts
from cdc.sources.mysql.jsonb import json_text, patched_text
from cdc.sources.mysql.rows import Field
from tests.fuzz.draw import Draw, damaged
from tests.sources.binary_json import Diff, encoded, encoded_diffs

SCALARS = [
    None,
    True,
    False,
    0,
    -1,
    40000,
    1 << 31,
    -(1 << 40),
    (1 << 64) - 1,
    0.5,
    1e300,
    "",
    'a"b',
    "\u00e9",
    "x" * 200,
]


def one_input(data: bytes) -> None:
    draw = Draw(data)
    if draw.ConsumeIntInRange(0, 2) == 0:
        document = draw.ConsumeBytes(draw.ConsumeIntInRange(0, 200))
        changes = draw.ConsumeBytes(draw.remaining_bytes())
    else:
        (document,) = damaged(draw, [encoded(_tree(draw, 0))])[:1] or [b""]
        changes = b"".join(damaged(draw, [_diffs(draw)]))
    text = _text(document)
    if text is not None and changes:
        _patched(document, changes)
    _together(draw, document)


def _text(document: bytes) -> str | None:
    try:
        text = json_text(document)
    except DecodeError:
        return None
    text.encode()
    return text


def _patched(document: bytes, changes: bytes) -> None:
    try:
        patched_text(document, changes).encode()
    except DecodeError:
        return


def _together(draw: Draw, document: bytes) -> None:
    """As many copies as are written as arrays, with bytes changed here and there."""
    documents = [document] * 20
    for _ in range(draw.ConsumeIntInRange(0, 5)):
        index, at = draw.ConsumeIntInRange(0, 19), draw.ConsumeIntInRange(0, max(0, len(document) - 1))
        documents[index] = documents[index][:at] + draw.ConsumeBytes(1) + documents[index][at + 1 :]
    length = np.array([len(each) for each in documents], dtype=np.int64)
    field = Field(np.cumsum(length) - length, length, np.ones(20, dtype=bool))
    wanted = [_text(each) for each in documents]
    try:
        found = document_texts(Buffer(documents), field)
    except DecodeError:
        assert None in wanted
        return
    found.validate(full=True)
    assert found.to_pylist() == wanted


def _tree(draw: Draw, depth: int) -> object:
    kind = draw.ConsumeIntInRange(0, 3)
    if kind <= 1 and depth:
        return SCALARS[draw.ConsumeIntInRange(0, len(SCALARS) - 1)]
    items = [_tree(draw, depth + 1) for _ in range(draw.ConsumeIntInRange(0, 4 if depth < 3 else 0))]
    return items if kind == 2 else {"abcd"[index] * (index + 1): item for index, item in enumerate(items)}


def _diffs(draw: Draw) -> bytes:
    paths = ["$", "$.a", "$.a[0]", "$[1]", '$."a b"', "$.bb.a", "$.a[18446744073709551616]"]
    return encoded_diffs(
        [
            Diff(draw.ConsumeIntInRange(0, 2), draw.PickValueInList(paths), _tree(draw, 1))
            for _ in range(draw.ConsumeIntInRange(0, 3))
        ]
    )
