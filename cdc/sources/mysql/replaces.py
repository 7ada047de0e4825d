"""Whether an update in MariaDB's log is a REPLACE: then what it leaves out got its default. Sans I/O.

MariaDB logs the REPLACE of a row that there is as an update. With `binlog_row_image = MINIMAL` that lacks the columns
which the statement does not name, just as an ordinary update lacks those that it left alone: its own replicas keep the
old values there (seen with 10.11 and 11.8; MySQL logs the whole row). Only the statement's text tells the two apart.

The log has one text for all rows of a statement, and it is that of whatever wrote a row first: under a BEFORE trigger
the trigger's own statement (seen with 10.11). So a text says something only if all tables that the statement writes to
are the ones that the text names as its target: the table maps name those of triggers, too. The rest is not certain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from sqlglot import Dialect, TokenType
from sqlglot.dialects.mysql import MySQL
from sqlglot.errors import SqlglotError

from cdc.errors import Unavailable
from cdc.model.schema import TableName
from cdc.sources.mysql.events import HEADER, UPDATES, Event
from cdc.sources.mysql.tablemap import described_table, table_id

ORDINARY, REPLACE, UNCERTAIN = 0, 1, 2  # what an update is


class _Words(MySQL):
    """MySQL, without the statements that sqlglot keeps as one text."""

    class Tokenizer(MySQL.Tokenizer):
        COMMANDS: ClassVar[set[TokenType]] = set()


class _WordsWithPlainBackslashes(MySQL):
    """The same under NO_BACKSLASH_ESCAPES."""

    class Tokenizer(MySQL.Tokenizer):
        STRING_ESCAPES: ClassVar[list[str]] = ["'", '"']
        COMMANDS: ClassVar[set[TokenType]] = set()


_MODIFIERS = frozenset(("LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "CONCURRENT", "IGNORE", "INTO"))
_EXECUTED_COMMENTS = ("/*!", "/*M!")  # whether one is executed depends on the server's version
_UPSERT = ("ON", "DUPLICATE", "KEY", "UPDATE")


class StatementsNeeded(Unavailable):
    """The log has to be read again, with the texts of its statements."""

    def __init__(self, table: TableName) -> None:
        super().__init__(
            f"An update of {table} was logged without all of its columns, and only the statement tells what they are.",
            hint="The log is read again with its statements.",
        )


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a statement's text says of the updates that it makes itself.

    Attributes:
        replaces: they are a REPLACE.
        targets: the tables that it may write to, each as its database ('' for the one in use) and its name, in lower
            case.
    """

    replaces: bool
    targets: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    is_plain: bool

    def is_one_of(self, *words: str) -> bool:
        return self.is_plain and self.text.upper() in words


def meaning(text: str) -> Meaning | None:
    """What a statement says of its updates; None if it makes no updates, or if that is not known."""
    if any(comment in text for comment in _EXECUTED_COMMENTS):
        return None
    found = set()
    for dialect in (_Words, _WordsWithPlainBackslashes):  # the log does not say which mode the session had
        try:
            tokens = Dialect.get_or_raise(dialect).tokenize(text)
        except SqlglotError:
            continue
        found.add(_meaning([_Word(word, plain) for token in tokens for word, plain in _words(token)]))
    return found.pop() if len(found) == 1 else None


def _words(token: object) -> Iterator[tuple[str, bool]]:
    kind, text = token.token_type, token.text  # type: ignore[attr-defined]
    if kind in (TokenType.STRING, TokenType.IDENTIFIER):  # under ANSI_QUOTES a name may stand in double quotes
        yield text, False
    elif kind is not TokenType.SEMICOLON:
        yield from ((word, True) for word in text.split())


def _meaning(words: Sequence[_Word]) -> Meaning | None:
    at = 0
    if len(words) > 1 and words[0].is_one_of("SET") and words[1].is_one_of("STATEMENT"):
        at = next((number for number, word in enumerate(words) if word.is_one_of("FOR")), len(words)) + 1
    verb = words[at].text.upper() if at < len(words) and words[at].is_plain else ""
    rest = words[at + 1 :]
    if verb == "REPLACE":
        return _of_one(rest, replaces=True)
    if verb == "INSERT":
        return _of_one(rest, replaces=False) if _has(rest, *_UPSERT) else None
    if verb == "LOAD":
        begin = _find(rest, "REPLACE", "INTO", "TABLE")
        return _of_one(rest[begin + 3 :], replaces=True) if begin is not None else None
    if verb == "UPDATE":
        return _of_several(rest)
    return None


def _of_one(words: Sequence[_Word], *, replaces: bool) -> Meaning | None:
    at = 0
    while at < len(words) and words[at].is_one_of(*_MODIFIERS):
        at += 1
    name = _name(words, at)
    return Meaning(replaces, frozenset([name])) if name is not None else None


def _of_several(words: Sequence[_Word]) -> Meaning:
    """Of an UPDATE: the tables before its SET that stand in no parentheses."""
    targets: set[tuple[str, str]] = set()
    depth, begins = 0, True
    for at, word in enumerate(words):
        depth += word.is_one_of("(") - word.is_one_of(")")
        if depth == 0 and word.is_one_of("SET"):
            break
        if begins and word.is_one_of(*_MODIFIERS):
            continue
        if begins and depth == 0 and (name := _name(words, at)) is not None:
            targets.add(name)
        begins = depth == 0 and word.is_one_of(",", "JOIN", "STRAIGHT_JOIN")
    return Meaning(replaces=False, targets=frozenset(targets))


