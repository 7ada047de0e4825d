"""Damaged bytes: what finds them, with TLS and without; and that TLS is what it was asked to be.

`CDC_PROXY_POINTS=1000` damages more places, `CDC_SEED` repeats a run.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from cdc.errors import CdcError, UsageError
from integration.conftest import Database, MySqlDatabase, make_database, make_my
from integration.line import Line, Running, fill, write
from integration.proxy import FaultProxy
from integration.tls import Authority, TlsFront
from tests.seeds import SEED, chosen_at_random

POINTS = int(os.environ.get("CDC_PROXY_POINTS", "12"))
GROWTH = 400 << 10  # kB that the memory may grow by, whatever length a damaged message claims


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH


@pytest.mark.loses_shapes  # a damaged catalog tells another one
@pytest.mark.usefixtures("little_patience", "bounded_memory")
def test_flips_anywhere(bad_source: Database | MySqlDatabase, tmp_path: Path) -> None:
    """E-16: a bit of a whole session is turned around: it comes through or ends in one error; no hang, no traceback.

    Without TLS a flipped bit inside a copied value, or one of PostgreSQL's stream, is a value like any other to its
    reader, so that nothing is said here of the target.
    """
    rng = chosen_at_random()
    with FaultProxy(bad_source.server.port) as whole:
        line = Line.make(whole, bad_source, tmp_path)
        line.come_through()
        write(bad_source)
        line.come_through()
        line.end()
    flipped = 0
    count = max(4, POINTS // 4)
    for number in range(count):
        with FaultProxy(bad_source.server.port) as proxy:
            line = Line.make(proxy, bad_source, tmp_path)
            line.dsn += "&connect_timeout=3"
            way, length = (proxy.down, whole.down.passed) if number % 4 else (proxy.up, whole.up.passed)
            at, bit = rng.randrange(int(length * 0.9)), rng.randrange(8)
            way.flips = {at: bit}
            for _ in range(2):
                running = Running.start(line.pipeline())
                running.thread.join(90)
                where = f"bit {bit} of byte {at} {'down' if number % 4 else 'up'}, CDC_SEED={SEED}"
                assert not running.thread.is_alive(), f"hangs after {where}"
                assert all(isinstance(failure, CdcError) for failure in running.failures), (where, running.failures)
                write(bad_source)
            flipped += way.flipped
            line.forget()
    assert flipped  # sessions differ in length, so that not all places are reached


@pytest.mark.usefixtures("little_patience", "bounded_memory")
def test_flips_in_the_binlog(my: MySqlDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B-14, E-16: wherever in what is streamed, lengths and checksums included: never a wrong value, never a missing row."""
    monkeypatch.setattr("cdc.sources.mysql.source._LOOK_EVERY", 1e9)  # so that nothing but the log passes
    monkeypatch.setattr("cdc.engine.pipeline._LONGEST_WAIT", 0.3)
    fill(my)
    rng = chosen_at_random()
    noticed = 0
    count = max(4, POINTS // 4)
    with FaultProxy(my.server.port) as proxy:
        line = Line.make(proxy, my, tmp_path)
        line.come_through()
        for _ in range(count):
            running = Running.start(line.pipeline(until_caught_up=False))
            running.until_streaming()
            write(my, 1)
            running.until_applied(1)
            at, bit = rng.randrange(3000), rng.randrange(8)
            proxy.down.flips = {proxy.down.passed + at: bit}
            while not proxy.down.flipped:
                write(my, 2)
            proxy.down.flipped = 0
            write(my, 1)
            applied = running.pipeline.view().transactions_applied + 1
            running.until(
                lambda r=running, n=applied: r.troubled or r.pipeline.view().transactions_applied >= n, "noticed"
            )
            noticed += running.troubled
            running.stop()
            assert all(isinstance(failure, CdcError) for failure in running.failures), running.failures
            line.replica.catch_up()
            line.replica.assert_equal()
    assert noticed > count // 2  # of the rest, a number of a packet or a heartbeat was hit, which carry nothing
    line.end()


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    """The one that signed the servers' certificates, and one that did not."""
    folder = tmp_path_factory.mktemp("authorities")
    return Authority(folder, "ours"), Authority(folder, "theirs")


@dataclass
class SecureServer:
    """A server whose certificate is for `localhost`, and the port where it speaks TLS."""

    server: PrivatePostgres | PrivateMySql
    port: int
    front: TlsFront | None = None


@pytest.fixture(scope="module", params=["postgres", "mysql", "mariadb"])
def secure_server(
    request: pytest.FixtureRequest, authorities: tuple[Authority, Authority], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SecureServer]:
    folder = tmp_path_factory.mktemp("certificate")
    authorities[0].issue("localhost", folder)
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        with TlsFront(server.port, folder) as front:
            yield SecureServer(server, front.port, front)
        return
    files = {"ssl-cert": f"{folder}/server.pem", "ssl-key": f"{folder}/server.key", "ssl-ca": str(authorities[0].file)}
    with PrivateMySql(request.param, files) as made:
        yield SecureServer(made, made.port)


@pytest.fixture
def secure(secure_server: SecureServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database | MySqlDatabase]:
    monkeypatch.setattr("cdc.engine.pipeline._LONGEST_WAIT", 0.3)
    server = secure_server.server
    for database in make_database(server) if isinstance(server, PrivatePostgres) else make_my(server):
        fill(database)
        yield database


def verified(database: Database | MySqlDatabase, authority: Authority) -> list[str]:
    """Options of a DSN that asks for a certificate of this authority, for the host's name."""
    if isinstance(database, Database):
        return ["sslmode=verify-full", f"sslrootcert={authority.file}"]
    return ["ssl_mode=verify_identity", f"ssl_ca={authority.file}"]


@pytest.fixture
def secure_line(
    secure_server: SecureServer,
    secure: Database | MySqlDatabase,
    authorities: tuple[Authority, Authority],
    tmp_path: Path,
) -> Iterator[Line]:
    """A replica through TLS that is verified."""
    with FaultProxy(secure_server.port) as proxy:
        line = Line.make(proxy, secure, tmp_path, *verified(secure, authorities[0]))
        line.dsn = line.dsn.replace("127.0.0.1", "localhost")
        yield line


def test_certificates(secure_line: Line, authorities: tuple[Authority, Authority]) -> None:
    """E-05: the right name and authority are let through; a wrong name and a wrong authority are not."""
    ours, theirs = authorities
    secure_line.come_through()
    secure_line.end()
    dsn = secure_line.dsn
    for wrong in (dsn.replace("localhost", "127.0.0.1"), dsn.replace(str(ours.file), str(theirs.file))):
        assert wrong != dsn
        secure_line.dsn = wrong
        with pytest.raises(UsageError, match="certificate"):
            secure_line.pipeline().run()


def test_tls_that_is_asked_for_is_had(bad_source: Database | MySqlDatabase, proxy: FaultProxy, tmp_path: Path) -> None:
    """E-05: somebody who stands between and takes the offer of TLS out of the greeting is found out."""
    if isinstance(bad_source, Database):  # this server has no TLS
        line = Line.make(proxy, bad_source, tmp_path, "sslmode=require")
    else:
        line = Line.make(proxy, bad_source, tmp_path, "ssl_mode=required")
        if bad_source.flavor == "mysql":  # which has made itself a certificate
            # Behind the length, a number, the version with a zero, 4 bytes of an id, 8 of a salt and a zero: two bytes
            # of capabilities, of which TLS is 0x0800.
            version = bad_source.execute("SELECT version()")[0][0]
            proxy.down.flips = {4 + 1 + len(version) + 1 + 4 + 8 + 1 + 1: 3}
    with pytest.raises(UsageError, match=r"(?i)ssl|encryption"):
        line.pipeline().run()


@pytest.mark.usefixtures("little_patience", "bounded_memory")
def test_flips_under_tls(secure_line: Line) -> None:
    """E-05, E-16: with TLS every flipped bit is noticed, by both protocols, and what comes out is equal."""
    rng = chosen_at_random()
    line, way = secure_line, secure_line.proxy.down
    line.come_through()
    for _ in range(max(4, POINTS // 6)):
        running = Running.start(line.pipeline(until_caught_up=False))
        running.until_streaming()
        write(line.replica.database, 1)
        running.until_applied(1)  # all connections are there: a greeting comes before TLS
        way.flipped, way.flips = 0, {way.passed + rng.randrange(3000): rng.randrange(8)}
        while not way.flipped:
            write(line.replica.database, 2)
        running.until(lambda r=running: r.troubled, "noticed")
        running.stop()
        assert running.failures == []
        line.replica.catch_up()
        line.replica.assert_equal()
    line.end()


def test_long_rows_under_tls(secure_line: Line) -> None:
    """E-05: a value that fills more than one read of the client's library, and then nothing more, is not waited for."""
    line = secure_line
    line.come_through()
    running = Running.start(line.pipeline(until_caught_up=False))
    running.until_streaming()
    for number, length in enumerate((8000, 12000, 16300, 16380, 24000, 60_000), start=1):
        line.replica.database.execute(f"INSERT INTO accounts VALUES ({1000 + number}, 0, repeat('x', {length}))")
        running.until_applied(number)
    running.stop()
    assert running.failures == []
    line.end()


@pytest.mark.parametrize("secure_server", ["postgres"], indirect=True)
def test_rotated_certificate(
    secure_server: SecureServer, secure_line: Line, authorities: tuple[Authority, Authority], tmp_path: Path
) -> None:
    """E-11, E-05: a certificate that is not accepted any more stops a pipeline that runs; it does not try without end."""
    assert secure_server.front is not None
    theirs, line = authorities[1], secure_line
    line.come_through()
    running = Running.start(line.pipeline(until_caught_up=False))
    running.until_streaming()
    theirs.issue("localhost", tmp_path)
    secure_server.front.context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    line.proxy.cut()
    running.until(lambda: not running.thread.is_alive(), "stopped")
    assert [type(failure) for failure in running.failures] == [UsageError]
    line.end()
