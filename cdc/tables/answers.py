"""What is answered about the past of tables, whichever target keeps it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cdc.errors import NotKnown, UsageError
from cdc.logs import without_password
from cdc.model.moment import Moment
from cdc.model.schema import TableName
from cdc.tables.gaps import GapInHistory

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Known:
    """A table that has a history: the source's number for it, its name, and the names of its key."""

    identity: int
    table: TableName
    key: tuple[str, ...]

    def refuse_key(self, key: Sequence[str]) -> None:
        """Raise UsageError unless there are as many values as the key has columns."""
        if len(key) != len(self.key):
            names = ", ".join(self.key) or "no key"
            raise UsageError(
                f"The key of {self.table} is ({names}), not {len(key)} values.",
                hint="Give one argument for each of them, in this order."
                if self.key
                else "`cdc as-of` shows its rows.",
            )


@dataclass(frozen=True, slots=True)
class Place:
    """A place of the log as of which something is answered.

    Attributes:
        order: of the last commit up to there.
        asked: what was asked for: a time in UTC, or a position.
        commit: that commit's position, and when it was, by its own clock.
        later: the same of the next one, if its clock is ahead of this machine's; else None.
    """

    order: int
    asked: str
    commit: str
    later: str | None

    def __str__(self) -> str:
        ahead = f" The next one says that it is of the future: {self.later}." if self.later is not None else ""
        return f"As of {self.asked}: the last commit up to then is {self.commit}.{ahead}"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a row.

    Attributes:
        op: insert, update, delete, truncate, drop or copy; `moved` where the row got another key; `unknown` where it is
            not known what happened from there on.
        time, position, transaction: when it was committed, and by which transaction; a copy is of none.
        row: as it is afterwards; None if the row is gone.
        changed: names of the columns that have another value than before.
        reason: why it is not known what happened, and from where to where.
    """

    op: str
    time: str | None
    position: str
    transaction: int | None
    row: Row | None
    changed: tuple[str, ...]
    reason: str | None = None


def named(name: str, found: Sequence[Known], place: str) -> Known:
    """The table of those found that is called `schema.table`, or by its name alone if there is one of that name.

    Raises:
        UsageError: no table has that name, or several have.
    """
    matching = [known for known in found if name == str(known.table)]
    matching = matching or [known for known in found if name == known.table.name]
    if len(matching) != 1:
        names = ", ".join(str(known.table) for known in matching or found)
        raise UsageError(
            f"{'More than one table' if matching else 'No table'} in {place} is called {name!r}.",
            hint=f"There are: {names}." if names else None,
        )
    return matching[0]


def not_known(target: str, known: Known, asked: Moment, gap: GapInHistory) -> NotKnown:
    """That a place is in a gap.

    Args:
        target: as a command has it.
    """
    target = without_password(target)
    as_of = f"cdc as-of {target} {known.table}"
    hints = [f"The last state before that: {as_of} {gap.before}"] if gap.before is not None else []
    if gap.after is not None:
        hints.append(f"The first one after it: {as_of} {gap.after}")
    elif gap.ends is None:
        hints.append(f"It is known again after: cdc resync SOURCE {target} --tables {known.table}")
    return NotKnown(
        f"The rows of {known.table} as of {asked} are not known, and neither are those {gap}: {gap.reason}.",
        hint=". ".join(hints) or None,
    )


def plain(columns: Sequence[str], values: Sequence[Any]) -> Row:
    """A row as JSON can write it: infinities and NaN are texts."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in zip(columns, values, strict=False)
    }


def unknown(gap: GapInHistory) -> Event:
    """That it is not known what became of the table's rows."""
    position, time = gap.first if gap.first is not None else ("now", None)
    return Event("unknown", time, position, None, None, (), gap.reason if gap.after is None else f"{gap}: {gap.reason}")


def events(rows: Sequence[Row], stamps: Sequence[Row]) -> Iterator[tuple[int, Event]]:
    """Each version's begin and, unless the next one goes on from there, its end; with the places of these."""
    before: Row | None = None
    for index, (row, stamp) in enumerate(zip(rows, stamps, strict=True)):
        changed = tuple(name for name in row if before is None or before[name] != row[name])
        time, position = stamp["_cdc_valid_from_time"], stamp["_cdc_valid_from_position"]
        begin = Event(stamp["_cdc_op"], time, position, stamp["_cdc_transaction"], row, changed)
        yield stamp["_cdc_valid_from"], begin
        before = row
        if stamp["_cdc_valid_to"] is None:
            continue
        following = stamps[index + 1] if index + 1 < len(stamps) else {}
        ends = (stamp["_cdc_valid_to"], stamp["_cdc_ended_ordinal"])
        if ends == (following.get("_cdc_valid_from"), following.get("_cdc_ordinal")):
            continue
        before, ended_by = None, stamp["_cdc_ended_by"]
        op = "moved" if ended_by == "update" else ended_by
        time, position = stamp["_cdc_valid_to_time"], stamp["_cdc_valid_to_position"]
        yield stamp["_cdc_valid_to"], Event(op, time, position, stamp["_cdc_ended_transaction"], None, ())
