"""A PostgreSQL server that follows a script, as far as the source and its stream can see one."""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from zlib import crc32

import psycopg
from psycopg import pq, sql

from cdc.errors import Unavailable
from cdc.model.change import Op
from cdc.model.position import Checkpoint, Position
from cdc.options import KeptOptions
from cdc.source import Link
from cdc.sources.postgres import identity, membership, shapes, source
from cdc.sources.postgres.catalog import Table
from cdc.sources.postgres.copy import Copied
from cdc.sources.postgres.fingerprint import Fingerprint, Look
from cdc.sources.postgres.identity import Server, Slot
from cdc.sources.postgres.position import lsn, parse_lsn, write_lsn
from cdc.sources.postgres.source import PostgresSource, Settings
from cdc.sources.postgres.state import SourceState
from cdc.sources.postgres.types import TypeInfo
from tests.simulation.history import History, Shape, Version
from tests.simulation.pgoutput import OIDS, SCHEMA, Logged, data, describe, keepalive, table, write_log
from tests.simulation.snapshot import copy_tables
from tests.simulation.targets import order
from tests.simulation.world import World

_NOTE = b"M" + struct.pack(">BQ", 0, 0) + b"x\0" + struct.pack(">I", 0)  # not transactional
_TYPES = {oid: TypeInfo(oid, "", 0, 0, -1, 0, ",") for oid in OIDS.values()}


