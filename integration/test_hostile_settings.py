"""Settings of servers, databases and roles, before the start and while it runs: correct, or refused by name.

CDC_HOSTILE_ROUNDS says how many random combinations are tried on each server.
"""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import duckdb
import psycopg
import pytest

from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from cdc.errors import DecodeError, OperatorNeeded, SourceUnfit, TablesHeld
from cdc.runs import open_pipeline
from cdc.sources.postgres.connection import Dsn, connect, connect_replication
from integration.conftest import Database, MySqlDatabase, make_replica

ROUNDS = int(os.environ.get("CDC_HOSTILE_ROUNDS", "2"))

# --- PostgreSQL --------------------------------------------------------------------------------------------------------

POSTGRES_SETTINGS = {
    "datestyle": ["'German, DMY'", "'SQL, DMY'", "'Postgres, MDY'"],
    "intervalstyle": ["'iso_8601'", "'sql_standard'", "'postgres_verbose'"],
    "timezone": ["'Asia/Kathmandu'", "'America/St_Johns'", "'Etc/GMT+12'"],
    "bytea_output": ["'escape'"],
    "extra_float_digits": ["-15", "0", "3"],
    "standard_conforming_strings": ["off"],
    "backslash_quote": ["off"],
    "quote_all_identifiers": ["on"],
    "client_encoding": ["'LATIN1'", "'SQL_ASCII'"],
    "default_transaction_read_only": ["on"],
    "default_transaction_isolation": ["'serializable'"],
    "default_transaction_deferrable": ["on"],
    "statement_timeout": ["1"],
    "lock_timeout": ["1"],
    "idle_in_transaction_session_timeout": ["1"],
    "idle_session_timeout": ["20"],
    "transaction_timeout": ["20"],
    "search_path": ["''", "'public, pg_catalog'"],
    "row_security": ["on"],
    "array_nulls": ["off"],
    "xmlbinary": ["'hex'"],
    "xmloption": ["'document'"],
    "transform_null_equals": ["on"],
    "logical_decoding_work_mem": ["'64kB'"],
    "debug_logical_replication_streaming": ["'immediate'"],
    "work_mem": ["'64kB'"],
    "session_replication_role": ["'replica'"],
    "enable_seqscan": ["off"],
    "debug_parallel_query": ["on"],
    "plan_cache_mode": ["'force_generic_plan'"],
    "client_min_messages": ["'debug5'"],
    "synchronous_commit": ["off"],
}
VALUES = (
    "'2026-02-01 03:04:05.6+02', '1 mon -2 days 03:00', 0.1::float8 + 0.2, '\\xdead005c', 12.5, "
    "concat('a', chr(92), 'b''', chr(233)), ARRAY[1, NULL], '2026-02-01'"
)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_settings_of_database_and_role(database: Database, tmp_path: Path, number: int) -> None:
    """A-60, A-70: whatever a database and a role have set, and have set otherwise after a restart."""
    rng = random.Random(number)
    role = f"hostile_{database.name}"
    database.execute(
        f"""
        CREATE TABLE t (id int PRIMARY KEY, ts timestamptz, i interval, f float8, b bytea, m money, x text, e int[], d date);
        INSERT INTO t SELECT i, {VALUES} FROM generate_series(1, 500) i;
        CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{database.server.password}';
        """
    )
    replica = make_replica(database, tmp_path)
    sources = [database.dsn, database.dsn.replace("postgres@", f"{role}@")]

    def set_some() -> None:
        for name in rng.sample(list(POSTGRES_SETTINGS), 12):
            who = rng.choice([f"DATABASE {database.name}", f"ROLE {role}"])
            database.server.execute(f"ALTER {who} SET {name} = {rng.choice(POSTGRES_SETTINGS[name])}")

    def reset() -> None:
        database.server.execute(f"ALTER DATABASE {database.name} RESET ALL; ALTER ROLE {role} RESET ALL")

    try:
        for turn in range(3):
            set_some()
            open_pipeline(rng.choice(sources), replica.target, replica.options).run()
            reset()
            replica.assert_equal()
            database.execute(
                f"""
                BEGIN; INSERT INTO t SELECT 1000 * {turn} + 1000 + i, {VALUES} FROM generate_series(1, 300) i;
                SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; UPDATE t SET x = x || '!', d = d + 1 WHERE id < 4; COMMIT;
                ALTER TABLE t ADD COLUMN n{turn} timestamptz DEFAULT '2026-02-01 12:00+00'; UPDATE t SET m = m + '1'::money WHERE id = 5;
                """
            )
        replica.catch_up()
        replica.assert_equal()
        assert replica.query("SELECT ts, x FROM t WHERE id = 9") == replica.query("SELECT ts, x FROM t WHERE id = 2009")
        assert replica.query("SELECT count(*), max(f) FROM t") == [(1400, 0.30000000000000004)]
    finally:
        reset()
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_the_server_looks_after_a_host_that_is_gone(database: Database) -> None:
    """E-16: what its sessions hold back is let go of in two minutes, whatever the server's system thinks enough."""
    for kind in (connect, connect_replication):
        with kind(Dsn.parse(database.dsn), "cdc test") as session:
            said = [session.execute(f"SHOW tcp_keepalives_{name}".encode()).fetchone() for name in ("idle", "interval")]
        assert said == [("60",), ("10",)]


