"""Every way in which a slot, a publication or a server can stop being the one that was followed: one clear end each."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cdc.demo.server import PrivatePostgres
from cdc.engine.pipeline import Pipeline
from cdc.errors import (
    CdcError,
    OperatorNeeded,
    PublicationChanged,
    SlotBusy,
    SlotUnusable,
    SourceChanged,
)
from cdc.options import Options
from cdc.runs import open_pipeline
from integration.conftest import Database, Replica, make_database, make_replica

TABLE = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')"


@pytest.fixture
def followed(database: Database, replica: Replica) -> Replica:
    """A pipeline that has copied and stopped."""
    database.execute(TABLE)
    replica.catch_up()
    replica.assert_equal()
    return replica


def slot(replica: Replica) -> str:
    return f"cdc_{replica.options.name}"


def assert_stops(replica: Replica, error: type[CdcError], match: str) -> None:
    """It stops, says what it says twice, and the target is as it was."""
    before = replica.query("SELECT position, sequence FROM _cdc.checkpoint")
    for _ in range(2):
        with pytest.raises(error, match=match) as caught:
            replica.catch_up()
        assert caught.value.hint
        assert not caught.value.retry
    assert replica.query("SELECT position, sequence FROM _cdc.checkpoint") == before


class Running:
    """A pipeline on a thread, as `cdc run` has it."""

    def __init__(self, replica: Replica) -> None:
        options = Options(name=replica.options.name, selection=replica.options.selection)
        self.pipeline: Pipeline = open_pipeline(replica.database.dsn, replica.target, options)
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.pipeline.run()
        except BaseException as error:
            self.failure = error

    def __enter__(self) -> Running:
        self.thread.start()
        self.wait_for(lambda: self.pipeline.view().phase == "streaming" and self.pipeline.view().durable is not None)
        return self

    def __exit__(self, *_: object) -> None:
        self.pipeline.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()

    def wait_for(self, condition: object, seconds: float = 20) -> None:
        until = time.monotonic() + seconds
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < until, f"waited in vain; failure: {self.failure!r}"
            assert self.thread.is_alive(), f"ended: {self.failure!r}"
            time.sleep(0.01)

    def wait_for_end(self, seconds: float = 30) -> BaseException:
        self.thread.join(seconds)
        assert not self.thread.is_alive()
        assert self.failure is not None
        return self.failure


def test_slot_dropped(followed: Replica) -> None:
    """A-03, A-12: never made again, since what lies between would be lost."""
    followed.database.execute(f"SELECT pg_drop_replication_slot('{slot(followed)}')")
    assert_stops(followed, SlotUnusable, "has no replication slot")


def test_slot_dropped_and_made_again(followed: Replica) -> None:
    """A-03: the same name, and not the same slot."""
    followed.database.execute(f"SELECT pg_drop_replication_slot('{slot(followed)}')")
    followed.database.execute("INSERT INTO t VALUES (3, 'lost')")
    followed.database.execute(f"SELECT pg_create_logical_replication_slot('{slot(followed)}', 'pgoutput')")
    assert_stops(followed, SlotUnusable, "beyond the target's")


def test_slot_of_another_plugin(followed: Replica) -> None:
    """A-03."""
    followed.database.execute(
        f"SELECT pg_drop_replication_slot('{slot(followed)}'); "
        f"SELECT pg_create_physical_replication_slot('{slot(followed)}')"
    )
    assert_stops(followed, SlotUnusable, "not one of this pipeline")


def test_slot_advanced_by_somebody_else(followed: Replica) -> None:
    """A-04, A-11: the server would start at the later position without a word."""
    followed.database.execute("INSERT INTO t VALUES (3, 'would be skipped')")
    followed.database.execute(f"SELECT pg_replication_slot_advance('{slot(followed)}', pg_current_wal_lsn())")
    assert_stops(followed, SlotUnusable, "beyond the target's")


def test_publication_dropped(followed: Replica) -> None:
    """A-30: making it again does not heal the slot, so that both are refused alike."""
    name = slot(followed)
    followed.database.execute(f"DROP PUBLICATION {name}")
    assert_stops(followed, PublicationChanged, "was dropped")
    followed.database.execute(f"CREATE PUBLICATION {name} FOR TABLE t WITH (publish_via_partition_root = true)")
    assert_stops(followed, PublicationChanged, "was changed")


def test_table_out_of_the_publication_and_in_again(followed: Replica) -> None:
    """A-33: the row between is never sent, and the membership looks as before."""
    name = slot(followed)
    followed.database.execute(
        f"ALTER PUBLICATION {name} DROP TABLE t; INSERT INTO t VALUES (3, 'unseen'); ALTER PUBLICATION {name} ADD TABLE t"
    )
    assert_stops(followed, PublicationChanged, "was changed")


def test_publication_options_changed(followed: Replica) -> None:
    """A-52: operations, row filters and column lists are part of what was agreed."""
    followed.database.execute(f"ALTER PUBLICATION {slot(followed)} SET (publish = 'insert')")
    assert_stops(followed, PublicationChanged, "was changed")


# What changes the row of a publication, and nothing of what it sends.
GIVEN_AWAY = [
    "ALTER PUBLICATION {0} OWNER TO {1}",
    "REASSIGN OWNED BY {1} TO {1}_too",
    "COMMENT ON PUBLICATION {0} IS 'ours'; ALTER TABLE t OWNER TO {1}; GRANT SELECT ON t TO {1}; VACUUM FULL pg_publication",
]


@pytest.fixture
def role(followed: Replica) -> Iterator[str]:
    name = f"keeper_of_{followed.options.name}"
    both = f"{name}, {name}_too"
    followed.database.execute(f"CREATE ROLE {name} SUPERUSER; CREATE ROLE {name}_too SUPERUSER")
    yield name
    followed.database.execute(f"REASSIGN OWNED BY {both} TO postgres; DROP OWNED BY {both}; DROP ROLE {both}")


@pytest.mark.parametrize("statements", GIVEN_AWAY)
def test_publication_given_away(followed: Replica, role: str, statements: str) -> None:
    """P16: another owner changes nothing of what is sent, whether it comes while the log is followed or between runs."""

    def give_away() -> None:
        with followed.database.connect() as connection:
            for statement in statements.format(slot(followed), role).split(";"):
                connection.execute(statement.encode())

    def take_back() -> None:
        owner = role if "REASSIGN" in statements else "postgres"
        followed.database.execute(f"ALTER PUBLICATION {slot(followed)} OWNER TO {owner}")
        followed.catch_up()

    take_back()
    give_away()
    followed.database.execute("INSERT INTO t VALUES (3, 'between')")
    followed.catch_up()
    followed.assert_equal()
    take_back()
    with Running(followed) as running:
        give_away()
        time.sleep(6)  # more than there is between two looks
        followed.database.execute("INSERT INTO t VALUES (4, 'meanwhile')")
        followed.database.execute("CREATE TABLE later (id int PRIMARY KEY)")
        running.wait_for(lambda: any(table.name == "later" for table in running.pipeline.view().tables), 60)
    followed.catch_up()
    followed.assert_equal()


@pytest.mark.parametrize(
    "statements",
    [
        "ALTER PUBLICATION {0} DROP TABLE t; ALTER PUBLICATION {0} ADD TABLE t",
        "ALTER PUBLICATION {0} SET (publish = 'insert'); "
        "ALTER PUBLICATION {0} SET (publish = 'insert, update, delete, truncate')",
        "ALTER PUBLICATION {0} SET (publish_via_partition_root = false)",
        "ALTER PUBLICATION {0} SET TABLE t (id)",
        "ALTER PUBLICATION {0} SET TABLE t WHERE (id > 1)",
    ],
)
@pytest.mark.parametrize("is_given_away", [False, True])
def test_publication_changed_by_its_new_owner(
    followed: Replica, role: str, statements: str, is_given_away: bool
) -> None:
    """P16, A-33, A-52: what leaves a gap in the stream is noticed as before, even if it looks as it did."""
    if is_given_away:
        followed.database.execute(f"ALTER PUBLICATION {slot(followed)} OWNER TO {role}")
        followed.catch_up()
    followed.database.execute(statements.format(slot(followed)))
    assert_stops(followed, PublicationChanged, "was changed")


def test_another_database(followed: Replica, postgres: PrivatePostgres) -> None:
    """A-16: the same server, and the checkpoint of another database on it."""
    for other in make_database(postgres):
        other.execute(TABLE)
        moved = Replica(other, followed.path, followed.options)
        assert_stops(moved, SourceChanged, "another database")


def test_another_server(followed: Replica, postgres16: PrivatePostgres) -> None:
    """A-16: both identifiers are named."""
    for other in make_database(postgres16):
        other.execute(TABLE)
        moved = Replica(other, followed.path, followed.options)
        assert_stops(moved, SourceChanged, "system identifier")


def test_a_name_that_is_taken(database: Database, tmp_path: Path) -> None:
    """A-11: a new target does not take over the slot of an old one."""
    database.execute(TABLE)
    first = make_replica(database, tmp_path)
    first.catch_up()
    second = Replica(database, tmp_path / "second.duckdb", first.options)
    with pytest.raises(OperatorNeeded, match="knows nothing of it"):
        second.catch_up()
    first.catch_up()
    first.assert_equal()


def test_two_processes_on_one_slot(followed: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A-10: the second one names who holds it, and writes nothing."""
    monkeypatch.setattr("cdc.engine.pipeline._SLOT_BUSY_TRIES", 1)  # by the time of a later one the first has moved on
    with Running(followed):
        copy = tmp_path / "copy.duckdb"
        for suffix in ("", ".wal"):
            if (of := Path(f"{followed.path}{suffix}")).exists():
                Path(f"{copy}{suffix}").write_bytes(of.read_bytes())
        second = Replica(followed.database, copy, followed.options)
        with pytest.raises(SlotBusy, match=r"PID \d+, cdc "):
            second.catch_up()
        followed.database.execute("INSERT INTO t VALUES (3, 'c')")
    followed.catch_up()
    followed.assert_equal()


