"""What differs between the editions of MariaDB: forms of values, character sets, what is left out of row images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc.demo.mysql import PrivateMySql
from integration.conftest import MySqlDatabase, make_my, make_replica
from integration.test_mysql_replication import follow
from integration.test_mysql_types import both_paths

OLD_FORM = {"mysql56-temporal-format": "OFF"}


@pytest.fixture(scope="module")
def mariadb_11() -> Iterator[PrivateMySql]:
    with PrivateMySql("mariadb-sid") as server:
        yield server


@pytest.fixture
def on_mariadb_11(mariadb_11: PrivateMySql) -> Iterator[MySqlDatabase]:
    yield from make_my(mariadb_11)


@pytest.mark.parametrize("edition", ["mariadb", "mariadb-sid"])
def test_old_temporal_forms(tmp_path: Path, edition: str) -> None:
    """B-50, B-51, M11: what MariaDB 5.3 to 10.0 made, with every number of digits, at both ends and of no calendar; as
    values, as keys, in tables with past rows, and beside columns of today's form."""
    types = {}
    for digits in range(7):
        part = "." + "987654"[:digits] if digits else ""
        most = "." + "9" * digits if digits else ""
        least = "." + "0" * (digits - 1) + "1" if digits else ""
        types |= {
            f"datetime({digits})": [f"'2024-02-29 12:34:56{part}'", f"'9999-12-31 23:59:59{most}'", "'0000-00-00'"],
            f"datetime({digits}) NOT NULL": [f"'1000-01-01 00:00:00{least}'", f"'2024-01-01 00:00:00{most}'"],
            f"timestamp({digits}) NULL": [f"'2024-02-29 12:34:56{part}'", f"'2038-01-19 03:14:07{part}'", "0"],
            f"time({digits})": [
                f"'838:59:59{part}'",
                f"'-838:59:59{most}'",
                f"'-00:00:00{least}'",
                f"'00:00:01{part}'",
            ],
        }
    types |= {"date": ["'2024-02-29'", "'0000-00-00'"], "varchar(10)": ["'a'"], "year": ["2024"]}
    with PrivateMySql(edition, OLD_FORM) as server:
        for database in make_my(server):
            both_paths(database, tmp_path, {kind: values for kind, values in types.items() if "NOT NULL" not in kind})
        for database in make_my(server):
            replica = make_replica(database, tmp_path)
            database.execute(
                "CREATE TABLE k (at datetime(3), t time(5), s timestamp(1), v text, PRIMARY KEY (at, t, s))",
                "INSERT INTO k VALUES ('2024-01-01 00:00:00.5', '-1:00:00.25', '2024-01-01 00:00:00.1', 'a')",
                "CREATE TABLE past (id int PRIMARY KEY, at time(2)) WITH SYSTEM VERSIONING",
                "INSERT INTO past VALUES (1, '0:0:0.25'), (2, '0:0:0.5')",
            )
            follow(replica)
            follow(
                replica,
                "UPDATE k SET at = '2025-01-01 00:00:00.125', v = 'b'",
                "UPDATE past SET at = '-0:0:1.75' WHERE id = 1",
                "DELETE FROM past WHERE id = 2",
                "SET GLOBAL mysql56_temporal_format = ON",
                "ALTER TABLE k ADD COLUMN later datetime(2)",
                "INSERT INTO k VALUES ('2024-01-01 00:00:00.5', '1:0:0.5', '2024-01-01 00:00:00.1', 'a', NOW(2))",
                "ALTER TABLE k FORCE",
                "UPDATE k SET t = '2:0:0.00001', later = '2024-02-29 01:02:03.45'",
            )


@pytest.mark.parametrize(
    "collation", ["utf8mb4_uca1400_as_cs", "utf8mb3_uca1400_ai_ci", "utf8mb4_general_ci", "latin1"]
)
def test_statements_in_any_character_set(on_mariadb_11: MySqlDatabase, tmp_path: Path, collation: str) -> None:
    """M16, B-44: statements that are not ASCII, about tables that are followed and others, by sessions of any collation."""
    replica = make_replica(on_mariadb_11, tmp_path, "größe", "t")
    charset = collation.partition("_")[0]
    names = f"SET NAMES {charset}" + (f" COLLATE {collation}" if "_" in collation else "")
    on_mariadb_11.execute(
        "CREATE TABLE größe (id int PRIMARY KEY, v text)",
        "CREATE TABLE t (id int PRIMARY KEY)",
        "INSERT INTO t VALUES (1)",
    )
    follow(replica)
    with on_mariadb_11.connect() as connection, connection.cursor() as cursor:
        connection.set_character_set(charset)
        for statement in (
            names,
            "CREATE TABLE straße (id int) COMMENT 'é'",
            "ALTER TABLE größe ADD COLUMN länge int",
            "INSERT INTO größe VALUES (1, 'é', 2)",
            "ALTER TABLE t COMMENT = 'ü'",
            "ALTER TABLE größe RENAME COLUMN länge TO höhe",
            "DROP TABLE straße",
        ):
            cursor.execute(statement)
    replica.catch_up()
    replica.assert_equal()
    assert replica.query('SELECT id, v, "höhe" FROM größe') == [(1, "é", 2)]


