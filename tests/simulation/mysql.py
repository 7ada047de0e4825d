"""A MariaDB or MySQL server that follows a script, as far as the source and its stream can see one."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from typing import Any
from unittest.mock import patch

from cdc.errors import Unavailable, UsageError
from cdc.model.change import Op
from cdc.model.position import Checkpoint
from cdc.model.segment import Segment
from cdc.model.selection import Selection
from cdc.options import KeptOptions
from cdc.source import Link
from cdc.sources.mysql import dump, identity, source, tables
from cdc.sources.mysql.catalog import Table
from cdc.sources.mysql.connection import Version
from cdc.sources.mysql.copy import Copied
from cdc.sources.mysql.events import ARTIFICIAL_FLAG, Event
from cdc.sources.mysql.gtid import MariaDbGtids
from cdc.sources.mysql.identity import Log
from cdc.sources.mysql.source import MySqlSource, Settings
from cdc.sources.mysql.state import SourceState
from tests.simulation.binlog import DATABASE, BinaryLog, File, table
from tests.simulation.history import History
from tests.simulation.history import Version as TableVersion
from tests.simulation.snapshot import copy_tables
from tests.simulation.targets import order
from tests.simulation.world import World

_OPS = {"insert": Op.INSERT, "update": Op.UPDATE, "delete": Op.DELETE, "truncate": Op.TRUNCATE}


class MySqlServer:
    """One server with a history, which goes on as time does. It is the DSN as well."""

    database, password, scheme = DATABASE, "", "mysql"

    def __init__(self, world: World, size: int, faults: int) -> None:
        self.world = world
        self.flavor = world.rng.choice(["mariadb", "mysql"])
        self.history = History(world.rng, size, statements_commit=True)
        self.log = BinaryLog(world.rng, self.history, self.flavor)
        self.faults_left = faults
        self.durable: Callable[[], int] = lambda: 0
        self.history.coverage["transaction: of two phases"] += len(self.log.prepared)
        self._read: tuple[Checkpoint, SourceState] | None = None
        world.coverage[f"server: {self.flavor}"] += 1

    def __str__(self) -> str:
        return "mysql://simulated/d"

    # --- what is true -----------------------------------------------------------------------------------------------

    def committed(self) -> int:
        """How many transactions are committed now."""
        return sum(entry.at <= self.world.time for entry in self.log.logged)

    def number_at(self, place: int) -> int:
        """How many transactions end at or before a byte, counted through all files."""
        return sum(entry.end <= place for entry in self.log.logged)

    def written(self) -> tuple[File, int]:
        """The end of the log now."""
        file, offset = self.log.files[0], 4
        for known in self.log.files:
            for event in known.events:
                if event.at <= self.world.time:
                    file, offset = known, event.end
        return file, offset

    def gtid_at(self, name: str, offset: int) -> str:
        """Which transactions lie before a byte of a file."""
        number = 0
        for file in self.log.files:
            for event in file.events:
                if file.name == name and event.end > offset:
                    return f"0-1-{number}" if number else ""
                number = max(number, event.gtid)
            if file.name == name:
                break
        return f"0-1-{number}" if number else ""

    def is_over(self) -> bool:
        return self.committed() == len(self.log.logged)

    def waiting_since(self, checkpoint: Checkpoint, order: int) -> float | None:
        at = self._count(self._state(checkpoint), order)
        logged = self.log.logged
        return next((entry.at for entry in logged if entry.end > at and entry.at <= self.world.time), None)

    def has_all(self, checkpoint: Checkpoint) -> bool:
        state = self._state(checkpoint)
        names = {version.shape.name for version in self.history.states[-1].values()}
        followed = {entry.schema.table.name for entry in state.tables.values()}
        return followed == names and self._count(state, state.place.order) >= self.log.logged[-1].end

    def _state(self, checkpoint: Checkpoint) -> SourceState:
        if self._read is None or self._read[0] is not checkpoint:
            self._read = checkpoint, SourceState.load(checkpoint.state)
        return self._read[1]

    def _count(self, state: SourceState, place: int) -> int:
        """A pipeline's place as a byte counted through all files: it began to count where it began."""
        before = next(file.before for file in self.log.files if file.name == state.place.file)
        return place - state.place.base + before

    def expected(self, checkpoint: Checkpoint) -> dict[str, tuple[list[str], list[tuple[Any, ...]]] | None]:
        """Columns and rows of each table that a target with a checkpoint must have; None: it is not copied."""
        state = self._state(checkpoint)
        at = self._count(state, state.place.order)
        assert not any(entry.begin < at < entry.end for entry in self.log.logged), "a place inside a transaction"
        found: dict[str, tuple[list[str], list[tuple[Any, ...]]] | None] = {}
        for entry in state.tables.values():
            name = entry.schema.table.name
            if not entry.copied:
                found[f"{DATABASE}.{name}"] = None
                continue
            start = self.number_at(self._count(state, entry.start))
            versions = self.history.states[max(start, self.number_at(at))].values()
            version: TableVersion = next(v for v in versions if v.shape.name == name)
            rows = [version.shape.row(values) for values in version.rows]
            found[f"{DATABASE}.{name}"] = [c.name for c in version.shape.columns], sorted(rows, key=order)
        return found

    def check_changes(self, changes: list[tuple[int, int, Op, int]], checkpoint: Checkpoint) -> None:
        """No change came twice; of tables that were copied once, each came (B-10)."""
        assert len({change[:2] for change in changes}) == len(changes)
        state = self._state(checkpoint)
        oids = {version.shape.name: oid for oid, version in self.history.states[-1].items()}
        known = {oids[entry.schema.table.name]: entry for entry in state.tables.values()}
        expected: Counter[tuple[Op, int]] = Counter()
        for logged, transaction in zip(self.log.logged, self.history.transactions, strict=True):
            for op in transaction.ops if transaction.committed else ():
                for shape in op.shapes if op.what in _OPS else ():
                    if logged.begin >= self._count(state, known[shape.oid].start):
                        expected[_OPS[op.what], known[shape.oid].schema.identity] += 1
        starts = {entry.schema.identity: entry.start for entry in state.tables.values()}
        # A table that was renamed while it was copied has another identity since, under which it was copied whole.
        followed = [change for change in changes if change[3] in starts]
        came = Counter((op, identity) for at, _, op, identity in followed if at >= starts[identity])
        assert came == expected

    def source(self, budget: int) -> MySqlSource:
        settings = Settings(
            "s", KeptOptions(Selection(default_schema=DATABASE)), workers=1, budget=budget, by_parts=False
        )
        return MySqlSource(self, settings, self.world)  # type: ignore[arg-type]


