"""Patterns of tables against a matcher that tries every way, and places in PostgreSQL's log."""

from __future__ import annotations

from cdc.errors import DecodeError
from cdc.model.schema import TableName
from cdc.model.selection import Selection
from cdc.sources.postgres.position import lsn, parse_lsn, write_lsn
from tests.fuzz.draw import Draw

LETTERS = ["a", "b", ".", "*", "?", "[", "]", "!", "-", "\\", "^", "A", "\n", "\u00e9", "**"]


def one_input(data: bytes) -> None:
    draw = Draw(data)
    table = TableName(_word(draw, 8), _word(draw, 8))
    patterns = [_word(draw, 12) for _ in range(draw.ConsumeIntInRange(0, 4))]
    half = len(patterns) // 2
    selection = Selection(tuple(patterns[:half]), tuple(patterns[half:]), _word(draw, 3))
    is_default = table.schema == selection.default_schema
    means = [_means(p, str(table)) if "." in p else is_default and _means(p, table.name) for p in patterns]
    assert selection.matches(table) == ((not half or any(means[:half])) and not any(means[half:]))
    assert selection.unmatched([table]) == [p for p, meant in zip(patterns, means, strict=True) if not meant]
    _place(draw)


def _word(draw: Draw, most: int) -> str:
    letters = [LETTERS[draw.ConsumeIntInRange(0, len(LETTERS) - 1)] for _ in range(draw.ConsumeIntInRange(0, most))]
    return "".join(letters)


def _means(pattern: str, text: str) -> bool:
    """`*` is any text, `?` any character, and everything else itself."""
    reached = {0}
    for letter in pattern:
        if letter == "*":
            reached = set(range(min(reached, default=len(text) + 1), len(text) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(text) and letter in ("?", text[at])}
    return len(text) in reached


def _place(draw: Draw) -> None:
    number = draw.ConsumeIntInRange(0, (1 << 64) - 1)
    assert parse_lsn(write_lsn(number)) == number
    text = draw.ConsumeUnicode(20)
    try:
        order = parse_lsn(text)
    except DecodeError:
        return
    assert 0 <= order < 1 << 64
    assert lsn(order).text.lstrip("0/") == text.upper().lstrip("0/") or text != write_lsn(order)
