"""What happens to logs, servers and connections: it goes on exactly, or stops with one clear error."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cdc.connectors import source_module
from cdc.demo.mysql import PrivateMySql
from cdc.engine.pipeline import Pipeline
from cdc.errors import CdcError, LogLost, SlotBusy, SourceBehind, SourceChanged, SourceUnfit, UsageError
from cdc.model.selection import Selection
from cdc.options import Options
from cdc.runs import open_pipeline
from cdc.sources.mysql.connection import Connection, Dsn
from integration.conftest import MySqlDatabase, Replica, make_replica
from integration.processes import cdc
from integration.tls import Authority

FLAVORS = ["mysql", "mariadb"]


class Own:
    """A server of its own with a small table, and a replica of it."""

    def __init__(self, server: PrivateMySql, folder: Path) -> None:
        self.database = MySqlDatabase(server, "own")
        server.execute(
            "CREATE DATABASE own",
            "CREATE TABLE own.t (id int PRIMARY KEY, v text)",
            "INSERT INTO own.t VALUES (1, 'x')",
        )
        self.replica = make_replica(self.database, folder)
        self.replica.catch_up()


@pytest.mark.parametrize("flavor", FLAVORS)
def test_purged_log(tmp_path: Path, flavor: str) -> None:
    """B-01: what is purged is named, and nothing goes on from what is left."""
    with PrivateMySql(flavor) as server:
        own = Own(server, tmp_path)
        own.database.execute(
            "INSERT INTO t VALUES (2, 'missed')",
            "FLUSH BINARY LOGS",
            "INSERT INTO t VALUES (3, 'y')",
            "FLUSH BINARY LOGS",
        )
        last = server.execute("SHOW BINARY LOGS")[-1][0]
        purge(server, last)
        with pytest.raises(LogLost) as caught:
            own.replica.catch_up()
        assert "binlog_expire_logs_seconds" in str(caught.value.hint)


def test_purged_log_without_gtids(tmp_path: Path) -> None:
    """B-01, B-09: the same by file and byte."""
    with PrivateMySql("mysql", {"gtid-mode": "OFF", "enforce-gtid-consistency": "OFF"}) as server:
        own = Own(server, tmp_path)
        own.database.execute("INSERT INTO t VALUES (2, 'x')")
        own.replica.catch_up()
        own.replica.assert_equal()
        assert str(own.replica.query("SELECT position FROM _cdc.checkpoint")[0][0]).startswith("binlog.0")
        own.database.execute("FLUSH BINARY LOGS", "INSERT INTO t VALUES (3, 'y')", "FLUSH BINARY LOGS")
        own.replica.catch_up()
        own.replica.assert_equal()
        own.database.execute("INSERT INTO t VALUES (4, 'y')", "FLUSH BINARY LOGS", "FLUSH BINARY LOGS")
        purge(server, server.execute("SHOW BINARY LOGS")[-1][0])
        with pytest.raises(LogLost, match="has no log file"):
            own.replica.catch_up()


@pytest.mark.parametrize("flavor", FLAVORS)
def test_log_begun_again(tmp_path: Path, flavor: str) -> None:
    """B-02, M26: the same file name with other bytes in it; also where it has more of them than before."""
    with PrivateMySql(flavor) as server:
        own = Own(server, tmp_path)
        own.database.execute("RESET BINARY LOGS AND GTIDS" if flavor == "mysql" else "RESET MASTER")
        with pytest.raises((SourceChanged, LogLost)):
            own.replica.catch_up()
        own.database.execute(*[f"INSERT INTO t VALUES ({100 + n}, REPEAT('x', 500))" for n in range(20)])
        with pytest.raises((SourceChanged, LogLost)):
            own.replica.catch_up()
        state = own.replica.query("SELECT state FROM _cdc.checkpoint")[0][0]
        status = source_module(own.database.dsn).source_status(own.database.dsn, "own", str(state), None)
        assert "other transactions" in str(status.problem) or "another log file" in str(status.problem)


def test_places_beyond_what_a_dump_can_begin_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """M12: without GTIDs a dump begins at a byte of 32 bits; a place beyond it is reached from the begin of its file. The
    limit is a small one here. Also a distributed transaction that was prepared there."""
    monkeypatch.setattr("cdc.sources.mysql.dump.FARTHEST_DUMP", 500)
    with PrivateMySql("mysql", {"gtid-mode": "OFF", "enforce-gtid-consistency": "OFF"}) as server:
        own = Own(server, tmp_path)
        own.database.execute(*[f"INSERT INTO t VALUES ({100 + n}, REPEAT('x', 500))" for n in range(20)])
        own.replica.catch_up()
        own.database.execute("DELETE FROM t WHERE id = 105", "UPDATE t SET v = 'y' WHERE id = 106")
        own.replica.catch_up()
        own.replica.assert_equal()
        own.database.execute("XA START 'x'", "INSERT INTO t VALUES (2, 'xa')", "XA END 'x'", "XA PREPARE 'x'")
        own.replica.catch_up()
        own.database.execute("XA COMMIT 'x'", "SET SESSION binlog_transaction_compression = ON", "UPDATE t SET v = 'z'")
        own.replica.catch_up()
        own.replica.assert_equal()
        own.database.execute("FLUSH BINARY LOGS", "INSERT INTO t VALUES (3, 'in the next file')")
        own.replica.catch_up()
        own.replica.assert_equal()


def test_log_begun_again_without_gtids(tmp_path: Path) -> None:
    """B-02: nothing but lengths can be compared then; a longer log is caught in the middle of an event or not at all,
    which is why `check` asks for GTIDs."""
    with PrivateMySql("mysql", {"gtid-mode": "OFF", "enforce-gtid-consistency": "OFF"}) as server:
        own = Own(server, tmp_path)
        own.database.execute(*[f"INSERT INTO t VALUES ({100 + n}, REPEAT('x', 500))" for n in range(20)])
        own.replica.catch_up()
        own.database.execute("RESET BINARY LOGS AND GTIDS")
        with pytest.raises(SourceChanged, match="of which the target has"):
            own.replica.catch_up()
        findings = source_module(own.database.dsn).check_source(own.database.dsn, Selection())
        assert any(finding.subject == "gtid_mode" for finding in findings)


def test_another_server_without_gtids(tmp_path: Path) -> None:
    """B-03: no place in one server's log can be found in another's."""
    settings = {"gtid-mode": "OFF", "enforce-gtid-consistency": "OFF"}
    with PrivateMySql("mysql", settings) as server, PrivateMySql("mysql", settings) as other:
        own = Own(server, tmp_path)
        other.execute("CREATE DATABASE own", "CREATE TABLE own.t (id int PRIMARY KEY, v text)")
        own.replica.database = MySqlDatabase(other, "own")
        with pytest.raises(SourceChanged, match="another server"):
            own.replica.catch_up()


@pytest.mark.parametrize("flavor", FLAVORS)
def test_a_file_that_was_followed_to_its_end_may_go(tmp_path: Path, flavor: str) -> None:
    """B-01: nothing of it is needed any more, although nothing has happened in the file after it."""
    with PrivateMySql(flavor) as server:
        own = Own(server, tmp_path)
        server.execute("INSERT INTO own.t VALUES (2, 'y')", "FLUSH BINARY LOGS")
        own.replica.catch_up()
        purge(server, server.execute("SHOW BINARY LOGS")[-1][0])
        own.replica.catch_up()
        server.execute("INSERT INTO own.t VALUES (3, 'z')")
        own.replica.catch_up()
        own.replica.assert_equal()


def purge(server: PrivateMySql, last: str) -> None:
    """Purge the log up to a file. A file stays for as long as the server thinks that somebody reads it."""

    def is_gone() -> bool:
        server.execute(f"PURGE BINARY LOGS TO '{last}'")
        return bool(server.execute("SHOW BINARY LOGS")[0][0] == last)

    wait_for(is_gone)


def replicate(server: PrivateMySql, replica: PrivateMySql) -> None:
    """Make one server a replica of another."""
    if server.flavor == "mysql":
        replica.execute(
            f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={server.port}, SOURCE_USER='cdc', "
            f"SOURCE_PASSWORD='{server.password}', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1",
            "START REPLICA",
        )
    else:
        replica.execute(
            f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={server.port}, MASTER_USER='cdc', "
            f"MASTER_PASSWORD='{server.password}', MASTER_USE_GTID=slave_pos",
            "START SLAVE",
        )


def wait_for(check: Callable[[], bool]) -> None:
    for _ in range(300):
        if check():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen")


@pytest.mark.parametrize("flavor", FLAVORS)
def test_failover(tmp_path: Path, flavor: str) -> None:
    """B-03, B-04, B-05, B-06: to a replica that has everything, by GTID; never to one that is behind."""
    more = {"log-slave-updates": "ON"} if flavor == "mariadb" else {}
    with PrivateMySql(flavor) as server, PrivateMySql(flavor, {"server-id": "2", **more}) as replica:
        replicate(server, replica)
        own = Own(server, tmp_path)
        wait_for(lambda: bool(replica.execute("SHOW DATABASES LIKE 'own'")))
        wait_for(lambda: replica.execute("SELECT count(*) FROM own.t") == [(1,)])
        replica.execute("STOP REPLICA" if flavor == "mysql" else "STOP SLAVE")
        own.database.execute("INSERT INTO t VALUES (2, 'the replica lacks this')")
        own.replica.catch_up()
        own.replica.database = MySqlDatabase(replica, "own")
        with pytest.raises(SourceBehind):
            own.replica.catch_up()
        replica.execute("START REPLICA" if flavor == "mysql" else "START SLAVE")
        wait_for(lambda: replica.execute("SELECT count(*) FROM own.t") == [(2,)])
        replica.execute("STOP REPLICA" if flavor == "mysql" else "STOP SLAVE")
        replica.execute("INSERT INTO own.t VALUES (3, 'promoted')", "UPDATE own.t SET v = 'y' WHERE id = 1")
        own.replica.catch_up()
        own.replica.assert_equal()
        replica.execute("INSERT INTO own.t VALUES (4, 'again')", "FLUSH BINARY LOGS", "DELETE FROM own.t WHERE id = 2")
        own.replica.catch_up()
        own.replica.assert_equal()


@pytest.mark.parametrize("flavor", FLAVORS)
def test_restart_of_the_server(tmp_path: Path, flavor: str) -> None:
    """B-07, B-08, B-45: a crash and a restart, with table numbers that mean other tables afterwards."""
    with PrivateMySql(flavor) as server:
        own = Own(server, tmp_path)
        own.database.execute(
            "CREATE TABLE a (x varchar(10) PRIMARY KEY)",
            "CREATE TABLE b (y double)",
            "INSERT INTO a VALUES ('a')",
            "INSERT INTO b VALUES (1.5)",
            "UPDATE t SET v = 'b'",
        )
        pipeline = run_beside(own.replica)
        try:
            for how in (signal.SIGTERM, signal.SIGKILL):
                server.restart(how)
                own.database.execute(
                    "INSERT INTO b VALUES (2.5)", f"INSERT INTO a VALUES ('{how}')", "UPDATE t SET v = 'c'"
                )
        finally:
            time.sleep(1.5)
            stop(pipeline)
        own.replica.catch_up()
        own.replica.assert_equal()


def run_beside(replica: Replica) -> tuple[Pipeline, threading.Thread, list[CdcError]]:
    options = Options(name=replica.options.name, selection=replica.options.selection)
    pipeline = open_pipeline(replica.database.dsn, replica.target, options)
    failures: list[CdcError] = []

    def body() -> None:
        try:
            pipeline.run()
        except CdcError as error:
            failures.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    wait_for(lambda: pipeline.view().phase == "streaming" or bool(failures))
    return pipeline, thread, failures


def stop(running: tuple[Pipeline, threading.Thread, list[CdcError]]) -> None:
    pipeline, thread, failures = running
    pipeline.stop()
    thread.join()
    assert failures == []


class Proxy:
    """Passes bytes between a port and a server; cuts connections, or lets them hang, when asked to."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.hangs = False
        self.flips: bytes | None = None
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server))
            self._sockets += [client, server]
            for source, sink, back in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pass, args=(source, sink, back), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, back: bool) -> None:
        try:
            while data := source.recv(65536):
                while self.hangs:
                    time.sleep(0.05)
                if back and self.flips is not None and (at := data.find(self.flips)) >= 0:
                    data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def cut(self) -> None:
        """End all connections."""
        for end in self._sockets:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._sockets = []


