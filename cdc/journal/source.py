"""The journal as a source: what was recorded, in the same order, to as many targets as there are."""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

from cdc.errors import OperatorNeeded, SchemaChangeUnsupported, SourceChanged, UsageError
from cdc.journal.folder import Folder, Manifest
from cdc.journal.moment import End, Start
from cdc.journal.reader import Reader
from cdc.journal.record import Header
from cdc.journal.retention import ReaderEntry, write_reader
from cdc.journal.state import FORMAT, HeldTable, JournalState
from cdc.model.change import Transactions
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableName, TableSchema
from cdc.model.segment import (
    Changes,
    Copied,
    Drop,
    Evolve,
    Gap,
    Note,
    Replace,
    Reset,
    Segment,
    Step,
    Suspect,
    Truncate,
    join,
    split,
)
from cdc.model.selection import Selection
from cdc.model.standing import Standing, State
from cdc.source import Head, Link

log = logging.getLogger(__name__)

_POLL = 0.02  # seconds
_SAY_EVERY = 1.0  # seconds between notes of how far the target is


class JournalSource:
    """A journal as a `cdc.source.Source`.

    Args:
        name: of the target, under which the journal knows how far it is.
        selection: the tables that are given.
        budget: bytes of segments that are given as one, at most.
        end: where to stop giving; None for nowhere.
        begin: where to begin, if there is no checkpoint. With None it is the first record of all, and the
            journal keeps those that the target still needs.
    """

    def __init__(
        self,
        folder: Folder,
        name: str,
        selection: Selection,
        budget: int,
        begin: Start | None = None,
        end: End | None = None,
    ) -> None:
        self._folder = folder
        self._name = name
        self._selection = selection
        self._budget = budget
        self._begin = begin
        self._end = end
        self._manifest: Manifest
        self._state: JournalState
        self._goal = self._passed = 0  # records: those that there were at the start; those that were given, and taken
        self._reader: Reader
        self._given: deque[tuple[int, int]] = deque()  # (order of a checkpoint, record after it), not durable yet
        self._entry: ReaderEntry | None = None
        self._said = 0.0
        self._head = Head(Position(0, "-"), 0)
        self._names: dict[int, TableName] = {}  # of the tables that were given

    @property
    def head(self) -> Head:
        return self._head

    @property
    def estimates(self) -> dict[TableName, int]:
        return {}

    @property
    def followed(self) -> dict[int, TableName]:
        return dict(self._names)

    @property
    def apart(self) -> dict[TableName, Standing]:
        return {held.table: Standing(State.HELD, held.reason) for held in self._state.held}

    @property
    def meant(self) -> list[TableSchema]:
        return []

    @property
    def is_complete(self) -> bool:
        return self._passed >= self._goal

    def open(self, resume: Checkpoint | None) -> None:
        self._manifest = self._folder.read_manifest()
        durable = self._folder.read_durable()
        self._goal = durable.next if durable is not None else 0
        if resume is not None:
            self._state = self._verified(JournalState.load(resume.state))
        else:
            begin = self._begin.record if self._begin is not None else self._first_of_all()
            folder = str(self._folder.path.resolve())
            chosen = (self._selection.include, self._selection.exclude)
            self._state = JournalState(FORMAT, self._manifest.journal, folder, uuid.uuid4().hex, begin, *chosen)
        self._reader = Reader(self._folder, self._state.next)
        self._passed = self._state.next
        self._given.clear()
        if self._begin is None:
            position = resume.position.text if resume is not None else None
            self._say(ReaderEntry(self._state.reader, self._name, self._state.next, position, time.time()))
        self._head = self._last() or self._head
        if self._end is not None:
            self._goal = self._end.record
            self._head = Head(self._end.position, self._head.clock)

    def copy(self, link: Link) -> Iterator[Segment]:
        """Nothing by itself: the rows of a first copy were recorded like everything else."""
        yield from ()

    def stream(self, link: Link) -> Iterator[Segment]:
        gathered: list[tuple[Header, Segment]] = []
        while not link.stopping:
            link.alive()
            self._say_progress(link)
            self._mind_wishes(link)
            size = sum(segment.size for _, segment in gathered)
            found = self._next() if size < self._budget and not link.paused else None
            if found is not None:
                self._see(found[0])
                if _can_be_joined(found[1]):
                    gathered.append(found)
                    continue
                if gathered:
                    yield self._joined(gathered)
                    gathered = []
                yield self._given_out(*found)
                self._passed = self._reader.next
                continue
            if gathered and (link.idle or size >= self._budget):
                yield self._joined(gathered)
                gathered = []
                self._passed = self._reader.next
                continue
            if link.goal is not None and link.durable is None and link.idle and self.is_complete:
                # Nothing came, so that nothing else would say that this is the end.
                at = Checkpoint(self._head.position, replace(self._state, next=self._reader.next).dump())
                yield Segment([], Transactions.none(), at)
            time.sleep(_POLL)

    def _next(self) -> tuple[Header, Segment] | None:
        """The next record, if there is one and it is to be given; of the last one, what is."""
        end = self._end
        if self._begin is not None and self._begin.skip and self._reader.next == self._begin.record:
            begun = self._reader.read()
            return (begun[0], split(begun[1], self._begin.skip)[1]) if begun is not None else None
        if end is None or self._reader.next < end.record - (end.count is not None):
            return self._reader.read()
        if end.count is None or self._reader.next >= end.record or (found := self._reader.read()) is None:
            return None
        first, _ = split(found[1], end.count)
        return found[0], replace(first, checkpoint=Checkpoint(end.position, ""))

    def close(self) -> None:
        if self._entry is not None:
            write_reader(self._folder, self._entry)
            self._entry = None

    # --- where it begins --------------------------------------------------------------------------------------------

    def _first_of_all(self) -> int:
        if self._manifest.first > 0:
            raise OperatorNeeded(
                f"The journal in {self._folder.path} begins with record {self._manifest.first}: the copy at its "
                "beginning was removed.",
                hint="A new target needs a journal from its beginning: make it from the source.",
            )
        return 0

    def _verified(self, state: JournalState) -> JournalState:
        if state.journal != self._manifest.journal:
            raise SourceChanged(
                f"The target was fed from another journal than the one in {self._folder.path}.",
                hint="Name the right folder, or make a new target.",
            )
        if (state.include, state.exclude) != (self._selection.include, self._selection.exclude):
            raise UsageError(
                "The target has followed other tables of this journal.",
                hint="Use the same --tables and --exclude, or make a new target.",
            )
        if state.next < self._manifest.first:
            raise OperatorNeeded(
                f"The target goes on with record {state.next}, and the journal in {self._folder.path} begins with "
                f"{self._manifest.first}.",
                hint="Build the target again from the source.",
            )
        if state.next > self._goal:
            raise SourceChanged(
                f"The target goes on with record {state.next}, and the journal in {self._folder.path} ends before "
                f"{self._goal}: it is an earlier state of it.",
                hint="Restore the journal's files, or build the target again.",
            )
        return state

    # --- what is given ----------------------------------------------------------------------------------------------

    def _joined(self, gathered: list[tuple[Header, Segment]]) -> Segment:
        return self._given_out(gathered[-1][0], join([segment for _, segment in gathered]))

    def _given_out(self, header: Header, segment: Segment) -> Segment:
        """A segment whose checkpoint is the target's, and whose steps are of the chosen tables."""
        if self._selection.include or self._selection.exclude:
            segment = replace(segment, steps=[step for step in segment.steps if self._is_chosen(step)])
        # Rows of a copy were read when they were recorded, not now; when, an older version did not write.
        steps = list(self._not_held(segment.steps, header.number))
        segment = replace(segment, steps=steps, read_at=header.read_at or 0)
        if segment.checkpoint is None:
            return segment
        is_cut = self._end is not None and self._end.count is not None and header.number + 1 == self._end.record
        following = header.number + (not is_cut)  # what is left of a record that was cut comes with all of it
        state = replace(self._state, next=following)
        self._given.append((segment.checkpoint.position.order, following))
        return replace(segment, checkpoint=Checkpoint(segment.checkpoint.position, state.dump()))

    def _is_chosen(self, step: Step) -> bool:
        if isinstance(step, Evolve):
            was, will_be = self._selection.matches(step.old.table), self._selection.matches(step.new.table)
            if was != will_be:
                raise SchemaChangeUnsupported(
                    f"{step.old.table} became {step.new.table}, but only one of the two names is chosen.",
                    hint="Choose both names, and make a new target.",
                )
            return was
        if isinstance(step, Note):
            return True
        return self._selection.matches(_schema_of(step).table)

    def _mind_wishes(self, link: Link) -> None:
        """Hold what the target cannot take, and give again what somebody wants to be copied again."""
        for identity, reason in link.take_refused().items():
            name = self._names.get(identity, TableName("", str(identity)))
            log.error("%s is held, its changes are skipped: %s", name, reason)
            self._let_in({identity})
            self._state = replace(self._state, held=(*self._state.held, HeldTable(identity, name, reason, self._goal)))
        self._let_in(link.take_again())

    def _let_in(self, identities: set[int]) -> None:
        self._state = replace(self._state, held=tuple(h for h in self._state.held if h.identity not in identities))

    def _held(self, schema: TableSchema) -> list[HeldTable]:
        return [held for held in self._state.held if held.identity == schema.identity]

    def _not_held(self, steps: Iterable[Step], record: int) -> Iterator[Step]:
        """Steps without those of tables that are held. A table that begins again by a later reset is held no longer."""
        for step in steps:
            if not isinstance(step, Note):
                schema = step.new if isinstance(step, Evolve) else _schema_of(step)
                self._names[schema.identity] = schema.table
                if isinstance(step, Reset):
                    self._let_in({held.identity for held in self._held(schema) if held.until <= record})
                if self._held(schema):
                    continue
            yield step

    def _see(self, header: Header) -> None:
        """The head is what was read, unless more is known."""
        if header.checkpoint is not None and header.checkpoint > self._head.position:
            clock = header.committed_at[-1] if header.committed_at is not None else self._head.clock
            self._head = Head(header.checkpoint, clock)

    def _last(self) -> Head | None:
        """Where the journal ends, found from its last full file on."""
        durable = self._folder.read_durable()
        if durable is None or durable.next == 0:
            return None
        reader = Reader(self._folder, durable.file if durable.file < durable.next else durable.next - 1)
        found = None
        while (header := reader.peek()) is not None:
            if header.checkpoint is not None:
                clock = header.committed_at[-1] if header.committed_at is not None else 0
                found = Head(header.checkpoint, max(clock, found.clock if found is not None else 0))
            reader.skip()
        return found

    # --- how far the target is --------------------------------------------------------------------------------------

    def _say_progress(self, link: Link) -> None:
        durable, now = link.durable, time.monotonic()
        if self._entry is None or durable is None:
            return
        reached = None
        # Records of a first copy share a position: what of them is durable is only known once it moves on.
        while len(self._given) > 1 and self._given[0][0] <= durable.order and self._given[1][0] > self._given[0][0]:
            reached = self._given.popleft()[1]
        if reached is None and self._given and self._given[0][0] < durable.order:
            reached = self._given.popleft()[1]
        if reached is not None:
            self._entry = replace(self._entry, next=reached, position=durable.text, seen_at=time.time())
        if now - self._said >= _SAY_EVERY:
            self._say(self._entry)

    def _say(self, entry: ReaderEntry) -> None:
        self._said = time.monotonic()
        self._entry = entry
        write_reader(self._folder, entry)


def _schema_of(step: Changes | Reset | Truncate | Suspect | Gap | Drop | Replace | Copied) -> TableSchema:
    return step.batch.schema if isinstance(step, Changes) else step.schema


def _can_be_joined(segment: Segment) -> bool:
    """Whether it is nothing but whole transactions."""
    has_copied = any(isinstance(step, Changes) and step.batch.copied for step in segment.steps)
    return segment.checkpoint is not None and len(segment.transactions) > 0 and not has_copied
