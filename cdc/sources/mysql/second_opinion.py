"""A file of the log as two decoders read it, this program's and that of `pymysqlreplication`, compared row by row.

They have nothing in common, so that what both say alike is what the log says. Neither knows all that a log can hold:
what only one of them understands is named. The library's own limits are documented with it:
https://python-mysql-replication.readthedocs.io/
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pymysql.cursors import Cursor
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.constants import NONE_SOURCE
from pymysqlreplication.event import RotateEvent
from pymysqlreplication.row_event import DeleteRowsEvent, PartialUpdateRowsEvent, UpdateRowsEvent, WriteRowsEvent

from cdc.errors import CdcError, UsageError
from cdc.model.change import events as as_events
from cdc.model.schema import TableName
from cdc.model.segment import Changes, Step
from cdc.model.selection import Selection
from cdc.sources.findings import Finding, Severity
from cdc.sources.mysql.alike import are_alike
from cdc.sources.mysql.batches import Plan
from cdc.sources.mysql.binlog import Decoder
from cdc.sources.mysql.catalog import Table, selected, user_tables
from cdc.sources.mysql.charsets import ServerConverter
from cdc.sources.mysql.connection import Connection, Dsn, log_in, mapped_errors
from cdc.sources.mysql.dump import file_events
from cdc.sources.mysql.events import DELETES, GTIDS, UPDATES, WRITES, Event, event_name
from cdc.sources.mysql.identity import log_files
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.tablemap import TableMap, described_table, table_id
from cdc.sources.mysql.tables import plan_rows
from cdc.sources.mysql.transactions import Query, event_end
from cdc.sources.mysql.types import source_type

_ROWS = frozenset({*WRITES, *UPDATES, *DELETES})
_LIBRARY = "pymysqlreplication"
_UNBOUNDED = 1 << 62
_ABSENT = (NONE_SOURCE.COLS_BITMAP, NONE_SOURCE.JSON_PARTIAL_UPDATE)  # of values that the log left out

Values = Mapping[str, Any]
Image = tuple[Values | None, Values | None]  # a row before and after, without what the log left out


@dataclass(frozen=True, slots=True)
class RowEvent:
    """The rows of one event, as one of the two read them.

    Attributes:
        end: byte of the file at which the event ends.
        table: whose they are, as far as that is known.
        images: None if they are not read: nobody follows the table, or it has another shape today.
        failure: what the decoder said that did not understand it.
    """

    end: int
    table: str
    images: list[Image] | None = None
    failure: str | None = None


def second_opinion(dsn: Dsn, selection: Selection, file: str | None) -> list[Finding]:
    """Read a file of the server's log twice, and say where the two differ; changes nothing.

    Args:
        file: its name; None for the newest.

    Raises:
        UsageError: the server has no such file.
    """
    with Connection(dsn, "cdc check") as connection:
        files = log_files(connection)
        name = file or list(files)[-1]
        if name not in files:
            raise UsageError(f"{dsn} has no log file {name!r}.", hint=f"It has {', '.join(files)}.")
        tables = selected(user_tables(connection, dsn.database), selection)
        ours = _ours(connection, tables, name, files[name])
        return _Comparison(name, {str(table.name): table for table in tables}).of(ours, _theirs(dsn, name, files[name]))


@dataclass
class _Comparison:
    """What has been found so far; what repeats itself is counted."""

    file: str
    tables: dict[str, Table]
    _found: Counter[tuple[Severity, str, str]] = field(default_factory=Counter)
    _first: dict[tuple[Severity, str, str], int] = field(default_factory=dict)
    _same: Counter[str] = field(default_factory=Counter)

    def of(self, ours: Iterator[RowEvent], theirs: Iterator[RowEvent]) -> list[Finding]:
        """Both have their events in the order of the log, and one may have some that the other lacks."""
        mine, other = next(ours, None), next(theirs, None)
        while mine is not None or other is not None:
            if other is None or (mine is not None and mine.end < other.end):
                assert mine is not None
                self._alone(mine)
                mine = next(ours, None)
            elif mine is None or other.end < mine.end:
                other = next(theirs, None)  # of a table that is not followed
            else:
                self._together(mine, other)
                mine, other = next(ours, None), next(theirs, None)
        return [*self._findings(), self._summary()]

    def _alone(self, mine: RowEvent) -> None:
        if mine.failure is not None:
            self._say(Severity.FATAL, mine, f"Neither cdc nor {_LIBRARY} understands it: {mine.failure}")
        elif mine.images is not None:
            self._say(Severity.NOTE, mine, f"Only cdc understands it; {_LIBRARY} passes over it.")

    def _together(self, mine: RowEvent, other: RowEvent) -> None:
        if mine.failure is not None:
            who = f"Only {_LIBRARY} understands it" if other.failure is None else f"Nor does {_LIBRARY} understand it"
            self._say(Severity.FATAL, mine, f"{who}; cdc says: {mine.failure}")
        elif mine.images is None:
            if mine.table in self.tables:
                self._say(Severity.NOTE, mine, "Its rows have another shape than the table has today: not compared.")
        elif other.failure is not None:
            self._say(Severity.NOTE, mine, f"Only cdc understands it; {_LIBRARY} says: {other.failure}")
        elif len(mine.images) != len(other.images or ()):
            count = len(other.images or ())
            self._say(Severity.FATAL, mine, f"cdc reads {len(mine.images)} rows, {_LIBRARY} reads {count}.")
        else:
            pairs = zip(mine.images, other.images or (), strict=True)
            wrong = {name for pair in pairs for name in self._differing(mine, *pair)}
            for name in sorted(wrong):
                self._say(Severity.FATAL, mine, f"Column {name} has other values for cdc than for {_LIBRARY}.")
            self._same[mine.table] += len(mine.images) if not wrong else 0

    def _differing(self, event: RowEvent, mine: Image, other: Image) -> Iterator[str]:
        """The columns of a row that are not the same for both."""
        types = {column.name: source_type(column.source_type) for column in self.tables[event.table].schema.columns}
        for ours, theirs in zip(mine, other, strict=True):
            if (ours is None) != (theirs is None):
                yield "(all)"
                continue
            for name, value in (ours or {}).items():
                if theirs and name in theirs and not are_alike(types[name], value, theirs[name]):
                    yield name

    def _say(self, severity: Severity, event: RowEvent, message: str) -> None:
        what = (severity, event.table, message)
        self._found[what] += 1
        self._first.setdefault(what, event.end)

    def _findings(self) -> Iterator[Finding]:
        for (severity, table, message), count in self._found.items():
            where = f"{self.file}, event that ends at {self._first[severity, table, message]}"
            more = f" (and {count - 1:,} more)" if count > 1 else ""
            yield Finding(severity, table, f"{message} {where}{more}.")

    def _summary(self) -> Finding:
        rows = sum(self._same.values())
        return Finding(
            Severity.NOTE, self.file, f"{rows:,} rows of {len(self._same)} tables are the same to both decoders."
        )


# --- ours -----------------------------------------------------------------------------------------------------------


class _Today:
    """The tables as they are today, which is how the rows of the log are read."""

    def __init__(self, tables: list[Table]) -> None:
        self._tables = {
            (table.name.schema, table.name.name): replace(
                table, schema=replace(table.identified(number).schema, full_before=True)
            ).followed(0, copied=True)
            for number, table in enumerate(tables, 1)
        }

    def start(self, name: TableName) -> int:
        return 0

    def plan(self, table_map: TableMap) -> Plan | None:
        entry = self._tables.get((table_map.schema, table_map.table))
        return plan_rows(entry, table_map) if entry is not None else None

    def doubted(self, name: TableName, why: str, transaction: int) -> list[Step] | None:
        return None

    def unsaid(self, names: Collection[TableName] | None, why: str, order: int, transaction: int) -> list[Step]:
        return []

    def statement(self, statement: Query, order: int, transaction: int, ordinal: int) -> list[Step]:
        return []


def _ours(connection: Connection, tables: list[Table], file: str, size: int) -> Iterator[RowEvent]:
    """Event by event, so that one that is not understood stands alone: what follows it is read with another decoder,
    which is given the head of the transaction and its tables once more."""
    head: list[bytes] = []
    today, names = _Today(tables), dict[int, str]()

    def begun() -> Decoder:
        is_mariadb = connection.version.flavor == "mariadb"
        place = LogPlace(file, 0)
        made = Decoder(today, ServerConverter(connection), place, {}, {}, {}, is_mariadb=is_mariadb)
        for event in head:
            made.decode([event], allow_part=True)
        return made

    decoder = begun()
    for event in file_events(connection.dsn, secrets.randbelow(1 << 31) + 1, file, size):
        kind = event[4]
        if kind in GTIDS:
            head = []
        if kind == Event.TABLE_MAP:
            names[table_id(event)] = str(described_table(event))
        table = names.get(table_id(event), file) if kind in _ROWS else file
        try:
            decoded = decoder.decode([event], allow_part=True)
        except CdcError as error:
            yield RowEvent(event_end(event), table, failure=f"{event_name(kind)}: {error.message}")
            decoder = begun()
            continue
        if kind in _ROWS:
            found = [
                event
                for step in decoded.steps
                if isinstance(step, Changes)
                for event in as_events(step.batch, decoded.transactions)
            ]
            images = [(event.before, event.after) for event in sorted(found, key=lambda event: event.ordinal)]
            yield RowEvent(event_end(event), table, images or None)
        elif kind in GTIDS or kind == Event.TABLE_MAP:
            head.append(event)


# --- theirs ---------------------------------------------------------------------------------------------------------


def _theirs(dsn: Dsn, file: str, size: int) -> Iterator[RowEvent]:
    logging.getLogger(_LIBRARY).setLevel(logging.ERROR)  # it advises settings that `cdc check` speaks of

    def connect(db: str | None = None, cursorclass: type[Cursor] = Cursor, **_: object) -> Any:
        return log_in(dsn, "cdc check", longest=_UNBOUNDED, database=db, cursorclass=cursorclass)

    with mapped_errors(dsn):
        stream = BinLogStreamReader(
            connection_settings={},
            server_id=secrets.randbelow(1 << 31) + 1,
            log_file=file,
            log_pos=4,
            end_log_pos=size,
            resume_stream=True,
            only_events=[WriteRowsEvent, UpdateRowsEvent, PartialUpdateRowsEvent, DeleteRowsEvent, RotateEvent],
            pymysql_wrapper=connect,
            enable_logging=False,
        )
        try:
            while (event := stream.fetchone()) is not None:
                if isinstance(event, RotateEvent):
                    if event.next_binlog != file:
                        return
                    continue
                yield _read(event)
        finally:
            stream.close()


def _read(event: Any) -> RowEvent:
    end, table = event.packet.log_pos, f"{event.schema}.{event.table}"
    try:
        return RowEvent(end, table, [_image(event, row) for row in event.rows])
    except Exception as error:  # whatever it fails with: it has no errors of its own
        return RowEvent(end, table, failure=f"{type(error).__name__}")


def _image(event: Any, row: dict[str, Any]) -> Image:
    if isinstance(event, WriteRowsEvent):
        return None, _present(row["values"], row["none_sources"])
    if isinstance(event, DeleteRowsEvent):
        return _present(row["values"], row["none_sources"]), None
    before = _present(row["before_values"], row["before_none_sources"])
    return before, _present(row["after_values"], row["after_none_sources"])


def _present(values: Values, missing: Mapping[str, str]) -> Values:
    """Without what the log left out, and without dates that Python does not have: the library cannot tell them."""
    unknown = (*_ABSENT, *(why for why in missing.values() if why.startswith("out of")))
    found = {name: value for name, value in values.items() if missing.get(name) not in unknown}
    return found | {name: set() for name, why in missing.items() if why == NONE_SOURCE.EMPTY_SET}
