"""The change stream alone: no snapshot, and no target that keeps its position beyond this process."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from cdc.errors import DecodeError, LogLost, UsageError
from cdc.model.moment import Moment, written
from cdc.model.position import Checkpoint
from cdc.model.schema import TableName
from cdc.model.segment import Segment
from cdc.model.selection import Selection
from cdc.source import Head, Link
from cdc.sources.mysql.catalog import Table, named_tables
from cdc.sources.mysql.connection import Dsn
from cdc.sources.mysql.dump import file_begun
from cdc.sources.mysql.gtid import MySqlGtids
from cdc.sources.mysql.identity import Log, has_gtids, log_files, log_now
from cdc.sources.mysql.source import MySqlSource, Settings
from cdc.sources.mysql.state import TableState
from cdc.sources.mysql.tail_tables import TailTables

_FILE = re.compile(r"(.+):([0-9]{1,19})")


class TailSource(MySqlSource):
    """What is committed from now on, or from a place of the log. After a lost connection it goes on where it was.

    Args:
        begin: the place. Tables are taken to have had the shape there that they have now; if the log says otherwise,
            that is an error.
    """

    def __init__(self, dsn: Dsn, settings: Settings, *, begin: Moment | None = None) -> None:
        super().__init__(dsn, settings)
        self._begin = begin
        self._tail_tables: TailTables

    def _followed_tables(self) -> TailTables:
        self._tail_tables = TailTables(self._state, self._connection, self._settings.options, self._as_now)
        return self._tail_tables

    def _certain(self, selection: Selection, tables: Sequence[TableName]) -> Selection:
        """The log may know tables to leave out that are not there any more."""
        unknown = replace(selection, include=()).unmatched(tables)
        return replace(selection, exclude=tuple(pattern for pattern in selection.exclude if pattern not in unknown))

    def open(self, resume: Checkpoint | None) -> None:
        super().open(resume)
        if self._is_new:
            self._begin_at(self._first_place())
            now = log_now(self._connection)
            self._opened_at = Head(self._place(now, self._connection).position(), self._clock())
            for table in self._selected:
                self._tables.expect(table)
            self._describe()
        if self._begin is not None:
            self._tail_tables.as_now_until = self._opened_at.position.order
        if not self._state.gtids:
            # Those that come from here on are not all that there are: the log is followed by file and byte.
            self._gtids = None

    def _first_place(self) -> Log:
        begin, connection = self._begin, self._connection
        if begin is None:
            return log_now(connection)
        files = log_files(connection)
        if begin.time is not None:
            begin.refuse_future(self._clock())
            return self._by_file(self._file_before(begin.time, files), 4)
        text = begin.text
        if (found := _FILE.fullmatch(text)) and found[1] in files:
            if int(found[2]) > files[found[1]]:
                raise self._not_there(text, f"{found[1]}:{files[found[1]]}")
            return self._by_file(found[1], int(found[2]))
        try:
            gtids = self._parsed(text)
        except DecodeError as error:
            raise UsageError(
                f"{text!r} is neither a position in a log file of {self._dsn} nor a GTID set.",
                hint=f"Write it as {next(iter(files))}:4, a GTID set, or a time as 2024-12-31T23:59:59Z.",
            ) from error
        if not has_gtids(connection):
            raise UsageError(f"{self._dsn} has no GTIDs.", hint="Give a file and a byte: binlog.000001:4.")
        if isinstance(gtids, MySqlGtids):
            for intervals in gtids.intervals.values():
                if len(intervals) == 1:  # one transaction, as an event has it, stands for those before it as well
                    intervals[0] = (1, intervals[0][1])
        executed = log_now(connection).gtids
        if gtids.exceeds(executed):
            raise self._not_there(text, executed)
        return Log(next(iter(files)), 0, str(gtids))

    def _not_there(self, text: str, end: str) -> UsageError:
        return UsageError(
            f"{text} is in the future: {self._dsn} has written its log up to {end}.",
            hint="Give an earlier position with --from, or leave --from out.",
        )

    def _by_file(self, file: str, offset: int) -> Log:
        """A place from which the log is asked for by file and byte: which GTIDs lie before it, MySQL does not say."""
        if self._state.flavor == "mariadb":
            return log_now(self._connection, (file, offset))
        return Log(file, offset, "")

    def _file_before(self, time: int, files: dict[str, int]) -> str:
        """The log file before the first one that was begun after a time: the clock may have stepped back since."""
        before = None
        for file in files:
            if file_begun(self._dsn, self._state.server_id, file) * 1_000_000 > time:
                break
            before = file
        if before is None:
            raise LogLost(
                f"{self._dsn} has no log any more from {written(time)}.", hint="Give a later time with --from."
            )
        return before

    def copy(self, link: Link) -> Iterator[Segment]:
        """Nothing: only what happens is emitted."""
        yield self._segment([])  # on a server where nothing happens, a run that is to end would wait for something

    def _not_renamed(self, new: Sequence[Table]) -> list[Table]:
        """All: a table that goes on under another name loses nothing that was copied."""
        return list(new)

    def _take_in(self) -> Iterator[Segment]:
        """Nothing is copied."""
        if self._tables.can_look:
            self._adopt()
        yield from ()

    def _copy_missing(self, link: Link) -> Iterator[Segment]:
        """A table that came, or that was altered beyond what can be followed, is as it is now."""
        self._describe()
        yield from ()

    def _has_to_look(self) -> bool:
        """At once, since no change may be passed over."""
        return super()._has_to_look() or any(_has_to_be_described(entry) for entry in self._state.tables.values())

    def _describe(self) -> None:
        missing = [entry for entry in self._state.tables.values() if _has_to_be_described(entry)]
        found = named_tables(self._connection, [entry.schema.table for entry in missing])
        for entry in missing:
            table = found.get(entry.schema.table)
            if table is None:
                self._state.forget(entry)
                continue
            self._state.tables[entry.schema.identity] = self._as_now(table.identified(entry.schema.identity))

    def _as_now(self, table: Table) -> TableState:
        as_now = self._as_logged(table).followed(0, copied=True)
        # The log does not say which defaults a table had before they were altered.
        return replace(as_now, defaults=()) if self._begin is not None else as_now


def _has_to_be_described(entry: TableState) -> bool:
    return not entry.is_followed and entry.held is None