class PostgresServer:
    """One database with a history, which goes on as time does.

    Attributes:
        confirmed: the place up to which the slot counts all as durable.
        faults_left: how many more times it ends a session or refuses one.
    """

    text, parameters = "simulated", {}  # type: ignore[var-annotated]

    def __init__(self, world: World, size: int, faults: int) -> None:
        self.world = world
        self.history = History(world.rng, size, statements_commit=False)
        self.log: list[Logged] = write_log(world.rng, self.history)
        self.confirmed: int | None = None
        self.publications: dict[str, str] = {}
        self.faults_left = faults
        self.durable: Callable[[], int] = lambda: 0  # what the target has
        self._written = 0

    def __str__(self) -> str:
        return "postgresql://simulated/s"

    # --- what is true -----------------------------------------------------------------------------------------------

    def committed(self) -> int:
        """How many transactions are committed now."""
        return sum(entry.at <= self.world.time for entry in self.log)

    def number_at(self, position: int) -> int:
        """How many transactions end at or before a position."""
        return sum(entry.end <= position for entry in self.log)

    def now(self) -> int:
        """How far the log is written: somewhere before the next commit, since others write as well."""
        count = self.committed()
        at = self.log[count - 1].end if count else self.log[0].commit - 100
        most = self.log[count].commit - at if count < len(self.log) else 5000
        self._written = max(self._written, at + (self.world.rng.randint(0, most) if self.world.chance(0.5) else 0))
        return self._written

    def is_over(self) -> bool:
        return self.committed() == len(self.log)

    def expected(self, checkpoint: Checkpoint) -> dict[str, tuple[list[str], list[tuple[Any, ...]]] | None]:
        """Columns and rows of each table that a target with a checkpoint must have; None: it is not copied yet."""
        found: dict[str, tuple[list[str], list[tuple[Any, ...]]] | None] = {}
        number = self.number_at(checkpoint.position.order)
        for oid, entry in SourceState.load(checkpoint.state).tables.items():
            start = self.number_at(entry.start)
            version: Version = self.history.states[max(start, number)][oid]
            shape = version.described if version.described_in >= start else self.history.states[start][oid].shape
            # The catalog may have shown a later one before any row came.
            had = entry.schema.table.name, [column.name for column in entry.schema.columns]
            for state in self.history.states[max(start, version.described_in) : number + 1]:
                later = state[oid].shape
                shape = later if had == (later.name, [column.name for column in later.columns]) else shape
            rows = [shape.row(values) for values in version.rows]
            known = [c.name for c in shape.columns], sorted(rows, key=order)
            found[f"{SCHEMA}.{shape.name}"] = known if entry.copied else None
        return found

    def waiting_since(self, _: Checkpoint, order: int) -> float | None:
        return next((entry.at for entry in self.log if entry.end > order and entry.at <= self.world.time), None)

    def has_all(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.position.order >= self.log[-1].end

    def check_changes(self, changes: list[tuple[int, int, Op, int]], checkpoint: Checkpoint) -> None:
        """Every change came once, by the commit and the place in its transaction (A-66)."""
        ops = {"insert": Op.INSERT, "update": Op.UPDATE, "delete": Op.DELETE, "truncate": Op.TRUNCATE}
        tables = SourceState.load(checkpoint.state).tables
        found: list[tuple[int, int, Op, int]] = []
        for entry, transaction in zip(self.log, self.history.transactions, strict=True):
            ordinal = 0
            for op in transaction.ops if transaction.committed else ():
                for shape in op.shapes if op.what in ops else ():
                    if entry.commit >= tables[shape.oid].start:
                        found.append((entry.commit, ordinal, ops[op.what], shape.oid))
                    ordinal += 1
        assert sorted(changes) == found

    def source(self, budget: int) -> PostgresSource:
        settings = Settings("s", "cdc_s", KeptOptions(include_keyless=True), workers=1, budget=budget)
        return PostgresSource(self, settings, self.world)  # type: ignore[arg-type]

    # --- what the source sees ---------------------------------------------------------------------------------------

    def refuses(self) -> bool:
        if self.faults_left and self.world.chance(0.08):
            self.faults_left -= 1
            self.world.coverage["server: refuses"] += 1
            return True
        return False

    def versions(self, number: int) -> dict[int, Version]:
        return self.history.states[number]


class Session:
    """One connection: SQL, as far as the source speaks it, or a replication session as libpq has it."""

    adapters = psycopg.adapters
    connection = None

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.world = server.world
        self.snapshot: int | None = None
        self.info = SimpleNamespace(server_version=160000, backend_pid=1)
        self.pgconn = self.socket = self  # libpq's own view of it
        self.nonblocking = 0
        self._wire: deque[bytes | None] = deque()  # has arrived; None is the end
        self._buffer: deque[bytes | None] = deque()  # libpq has read it
        self._dead: Exception | None = None
        self._end: Any = None
        self._is_ended = False
        self._is_open = True
        self._described: dict[int, Shape] = {}
        self._next: Logged | None = None  # the transaction that is being sent, or waited for

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._is_open = False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        yield

    def execute(self, query: Any, parameters: Any = None) -> Any:
        text = query.as_string(None) if isinstance(query, sql.Composable) else str(query)
        rows: list[tuple[object, ...]] = []
        publications = self.server.publications
        if text.startswith("SELECT pubname"):
            rows = [(name,) for name, owner in publications.items() if owner == parameters[1]]
        elif text.startswith("SELECT pg_drop_replication_slot"):
            self.server.confirmed = None
        elif text.startswith("SELECT r.prrelid"):
            rows = [(table.schema.identity, name) for name in publications for table in _tables(self)]
        elif text.startswith("SELECT safe_wal_size"):
            rows = [(None,)]
        elif text.startswith("SELECT pg_logical_emit_message"):
            self.world.coverage["outcome: heartbeat"] += 1
        elif (match := re.match(r'(CREATE|DROP|COMMENT ON) PUBLICATION "(\w+)"', text)) is not None:
            if match[1] == "DROP":
                del publications[match[2]]
            else:
                publications[match[2]] = text.split("'")[1] if match[1] == "COMMENT ON" else ""
        elif text.startswith("SELECT pg_current_wal_insert_lsn"):
            rows = [(write_lsn(self.server.now()),) * 2]
        elif text != "COMMIT" and not text.startswith("SET TRANSACTION"):
            raise AssertionError(f"a statement that the script does not know: {text}")
        return SimpleNamespace(fetchall=lambda: rows, fetchone=lambda: rows[0] if rows else None)

    # --- replication ------------------------------------------------------------------------------------------------

    def run(self, command: bytes) -> Any:
        match = re.search(r"LOGICAL (\w+/\w+) ", command.decode())
        assert match is not None
        assert self.server.confirmed is not None
        if self.server.faults_left and self.world.chance(0.05):  # a session that was just killed lingers
            self.server.faults_left -= 1
            self.world.coverage["server: slot busy"] += 1
            self._end = psycopg.errors.ObjectInUse('replication slot "cdc_s" is active for PID 1')
            return self.get_result()
        start = max(parse_lsn(match[1]), self.server.confirmed)  # whatever was asked for
        self.world.coverage["outcome: session"] += 1
        self._pump(self._messages(start), 0)
        return SimpleNamespace(status=pq.ExecStatus.COPY_BOTH)

    def _messages(self, start: int) -> Iterator[tuple[Logged, int, bytes]]:
        for entry in self.server.log:
            if entry.commit < start:
                continue
            for record in entry.records:
                for shape in record.shapes:
                    if self._described.get(shape.oid) != shape or self.world.chance(0.05):
                        self._described[shape.oid] = shape
                        yield entry, record.place, describe(shape)
                if self.world.chance(0.03):  # not part of the transaction that it stands in
                    yield entry, record.place, _NOTE
                yield entry, record.place, record.body

    def _pump(self, messages: Iterator[tuple[Logged, int, bytes]], silent: int) -> None:
        """Send what there is in pieces of any size, with keepalives between, until the session ends."""
        server, world = self.server, self.world
        for _ in range(world.rng.choice([1, 1, 3, 10, 100])):
            entry, place, body = next(messages, (None, 0, b""))
            self._next = entry
            if not self._is_open or self._fails():
                return
            if entry is None or entry.at > world.time:
                if silent == 0 or world.chance(0.5):
                    self._say(reply=world.chance(0.3))
                if world.chance(0.1):  # somebody's message, outside of any transaction
                    self._wire.append(data(server.now(), world.source_clock(), _NOTE))
                quiet = entry.at - world.time if entry is not None else 1e9
                rest = chain([(entry, place, body)] if entry is not None else [], messages)
                world.later(min(quiet, world.rng.choice([0.2, 2.0, 8.0])), partial(self._pump, rest, silent + 1))
                return
            if world.chance(0.02):
                world.coverage["server: keepalive inside a transaction"] += 1
                self._say(reply=world.chance(0.5))
            self._wire.append(data(place, world.source_clock(), body))
        world.later(world.rng.choice([0.0, 0.0002, 0.001, 0.01]), lambda: self._pump(messages, 0))

    def _say(self, *, reply: bool) -> None:
        """A keepalive: all that lies before its place was sent. Inside a transaction that is its commit (A-06)."""
        world, entry = self.world, self._next
        sent = entry.commit if entry is not None and entry.at <= world.time else self.server.now()
        self._wire.append(keepalive(sent, world.source_clock(), reply=reply))

    def _fails(self) -> bool:
        """End the session, now and then: in one of the ways that libpq has for it."""
        if not self.server.faults_left or not self.world.chance(0.02):
            return False
        self.server.faults_left -= 1
        kind = self.world.rng.choice(["cut", "cut inside a message", "terminated", "shut down"])
        self.world.coverage[f"server: {kind}"] += 1
        if kind.startswith("cut"):
            # What stands in the socket may be lost as well; half a message never reaches anybody.
            for _ in range(self.world.rng.randint(0, len(self._wire)) if self._wire else 0):
                self._wire.pop()
            self._dead = psycopg.OperationalError("server closed the connection unexpectedly")
        else:
            self._wire.append(None)
            self._is_ended = True
            self._end = None
            if kind == "terminated":
                self._end = psycopg.errors.AdminShutdown("terminating connection due to administrator command")
        return True

    def has_arrived(self) -> bool:
        return bool(self._wire) or self._dead is not None or self._is_ended

    def holds(self) -> bool:
        """Whether libpq has read messages that nobody took yet, which no socket shows."""
        return bool(self._buffer)

    def consume_input(self) -> None:
        if not self._wire and self._dead is not None:
            raise self._dead
        for _ in range(self.world.rng.randint(1, len(self._wire)) if self._wire else 0):
            self._buffer.append(self._wire.popleft())

    def get_copy_data(self, _: int) -> tuple[int, bytes]:
        if not self._buffer:
            return 0, b""
        message = self._buffer.popleft()
        return (-1, b"") if message is None else (len(message), message)

    def get_result(self) -> Any:
        if self._end is None:
            return SimpleNamespace(status=pq.ExecStatus.COMMAND_OK)
        return SimpleNamespace(status=pq.ExecStatus.FATAL_ERROR, error=self._end)

    def put_copy_data(self, message: bytes) -> None:
        """Feedback: what may be thrown away must be in the target (A-05)."""
        kind, _, flushed, _, _, ask = struct.unpack(">cQQQqB", message)
        assert kind == b"r"
        if not self._is_open or self._dead is not None or self.world.is_dead:
            raise psycopg.OperationalError("the connection is closed")
        durable = self.server.durable()
        assert flushed <= durable, f"acknowledged {write_lsn(flushed)}, but the target has {write_lsn(durable)}"
        if self.server.confirmed is not None and flushed > self.server.confirmed:
            self.server.confirmed = flushed
            self.world.coverage["outcome: acknowledged"] += 1
        if ask:
            self.world.later(0.001, self._answer)

    def _answer(self) -> None:
        """What was asked for comes with what the server has read by then, which is all that it sent."""
        if self._is_open and self._dead is None and None not in self._wire:
            self._say(reply=False)

    def flush(self) -> None: ...


class Reader:
    """Copies tables of a snapshot in batches of any size, which takes its time."""

    def __init__(self, dsn: PostgresServer, _: str, snapshot: str, workers: int) -> None:
        self._server = dsn
        self._number = int(snapshot)

    def read(self, tables: Sequence[Table], link: Link) -> Iterator[Copied]:
        numbered = [(table.schema.identity, table) for table in tables]
        return copy_tables(self._server, self._number, numbered, link, Copied)


# --- the functions of the source that speak SQL, by what the script answers -----------------------------------------


def _connect(dsn: PostgresServer, _: str) -> Session:
    if dsn.refuses():
        raise Unavailable("refused, as planned")
    return Session(dsn)


def _identify(replication: Session, _: Session) -> Server:
    server = replication.server
    return Server("1", 1, "1", lsn(server.now()), server.world.source_clock())


def _read_slot(session: Session, _: str) -> Slot | None:
    confirmed = session.server.confirmed
    return Slot("pgoutput", "1", "reserved", confirmed, None) if confirmed is not None else None


def _create_slot(
    replication: Session, _name: str, _other: Session, _link: Link, *, temporary: bool
) -> tuple[str, Position]:
    server = replication.server
    number = server.committed()
    point = server.now()
    if not temporary:
        assert server.confirmed is None
        server.confirmed = point
    return str(number), lsn(point)


def _begin_snapshot(session: Session, snapshot: str) -> None:
    session.snapshot = int(snapshot)


def _tables(session: Session, oids: Any = None) -> list[Table]:
    number = session.snapshot if session.snapshot is not None else session.server.committed()
    versions = session.server.versions(number)
    return [table(v.shape) for oid, v in versions.items() if oids is None or oid in oids]


def _missing_values(session: Session, oid: int, _: object) -> dict[int, dict[int, str]]:
    shape = session.server.versions(session.server.committed())[oid].shape
    return {column.number: {oid: column.fill} for column in shape.columns if column.fill is not None}


def _look(session: Session, oids: Any) -> Look:
    seen = {t.schema.identity: t.relation for t in _tables(session, oids)}
    tables = {oid: Fingerprint(f"{oid}:1", 0, crc32(repr((t.name, t.columns)).encode()) | 1) for oid, t in seen.items()}
    return Look(tables, uses=dict.fromkeys(tables, frozenset()))


ANSWERS: dict[str, Any] = {
    "connect": _connect,
    "connect_replication": _connect,
    "identify": _identify,
    "check": lambda *_, **__: [],
    "user_tables": _tables,
    "tables_by_oid": lambda session, oids: {t.schema.identity: t for t in _tables(session, oids)},
    "look": _look,
    "create_slot": _create_slot,
    "begin_snapshot": _begin_snapshot,
    "is_at_work": lambda *_: True,
    "end_lost_session": lambda *_: None,
    "holder": lambda *_: "a session that just ended",
    "verify_witness": lambda *_: None,
    "shapes": lambda _, oids: dict.fromkeys(oids, ""),
    "SnapshotReader": Reader,
}
_SHAPES = {
    "look": _look,
    "tables_by_oid": ANSWERS["tables_by_oid"],
    "dropped_columns": lambda *_: (),
    "type_infos": lambda _: _TYPES,
    "missing_values": _missing_values,
}
_SHARED = {
    "read_slot": _read_slot,
    "publication_fingerprint": lambda session, names: {n: "1" for n in names if n in session.server.publications},
}


@contextmanager
def scripted() -> Iterator[None]:
    """The source speaks with scripted servers."""
    with ExitStack() as stack:
        stack.enter_context(patch.multiple(source, **ANSWERS, **_SHARED))
        stack.enter_context(patch.multiple(identity, **_SHARED))
        both = {name: {**ANSWERS, **_SHARED}[name] for name in ("publication_fingerprint", "tables_by_oid", "look")}
        stack.enter_context(patch.multiple(membership, **both))
        stack.enter_context(patch.multiple(shapes, **_SHAPES))
        for module in ("stream", "conversation"):
            stack.enter_context(patch(f"cdc.sources.postgres.{module}.server_error", lambda result: result.error))
        yield
