"""Each version of each server: everything once, with a restart of the server and a kill -9 in the middle."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from cdc.connectors import source_module
from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from cdc.demo.shop import Workload
from cdc.model.selection import Selection
from cdc.sources.findings import Severity
from integration.conftest import Database, MySqlDatabase, Replica, make_replica
from integration.mysql_work import make_tables, start_work
from integration.test_kill import make_shop, start
from integration.test_mysql_types import BOTH, both_paths
from integration.test_types import SETUP
from tests.seeds import one_of

POSTGRES = [13, 14, 15, 16, 17, 18]
SOME_POSTGRES = [*one_of(*POSTGRES[:-1]), POSTGRES[-1]]
MYSQL = ["mysql-5.6", "mysql", "mariadb", "mariadb-sid"]

# type -> two values, and the first version that has it
MATRIX: dict[str, tuple[str, str, int]] = {
    "smallint": ("-32768", "7", 13),
    "bigint": ("9223372036854775807", "0", 13),
    "xid8": ("18446744073709551615", "1", 13),
    "numeric(12,2)": ("NaN", "-0.01", 13),
    "numeric(3,-2)": ("99900", "-100", 15),
    "numeric(2,4)": ("0.0099", "0", 15),
    "numeric": ("12345678901234567890.12345678901234567890", "-1e-20", 13),
    "real": ("1.1", "-Infinity", 13),
    "double precision": ("0.30000000000000004", "5e-324", 13),
    "boolean": ("t", "f", 13),
    "text": ("é😀\t\\N\n", "", 13),
    "char(5)": ("a", "", 13),
    '"char"': ("x", "'", 13),
    "bytea": ("\\x00ff5c", "\\x", 13),
    "date": ("4713-01-01 BC", "2026-02-01", 13),
    "time": ("24:00:00", "01:02:03.000004", 13),
    "timetz": ("12:00:00+05:45", "00:00:00-08", 13),
    "timestamp": ("infinity", "2026-02-01 12:00:00.5", 13),
    "timestamptz": ("2026-02-01 12:00:00.5+05:45", "0001-01-01 00:00:00+00", 13),
    "interval": ("1 mon -2 days 03:00:00.000001", "-1 year", 13),
    "uuid": ("00112233-4455-6677-8899-aabbccddeeff", "ffffffff-ffff-ffff-ffff-ffffffffffff", 13),
    "json": ('{"a": 1, "a":2}', "null", 13),
    "jsonb": ('{"n": 12345678901234567890.5}', "[]", 13),
    "int[]": ("{{1,2},{3,NULL}}", "[0:1]={1,2}", 13),
    "text[]": ('{a,"b,c",NULL,"NULL"}', "{}", 13),
    "mood": ("so so", 'it\'s "fine"', 13),
    "cents": ("-0.01", "12", 13),
    "pair": ('(1,"a b")', "(,)", 13),
    "int4range": ("[1,5)", "empty", 13),
    "int4multirange": ("{[1,3),[7,9)}", "{}", 14),
    "bit(5)": ("10101", "00000", 13),
    "inet": ("10.0.0.1/8", "::1", 13),
    "money": ("-92233720368547758.08", "1", 13),
    "tsvector": ("a:1 'b c':2", "", 13),
}


def follow(replica: Replica, *statements: str) -> None:
    """Run statements, each in a transaction of its own, and let the target have them."""
    for statement in statements:
        replica.database.execute(statement)
    replica.catch_up()
    replica.assert_equal()


def kill_in_the_middle(replica: Replica) -> None:
    """kill -9 once something was applied, under whatever load there is."""
    process = start(replica)
    assert process.stderr is not None
    while "phase=streaming" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def nothing_fatal(replica: Replica) -> None:
    findings = source_module(replica.database.dsn).check_source(replica.database.dsn, Selection())
    assert [finding for finding in findings if finding.severity is Severity.FATAL] == []


@pytest.mark.parametrize("version", POSTGRES)
def test_postgresql(version: int, tmp_path: Path) -> None:
    """A-37 to A-48, A-80, C-07, D-19: on every major version."""
    with PrivatePostgres(version) as server:
        server.create_database("v")
        database = Database(server, "v")
        replica = make_replica(database, tmp_path)
        types = {kind: values for kind, (*values, since) in MATRIX.items() if since <= version}
        columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(types))

        def rows(first: int) -> str:
            columns = [
                ", ".join("'" + v[n].replace("'", "''") + f"'::{kind}" for kind, v in types.items()) for n in (0, 1)
            ]
            nulls = ", ".join(["NULL"] * len(types))
            return f"INSERT INTO t VALUES ({first}, {columns[0]}), ({first + 1}, {columns[1]}), ({first + 2}, {nulls})"

        database.execute(
            f"""
            {SETUP} CREATE TABLE t (id int PRIMARY KEY, {columns});
            CREATE TABLE big (id int PRIMARY KEY, n int, v text); ALTER TABLE big ALTER v SET STORAGE EXTERNAL;
            CREATE TABLE whole (a int, b text); ALTER TABLE whole REPLICA IDENTITY FULL;
            CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
            CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
            CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (1000);
            CREATE TABLE made (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, v int);
            INSERT INTO big SELECT i, i, repeat(md5(i::text), 200) FROM generate_series(1, 50) i;
            INSERT INTO whole VALUES (1, 'x'), (1, 'x'), (2, NULL); INSERT INTO parts VALUES (1, 'a'), (200, 'b');
            INSERT INTO made VALUES (1, DEFAULT, 1);
            """
        )
        database.execute(rows(1))
        nothing_fatal(replica)
        follow(replica)
        follow(replica, rows(11))
        assert replica.query("SELECT count(DISTINCT columns('c.*')) FROM t WHERE id IN (1, 11)") == [(1,) * len(types)]
        follow(
            replica,
            "UPDATE t SET id = id + 100 WHERE id < 3; DELETE FROM t WHERE id = 3",
            "UPDATE big SET n = n + 1; UPDATE big SET id = id + 1000 WHERE id = 7; UPDATE big SET v = 'short' WHERE id = 8",
            "DELETE FROM whole WHERE ctid = (SELECT min(ctid) FROM whole); UPDATE whole SET b = 'y' WHERE a = 2",
            "UPDATE parts SET id = 300 WHERE id = 1; INSERT INTO parts VALUES (5, 'c')",
            "INSERT INTO made VALUES (2, DEFAULT, 2); UPDATE made SET id = 9 WHERE id = 1",
        )
        server.restart()
        follow(
            replica,
            "BEGIN; TRUNCATE whole; INSERT INTO whole VALUES (9, 'after'); COMMIT",
            "ALTER TABLE big ADD COLUMN w int DEFAULT 7; UPDATE big SET w = 8 WHERE id < 4",
        )
        follow(replica, "ALTER TABLE big RENAME n TO m; INSERT INTO big VALUES (77, 1, 'x', 2)")
        follow(
            replica,
            "ALTER TABLE big DROP COLUMN w; INSERT INTO big VALUES (78, 1, 'y')",
            "CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)",
            "BEGIN; INSERT INTO later VALUES (2); SAVEPOINT s; INSERT INTO later VALUES (3); ROLLBACK TO s; COMMIT",
        )
        make_shop(database, 500)
        work = Workload(database.dsn, rate=1000)
        work.start()
        kill_in_the_middle(replica)
        work.stop()
        assert work.changes > 0
        follow(replica)


@pytest.mark.parametrize("edition", MYSQL)
def test_mysql_and_mariadb(edition: str, tmp_path: Path) -> None:
    """B-40, B-42, B-48, B-50, D-19: on the oldest and the newest of each that there is."""
    with PrivateMySql(edition) as server:
        server.create_database("v")
        database = MySqlDatabase(server, "v")
        types = {kind: values for kind, values in BOTH.items() if edition != "mysql-5.6" or kind != "json"}
        both_paths(database, tmp_path, types)
        (tmp_path / "v.duckdb").unlink()
        database.execute("DROP TABLE v")
        database.execute(
            "CREATE TABLE t (id int PRIMARY KEY, n int, v text, UNIQUE (n))",
            "CREATE TABLE k (a int, b varchar(20))",
            "INSERT INTO t VALUES (1, 1, 'é'), (2, 2, NULL), (3, NULL, REPEAT('x', 5000))",
            "INSERT INTO k VALUES (1, 'x'), (1, 'x'), (2, NULL)",
        )
        replica = make_replica(database, tmp_path)
        nothing_fatal(replica)
        follow(replica)
        follow(
            replica,
            "INSERT INTO t VALUES (4, 4, 'four')",
            "UPDATE t SET v = UPPER(v)",
            "UPDATE t SET id = id + 10",
            "REPLACE INTO t VALUES (12, 1, 'hits both')",
            "DELETE FROM t WHERE id = 13",
            "DELETE FROM k WHERE a = 1 LIMIT 1",
            "UPDATE k SET b = 'y' WHERE a = 2",
        )
        server.restart()
        follow(
            replica,
            "TRUNCATE k",
            "INSERT INTO k VALUES (9, 'after')",
            "ALTER TABLE t ADD w int NOT NULL DEFAULT 7",
            "UPDATE t SET w = 8 WHERE id = 12",
            "ALTER TABLE t CHANGE n m int",
            "INSERT INTO t VALUES (77, 77, 'x', 2)",
            "ALTER TABLE t DROP w, ADD x varchar(10) FIRST",
            "INSERT INTO t VALUES ('x', 78, 78, 'y')",
            "CREATE TABLE later (id int PRIMARY KEY)",
            "INSERT INTO later VALUES (1)",
            "ALTER TABLE t MODIFY x varchar(20) CHARACTER SET latin1",
            "RENAME TABLE later TO latest",
            "INSERT INTO latest VALUES (2)",
        )
        make_tables(database, 500)
        work = start_work(database, 1)
        kill_in_the_middle(replica)
        work.stop()
        assert work.changes > 0
        follow(replica)
