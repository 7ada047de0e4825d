"""Which tables are followed, and which of their columns, where the log or the catalog does not say all of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cdc.errors import TablesHeld
from cdc.runs import open_pipeline
from integration.conftest import MySqlDatabase, Replica, make_replica
from integration.test_mysql_statements import assert_same


@contextmanager
def no_names(database: MySqlDatabase) -> Iterator[None]:
    """The log does not name columns, which is MySQL's default."""
    database.execute("SET GLOBAL binlog_row_metadata = 'MINIMAL'")
    try:
        yield
    finally:
        database.execute("SET GLOBAL binlog_row_metadata = 'FULL'")


@pytest.mark.loses_shapes
@pytest.mark.parametrize("kind", ["bigint", "timestamp NULL", "int", "varchar(5)"])
def test_a_column_that_nobody_knows(my: MySqlDatabase, tmp_path: Path, kind: str) -> None:
    """M7: a row has more columns than the table: it is copied again, whatever their types are."""
    with no_names(my):
        my.execute("CREATE TABLE t (id int PRIMARY KEY, a int)", "INSERT INTO t VALUES (1, 1)")
        replica = make_replica(my, tmp_path)
        replica.catch_up()
        my.execute("SET SESSION sql_log_bin = 0", f"ALTER TABLE t ADD z {kind}", "SET SESSION sql_log_bin = 1")
        my.execute("INSERT INTO t VALUES (2, 2, NULL)")
        replica.catch_up()
        assert_same(replica, "t")


def test_a_column_called_period(on_mysql: MySqlDatabase, tmp_path: Path) -> None:
    """M7: a word that begins other actions too is a name, and the column is followed without a copy."""
    with no_names(on_mysql):
        on_mysql.execute("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
        replica = make_replica(on_mysql, tmp_path)
        replica.catch_up()
        on_mysql.execute("ALTER TABLE t ADD period bigint", "INSERT INTO t VALUES (2, 5)")
        replica.catch_up()
        assert_same(replica, "t")


def test_columns_that_the_server_hides(my: MySqlDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """B-46, M7: as many as there are are passed over, and no more; none is copied again for them."""
    if my.flavor == "mysql":
        my.execute(
            "CREATE TABLE h (id int PRIMARY KEY, v text, w int, KEY ((upper(v(9)))), KEY ((w + 1), id, (w * 2)))".replace(
                "upper(v(9))", "substr(v, 1, 9)"
            )
        )
        later = "ALTER TABLE h ADD x bigint"
    else:
        my.execute("CREATE TABLE h (id int PRIMARY KEY, v text, w int, UNIQUE (v), UNIQUE k (v, w))")
        my.execute("CREATE TABLE s (id int PRIMARY KEY, v text, UNIQUE (v)) WITH SYSTEM VERSIONING")
        later = "ALTER TABLE h ADD x bigint AFTER w"
    my.execute("INSERT INTO h VALUES (1, 'x', 1), (2, 'y', 2)")
    with no_names(my):
        replica = make_replica(my, tmp_path)
        replica.catch_up()
        my.execute(
            "INSERT INTO h VALUES (3, 'z', 3)", "UPDATE h SET v = 'w' WHERE id = 1", "DELETE FROM h WHERE id = 2"
        )
        my.execute(later, "INSERT INTO h VALUES (4, 'zz', 4, 44)")
        if my.flavor == "mariadb":
            my.execute("INSERT INTO s VALUES (1, 'a'), (2, 'b')", "UPDATE s SET v = 'c' WHERE id = 1")
            my.execute("DELETE FROM s WHERE id = 2")
        replica.catch_up()
        assert_same(replica, "h", *(["s"] if my.flavor == "mariadb" else []))
        assert "copied again" not in caplog.text


@pytest.mark.loses_shapes
@pytest.mark.parametrize("named", [False, True])
def test_columns_that_may_not_be_read(my: MySqlDatabase, tmp_path: Path, named: bool) -> None:
    """M20: a user with grants on columns gets no value of another one; the table is held, and the others go on."""
    my.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, salary bigint, z bigint)",
        "CREATE TABLE u (id int PRIMARY KEY)",
        "INSERT INTO t VALUES (1, 1000, 1)",
    )
    user = f"u_{my.name}@'127.0.0.1'"
    client = "BINLOG MONITOR" if my.flavor == "mariadb" else "REPLICATION CLIENT"
    my.execute(
        f"CREATE USER {user} IDENTIFIED BY 'pw'",
        f"GRANT SELECT ON {my.name}.t TO {user}",
        f"GRANT SELECT ON {my.name}.u TO {user}",
        f"GRANT RELOAD, LOCK TABLES, REPLICATION SLAVE, {client} ON *.* TO {user}",
    )
    dsn = my.server.dsn(my.name, f"u_{my.name}", "pw")
    replica = make_replica(my, tmp_path)
    try:
        open_pipeline(dsn, replica.target, replica.options).run()
        my.execute(f"REVOKE SELECT ON {my.name}.t FROM {user}", f"GRANT SELECT (id, z) ON {my.name}.t TO {user}")
        my.execute("SET GLOBAL binlog_row_metadata = 'FULL'" if named else "SET GLOBAL binlog_row_metadata = 'MINIMAL'")
        my.execute(
            "INSERT INTO t VALUES (2, 2000, 2)", "UPDATE t SET salary = 3000 WHERE id = 1", "INSERT INTO u VALUES (5)"
        )
        with pytest.raises(TablesHeld, match="GRANT SELECT"):
            open_pipeline(dsn, replica.target, replica.options).run()
    finally:
        my.execute("SET GLOBAL binlog_row_metadata = 'FULL'", f"DROP USER {user}")
    values = {value for row in replica.query("SELECT * FROM t") for value in row}
    assert 1000 in values  # which the user could read then
    assert not values & {2000, 3000}
    assert replica.query("SELECT * FROM u") == [(5,)]


