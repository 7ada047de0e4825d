"""B-24: what is left out of a row image is what the server put there, or the target keeps what it has."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pymysql
import pytest

from integration.conftest import MySqlDatabase, make_replica
from integration.test_mysql_replication import follow

COLUMNS = {
    "i": "int DEFAULT 7",
    "u": "bigint unsigned NOT NULL DEFAULT 18446744073709551615",
    "z": "smallint(5) zerofill DEFAULT 42",
    "y": "year DEFAULT 2024",
    "d": "decimal(20,4) DEFAULT -1.5",
    "v": "varchar(40) CHARACTER SET latin1 DEFAULT 'é, and a text that is not short at all'",
    "w": "varchar(20) NOT NULL DEFAULT ''",
    "e": "enum('a','b''c','d') DEFAULT 'd'",
    "s": "set('a','b','c') DEFAULT 'a,c'",
    "day": "date DEFAULT '2024-02-29'",
    "at": "datetime(3) DEFAULT '1999-12-31 23:59:59.5'",
    "n": "text",
    "j": "json",
    "f": "double",
    "o": "float DEFAULT 0",
    "p": "double DEFAULT 1.23456789012345678",
    "b": "bit(3) DEFAULT b'101'",
    "ts": "timestamp(6) NOT NULL DEFAULT current_timestamp(6)",
    "up": "datetime NULL ON UPDATE current_timestamp",
    "g": "int AS (i + 1) STORED",
}
NAMED = [name for name in COLUMNS if name != "g"]
# Defaults that cannot be known for certain, or whose kind is not one of those that can.
UNCERTAIN = {"float(5,2)": "1.25", "binary(3)": "'a'", "time": "'01:02:03'"}


@pytest.fixture
def wide(my: MySqlDatabase) -> Iterator[MySqlDatabase]:
    """A table of all defaults, on a server whose global switches are as they were afterwards."""
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    my.execute(f"CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, k int UNIQUE, {columns})")
    my.execute(
        "INSERT INTO t (id, k, i, v, n) VALUES (1, 1, 99, 'old', 'old'), (2, 2, 99, 'old', 'old'), (3, 3, 3, 'c', 'd')"
    )
    yield my
    my.execute("SET GLOBAL binlog_row_image = 'FULL'")
    if my.flavor == "mariadb":
        my.execute("SET GLOBAL binlog_annotate_row_events = ON")


def run(database: MySqlDatabase, *statements: str) -> None:
    """Statements of one session; rows that a key refuses do not come."""
    with database.connect() as connection, connection.cursor() as cursor:
        for statement in statements:
            with suppress(pymysql.err.IntegrityError):
                cursor.execute(statement)
        connection.commit()


def some_statement(rng: random.Random) -> str:
    """What makes, replaces and changes rows, naming some of the columns."""
    names = rng.sample(NAMED, rng.randrange(4))
    key, k = rng.choice(["NULL", str(rng.randrange(1, 9))]), rng.choice(["NULL", str(rng.randrange(1, 9))])
    named = ", ".join(["id", "k", *names])
    values = ", ".join([key, k, *("DEFAULT" for _ in names)])
    more = (
        ", ".join(f"{name} = DEFAULT({name})" for name in names if name not in ("ts", "up", "j", "n", "f")) or "i = 5"
    )
    return rng.choice(
        [
            f"INSERT IGNORE INTO t ({named}) VALUES ({values})",
            f"INSERT IGNORE INTO t ({named}) SELECT {values.replace('DEFAULT', '1')}"
            if not names
            else "INSERT INTO t () VALUES ()",
            f"REPLACE INTO t ({named}) VALUES ({values})",
            f"REPLACE t ({named}) VALUES ({values}), ({rng.randrange(1, 9)}, NULL{', DEFAULT' * len(names)})",
            f"INSERT INTO t ({named}) VALUES ({values}) ON DUPLICATE KEY UPDATE {more}",
            f"UPDATE IGNORE t SET {more}, i = i + 1 WHERE id < {rng.randrange(9)}",
            f"UPDATE IGNORE t SET id = {rng.randrange(100, 10**9)}, v = 'm' WHERE id = {rng.randrange(9)}",
            f"UPDATE IGNORE t SET k = {rng.randrange(9)} WHERE id = {rng.randrange(9)}",
            f"DELETE FROM t WHERE id = {rng.randrange(9)}",
            "CALL work()",
        ]
    )


@pytest.mark.parametrize("image", ["MINIMAL", "NOBLOB"])
@pytest.mark.parametrize("scope", ["SESSION", "GLOBAL"])
def test_what_a_statement_does_not_name(
    wide: MySqlDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture, image: str, scope: str
) -> None:
    """B-24, B-48: inserts get their defaults, and so do rows that are replaced, which MariaDB logs as updates without them;
    updates leave alone what they do not name. The switch is that of a session, unknown to others, or of the server."""
    replica = make_replica(wide, tmp_path)
    if scope == "GLOBAL":
        wide.execute(f"SET GLOBAL binlog_row_image = '{image}'")
    follow(replica)
    seed = int(os.environ.get("CDC_SEED", random.randrange(1 << 32)))
    rng = random.Random(seed)
    print(f"CDC_SEED={seed}")
    mode = "SET SESSION sql_mode = ''"
    switch = f"SET SESSION binlog_row_image = '{image}'"
    wide.execute(
        "CREATE PROCEDURE work() BEGIN UPDATE t SET n = 'by work' WHERE id = 2; REPLACE INTO t (id, f) VALUES (2, 0.5); END"
    )
    follow(replica, mode, switch, "INSERT INTO t () VALUES ()", "REPLACE INTO t (id, k) VALUES (1, 1)", "CALL work()")
    assert replica.query("SELECT i, v, n FROM t WHERE id = 1") == [(7, "é, and a text that is not short at all", None)]
    for _ in range(3):
        run(wide, mode, switch, *(some_statement(rng) for _ in range(25)))
        follow(replica)
    # Defaults change, and triggers say something else.
    run(
        wide,
        mode,
        switch,
        "ALTER TABLE t ALTER i SET DEFAULT 8, ALTER COLUMN v SET DEFAULT 'x', ALTER e SET DEFAULT 'a', ALTER d SET DEFAULT 2.5, "
        "ADD COLUMN late varchar(9) DEFAULT 'late'",
        *(some_statement(rng) for _ in range(10)),
        "ALTER TABLE t RENAME COLUMN late TO later, ADD COLUMN latest int",
        "REPLACE INTO t (id) VALUES (2)",
        "CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.d = 5",
        *(some_statement(rng) for _ in range(10)),
        "DROP TRIGGER tr",
        *(some_statement(rng) for _ in range(10)),
    )
    follow(replica)
    assert "copied again" not in caplog.text  # which would make up for anything
    assert "suspect" not in caplog.text


def test_a_default_that_is_not_certain(my: MySqlDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """B-24, M19: a value that the log does not have is never guessed: it is read again."""
    for number, (kind, default) in enumerate(UNCERTAIN.items()):
        my.execute(f"CREATE TABLE t{number} (id int PRIMARY KEY, x {kind} DEFAULT {default})")
        replica = make_replica(my, tmp_path, f"t{number}", name=f"{my.name}_{number}")
        follow(replica)
        follow(replica, "SET SESSION binlog_row_image = 'MINIMAL'", f"INSERT INTO t{number} (id) VALUES (1)")
    my.execute("CREATE TABLE later (id int PRIMARY KEY, x int DEFAULT 1)")
    replica = make_replica(my, tmp_path, "later", name=f"{my.name}_later")
    follow(replica)
    my.execute("ALTER TABLE later ALTER x DROP DEFAULT")
    follow(
        replica, "SET sql_mode = ''", "SET SESSION binlog_row_image = 'MINIMAL'", "INSERT INTO later (id) VALUES (1)"
    )
    assert caplog.text.count("is suspect: changes of it were logged without x") == len(UNCERTAIN) + 1


@pytest.mark.parametrize(
    "statement",
    [
        "REPLACE INTO t (k) VALUES (1)",
        "UPDATE t SET id = 50 WHERE id = 1",
        "UPDATE t SET n = 'an ordinary one, which names no key'",
    ],
)
def test_a_replace_without_its_text(
    wide: MySqlDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture, statement: str
) -> None:
    """B-48, M6: where MariaDB is set not to log statements, nobody can tell a REPLACE from an update, and the rows are
    read again; MySQL logs whole rows."""
    replica = make_replica(wide, tmp_path)
    follow(replica)
    switches = ["SET SESSION binlog_row_image = 'MINIMAL'"]
    if wide.flavor == "mariadb":
        switches.append("SET SESSION binlog_annotate_row_events = OFF")
    follow(replica, *switches, statement)
    assert ("may be a REPLACE" in caplog.text) is (wide.flavor == "mariadb")