class Connection:
    """One connection: SQL, as far as the source speaks it, or a dump."""

    def __init__(self, dsn: MySqlServer, purpose: str, patience: float = 600.0) -> None:
        world = dsn.world
        if dsn.faults_left and world.chance(0.04):
            dsn.faults_left -= 1
            world.coverage["server: refuses"] += 1
            raise Unavailable("refused, as planned")
        self.dsn = self.server = dsn
        self.world = world
        self.version = Version(dsn.flavor, (10, 11, 6) if dsn.flavor == "mariadb" else (8, 4, 0))
        self.socket = self
        self._connect_state = ""
        self._arrived = bytearray()
        self._out = bytearray()
        self._sequence = 0
        self._is_open = True
        self._failure: Unavailable | None = None
        self._silent = False

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._is_open = False

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        if statement.startswith("SET @slave_connect_state"):
            self._connect_state = str(values[0])
        elif not statement.startswith(("SET @", "SET SESSION net_write_timeout")):
            raise AssertionError(f"a statement that the script does not know: {statement}")
        return []

    def value(self, statement: str, *values: Any) -> Any:
        if "UNIX_TIMESTAMP" in statement:
            return self.world.source_clock()
        assert statement == "SELECT BINLOG_GTID_POS(%s, %s)"
        return self.server.gtid_at(*values)

    def variable(self, name: str) -> str | None:
        return {"binlog_checksum": "CRC32", "binlog_row_image": "FULL", "lower_case_table_names": "0"}[name]

    # --- a dump -----------------------------------------------------------------------------------------------------

    def dump(
        self, server_id: int, file: str, offset: int, gtids: bytes | None = None, *, statements: bool = False
    ) -> None:
        assert gtids is None
        self.world.coverage["outcome: session"] += 1
        self._pump(self._events(file, offset))

    def _events(self, name: str, offset: int) -> Iterator[tuple[float, bytes]]:
        log, skipped = self.server.log, 0
        number = next((i for i, file in enumerate(log.files) if file.name == name), 0)
        if not name and self._connect_state:
            skipped = MariaDbGtids.parse(self._connect_state).domains[0][1]
            number = self._file_of(skipped)
        yield 0.0, self._rotation(number, offset)
        if offset > 4:  # the server says once more how the file is written, as something that is in no file
            description = log.files[number].events[0].event
            yield 0.0, description[:13] + bytes(4) + description[17:]
        at_file = number
        for number, written in log.since(at_file, offset):
            if number != at_file:
                at_file = number
                yield written.at, self._rotation(number, 4)
            if written.gtid == 0 or written.gtid > skipped:
                yield written.at, written.event

    def _file_of(self, gtid: int) -> int:
        """The newest file before whose begin lies no transaction that comes after one."""
        files = [file for file in self.server.log.files if file.events[0].at <= self.world.time]
        return max(number for number, file in enumerate(files) if file.gtid <= gtid)

    def _rotation(self, number: int, offset: int) -> bytes:
        log = self.server.log
        body = struct.pack("<Q", offset) + log.files[number].name.encode()
        return log.event(Event.ROTATE, body, 0, ARTIFICIAL_FLAG)

    def _packet(self, content: bytes) -> bytes:
        self._sequence = (self._sequence + 1) % 256
        return struct.pack("<I", len(content))[:3] + bytes([self._sequence]) + content

    def _send(self, event: bytes) -> None:
        self._out += self._packet(b"\0" + event + struct.pack("<I", zlib.crc32(event)))

    def _pump(self, events: Iterator[tuple[float, bytes]]) -> None:
        """Send what there is in pieces of any size, heartbeats while there is nothing, until the session ends."""
        world = self.world
        if not self._is_open or self._fails():
            return
        piece = world.rng.choice([1, 9, 80, 700, 10_000, 10_000])
        while len(self._out) < piece:
            at, event = next(events, (1e9, b""))
            if at > world.time:
                if not self._out:
                    file, offset = self.server.written()
                    body = file.name.encode()
                    self._send(self.server.log.event(Event.HEARTBEAT, body, offset, ARTIFICIAL_FLAG))
                self._deliver(len(self._out))
                rest = chain([(at, event)] if event else [], events)
                world.later(min(1.0, at - world.time), partial(self._pump, rest))
                return
            self._send(event)
        self._deliver(piece)
        world.later(world.rng.choice([0.0, 0.0002, 0.001, 0.01]), lambda: self._pump(events))

    def _deliver(self, count: int) -> None:
        self._arrived += self._out[:count]
        del self._out[:count]

    def _fails(self) -> bool:
        server, world = self.server, self.world
        if not server.faults_left or not world.chance(0.03):
            return False
        server.faults_left -= 1
        kind = world.rng.choice(["cut", "cut", "says an error", "ends", "silent"])
        world.coverage[f"server: {kind}"] += 1
        if kind == "cut":  # at any byte
            self._deliver(world.rng.randint(0, len(self._out)))
            self._failure = Unavailable("the connection was lost, as planned")
        elif kind == "silent":
            self._silent = True
        else:
            self._deliver(len(self._out))
            error = b"\xff" + struct.pack("<H", 1053) + b"#08S01shutdown in progress"
            self._arrived += self._packet(error if kind == "says an error" else b"\xfe\0\0\2\0")
            self._failure = Unavailable("the server closed the connection")
        return True

    def has_arrived(self) -> bool:
        return bool(self._arrived) or self._failure is not None

    def holds(self) -> bool:
        """Nothing is read ahead of what is asked for."""
        return False

    def receive(self, size: int) -> bytes:
        since = self.world.time
        while not self.has_arrived():
            if self._silent and self.world.time - since > 20:  # in truth as long as PyMySQL waits
                raise Unavailable("timed out")
            self.world.wait()
        if not self._arrived and self._failure is not None:
            raise self._failure
        count = min(size, self.world.rng.choice([1, 20, 300, len(self._arrived), len(self._arrived)]))
        data = bytes(self._arrived[: max(1, count)])
        del self._arrived[: len(data)]
        return data


