"""Log lines: one event per line, with its time in UTC; the same on a terminal and in a container."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

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


def without_password(address: str) -> str:
    """A source or a target without what may be a password, for people: no message has an address as it was given."""
    scheme, is_server, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}" if is_server else address


class Form(StrEnum):
    """How log lines are written."""

    TEXT = "text"
    JSON = "json"


class Level(StrEnum):
    """The least severe of the lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Settings:
    """What is written to standard error.

    Attributes:
        is_quiet: errors alone, and no picture of what runs.
    """

    form: Form = Form.TEXT
    level: Level = Level.INFO
    is_quiet: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """A log line that programs read: `name=value` in a line of text, fields of their own in one of JSON.

    Attributes:
        message: what the line is about, in one word.
        values: numbers, texts, lists of texts, None.
        text: the same for people.
    """

    message: str
    values: Mapping[str, Any]
    text: str

    def __str__(self) -> str:
        return self.text


_pipeline: ContextVar[str] = ContextVar("pipeline", default="")
_names_pipelines = False


def name_pipelines() -> None:
    """Begin each line of text with the name of its pipeline: this process has several. Those of JSON have it anyway."""
    global _names_pipelines  # noqa: PLW0603 - of the process, as its settings are
    _names_pipelines = True


@contextmanager
def of_pipeline(name: str) -> Iterator[None]:
    """Log lines from inside are about this pipeline, also those of each `Thread` that is started there."""
    token = _pipeline.set(name)
    try:
        yield
    finally:
        _pipeline.reset(token)


class Thread(threading.Thread):
    """A thread whose log lines are about the pipeline that those of its starter are about. Whatever works for a
    pipeline runs on one of these."""

    def start(self) -> None:
        self._context = copy_context()
        super().start()

    def run(self) -> None:
        self._context.run(super().run)


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        if _names_pipelines and (pipeline := _pipeline.get()):
            record.message = f"[{pipeline}] {record.message}"
        return printable(super().formatMessage(record))


class _Json(logging.Formatter):
    """One object a line, without characters that a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        facts = record.msg if isinstance(record.msg, Facts) else None
        fields: dict[str, Any] = {
            "time": _moment(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage() if facts is None else facts.message,
            "thread": record.threadName,
        }
        if pipeline := _pipeline.get():
            fields["pipeline"] = pipeline
        if facts is not None:
            fields |= facts.values
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return _json(fields)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields)


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what is standard error when a line comes: while a live line is on, its console has taken the place, so
    that lines stand above it (O37)."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


_settings: Settings | None = None


def settings() -> Settings:
    """What this process writes to standard error. Until a command line is read, the environment says in which form."""
    return _settings or Settings(Form.JSON if os.environ.get("CDC_LOG_FORMAT") == Form.JSON else Form.TEXT)


def configure(wanted: Settings) -> None:
    """Send this program's log lines to standard error."""
    global _settings  # noqa: PLW0603 - of the process, as the loggers are
    _settings = wanted
    handler = _StandardError()
    handler.setFormatter(_Json() if wanted.form is Form.JSON else _Text())
    handler.addFilter(Repetitions())
    root = logging.getLogger("cdc")
    root.handlers = [handler]
    root.setLevel((Level.ERROR if wanted.is_quiet else wanted.level).upper())
    root.propagate = False
    # It warns of statements that it does not know with their text, in which there may be values (E-04).
    logging.getLogger("sqlglot").setLevel(logging.ERROR)
    # What psycopg says while a broken session ends was said already, and may hold more of the server's error than we
    # let through.
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)
    # Before each error of the line, which is said by us, it writes "Unexpected Http Driver Exception".
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)


def say_error(message: str, hint: str | None, exit_code: int) -> None:
    """Write what a command has failed with, as the last of its lines."""
    if settings().form is Form.JSON:
        fields = {"time": _moment(time.time()), "level": "error", "logger": "cdc", "message": message}
        print(_json({**fields, "hint": hint, "exit_code": exit_code}), file=sys.stderr)
        return
    print(f"Error: {printable(message)}", file=sys.stderr)
    if hint:
        print(f"Hint: {printable(hint)}", file=sys.stderr)


@dataclass(slots=True)
class _Kind:
    written: int
    unwritten: int
    written_at: float
    seen_at: float


class Repetitions(logging.Filter):
    """Of a pipeline's warnings and errors that differ only in their numbers, lets the first few pass, then one a
    minute, which says how many there were (E-09): a night without a server is no reason to fill a disk."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        now, message = self._clock(), record.getMessage()
        like = _pipeline.get(), _NUMBER.sub("#", message)
        kind = self._kinds.pop(like, None)
        if kind is None or now - kind.seen_at > _FORGET_AFTER:
            kind = _Kind(0, 0, now, now)
        self._kinds[like] = kind  # the last in the order, which is that of the latest
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
