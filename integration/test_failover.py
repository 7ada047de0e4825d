"""Real promotions of standbys: the pipeline goes on, equal to the new server, or it says why it cannot."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cdc.cli.status  # noqa: F401  # the command registers itself with the app
from cdc.cli.app import app
from cdc.demo.server import PrivatePostgres
from cdc.errors import CdcError, SlotUnusable, SourceChanged, Unavailable
from cdc.sources.postgres.stream import ReplicationStream
from integration.conftest import Database, Replica, make_replica
from integration.failover import Copy, Writer, copy_of, kill, wait_for
from integration.test_slot_hazards import Running, slot
from tests.seeds import one_of

TABLE = (
    "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text); INSERT INTO t (v) VALUES ('a'), ('b')"
)


@dataclass
class Hosts(Database):
    """A database under a DSN that names all servers that may have it."""

    others: tuple[PrivatePostgres, ...] = ()

    @property
    def dsn(self) -> str:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in (self.server, *self.others))
        return f"postgresql://postgres@{hosts}/{self.name}?passfile={self.server.passfile}"


class Scene:
    """A primary with a table that is followed."""

    def __init__(self, version: int, folder: Path, resources: ExitStack) -> None:
        self.resources = resources
        self.primary = resources.enter_context(PrivatePostgres(version, settings={"shared_buffers": "16MB"}))
        self.primary.create_database("d")
        database = Database(self.primary, "d")
        database.execute(TABLE)
        self.replica = make_replica(database, folder)
        self.replica.catch_up()

    def copy(self, **arguments: object) -> Copy:
        made = copy_of(self.primary, **arguments)  # type: ignore[arg-type]
        self.resources.callback(made.close)
        return made

    def at(self, server: PrivatePostgres) -> Replica:
        """The same target, with the DSN of another server."""
        return Replica(Database(server, "d"), self.replica.path, self.replica.options)


@pytest.fixture
def resources() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def write(server: PrivatePostgres, *values: str) -> None:
    for value in values:
        server.execute(f"INSERT INTO t (v) VALUES ('{value}')", "d")


def assert_same_rows(replica: Replica, server: PrivatePostgres) -> None:
    """Row by row, without the digests of the product."""
    expected = server.execute("SELECT id, v FROM t ORDER BY id", "d")
    assert replica.query("SELECT id, v FROM t ORDER BY id") == expected
    assert expected


def status(replica: Replica) -> tuple[int, dict[str, object]]:
    done = CliRunner().invoke(
        app, ["status", replica.database.dsn, replica.target, "--json", "--name", "d", "--max-lag", "1000000h"]
    )
    assert done.stdout, done.exception
    return done.exit_code, json.loads(done.stdout)


def assert_refused(replica: Replica, error: type[CdcError], match: str) -> None:
    """A run ends with one clear error and leaves the target as it was, and status says the same."""
    before = replica.query("SELECT position, sequence, state FROM _cdc.checkpoint")
    code, report = status(replica)
    assert code == 1
    assert report["healthy"] is False
    with pytest.raises(error, match=match) as caught:
        replica.catch_up()
    assert caught.value.hint
    assert not caught.value.retry
    assert report["slot"]["refused"] == caught.value.message  # type: ignore[index]
    assert replica.query("SELECT position, sequence, state FROM _cdc.checkpoint") == before


def assert_accepted(replica: Replica) -> None:
    code, report = status(replica)
    assert (code, report["healthy"]) == (0, True), report
    replica.catch_up()
    assert_same_rows(replica, replica.database.server)  # type: ignore[arg-type]


def is_synced(scene: Scene, standby: Copy) -> bool:
    """Whether the standby has a copy of the slot that it could use.

    A slot moves on only past a note of the running transactions, which the server writes every 15 seconds by itself.
    """
    scene.primary.execute("SELECT pg_log_standby_snapshot()")
    time.sleep(0.3)
    usable = (
        f"SELECT 1 FROM pg_replication_slots WHERE slot_name = '{slot(scene.replica)}' AND synced AND NOT temporary"
    )
    return bool(standby.execute(usable))


def sync_slot(scene: Scene, standby: Copy) -> None:
    """Wait for the copy, which the standby takes for good once the pipeline has read beyond where the copy began."""
    with Running(scene.replica) as running, Writer(scene.primary.dsn("d")):
        running.wait_for(lambda: is_synced(scene, standby), 90)


@pytest.mark.parametrize("version", [17, 18])
def test_promotion_with_a_synced_slot_under_load(version: int, tmp_path: Path, resources: ExitStack) -> None:
    """A-14: the primary is killed under load, and the run goes on at the promoted standby by itself, without a copy."""
    scene = Scene(version, tmp_path, resources)
    standby = scene.copy(follows=True, settings={"sync_replication_slots": "on"})
    scene.primary.execute(f"ALTER SYSTEM SET synchronized_standby_slots = '{standby.slot}'")
    scene.primary.execute("SELECT pg_reload_conf()")
    replica = scene.at(scene.primary)
    replica.database = Hosts(scene.primary, "d", (standby,))
    with Running(replica) as running, Writer(replica.database.dsn) as writer:
        running.wait_for(lambda: is_synced(scene, standby), 90)
        running.wait_for(lambda: running.pipeline.view().rows_applied > 100)
        kill(scene.primary)
        standby.promote()
        before = writer.committed
        wait_for(lambda: writer.committed > before + 100)
        applied = running.pipeline.view().rows_applied
        running.wait_for(lambda: running.pipeline.view().rows_applied > applied + 100, 30)
    assert running.failure is None
    assert_accepted(scene.at(standby))
    write(standby, "later")
    assert_accepted(scene.at(standby))


@pytest.mark.parametrize("version", [13, 18])
def test_promotion_without_the_slot(version: int, tmp_path: Path, resources: ExitStack) -> None:
    """A-12: the promoted standby never had the slot, and none is made in its place."""
    scene = Scene(version, tmp_path, resources)
    standby = scene.copy(follows=True)
    with Writer(scene.primary.dsn("d")) as writer:
        wait_for(lambda: writer.committed > 50)
        kill(scene.primary)
        standby.promote()
    write(standby, "after")
    assert_refused(scene.at(standby), SlotUnusable, "has no replication slot")


def test_target_ahead_of_the_promoted_server(tmp_path: Path, resources: ExitStack) -> None:
    """A-13: the target holds what the standby never got; it is not taken for equal, however far the new server is."""
    scene = Scene(18, tmp_path, resources)
    standby = scene.copy(follows=True, settings={"sync_replication_slots": "on"})
    sync_slot(scene, standby)
    standby.cut_off()
    write(scene.primary, "lost", "lost too")
    scene.replica.catch_up()
    kill(scene.primary)
    standby.promote()
    replica = scene.at(standby)
    assert_refused(replica, SourceChanged, "left timeline 1 at")
    standby.execute("INSERT INTO t (v) SELECT repeat('x', 1000) FROM generate_series(1, 2000)", "d")
    assert_refused(replica, SourceChanged, "left timeline 1 at")


def test_a_standby_is_not_followed(tmp_path: Path, resources: ExitStack) -> None:
    """A-12, A-17: before its promotion a standby is waited for; nothing is taken from it."""
    scene = Scene(18, tmp_path, resources)
    standby = scene.copy(follows=True, settings={"sync_replication_slots": "on"})
    sync_slot(scene, standby)
    replica = scene.at(standby)
    with pytest.raises(Unavailable, match="is a standby"):
        replica.catch_up()
    code, report = status(replica)
    assert code == 1
    assert "is a standby" in str(report["slot"]["refused"])  # type: ignore[index]
    kill(scene.primary)
    standby.promote()
    write(standby, "after")
    assert_accepted(replica)


@pytest.fixture(params=[*one_of(13, 16), 18])
def split(request: pytest.FixtureRequest, tmp_path: Path, resources: ExitStack) -> tuple[Scene, Copy, Copy]:
    """Two standbys with the slot that were promoted from one place: the same numbers for different histories (P19)."""
    scene = Scene(request.param, tmp_path, resources)
    write(scene.primary, "shared")
    scene.replica.catch_up()
    scene.primary.stop()
    made = []
    for _ in range(2):
        standby = Copy(scene.primary)
        resources.callback(standby.close)
        standby.create()
        standby.start()
        standby.promote()
        made.append(standby)
    switches = [server.execute("SELECT timeline_id FROM pg_control_checkpoint()") for server in made]
    assert switches[0] == switches[1]
    return scene, made[0], made[1]


@pytest.fixture
def nothing_fed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a kill, the slot does not know what the target has."""
    feed_back = ReplicationStream.feed_back
    monkeypatch.setattr(ReplicationStream, "feed_back", lambda self, _, ask=False: feed_back(self, None, ask=ask))