def _name(words: Sequence[_Word], at: int) -> tuple[str, str] | None:
    if at >= len(words):
        return None
    if at + 2 < len(words) and words[at + 1].is_one_of("."):
        return words[at].text.lower(), words[at + 2].text.lower()
    return "", words[at].text.lower()


def _find(words: Sequence[_Word], *wanted: str) -> int | None:
    for at in range(len(words) - len(wanted) + 1):
        if all(word.is_one_of(text) for word, text in zip(words[at:], wanted, strict=False)):
            return at
    return None


def _has(words: Sequence[_Word], *wanted: str) -> bool:
    return _find(words, *wanted) is not None


@dataclass(slots=True)
class Statement:
    """One statement of the log.

    Attributes:
        text: of it, or of the first statement of its triggers that changed a row.
        tables: those that it may write to, by the numbers that row events have.
        updates: per number of a table the heads of its updates, which say what columns they carry.
    """

    text: str
    tables: dict[int, TableName] = field(default_factory=dict)
    updates: dict[int, set[bytes]] = field(default_factory=dict)

    def add(self, event: bytes) -> None:
        """Take an event of it."""
        if event[4] == Event.TABLE_MAP:
            self.tables[table_id(event)] = described_table(event)
        elif event[4] in UPDATES:
            columns = event[HEADER + 8]
            head = event[HEADER + 8 : HEADER + 9 + 2 * ((columns + 7) // 8)]
            self.updates.setdefault(table_id(event), set()).add(head)

    def kind(self, number: int) -> int:
        """What its updates of a table are."""
        found = meaning(self.text)
        if found is None or len(self.updates.get(number, ())) != 1:  # two kinds of updates: in a stored function
            return UNCERTAIN
        for name in self.tables.values():
            schema, table = name.schema.lower(), name.name.lower()
            same = [other for other in self.tables.values() if other.name.lower() == table]
            if (schema, table) not in found.targets and (("", table) not in found.targets or len(same) > 1):
                return UNCERTAIN
        return REPLACE if found.replaces else ORDINARY


class Replaces:
    """What tells, of MariaDB's updates, which ones are a REPLACE.

    Args:
        has_texts: the log is sent with the texts of its statements, if the server has them.
    """

    def __init__(self, *, has_texts: bool) -> None:
        self._has_texts = has_texts
        self._open: Statement | None = None  # one that has begun with events that came before

    def among(self, statements: Statements, at: np.ndarray, table: TableName) -> np.ndarray:
        """uint8[n]: what updates are: ORDINARY, REPLACE or UNCERTAIN.

        Args:
            at: int64[n], the row events of updates that lack columns.

        Raises:
            StatementsNeeded: the texts were not asked for.
        """
        if not self._has_texts:
            raise StatementsNeeded(table)
        events, which = np.unique(at, return_inverse=True)
        return np.array(statements.kinds(events, self._open), dtype=np.uint8)[which.reshape(-1)]

    def passed(self, statements: Statements) -> None:
        """Go on behind these events."""
        self._open = statements.unfinished(self._open)


class Statements:
    """Where in a run of events statements have their texts, and where they end.

    Args:
        kind: uint8[n], the types of the events.
        ends: bool[n], the row events with which a statement ends.
    """

    def __init__(self, events: Sequence[bytes], kind: np.ndarray, ends: np.ndarray) -> None:
        self._events = events
        self._count = len(kind)
        self._said = np.flatnonzero(kind == Event.ANNOTATE_ROWS)
        self._ended = np.flatnonzero(ends)

    def kinds(self, at: np.ndarray, before: Statement | None) -> list[int]:
        """What the updates of some events (int64[n]) are; `before` is the statement that goes on with the first one."""
        known: dict[int, Statement] = {}
        decided: dict[tuple[int, int], int] = {}
        found = []
        for index in at.tolist():
            said = int(np.searchsorted(self._said, index, side="right")) - 1
            ended = int(np.searchsorted(self._ended, index, side="left")) - 1
            begin = int(self._said[said]) if said >= 0 else -1
            if (ended >= 0 and self._ended[ended] > begin) or (begin < 0 and before is None):
                found.append(UNCERTAIN)  # the server was set not to write the text
                continue
            if begin not in known:
                known[begin] = self._statement(begin, before)
            of = (begin, table_id(self._events[index]))
            if of not in decided:
                decided[of] = known[begin].kind(of[1])
            found.append(decided[of])
        return found

    def _statement(self, begin: int, before: Statement | None) -> Statement:
        """The statement whose text is event `begin`, or that came before the events (-1), up to its end."""
        if begin < 0:
            assert before is not None
            found = Statement(before.text, dict(before.tables), {n: set(heads) for n, heads in before.updates.items()})
        else:
            found = Statement(self._events[begin][HEADER:].decode(errors="backslashreplace"))
        ended = int(np.searchsorted(self._ended, begin, side="right"))
        end = int(self._ended[ended]) + 1 if ended < len(self._ended) else self._count
        for index in range(begin + 1, end):
            found.add(self._events[index])
        return found

    def unfinished(self, before: Statement | None) -> Statement | None:
        """The statement that goes on behind the events."""
        begin = int(self._said[-1]) if len(self._said) else -1
        if len(self._ended) and self._ended[-1] > begin:
            return None
        return self._statement(begin, before) if begin >= 0 or before is not None else None