@pytest.mark.parametrize(
    ("encoding", "name", "text", "bad"),
    [
        ("LATIN1", "é", "ü", None),
        ("EUC_JP", "日本", "語", b"\\251\\376"),
        ("WIN1251", "Москва", "Да", b"\\230"),
        ("SQL_ASCII", "é😀", "日本", b"\\377x"),
    ],
)
def test_encodings(
    postgres: PrivatePostgres, tmp_path: Path, encoding: str, name: str, text: str, bad: bytes | None
) -> None:
    """A-32, A-78: names and values in them; a table with bytes that are no text is held, and the others go on."""
    database = Database(postgres, f"encoded_{encoding.lower()}")
    locale = "LC_COLLATE 'C' LC_CTYPE 'C'"
    postgres.execute(f"CREATE DATABASE {database.name} ENCODING '{encoding}' TEMPLATE template0 {locale}")
    table = f'"{name}"."t{text}"'
    try:
        with psycopg.connect(database.dsn, autocommit=True, options="-c client_encoding=UTF8") as connection:

            def execute(query: str) -> None:
                connection.execute(query.encode())

            execute(
                f"""
                CREATE SCHEMA "{name}"; CREATE TYPE "{name}".mood AS ENUM ('{text}');
                CREATE TABLE {table} ("{name}" varchar(20) PRIMARY KEY, v text, j jsonb, e "{name}".mood, a text[]);
                INSERT INTO {table} VALUES ('{text}', '{name}', '{{"{name}": "{text}"}}', '{text}', '{{{text},"{name},"}}');
                """
            )
            replica = make_replica(database, tmp_path)
            replica.catch_up()
            replica.assert_equal()
            execute(
                f"INSERT INTO {table} SELECT v || 'x', v, j, e, a FROM {table}; UPDATE {table} SET v = '{text}{name}'"
            )
            execute(f"""ALTER TABLE {table} ADD COLUMN "n{text}" text DEFAULT '{text}'; UPDATE {table} SET j = '1'""")
            replica.catch_up()
            replica.assert_equal()
            with duckdb.connect(str(replica.path), read_only=True) as target:
                found = target.execute(
                    f'SELECT "{name}", v, j, e, "n{text}" FROM "{name}"."t{text}" ORDER BY v'
                ).fetchall()
            changed = f"{text}{name}"
            assert set(found) == {(key, changed, "1", text, text) for key in (text, f"{name}x")}
            if bad is not None:
                with psycopg.connect(database.dsn, autocommit=True, options=f"-c client_encoding={encoding}") as raw:
                    raw.pgconn.exec_(b"CREATE TABLE bad (id text PRIMARY KEY)")
                    raw.pgconn.exec_(b"INSERT INTO bad VALUES (E'" + bad + b"')")
                with pytest.raises(TablesHeld, match=r"public\.bad: .*encoding"):
                    replica.catch_up()
    finally:
        database.remove()