@pytest.mark.parametrize("ends", ["politely", "killed"])
def test_split_brain(split: tuple[Scene, Copy, Copy], ends: str, request: pytest.FixtureRequest) -> None:
    """P19: the DSN is moved from one to the other, whose log goes on beyond what the target holds."""
    scene, first, second = split
    replica = scene.at(first)
    write(first, "first", "again the first")
    if ends == "killed":
        request.getfixturevalue("nothing_fed_back")
    replica.catch_up()
    for number in range(20):
        write(second, f"second {number}")
    assert_refused(scene.at(second), SourceChanged, "another history")
    write(first, "later")
    assert_accepted(replica)


def test_split_brain_without_a_row(split: tuple[Scene, Copy, Copy]) -> None:
    """P19: of the first nothing came but its positions; what the second has before them would be skipped."""
    scene, first, second = split
    fill = "CREATE TABLE other (v text); INSERT INTO other SELECT repeat('x', 500) FROM generate_series(1, 500)"
    first.execute(fill, "d")
    scene.at(first).catch_up()
    write(second, "second")
    second.execute(f"{fill}; {fill.partition(';')[2]}", "d")
    assert_refused(scene.at(second), SourceChanged, "another history")
    assert_accepted(scene.at(first))


def test_two_promoted_from_different_places(tmp_path: Path, resources: ExitStack) -> None:
    """P19, A-13: the same timeline number for histories that parted at different places."""
    scene = Scene(18, tmp_path, resources)
    scene.primary.stop()
    copies = []
    for number in range(2):
        standby = Copy(scene.primary)
        resources.callback(standby.close)
        standby.create()
        standby.start()
        standby.promote()
        copies.append(standby)
        scene.primary.start()
        write(scene.primary, f"{number}")
        scene.primary.stop()
    for standby in copies:
        write(standby, "promoted")
    scene.at(copies[0]).catch_up()
    for number in range(20):
        write(copies[1], f"second {number}")
    assert_refused(scene.at(copies[1]), SourceChanged, "their histories are not the same")
    assert_accepted(scene.at(copies[0]))


@pytest.mark.parametrize("version", [13, 18])
def test_set_back_and_written_to_since(version: int, tmp_path: Path, resources: ExitStack) -> None:
    """P19, A-15: from a copy of its disk, the server goes on along the same timeline beyond what the target holds."""
    scene = Scene(version, tmp_path, resources)
    write(scene.primary, "kept")
    scene.replica.catch_up()
    scene.primary.stop()
    restored = Copy(scene.primary)
    resources.callback(restored.close)
    restored.create()
    (restored.data / "standby.signal").unlink()
    scene.primary.start()
    restored.start()
    write(scene.primary, "lost", "lost too")
    scene.replica.catch_up()
    for number in range(20):
        write(restored, f"restored {number}")
    assert_refused(scene.at(restored), SourceChanged, "another history")
    write(scene.primary, "later")
    assert_accepted(scene.replica)
