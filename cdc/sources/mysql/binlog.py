"""The binlog: plain events in, batches of changes out, no I/O.

https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_replication_binlog_event.html

All events at hand are one buffer, and the row events of a table between two barriers (a statement, another shape,
another file) are decoded in lockstep.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from cdc.errors import DecodeError
from cdc.model.change import ChangeBatch, Transactions
from cdc.model.position import Position
from cdc.model.schema import TableName
from cdc.model.segment import Changes, Step
from cdc.sources.mysql.batches import Plan, Replaced, decode_rows
from cdc.sources.mysql.events import (
    DELETES,
    GTIDS,
    HEADER,
    IGNORABLE_FLAG,
    IGNORED,
    STATEMENT_PARTS,
    UPDATES,
    WRITES,
    Event,
    event_name,
)
from cdc.sources.mysql.framing import event_mark
from cdc.sources.mysql.gtid import Gtid
from cdc.sources.mysql.notes import Placed, notes_of, statements
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.replaces import Replaces, Statements
from cdc.sources.mysql.slices import Events, grouped
from cdc.sources.mysql.tablemap import TableMap, parse_table_map
from cdc.sources.mysql.transactions import (
    Begun,
    Query,
    begin,
    event_end,
    event_start,
    is_artificial,
    is_begin,
    query,
    xa_name,
)
from cdc.sources.mysql.values import Converter

_ROWS = np.zeros(256, dtype=bool)
_ROWS[[*WRITES, *UPDATES, *DELETES]] = True
_FILE_HEADS = (Event.FORMAT_DESCRIPTION, Event.PREVIOUS_GTIDS, Event.MARIADB_GTID_LIST, Event.BINLOG_CHECKPOINT)
_MARKERS = np.zeros(256, dtype=bool)  # what the framing looks at one by one
_MARKERS[[*GTIDS, *STATEMENT_PARTS, Event.QUERY, Event.XID, Event.XA_PREPARE, Event.ROTATE, Event.INCIDENT]] = True
_MARKERS[list(_FILE_HEADS)] = True
_KNOWN = _ROWS | _MARKERS
_KNOWN[Event.TABLE_MAP] = True
_KNOWN[list(IGNORED)] = True
# How long an event is at least. A table is known by its number: an event that is cut off must not be asked for it.
_SHORTEST = np.full(256, HEADER, dtype=np.int64)
_SHORTEST[_ROWS] = _SHORTEST[[Event.TABLE_MAP, Event.ROTATE]] = HEADER + 8
_FARTHEST = 1 << 62  # byte of a log
_STATEMENT_ENDS = 1  # a flag of row events
_END_OF_STATEMENT = 0xFFFFFF  # the table number of a row event without rows


class Catalog(Protocol):
    """What the decoder must know about tables."""

    def start(self, name: TableName) -> int:
        """Where the snapshot of a table is: what was committed before it is in the snapshot already."""

    def plan(self, table_map: TableMap) -> Plan | None:
        """How to read the rows of a table map; None if the table is not followed."""

    def doubted(self, name: TableName, why: str, transaction: int) -> list[Step] | None:
        """What it means that changes of a table do not say all that they did, from a transaction of the run on.

        None if they are not followed.
        """

    def unsaid(self, names: Collection[TableName] | None, why: str, order: int, transaction: int) -> list[Step]:
        """What it means that the log lacks changes of some tables, or of any table, as of a transaction.

        Args:
            order: of that transaction, which is number `transaction` of the run.
        """

    def statement(self, statement: Query, order: int, transaction: int, ordinal: int) -> list[Step]:
        """What a statement means for the tables that are followed.

        Args:
            order: of its transaction, which is number `transaction` of the run.
            ordinal: of the statement, among the transaction's changes.
        """


@dataclass(frozen=True, slots=True)
class Decoded:
    """What came out of a run of events.

    Attributes:
        steps, transactions: as in a segment.
        end: the end of the last transaction; None if the events end inside one.
        consumed: how many of the events were used; the rest must be given again, before what follows them.
        wanted: the next transaction commits what was prepared at this place of the log: its events have to be put in
            front of the event that `consumed` names, and given by `Decoder.supply`.
    """

    steps: list[Step]
    transactions: Transactions
    end: Position | None
    consumed: int
    wanted: tuple[str, LogPlace] | None = None


@dataclass(slots=True)
class _Run:
    """What the framing finds, by the indexes of events.

    Attributes:
        kind: uint8[n], the types of the events.
        begun, first, place: each transaction, the event that it begins with, and where that is in the log.
        statements: barriers among the rows.
        unread: ranges whose rows are not applied: of transactions that were prepared only, or that may be undone.
        unsaid: events by which changes are lacking: why, and of which tables; None stands for any table.
        carried: the transaction that was open before.
        end: where the last whole transaction ends in the log.
        wanted: see `Decoded`.
    """

    kind: np.ndarray
    begun: list[Begun] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    place: list[LogPlace] = field(default_factory=list)
    statements: list[tuple[int, Query]] = field(default_factory=list)
    unread: list[tuple[int, int]] = field(default_factory=list)
    unsaid: dict[int, tuple[str, frozenset[TableName] | None]] = field(default_factory=dict)
    carried: Begun | None = None
    end: LogPlace | None = None
    wanted: tuple[str, LogPlace] | None = None


class Decoder:
    """Turns events into steps. Keeps what the log says only once: table maps, and a transaction that is open.

    Args:
        place: where the first event is.
        bases: the order of the first byte of each file that there was when the reading began.
        prepared: XA transactions that were prepared and not yet committed, with where they begin.
        marks: of files, what distinguishes them from others of the same name.
        notes: emit the statements that changed rows, where the log has them.
        is_mariadb: it is MariaDB's log.
        has_texts: it is sent with the texts of its statements, if the server has them.
    """

    def __init__(
        self,
        catalog: Catalog,
        converter: Converter,
        place: LogPlace,
        bases: Mapping[str, int],
        prepared: Mapping[str, LogPlace],
        marks: Mapping[str, list[int]],
        *,
        notes: bool = False,
        is_mariadb: bool = False,
        has_texts: bool = False,
    ) -> None:
        self._catalog = catalog
        self._converter = converter
        self.place = place
        self._bases = bases
        self.prepared = dict(prepared)
        self.marks = dict(marks)
        self.end = place  # nothing before it is asked for again
        self.gtids: list[Gtid] = []  # of whole transactions, for the keeper of the position to take
        self._maps: dict[int, bytes] = {}
        self._tables: dict[int, TableMap] = {}
        self._plans: dict[int, Plan | None] = {}
        self._open: tuple[Begun, LogPlace] | None = None
        self._supplied: set[str] = set()
        self._head_end = 0  # byte of the file, from its begin on, up to which nothing but its head has come
        self._tells_notes = notes
        self._replaces = Replaces(has_texts=has_texts) if is_mariadb else None
        self._statement_text: str | None = None  # whose rows have not come yet

    @property
    def inside_transaction(self) -> bool:
        """Whether what was decoded so far ends before its transaction does."""
        return self._open is not None

    def supply(self, name: str) -> None:
        """The events of a prepared transaction stand before the statement that commits it now."""
        self._supplied.add(name)

    def ask_again(self) -> None:
        """Ask the catalog about every table again: it knows others now."""
        self._plans.clear()

    def decode(self, events: Sequence[bytes], *, allow_part: bool = False) -> Decoded:
        """Decode whole transactions, or, if there is no end of one and `allow_part`, what there is of it.

        Raises:
            DecodeError: an event is of an unknown kind or damaged.
        """
        if not len(events):
            return Decoded([], Transactions.none(), None, 0)
        try:
            return self._decode(Events.of(events), allow_part=allow_part)
        except (IndexError, OverflowError, UnicodeDecodeError) as error:  # of lengths and numbers that cannot be
            raise DecodeError(f"An event after {self.end.file}:{self.end.offset} is damaged.") from error

    def _decode(self, events: Events, *, allow_part: bool) -> Decoded:
        length = events.length
        if (length < HEADER).any():
            raise DecodeError("A binlog event is shorter than its header.")
        kind = events.kind
        self._refuse_unknown(events, kind)
        if (length < _SHORTEST[kind]).any():
            short = events[int(np.argmax(length < _SHORTEST[kind]))]
            raise DecodeError(
                f"A {event_name(short[4])} event that ends at {self.place.file}:{event_end(short)} is cut off."
            )
        before = (self._open, self.place, dict(self.prepared))
        run = self._frame(events, kind)
        count = len(events)
        if self._open is not None:
            count = run.first[-1] if len(run.first) > (before[0] is not None) else 0
            if count == 0 and run.end is None:
                if not allow_part or run.wanted is not None:
                    self._open, self.place, self.prepared = before
                    return Decoded([], Transactions.none(), None, 0, run.wanted)
                count = len(events)
                self._advance(events[-1])  # the next events may end beyond what 32 bits tell from here (M12)
                if self._open[0].is_xa:
                    self._open[0].passed_over = True
                    run.unread.append((run.first[-1], count))
            else:  # the last one has only begun; it is given again
                self._open = None
                run.begun.pop(), run.first.pop(), run.place.pop()
        if self._open is None and run.wanted:
            self.end = run.end or self.place
        elif self._open is None:
            if count == len(events):
                self._advance(events[-1])
            self.end = self.place  # behind what comes after the last transaction as well: the head of another file
        transactions = _transactions(run)
        placed: list[Placed] = []
        steps = list(self._steps(events[:count], run, transactions, placed))
        if self._replaces is not None:
            self._replaces.passed(_statements(events[:count], kind[:count]))
        if self._tells_notes:
            said = statements(events[:count], kind[:count], run.first, self._statement_text)
            notes, self._statement_text = notes_of(said, placed, run.begun, goes_on=self._open is not None)
            steps += notes
        position = self.end.position() if run.end is not None else None
        return Decoded(steps, transactions, position, count, run.wanted)

    def _refuse_unknown(self, events: Sequence[bytes], kind: np.ndarray) -> None:
        for index in np.flatnonzero(~_KNOWN[kind]).tolist():
            event = events[index]
            if int.from_bytes(event[17:19], "little") & IGNORABLE_FLAG:
                continue
            raise DecodeError(
                f"The log has an event of type {event_name(event[4])} that ends at "
                f"{self.place.file}:{event_end(event)}, which cdc does not know.",
                hint="A newer version of cdc may know it. No part of the log was skipped.",
            )

    # --- framing ----------------------------------------------------------------------------------------------------

    def _frame(self, events: Events, kind: np.ndarray) -> _Run:
        """Walk the events that begin, end or interrupt transactions."""
        run = _Run(kind)
        if self._open is not None:
            run.carried = self._open[0]
            run.begun.append(run.carried)
            run.first.append(0)
            run.place.append(self._open[1])
        markers = np.flatnonzero(_MARKERS[kind])
        for index, event in zip(markers.tolist(), events.chosen(markers), strict=True):
            code = event[4]
            if code in GTIDS:
                begun = begin(event)
                self._begin(run, index, begun)
                self._mark_first(event, begun)
            elif code == Event.XID:
                self._end(run, event)
            elif code == Event.QUERY:
                if self._open is not None and is_begin(event):
                    self._open[0].is_block = True
                    continue
                self._statement(run, index, events)
                if run.wanted is not None:
                    break
            elif code == Event.XA_PREPARE:
                self._prepare(run, index, event)
            elif code == Event.ROTATE:
                self._rotate(event)
            elif code in _FILE_HEADS:
                self._head(event)
            elif code == Event.INCIDENT:
                self._incident(run, index, event)
            elif code == Event.EXECUTE_LOAD_QUERY:  # a query that says more of a file before its words
                self._statement(run, index, events, event[: HEADER + 13] + event[HEADER + 26 :])
        return run

    def _head(self, event: bytes) -> None:
        """Follow what a file begins with; MariaDB writes the last of these kinds among the transactions, too."""
        if event[4] == Event.FORMAT_DESCRIPTION and event_end(event):
            self._mark_file(event)
            self._head_end = event_end(event)
        elif self._head_end and event_start(event) == self._head_end and not is_artificial(event):
            self._head_end = event_end(event)

    def _mark_file(self, description: bytes) -> None:
        mark = event_mark(description)
        if self.marks.get(self.place.file, [])[:1] != [mark]:  # another file, or another one of its name
            self.marks = {self.place.file: [mark]}

    def _mark_first(self, event: bytes, begun: Begun) -> None:
        """Remember a file's first transaction; a dump may begin with a later one."""
        mark = self.marks.get(self.place.file, [])
        if len(mark) == 1 and begun.start == self._head_end:
            mark.append(event_mark(event))

    def _begin(self, run: _Run, index: int, begun: Begun) -> None:
        if self._open is not None:
            raise DecodeError(
                f"The log has a transaction at {self.place.file}:{begun.start} before the one before it has ended."
            )
        place = self.place.near(begun.start)
        if run.place and place.order < run.place[-1].order:
            raise DecodeError(f"The log goes back from {run.place[-1].position()} to {place.position()}.")
        self.place = place
        self._open = (begun, place)
        run.begun.append(begun)
        run.first.append(index)
        run.place.append(self.place)

    def _end(self, run: _Run, event: bytes) -> None:
        if self._open is None:
            raise DecodeError(f"The log ends a transaction at {self.place.file}:{event_end(event)} that has not begun.")
        begun = self._open[0]
        self.place = run.end = self.place.near(event_end(event))
        if begun.gtid is not None:
            self.gtids.append(begun.gtid)
        self._open = None

    def _statement(self, run: _Run, index: int, events: Sequence[bytes], event: bytes | None = None) -> None:
        event = events[index] if event is None else event
        statement = query(event)
        words = statement.text[:40].upper().split(None, 2)
        verb = words[0].rstrip(";") if words else ""
        if self._open is None:
            self._begin_unnamed(run, index, event)
        assert self._open is not None
        begun = self._open[0]
        if verb == "BEGIN":
            begun.is_block = True
        elif verb == "COMMIT":
            self._end(run, event)
        elif verb == "ROLLBACK":
            self._rollback(run, index, events, to_savepoint=len(words) > 1 and words[1] == "TO")
        elif verb == "XA" and len(words) > 1:
            self._xa(run, index, words[1], statement, event)
        elif verb not in ("SAVEPOINT", "RELEASE"):
            run.statements.append((index, statement))
            if not begun.is_block:
                self._end(run, event)

    def _begin_unnamed(self, run: _Run, index: int, event: bytes) -> None:
        """Without GTIDs, not even anonymous ones, a transaction begins with its first event (MySQL 5.6)."""
        seconds = int.from_bytes(event[:4], "little")
        self._begin(run, index, Begun(event_start(event), None, seconds * 1_000_000))

    def _incident(self, run: _Run, index: int, event: bytes) -> None:
        """The server could not write what it changed, and says no more than that (B-13)."""
        if self._open is None:
            self._begin_unnamed(run, index, event)
        self._lack(run, index, f"the server's log lacks changes: it reports an incident at {self._at(event)}")
        self._end(run, event)

    def _rollback(self, run: _Run, index: int, events: Sequence[bytes], *, to_savepoint: bool) -> None:
        """Engines without transactions keep what others roll back, and the log then has both (B-29)."""
        assert self._open is not None
        first, begun = run.first[-1], self._open[0]
        if _ROWS[run.kind[first:index]].any() or begun.changes:
            what = "a transaction that mixes engines with and without transactions was rolled back"
            maps = np.flatnonzero(run.kind[first:index] == Event.TABLE_MAP) + first
            tables = [parse_table_map(events[at]) for at in maps.tolist()]
            names = frozenset(TableName(table.schema, table.table) for table in tables)
            self._lack(run, index, f"{what} at {self._at(events[index])}", names if begun is not run.carried else None)
        if not to_savepoint:
            self._end(run, events[index])

    def _xa(self, run: _Run, index: int, verb: str, statement: Query, event: bytes) -> None:
        assert self._open is not None
        begun = self._open[0]
        if verb in ("START", "BEGIN"):
            begun.is_block = begun.is_xa = True
        elif verb in ("COMMIT", "ROLLBACK"):
            name = _normalised("".join(statement.text.split(None, 2)[2:]))
            place = self.prepared.get(name)
            if verb == "COMMIT" and place is not None and name not in self._supplied:
                run.wanted = (name, place)
                return
            if verb == "COMMIT" and place is None:
                what = f"the distributed transaction {name}, which is committed at {self._at(event)},"
                self._lack(run, index, f"{what} was prepared before the log that this pipeline has seen")
            self.prepared.pop(name, None)
            self._supplied.discard(name)
            self._end(run, event)

    def _prepare(self, run: _Run, index: int, event: bytes) -> None:
        """XA PREPARE ends a transaction in the log, but it is applied only where it is committed (B-28)."""
        name, at_once = xa_name(event)
        if self._open is None:
            raise DecodeError(f"The log prepares a transaction at {event_end(event)} that has not begun.")
        if not at_once:
            self.prepared[name] = self._open[1]
            run.unread.append((run.first[-1], index))
        elif self._open[0].passed_over:
            why = f"a distributed transaction of one phase that ends at {self._at(event)} is larger than a segment"
            self._lack(run, index, why)
        self._end(run, event)

    def _lack(self, run: _Run, index: int, why: str, names: frozenset[TableName] | None = None) -> None:
        """What the log has of the open transaction up to an event is skipped; some tables, or any, may lack changes."""
        run.unread.append((run.first[-1], index))
        run.unsaid[index] = (why, names)

    def _at(self, event: bytes) -> str:
        return f"{self.place.file}:{event_end(event)}"

    def _rotate(self, event: bytes) -> None:
        """Another file: at its end the old one names it, and at its begin the server does."""
        file = event[HEADER + 8 :].decode(errors="replace")
        offset = int.from_bytes(event[HEADER : HEADER + 8], "little")
        if not file.isprintable() or not file or "\ufffd" in file or offset > _FARTHEST:
            raise DecodeError(f"A ROTATE event at {self.place.file}:{event_end(event)} names no file.")
        if not is_artificial(event) and event_end(event):
            self.place = self.place.near(event_end(event))
        if file in self._bases:
            self.place = LogPlace(file, self._bases[file], offset)
        elif file != self.place.file:
            self.place = self.place.following(file, offset)

    def _advance(self, event: bytes) -> None:
        """Whatever the log has up to here is done with."""
        if event[4] != Event.ROTATE and event_end(event):
            self.place = self.place.near(event_end(event))

    # --- rows -------------------------------------------------------------------------------------------------------

    def _steps(self, events: Events, run: _Run, transactions: Transactions, placed: list[Placed]) -> Iterator[Step]:
        """Walk from barrier to barrier: statements, and wherever a table number means another table than before."""
        is_row = _ROWS[events.kind]
        for begin_, end in run.unread:
            is_row[begin_:end] = False
        rows = np.flatnonzero(is_row)
        of = np.searchsorted(np.array(run.first, dtype=np.int64), np.arange(len(events)), side="right") - 1
        if len(rows) and of[rows[0]] < 0:
            raise DecodeError("The log has a row event outside of any transaction.")
        statements = dict(run.statements)
        barriers = [*statements, *run.unsaid]
        stops = sorted({*self._descriptions(events), *(i for i in barriers if i < len(events))})
        done = 0
        for index in stops:
            statement, unsaid = statements.get(index), run.unsaid.get(index)
            if statement is None and unsaid is None and not self._is_news(events[index]):
                continue
            until = int(np.searchsorted(rows, index))
            yield from self._changes(events, rows[done:until], of, run, transactions, placed)
            done = until
            if statement is None and unsaid is None:
                self._describe(events[index])
                continue
            transaction = int(of[index])
            begun, order = run.begun[transaction], int(transactions.order[transaction])
            steps = []
            if statement is not None:
                steps += self._catalog.statement(statement, order, transaction, begun.changes)
                begun.changes += len(steps)
            if unsaid is not None:
                why, names = unsaid
                steps += self._catalog.unsaid(names, why, order, transaction)
            self._plans.clear()
            yield from steps
        yield from self._changes(events, rows[done:], of, run, transactions, placed)

    def _descriptions(self, events: Events) -> list[int]:
        """The indexes of table maps and of whatever makes them void, without those that say what is known already.

        Every statement has its own, so that they are compared as arrays.
        """
        kind = events.kind
        resets = np.flatnonzero(kind == Event.FORMAT_DESCRIPTION)
        maps = np.flatnonzero(kind == Event.TABLE_MAP)
        news: list[int] = resets.tolist()
        for number, which in grouped(events.numbers(maps)):
            of = maps[which]
            known = self._maps.get(number)
            if known is None or len(resets):
                known = events[of[0]][HEADER + 6 :]
                _, firsts = np.unique(np.searchsorted(resets, of), return_index=True)
                news += of[firsts].tolist()
            if not events.all_end_in(of, HEADER + 6, known):
                news += of.tolist()
        return news

    def _is_news(self, event: bytes) -> bool:
        if event[4] == Event.FORMAT_DESCRIPTION:
            return bool(self._maps)
        known = self._maps.get(int.from_bytes(event[HEADER : HEADER + 6], "little"))
        if known is None:
            self._describe(event)  # nothing before it can mean it
            return False
        return known != event[HEADER + 6 :]

    def _describe(self, event: bytes) -> None:
        """Take a table map; a new file or server numbers its tables again (B-45)."""
        if event[4] == Event.FORMAT_DESCRIPTION:
            self._maps.clear()
            self._tables.clear()
            self._plans.clear()
            return
        number = int.from_bytes(event[HEADER : HEADER + 6], "little")
        self._maps[number] = event[HEADER + 6 :]
        self._tables.pop(number, None)
        self._plans.pop(number, None)

    def _changes(
        self,
        events: Events,
        at: np.ndarray,
        of: np.ndarray,
        run: _Run,
        transactions: Transactions,
        placed: list[Placed],
    ) -> Iterator[Step]:
        """Batches of the row events `at` (int64[n]), one per table; the places of their changes go into `placed`."""
        if not len(at):
            return
        start, end, kind = events.begin[at], events.end[at], events.kind[at]
        decoded = []
        count = np.zeros(len(at), dtype=np.int64)
        for number, which_ in grouped(events.numbers(at)):
            if number == _END_OF_STATEMENT and number not in self._maps:
                continue
            which = which_
            table = self._table(number)
            first = self._catalog.start(TableName(table.schema, table.table))
            if first:
                # Only then is the plan asked for: rows from before the snapshot may have a shape that nobody knows.
                which = which[transactions.order[of[at[which]]] >= first]
            plan = self._plan(number) if len(which) else None
            if plan is None:
                continue
            try:
                found = decode_rows(
                    events.buffer,
                    start[which],
                    end[which],
                    kind[which],
                    plan,
                    self._converter,
                    self._replaced(events, at[which], plan),
                )
            except DecodeError as error:
                error.concerns = plan.schema.identity
                raise
            count[which] = np.bincount(found.event, minlength=len(which))
            decoded.append((plan.schema, which, found, int((end[which] - start[which]).sum())))
        transaction = of[at]
        before = np.cumsum(count) - count
        began = np.concatenate([[True], transaction[1:] != transaction[:-1]])
        base = np.maximum.accumulate(np.where(began, np.arange(len(at)), 0))
        earlier = np.array([begun.changes for begun in run.begun], dtype=np.int64)
        ordinal = before - before[base] + earlier[transaction]
        placed.append(Placed(at, transaction, ordinal, count))
        for index, total in zip(*_totals(transaction, count), strict=True):
            run.begun[index].changes += total
        for schema, which, found, size in decoded:
            event = which[found.event]
            doubts = self._doubts(schema.table, found.doubts, transaction[event[found.doubted]])
            if doubts is None:
                continue
            yield from doubts
            place = np.arange(len(event)) - np.searchsorted(found.event, found.event)
            yield Changes(
                ChangeBatch(
                    schema=schema,
                    op=found.op,
                    transaction=transaction[event].astype(np.int32),
                    ordinal=ordinal[event] + place,
                    after=found.after,
                    after_row=found.after_row,
                    before=found.before,
                    before_row=found.before_row,
                    size=size,
                )
            )

    def _doubts(self, table: TableName, doubts: Sequence[str], transaction: np.ndarray) -> list[Step] | None:
        """What a table's changes that the log does not have whole (int64[n], their transactions) do to it.

        Said at the first and at the last of them: in between the table may be compared, and be certain again.
        """
        found: list[Step] = []
        for of in sorted({int(transaction.min()), int(transaction.max())} if len(transaction) else ()):
            self._plans.clear()
            steps = self._catalog.doubted(table, "; ".join(doubts), of)
            if steps is None:
                return None
            found += steps
        return found

    def _replaced(self, events: Events, at: np.ndarray, plan: Plan) -> Replaced | None:
        replaces = self._replaces
        if replaces is None:
            return None

        def replaced(event: np.ndarray) -> np.ndarray:
            return replaces.among(_statements(events, events.kind), at[event], plan.schema.table)

        return replaced

    def _table(self, number: int) -> TableMap:
        if number not in self._tables:
            body = self._maps.get(number)
            if body is None:
                raise DecodeError(f"The log has rows of table number {number} before it described that table.")
            self._tables[number] = parse_table_map(bytes(HEADER + 6) + body)
        return self._tables[number]

    def _plan(self, number: int) -> Plan | None:
        if number not in self._plans:
            self._plans[number] = self._catalog.plan(self._table(number))
        return self._plans[number]