# --- MySQL and MariaDB -------------------------------------------------------------------------------------------------

MODES = ["''", "'ANSI_QUOTES'", "'NO_BACKSLASH_ESCAPES'", "'ALLOW_INVALID_DATES'", "'ANSI,NO_BACKSLASH_ESCAPES'"]
MODES += ["'PAD_CHAR_TO_FULL_LENGTH'", "'NO_ZERO_DATE,STRICT_ALL_TABLES'", "'REAL_AS_FLOAT,PIPES_AS_CONCAT'"]
SWITCHES = {
    "binlog_row_image": ["'FULL'", "'MINIMAL'", "'NOBLOB'"],
    "binlog_checksum": ["'NONE'", "'CRC32'"],
    "sql_mode": MODES,
    "time_zone": ["'+05:45'", "'-12:00'", "'SYSTEM'"],
    "character_set_server": ["'cp1251'", "'latin1'", "'utf8mb4'"],
    "character_set_client": ["'latin1'"],
    "character_set_results": ["'latin1'"],
    "sql_select_limit": ["1", "3"],
    "max_join_size": ["1"],
    "completion_type": ["'RELEASE'", "'CHAIN'"],
    "sql_safe_updates": ["1"],
    "max_binlog_size": ["4096"],
    "wait_timeout": ["1"],
    "net_write_timeout": ["1"],
    "lock_wait_timeout": ["2"],
    "div_precision_increment": ["0"],
}
OF_FLAVOR = {
    "mysql": {
        "binlog_row_metadata": ["'MINIMAL'", "'FULL'"],
        "binlog_transaction_compression": ["ON", "OFF"],
        "binlog_row_value_options": ["'PARTIAL_JSON'", "''"],
        "binlog_rows_query_log_events": ["ON"],
        "binlog_order_commits": ["OFF"],
        "transaction_isolation": ["'SERIALIZABLE'", "'READ-UNCOMMITTED'"],
        "sql_generate_invisible_primary_key": ["ON"],
    },
    "mariadb": {
        "binlog_row_metadata": ["'NO_LOG'", "'MINIMAL'", "'FULL'"],
        "log_bin_compress": ["ON", "OFF"],
        "log_bin_compress_min_len": ["10"],
        "binlog_annotate_row_events": ["OFF", "ON"],
        "tx_isolation": ["'SERIALIZABLE'", "'READ-UNCOMMITTED'"],
        "system_versioning_asof": ["'2020-01-01 00:00:00'"],
        "idle_transaction_timeout": ["1"],
        "idle_readonly_transaction_timeout": ["1"],
    },
}
TABLES = (
    "CREATE TABLE t (id int PRIMARY KEY, a varchar(300), n int, d date, ts timestamp(3) NULL, f float, c char(5), j {json}, b blob)",
    "CREATE TABLE k (a int, v varchar(20))",
    "INSERT INTO t SELECT n, REPEAT('é', n), n, '2024-01-02', '2024-03-31 02:30:00.5', 1.1, 'a', '{{\"k\": 1, \"pad\": \"xxxxxxxxxxxxxxxxxxxx\"}}', x'00ff' FROM ("
    + " UNION ALL ".join(f"SELECT {n} AS n" for n in range(1, 21))
    + ") numbers",
    "INSERT INTO k SELECT n % 3, 'x' FROM t",
)


# What MINIMAL leaves out of the log is in no log: with documents in parts, and where a statement might be a REPLACE.
REFUSED = re.compile(r"partial update .* logged without the document|it may be a REPLACE")


