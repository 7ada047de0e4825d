"""Log lines: one event per line, time first, in UTC; the same on a terminal and in a container."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

_FIRST = 5  # lines of a kind that are written at once
_EVERY = 60.0  # seconds between those that follow
_FORGET_AFTER = 600.0  # seconds without one
_KINDS = 200  # that are remembered at most
_NUMBER = re.compile(r"\d+(\.\d+)?")


def printable(text: str) -> str:
    """A text whose names from a database cannot break a line or speak to a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def without(text: str, *secrets: str | None) -> str:
    """A text with `***` in the place of secrets. A longer word that has a secret inside of it stays: with a part of it
    hidden, it would give a short secret away (O49)."""
    for secret in filter(None, secrets):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return text


class _Formatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record))


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what is standard error when a line comes: while a live line is on, its console has taken the place, so
    that lines stand above it (O37)."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def configure(*, verbose: bool) -> None:
    """Send this program's log lines to standard error."""
    handler = _StandardError()
    formatter = _Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    handler.addFilter(Repetitions())
    root = logging.getLogger("cdc")
    root.handlers = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    root.propagate = False
    # It warns of statements that it does not know with their text, in which there may be values (E-04).
    logging.getLogger("sqlglot").setLevel(logging.ERROR)
    # What psycopg says while a broken session ends was said already, and may hold more of the server's error than we
    # let through.
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)
    # Before each error of the line, which is said by us, it writes "Unexpected Http Driver Exception".
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)


@dataclass(slots=True)
class _Kind:
    written: int
    unwritten: int
    written_at: float
    seen_at: float


class Repetitions(logging.Filter):
    """Of warnings and errors that differ only in their numbers, lets the first few pass, then one a minute, which says
    how many there were (E-09): a night without a server is no reason to fill a disk."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        now, message = self._clock(), record.getMessage()
        text = _NUMBER.sub("#", message)
        kind = self._kinds.pop(text, None)
        if kind is None or now - kind.seen_at > _FORGET_AFTER:
            kind = _Kind(0, 0, now, now)
        self._kinds[text] = kind  # the last in the order, which is that of the latest
        if len(self._kinds) > _KINDS:
            del self._kinds[next(iter(self._kinds))]
        kind.seen_at = now
        if kind.written >= _FIRST and now - kind.written_at < _EVERY:
            kind.unwritten += 1
            return False
        if kind.unwritten:
            record.msg = f"{message} (and {kind.unwritten} like it in the last {now - kind.written_at:.0f} s)"
            record.args = ()
        kind.written, kind.unwritten, kind.written_at = kind.written + 1, 0, now
        return True
