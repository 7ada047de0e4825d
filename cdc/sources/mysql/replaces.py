"""Whether an update in MariaDB's log is a REPLACE: then what it leaves out got its default. Sans I/O.

MariaDB logs the REPLACE of a row that there is as an update. With `binlog_row_image = MINIMAL` that lacks the columns
which the statement does not name, just as an ordinary update lacks those that it left alone: its own replicas keep the
old values there (seen with 10.11 and 11.8; MySQL logs the whole row). Only the statement's text tells the two apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from cdc.errors import OperatorNeeded, Unavailable
from cdc.model.schema import TableName
from cdc.sources.mysql.events import HEADER, Event

# Atomic: what was taken for a comment is not tried again as a part of a longer one, which takes for ever where no word
# follows.
_FIRST = re.compile(r"(?>\s|\(|/\*.*?\*/|--\s[^\n]*\n|#[^\n]*\n)*(\w+)", re.DOTALL)
_UPSERT = re.compile(r"\bON\s+DUPLICATE\s+KEY\s+UPDATE\b", re.IGNORECASE)
_LOAD = re.compile(r"\bREPLACE\s+INTO\b", re.IGNORECASE)


class StatementsNeeded(Unavailable):
    """The log has to be read again, with the texts of its statements."""

    def __init__(self, table: TableName) -> None:
        super().__init__(
            f"An update of {table} was logged without all of its columns, and only the statement tells what they are.",
            hint="The log is read again with its statements.",
        )


def is_replace(text: str, table: TableName) -> bool | None:
    """Whether a statement that updated rows of a table replaced them; None if that was a trigger, or cannot be told."""
    if table.name.lower() not in text.lower():
        return None
    first = _FIRST.match(text)
    verb = first[1].upper() if first else ""
    if verb == "REPLACE" or (verb == "LOAD" and _LOAD.search(text)):
        return True
    if verb == "UPDATE" or (verb == "INSERT" and _UPSERT.search(text)):
        return False
    return None


class Replaces:
    """What tells, of MariaDB's updates, which ones are a REPLACE.

    Args:
        has_texts: the log is sent with the texts of its statements, if the server has them.
    """

    def __init__(self, *, has_texts: bool) -> None:
        self._has_texts = has_texts
        self._text: str | None = None  # of a statement that has begun with events that came before

    def among(self, statements: Statements, at: np.ndarray, table: TableName, *, names_key: bool) -> np.ndarray:
        """bool[n]: which updates are.

        Args:
            at: int64[n], the row events of updates that lack columns.
            names_key: they have the row's new key, which ordinary ones do that change it.

        Raises:
            StatementsNeeded: the texts were not asked for.
            OperatorNeeded: the server has no text that tells.
        """
        if not self._has_texts:
            raise StatementsNeeded(table)
        events, which = np.unique(at, return_inverse=True)
        found = []
        for text in statements.texts(events, self._text):
            told = is_replace(text, table) if text is not None else None
            if told is None and names_key:
                raise OperatorNeeded(
                    f"An update of {table} was logged without all of its columns, and it may be a REPLACE: then "
                    "MariaDB's log does not have the values that it left.",
                    hint="Set binlog_row_image = FULL for all sessions. Only a new copy is certainly right: "
                    "`cdc teardown`, remove the target, start again.",
                )
            found.append(bool(told))
        return np.array(found, dtype=bool)[which.reshape(-1)]

    def passed(self, statements: Statements) -> None:
        """Go on behind these events."""
        self._text = statements.unfinished(self._text)


class Statements:
    """Where in a run of events statements have their texts, and where they end.

    Args:
        kind: uint8[n], the types of the events.
        ends: bool[n], the row events with which a statement ends.
    """

    def __init__(self, events: Sequence[bytes], kind: np.ndarray, ends: np.ndarray) -> None:
        self._events = events
        self._said = np.flatnonzero(kind == Event.ANNOTATE_ROWS)
        self._ended = np.flatnonzero(ends)

    def texts(self, at: np.ndarray, before: str | None) -> list[str | None]:
        """The statement that each row event is of, where the log has it.

        Args:
            at: int64[n], the events.
            before: the statement that goes on with the first event.
        """
        said = np.searchsorted(self._said, at, side="right") - 1
        ended = np.searchsorted(self._ended, at, side="left") - 1
        found: list[str | None] = []
        for one, other in zip(said.tolist(), ended.tolist(), strict=True):
            if one < 0:
                found.append(before if other < 0 else None)
            else:
                found.append(self._text(one) if other < 0 or self._said[one] > self._ended[other] else None)
        return found

    def unfinished(self, before: str | None) -> str | None:
        """The statement that goes on behind the events."""
        if not len(self._said):
            return before if not len(self._ended) else None
        return self._text(-1) if not len(self._ended) or self._said[-1] > self._ended[-1] else None

    def _text(self, number: int) -> str:
        return self._events[int(self._said[number])][HEADER:].decode(errors="backslashreplace")