def some_work(rng: random.Random) -> list[str]:
    """Statements that mean the same under every mode."""
    key, other = rng.randrange(30), rng.randrange(30, 60)
    choices = [
        f"INSERT INTO t VALUES ({rng.randrange(10**9)}, REPEAT('ü', 200), NULL, '2024-02-29', NOW(3), 0.1, 'x', '[]', x'80')",
        f"UPDATE t SET n = n + 1, ts = '2024-10-27 02:30:00.123' WHERE id < {key}",
        f"UPDATE t SET a = CONCAT(id, 'é') WHERE id = {key}",
        f"UPDATE t SET id = {rng.randrange(10**9)}, c = 'b ' WHERE id = {key}",
        f"DELETE FROM t WHERE id IN ({key}, {other})",
        f"UPDATE t SET j = JSON_SET(j, '$.k', {key}) WHERE id > 0",
        f"INSERT INTO k VALUES ({key}, NULL)",
        "UPDATE k SET v = 'y' WHERE a = 1 LIMIT 2",
        "DELETE FROM k WHERE a = 2 LIMIT 1",
        "FLUSH BINARY LOGS",
    ]
    return rng.sample(choices, 5)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_switches_flipped_while_running(my: MySqlDatabase, tmp_path: Path, number: int) -> None:
    """B-20, B-21, B-24, B-25, B-40, B-63: the switches of the log and the sessions, changed under a running pipeline."""
    rng = random.Random(number)
    switches = SWITCHES | OF_FLAVOR[my.flavor]
    names = ", ".join(f"@@GLOBAL.{name}" for name in switches)
    usual = my.execute(f"SELECT {names}")[0]
    my.execute(*(statement.replace("{json}", "json").replace("{{", "{").replace("}}", "}") for statement in TABLES))

    def flip(count: int) -> None:
        for name in rng.sample(list(switches), count):
            my.server.execute(f"SET GLOBAL {name} = {rng.choice(switches[name])}")

    def reset() -> None:
        with my.server.connect() as connection, connection.cursor() as cursor:
            for name, value in zip(switches, usual, strict=True):
                is_default = value is None or name == "system_versioning_asof"
                cursor.execute(
                    f"SET GLOBAL {name} = " + ("DEFAULT" if is_default else "%s"), () if is_default else (value,)
                )

    replica = make_replica(my, tmp_path)

    def meanwhile(pipeline: threading.Thread) -> None:
        for _ in range(5):
            flip(4)
            my.execute("SET sql_safe_updates = 0, sql_select_limit = DEFAULT, completion_type = 0", *some_work(rng))
            time.sleep(0.2)

    try:
        flip(6)
        replica.catch_up()
        reset()
        replica.assert_equal()
        assert replica.query("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM k)") == [(20, 20)]
        running = replace(replica.options, until_caught_up=False)
        try:
            open_pipeline(my.dsn, replica.target, running).run_beside(meanwhile)
            replica.catch_up()
        except (DecodeError, OperatorNeeded, TablesHeld) as refusal:
            if REFUSED.search(str(refusal)):
                return
            raise
        reset()
        replica.assert_equal()
    finally:
        reset()