GENERATED = """(
    {key} a int, b int, t varchar(20), s int AS (a * 2) STORED, v int AS (a + 1) VIRTUAL,
    both_of int AS (s + v) VIRTUAL, w varchar(50) AS (concat(t, '!')) STORED, {more}
)"""
CHANGES = (
    "UPDATE {table} SET a = 77 WHERE b = 1",
    "UPDATE {table} SET t = 'new', a = NULL WHERE b = 2",
    "DELETE FROM {table} WHERE b = 3",
    "UPDATE {table} SET b = 40, t = 'x' WHERE b = 4",
    "UPDATE {table} SET b = 50 WHERE b = 5",
    "INSERT INTO {table} ({id} a, b, t) VALUES ({six} 8, 6, 'y')",
    "UPDATE {table} SET a = a + 1",
)
KEYED = (
    "REPLACE INTO {table} (id, a, b, t) VALUES (1, 8, 8, 'z')",
    "INSERT INTO {table} (id, a, b, t) VALUES (1, 1, 1, 'u') ON DUPLICATE KEY UPDATE a = 99",
    "UPDATE {table} SET id = 100, a = 5 WHERE id = 2",
)


@pytest.mark.parametrize("edition", ["mariadb", "mariadb-sid"])
@pytest.mark.parametrize("image", ["FULL", "NOBLOB", "MINIMAL"])
def test_generated_columns_that_are_left_out(
    request: pytest.FixtureRequest, tmp_path: Path, edition: str, image: str
) -> None:
    """B-24, B-46, M19: MariaDB 11.8 leaves them out of whatever is changed or deleted; they are never taken as unchanged,
    with a key and without one, after each single change and after many."""
    server = request.getfixturevalue("mariadb_11" if edition == "mariadb-sid" else "mariadb")
    for database in make_my(server):
        replica = make_replica(database, tmp_path)
        tables = {"keyed": "id int PRIMARY KEY,", "bare": ""}
        for table, key in tables.items():
            database.execute(f"CREATE TABLE {table} {GENERATED.format(key=key, more='z int')}")
            rows = ", ".join(f"({f'{n}, ' if key else ''}{n}, {n}, 'r{n}')" for n in range(1, 6))
            database.execute(f"INSERT INTO {table} ({'id, ' if key else ''}a, b, t) VALUES {rows}")
        follow(replica)
        mode = f"SET SESSION binlog_row_image = '{image}'"
        for table, key in tables.items():
            named = {"table": table, "id": "id," if key else "", "six": "6," if key else ""}
            changes = [change.format(**named) for change in (*CHANGES, *(KEYED if key else ()))]
            for change in changes[:3]:
                follow(replica, mode, change)
            follow(replica, mode, *changes[3:])
        source = database.execute("SELECT id, a, b, t, s, v, both_of, w FROM keyed ORDER BY id")
        assert replica.query("SELECT id, a, b, t, s, v, both_of, w FROM keyed ORDER BY id") == source


def test_generated_columns_that_certainly_stay(
    on_mariadb_11: MySqlDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """M19: where the log has all that a column depends on before and after, and it is the same, nothing is read again; also
    under another name, and through another generated column."""
    on_mariadb_11.execute(
        f"CREATE TABLE keyed {GENERATED.format(key='id int PRIMARY KEY,', more='z int')}",
        "INSERT INTO keyed (id, a, b, t) VALUES (1, 1, 1, 'x'), (2, NULL, 2, NULL)",
    )
    replica = make_replica(on_mariadb_11, tmp_path)
    follow(replica)
    follow(
        replica,
        "UPDATE keyed SET b = 9",
        "ALTER TABLE keyed RENAME COLUMN a TO renamed",
        "UPDATE keyed SET z = 7 WHERE id = 2",
        "UPDATE keyed SET id = 3 WHERE id = 1",
        "DELETE FROM keyed WHERE id = 2",
    )
    assert "suspect" not in caplog.text
    follow(replica, "UPDATE keyed SET renamed = 5")
    assert "logged without s, v, both_of" in caplog.text


def test_rows_that_a_trigger_replaces(on_mariadb: MySqlDatabase, tmp_path: Path) -> None:
    """B-48, M6: where triggers, views or two tables of one name let nobody say which statement an update is of, the rows are
    read again."""
    my = on_mariadb
    my.execute(
        "CREATE TABLE orders (id int PRIMARY KEY, b int, state varchar(9) DEFAULT 'none')",
        "CREATE TABLE orders_line (id int PRIMARY KEY, n int, c varchar(9) DEFAULT 'z')",
        "INSERT INTO orders VALUES (1, 100, 'paid'), (2, 200, 'paid')",
        "INSERT INTO orders_line VALUES (1, 1, 'a'), (2, 2, 'b')",
        "CREATE VIEW seen AS SELECT * FROM orders",
    )
    replica = make_replica(my, tmp_path)
    follow(replica)
    mode = "SET SESSION binlog_row_image = 'MINIMAL'"
    follow(replica, mode, "REPLACE INTO seen (id) VALUES (2)", "UPDATE seen SET id = 20, b = 1 WHERE id = 2")
    for moment in ("BEFORE", "AFTER"):
        for trigger, work in (
            ("UPDATE orders SET b = b + 1, id = id WHERE id = 1", "REPLACE INTO orders_line (id, n) VALUES (1, 5)"),
            ("REPLACE INTO orders (id, b) VALUES (1, 7)", "REPLACE INTO orders_line (id, n) VALUES (1, 6)"),
            ("REPLACE INTO orders (id, b) VALUES (1, 8)", "INSERT INTO orders_line (id) VALUES (9)"),
        ):
            follow(
                replica,
                "UPDATE orders SET state = 'paid'",
                f"CREATE TRIGGER work {moment} INSERT ON orders_line FOR EACH ROW {trigger}",
                mode,
                work,
                "DELETE FROM orders_line WHERE id = 9",
                "DROP TRIGGER work",
            )
    # The other way round: the trigger is on the table whose name the other one begins with.
    follow(
        replica,
        "CREATE TRIGGER work AFTER INSERT ON orders FOR EACH ROW UPDATE orders_line SET id = id, n = 0 WHERE id = 2",
        mode,
        "REPLACE INTO orders (id) VALUES (1)",
        "DROP TRIGGER work",
    )