def test_a_key_that_may_not_be_read(my: MySqlDatabase, tmp_path: Path) -> None:
    """M5: a key that lacks one of its columns, since the user may not read it, is no key."""
    from cdc.sources.mysql.catalog import user_tables
    from cdc.sources.mysql.connection import Connection, Dsn

    my.execute("CREATE TABLE t (a int, b int, z int NOT NULL, PRIMARY KEY (a, b), UNIQUE w (z))")
    user = f"u_{my.name}@'127.0.0.1'"
    my.execute(f"CREATE USER {user} IDENTIFIED BY 'pw'")
    dsn = Dsn.parse(my.server.dsn(my.name, f"u_{my.name}", "pw"))
    found = []
    try:
        for columns in ("a", "a, z", "a, b, z"):
            my.execute(f"GRANT SELECT ({columns}) ON {my.name}.t TO {user}")
            with Connection(dsn, "test") as connection:
                (table,) = user_tables(connection, my.name)
            keys = [table.schema.columns[index].name for index in table.schema.key]
            found.append((table.key_index, keys, table.schema.full_before))
    finally:
        my.execute(f"DROP USER {user}")
    assert found == [("", [], True), ("w", ["z"], False), ("PRIMARY", ["a", "b"], False)]


def test_names_of_ghosts(my: MySqlDatabase, tmp_path: Path) -> None:
    """M14: what is there when the pipeline begins is followed, whatever it is called, and so is what is named."""
    names = ["price", "_price_new", "_price_gho", "_x_old", "_x_del", "lhmn_y"]
    for name in names:
        my.execute(f"CREATE TABLE {name} (id int PRIMARY KEY)", f"INSERT INTO {name} VALUES (1)")
    replica = make_replica(my, tmp_path)
    replica.catch_up()
    later = ["_z_new", "_price_old"]
    for name in [*names, *later]:
        my.execute(f"CREATE TABLE IF NOT EXISTS {name} (id int PRIMARY KEY)", f"INSERT INTO {name} VALUES (2)")
    my.execute("RENAME TABLE _x_old TO _price_del", "INSERT INTO _price_del VALUES (3)")
    replica.catch_up()
    assert_same(replica, "price", "_price_new", "_price_gho", "_price_del", "_x_del", "lhmn_y", "_z_new")