NAMES_IN_OTHER_CHARSETS: list[list[str | bytes]] = [
    ["SET NAMES latin1", b"ALTER TABLE {} ADD COLUMN `\xe9` int", b"UPDATE {} SET `\xe9` = id"],
    ["SET NAMES latin1", "ALTER TABLE {} ADD x varchar(9) DEFAULT 'd'", b"ALTER TABLE {} ADD y int COMMENT '\xe9\xff'"],
    ["SET NAMES sjis", b"ALTER TABLE {} ADD COLUMN `\x83\x5c` int", b"UPDATE {} SET `\x83\x5c` = id"],
    [
        "SET NAMES cp1251",
        b"RENAME TABLE {} TO `\xcc\xee\xf1\xea\xe2\xe0`",
        b"INSERT INTO `\xcc\xee\xf1\xea\xe2\xe0` (id) VALUES (77)",
    ],
    ["SET NAMES latin1", b"TRUNCATE `\xe9\xe8`", b"INSERT INTO `\xe9\xe8` (id) VALUES (77)"],
    ["SET NAMES gbk", b"ALTER TABLE `t 5` ADD `\xd5\x5c` int, ADD n2 int", b"UPDATE `t 5` SET `\xd5\x5c` = 4, n2 = 5"],
]
MODES_OF_STATEMENTS: list[list[str | bytes]] = [
    [
        "SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
        "ALTER TABLE {} ADD x int COMMENT 'C:\\', ADD y int COMMENT 'D:\\', DROP n",
        "UPDATE {} SET x = 4",
    ],
    [
        "SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
        "ALTER TABLE {} ADD x varchar(30) DEFAULT 'C:\\n'",
        "UPDATE {} SET n = 5",
    ],
    [
        "SET sql_mode = 'ANSI,NO_BACKSLASH_ESCAPES'",
        "ALTER TABLE {} ADD \"x\\\" varchar(30) DEFAULT 'q'",
        'UPDATE {} SET "x\\" = 1',
    ],
    ["SET sql_mode = 'ANSI'", "ALTER TABLE {} ADD \"x y\" varchar(30) DEFAULT 'q'", "UPDATE {} SET n = 5 WHERE id = 2"],
    ["SET sql_mode = 'REAL_AS_FLOAT'", "ALTER TABLE {} ADD x REAL", "UPDATE {} SET x = 1.1 WHERE id = 2"],
    [
        "SET sql_mode = 'ALLOW_INVALID_DATES'",
        "UPDATE {} SET d = '2020-02-31' WHERE id = 1",
        "INSERT INTO {} (id, d) VALUES (50, '0000-00-00')",
    ],
]
MODES_OF_MARIADB: list[list[str | bytes]] = [
    ["SET sql_mode = 'EMPTY_STRING_IS_NULL'", "ALTER TABLE {} ADD x varchar(30) DEFAULT ''", "UPDATE {} SET n = 5"],
    [
        "SET sql_mode = 'ORACLE'",
        "ALTER TABLE {} ADD x VARCHAR2(30) DEFAULT 'q', ADD y NUMBER(10)",
        "UPDATE {} SET n = 5",
    ],
    ["SET explicit_defaults_for_timestamp = OFF", "ALTER TABLE {} ADD x timestamp", "UPDATE {} SET n = 1 WHERE id = 2"],
]


@pytest.mark.parametrize("metadata", ["FULL", "minimal"])
def test_statements_under_other_modes(my: MySqlDatabase, tmp_path: Path, metadata: str) -> None:
    """B-40, B-41, B-44: what an ALTER or a TRUNCATE says depends on the character set and the mode of its session."""
    cases = NAMES_IN_OTHER_CHARSETS + MODES_OF_STATEMENTS + (MODES_OF_MARIADB if my.flavor == "mariadb" else [])
    tables = [f"t{number}" for number in range(len(cases))]
    tables[4], tables[5] = "éè", "t 5"
    rows = ", ".join(f"({i}, 'é{i}', {i}, '2024-01-02')" for i in range(1, 6))
    for table in tables:
        my.execute(
            f"CREATE TABLE `{table}` (id int PRIMARY KEY, a varchar(100), n int, d datetime)",
            f"INSERT INTO `{table}` VALUES {rows}",
        )
    if metadata == "minimal":
        my.execute(f"SET GLOBAL binlog_row_metadata = '{'MINIMAL' if my.flavor == 'mysql' else 'NO_LOG'}'")
    try:
        replica = make_replica(my, tmp_path)
        replica.catch_up()
        for table, case in zip(tables, cases, strict=True):
            with my.connect() as connection:
                for statement in case:
                    is_bytes = isinstance(statement, bytes)
                    name: bytes | str = table.encode() if is_bytes else table
                    connection.query(statement.replace(b"{}" if is_bytes else "{}", name))  # type: ignore[arg-type]
        replica.catch_up()
        replica.assert_equal()
        assert len(replica.compare()) == len(cases)
    finally:
        my.execute("SET GLOBAL binlog_row_metadata = 'FULL'")