def test_slot_dropped_while_streaming(followed: Replica) -> None:
    """A-02, A-32: the end of the stream is an error that only the result tells, and then the slot is missing."""
    with Running(followed) as running:
        for _ in range(100):  # it comes back at once, and may be there before the slot is dropped
            try:
                followed.database.execute(
                    "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = "
                    f"'{slot(followed)}'; SELECT pg_sleep(0.02); SELECT pg_drop_replication_slot('{slot(followed)}')"
                )
                break
            except psycopg.errors.ObjectInUse:
                continue
        error = running.wait_for_end()
    assert isinstance(error, SlotUnusable)


def test_publication_changed_while_streaming(followed: Replica) -> None:
    """A-33: found within seconds, with or without rows."""
    with Running(followed) as running:
        followed.database.execute(
            f"ALTER PUBLICATION {slot(followed)} DROP TABLE t; ALTER PUBLICATION {slot(followed)} ADD TABLE t"
        )
        error = running.wait_for_end()
    assert isinstance(error, PublicationChanged)


def test_publication_dropped_while_streaming(followed: Replica) -> None:
    """A-30: the server itself refuses to decode."""
    with Running(followed) as running:
        followed.database.execute(f"DROP PUBLICATION {slot(followed)}; INSERT INTO t VALUES (9, 'x')")
        error = running.wait_for_end()
    assert isinstance(error, PublicationChanged)


