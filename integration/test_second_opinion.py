"""`cdc check --log`: a file of the log as two decoders read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from cdc.connectors import source_module
from cdc.errors import DecodeError, UsageError
from cdc.model.selection import Selection
from cdc.runs import compare_log
from cdc.sources.findings import Finding, Severity
from cdc.sources.mysql import binlog, second_opinion
from cdc.sources.mysql.events import UPDATES, WRITES
from integration.conftest import Database, MySqlDatabase, make_replica
from integration.processes import cdc

EVERY_TYPE = """
CREATE TABLE t (id int PRIMARY KEY, ti tinyint, tu tinyint unsigned, s smallint, m mediumint, mu mediumint unsigned,
  b bigint, bu bigint unsigned, d decimal(20,5), f float, df double, bi bit(10), y year, da date, dt datetime(3),
  ts timestamp(6) NULL, tm time(2), tn time(6), to1 time(1), c char(5), v varchar(300), bin binary(4), vb varbinary(9), tx text, bl blob,
  e enum('a','b','é'), st set('x','y'), j json, g geometry) CHARACTER SET utf8mb4
"""
ROWS = (
    "INSERT INTO t VALUES (1, -128, 255, -5, -8388608, 16777215, -9e18, 18446744073709551615, -12.345, 1.1, 0.1, b'1010101010', "
    "2024, '2024-02-29', '2024-02-03 04:05:06.789', '2024-02-03 04:05:06.123456', '-12:34:56.78', '-00:00:00.500001', '-838:59:58.9', 'é', REPEAT('ü', 200), 'ab', "
    "X'00ff10', 'text', X'c328', 'é', 'x,y', '{\"a\": [1, 2.5, \"é\", null, true]}', ST_GeomFromText('POINT(1 2)'))",
    "INSERT INTO t (id) VALUES (2)",
    "INSERT INTO t (id, y, tm, st, v, da) VALUES (3, 0, '838:59:59', '', '', '1000-01-01'), (4, 1901, '00:00:00', 'y', ' ', NULL)",
    "UPDATE t SET v = 'new', j = '[]', d = 0 WHERE id < 3",
    "UPDATE t SET id = id + 100 WHERE id > 2",
    "DELETE FROM t WHERE id = 2",
)


def opinion(my: MySqlDatabase, file: str | None = None) -> list[Finding]:
    return compare_log(my.dsn, Selection((f"{my.name}.*",)), file)


def wrong(found: list[Finding]) -> list[str]:
    return [f"{finding.subject}: {finding.message}" for finding in found if finding.severity is Severity.FATAL]


def test_both_agree_on_every_type(my: MySqlDatabase) -> None:
    """B-24: inserts, updates and deletes of every type; what both read alike is said as a number of rows."""
    my.execute("FLUSH BINARY LOGS", EVERY_TYPE, *ROWS, "CREATE TABLE u (n int)", "INSERT INTO u VALUES (1), (1)")
    found = opinion(my)
    assert wrong(found) == []
    assert found[-1].message == "11 rows of 2 tables are the same to both decoders."
    done = cdc("check", my.dsn, "--log", "-t", f"{my.name}.u")
    assert done.returncode == 0, done.stderr
    assert "2 rows of 1 tables" in done.stdout


def test_what_only_one_understands_is_named(my: MySqlDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """B-21: transactions that are compressed are passed over by the library; a kind of event that ours did not know
    would be named with the place and what ours says, and what comes after it is compared again."""
    my.execute("FLUSH BINARY LOGS", "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a')")
    compress = (
        "SET SESSION binlog_transaction_compression = {}"
        if my.flavor == "mysql"
        else "SET GLOBAL log_bin_compress = {}"
    )
    try:
        my.execute(compress.format("ON"), "INSERT INTO t VALUES (2, REPEAT('x', 5000))")
    finally:
        my.execute(compress.format("OFF"))
    my.execute("UPDATE t SET v = 'b' WHERE id = 1", "INSERT INTO t VALUES (3, 'c')")
    found = opinion(my)
    assert wrong(found) == []
    assert [f.message for f in found if "Only cdc understands it" in f.message] != []
    assert found[-1].message == "3 rows of 1 tables are the same to both decoders."

    known = binlog._KNOWN.copy()
    known[list(UPDATES)] = False
    monkeypatch.setattr(binlog, "_KNOWN", known)
    (said,) = wrong(opinion(my))
    assert said.startswith(f"{my.name}.t: Only pymysqlreplication understands it; cdc says: UPDATE_ROWS")
    assert opinion(my)[-1].message == "2 rows of 1 tables are the same to both decoders."


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda before, after: (before, after | {"v": "other"}), "Column v has other values"),
        (lambda before, after: (after, None), "Column (all) has other values"),
    ],
)
def test_rows_that_differ_are_named(
    on_mysql: MySqlDatabase, monkeypatch: pytest.MonkeyPatch, change: Callable[..., second_opinion.Image], said: str
) -> None:
    """E-04: the column and the place, with no value; exit code 3 is for those who watch."""
    on_mysql.execute(
        "FLUSH BINARY LOGS", "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'zq')"
    )
    read = second_opinion._read

    def lie(event: object) -> second_opinion.RowEvent:
        one = read(event)
        return dataclasses.replace(one, images=[change(*image) for image in one.images or ()])

    monkeypatch.setattr(second_opinion, "_read", lie)
    (message,) = wrong(opinion(on_mysql))
    assert said in message
    assert "zq" not in message
    monkeypatch.setattr(second_opinion, "_read", lambda event: dataclasses.replace(read(event), images=[]))
    (message,) = wrong(opinion(on_mysql))
    assert "cdc reads 1 rows, pymysqlreplication reads 0" in message


def test_tables_of_another_shape_are_not_compared(on_mariadb: MySqlDatabase) -> None:
    """B-50: the log has rows of tables as they were then; that they are not compared is said."""
    on_mariadb.execute(
        "FLUSH BINARY LOGS",
        "CREATE TABLE t (id int PRIMARY KEY, v text)",
        "INSERT INTO t VALUES (1, 'a')",
        "ALTER TABLE t ADD w int",
        "INSERT INTO t VALUES (2, 'b', 3)",
    )
    found = opinion(on_mariadb)
    assert wrong(found) == []
    assert any("another shape" in finding.message for finding in found)
    assert found[-1].message == "1 rows of 1 tables are the same to both decoders."


def test_what_is_not_understood_says_whom_to_ask(
    my: MySqlDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B-22: the whole command, with the file that the event is in."""
    my.execute("CREATE TABLE t (id int PRIMARY KEY)")
    replica = make_replica(my, tmp_path)
    replica.catch_up()
    my.execute("INSERT INTO t VALUES (1)")
    file = my.execute("SHOW BINARY LOGS")[-1][0]
    known = binlog._KNOWN.copy()
    known[list(WRITES)] = False
    monkeypatch.setattr(binlog, "_KNOWN", known)
    with pytest.raises(DecodeError) as caught:
        replica.catch_up()
    assert f"`cdc check SOURCE --log {file}`" in (caught.value.hint or "")


def test_files_and_logs_that_there_are_not(on_mysql: MySqlDatabase, database: Database) -> None:
    """E-12: a file that the server does not have, a database with another log, and a file without --log."""
    with pytest.raises(UsageError, match="no log file") as caught:
        opinion(on_mysql, "nothing.000001")
    assert on_mysql.execute("SHOW BINARY LOGS")[-1][0] in (caught.value.hint or "")
    with pytest.raises(UsageError, match="no second decoder"):
        compare_log(database.dsn, Selection(), None)
    assert not hasattr(source_module(database.dsn), "compare_log")
    done = cdc("check", on_mysql.dsn, "binlog.000001")
    assert done.returncode == 2
    assert "cdc check SOURCE --log binlog.000001" in done.stderr
