"""Bad networks: connections are cut at any byte, hang, are slow or come and go; the copy comes out equal.

`CDC_PROXY_POINTS=1000` (or `all`) sweeps more places, `CDC_PROXY_SECONDS=60` keeps slow and flapping lines up for longer,
`CDC_SEED` repeats a run.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pymysql
import pytest

from cdc.engine.handoff import Handoff
from cdc.model.selection import Selection
from cdc.sources.postgres import identity
from cdc.sources.postgres.connection import Dsn, connect, connect_replication
from cdc.sources.postgres.slot import create_slot
from cdc.targets.duckdb.target import DuckDbTarget
from integration.conftest import Database, MySqlDatabase
from integration.line import Line, Running, through, write
from integration.processes import cdc
from integration.proxy import FaultProxy, Way
from tests.seeds import SEED, chosen_at_random

POINTS = os.environ.get("CDC_PROXY_POINTS", "6")
SECONDS = float(os.environ.get("CDC_PROXY_SECONDS", "1.5"))
# What a session says when one of its phases begins.
PHASES = [
    b"IDENTIFY_SYSTEM",
    b"CREATE PUBLICATION",
    b"CREATE_REPLICATION_SLOT",
    b"COPY (SELECT",
    b"START_REPLICATION",
    b"CONSISTENT SNAPSHOT",
    b"SELECT `id`",
    b"_heartbeat_period",
]


def session(line: Line) -> None:
    """All that a pipeline ever does: copy, end, go on from the checkpoint."""
    line.come_through()
    write(line.replica.database)
    line.come_through()


def cut_points(way: Way, count: int, rng: random.Random) -> list[int]:
    """Places in a way's bytes: where connections and phases begin, and any others."""
    assert way.recorded is not None
    if count >= way.passed:
        return list(range(1, way.passed))
    begins = [begin + 1 for begin in way.begins]
    begins += [at + 3 for phase in PHASES if (at := way.recorded.find(phase)) >= 0]
    chosen = rng.sample(begins, min(count // 2, len(begins)))
    return sorted({*chosen, *(rng.randrange(1, int(way.passed * 0.95)) for _ in range(count - len(chosen)))})


@pytest.mark.long
def test_cut_at_every_byte(bad_source: Database | MySqlDatabase, tmp_path: Path) -> None:
    """E-16, B-07, B-08, A-32: a connection is cut after byte N, with RST or FIN, of a session that copies and follows."""
    rng = chosen_at_random()
    with FaultProxy(bad_source.server.port, records=True) as whole:
        line = Line.make(whole, bad_source, tmp_path)
        session(line)
        line.end()
    count = 1 << 40 if POINTS == "all" else int(POINTS)
    points = [(True, at) for at in cut_points(whole.down, -(-count * 3 // 5), rng)]
    points += [(False, at) for at in cut_points(whole.up, count * 2 // 5, rng)]
    cuts = 0
    for number, (is_down, at) in enumerate(points):
        with FaultProxy(bad_source.server.port) as proxy:
            line = Line.make(proxy, bad_source, tmp_path)
            way = proxy.down if is_down else proxy.up
            way.cut_after, way.by_reset = at, number % 2 == 0
            try:
                session(line)
                line.end()
            except BaseException as error:
                error.add_note(f"cut {'down' if is_down else 'up'} after byte {at}, CDC_SEED={SEED}")
                raise
            cuts += way.cuts
    assert cuts > len(points) / 2  # sessions differ in length


def test_a_session_that_is_left_in_the_middle_of_an_answer(database: Database) -> None:
    """E-16: whatever has been read of it, the session is closed, and that is all."""
    dsn = Dsn.parse(database.dsn)
    with connect_replication(dsn, "cdc") as session:
        session.run(b"COPY (SELECT generate_series(1, 1000000)) TO STDOUT")
    assert session.closed


def test_a_first_start_says_it_at_once(bad_source: Database | MySqlDatabase, proxy: FaultProxy, tmp_path: Path) -> None:
    """E-11, E-16: one message, exit code 1, and no traceback, whether the line is cut, hangs or is refused."""
    line = Line.make(proxy, bad_source, tmp_path)
    dsn = line.dsn + "&connect_timeout=3"
    for fault in ("cut", "hole", "refuse"):
        proxy.down.is_hole = False
        if fault == "cut":
            proxy.down.cut_after = proxy.down.passed + 300
        elif fault == "hole":
            proxy.down.hole_after = proxy.down.passed + 1
        else:
            proxy.refuse()
        done = cdc("run", dsn, line.replica.target, "--name", line.replica.options.name, timeout=120)
        assert done.returncode == 1, (fault, done.stderr)
        assert "Traceback" not in done.stderr
        assert done.stderr.count("Error: ") == done.stderr.count("Hint: ") == 1, (fault, done.stderr)
    assert (proxy.down.cuts, proxy.down.holes) == (1, 1)


@pytest.mark.usefixtures("little_patience")
@pytest.mark.parametrize("kind", ["hole", "lost", "down", "up"])
def test_dead_line(bad_source: Database | MySqlDatabase, proxy: FaultProxy, tmp_path: Path, kind: str) -> None:
    """B-12, E-16: nothing passes, or a router forgets, or one side has said FIN: it is noticed, and opened again.

    The server knows nothing of it: the session that it still has must not keep the new one out (A-10).
    """
    line = Line.make(proxy, bad_source, tmp_path)
    line.dsn += "&connect_timeout=3"
    line.come_through()
    running = Running.start(line.pipeline(until_caught_up=False))
    running.until_streaming()
    write(bad_source)
    running.until_applied(5)
    if kind == "hole":
        time.sleep(SECONDS)
        assert not running.troubled, "an idle line was taken for a dead one"
        with proxy.hole():
            write(bad_source)
            running.until(lambda: running.phase == "waiting", "noticed")
            tried = proxy.connections
            running.until(lambda: proxy.connections > tried, "tried again while nothing passes")
    elif kind == "lost":
        proxy.lose()
        write(bad_source)
    else:
        proxy.close_half(proxy.down if kind == "down" else proxy.up)
        write(bad_source)
    running.until_applied(10)
    running.stop()
    assert running.failures == []
    assert proxy.connections > 2
    line.replica.catch_up()
    line.end()


def write_much(database: Database | MySqlDatabase, transactions: int) -> None:
    """6 MB each, of which a connection can hold a few."""
    for number in range(1, transactions + 1):
        many = f"SELECT id + {number * 1_000_000}, 0, repeat('x', 60000) FROM accounts WHERE id < 100"
        database.execute(f"INSERT INTO accounts {many}")


@pytest.mark.usefixtures("little_patience")
def test_what_is_still_sent_to_a_dead_line(
    bad_source: Database | MySqlDatabase, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B-11, B-12: the server, which knows nothing, goes on writing until nothing more fits between it and us.

    MariaDB lets a new dump of the same replica wait until it has given up the one before.
    """
    monkeypatch.setattr("cdc.sources.mysql.dump.UNREAD_FOR", 2)
    line = Line.make(proxy, bad_source, tmp_path)
    line.dsn += "&connect_timeout=3"
    line.come_through()
    running = Running.start(line.pipeline(until_caught_up=False))
    running.until_streaming()
    write(bad_source, 1)
    running.until_applied(1)
    proxy.lose()
    write_much(bad_source, 5)
    running.until_applied(6)
    assert running.phase == "streaming"
    running.stop()
    assert running.failures == []
    line.replica.catch_up()
    line.end()


def waits_2_seconds(database: Database | MySqlDatabase) -> list[str]:
    """Options by which PostgreSQL waits no longer for a word; MySQL and MariaDB wait for us to read."""
    return ["sslmode=disable", "options=-c%20wal_sender_timeout%3D2000"] if isinstance(database, Database) else []


def test_a_target_that_takes_longer_than_the_server_waits(
    bad_source: Database | MySqlDatabase, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A-19, B-12: what was read waits for the target, and more than fits is on its way; the connection stays."""
    for module in ("dump", "stream"):
        monkeypatch.setattr(f"cdc.sources.mysql.{module}.UNREAD_FOR", 2)
    line = Line.make(proxy, bad_source, tmp_path, *waits_2_seconds(bad_source))
    line.come_through()
    line.replica.options = replace(line.replica.options, segment_bytes=1 << 20, queue_bytes=1 << 20)
    apply = DuckDbTarget.apply
    slowness = iter([6.0])

    def slowly(self: DuckDbTarget, *arguments: object) -> None:
        time.sleep(next(slowness, 0))
        apply(self, *arguments)  # type: ignore[arg-type]

    running = Running.start(line.pipeline(until_caught_up=False))
    running.until_streaming()
    write(bad_source, 1)
    running.until_applied(1)
    opened = proxy.connections
    monkeypatch.setattr(DuckDbTarget, "apply", slowly)
    write_much(bad_source, 7)
    running.until_applied(8)
    assert proxy.connections == opened, "the connection was lost"
    assert not running.troubled
    running.stop()
    line.replica.catch_up()
    line.end()


def test_a_hole_inside_the_answer_about_a_slot(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """E-16: where only the last message of the answer is missing, libpq would wait for it and let no thread run."""
    monkeypatch.setattr("cdc.sources.postgres.slot._PATIENCE", 1.0)
    link = Handoff(1 << 20)
    with FaultProxy(database.server.port) as proxy:
        dsn = Dsn.parse(through(proxy, database))
        with connect_replication(dsn, "slots") as session, connect(Dsn.parse(database.dsn), "other") as other:
            before = proxy.down.passed
            assert create_slot(session, "slot_1", other, link, temporary=True) is not None
            length = proxy.down.passed - before
            proxy.down.hole_after = proxy.down.passed + length - 6  # those of ReadyForQuery
            with pytest.raises(psycopg.OperationalError, match="silent"):
                create_slot(session, "slot_2", other, link, temporary=True)
            assert proxy.down.holes == 1
            proxy.down.is_hole = False


@pytest.mark.usefixtures("little_patience")
def test_a_hole_anywhere(bad_source: Database | MySqlDatabase, tmp_path: Path) -> None:
    """B-12, E-16: whatever is waited for when the line goes dead, at first start or later, the wait ends."""
    rng = chosen_at_random()
    with FaultProxy(bad_source.server.port, records=True) as whole:
        line = Line.make(whole, bad_source, tmp_path)
        session(line)
        line.end()
    wanted = 1 if POINTS.isdecimal() and int(POINTS) <= 25 else 100
    points = [at for _ in range(5) for at in cut_points(whole.down, max(wanted, 2), rng)]
    rng.shuffle(points)
    holes = 0
    # Sessions differ in length, and one may end before its hole: so many are tried, and no more than needed.
    for at in points:
        with FaultProxy(bad_source.server.port) as proxy:
            line = Line.make(proxy, bad_source, tmp_path)
            line.dsn += "&connect_timeout=3"
            proxy.down.hole_after = at
            for _ in range(2):  # which copies, and follows; or says at once that it cannot begin
                running = Running.start(line.pipeline())
                running.until(lambda r=running: r.troubled or not r.thread.is_alive(), f"noticed since byte {at}")
                proxy.down.is_hole = False
                running.thread.join(120)
                assert not running.thread.is_alive(), f"hangs since byte {at}, CDC_SEED={SEED}"
                write(bad_source)
            holes += proxy.down.holes
            proxy.down.hole_after = None
            proxy.down.is_hole = False  # a session that nobody waited for may have made another one
            line.come_through()
            line.end()
        if holes >= wanted:
            break
    assert holes >= wanted


@pytest.mark.parametrize("bad_source", ["postgres"], indirect=True)
def test_a_busy_server_is_not_a_dead_one(
    bad_source: Database, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B-12, A-19: while a large transaction of tables that are not followed is decoded, the server answers nothing."""
    bad_source.execute("CREATE TABLE unfollowed (n int PRIMARY KEY)")
    line = Line.make(proxy, bad_source, tmp_path)
    line.replica.options = replace(line.replica.options, selection=Selection(("public.accounts",)))
    line.come_through()
    monkeypatch.setattr("cdc.sources.postgres.stream._QUIET_FOR", 0.02)
    monkeypatch.setattr("cdc.sources.postgres.stream._WAIT", 0.02)
    asked = []

    def is_at_work(connection: object, reader: int) -> bool:
        asked.append(identity.is_at_work(connection, reader))  # type: ignore[arg-type]
        return asked[-1]

    monkeypatch.setattr("cdc.sources.postgres.source.is_at_work", is_at_work)
    running = Running.start(line.pipeline(until_caught_up=False))
    running.until_streaming()
    for number in range(1, 6):  # until one is large enough for this machine
        bad_source.execute(f"TRUNCATE unfollowed; INSERT INTO unfollowed SELECT generate_series(1, {200_000 * number})")
        write(bad_source, 1)
        running.until_applied(number)
        if True in asked:
            break
    assert True in asked
    running.stop()
    line.replica.catch_up()
    line.end()


@pytest.mark.parametrize("bad_source", ["postgres"], indirect=True)
def test_a_slot_may_take_long(
    bad_source: Database, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B-12, A-34: a slot waits for transactions that are open, however long; that is no dead line."""
    monkeypatch.setattr("cdc.sources.postgres.source._PATIENCE", 0.5)
    line = Line.make(proxy, bad_source, tmp_path)
    with bad_source.connect() as application:
        application.execute("BEGIN")
        application.execute("INSERT INTO entries VALUES (0, 'open')")
        running = Running.start(line.pipeline())
        running.until(lambda: running.phase == "copying", "copying")
        time.sleep(SECONDS)
        assert not running.troubled
        assert running.pipeline.view().rows_copied == 0
        application.execute("COMMIT")
    running.thread.join(120)
    assert running.failures == []
    line.end()


def test_slow_line(bad_source: Database | MySqlDatabase, proxy: FaultProxy, tmp_path: Path) -> None:
    """E-16: half a second there and half a second back, 500 kbit/s: all of it comes, and nothing is taken for dead."""
    line = Line.make(proxy, bad_source, tmp_path)
    proxy.up.delay = proxy.down.delay = 0.005
    line.come_through()
    running = Running.start(line.pipeline(until_caught_up=False))
    running.until_streaming()
    write(bad_source, 1)
    running.until_applied(1)
    proxy.up.delay = proxy.down.delay = 0.5
    proxy.up.rate = proxy.down.rate = 500_000 / 8
    before = proxy.down.passed
    end = time.monotonic() + SECONDS
    rounds = 0
    while time.monotonic() < end:
        bad_source.execute(
            f"INSERT INTO accounts SELECT id + {(rounds + 1) * 100_000}, v, repeat('x', 200) FROM accounts WHERE id < 300"
        )
        write(bad_source)
        rounds += 1
        running.until_applied(1 + rounds * 6)
    assert proxy.down.passed - before > 60_000 * rounds
    assert not running.troubled
    running.stop()
    assert running.failures == []
    line.replica.catch_up()
    line.end()


def test_flapping_line(bad_source: Database | MySqlDatabase, proxy: FaultProxy, tmp_path: Path) -> None:
    """E-16, E-11, B-07, B-08: up, down with every connection refused, and up again, while the application writes."""
    line = Line.make(proxy, bad_source, tmp_path)
    line.come_through()
    running = Running.start(line.pipeline(until_caught_up=False))
    running.until_streaming()
    pause = min(2.0, SECONDS / 4)
    with proxy.flapping(pause, pause):
        end = time.monotonic() + 2 * SECONDS
        while time.monotonic() < end:
            write(bad_source, 2)
            time.sleep(0.05)
        running.until(lambda: running.troubled, "cut")
    write(bad_source)
    running.until(lambda: running.phase == "streaming" and not running.troubled, "streaming again")
    running.stop()
    assert running.failures == []
    line.replica.catch_up()
    line.end()


def test_slow_target(
    bad_source: Database | MySqlDatabase, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A-19, D-13: the target takes far longer than the server waits for a word; the connection stays, nothing is lost."""
    line = Line.make(proxy, bad_source, tmp_path, *waits_2_seconds(bad_source))
    line.come_through()
    apply = DuckDbTarget.apply

    def slowly(self: DuckDbTarget, *arguments: object) -> None:
        time.sleep(SECONDS)
        apply(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(DuckDbTarget, "apply", slowly)
    running = Running.start(line.pipeline(until_caught_up=False))
    running.until_streaming()
    write(bad_source)
    running.until_applied(1)
    opened = proxy.connections
    write(bad_source)
    running.until_applied(10)
    assert proxy.connections == opened, "the connection was lost"
    assert not running.troubled
    monkeypatch.setattr(DuckDbTarget, "apply", apply)
    running.stop()
    assert running.failures == []
    line.replica.catch_up()
    line.end()


def test_the_server_ends_the_session(bad_source: Database | MySqlDatabase, proxy: FaultProxy, tmp_path: Path) -> None:
    """A-32, E-11: what the server says in the middle of the stream is reported, and it is opened again."""
    line = Line.make(proxy, bad_source, tmp_path)
    line.come_through()
    running = Running.start(line.pipeline(until_caught_up=False))
    running.until_streaming()
    write(bad_source, 1)
    running.until_applied(1)  # from the stream, which has begun therefore
    said = []
    if isinstance(bad_source, Database):
        bad_source.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name LIKE 'cdc %'"
        )
        said = ["administrator command"]
    else:
        dumps = "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"
        for (number,) in bad_source.execute(dumps):
            with suppress(pymysql.err.OperationalError):  # of an earlier run, just gone by itself
                bad_source.execute(f"KILL {number}")
        said = ["connection", "ended the stream", "killed", "shutdown"]
    running.until(lambda: running.troubled, "reported")
    assert any(word in str(running.pipeline.view().failure) for word in said), running.pipeline.view().failure
    write(bad_source)
    running.until_applied(6)
    running.stop()
    assert running.failures == []
    line.end()