def test_a_lost_connection_is_made_again(followed: Replica) -> None:
    """E-11, A-05: the walsender is ended again and again; nothing is lost and nothing comes twice."""
    with Running(followed) as running:
        for number in range(5):
            followed.database.execute(f"INSERT INTO t VALUES ({10 + number}, 'row')")
            followed.database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE application_name LIKE 'cdc {followed.options.name}%'"
            )
            time.sleep(0.3)
        running.wait_for(lambda: running.pipeline.view().rows_applied >= 5)
    followed.catch_up()
    followed.assert_equal()


@pytest.fixture
def own_server() -> Iterator[PrivatePostgres]:
    settings = {
        "max_slot_wal_keep_size": "16MB",
        "wal_keep_size": "0",
        "max_wal_size": "64MB",
        "wal_segment_size": "1MB",
    }
    del settings["wal_segment_size"]  # only initdb may set it
    with PrivatePostgres(18, settings=settings) as server:
        yield server


def test_slot_lost_to_a_limit(own_server: PrivatePostgres, tmp_path: Path) -> None:
    """A-01: no retry, no new slot, and the message names the setting."""
    own_server.create_database("d")
    database = Database(own_server, "d")
    database.execute(TABLE)
    replica = make_replica(database, tmp_path)
    replica.catch_up()
    for _ in range(4):
        database.execute(
            "CREATE TABLE IF NOT EXISTS junk (v text); INSERT INTO junk SELECT repeat(md5(i::text), 50) FROM generate_series(1, 15000) i"
        )
        own_server.execute("SELECT pg_switch_wal(); CHECKPOINT")
    status = database.execute("SELECT wal_status FROM pg_replication_slots")
    assert status == [("lost",)]
    assert_stops(replica, SlotUnusable, "is lost")


