"""What applications and administrators do to MySQL and MariaDB, and that the target is equal afterwards."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from cdc.errors import CdcError
from cdc.sources.mysql import alter
from integration.conftest import MySqlDatabase, Replica, make_replica
from integration.test_kill import start
from tests.seeds import some


def make_table(database: MySqlDatabase, more: str = "") -> None:
    database.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, a varchar(100), b int, c text, UNIQUE KEY (b)) {more}",
        "INSERT INTO t VALUES (1, 'one', 1, 'first'), (2, 'two', 2, NULL), (3, 'three', 3, REPEAT('x', 3000))",
    )


def follow(replica: Replica, *statements: str) -> None:
    """Run statements and let the target have them."""
    replica.database.execute(*statements)
    replica.catch_up()
    replica.assert_equal()


def test_changes(my: MySqlDatabase, my_replica: Replica) -> None:
    """B-48: inserts, updates, deletes, moved and swapped keys, REPLACE and ON DUPLICATE KEY."""
    make_table(my)
    follow(my_replica)
    follow(
        my_replica,
        "INSERT INTO t VALUES (4, 'four', 4, '')",
        "UPDATE t SET a = UPPER(a) WHERE id < 3",
        "DELETE FROM t WHERE id = 3",
    )
    follow(my_replica, "UPDATE t SET id = id + 10", "UPDATE t SET id = id - 10 ORDER BY id")
    follow(
        my_replica,
        "UPDATE t SET id = 100 WHERE id = 1",
        "UPDATE t SET id = 1 WHERE id = 2",
        "UPDATE t SET id = 2 WHERE id = 100",
    )
    follow(
        my_replica, "REPLACE INTO t VALUES (3, 'x', 2, 'hits the other key')", "REPLACE INTO t VALUES (1, 'y', 4, NULL)"
    )
    follow(my_replica, "INSERT INTO t VALUES (3, 'z', 9, '') ON DUPLICATE KEY UPDATE c = 'again'")
    follow(
        my_replica,
        "BEGIN",
        "INSERT INTO t VALUES (7, 'a', 70, '')",
        "SAVEPOINT s",
        "DELETE FROM t",
        "ROLLBACK TO s",
        "COMMIT",
    )
    follow(my_replica, "BEGIN", "DELETE FROM t", "ROLLBACK")
    follow(my_replica, "DELETE FROM t")


@pytest.mark.parametrize("image", ["MINIMAL", "NOBLOB", "FULL"])
def test_row_images(my: MySqlDatabase, my_replica: Replica, image: str) -> None:
    """B-24: a session may choose how much of a row is logged; what was left out keeps its value."""
    make_table(my)
    follow(my_replica)
    follow(
        my_replica,
        f"SET SESSION binlog_row_image = '{image}'",
        "UPDATE t SET a = 'new' WHERE id = 1",
        "UPDATE t SET c = 'changed' WHERE id = 3",
        "UPDATE t SET id = 30, b = NULL WHERE id = 3",
        "UPDATE t SET a = 'moved' WHERE id = 30",
        "INSERT INTO t VALUES (5, 'five', 5, 'x'), (6, 'six', 6, NULL)",
        "INSERT INTO t (id, a, b, c) VALUES (7, NULL, NULL, NULL)",
        "DELETE FROM t WHERE id = 2",
        "INSERT INTO t VALUES (2, 'again', 2, 'x')",
        "UPDATE t SET b = b + 100",
    )


@pytest.mark.parametrize("image", ["MINIMAL", "NOBLOB", "FULL"])
def test_generated_columns(my: MySqlDatabase, my_replica: Replica, image: str) -> None:
    """B-24, B-46: stored and virtual ones are in the log, with and without the names of columns."""
    my.execute(
        "CREATE TABLE g (id int PRIMARY KEY, s int AS (w * 2) STORED, v int AS (w + 1) VIRTUAL, w int, x int)",
        "INSERT INTO g (id, w, x) VALUES (1, 5, 1), (2, 6, 2), (3, NULL, 3)",
    )
    follow(my_replica)
    usual = "MINIMAL" if my.flavor == "mysql" else "NO_LOG"
    try:
        for metadata in (usual, "FULL"):
            my.execute(f"SET GLOBAL binlog_row_metadata = '{metadata}'")
            follow(
                my_replica,
                f"SET SESSION binlog_row_image = '{image}'",
                "UPDATE g SET w = w + 10 WHERE id = 1",
                "UPDATE g SET x = 9 WHERE id = 2",
                "UPDATE g SET id = id + 20 WHERE id IN (2, 3)",
                "INSERT INTO g (id, w, x) VALUES (4, 7, NULL)",
                "DELETE FROM g WHERE id = 23",
                "DELETE FROM g WHERE id = 4",
            )
            my.execute("UPDATE g SET id = 2 WHERE id = 22", "INSERT INTO g (id, w, x) VALUES (3, 1, 1)")
    finally:
        my.execute("SET GLOBAL binlog_row_metadata = 'FULL'")


def test_tables_without_a_key(my: MySqlDatabase, my_replica: Replica) -> None:
    """Rows that only their values tell apart."""
    my.execute(
        "CREATE TABLE k (a int, b varchar(20), f float)",
        "INSERT INTO k VALUES (1, 'x', 1.1), (1, 'x', 1.1), (2, NULL, NULL)",
    )
    follow(my_replica)
    follow(
        my_replica,
        "DELETE FROM k WHERE a = 1 LIMIT 1",
        "INSERT INTO k VALUES (2, NULL, NULL)",
        "UPDATE k SET b = 'y' WHERE a = 2 LIMIT 1",
    )
    follow(
        my_replica,
        "SET SESSION binlog_row_image = 'MINIMAL'",
        "UPDATE k SET f = 2 WHERE a = 2 LIMIT 1",
        "DELETE FROM k WHERE a = 1",
    )


def test_partial_json(on_mysql: MySqlDatabase, tmp_path: Path) -> None:
    """B-25: changes of a document instead of the document."""
    replica = make_replica(on_mysql, tmp_path)
    on_mysql.execute(
        "CREATE TABLE j (id int PRIMARY KEY, a json, n int, b json)",
        "INSERT INTO j VALUES (1, JSON_OBJECT('k', 1, 'l', JSON_ARRAY(1, 2, 3), 'pad', REPEAT('x', 300)), 1, '[]'), "
        "(2, JSON_OBJECT('k', JSON_OBJECT('deep', JSON_ARRAY(1, 2)), 'pad', REPEAT('y', 300), 'd', 1.5), 2, '{\"pad\": \"aaaaaaaaaaaaaaaaa\", \"x\": 1}')",
    )
    follow(replica)
    partial = "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'"
    follow(
        replica,
        partial,
        "UPDATE j SET a = JSON_SET(a, '$.k', 2)",
        "UPDATE j SET a = JSON_REPLACE(a, '$.l[1]', 'é') WHERE id = 1",
    )
    follow(replica, partial, "UPDATE j SET a = JSON_REMOVE(a, '$.pad'), b = JSON_SET(b, '$.x', 77), n = 5")
    follow(
        replica,
        partial,
        "UPDATE j SET a = JSON_SET(a, '$.zz', CAST('[1, {\"q\": null}]' AS JSON))",
        "UPDATE j SET a = JSON_ARRAY_INSERT(a, '$.l[0]', 0) WHERE id = 1",
    )
    follow(replica, partial, "UPDATE j SET a = JSON_SET(a, '$.k', 3), id = id + 10")
    follow(replica, "UPDATE j SET a = NULL WHERE id = 11", partial, "UPDATE j SET n = 9")


def test_compression(my: MySqlDatabase, my_replica: Replica) -> None:
    """B-20, B-21: a session or the server compresses what it logs."""
    make_table(my)
    follow(my_replica)
    work = [
        "INSERT INTO t SELECT id + 1000, REPEAT('ab', 40), NULL, REPEAT('z', 3000) FROM t",
        "UPDATE t SET a = REPEAT('x', 90) WHERE id > 2",
        "DELETE FROM t WHERE id = 1",
    ]
    if my.flavor == "mysql":
        follow(my_replica, "SET SESSION binlog_transaction_compression = ON", *work)
        follow(
            my_replica, "SET SESSION binlog_transaction_compression = OFF", "INSERT INTO t VALUES (9, 'plain', 9, NULL)"
        )
        return
    my.execute("SET GLOBAL log_bin_compress = ON", "SET GLOBAL log_bin_compress_min_len = 10")
    try:
        follow(
            my_replica,
            *work,
            "CREATE TABLE made_while_compressed (id int PRIMARY KEY)",
            "INSERT INTO made_while_compressed VALUES (1)",
        )
    finally:
        my.execute("SET GLOBAL log_bin_compress = OFF")


def test_tagged_gtids(on_mysql: MySqlDatabase, tmp_path: Path) -> None:
    """B-06: GTIDs with tags, in the log and in the set that a dump begins from."""
    replica = make_replica(on_mysql, tmp_path)
    make_table(on_mysql)
    follow(replica)
    follow(
        replica,
        "SET gtid_next = 'AUTOMATIC:shop'",
        "INSERT INTO t VALUES (10, 'tagged', 10, NULL)",
        "UPDATE t SET a = 'x' WHERE id = 10",
    )
    follow(
        replica,
        "INSERT INTO t VALUES (11, 'plain', 11, NULL)",
        "SET gtid_next = 'AUTOMATIC:other_tag'",
        "DELETE FROM t WHERE id = 1",
    )
    assert ":shop:" in str(replica.query("SELECT position FROM _cdc.checkpoint"))


def test_distributed_transactions(my: MySqlDatabase, my_replica: Replica) -> None:
    """B-28: nothing of a prepared transaction is applied before it is committed, across restarts, and never if it is not."""
    make_table(my)
    follow(my_replica)
    for name, work, end in (
        ("a", "INSERT INTO t VALUES (20, 'xa', 20, NULL)", "COMMIT"),
        ("b", "DELETE FROM t WHERE id = 2", "ROLLBACK"),
        ("c,d'e", "UPDATE t SET a = 'xa' WHERE id = 1", "COMMIT"),
    ):
        quoted = "'" + name.replace("'", "''") + "'"
        my.execute(f"XA START {quoted}, 'q', 7", work, f"XA END {quoted}, 'q', 7", f"XA PREPARE {quoted}, 'q', 7")
        follow(my_replica, "INSERT INTO t (id) VALUES (500)", "DELETE FROM t WHERE id = 500")
        follow(my_replica, f"XA {end} {quoted}, 'q', 7")
    follow(my_replica, "XA START 'one'", "DELETE FROM t WHERE id = 3", "XA END 'one'", "XA COMMIT 'one' ONE PHASE")


def test_engines_without_transactions(my: MySqlDatabase, my_replica: Replica) -> None:
    """B-29, C-10: MyISAM ends its transactions with COMMIT, and is copied under a lock of its own."""
    make_table(my)
    my.execute("CREATE TABLE m (id int PRIMARY KEY, v text) ENGINE = MyISAM", "INSERT INTO m VALUES (1, 'x'), (2, 'y')")
    follow(my_replica)
    follow(
        my_replica, "INSERT INTO m VALUES (3, 'z')", "UPDATE m SET v = 'w' WHERE id = 1", "DELETE FROM m WHERE id = 2"
    )
    follow(my_replica, "BEGIN", "INSERT INTO t VALUES (8, 'x', 8, NULL)", "COMMIT", "TRUNCATE m")


def test_statements_logged_as_text(my: MySqlDatabase, my_replica: Replica, caplog: pytest.LogCaptureFixture) -> None:
    """B-23: a session that logs statements makes the tables that they may concern be compared; no value is logged."""
    make_table(my)
    my.execute("CREATE TABLE other (id int PRIMARY KEY)")
    my_replica = make_replica(my, my_replica.path.parent, "t")
    follow(my_replica)
    follow(my_replica, "SET SESSION binlog_format = 'STATEMENT'", "UPDATE t SET a = 'canary' WHERE id = 1")
    assert my_replica.query("SELECT a FROM t WHERE id = 1") == [("canary",)]
    assert "a statement of the kind 'UPDATE'" in caplog.text
    assert "canary" not in caplog.text


def test_truncate_and_drop(my: MySqlDatabase, my_replica: Replica) -> None:
    """B-27: truncate in its order; tables that come, go and come back; partitions that go with their rows."""
    make_table(my)
    my.execute(
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20))",
        "INSERT INTO p VALUES (1), (11)",
    )
    follow(my_replica)
    follow(
        my_replica,
        "INSERT INTO t VALUES (50, 'gone', 50, '')",
        "TRUNCATE TABLE t",
        "INSERT INTO t VALUES (51, 'stays', 51, '')",
    )
    follow(my_replica, "ALTER TABLE p DROP PARTITION p0", "INSERT INTO p VALUES (12)")
    follow(my_replica, "ALTER TABLE p TRUNCATE PARTITION p1", "INSERT INTO p VALUES (13)")
    follow(
        my_replica,
        "CREATE TABLE p_out (id int PRIMARY KEY)",
        "ALTER TABLE p EXCHANGE PARTITION p1 WITH TABLE p_out",
        "INSERT INTO p VALUES (14)",
    )
    follow(my_replica, "DROP TABLE t", "CREATE TABLE t (x int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    follow(my_replica, "CREATE TABLE made AS SELECT id, id + 1 AS n FROM p", "INSERT INTO made VALUES (7, 8)")
    follow(
        my_replica,
        "CREATE OR REPLACE TABLE made (n int PRIMARY KEY)" if my.flavor == "mariadb" else "DROP TABLE made",
        "DROP TABLE IF EXISTS p",
    )
    my_replica.database.execute("CREATE TABLE p (id bigint PRIMARY KEY, v text)", "INSERT INTO p VALUES (1, 'x')")
    follow(my_replica)


CHANGES_OF_SHAPE = [
    ["ALTER TABLE t ADD COLUMN n int", "INSERT INTO t (id, n) VALUES (10, 5)"],
    ["ALTER TABLE t ADD COLUMN n int NOT NULL DEFAULT 7 AFTER id", "UPDATE t SET n = 8 WHERE id = 1"],
    ["ALTER TABLE t ADD n varchar(20) DEFAULT 'd' FIRST, ADD INDEX (n)", "INSERT INTO t (id) VALUES (11)"],
    [
        "ALTER TABLE t ADD COLUMN d datetime(3) NOT NULL DEFAULT '2020-01-01 00:00:00.5'",
        "INSERT INTO t (id) VALUES (12)",
    ],
    ["ALTER TABLE t ADD COLUMN (x int, y text)", "INSERT INTO t (id, x, y) VALUES (12, 1, 'y')"],
    ["ALTER TABLE t DROP COLUMN a", "UPDATE t SET c = 'x' WHERE id = 1"],
    ["ALTER TABLE t DROP a, ADD a2 text, RENAME COLUMN c TO cc", "INSERT INTO t (id, a2, cc) VALUES (13, 'a', 'c')"],
    ["ALTER TABLE t RENAME COLUMN a TO z, RENAME COLUMN c TO a", "UPDATE t SET a = 'was c', z = 'was a'"],
    ["ALTER TABLE t MODIFY b bigint", "INSERT INTO t (id, b) VALUES (14, 5000000000)"],
    ["ALTER TABLE t CHANGE a long_name text", "UPDATE t SET long_name = 'x' WHERE id = 2"],
    ["ALTER TABLE t MODIFY c text AFTER id", "INSERT INTO t VALUES (15, 'c', 'a', 15)"],
    ["ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (id, b)", "INSERT INTO t VALUES (1, 'x', 99, NULL)"],
    ["ALTER TABLE t CONVERT TO CHARACTER SET latin1", "INSERT INTO t VALUES (16, 'é', 16, 'ü')"],
    ["ALTER TABLE t ADD e enum('x','y') DEFAULT 'y', ADD s set('a','b')", "INSERT INTO t (id, s) VALUES (17, 'a,b')"],
    ["ALTER TABLE t ENGINE = InnoDB", "UPDATE t SET a = 'x'"],
    [
        "ALTER TABLE t COMMENT = 'a, b', AUTO_INCREMENT = 100, ADD UNIQUE KEY u (a), ALTER COLUMN a SET DEFAULT 'q'",
        "INSERT INTO t (id) VALUES (18)",
    ],
    ["ALTER TABLE t ADD w timestamp", "INSERT INTO t (id) VALUES (28)"],
    ["ALTER TABLE t ADD w char(9) DEFAULT 'it''s '", "INSERT INTO t (id) VALUES (29)"],
    [
        "ALTER TABLE t DEFAULT CHARACTER SET latin1",
        "ALTER TABLE t ADD w text",
        "INSERT INTO t (id, w) VALUES (30, 'é')",
    ],
    [
        "ALTER TABLE t ENGINE = InnoDB CHARSET latin1",
        "ALTER TABLE t ADD w text",
        "INSERT INTO t (id, w) VALUES (31, 'é')",
    ],
    ["ALTER TABLE t RENAME INDEX b TO bb", "UPDATE t SET b = 77 WHERE id = 1"],
    ["ALTER TABLE t RENAME TO t2, ADD COLUMN q int", "INSERT INTO t2 (id, q) VALUES (19, 1)"],
    ["RENAME TABLE t TO x, x TO t3", "INSERT INTO t3 (id) VALUES (20)"],
    [
        "CREATE TABLE other LIKE t",
        "RENAME TABLE t TO tmp, other TO t, tmp TO other",
        "INSERT INTO t (id) VALUES (21)",
        "INSERT INTO other (id) VALUES (22)",
    ],
    ["/*!40000 ALTER TABLE t DISABLE KEYS */", "INSERT INTO t (id) VALUES (23)"],
    [
        "SET sql_mode = 'ANSI_QUOTES'",
        'ALTER TABLE "t" ADD COLUMN "a b" int',
        'INSERT INTO "t" (id, "a b") VALUES (24, 4)',
    ],
    [
        "CREATE INDEX i ON t (a)",
        "DROP INDEX i ON t",
        "ANALYZE TABLE t",
        "OPTIMIZE TABLE t",
        "INSERT INTO t (id) VALUES (25)",
    ],
    [
        "CREATE TEMPORARY TABLE t (z int)",
        "ALTER TABLE t ADD y int",
        "INSERT INTO t VALUES (1, 2)",
        "DROP TEMPORARY TABLE t",
        "INSERT INTO t (id) VALUES (26)",
    ],
    [
        "CREATE VIEW w AS SELECT * FROM t",
        "DROP VIEW w",
        "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 'trigger'",
        "INSERT INTO t (id) VALUES (27)",
    ],
]


@pytest.mark.parametrize("metadata", ["FULL", "minimal"])
def test_changes_of_shape(my: MySqlDatabase, tmp_path: Path, metadata: str) -> None:
    """B-40, B-41, B-42, B-44: while nobody listens, with rows before and after, with and without names in the log."""
    if metadata == "minimal":
        my.execute(f"SET GLOBAL binlog_row_metadata = '{'MINIMAL' if my.flavor == 'mysql' else 'NO_LOG'}'")
    try:
        changes = some(CHANGES_OF_SHAPE, len(CHANGES_OF_SHAPE) // 2, f"{my.flavor} {metadata}")
        for number, change in enumerate(changes):
            statements = change
            if my.flavor == "mysql" and "OPTIMIZE TABLE t" in change:
                statements = [s for s in change if s[:7] not in ("ANALYZE", "OPTIMIZ")]
            my.execute(f"DROP DATABASE {my.name}", f"CREATE DATABASE {my.name}")
            make_table(my)
            folder = tmp_path / str(number)
            folder.mkdir()
            replica = make_replica(my, folder)
            replica.catch_up()
            replica.database.execute(
                "INSERT INTO t VALUES (40, 'before', 40, 'x')", "UPDATE t SET a = 'b' WHERE id = 1", *statements
            )
            replica.catch_up()
            comparison = [table for table in replica.compare() if not table.equal]
            assert comparison == [], statements
    finally:
        my.execute("SET GLOBAL binlog_row_metadata = 'FULL'")


def test_online_schema_change(my: MySqlDatabase, my_replica: Replica) -> None:
    """B-43: gh-ost and pt-online-schema-change copy into a table of their own and swap it in."""
    make_table(my)
    follow(my_replica)
    my.execute(
        "CREATE TABLE _t_gho LIKE t",
        "ALTER TABLE _t_gho ADD COLUMN n int NOT NULL DEFAULT 5, MODIFY a text",
        "CREATE TABLE _t_ghc (id int PRIMARY KEY, hint text)",
        "INSERT INTO _t_ghc VALUES (1, 'migrated')",
        "INSERT INTO _t_gho (id, a, b, c, n) SELECT id, a, b, c, 6 FROM t",
        "UPDATE t SET a = 'late' WHERE id = 1",
        "UPDATE _t_gho SET a = 'late' WHERE id = 1",
        "RENAME TABLE t TO _t_del, _t_gho TO t",
        "INSERT INTO t VALUES (30, 'after', 30, 'x', 7)",
        "DROP TABLE _t_del",
        "DROP TABLE _t_ghc",
    )
    follow(my_replica)
    tables = my_replica.query(f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{my.name}'")
    assert [name for (name,) in tables if str(name).startswith("_")] == []


def test_statement_that_nobody_understands(
    my: MySqlDatabase, my_replica: Replica, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """B-44: a table that is followed is copied again for it, about others it does not matter."""
    make_table(my)
    my.execute("CREATE TABLE other (id int PRIMARY KEY)")
    replica = make_replica(my, my_replica.path.parent, "t")
    follow(replica)
    monkeypatch.setattr(alter, "_OPTIONS", alter._OPTIONS - {"COMMENT"})
    follow(replica, "ALTER TABLE other COMMENT 'x'", "ALTER TABLE other ADD n int")
    assert "copied again" not in caplog.text
    follow(replica, "ALTER TABLE t COMMENT 'x'", "INSERT INTO t (id) VALUES (70)")
    assert ".t is copied again" in caplog.text


def test_hidden_columns(my: MySqlDatabase, my_replica: Replica, caplog: pytest.LogCaptureFixture) -> None:
    """B-46: columns that the server adds for itself, invisible ones, generated ones."""
    if my.flavor == "mariadb":
        my.execute("CREATE TABLE h (id int PRIMARY KEY, v text, UNIQUE (v) USING HASH, i int INVISIBLE DEFAULT 3)")
        generated = "s int AS (id * 2) PERSISTENT, v int AS (id + 1) VIRTUAL"
    else:
        my.execute(
            "CREATE TABLE h (id int PRIMARY KEY, v text, i int INVISIBLE DEFAULT 3, KEY ((UPPER(SUBSTR(v, 1, 10)))))",
            "SET sql_generate_invisible_primary_key = ON",
            "CREATE TABLE g (a int)",
            "INSERT INTO g VALUES (1), (2)",
        )
        generated = "s int AS (id * 2) STORED, v int AS (id + 1) VIRTUAL"
    my.execute(
        f"CREATE TABLE n (id int PRIMARY KEY, {generated}, w int)",
        "INSERT INTO n (id, w) VALUES (1, 5), (2, 6)",
        "INSERT INTO h (id, v, i) VALUES (1, 'x', 4), (2, 'y', DEFAULT)",
    )
    follow(my_replica)
    follow(
        my_replica,
        "INSERT INTO h (id, v, i) VALUES (3, 'z', 9)",
        "UPDATE h SET v = 'w' WHERE id = 1",
        "DELETE FROM h WHERE id = 2",
    )
    follow(
        my_replica,
        "INSERT INTO n (id, w) VALUES (3, 7)",
        "UPDATE n SET id = 9, w = NULL WHERE id = 1",
        "DELETE FROM n WHERE id = 2",
    )
    assert my_replica.query("SELECT id, i FROM h ORDER BY id") == [(1, 4), (3, 9)]
    if my.flavor == "mysql":
        follow(my_replica, "INSERT INTO g VALUES (3)", "UPDATE g SET a = 9 WHERE a = 1", "DELETE FROM g WHERE a = 2")
        assert my_replica.query("SELECT my_row_id, a FROM g ORDER BY 1") == [(1, 9), (3, 3)]
    assert "copied again" not in caplog.text


def test_system_versioned_tables(on_mariadb: MySqlDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """B-47: the rows of now, not those of the past that the log writes beside them."""
    replica = make_replica(on_mariadb, tmp_path)
    on_mariadb.execute(
        "CREATE TABLE v (id int PRIMARY KEY, a text) WITH SYSTEM VERSIONING",
        "CREATE TABLE e (id int PRIMARY KEY, a text, s timestamp(6) GENERATED ALWAYS AS ROW START, "
        "f timestamp(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, f)) WITH SYSTEM VERSIONING",
        "INSERT INTO v VALUES (1, 'a'), (2, 'b')",
        "INSERT INTO e (id, a) VALUES (1, 'a'), (2, 'b')",
        "UPDATE v SET a = 'c' WHERE id = 1",
    )
    follow(replica)
    for table in ("v", "e"):
        follow(
            replica,
            f"INSERT INTO {table} (id, a) VALUES (3, 'x'), (4, 'y')",
            f"UPDATE {table} SET a = 'z' WHERE id = 3",
            f"UPDATE {table} SET a = 'zz' WHERE id = 3",
            f"DELETE FROM {table} WHERE id = 4",
            f"UPDATE {table} SET id = 7 WHERE id = 1",
            f"DELETE HISTORY FROM {table}",
            f"REPLACE INTO {table} (id, a) VALUES (2, 'replaced')",
        )
    assert "copied again" not in caplog.text
    assert replica.query("SELECT id, a FROM v ORDER BY id") == [(2, "replaced"), (3, "zz"), (7, "c")]


def test_two_databases_with_one_table_name(my: MySqlDatabase, tmp_path: Path) -> None:
    """B-31: tables are distinguished by database and name."""
    make_table(my)
    my.execute(
        f"CREATE DATABASE {my.name}_b",
        f"CREATE TABLE {my.name}_b.t (z varchar(5) PRIMARY KEY)",
        f"INSERT INTO {my.name}_b.t VALUES ('z')",
    )
    try:
        replica = make_replica(my, tmp_path, f"{my.name}.t")
        follow(replica)
        follow(replica, f"INSERT INTO {my.name}_b.t VALUES ('y')", "DELETE FROM t WHERE id = 1")
    finally:
        my.execute(f"DROP DATABASE {my.name}_b")


def test_transaction_in_parts(my: MySqlDatabase, tmp_path: Path) -> None:
    """A transaction larger than a segment becomes visible at its end only, with shapes and tables mixed."""
    make_table(my)
    my.execute("CREATE TABLE n (id int PRIMARY KEY)", "INSERT INTO n SELECT a.id * 10 + b.id FROM t a, t b")
    replica = make_replica(my, tmp_path, segment_bytes=2000)
    follow(replica)
    big = "INSERT INTO t (id, a) SELECT 1000 + a.id * 10000 + b.id * 100 + c.id, REPEAT('x', 90) FROM n a, n b, n c"
    follow(
        replica,
        "BEGIN",
        big,
        "UPDATE t SET a = 'y' WHERE id % 7 = 0",
        "DELETE FROM n",
        "DELETE FROM t WHERE id % 3 = 0",
        "COMMIT",
    )
    follow(replica, "BEGIN", big.replace("1000 +", "10000000 +"), "ROLLBACK")


def test_copy_under_writes(my: MySqlDatabase, tmp_path: Path) -> None:
    """C-01, C-03, C-11, C-14: rows that change, move and go while they are copied in pieces."""
    my.execute(
        "CREATE TABLE big (id int PRIMARY KEY, v text, w char(36))",
        "CREATE TABLE words (w varchar(60) PRIMARY KEY, n int)",
    )
    rows = "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 300000) SELECT"
    limit = (
        "SET SESSION cte_max_recursion_depth = 1000000"
        if my.flavor == "mysql"
        else "SET SESSION max_recursive_iterations = 1000000"
    )
    my.execute(
        limit,
        f"INSERT INTO big {rows} i * 3, REPEAT('x', i % 50), UUID() FROM s",
        f"INSERT INTO words {rows} CONCAT(MD5(i), i), i FROM s".replace("MD5", "HEX"),
        "ANALYZE TABLE big, words",
    )
    stop = threading.Event()

    def write() -> None:
        with my.connect() as connection, connection.cursor() as cursor:
            n = 0
            while not stop.is_set():
                n += 1
                cursor.execute(f"UPDATE big SET v = 'w{n}' WHERE id = {n * 37 % 900000}")
                cursor.execute(f"DELETE FROM big WHERE id = {n * 61 % 900000}")
                cursor.execute(f"UPDATE IGNORE big SET id = {n * 7 % 900000} WHERE id = {n * 11 % 900000}")
                cursor.execute(f"INSERT IGNORE INTO big VALUES ({n * 13 % 900000}, 'new', NULL)")
                cursor.execute(f"UPDATE words SET n = -n WHERE w > CONCAT(HEX({n % 300000}), '') LIMIT 3")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        replica = make_replica(my, tmp_path)
        replica.catch_up()
    finally:
        stop.set()
        thread.join()
    follow(replica)


def test_alter_while_copying(my: MySqlDatabase, tmp_path: Path) -> None:
    """C-08: a table that is altered or truncated while it is copied is copied again."""
    make_table(my)
    rows = "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 200000) SELECT i, REPEAT('x', 100), NULL, NULL FROM s"
    limit = (
        "SET SESSION cte_max_recursion_depth = 1000000"
        if my.flavor == "mysql"
        else "SET SESSION max_recursive_iterations = 1000000"
    )
    my.execute(
        "DELETE FROM t",
        limit,
        f"INSERT INTO t {rows}",
        "CREATE TABLE u LIKE t",
        "INSERT INTO u SELECT * FROM t",
        "ANALYZE TABLE t, u",
    )
    replica = make_replica(my, tmp_path)
    process = start(replica, "", "--workers", "1")
    time.sleep(0.3)
    my.execute(
        "ALTER TABLE t ADD COLUMN n int DEFAULT 4",
        "TRUNCATE u",
        "INSERT INTO u (id) VALUES (1)",
        "INSERT INTO t (id) VALUES (0)",
    )
    time.sleep(1.5)
    process.kill()
    process.wait()
    follow(replica)


def test_cascades(my: MySqlDatabase, my_replica: Replica) -> None:
    """B-26: where the server does not log what a foreign key does, `check` says so; where it does, it arrives."""
    from cdc.connectors import source_module

    my.execute(
        "CREATE TABLE parent (id int PRIMARY KEY)",
        "CREATE TABLE child (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE)",
        "INSERT INTO parent VALUES (1), (2)",
        "INSERT INTO child VALUES (1, 1), (2, 2)",
    )
    my_replica.catch_up()
    my.execute("DELETE FROM parent WHERE id = 1")
    my_replica.catch_up()
    findings = source_module(my.dsn).check_source(my.dsn, my_replica.options.selection)
    named = [finding for finding in findings if "child" in finding.subject and "Foreign key" in finding.message]
    arrived = all(table.equal for table in my_replica.compare())
    assert arrived or named
    assert not (arrived and named)


def test_compressed_columns(on_mariadb: MySqlDatabase, tmp_path: Path) -> None:
    """B-61: refused by name, before the copy as well as when one comes later."""
    make_table(on_mariadb)
    replica = make_replica(on_mariadb, tmp_path)
    follow(replica)
    on_mariadb.execute(
        "ALTER TABLE t ADD COLUMN z text COMPRESSED", "INSERT INTO t (id, z) VALUES (9, REPEAT('z', 500))"
    )
    with pytest.raises(CdcError, match="COMPRESSED"):
        replica.catch_up()
    on_mariadb.execute("ALTER TABLE t MODIFY z text")
    replica.catch_up()
    replica.assert_equal()


def test_large_rows(my: MySqlDatabase, my_replica: Replica) -> None:
    """B-64: rows beyond a packet of 16 MB, and just at its end, by both paths."""
    my.execute("CREATE TABLE l (id int PRIMARY KEY, v longblob, w longtext)")
    sizes = [(1 << 24) - 60 + number for number in range(0, 60, 13)]

    def assert_same(*statements: str) -> None:
        my.execute(*statements)
        my_replica.catch_up()
        theirs = my.execute("SELECT id, LENGTH(v), SHA2(v, 256), LENGTH(w), SHA2(w, 256) FROM l ORDER BY id")
        ours = my_replica.query("SELECT id, octet_length(v), sha256(v), strlen(w), sha256(w) FROM l ORDER BY id")
        assert ours == theirs

    values = ", ".join(f"({number}, REPEAT('x', {size}), 'w')" for number, size in enumerate([*sizes[:3], 40 << 20]))
    assert_same(f"INSERT INTO l VALUES {values}")
    assert_same("UPDATE l SET w = REPEAT('é', 10000000) WHERE id = 3")
    assert_same(*[f"INSERT INTO l VALUES ({10 + n}, REPEAT(x'80', {size}), NULL)" for n, size in enumerate(sizes)])