class Snapshot:
    """The state at a place of the log."""

    def __init__(self, dsn: MySqlServer, purpose: str, workers: int) -> None:
        self.guard = Connection(dsn, purpose)
        self.number = 0

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.guard.close()

    def begin(self, _: Sequence[Table]) -> Log:
        self.number = self.guard.server.committed()
        return _log_now(self.guard)


class Reader:
    """Copies tables of a snapshot in batches of any size, which takes its time."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._server = snapshot.guard.server
        self._number = snapshot.number

    def read(self, known: Sequence[Table], link: Link) -> Iterator[Copied]:
        oids = {v.shape.name: oid for oid, v in self._server.history.states[self._number].items()}
        numbered = [(oids[table.name.name], table) for table in known]
        return copy_tables(self._server, self._number, numbered, link, Copied)


def _log_now(connection: Connection, place: tuple[str, int] | None = None) -> Log:
    server = connection.server
    file, offset = server.written()
    gtids = server.gtid_at(file.name, offset) if server.flavor == "mariadb" else ""
    return Log(file.name, offset, gtids)


def _log_files(connection: Connection) -> dict[str, int]:
    server = connection.server
    now = server.world.time
    return {
        file.name: max(event.end for event in file.events if event.at <= now)
        for file in server.log.files
        if file.events[0].at <= now
    }


def _tables(connection: Connection, _: Any = None) -> list[Table]:
    server = connection.server
    return [table(version.shape) for version in server.history.states[server.committed()].values()]


def _refuse_prepared(connection: Connection, _: MySqlServer) -> None:
    server, now = connection.server, connection.server.world.time
    if any(at <= now < server.log.logged[number].at for number, at in server.log.prepared.items()):
        server.world.coverage["outcome: waits for a prepared transaction"] += 1
        raise UsageError("prepared, as planned")


_SHARED: dict[str, Any] = {"log_now": _log_now, "log_files": _log_files}
_IDENTITY: dict[str, Any] = {
    "server_identity": lambda _: "1",
    "has_gtids": lambda connection: connection.version.flavor == "mariadb",
}
ANSWERS: dict[str, Any] = {
    "Connection": Connection,
    "refuse_filters": lambda _: None,
    "check": lambda *_, **__: [],
    "user_tables": _tables,
    "named_tables": lambda connection, names: {t.name: t for t in _tables(connection) if t.name in set(names)},
    "refuse_prepared": _refuse_prepared,
    "grants": lambda _: [],
    "unreadable": lambda *_: {},
    "Snapshot": Snapshot,
    "SnapshotReader": Reader,
    "ServerConverter": lambda _: None,
}


@contextmanager
def scripted() -> Iterator[None]:
    """The source speaks with scripted servers."""
    with ExitStack() as stack:
        stack.enter_context(patch.multiple(source, **ANSWERS, **_SHARED, **_IDENTITY))
        stack.enter_context(patch.multiple(identity, log_files=_log_files, **_IDENTITY))
        stack.enter_context(patch.multiple(tables, **_SHARED))
        # Tables that come later are copied as those of a first start are: nobody here reads parts of tables.
        stack.enter_context(patch.object(MySqlSource, "_take_in", _adopt))
        stack.enter_context(patch.object(dump, "Connection", Connection))
        yield


def _adopt(source: MySqlSource) -> Iterator[Segment]:
    """Number the tables that came, which are copied while the stream waits: there is nobody to copy them by parts."""
    if source._tables.can_look:
        source._adopt()
    return iter(())