def test_server_restarts_and_crashes(own_server: PrivatePostgres, tmp_path: Path) -> None:
    """A-18, E-11: a fast shutdown is not held up, and the pipeline is back by itself afterwards."""
    own_server.create_database("d")
    database = Database(own_server, "d")
    database.execute(TABLE)
    replica = make_replica(database, tmp_path)
    replica.catch_up()
    with Running(replica) as running:
        for number, mode in enumerate((signal.SIGINT, signal.SIGQUIT)):
            database.execute(f"INSERT INTO t VALUES ({10 + number}, 'row')")
            began = time.monotonic()
            own_server.stop(mode)
            assert time.monotonic() - began < 10
            own_server.start()
            database.execute(f"INSERT INTO t VALUES ({20 + number}, 'row')")
        running.wait_for(lambda: running.pipeline.view().rows_applied >= 4, seconds=60)
    replica.catch_up()
    replica.assert_equal()


def test_server_restored_to_an_earlier_state(own_server: PrivatePostgres, tmp_path: Path) -> None:
    """A-15: the same system, set back: its log ends before what the target holds."""
    import shutil

    own_server.create_database("d")
    database = Database(own_server, "d")
    database.execute(TABLE)
    replica = make_replica(database, tmp_path)
    replica.catch_up()
    own_server.stop()
    backup = tmp_path / "backup"
    shutil.copytree(own_server.data, backup, symlinks=True)
    own_server.start()
    database.execute("INSERT INTO t SELECT i, 'later' FROM generate_series(100, 5000) i")
    replica.catch_up()
    own_server.stop()
    for entry in own_server.data.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    shutil.copytree(backup, own_server.data, symlinks=True, dirs_exist_ok=True)
    _give(own_server)
    own_server.start()
    assert_stops(replica, SourceChanged, "has written its log up to")


def _give(server: PrivatePostgres) -> None:
    """Files copied by root belong to the server's user again."""
    import os

    owner = server.folder.stat().st_uid
    for folder, _, files in os.walk(server.data):
        os.chown(folder, owner, owner)
        for file in files:
            os.chown(Path(folder) / file, owner, owner, follow_symlinks=False)


def test_acknowledged_only_what_is_durable(database: Database, tmp_path: Path) -> None:
    """A-05, A-06: the slot is never further than the target's checkpoint."""
    database.execute(TABLE)
    replica = make_replica(database, tmp_path)
    replica.catch_up()
    with Running(replica) as running, psycopg.connect(database.dsn, autocommit=True) as connection:
        for number in range(60):
            connection.execute("INSERT INTO t VALUES (%s, 'x')", (1000 + number,))
            row = connection.execute(
                "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = %s",
                (slot(replica),),
            ).fetchone()
            durable = running.pipeline.view().durable
            assert row is not None
            assert durable is not None
            assert int(row[0]) <= durable.order
            time.sleep(0.05)


def test_an_idle_publication_lets_go_of_wal(followed: Replica) -> None:
    """A-07: others write, the pipeline's tables do not; the slot moves all the same."""
    with Running(followed) as running:
        followed.database.execute("CREATE TABLE other (v text)")
        before = followed.database.execute(
            f"SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = '{slot(followed)}'"
        )
        followed.database.execute("INSERT INTO other SELECT repeat('x', 100) FROM generate_series(1, 10000)")

        def moved() -> bool:
            return before != followed.database.execute(
                f"SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = '{slot(followed)}' "
                "AND confirmed_flush_lsn > pg_current_wal_lsn() - 100000"
            )

        running.wait_for(moved, seconds=40)


def test_a_slow_target_does_not_lose_the_connection(own_server: PrivatePostgres, tmp_path: Path) -> None:
    """A-19: wal_sender_timeout passes several times while one segment is applied; feedback goes on."""
    own_server.execute("ALTER SYSTEM SET wal_sender_timeout = '2s'")
    own_server.execute("SELECT pg_reload_conf()")
    own_server.create_database("d")
    database = Database(own_server, "d")
    database.execute(TABLE)
    replica = make_replica(database, tmp_path)
    replica.catch_up()
    from cdc.targets.duckdb.target import DuckDbTarget

    class Slow(DuckDbTarget):
        def apply(self, segment: object) -> None:
            time.sleep(5)
            super().apply(segment)  # type: ignore[arg-type]

    with Running(replica) as running:
        running.pipeline.stop()
        running.thread.join()
    running = Running(replica)
    running.pipeline._make_target = lambda: Slow(replica.path, 256 << 20)
    with running:
        running.wait_for(
            lambda: own_server.execute("SELECT 1 FROM pg_replication_slots WHERE active") != [], seconds=40
        )
        first = own_server.execute("SELECT active_pid FROM pg_replication_slots")
        database.execute("INSERT INTO t SELECT i, 'x' FROM generate_series(10, 20) i")
        running.wait_for(lambda: running.pipeline.view().rows_applied >= 11, seconds=40)
        assert own_server.execute("SELECT active_pid FROM pg_replication_slots") == first
