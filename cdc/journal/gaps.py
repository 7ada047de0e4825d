"""What a journal does not know: tables whose changes were passed over, up to where they were copied again (H4)."""

from __future__ import annotations

from dataclasses import dataclass

from cdc.errors import NotKnown
from cdc.journal.folder import Folder
from cdc.journal.reader import Reader
from cdc.model.change import ABSENT
from cdc.model.moment import Moment
from cdc.model.schema import TableName
from cdc.model.segment import Copied, Drop, Gap, Reset, Segment


@dataclass(frozen=True, slots=True)
class _Open:
    """A gap that has not ended: of which table, from where on, behind which position, and why."""

    table: TableName
    since: str
    before: str | None
    reason: str


class OpenGaps:
    """The gaps that are open as of the segments that were seen."""

    def __init__(self) -> None:
        self.tables: dict[int, _Open] = {}
        self._copied: set[int] = set()  # tables whose copies end where transactions follow
        self._skipped: set[int] = set()  # tables whose changes are skipped until a copy begins
        self._at: str | None = None

    def see(self, segment: Segment) -> None:
        """Take note of a segment, or of the first part of one."""
        if len(segment.transactions):
            for identity in self._copied:
                self.tables.pop(identity, None)
            self._copied.clear()
        for step in segment.steps:
            if isinstance(step, Gap):
                self._begin(segment, step)
                self._skipped.add(step.schema.identity)
                self._copied.discard(step.schema.identity)
            elif isinstance(step, Reset) and step.by_parts:
                self._skipped.discard(step.schema.identity)
                here = _Open(step.schema.table, f"just after {self._at}", self._at, "it was being copied")
                self.tables.setdefault(step.schema.identity, here)
            elif isinstance(step, Reset):
                self._skipped.discard(step.schema.identity)
                self._copied.add(step.schema.identity)
            elif isinstance(step, Drop) or (isinstance(step, Copied) and step.schema.identity not in self._skipped):
                self._skipped.discard(step.schema.identity)
                self.tables.pop(step.schema.identity, None)
        if len(segment.transactions):
            self._at = segment.transactions[-1].position.text
        elif segment.checkpoint is not None:
            self._at = segment.checkpoint.position.text

    def _begin(self, segment: Segment, step: Gap) -> None:
        before, since = self._at, f"just after {self._at}"
        if step.transaction != ABSENT:
            since = segment.transactions[step.transaction].position.text
            before = segment.transactions[step.transaction - 1].position.text if step.transaction else before
        self.tables.setdefault(step.schema.identity, _Open(step.schema.table, since, before, step.reason))

    def refuse(self, folder: Folder, until: Moment, record: int, order: int) -> None:
        """Make sure that all tables are known at a moment.

        Args:
            until: the moment.
            record: the number of the first record behind it.
            order: of the place of the moment.

        Raises:
            NotKnown: one is not.
        """
        self._look_back(folder, record, order)
        if not self.tables:
            return
        identity, gap = min(self.tables.items(), key=lambda entry: entry[1].table)
        others = len(self.tables) - 1
        more = f" The same is true of {others} other table{'s' * (others > 1)}." if others else ""
        after = self._end(folder, identity, record)
        to = f"to {after}" if after is not None else "to the end of the journal"
        command = f"cdc rebuild journal:{folder.path} TARGET --until"
        hints = [f"The last state in which it is known before that: {command} '{gap.before}'"] if gap.before else []
        hints += [f"The first one in which it is known again: {command} '{after}'"] if after is not None else []
        raise NotKnown(
            f"The rows of {gap.table} as of {until} are not known, and neither are those from {gap.since} {to}: "
            f"{gap.reason}.{more}",
            hint=". ".join(hints) or None,
        )

    def _look_back(self, folder: Folder, record: int, order: int) -> None:
        """Take note of gaps that were found out later than a place, and began before it."""
        reader = Reader(folder, record)
        while (header := reader.peek()) is not None:
            if not any(step.since is not None and step.since < order for step in header.steps):
                reader.skip()
                continue
            found = reader.read()
            for step in found[1].steps if found is not None else ():
                if isinstance(step, Gap) and step.since is not None and step.since < order:
                    gap = _Open(step.schema.table, "an earlier position", None, step.reason)
                    self.tables.setdefault(step.schema.identity, gap)

    def _end(self, folder: Folder, identity: int, record: int) -> str | None:
        """The position of the first transaction behind the end of a gap; None if the gap has not ended."""
        reader = Reader(folder, record)
        while (found := reader.read()) is not None:
            if len(found[1].transactions) and identity not in self.tables:
                return found[1].transactions[0].position.text
            self.see(found[1])
        return None