def test_a_ghost_that_is_named(my: MySqlDatabase, tmp_path: Path) -> None:
    """M14: a table that is made while the log is followed, under a ghost's name, is followed if it is asked for."""
    my.execute("CREATE TABLE price (id int PRIMARY KEY)", "CREATE TABLE _price_new (id int PRIMARY KEY)")
    replica = make_replica(my, tmp_path, f"{my.name}.price", f"{my.name}._price_new")
    replica.catch_up()
    my.execute(
        "DROP TABLE _price_new", "CREATE TABLE _price_new (id int PRIMARY KEY)", "INSERT INTO _price_new VALUES (1)"
    )
    replica.catch_up()
    assert_same(replica, "price", "_price_new")


def test_a_swap_of_ghosts_that_are_followed(my: MySqlDatabase, tmp_path: Path) -> None:
    """M14, B-43: a change that was begun before the pipeline."""
    my.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int)",
        "INSERT INTO t VALUES (1, 1), (2, 2)",
        "CREATE TABLE _t_gho (id int PRIMARY KEY, v int, w int)",
        "INSERT INTO _t_gho VALUES (1, 1, 1)",
    )
    replica = make_replica(my, tmp_path)
    replica.catch_up()
    my.execute(
        "INSERT INTO _t_gho VALUES (2, 2, 2)",
        "RENAME TABLE t TO _t_del, _t_gho TO t",
        "INSERT INTO t VALUES (3, 3, 3)",
        "DROP TABLE _t_del",
    )
    replica.catch_up()
    assert_same(replica, "t")


def test_statements_of_another_database(my: MySqlDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """M10: a bare name is in the database in use, and in no other."""
    my.execute("CREATE TABLE t (id int PRIMARY KEY, a int)", "INSERT INTO t VALUES (1, 1)")
    replica = make_replica(my, tmp_path)
    replica.catch_up()
    other = MySqlDatabase(my.server, f"{my.name}_b")
    my.server.create_database(other.name)
    try:
        other.execute("CREATE TABLE t (id int PRIMARY KEY, a int)", "INSERT INTO t VALUES (5, 5)")
        my.execute(f"ALTER TABLE {other.name}.t ORDER BY id, a", f"ALTER TABLE {other.name}.t MODIFY a bigint")
        other.execute(
            "ALTER TABLE t ADD b int", "TRUNCATE t", "SET SESSION binlog_format = 'STATEMENT'", "DELETE FROM t"
        )
        other.execute("DROP TABLE t", f"INSERT INTO {my.name}.t VALUES (2, 2)")
        replica.catch_up()
        assert_same(replica, "t")
        assert not [text for text in caplog.messages if "copied again" in text or "suspect" in text]
    finally:
        other.remove()


@pytest.mark.parametrize("how", ["DROP TABLE n", "DROP DATABASE {d}_m", "RENAME TABLE n TO {d}_m.n"])
def test_a_table_that_goes_before_it_is_copied(my: MySqlDatabase, tmp_path: Path, how: str) -> None:
    """M23: it is waited for no longer, and what it has left behind in the target is no matter."""
    my.server.create_database(f"{my.name}_m")
    try:
        my.execute("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE n (id int PRIMARY KEY)")
        replica = make_replica(my, tmp_path)
        replica.catch_up()
        my.execute("ALTER TABLE n MODIFY id bigint", "INSERT INTO n VALUES (1)", "INSERT INTO t VALUES (1)")
        my.execute("CREATE TABLE made (id int PRIMARY KEY)", "INSERT INTO made VALUES (1)")
        my.execute(how.format(d=my.name), "DROP TABLE made")
        run_within(replica, 60)
        assert_same(replica, "t")
    finally:
        my.server.execute(f"DROP DATABASE IF EXISTS {my.name}_m")


def run_within(replica: Replica, seconds: float) -> None:
    pipeline = open_pipeline(replica.database.dsn, replica.target, replica.options)
    timer = threading.Timer(seconds, pipeline.stop)
    timer.start()
    pipeline.run()
    ended_by_itself = timer.is_alive()
    timer.cancel()
    assert ended_by_itself