def through(proxy: Proxy, database: MySqlDatabase) -> str:
    server = database.server
    user = f"cdc:{server.password}"
    return f"{database.flavor}://{user}@127.0.0.1:{proxy.port}/{database.name}?" + "&".join(server.without_tls)


def test_cut_connections(my: MySqlDatabase, tmp_path: Path) -> None:
    """B-07, B-08, B-10: connections are cut again and again under load; nothing is lost, nothing comes twice."""
    my.execute("CREATE TABLE t (id int PRIMARY KEY, v int)", "CREATE TABLE k (n int)")
    replica = make_replica(my, tmp_path)
    replica.catch_up()
    proxy = Proxy(my.server.port)
    options = Options(name=my.name)
    pipeline = open_pipeline(through(proxy, my), replica.target, options)
    thread = threading.Thread(target=pipeline.run, daemon=True)
    thread.start()
    with my.connect() as connection, connection.cursor() as cursor:
        for number in range(300):
            cursor.execute("BEGIN")
            cursor.execute(f"INSERT INTO t VALUES ({number}, 0), ({number + 1000}, 0)")
            cursor.execute(f"UPDATE t SET v = v + 1 WHERE id % 10 = {number % 10}")
            cursor.execute(f"INSERT INTO k VALUES ({number % 7}), ({number})")
            cursor.execute("COMMIT")
            if number % 60 == 30:
                proxy.cut()
                time.sleep(0.3)
    time.sleep(1)
    pipeline.stop()
    thread.join()
    replica.catch_up()
    replica.assert_equal()