def test_history_is_not_taken_for_now(on_mariadb: MySqlDatabase, tmp_path: Path) -> None:
    """B-47: a server whose sessions see the past of system-versioned tables."""
    on_mariadb.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int) WITH SYSTEM VERSIONING", "INSERT INTO t VALUES (1, 1)"
    )
    on_mariadb.execute("SET GLOBAL system_versioning_asof = '2020-01-01 00:00:00'")
    try:
        replica = make_replica(on_mariadb, tmp_path)
        replica.catch_up()
        assert replica.query("SELECT id, v FROM t") == [(1, 1)]
    finally:
        on_mariadb.execute("SET GLOBAL system_versioning_asof = DEFAULT")


def test_statements_instead_of_rows(my: MySqlDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """B-23: binlog_format changed for all new sessions: what they wrote is found by comparison, and the run goes on."""
    my.execute("CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1, 1)")
    replica = make_replica(my, tmp_path)
    replica.catch_up()
    try:
        my.execute("SET GLOBAL binlog_format = 'STATEMENT'")
        my.execute("UPDATE t SET v = 2")
        replica.catch_up()
        assert "a statement of the kind 'UPDATE'" in caplog.text
        assert replica.query("SELECT * FROM t") == [(1, 2)]
    finally:
        my.execute("SET GLOBAL binlog_format = 'ROW'")


@pytest.mark.parametrize("edition", ["mysql", "mariadb"])
def test_names_without_case(edition: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """B-40, E-06: lower_case_table_names = 1: statements and the DSN write names as they like."""
    caplog.set_level(logging.INFO)
    with PrivateMySql(edition, {"lower-case-table-names": "1", "binlog-row-metadata": "MINIMAL"}) as server:
        server.create_database("Shop")
        database = MySqlDatabase(server, "Shop")
        database.execute("CREATE TABLE T (id int PRIMARY KEY, a int, b int)", "INSERT INTO T VALUES (1, 2, 3)")
        replica = make_replica(database, tmp_path, name="shop")
        replica.catch_up()
        replica.assert_equal()
        database.execute(
            "TRUNCATE T",
            "INSERT INTO T VALUES (5, 6, 7)",
            "ALTER TABLE SHOP.t RENAME COLUMN a TO c",
            "CREATE TABLE New (id int PRIMARY KEY)",
            "INSERT INTO NEW VALUES (1)",
            "RENAME TABLE NEW TO Newer",
            "INSERT INTO newer VALUES (2)",
        )
        replica.catch_up()
        replica.assert_equal()
        assert {str(table.table) for table in replica.compare()} == {"shop.t", "shop.newer"}
        assert "not followed any more" not in caplog.text


def test_filtered_logs(tmp_path: Path) -> None:
    """B-23: a log that leaves out databases is refused, at first and when a server comes back with one."""
    with PrivateMySql("mariadb") as server:
        server.create_database("shop")
        database = MySqlDatabase(server, "shop")
        database.execute("CREATE TABLE t (id int PRIMARY KEY)")
        replica = make_replica(database, tmp_path)
        replica.catch_up()
        server.add_settings({"binlog-ignore-db": "other"})
        server.restart()
        with pytest.raises(OperatorNeeded, match="binlog_ignore_db = other"):
            replica.catch_up()
        replica.path.unlink()
        with pytest.raises(SourceUnfit, match="binlog_ignore_db = other"):
            replica.catch_up()
