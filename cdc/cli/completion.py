"""What a shell offers for the values of a command line: pipelines, targets, tables.

Nothing here connects to a database, waits, or says what went wrong: a person is typing.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterable, MutableMapping
from pathlib import Path

FILE = Path("cdc.toml")
_MOST = 500  # offers; nobody reads more
_READ = 16 << 20  # bytes of a file that are read at most
_DUCKDB = "duckdb:"
_SUFFIXES = (".duckdb", ".ddb", ".db")
_BREAKS = re.compile("[:@=]+")  # at which bash breaks words, as it is set up
_SOURCES = ("postgresql://", "mysql://", "mariadb://", "journal:")
_SCHEMES = (_DUCKDB, "ducklake:", "postgresql://", "clickhouse://", "jsonl:", "kafka://", "journal:")


def rejoin_words(environment: MutableMapping[str, str]) -> str:
    """Put the words together again that bash has broken: `postgresql`, `:`, `//user`, `@`, `host` is one argument.

    Returns:
        What bash has broken off the word at hand. It stays on the line, and no offer may repeat it.
    """
    at = int(environment["COMP_CWORD"])
    words = re.split(r"\n" if "\n" in environment["COMP_WORDS"] else r"\s", environment["COMP_WORDS"])[: at + 1]
    joined: list[str] = []
    begins = True
    for word in words:
        is_break = _BREAKS.fullmatch(word) is not None
        if begins and not is_break:
            joined.append(word)
            kept = 0
        else:
            kept = len(joined[-1]) + (len(word) if is_break else 0)
            joined[-1] += word
        begins = not is_break
    if at >= len(words):
        joined.append("")
        kept = 0
    environment["COMP_WORDS"], environment["COMP_CWORD"] = "\n".join(joined), str(len(joined) - 1)
    option, equals, _ = joined[-1].partition("=")
    return joined[-1][len(option + equals) if equals and option.startswith("-") else 0 : kept]


def pipelines(incomplete: str) -> list[str]:
    """The pipelines of ./cdc.toml."""
    try:
        tables = tomllib.loads(_text_of(FILE)).get("pipelines")
    except (OSError, ValueError):
        return []
    return _offers(tables if isinstance(tables, dict) else (), incomplete)


def sources(incomplete: str) -> list[str]:
    """The pipelines that need no source on the command line, and the kinds of source."""
    return [*pipelines(incomplete), *_offers(_SOURCES, incomplete)]


def targets(incomplete: str) -> list[str]:
    """Files of DuckDB, below the current folder or where the word points; before that the kinds of target."""
    if not incomplete.startswith(_DUCKDB):
        return _offers(_SCHEMES, incomplete)
    folder, _, begin = incomplete.removeprefix(_DUCKDB).rpartition("/")
    place = folder + "/" if folder or incomplete.startswith(f"{_DUCKDB}/") else ""
    found: list[str] = []
    try:
        with os.scandir(place or ".") as entries:
            for entry in entries:
                if entry.name.startswith(begin) and (not entry.name.startswith(".") or begin):
                    if entry.is_dir():
                        found.append(f"{_DUCKDB}{place}{entry.name}/")
                    elif entry.name.endswith(_SUFFIXES):
                        found.append(f"{_DUCKDB}{place}{entry.name}")
    except OSError:
        return []
    return _offers(found, incomplete)


def tables(incomplete: str) -> list[str]:
    """The tables of a target on the line, by what its pipeline says, or has said last. Several are parted by commas."""
    written, comma, begin = incomplete.rpartition(",")
    return [f"{written}{comma}{name}" for name in _offers(_tables_on_line(), begin)]


def _tables_on_line() -> list[str]:
    for word in _words():
        try:
            said = json.loads(_text_of(Path(f"{word.rpartition(':')[2]}.cdc.json")))
            return [str(name) for name in said["tables"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return []


def _words() -> list[str]:
    """The words of the line, as a shell hands them over. typer knows none before an option that lacks its value."""
    try:
        return shlex.split(os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", ""))
    except ValueError:  # a quotation that has no end yet
        return []


def _text_of(file: Path) -> str:
    """Raises OSError or ValueError: a device or a pipe, at which somebody would wait, is no file."""
    if not file.is_file():
        raise FileNotFoundError(file)
    with file.open("rb") as opened:
        return opened.read(_READ).decode()


def _offers(names: Iterable[str], incomplete: str) -> list[str]:
    """Those that begin so. What could not be put on a line of a shell is not offered."""
    found = sorted(name for name in names if name.startswith(incomplete) and name.isprintable())
    return found[:_MOST]
