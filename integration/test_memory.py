"""Memory: what a run needs stays under what docs/operating.md says that it may, measured from outside.

`CDC_MEMORY_SCALE=10` makes the long form: ten times the rows.
"""

from __future__ import annotations

import os
from pathlib import Path

from integration.conftest import Database, MySqlDatabase, make_replica
from integration.memory import budget_mb, peak_mb

SCALE = float(os.environ.get("CDC_MEMORY_SCALE", "1"))
SMALL = {"segment": 4, "memory": 96}  # so that what is not bounded is seen with few rows


def run(database: Database | MySqlDatabase, folder: Path, **options: int) -> float:
    """Catch up, and say what that needed at most, in megabytes."""
    target = f"duckdb:{folder / 'memory.duckdb'}"
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return peak_mb("run", database.dsn, target, "--name", database.name, "--until-caught-up", *given)


def assert_equal(database: Database | MySqlDatabase, folder: Path) -> None:
    replica = make_replica(database, folder)
    replica.path = folder / "memory.duckdb"
    replica.assert_equal()


def test_a_huge_transaction(database: Database, tmp_path: Path) -> None:
    """A-63, E-08: a million rows inserted, updated and deleted at once, each in one transaction."""
    database.execute("CREATE TABLE t (id bigint PRIMARY KEY, a int, b numeric(12,2), v text, w text, d date)")
    run(database, tmp_path)
    count = int(1_000_000 * SCALE)
    for work in (
        f"INSERT INTO t SELECT i, i % 1000, i / 8.0, 'row ' || i, NULL, '2024-01-01' FROM generate_series(1, {count}) i",
        "UPDATE t SET a = a + 1",
        "DELETE FROM t WHERE id % 100 <> 0",
    ):
        database.execute(work)
        assert run(database, tmp_path, **SMALL) < budget_mb(**SMALL)
    assert_equal(database, tmp_path)


def test_a_huge_transaction_of_mysql(on_mysql: MySqlDatabase, tmp_path: Path) -> None:
    """B-64, E-08: the same, from a binlog."""
    numbers = "(SELECT 0 n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)"
    tens = " JOIN ".join(f"{numbers} {name}" for name in "abcde")
    on_mysql.execute("CREATE TABLE t (id int PRIMARY KEY, a int, v varchar(60), w text)")
    run(on_mysql, tmp_path)
    digits = "a.n + 10 * b.n + 100 * c.n + 1000 * d.n + 10000 * e.n"
    on_mysql.execute(
        "BEGIN",
        *(f"INSERT INTO t SELECT {part * 100000} + {digits}, c.n, CONCAT('row ', d.n), NULL FROM {tens}" for part in range(int(3 * SCALE))),
        "UPDATE t SET a = a + 1",
        "COMMIT",
    )  # fmt: skip
    assert run(on_mysql, tmp_path, **SMALL) < budget_mb(**SMALL)
    assert_equal(on_mysql, tmp_path)


def test_a_wide_table(database: Database, tmp_path: Path) -> None:
    """E-08: 1,600 columns, most of them null: copied, then followed."""
    columns = ", ".join(f"c{number} int" for number in range(1599))
    count = int(3000 * SCALE)
    database.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    database.execute(f"INSERT INTO t (id, c0, c7) SELECT i, i, i FROM generate_series(1, {count}) i")
    limit = budget_mb(columns=1600)
    assert run(database, tmp_path) < limit
    database.execute(f"INSERT INTO t (id, c1) SELECT i, i FROM generate_series({count + 1}, {2 * count}) i")
    database.execute("UPDATE t SET c0 = 1 WHERE id % 10 = 0")
    assert run(database, tmp_path) < limit
    assert_equal(database, tmp_path)


def test_a_wide_table_of_mariadb(on_mariadb: MySqlDatabase, tmp_path: Path) -> None:
    """E-08: 1,000 columns."""
    columns = ", ".join(f"c{number} int" for number in range(999))
    on_mariadb.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, {columns})", "INSERT INTO t (id) VALUES (1), (2), (3), (4)"
    )
    on_mariadb.execute(*(f"INSERT INTO t (id) SELECT id + {4 << part} FROM t" for part in range(9)))
    limit = budget_mb(columns=1000)
    assert run(on_mariadb, tmp_path) < limit
    on_mariadb.execute("INSERT INTO t (id, c0) SELECT id + 100000, id FROM t", "UPDATE t SET c7 = id")
    assert run(on_mariadb, tmp_path) < limit
    assert_equal(on_mariadb, tmp_path)


def test_a_large_row(database: Database, tmp_path: Path) -> None:
    """A-79, E-08: 64 MB of bytea, which are 128 MB of text: copied, inserted, and left alone by an update."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, n int, v bytea)")
    database.execute("ALTER TABLE t ALTER v SET STORAGE EXTERNAL")
    limit = budget_mb(memory=512, value=128)
    row = "decode(repeat('ab', 67108864), 'hex')"
    for work in (
        f"INSERT INTO t SELECT 1, 1, {row}",
        f"INSERT INTO t SELECT 2, 2, {row}",
        "UPDATE t SET n = 3 WHERE id = 1",
    ):
        database.execute(work)
        assert run(database, tmp_path, memory=512) < limit
    replica = make_replica(database, tmp_path)
    replica.path = tmp_path / "memory.duckdb"
    expected = [(1, 3, 67108864), (2, 2, 67108864)]
    assert replica.query("SELECT id, n, octet_length(v) FROM t ORDER BY id") == expected


def test_a_large_row_of_mysql(on_mysql: MySqlDatabase, tmp_path: Path) -> None:
    """B-64: 64 MB of longblob, copied and inserted."""
    on_mysql.execute("CREATE TABLE t (id int PRIMARY KEY, v longblob)")
    limit = budget_mb(memory=512, value=64)
    for number in (1, 2):
        on_mysql.execute(f"INSERT INTO t VALUES ({number}, REPEAT(x'8041', {32 << 20}))")
        assert run(on_mysql, tmp_path, memory=512) < limit
    assert_equal(on_mysql, tmp_path)


def test_many_tables(database: Database, tmp_path: Path) -> None:
    """E-08: hundreds of tables, each with few rows."""
    tables = range(int(300 * SCALE))
    with database.connect() as connection:
        for number in tables:
            connection.execute(f"CREATE TABLE t{number} (id int PRIMARY KEY, v text)".encode())
            connection.execute(f"INSERT INTO t{number} SELECT i, 'x' FROM generate_series(1, 100) i".encode())
        assert run(database, tmp_path, **SMALL) < budget_mb(**SMALL)
        for number in tables:
            connection.execute(f"INSERT INTO t{number} VALUES (1000, 'y')".encode())
    assert run(database, tmp_path, **SMALL) < budget_mb(**SMALL)
    assert_equal(database, tmp_path)
