"""The servers that the demo and these tests start, and the files that the demo makes: nobody else's business."""

from __future__ import annotations

import signal
import stat
import time
from pathlib import Path

import duckdb
import psycopg
import pymysql
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from cdc.demo import run as demo
from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from cdc.errors import UsageError
from integration.conftest import Database, MySqlDatabase
from integration.kafka import USER, PrivateKafka
from integration.processes import cdc, start

GUESSES = ("", "secret", "postgres", "root", "cdc")


def test_nobody_else_gets_in(anywhere: Database | MySqlDatabase) -> None:
    """O18: by TCP, which is open to everybody on the machine, no user gets in with a password that can be guessed."""
    server = anywhere.server
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
    assert len(server.password) >= 32
    for user in ("postgres", "root", "cdc", "", "mysql"):
        for guess in GUESSES:
            if isinstance(server, PrivatePostgres):
                with pytest.raises(psycopg.OperationalError, match=r"authentication failed|no password supplied"):
                    psycopg.connect(host="127.0.0.1", port=server.port, user=user or "x", password=guess, passfile="")
            else:
                with pytest.raises(pymysql.err.OperationalError, match="denied"):
                    pymysql.connect(host="127.0.0.1", port=server.port, user=user or "x", password=guess)


def test_nobody_else_gets_into_a_broker(kafka: PrivateKafka) -> None:
    """O18: nor by the port on which the broker's parts talk to each other."""
    assert stat.S_IMODE(kafka.folder.stat().st_mode) == 0o700
    assert len(kafka.password) >= 32
    assert kafka.admin().list_topics(timeout=30) is not None
    for port in (kafka.port, kafka.controller_port):
        place = {"bootstrap.servers": f"127.0.0.1:{port}", "log_level": "0"}
        for guess in (None, *GUESSES[1:]):
            login = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": USER}
            with pytest.raises(KafkaException):
                AdminClient(place | (login | {"sasl.password": guess} if guess else {})).list_topics(timeout=1)


def test_passwords_are_of_one_server() -> None:
    """O18: each server has a password of its own, in files that only this user may read."""
    one, other = PrivatePostgres(18), PrivatePostgres(18)
    assert one.password != other.password
    for server in (one, other):
        assert server.passfile.stat().st_mode & 0o077 == 0
        server.close()
    first, second = PrivateMySql("mariadb"), PrivateMySql("mariadb")
    assert first.password != second.password
    assert first._users().stat().st_mode & 0o077 == 0
    for made in (first, second):
        made.close()


def test_the_demo_leaves_files_of_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """O19: it removes what an earlier demo has made and nothing else; otherwise it does not begin."""
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "demo.duckdb.backup"
    mine.write_text("mine")
    demo._make_room()
    demo._make_room()  # in the place of the one before
    assert mine.read_text() == "mine"
    demo.TARGET.unlink()
    for make in (
        lambda: demo.TARGET.write_text("mine"),
        lambda: duckdb.connect(str(demo.TARGET)).execute("CREATE TABLE t AS SELECT 42 AS n").close(),
        lambda: Path("demo.duckdb.wal").write_text("mine"),
        demo.TARGET.mkdir,
    ):
        make()
        (file,) = [path for path in tmp_path.iterdir() if path != mine]
        before = file.lstat().st_ino, file.stat().st_size, file.stat().st_mtime_ns
        with pytest.raises(UsageError, match="not from an earlier demo") as caught:
            demo._make_room()
        assert "another folder" in (caught.value.hint or "")
        assert (file.lstat().st_ino, file.stat().st_size, file.stat().st_mtime_ns) == before
        file.rmdir() if file.is_dir() else file.unlink()
    demo.TARGET.write_text("mine")
    done = cdc("demo", "--seconds", "1")
    assert done.returncode == 2, done.stderr
    assert demo.TARGET.read_text() == "mine"


def arguments(pid: int | str) -> list[str]:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def folder_of(pid: int, program: str) -> Path:
    """The folder of the server that a demo starts, as soon as this program of it runs."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if (words := arguments(child)) and words[0].endswith(f"/{program}"):
                return Path(words[words.index("-D") + 1]).parent
        time.sleep(0.002)
    raise AssertionError(f"{program} is not started")


@pytest.mark.parametrize(
    ("number", "moment"), [(signal.SIGTERM, "initdb"), (signal.SIGHUP, "postgres"), (signal.SIGTERM, "workload")]
)
def test_a_demo_that_is_ended_stops_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, moment: str
) -> None:
    """O46: neither its server nor the server's folder outlives it, whenever it is ended."""
    monkeypatch.chdir(tmp_path)
    with start("demo", "--seconds", "60") as process:
        try:
            folder = folder_of(process.pid, "initdb" if moment == "initdb" else "postgres")
            if moment == "workload":
                while "workload runs" not in process.stdout.readline():
                    pass
                time.sleep(0.5)
            process.send_signal(number)
            said = process.communicate(30)
        finally:
            process.kill()
    assert process.returncode == 128 + number, said
    assert not [pid.name for pid in Path("/proc").glob("[0-9]*") if str(folder) in " ".join(arguments(pid.name))]
    assert not folder.exists()