def _statements(events: Events, kind: np.ndarray) -> Statements:
    """Where statements have their texts, and where they end."""
    ends = _ROWS[kind] & (events.buffer.bytes[events.begin + HEADER + 6] & _STATEMENT_ENDS > 0)
    return Statements(events, kind, ends)


def _totals(transaction: np.ndarray, count: np.ndarray) -> tuple[list[int], list[int]]:
    totals = np.bincount(transaction, weights=count).astype(np.int64)
    index = np.flatnonzero(totals)
    return index.tolist(), totals[index].tolist()


def _transactions(run: _Run) -> Transactions:
    order = np.array([place.order for place in run.place], dtype=np.int64)
    number = [begun.gtid.number if begun.gtid is not None else place.order for begun, place in _pairs(run)]
    committed = np.array([begun.committed_at for begun in run.begun], dtype=np.int64)

    def write(at: int) -> str:
        index = int(np.searchsorted(order, at))
        gtid = run.begun[index].gtid
        return str(gtid) if gtid is not None else f"{run.place[index].file}:{run.place[index].offset}"

    return Transactions(order, np.array(number, dtype=np.int64), committed, write)


def _pairs(run: _Run) -> Iterator[tuple[Begun, LogPlace]]:
    return zip(run.begun, run.place, strict=True)


def _normalised(name: str) -> str:
    """The name of a distributed transaction as `xa_name` has it: hexadecimal in lower case, without spaces."""
    parts = [part.strip() for part in name.split(",")]
    return ",".join([f"X'{part[2:-1].lower()}'" if part[:2] in ("X'", "x'") else part for part in parts])
