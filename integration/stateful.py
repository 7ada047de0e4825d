"""Work and disturbances at random, on a real server, against `cdc run` as a process of its own.

At quiet points `cdc verify` must find nothing, while that process goes on; all the time the source may not have been
allowed to forget anything that the target does not have.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pymysql
from hypothesis import Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cdc.connectors import target_module
from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from cdc.errors import Unavailable
from cdc.jobs.control import ask
from cdc.model.position import Checkpoint
from cdc.options import Options
from cdc.runs import have_done
from cdc.whereabouts import control_socket
from integration.conftest import Database, MySqlDatabase, Replica, make_replica
from integration.processes import Process, start
from integration.recording import Recording, failing
from integration.rows_alike import assert_alike
from tests.seeds import SEED

keys = st.integers(1, 6)
texts = st.one_of(st.none(), st.sampled_from(["", "x", "NULL", 'a,b{}"\\', "é😀", "long " * 1000]))
numbers = st.one_of(st.none(), st.sampled_from(["0", "-1.50", "12345678.99"]))
_REFUSED = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.CheckViolation,
    psycopg.errors.NumericValueOutOfRange,
    pymysql.err.IntegrityError,
    pymysql.err.DataError,
)
_STREAMS_WITHIN = 120.0  # seconds


WORK = (
    "insert update update_what_leaves_the_large_value move swap delete several_tables keyless between_partitions "
    "savepoint truncate add_column drop_column new_table work_on_new_table idle insert update"
).split()
NOT_INSIDE = {"swap", "truncate", "add_column", "drop_column", "new_table"}
DISTURBANCES = "pause end_politely kill cut_connections choose_other_tables choose_other_tables".split()

OUTCOMES = (
    "insert;insert refused;update;untouched;move;swap;delete;several tables;keyless;partition;savepoint;truncate;"
    "add column;drop column;new table;work on new table;COMMIT;ROLLBACK;idle;pause;SIGTERM;SIGKILL;cut connections;"
    "without p;with p;verified"
).split(";")


class Disturbed(RuleBasedStateMachine):
    """Statements in and out of transactions, changes of shape, tables that come and go; and the process, disturbed."""

    server: PrivatePostgres | PrivateMySql
    databases = itertools.count()
    seen: ClassVar[Counter[str]] = Counter()
    rows_compared = 0
    outcomes: ClassVar[Sequence[str]] = OUTCOMES

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.numbers = itertools.count()
        self.in_transaction = False
        self.columns: list[str] = []
        self.extra: list[str] = []
        self.without_p = False
        self.calm = 0  # steps since the process was disturbed: starting it takes longer than all of them
        self.process: Process | None = None

    # --- what is there ----------------------------------------------------------------------------------------------

    @property
    def is_postgres(self) -> bool:
        return isinstance(self.server, PrivatePostgres)

    @initialize(full=st.booleans())
    def begin(self, full: bool) -> None:
        name = f"stateful_{os.getpid()}_{next(self.databases)}"  # on this machine: `Watch` looks for targets by name
        self.server.create_database(name)
        self.database: Any = Database(self.server, name) if self.is_postgres else MySqlDatabase(self.server, name)  # type: ignore[arg-type]
        self.connection: Any = self.database.connect()
        if self.is_postgres:
            statements = [
                "CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(10,2)); ALTER TABLE t ALTER v SET STORAGE EXTERNAL",
                "CREATE TABLE c (a int, b varchar(9000)); ALTER TABLE c REPLICA IDENTITY FULL",
                "CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); "
                "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (MINVALUE) TO (4); "
                "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (4) TO (MAXVALUE)",
                *(["ALTER TABLE t REPLICA IDENTITY FULL"] if full else []),
            ]
        else:
            statements = [
                "CREATE TABLE t (id int PRIMARY KEY, v longtext, n decimal(10,2))",
                "CREATE TABLE c (a int, b varchar(9000))",
                "CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY HASH (id) PARTITIONS 3",
            ]
        for statement in statements:
            self.run(statement)
        self.replica: Replica = make_replica(self.database, Path(self.folder.name))
        self.recording = Recording(self.database)
        self.start()

    def run(self, statement: str, *values: object) -> bool:
        """A statement; whether the server took it."""
        try:
            if self.is_postgres:
                with self.connection.transaction():
                    self.connection.execute(statement.encode(), values or None)
            else:
                with self.connection.cursor() as cursor:
                    cursor.execute(statement, values or None)
        except _REFUSED:
            return False
        return True

    def count_outcome(self, what: str, *, worked: bool = True) -> None:
        """Note that a rule had an outcome: the generator must not come to rest on a part of them."""
        self.seen[what if worked else f"{what} refused"] += 1
        self.calm += 1

    def disturbed(self, what: str) -> None:
        self.count_outcome(what)
        self.calm = 0

    # --- the process ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        exclude = ["--exclude", f"{'public' if self.is_postgres else self.database.name}.p"] if self.without_p else []
        ends = (self.database.dsn, self.replica.target, "--name", self.replica.options.name)
        self.log = open(Path(self.folder.name) / "log", "ab")  # noqa: SIM115
        self.process = start("run", *ends, *exclude, log=self.log)
        status = Path(f"{self.replica.path}.cdc.json")
        until = time.monotonic() + _STREAMS_WITHIN
        while True:
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < until, self.said()
            with suppress(OSError, ValueError):
                view = json.loads(status.read_bytes())
                if view["pid"] == self.process.pid and view["phase"] == "streaming":
                    return
            time.sleep(0.02)

    def said(self) -> str:
        return (Path(self.folder.name) / "log").read_text(errors="replace")[-4000:]

    def stop(self, number: signal.Signals) -> None:
        assert self.process is not None
        assert self.process.poll() is None, self.said()
        self.process.send_signal(number)
        code = self.process.wait(60)
        self.log.close()
        assert code == (0 if number == signal.SIGTERM else -number), self.said()
        self.verify_checkpoint()

    def verify_checkpoint(self) -> None:
        """A-05, B-10: the source may forget no more than the target has; a position is never inside a transaction."""
        checkpoint = self.checkpoint()
        if isinstance(self.database, Database):
            assert self.confirmed() <= checkpoint.position.order
            return
        place = json.loads(checkpoint.state)["place"]
        events = self.database.execute(
            f"SHOW BINLOG EVENTS IN '{place['file']}' FROM {max(4, place['offset'])} LIMIT 1"
        )
        assert not events or events[0][2].lower() in BETWEEN_TRANSACTIONS, events

    def checkpoint(self) -> Checkpoint:
        module, path = target_module(self.replica.target)
        checkpoint: Checkpoint | None = module.read_checkpoint(path, self.replica.options.name)
        assert checkpoint is not None
        return checkpoint

    def confirmed(self) -> int:
        found = self.database.execute(
            "SELECT (confirmed_flush_lsn - '0/0'::pg_lsn)::int8 FROM pg_replication_slots "
            f"WHERE slot_name = 'cdc_{self.replica.options.name}'"
        )
        return int(found[0][0])

    # --- work -------------------------------------------------------------------------------------------------------

    @rule(what=st.sampled_from(WORK), key=keys, to=keys, text=texts, number=numbers)
    def work(self, what: str, key: int, to: int, text: str | None, number: str | None) -> None:
        """One of many things, all as likely: rules of their own would be switched off together for whole examples."""
        if what in NOT_INSIDE and self.in_transaction:
            self.end_transaction("COMMIT")
        if what == "savepoint" and not self.in_transaction:
            self.begin_transaction()
        if (what == "drop_column" and not self.columns) or (what == "work_on_new_table" and not self.extra):
            self.work("add_column" if what == "drop_column" else "new_table", key, to, text, number)
            return
        if what == "new_table" and len(self.extra) == 3:
            what = "work_on_new_table"
        getattr(self, what)(key, to, text, number)

    @precondition(lambda self: self.calm >= 4)
    @rule(what=st.sampled_from(DISTURBANCES), wait=st.sampled_from([0.0, 0.05, 0.4]))
    def disturb(self, what: str, wait: float) -> None:
        getattr(self, what)(wait)

    def insert(self, key: int, to: int, text: str | None, number: str | None) -> None:
        self.count_outcome("insert", worked=self.run("INSERT INTO t (id, v, n) VALUES (%s, %s, %s)", key, text, number))

    def update(self, key: int, to: int, text: str | None, number: str | None) -> None:
        self.count_outcome("update", worked=self.run("UPDATE t SET v = %s WHERE id = %s", text, key))

    def update_what_leaves_the_large_value(self, key: int, to: int, text: str | None, number: str | None) -> None:
        self.count_outcome("untouched", worked=self.run("UPDATE t SET n = %s", number))

    def move(self, key: int, to: int, text: str | None, number: str | None) -> None:
        self.count_outcome("move", worked=self.run("UPDATE t SET id = %s WHERE id = %s", to, key))

    def swap(self, key: int, to: int, text: str | None, number: str | None) -> None:
        self.run_plain("BEGIN")
        for old, new in ((key, -key - 100), (to, key), (-key - 100, to)):
            self.run(f"UPDATE t SET id = {new} WHERE id = {old}")
        self.run_plain("COMMIT")
        self.count_outcome("swap")

    def delete(self, key: int, to: int, text: str | None, number: str | None) -> None:
        self.count_outcome("delete", worked=self.run("DELETE FROM t WHERE id %% 10 = %s", key))

    def several_tables(self, key: int, to: int, text: str | None, number: str | None) -> None:
        began = not self.in_transaction
        if began:
            self.run_plain("BEGIN")
        self.run("INSERT INTO c VALUES (%s, %s), (%s, %s)", key, text, key, text)
        self.run("INSERT INTO p VALUES (%s, %s)", key, text)
        self.run("UPDATE t SET n = 1 WHERE id = %s", key)
        if began:
            self.run_plain("COMMIT")
        self.count_outcome("several tables")

    def keyless(self, key: int, to: int, text: str | None, number: str | None) -> None:
        one = "ctid = (SELECT min(ctid) FROM c WHERE a = %s)" if self.is_postgres else "a = %s LIMIT 1"
        self.run("UPDATE c SET b = 'u' WHERE " + one, key)
        self.count_outcome("keyless", worked=self.run("DELETE FROM c WHERE " + one, key))

    def between_partitions(self, key: int, to: int, text: str | None, number: str | None) -> None:
        self.count_outcome("partition", worked=self.run("UPDATE p SET id = 10 - id WHERE id = %s", key))

    def savepoint(self, key: int, to: int, text: str | None, number: str | None) -> None:
        self.run_plain("SAVEPOINT a")
        self.run("INSERT INTO t (id) VALUES (%s)", key + 50)
        self.run("DELETE FROM c")
        self.run_plain("ROLLBACK TO SAVEPOINT a")
        self.count_outcome("savepoint")

    def truncate(self, key: int, to: int, text: str | None, number: str | None) -> None:
        self.count_outcome("truncate", worked=self.run(f"TRUNCATE {'tcp'[key % 3]}"))

    def add_column(self, key: int, to: int, text: str | None, number: str | None) -> None:
        self.columns.append(f"x{next(self.numbers)}")
        kind = ("int", "int DEFAULT 7", "varchar(20) DEFAULT 'd'", "date")[key % 4]
        self.run(f"ALTER TABLE t ADD COLUMN {self.columns[-1]} {kind}")
        self.count_outcome("add column")
        self.settle()

    def drop_column(self, key: int, to: int, text: str | None, number: str | None) -> None:
        self.run(f"ALTER TABLE t DROP COLUMN {self.columns.pop()}")
        self.count_outcome("drop column")
        self.settle()

    def new_table(self, key: int, to: int, text: str | None, number: str | None) -> None:
        name = f"extra{next(self.numbers)}"
        self.run(f"CREATE TABLE {name} (id int PRIMARY KEY, v text)")
        self.run(f"INSERT INTO {name} VALUES (1, 'a'), (2, 'b'), (3, NULL)")
        self.extra.append(name)
        self.count_outcome("new table")

    def work_on_new_table(self, key: int, to: int, text: str | None, number: str | None) -> None:
        name = self.extra[key % len(self.extra)]
        self.run(f"UPDATE {name} SET v = %s, id = id + 3 WHERE id < 10", text)
        self.count_outcome("work on new table")

    @precondition(lambda self: not self.in_transaction)
    @rule()
    def begin_transaction(self) -> None:
        self.run_plain("BEGIN")
        self.in_transaction = True

    @precondition(lambda self: self.in_transaction)
    @rule(how=st.sampled_from(["COMMIT", "COMMIT", "ROLLBACK"]))
    def end_transaction(self, how: str) -> None:
        self.run_plain(how)
        self.in_transaction = False
        self.count_outcome(how)

    def run_plain(self, statement: str) -> None:
        if self.is_postgres:
            self.connection.execute(statement)
        else:
            self.run(statement)

    # --- disturbances -----------------------------------------------------------------------------------------------

    def idle(self, key: int, to: int, text: str | None, number: str | None) -> None:
        time.sleep(0.3)
        self.count_outcome("idle")

    def pause(self, wait: float) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        self.process.send_signal(signal.SIGCONT)
        self.disturbed("pause")

    def end_politely(self, wait: float) -> None:
        self.stop(signal.SIGTERM)
        self.start()
        self.disturbed("SIGTERM")

    def kill(self, wait: float) -> None:
        time.sleep(wait)
        self.stop(signal.SIGKILL)
        self.start()
        self.disturbed("SIGKILL")

    def cut_connections(self, wait: float) -> None:
        if self.is_postgres:
            self.database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name LIKE 'cdc %'"
            )
        else:
            for (number,) in self.database.execute(
                "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"
            ):
                with suppress(pymysql.err.MySQLError):
                    self.database.execute(f"KILL {number}")
        self.disturbed("cut connections")

    def choose_other_tables(self, wait: float) -> None:
        self.stop(signal.SIGTERM)
        self.without_p = not self.without_p
        self.start()
        self.disturbed("without p" if self.without_p else "with p")

    # --- what must hold ---------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.in_transaction)
    @rule()
    def settle(self) -> None:
        """Everything is equal, at one place of the log for each part, while the process goes on."""
        self.run("DELETE FROM t WHERE id = -1")
        self.run("INSERT INTO t (id) VALUES (-1)")  # a new shape arrives with the next row
        self.run("DELETE FROM t WHERE id = -1")
        found = self.verify()
        assert found["identical"], f"{found['tables']}\n{self.said()}"
        followed = {table["name"] for table in found["tables"]}
        assert {"t", "c"} <= followed
        type(self).rows_compared += sum(table["rows"] for table in found["tables"])
        self.count_outcome("verified")

    def verify(self) -> dict[str, Any]:
        """Once what has come by now has been copied; a connection that is cut just now is no answer."""
        arguments = {"tables": [], "exclude": [], "sample": 1.0, "max_rate": None, "with_values": True}
        until = time.monotonic() + _STREAMS_WITHIN
        while True:
            assert self.process is not None
            assert self.process.poll() is None, self.said()
            try:
                found = have_done(
                    self.database.dsn,
                    self.replica.target,
                    Options(name=self.replica.options.name),
                    "verify",
                    arguments,
                    lambda _: None,
                )
            except Unavailable:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
                continue
            if not any(table["trouble"] for table in found["tables"]) or time.monotonic() > until:
                return found
            time.sleep(0.2)

    def teardown(self) -> None:
        if not hasattr(self, "connection"):
            return
        failure = failing()
        try:
            if self.in_transaction:
                self.run_plain("COMMIT")
            with self.recording.closing(failure):
                if failure is None:
                    self.settle()
                    self.stop(signal.SIGTERM)
                    assert_alike(self.database, self.replica.path, *(["p"] if self.without_p else []))
        finally:
            if self.process is not None and self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.connection.close()
            self.database.remove()
            self.folder.cleanup()


BETWEEN_TRANSACTIONS = {
    "gtid",
    "anonymous_gtid",
    "gtid_tagged",
    "rotate",
    "stop",
    "format_desc",
    "previous_gtids",
    "gtid_list",
    "binlog_checkpoint",
    "start_encryption",
}


class Watch:
    """All the time: what the slot may forget is in the target (A-05), by what the process itself says."""

    def __init__(self, server: PrivatePostgres) -> None:
        self.looks = 0
        self._server = server
        self._ended = threading.Event()
        self._failures: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        assert not self._failures, self._failures[0]

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            rows = self._server.execute(
                "SELECT slot_name::text, (confirmed_flush_lsn - '0/0'::pg_lsn)::int8 FROM pg_replication_slots "
                "WHERE slot_name LIKE 'cdc_stateful%' AND NOT temporary AND confirmed_flush_lsn IS NOT NULL"
            )
            for slot, confirmed in rows:
                name = str(slot).removeprefix("cdc_")
                for target in Path(tempfile.gettempdir()).glob(f"*/{name}.duckdb"):
                    with suppress(OSError, Unavailable):
                        now = ask(control_socket(f"duckdb:{target}", name), "position", {}, lambda _: None)
                        if now is not None and now["order"]:  # 0: a first copy has not begun
                            self.looks += 1
                            if confirmed > now["order"]:
                                self._failures.append(
                                    f"{slot} has confirmed {confirmed}, the target has {now['order']}"
                                )


def work_at_random(kind: type[Disturbed], server: PrivatePostgres | PrivateMySql, steps: int, outcomes: int) -> None:
    """Examples until there were so many steps with so many different outcomes; the seed is printed.

    `CDC_SEED` repeats a run, `CDC_STATEFUL_STEPS` makes it a long one, in which every outcome has to come up.
    """
    if "CDC_STATEFUL_STEPS" in os.environ:
        outcomes = len(kind.outcomes)
    steps = int(os.environ.get("CDC_STATEFUL_STEPS", steps))
    machine = type(kind.__name__, (kind,), {"server": server, "seen": Counter()})
    print(f"CDC_SEED={SEED}")
    rounds = 0
    while sum(machine.seen.values()) < steps or sum(machine.seen[what] > 0 for what in kind.outcomes) < outcomes:
        assert rounds < 8 + steps // 50, f"too few outcomes come up: {machine.seen} (CDC_SEED={SEED})"
        # The first example of each round is the simplest one that there is.
        chosen = settings(max_examples=4, stateful_step_count=25, deadline=None, phases=[Phase.generate], database=None)
        run_state_machine_as_test(seed(SEED + rounds)(machine), settings=chosen)
        rounds += 1
    print(f"{rounds} rounds, {machine.rows_compared} rows compared, {dict(machine.seen)}")