def test_half_open_connection(my: MySqlDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B-12: a connection on which nothing comes any more, not even a heartbeat, is given up and opened again."""
    from cdc.sources.mysql import stream

    monkeypatch.setattr(stream, "SILENT_FOR", 2.5)
    my.execute("CREATE TABLE t (id int PRIMARY KEY)")
    replica = make_replica(my, tmp_path)
    replica.catch_up()
    proxy = Proxy(my.server.port)
    pipeline = open_pipeline(through(proxy, my), replica.target, Options(name=my.name))
    thread = threading.Thread(target=pipeline.run, daemon=True)
    thread.start()
    wait_for(lambda: pipeline.view().phase == "streaming")
    time.sleep(3.5)
    assert pipeline.view().failure is None, "an idle connection was taken for a dead one"
    dead, proxy.port = proxy, 0
    dead.hangs = True
    wait_for(lambda: pipeline.view().phase == "waiting")
    assert any(word in str(pipeline.view().failure) for word in ("said nothing", "Lost connection"))
    dead.hangs = False
    pipeline.stop()
    thread.join()


def test_damaged_event(my: MySqlDatabase, tmp_path: Path) -> None:
    """B-14: a flipped bit is found by the checksum, and nothing of the event is applied."""
    my.execute("CREATE TABLE t (id int PRIMARY KEY, v longtext)")
    replica = make_replica(my, tmp_path)
    replica.catch_up()
    my.execute("INSERT INTO t VALUES (1, REPEAT('x', 300000))")
    proxy = Proxy(my.server.port)
    proxy.flips = b"x" * 1000
    with pytest.raises(CdcError, match="checksum"):
        open_pipeline(through(proxy, my), replica.target, replica.options).run()
    assert replica.query("SELECT count(*) FROM t") == [(0,)]
    proxy.cut()  # a server that still writes to the connection lets the next reader wait
    replica.catch_up()
    replica.assert_equal()


def test_server_id(my: MySqlDatabase, tmp_path: Path) -> None:
    """B-11: kept from run to run; who comes with the same one ends the other, which says so."""
    my.execute("CREATE TABLE t (id int PRIMARY KEY)")
    replica = make_replica(my, tmp_path)
    replica.catch_up()
    before = replica.query("SELECT state FROM _cdc.checkpoint")
    copy = tmp_path / "copy.duckdb"
    copy.write_bytes(replica.path.read_bytes())
    running = run_beside(replica)
    other = Replica(my, copy, replica.options)
    rival = run_beside(other)
    time.sleep(3)
    my.execute("INSERT INTO t VALUES (1)")
    wait_for(
        lambda: (
            not running[1].is_alive()
            or not rival[1].is_alive()
            or running[0].view().failure is not None
            or rival[0].view().failure is not None
        )
    )
    texts = [str(f) for r in (running, rival) for f in [*r[2], r[0].view().failure] if f]
    assert any("server id of this pipeline" in text for text in texts), texts
    for one in (running, rival):
        one[0].stop()
        one[1].join()
        assert all(isinstance(failure, SlotBusy) for failure in one[2])
    assert '"server_id":' in str(before)


def test_prepared_before_the_copy(my: MySqlDatabase, tmp_path: Path) -> None:
    """B-28: a transaction that is prepared is in no copy, and its rows are in the log before it."""
    my.execute(
        "CREATE TABLE t (id int PRIMARY KEY)",
        "XA START 'x'",
        "INSERT INTO t VALUES (1)",
        "XA END 'x'",
        "XA PREPARE 'x'",
    )
    try:
        with pytest.raises(UsageError, match="prepared and not committed: 'x'"):
            make_replica(my, tmp_path).catch_up()
    finally:
        my.execute("XA ROLLBACK 'x'")


def test_prepared_before_the_copy_and_unseen(on_mysql: MySqlDatabase, tmp_path: Path) -> None:
    """B-28: a user who may not ask for prepared transactions begins; where one is committed that the log had before, each
    table is compared with the source."""
    on_mysql.execute("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    prepared = (
        "XA START 'x'",
        "INSERT INTO t VALUES (2)",
        "UPDATE t SET id = 3 WHERE id = 1",
        "XA END 'x'",
        "XA PREPARE 'x'",
    )
    on_mysql.execute(*prepared)
    user = f"u_{on_mysql.name}"
    rights = "REPLICATION SLAVE, REPLICATION CLIENT, RELOAD, LOCK TABLES, SELECT"
    on_mysql.execute(f"CREATE USER {user} IDENTIFIED BY 'pw'", f"GRANT {rights} ON *.* TO {user}")
    replica = make_replica(on_mysql, tmp_path)
    dsn = on_mysql.server.dsn(on_mysql.name, user, "pw")
    try:
        open_pipeline(dsn, replica.target, replica.options).run()
        assert replica.query("SELECT id FROM t") == [(1,)]
        on_mysql.execute("XA COMMIT 'x'", "INSERT INTO t VALUES (4)")
        open_pipeline(dsn, replica.target, replica.options).run()
        replica.assert_equal()
        assert replica.query("SELECT id FROM t ORDER BY id") == [(2,), (3,), (4,)]
    finally:
        if on_mysql.execute("XA RECOVER"):
            on_mysql.execute("XA ROLLBACK 'x'")  # it keeps everybody from the table
        on_mysql.execute(f"DROP USER {user}")


def test_a_rollback_that_some_engine_does_not_take_part_in(on_mariadb: MySqlDatabase, tmp_path: Path) -> None:
    """B-29: the log has the rows that were rolled back, and ROLLBACK TO: the tables are compared."""
    on_mariadb.execute(
        "CREATE TABLE t (id int PRIMARY KEY)",
        "CREATE TABLE other (id int PRIMARY KEY)",
        "CREATE TABLE m (id int PRIMARY KEY) ENGINE = MyISAM",
    )
    replica = make_replica(on_mariadb, tmp_path)
    replica.catch_up()
    ((before,),) = on_mariadb.execute("SELECT @@gtid_binlog_pos")
    on_mariadb.execute(
        *("BEGIN", "INSERT INTO t VALUES (1)", "SAVEPOINT s"),
        *("INSERT INTO t VALUES (2), (3)", "INSERT INTO m VALUES (1)", "ROLLBACK TO s"),
        *("INSERT INTO t VALUES (4)", "INSERT INTO other VALUES (1)", "COMMIT"),
    )
    pipeline = open_pipeline(on_mariadb.dsn, replica.target, replica.options)
    pipeline.run()
    replica.assert_equal()
    assert replica.query("SELECT id FROM t ORDER BY id") == [(1,), (4,)]
    assert replica.query("SELECT id FROM m") == [(1,)]
    different = {name.name: entry.different for name, entry in pipeline.view().tables.items()}
    assert different["t"] == 1  # the first one, which was skipped with those that were rolled back
    assert not different.get("other")
    tailed = cdc("tail", on_mariadb.dsn, "--from", str(before), "--until-caught-up")
    assert tailed.returncode == 3
    assert "mixes engines" in tailed.stderr


def test_no_log(tmp_path: Path) -> None:
    """B-15: a server without a log, and what `check` says of one that is set up badly."""
    with PrivateMySql("mariadb", {"skip-log-bin": "1"}) as server:
        server.execute("CREATE DATABASE own", "CREATE TABLE own.t (id int PRIMARY KEY)")
        with pytest.raises(UsageError, match="writes no binary log"):
            make_replica(MySqlDatabase(server, "own"), tmp_path).catch_up()


def test_secure_transport(tmp_path: Path) -> None:
    """B-15: TLS and caching_sha2_password, required by the server."""
    with PrivateMySql("mysql") as server:
        own = Own(server, tmp_path)
        server.execute("SET GLOBAL require_secure_transport = ON")
        plain = server.dsn("own").replace(f"ssl_ca={server.data}/ca.pem", "&".join(server.without_tls))
        with pytest.raises(UsageError) as caught:
            open_pipeline(plain, own.replica.target, own.replica.options).run()
        assert "ssl_mode=required" in str(caught.value.hint)
        options = own.replica.options
        dsn = own.database.dsn + "&ssl_mode=required"
        with server.administrator() as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO own.t VALUES (2, 'over TLS')")
        open_pipeline(dsn, own.replica.target, options).run()
        assert own.replica.query("SELECT count(*) FROM t") == [(2,)]


def test_a_named_authority_is_the_servers(mysql: PrivateMySql, tmp_path: Path) -> None:
    """B-15, M25: a user who names an authority means that it has signed the server's certificate, whatever the mode."""
    other = Authority(tmp_path, "somebody else").file
    own = str(mysql.data / "ca.pem")
    assert own in mysql.dsn()
    for mode in ("", "&ssl_mode=preferred", "&ssl_mode=required", "&ssl_mode=verify_ca"):
        with Connection(Dsn.parse(mysql.dsn() + mode), "test") as connection:
            assert connection.record("SHOW STATUS LIKE 'Ssl_cipher'")["value"]
        with pytest.raises(UsageError, match="certificate"):
            Connection(Dsn.parse(mysql.dsn().replace(own, str(other)) + mode), "test")
    with pytest.raises(UsageError, match="contradict"):
        Dsn.parse(f"{mysql.dsn()}&ssl_mode=disabled")


def test_least_rights(my: MySqlDatabase, tmp_path: Path) -> None:
    """C-10: a user without RELOAD locks the tables it copies; one who may do nothing learns what is missing."""
    my.execute("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    user = f"u_{my.name}@'127.0.0.1'"
    client = "BINLOG MONITOR" if my.flavor == "mariadb" else "REPLICATION CLIENT"
    my.execute(f"CREATE USER {user} IDENTIFIED BY 'pw'", f"GRANT SELECT, LOCK TABLES ON {my.name}.* TO {user}")
    dsn = my.server.dsn(my.name, f"u_{my.name}", "pw")
    replica = make_replica(my, tmp_path)
    with pytest.raises((UsageError, SourceUnfit), match=r"REPLICATION SLAVE|may not|denied"):
        open_pipeline(dsn, replica.target, replica.options).run()
    fixes = [f.fix or "" for f in source_module(dsn).check_source(dsn, Selection())]
    assert any("REPLICATION SLAVE" in fix for fix in fixes)
    my.execute(f"GRANT REPLICATION SLAVE, {client} ON *.* TO {user}")
    open_pipeline(dsn, replica.target, replica.options).run()
    replica.assert_equal()
    my.execute("INSERT INTO t VALUES (2)")
    open_pipeline(dsn, replica.target, replica.options).run()
    replica.assert_equal()
