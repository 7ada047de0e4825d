"""In which line of a TOML text each key stands. The parser of the standard library reads it and keeps no lines."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping

Path = tuple[str, ...]


def lines_of(text: str) -> dict[Path, int]:
    """The line, counted from 1, in which the statement of each key and the header of each table begins.

    The text must be valid. A statement is the smallest run of whole lines that the parser accepts; what stands in front
    of it is the header that it belongs to.
    """
    found: dict[Path, int] = {}
    header, begin, lines = "", 0, text.splitlines()
    for end in range(1, len(lines) + 1):
        statement = "\n".join(lines[begin:end])
        is_header = statement.lstrip().startswith("[")
        try:
            content = tomllib.loads(statement if is_header else f"{header}\n{statement}")
        except tomllib.TOMLDecodeError:
            continue  # a value that goes on in the next line
        if is_header:
            header = statement
        for path in _paths(content):
            found.setdefault(path, begin + 1)
        begin = end
    return found


def _paths(content: Mapping[str, object], above: Path = ()) -> Iterator[Path]:
    for name, value in content.items():
        path = (*above, name)
        yield path
        if isinstance(value, dict):
            yield from _paths(value, path)


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """The line of a key, or else of what it stands in."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)
