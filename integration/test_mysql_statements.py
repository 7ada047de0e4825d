"""Statements on the real servers: what is proven to change no row does not, and whatever else happens is noticed.

Rows are compared here one by one, by what both drivers give, since digests could share a mistake with the copy.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc.demo.mysql import PrivateMySql
from cdc.sources.mysql import alter, ddl
from integration.conftest import MySqlDatabase, Replica, make_my, make_replica

EDITIONS = ["mysql", "mariadb", "mariadb-sid"]


@pytest.fixture(scope="session")
def mariadb_sid() -> Iterator[PrivateMySql]:
    with PrivateMySql("mariadb-sid") as server:
        yield server


@pytest.fixture(params=EDITIONS)
def every(request: pytest.FixtureRequest) -> Iterator[MySqlDatabase]:
    """A database on each edition."""
    yield from make_my(request.getfixturevalue(request.param.replace("-", "_")))


def rows_of(database: MySqlDatabase, table: str) -> tuple[list[str], list[str]]:
    """Names of the columns, and the rows in some order that is always the same."""
    with database.connect() as connection, connection.cursor() as cursor:
        return rows_seen(cursor, table)


def rows_seen(cursor: Any, table: str) -> tuple[list[str], list[str]]:
    """The same in a session that there is."""
    cursor.execute(f"SELECT * FROM {table}")
    return [column[0] for column in cursor.description], sorted(map(repr, cursor.fetchall()))


def assert_same(replica: Replica, *tables: str) -> None:
    """Column by column, whatever their order, and row by row."""
    assert isinstance(replica.database, MySqlDatabase)
    for table in tables:
        names, _ = rows_of(replica.database, f"`{table}`")
        found = replica.query(
            f"SELECT column_name FROM information_schema.columns WHERE table_schema = '{replica.database.name}' "
            f"AND table_name = '{table}'"
        )
        assert sorted(str(name) for (name,) in found) == sorted(names), table
        quoted = ", ".join(f'"{name}"' for name in names)
        rows = sorted(map(repr, replica.query(f'SELECT {quoted} FROM "{table}"')))
        assert rows == rows_of(replica.database, f"`{table}`")[1], table


# --- what is proven -------------------------------------------------------------------------------------------------

# For each phrase of the list: statements, with the flavor that has them if not all do.
PROVEN: dict[str, list[tuple[str, str]]] = {
    "GRANT": [("", "GRANT SELECT ON {d}.t TO {d}_u")],
    "REVOKE": [("", "REVOKE SELECT ON {d}.t FROM {d}_u")],
    "FLUSH": [("", "FLUSH TABLES")],
    "ANALYZE TABLE": [("", "ANALYZE TABLE t, p")],
    "ANALYZE TABLES": [("", "ANALYZE TABLES t")],
    "OPTIMIZE TABLE": [("", "OPTIMIZE TABLE t, p, m")],
    "OPTIMIZE TABLES": [("", "OPTIMIZE TABLES t")],
    "SET PASSWORD": [("mysql", "SET PASSWORD FOR {d}_u = 'x'"), ("mariadb", "SET PASSWORD FOR {d}_u = PASSWORD('x')")],
    "SET DEFAULT ROLE": [("mysql", "SET DEFAULT ROLE NONE TO {d}_u"), ("mariadb", "SET DEFAULT ROLE NONE FOR {d}_u")],
    "RENAME USER": [("", "RENAME USER {d}_u TO {d}_v"), ("", "RENAME USER {d}_v TO {d}_u")],
    "INSTALL COMPONENT": [("mysql", "INSTALL COMPONENT 'file://component_validate_password'")],
    "UNINSTALL COMPONENT": [("mysql", "UNINSTALL COMPONENT 'file://component_validate_password'")],
    "INSTALL PLUGIN": [("mysql", "INSTALL PLUGIN mysql_no_login SONAME 'mysql_no_login.so'")],
    "UNINSTALL PLUGIN": [("mysql", "UNINSTALL PLUGIN mysql_no_login")],
}
OBJECTS: dict[str, list[tuple[str, str]]] = {
    "VIEW": [("", "CREATE VIEW w AS SELECT * FROM t"), ("", "ALTER VIEW w AS SELECT id FROM t"), ("", "DROP VIEW w")],
    "ALGORITHM": [("", "CREATE ALGORITHM = MERGE VIEW w AS SELECT * FROM t"), ("", "DROP VIEW w")],
    "SQL SECURITY": [("", "CREATE OR REPLACE SQL SECURITY INVOKER VIEW w AS SELECT * FROM t"), ("", "DROP VIEW w")],
    "DEFINER": [("", "CREATE DEFINER = CURRENT_USER PROCEDURE q() DELETE FROM t"), ("", "DROP PROCEDURE q")],
    "PROCEDURE": [
        ("", "CREATE PROCEDURE q() TRUNCATE t"),
        ("", "ALTER PROCEDURE q COMMENT 'DROP TABLE t'"),
        ("", "DROP PROCEDURE q"),
    ],
    "FUNCTION": [
        ("", "CREATE FUNCTION f() RETURNS int DETERMINISTIC RETURN 1"),
        ("", "ALTER FUNCTION f COMMENT 'x'"),
        ("", "DROP FUNCTION f"),
    ],
    "AGGREGATE FUNCTION": [
        (
            "mariadb",
            "CREATE AGGREGATE FUNCTION f(x int) RETURNS int NO SQL BEGIN DECLARE n int DEFAULT 0; DECLARE CONTINUE HANDLER FOR "
            "NOT FOUND RETURN n; LOOP FETCH GROUP NEXT ROW; SET n = n + x; END LOOP; END",
        ),
        ("mariadb", "DROP FUNCTION f"),
    ],
    "TRIGGER": [
        ("", "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 'trigger'"),
        ("", "INSERT INTO t (id) VALUES (100)"),
        ("", "DROP TRIGGER g"),
    ],
    "EVENT": [
        ("", "CREATE EVENT e ON SCHEDULE AT '2038-01-01' DISABLE DO DELETE FROM t"),
        ("", "ALTER EVENT e COMMENT 'x'"),
        ("", "DROP EVENT e"),
    ],
    "PACKAGE": [
        ("mariadb", "SET sql_mode = 'ORACLE'"),
        ("mariadb", "CREATE PACKAGE k AS PROCEDURE q; END"),
        ("mariadb", "DROP PACKAGE k"),
        ("mariadb", "SET sql_mode = DEFAULT"),
    ],
    "USER": [("", "CREATE USER {d}_w"), ("", "ALTER USER {d}_w ACCOUNT LOCK"), ("", "DROP USER {d}_w")],
    "ROLE": [("", "CREATE ROLE {d}_r"), ("", "DROP ROLE {d}_r")],
    "SERVER": [
        ("", "CREATE SERVER {d}_s FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'h')"),
        ("", "ALTER SERVER {d}_s OPTIONS (HOST 'i')"),
        ("", "DROP SERVER {d}_s"),
    ],
    "TABLESPACE": [
        ("mysql", "CREATE TABLESPACE {d}_ts ADD DATAFILE '{d}_ts.ibd'"),
        ("mysql", "ALTER TABLESPACE {d}_ts RENAME TO {d}_tt"),
        ("mysql", "DROP TABLESPACE {d}_tt"),
    ],
    "UNDO TABLESPACE": [
        ("mysql", "CREATE UNDO TABLESPACE {d}_undo ADD DATAFILE '{d}_undo.ibu'"),
        ("mysql", "ALTER UNDO TABLESPACE {d}_undo SET INACTIVE"),
    ],
    "SPATIAL REFERENCE SYSTEM": [("mysql", "DROP SPATIAL REFERENCE SYSTEM IF EXISTS 999999")],
    "SEQUENCE": [
        ("mariadb", "CREATE SEQUENCE q"),
        ("mariadb", "ALTER SEQUENCE q RESTART 50"),
        ("mariadb", "DROP SEQUENCE q"),
    ],
    "TEMPORARY": [
        ("", "CREATE TEMPORARY TABLE t (z int)"),
        ("", "INSERT INTO t VALUES (5)"),
        ("", "DROP TEMPORARY TABLE t"),
    ],
    "JSON RELATIONAL DUALITY VIEW": [
        (
            "mysql",
            "CREATE JSON RELATIONAL DUALITY VIEW w AS SELECT JSON_DUALITY_OBJECT('_id': id, 'v': v) FROM m",
        ),
        ("mysql", "DROP VIEW w"),
    ],
    "LIBRARY": [
        ("mysql", "CREATE LIBRARY k LANGUAGE JAVASCRIPT AS $$ export function f(n) {{return n}} $$"),
        ("mysql", "DROP LIBRARY k"),
    ],
}
OF_DATABASES = [
    ("", "CREATE DATABASE {d}_x"),
    ("", "ALTER DATABASE {d}_x CHARACTER SET latin1"),
    ("", "DROP DATABASE {d}_x"),
]

# Actions that leave rows and columns as they are, on `t`, or on `p` where they are about partitions.
KEEPING: list[tuple[str, str]] = [
    *[("", f"ALTER TABLE t ENGINE = {engine}") for engine in ("MyISAM", "MEMORY", "InnoDB")],
    ("mariadb", "ALTER TABLE t ENGINE = Aria TRANSACTIONAL = 1 PAGE_CHECKSUM = 1"),
    ("mariadb", "ALTER TABLE t ENGINE = InnoDB, PAGE_COMPRESSED = 1 PAGE_COMPRESSION_LEVEL = 3"),
    ("mysql", "ALTER TABLE m AUTOEXTEND_SIZE = 4M, COMPRESSION = 'zlib'"),
    ("mysql", "ALTER TABLE t ENCRYPTION = 'N'"),
    ("", "ALTER TABLE t COMMENT 'a, b', AUTO_INCREMENT = 1000 ROW_FORMAT = DYNAMIC KEY_BLOCK_SIZE = 0"),
    ("", "ALTER TABLE t STATS_PERSISTENT = 1, STATS_AUTO_RECALC = 1 STATS_SAMPLE_PAGES = 20, CHECKSUM = 1"),
    (
        "",
        "ALTER TABLE t AVG_ROW_LENGTH = 9 TABLE_CHECKSUM = 1 MAX_ROWS = 9000 MIN_ROWS = 1 PACK_KEYS = 1 DELAY_KEY_WRITE = 1",
    ),
    ("", "ALTER TABLE t FORCE, ALGORITHM = COPY, LOCK = SHARED"),
    ("", "ALTER TABLE t DISABLE KEYS, ENABLE KEYS"),
    ("", "ALTER TABLE t ORDER BY a DESC, n"),
    ("", "ALTER TABLE t ADD INDEX i (a), ADD UNIQUE KEY u (n), ADD CONSTRAINT c CHECK (n > 0), ADD FULLTEXT ft (a)"),
    ("mysql", "ALTER TABLE t RENAME INDEX i TO j, ALTER INDEX u INVISIBLE, ALTER CHECK c NOT ENFORCED"),
    ("mariadb", "ALTER TABLE t RENAME INDEX i TO j, ALTER INDEX u IGNORED"),
    ("", "ALTER TABLE t DROP INDEX j, DROP KEY ft, DROP CONSTRAINT c"),
    ("", "DROP INDEX u ON t"),
    ("", "CREATE INDEX i ON t (a, n)"),
    ("", "DROP INDEX i ON t"),
    ("", "ALTER TABLE t ALTER a SET DEFAULT 'new', ALTER COLUMN n DROP DEFAULT"),
    ("", "ALTER TABLE t ADD CONSTRAINT fk FOREIGN KEY (n) REFERENCES m (id)"),
    ("", "ALTER TABLE t DROP FOREIGN KEY fk"),
    ("", "ALTER TABLE p ADD PARTITION (PARTITION p3 VALUES LESS THAN (400), PARTITION p4 VALUES LESS THAN (500))"),
    ("", "ALTER TABLE p ANALYZE PARTITION p0, p1"),
    ("", "ALTER TABLE p CHECK PARTITION p0, p1"),
    ("", "ALTER TABLE p OPTIMIZE PARTITION p0, p1"),
    ("", "ALTER TABLE p REBUILD PARTITION p0, p1"),
    ("", "ALTER TABLE p REORGANIZE PARTITION p0, p1 INTO (PARTITION p01 VALUES LESS THAN (200))"),
    ("", "ALTER TABLE p REMOVE PARTITIONING"),
    ("", "ALTER TABLE p PARTITION BY HASH (id) PARTITIONS 4"),
    ("", "ALTER TABLE p COALESCE PARTITION 2"),
    ("mariadb", "SET STATEMENT max_statement_time = 60 FOR ALTER TABLE t FORCE"),
    ("", "/*!40000 ALTER TABLE t DISABLE KEYS */"),
]


def make_proven(database: MySqlDatabase) -> None:
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, a varchar(20) DEFAULT 'old', n int DEFAULT 5)",
        "CREATE TABLE m (id int PRIMARY KEY, v varchar(10))",
        "CREATE TABLE p (id int PRIMARY KEY, v int) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (100), "
        "PARTITION p1 VALUES LESS THAN (200), PARTITION p2 VALUES LESS THAN (300))",
        "INSERT INTO t VALUES (1, 'x', 1), (2, NULL, 2)",
        "INSERT INTO m VALUES (1, 'x'), (2, 'y'), (5, 'z'), (6, 'gone')",
        "INSERT INTO p VALUES (1, 1), (101, 2), (201, 3)",
    )


def phrases(found: list[tuple[str, ...]]) -> set[str]:
    return {" ".join(phrase) for phrase in found}


def test_every_proven_kind_is_run() -> None:
    """M2: nothing is on the lists that is not tried below."""
    assert set(PROVEN) == phrases(ddl._PROVEN)
    assert set(OBJECTS) == phrases(ddl._PROVEN_OBJECTS)
    assert all((PROVEN | OBJECTS).values())
    run = " ".join(statement.upper() for _, statement in KEEPING)
    for word in alter._OPTIONS | alter._ENGINES | {f"{verb} PARTITION" for verb in alter._KEEPS_ROWS}:
        assert word in run, word


def test_proven_statements(every: MySqlDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """M2, M8, M17: each kind that is taken for harmless changes no row, and no table is doubted for it."""
    make_proven(every)
    every.execute(f"CREATE USER {every.name}_u")
    replica = make_replica(every, tmp_path)
    replica.catch_up()
    ran = 0
    with every.connect() as connection, connection.cursor() as cursor, every.connect() as other, other.cursor() as look:
        before = [rows_seen(look, table) for table in "tmp"]
        for statements in [*PROVEN.values(), *OBJECTS.values(), OF_DATABASES, KEEPING]:
            for flavor, statement in statements:
                if flavor not in ("", every.flavor):
                    continue
                cursor.execute(statement.format(d=every.name))
                after = [rows_seen(look, table) for table in "tmp"]
                ran += 1
                assert after == before or statement.startswith("INSERT INTO t (id)"), statement
                before = after
    assert ran > 60
    every.execute(
        "UPDATE t SET a = 'after' WHERE id = 1", "INSERT INTO p VALUES (150, 4)", "DELETE FROM m WHERE id = 6"
    )
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        replica.catch_up()
    doubted = [text for text in caplog.messages if "copied again" in text or "suspect" in text]
    every.execute(f"DROP USER {every.name}_u")
    assert doubted == []
    assert_same(replica, "t", "m", "p")


# --- what is noticed ------------------------------------------------------------------------------------------------

TABLE = "CREATE TABLE {t} (id int PRIMARY KEY, a varchar(20), b varchar(20), n int)"
ROWS = "INSERT INTO {t} VALUES (1, 'A', 'B', 7), (2, NULL, 'bb', 8)"
PARTS = (
    "CREATE TABLE {t} (id int PRIMARY KEY, v int) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (100), "
    "PARTITION p1 VALUES LESS THAN (200), PARTITION p2 VALUES LESS THAN (300))",
    "INSERT INTO {t} VALUES (1, 1), (101, 2), (201, 3)",
)
UNIQUE = (
    "CREATE TABLE {t} (id int NOT NULL, v int, UNIQUE KEY u (id))",
    "INSERT INTO {t} VALUES (1, 10), (2, 20)",
)
SAME_KEYS = ("INSERT INTO {t} (id) VALUES (1), (2)", "DELETE FROM {t} WHERE id = 1 LIMIT 1")
OTHER = ("CREATE TABLE {t}_2 (id int PRIMARY KEY, v int)", "INSERT INTO {t}_2 VALUES (50, 5)")
AS_TEXT = "SET SESSION binlog_format = 'STATEMENT'"

# Name, which servers have it, what there is before the copy, and what happens while nobody listens: {t} is the table.
CASES: list[tuple[str, str, tuple[str, ...], tuple[str, ...]]] = [
    ("swap", "", (TABLE, ROWS), ("ALTER TABLE {t} RENAME COLUMN a TO b, RENAME COLUMN b TO a", "UPDATE {t} SET a = 'x' WHERE id = 2")),
    ("chain", "", (TABLE, ROWS), ("ALTER TABLE {t} RENAME COLUMN a TO b, RENAME COLUMN b TO c",)),
    ("swap_mixed", "", (TABLE, ROWS), ("ALTER TABLE {t} ADD x int DEFAULT 4 AFTER a, RENAME COLUMN a TO b, RENAME COLUMN b TO a, DROP n",)),
    ("renamed_away", "", (TABLE, ROWS), ("ALTER TABLE {t} RENAME COLUMN a TO b, DROP b, ADD a int DEFAULT 9 FIRST",)),
    ("set_truncate", "mariadb", (TABLE, ROWS), ("SET STATEMENT max_statement_time = 60 FOR TRUNCATE {t}", "INSERT INTO {t} VALUES (9, 'x', '', 9)")),
    ("set_modify", "mariadb", (TABLE, ROWS), ("SET STATEMENT max_statement_time = 60 FOR ALTER TABLE {t} MODIFY n varchar(9)",)),
    ("set_drop", "mariadb", PARTS, ("SET STATEMENT lock_wait_timeout = 9 FOR ALTER TABLE {t} DROP PARTITION p0",)),
    ("set_update", "mariadb", (TABLE, ROWS), ("SET STATEMENT binlog_format = 'STATEMENT' FOR UPDATE {t} SET n = n + 1",)),
    ("set_mode", "mariadb", (TABLE, ROWS), ("SET STATEMENT sql_mode = 'ORACLE' FOR ALTER TABLE {t} ADD d date",)),
    ("ignored", "mariadb", (TABLE, ROWS, "UPDATE {t} SET b = 'same'"), ("ALTER IGNORE TABLE {t} ADD UNIQUE (b)",)),
    ("added_default", "mariadb", (TABLE, ROWS), ("ALTER TABLE {t} ADD x int, ALTER x SET DEFAULT 5",)),
    ("as_text", "", (TABLE, ROWS), (AS_TEXT, "UPDATE {t} SET n = n + 1", "SET SESSION binlog_format = 'ROW'", "INSERT INTO {t} VALUES (3, 'r', '', 3)")),
    (
        "loaded",
        "",
        (TABLE, ROWS),
        (AS_TEXT, "SELECT 5, 'l', 'm', 5 INTO OUTFILE '{f}/{t}'", "LOAD DATA INFILE '{f}/{t}' INTO TABLE {t}"),
    ),
    (
        "by_trigger",
        "",
        (TABLE, ROWS, *OTHER, "CREATE TRIGGER {t}_g AFTER INSERT ON {t}_2 FOR EACH ROW UPDATE {t} SET n = NEW.v"),
        (AS_TEXT, "INSERT INTO {t}_2 VALUES (51, 6)"),
    ),
    ("exchange", "", (*PARTS, *OTHER), ("ALTER TABLE {t} EXCHANGE PARTITION p0 WITH TABLE {t}_2", "INSERT INTO {t}_2 VALUES (70, 7)")),
    ("converted", "mariadb", PARTS, ("ALTER TABLE {t} CONVERT PARTITION p0 TO TABLE {t}_2",)),
    ("drop_parts", "", PARTS, ("ALTER TABLE {t} DROP PARTITION p0, p1", "INSERT INTO {t} VALUES (250, 4)")),
    ("truncate_parts", "", PARTS, ("ALTER TABLE {t} TRUNCATE PARTITION p0, p2",)),
    ("merged_parts", "", PARTS, ("ALTER TABLE {t} REORGANIZE PARTITION p0, p1 INTO (PARTITION q VALUES LESS THAN (200))", "DELETE FROM {t} WHERE id = 1")),
    ("black_hole", "mysql", (TABLE, ROWS), ("ALTER TABLE {t} ENGINE = BLACKHOLE",)),
    ("binary_table", "", ("CREATE TABLE {t} (id int PRIMARY KEY) CHARACTER SET binary", "INSERT INTO {t} VALUES (1)"), ("ALTER TABLE {t} ADD c char(5), ADD v varchar(5), ADD w text", "INSERT INTO {t} VALUES (2, 'ab', 'cd', 'ef')")),
    ("binary_column", "", (TABLE, ROWS), ("ALTER TABLE {t} ADD c char(5) CHARACTER SET binary", "INSERT INTO {t} (id, c) VALUES (4, 'ab')")),
    ("other_types", "", (TABLE, ROWS), ("ALTER TABLE {t} ADD l long, ADD r real, ADD s text(9)", "INSERT INTO {t} (id, l, r, s) VALUES (4, 'l', 1.5, 's')")),
    ("drop_primary", "", (TABLE, ROWS), ("DROP INDEX `PRIMARY` ON {t}", *SAME_KEYS)),
    ("alter_primary", "", (TABLE, ROWS), ("ALTER TABLE {t} DROP INDEX `PRIMARY`", *SAME_KEYS)),
    ("drop_unique", "", UNIQUE, ("ALTER TABLE {t} DROP INDEX u", *SAME_KEYS)),
    ("drop_renamed", "", UNIQUE, ("ALTER TABLE {t} RENAME INDEX u TO v", "DROP INDEX v ON {t}", *SAME_KEYS)),
    ("drop_constraint", "", UNIQUE, ("ALTER TABLE {t} DROP CONSTRAINT u", *SAME_KEYS)),
    ("replaced_index", "mariadb", UNIQUE, ("CREATE OR REPLACE INDEX u ON {t} (v)", *SAME_KEYS)),
    ("ordered", "", (TABLE, ROWS), ("ALTER TABLE {t} ORDER BY a, b DESC", "UPDATE {t} SET n = 0")),
    ("blue_green", "", (TABLE, ROWS, *OTHER), ("DROP TABLE {t}_2", "RENAME TABLE {t} TO {t}_2", "INSERT INTO {t}_2 VALUES (9, 'x', '', 9)", TABLE)),
    ("circle", "", (TABLE, ROWS, *OTHER), ("RENAME TABLE {t} TO {t}_3, {t}_2 TO {t}, {t}_3 TO {t}_2", "DELETE FROM {t}_2 WHERE id = 1")),
    ("gone_again", "", (TABLE, ROWS), ("DROP TABLE {t}", TABLE, "INSERT INTO {t} VALUES (1, 'new', '', 1)", "DROP TABLE {t}", *OTHER, "RENAME TABLE {t}_2 TO {t}")),
    ("unseen", "", (), ("SET SESSION sql_log_bin = 0", TABLE, "SET SESSION sql_log_bin = 1", ROWS)),
    ("with_vector", "mariadb-sid", ("CREATE TABLE {t} (id int PRIMARY KEY, v vector(2) NOT NULL)",), ("CREATE VECTOR INDEX i ON {t} (v)", "ALTER TABLE {t} DROP INDEX i, ADD VECTOR INDEX j (v)")),
    ("kürbis", "", (TABLE, ROWS), ("ALTER TABLE {t} ADD ö int DEFAULT 3, COMMENT 'ä☃'", "UPDATE {t} SET ö = 4 WHERE id = 1")),
    ("commented", "", (TABLE, ROWS), ("ALTER TABLE {t} /* , DROP b */ ADD x /*!50000 int */ DEFAULT 5 -- , DROP n\n",)),
    ("in_procedure", "", (TABLE, ROWS, "CREATE PROCEDURE {t}_p() BEGIN ALTER TABLE {t} ADD p int DEFAULT 6; UPDATE {t} SET p = id; END"), ("CALL {t}_p()",)),
]  # fmt: skip


def has(edition: str, wanted: str) -> bool:
    return wanted in ("", edition, edition.partition("-")[0])


AS_TEXTS = {"set_update", "as_text", "by_trigger", "loaded"}  # which cast doubt on all tables of their database


@pytest.mark.parametrize("logged", ["exactly", "as text"])
def test_what_is_noticed(every: MySqlDatabase, tmp_path: Path, logged: str) -> None:
    """M1 to M10, M13, M16, M17: statements whose effect is followed exactly, or that make their tables be compared or
    copied again; whatever happens to one table, the run goes on."""
    edition = every.server.programs.edition
    cases = [case for case in CASES if has(edition, case[1]) and (case[0] in AS_TEXTS) == (logged == "as text")]
    every.execute("CREATE TABLE steady (id int PRIMARY KEY)")
    for name, _, before, _ in cases:
        every.execute(*(statement.format(t=name) for statement in before))
    replica = make_replica(every, tmp_path)
    replica.catch_up()
    for name, _, _, statements in cases:
        every.execute(*(statement.format(t=name, f=every.server.folder) for statement in statements))
    every.execute("INSERT INTO steady VALUES (1)")
    replica.catch_up()
    wrong = {}
    there = [
        str(table)
        for (table,) in every.execute(
            "SELECT table_name FROM information_schema.tables "
            f"WHERE table_schema = '{every.name}' AND table_type = 'BASE TABLE'"
        )
    ]
    assert len(there) >= len(cases)
    for table in there:
        try:
            assert_same(replica, table)
        except Exception as error:  # each case for itself, and all are reported
            wrong[table] = str(error)[:300]
    assert wrong == {}
