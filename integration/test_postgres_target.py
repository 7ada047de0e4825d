"""PostgreSQL as a target: the tables are the source's, type by type where that is PostgreSQL too.

What is compared are the texts that the two servers write of whole rows, by psycopg and pymysql.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from sqlglot import exp

from cdc.demo.server import PrivatePostgres
from cdc.demo.shop import Workload
from cdc.errors import TablesHeld, TargetBusy, UsageError
from cdc.model.schema import TableName
from cdc.options import Options
from cdc.runs import open_pipeline
from cdc.tables import sql
from cdc.target import Keys, Mode
from cdc.targets.postgres import connection
from cdc.targets.postgres.connection import Server
from cdc.targets.postgres.engine import PostgresEngine
from cdc.targets.postgres.lease import LOCK, Lease
from cdc.targets.postgres.target import PostgresTarget
from integration.conftest import Database, MySqlDatabase
from integration.mysql_work import make_tables, start_work
from integration.pooler import PrivatePooler
from integration.processes import cdc, start
from integration.test_kill import make_shop
from tests.seeds import chosen_at_random

_TYPES = (
    "CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(10,2), d date, at timestamptz, j jsonb, u uuid, b bytea, "
    "i interval, a int[], ta text[], f double precision, ok boolean, ip inet, c char(5), r int4range, bits bit(3), big text)",
    "ALTER TABLE t ALTER big SET STORAGE EXTERNAL",
    "INSERT INTO t SELECT i, E'\"v,\\n\\t' || i, i * 1.5, '2024-02-29', now(), '{\"a\": [1, null]}', gen_random_uuid(), "
    "'\\x00ff', '1 mon -2 days', '{1,NULL}', '{\"a,b\",NULL,\"\"}', 0.1, true, '10.0.0.1/8', 'ab', '[1,5)', B'101', "
    "repeat('x', 9000) FROM generate_series(1, 300) i",
    "INSERT INTO t (id, d, n, f, at, v) VALUES (9000, 'infinity', 'NaN', 'Infinity', '-infinity', ''), "
    "(9001, '0044-03-15 BC', -0.01, '-0', '0044-03-15 12:00:00 BC', NULL)",
    "CREATE TABLE k (a int, b text)",
    "ALTER TABLE k REPLICA IDENTITY FULL",
    "INSERT INTO k VALUES (1, 'x'), (1, 'x'), (1, 'x'), (2, NULL), (3, '')",
)


@pytest.fixture(scope="module")
def copies() -> Iterator[PrivatePostgres]:
    """Another server than the source's."""
    with PrivatePostgres(18) as server:
        yield server


class Copy:
    """A database and the one that it is copied to."""

    def __init__(self, source: Database | MySqlDatabase, copies: PrivatePostgres) -> None:
        self.source, self.name = source, source.name
        self.target = copies.create_database(f"copy_{source.name}")
        self.options = Options(source.name, until_caught_up=True)

    def run(self, mode: Mode | None = None, keys: Keys | None = None) -> None:
        options = Options(self.name, until_caught_up=True, mode=mode, keys=keys)
        open_pipeline(self.source.dsn, self.target, options).run()

    def verify(self) -> None:
        done = cdc("verify", self.source.dsn, self.target, "--name", self.name)
        assert done.returncode == 0, done.stdout + done.stderr

    def rows(self, query: str) -> list[tuple[object, ...]]:
        return _rows(self.target, query)

    def assert_equal(self, *tables: str) -> None:
        """Every row of the source, as its server writes it, and no other."""
        for table in tables:
            query = f"SELECT t::text FROM {table} t ORDER BY 1"
            assert self.rows(query) == _rows(self.source.dsn, query), table


def _rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, options="-c timezone=UTC -c extra_float_digits=1") as connection:
        return connection.execute(query.encode()).fetchall()


def execute(database: Database, *statements: str) -> None:
    for statement in statements:
        database.execute(statement)


def test_types_and_shapes(database: Database, copies: PrivatePostgres) -> None:
    """A-41, A-46, A-50, A-70: every type is the source's own; keys that move, values that the log leaves out, equal rows
    without a key, and shapes that change."""
    copy = Copy(database, copies)
    execute(database, *_TYPES)
    copy.run()
    copy.assert_equal("t", "k")
    kinds = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attnum > 0 AND attrelid = 't'::regclass"
    assert copy.rows(kinds) == _rows(database.dsn, kinds)
    execute(
        database,
        "UPDATE t SET v = 'new' WHERE id < 50",
        "UPDATE t SET id = -id WHERE id % 7 = 0",
        "DELETE FROM t WHERE id BETWEEN 100 AND 120",
        "DELETE FROM k WHERE ctid IN (SELECT ctid FROM k WHERE a = 1 LIMIT 1)",
        "UPDATE k SET b = 'y' WHERE a = 2",
    )
    copy.run()
    copy.assert_equal("t", "k")
    execute(
        database,
        "ALTER TABLE t ALTER n TYPE numeric(14,2), ADD COLUMN w int DEFAULT 7, DROP COLUMN c",
        "ALTER TABLE t RENAME v TO vv",
        "UPDATE t SET w = 8, vv = NULL WHERE id = 1",
        "TRUNCATE k",
        "INSERT INTO k VALUES (9, 'z')",
        "CREATE TABLE later (id int PRIMARY KEY, m int)",
        "INSERT INTO later VALUES (1, 2)",
    )
    copy.run()
    copy.assert_equal("t", "k", "later")
    copy.verify()


def test_killed_under_load(database: Database, copies: PrivatePostgres) -> None:
    """C-04, D-01, D-18, D-19: the process dies, and the target's sessions do, at any moment."""
    copy = Copy(database, copies)
    make_shop(database, customers=200)
    rng = chosen_at_random()
    workload = Workload(database.dsn, rate=400)
    workload.start()
    for number in range(4):
        process = start("run", database.dsn, copy.target, "--name", copy.name)
        until = time.monotonic() + rng.uniform(1, 3)
        while time.monotonic() < until:
            time.sleep(rng.uniform(0.05, 0.4))
            if number % 2:  # the answer to a COMMIT may be lost, and is looked up
                ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cdc target'"
                copies.execute(ending, database=f"copy_{copy.name}")
        assert process.poll() in (None, 1), process.communicate()  # 1: one that was just being opened
        process.kill()
        process.wait()
    workload.stop()
    copy.run()
    copy.assert_equal("shop.customers", "shop.products", "shop.orders", "shop.order_lines")


def test_soft_delete(database: Database, copies: PrivatePostgres) -> None:
    """A-41: rows that were deleted stay, and say when and where that was."""
    copy = Copy(database, copies)
    execute(
        database, "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')"
    )
    copy.run(Mode.SOFT_DELETE)
    execute(
        database, "DELETE FROM t WHERE id = 2", "UPDATE t SET id = 30 WHERE id = 3", "INSERT INTO t VALUES (2, 'again')"
    )
    copy.run()
    live = "SELECT id, v FROM t WHERE _cdc_deleted_at IS NULL ORDER BY 1"
    assert copy.rows(live) == [(1, "a"), (2, "again"), (30, "c")]
    assert copy.rows("SELECT id, _cdc_deleted_position <> '' FROM t WHERE _cdc_deleted_at IS NOT NULL") == [(3, True)]
    copy.verify()


def test_from_mysql(my: MySqlDatabase, copies: PrivatePostgres) -> None:
    """C-04, D-01, A-70: under load, killed; what PostgreSQL has no place for makes a column a text."""
    copy = Copy(my, copies)
    make_tables(my, 300)
    my.execute(
        "SET SESSION sql_mode = ''",
        "CREATE TABLE odd (id int PRIMARY KEY, d date, b blob, f double, u bigint unsigned, t time, n decimal(12,4), s text)",
        "INSERT INTO odd VALUES (1, '2024-02-29', X'00FF', 0.1, 18446744073709551615, '12:00:00', -0.5, 'a\"b\\n'), "
        "(2, NULL, NULL, 1e300, 0, '-838:59:59', NULL, '')",
    )
    copy.run()
    my.execute("SET SESSION sql_mode = ''", "INSERT INTO odd (id, d) VALUES (3, '0000-00-00')")
    work = start_work(my, 1)
    for _ in range(2):
        process = start("run", my.dsn, copy.target, "--name", copy.name)
        time.sleep(2)
        process.kill()
        process.wait()
    work.stop()
    copy.run()
    copy.verify()
    theirs = [
        tuple(row)
        for row in my.execute(
            "SELECT id, CAST(d AS CHAR), HEX(b), CAST(u AS CHAR), CAST(n AS CHAR), s FROM odd ORDER BY id"
        )
    ]
    ours = f"SELECT id, d::text, upper(encode(b, 'hex')), u::text, n::text, s FROM \"{my.name}\".odd ORDER BY id"
    assert copy.rows(ours) == theirs
    accounts = "SELECT count(*), sum(id), sum(balance) FROM {}accounts"
    assert copy.rows(accounts.format(f'"{my.name}".')) == [tuple(row) for row in my.execute(accounts.format(""))]


def test_a_text_with_nul(my: MySqlDatabase, copies: PrivatePostgres) -> None:
    """A-70: PostgreSQL has no place for U+0000 in a text: that table alone is held, in a copy as in the log, with what to
    do, which helps."""
    copy = Copy(my, copies)
    my.execute(
        "CREATE TABLE copied (id int PRIMARY KEY, fine text, note varchar(20))",
        "INSERT INTO copied VALUES (1, 'a', 'b\\0c'), (2, 'd', NULL)",
        "CREATE TABLE logged (id varchar(9) PRIMARY KEY, note text, doc json)",
        "CREATE TABLE other (id int PRIMARY KEY, b varbinary(9))",
        "INSERT INTO other VALUES (1, X'610062')",
    )
    with pytest.raises(TablesHeld, match=rf"{my.name}.copied has a text with the character U\+0000 in note"):
        copy.run()
    my.execute(
        "INSERT INTO logged VALUES ('a\\0b', '\\0', '{\"a\": \"\\\\u0000\"}')", "INSERT INTO other VALUES (2, X'00')"
    )
    with pytest.raises(TablesHeld, match=rf"{my.name}.logged has a text with the character U\+0000 in id, note, which"):
        copy.run()
    assert copy.rows(f'SELECT id, b FROM "{my.name}".other ORDER BY 1') == [(1, b"a\0b"), (2, b"\0")]
    my.execute(
        f"UPDATE `{my.name}`.`copied` SET `note` = REPLACE(`note`, '\\0', '')",
        f"UPDATE `{my.name}`.`logged` SET `id` = REPLACE(`id`, '\\0', ''), `note` = REPLACE(`note`, '\\0', '')",
    )
    for table in ("copied", "logged"):
        done = cdc("resync", my.dsn, copy.target, "--name", my.name, "--tables", f"{my.name}.{table}")
        assert done.returncode == 0, done.stderr
    copy.run()
    assert copy.rows(f'SELECT id, fine, note FROM "{my.name}".copied ORDER BY 1') == [(1, "a", "bc"), (2, "d", None)]
    assert copy.rows(f'SELECT id, note FROM "{my.name}".logged') == [("ab", "")]
    copy.verify()
    my.execute("ALTER TABLE other ADD COLUMN v varchar(9) NOT NULL DEFAULT 'a\\0b'")
    with pytest.raises(TablesHeld, match=rf"{my.name}.other.*U\+0000"):
        copy.run()


_PRIMARY = """
SELECT c.relname::text, array_agg(a.attname::text ORDER BY array_position(k.conkey, a.attnum))
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY(k.conkey)
WHERE k.contype = 'p' AND n.nspname <> 'pg_catalog' GROUP BY 1 ORDER BY 1
"""


def test_primary_keys(database: Database, copies: PrivatePostgres) -> None:
    """A-46, A-50: the source's keys are primary keys, through keys that are swapped, moved, retyped, renamed and changed;
    foreign keys of the target's own do not fire."""
    copy = Copy(database, copies)
    execute(
        database,
        "CREATE TABLE t (a int, b text, v int, PRIMARY KEY (b, a))",
        "INSERT INTO t SELECT i, 'b' || i, i FROM generate_series(1, 2000) i",
        "CREATE TABLE goes (id int PRIMARY KEY, v int)",
        "INSERT INTO goes VALUES (1, 1), (2, 2)",
        "CREATE TABLE keyless (id int)",
    )
    copy.run(keys=Keys.PRIMARY)
    assert copy.rows(_PRIMARY) == [("goes", ["id"]), ("t", ["b", "a"])]
    with pytest.raises(UsageError, match="made with --keys primary, and cannot go on with index"):
        copy.run(keys=Keys.INDEX)
    with psycopg.connect(copy.target, autocommit=True) as theirs:
        theirs.execute("CREATE TABLE theirs (id int REFERENCES goes ON DELETE CASCADE)")
        theirs.execute("INSERT INTO theirs VALUES (1)")
    execute(
        database,
        "BEGIN; UPDATE t SET a = -1 WHERE a = 1; UPDATE t SET a = 1, b = 'b1' WHERE a = 2; "
        "UPDATE t SET a = 2, b = 'b2' WHERE a = -1; COMMIT",
        "UPDATE t SET a = a - 5000",
        "UPDATE goes SET v = 5",
    )
    copy.run()
    copy.assert_equal("t", "goes")
    assert copy.rows("SELECT id FROM theirs") == [(1,)]
    execute(
        database,
        "ALTER TABLE t DROP CONSTRAINT t_pkey, ALTER v SET NOT NULL, ADD PRIMARY KEY (v)",
        "ALTER TABLE t ALTER b DROP NOT NULL",
        "UPDATE t SET b = NULL WHERE v < 10",
        "ALTER TABLE t RENAME v TO w",
        "ALTER TABLE t ALTER w TYPE bigint",
        "CREATE SCHEMA moved",
        "ALTER TABLE goes SET SCHEMA moved",
        "INSERT INTO moved.goes VALUES (3, 3)",
        "CREATE TABLE later (id int PRIMARY KEY)",
        "UPDATE t SET a = 0 WHERE w = 1",
    )
    with psycopg.connect(copy.target, autocommit=True) as theirs:
        theirs.execute("DROP TABLE theirs")
    copy.run()
    copy.assert_equal("t", "moved.goes", "later")
    assert copy.rows(_PRIMARY) == [("goes", ["id"]), ("later", ["id"]), ("t", ["w"])]
    copy.verify()


def test_keys_of_mysql(on_mysql: MySqlDatabase, copies: PrivatePostgres) -> None:
    """A-50, A-70: the same with a key that comes to be a text, and with rows that stay when they are deleted."""
    on_mysql.execute(
        "SET SESSION sql_mode = ''",
        "CREATE TABLE t (d date PRIMARY KEY, v int)",
        "INSERT INTO t VALUES ('2024-01-01', 1), ('2024-01-02', 2)",
    )
    copy = Copy(on_mysql, copies)
    copy.run(Mode.SOFT_DELETE, keys=Keys.PRIMARY)
    on_mysql.execute(
        "SET SESSION sql_mode = ''",
        "INSERT INTO t VALUES ('0000-00-00', 3)",
        "DELETE FROM t WHERE v = 1",
        "INSERT INTO t VALUES ('2024-01-01', 4)",
        "DELETE FROM t WHERE v = 2",
    )
    copy.run()
    found = copy.rows(f'SELECT d, v, _cdc_deleted_at IS NULL FROM "{on_mysql.name}".t ORDER BY v')
    assert found == [("2024-01-02", 2, False), ("0000-00-00", 3, True), ("2024-01-01", 4, True)]
    assert copy.rows(_PRIMARY) == [("t", ["d"])]
    copy.verify()


def test_vectors_of_mysql(on_mysql: MySqlDatabase, copies: PrivatePostgres) -> None:
    """A-70: they are texts, which verification compares as the bytes that the source has."""
    copy = Copy(on_mysql, copies)
    on_mysql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, w vector(2))",
        "INSERT INTO t VALUES (1, STRING_TO_VECTOR('[1,-2.5]')), (2, NULL), (3, STRING_TO_VECTOR('[1e-7,3e38]'))",
    )
    copy.run()
    assert copy.rows(f'SELECT w FROM "{on_mysql.name}".t WHERE id < 3 ORDER BY id') == [("{1.0,-2.5}",), (None,)]
    copy.verify()


def test_an_index_by_another_key(database: Database, copies: PrivatePostgres) -> None:
    """A-50: a table that has another key, or is in another schema, has an index by it, and no second one."""
    copy = Copy(database, copies)
    execute(database, "CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1, 1)")
    copy.run()
    execute(
        database,
        "ALTER TABLE t DROP CONSTRAINT t_pkey, ALTER v SET NOT NULL, ADD PRIMARY KEY (v)",
        "CREATE SCHEMA moved",
        "ALTER TABLE t SET SCHEMA moved",
        "INSERT INTO moved.t VALUES (2, 2)",
    )
    copy.run()
    execute(database, "ALTER TABLE moved.t ADD w int", "INSERT INTO moved.t VALUES (3, 3, 3)")
    copy.run()
    copy.assert_equal("moved.t")
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'moved'"
    assert [str(text).rpartition(" ")[2] for (text,) in copy.rows(indexes)] == ["(v)"]


def test_one_writer(database: Database, copies: PrivatePostgres) -> None:
    """D-17: the lease is the session's; a second pipeline is refused by name."""
    copy = Copy(database, copies)
    execute(database, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    copy.run()
    with psycopg.connect(copy.target, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        with pytest.raises(TargetBusy, match="another pipeline writes to"):
            copy.run()
    copy.run()


def test_poolers(database: Database, copies: PrivatePostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-17, E-11: PgBouncer gives each transaction another session, which is seen at the start, or else before the first
    thing is written; with whole sessions all goes well."""
    copy = Copy(database, copies)
    execute(database, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz)", "INSERT INTO t VALUES (1, now())")
    name = f"copy_{copy.name}"
    with PrivatePooler(copies, "transaction") as pooler, pytest.raises(UsageError, match="a pooler of transactions"):
        open_pipeline(database.dsn, pooler.dsn(name), copy.options).run()
    monkeypatch.setattr(Lease, "_refuse_sharing", lambda _: None)
    with PrivatePooler(copies, "transaction") as pooler, psycopg.connect(pooler.dsn(name)) as other:
        target = PostgresTarget(PostgresEngine(Server.parse(pooler.dsn(name)), keeps_types=True))
        target.open()
        other.execute("SELECT 1")  # in the session of the lease
        with pytest.raises(UsageError, match="a pooler of transactions"):
            target.suspect(1, "a mark, which has a transaction of its own")
        target.close()
    assert copy.rows("SELECT count(*) FROM _cdc.suspect") == [(0,)]
    monkeypatch.undo()
    with PrivatePooler(copies, "session", ignore_startup_parameters="options,extra_float_digits") as pooler:
        open_pipeline(database.dsn, f"{pooler.dsn(name)}?options=-cdatestyle%3DGerman", copy.options).run()
        copy.assert_equal("t")
        execute(database, "UPDATE t SET at = now()")
        open_pipeline(database.dsn, pooler.dsn(name), copy.options).run()
    copy.assert_equal("t")
    copy.verify()


def test_what_is_refused(database: Database, copies: PrivatePostgres) -> None:
    """E-11, O34: said before anything is made, with what helps."""
    copy = Copy(database, copies)
    execute(database, "CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE mine (id int)")
    with PrivatePostgres(15) as old, pytest.raises(UsageError, match="runs PostgreSQL 15"):
        open_pipeline(database.dsn, old.create_database("copy"), copy.options).run()
    with psycopg.connect(copy.target, autocommit=True) as theirs:
        theirs.execute("CREATE TABLE t (mine int)")
    with pytest.raises((UsageError, TablesHeld), match=r"which this pipeline did not make|held"):
        copy.run()


def test_many_rows_without_a_key(database: Database, copies: PrivatePostgres) -> None:
    """A-46: rows are found by all their values without comparing each with each, NULLs among them."""
    copy = Copy(database, copies)
    execute(
        database,
        "CREATE TABLE k (a int, b text, n numeric)",
        "ALTER TABLE k REPLICA IDENTITY FULL",
        "INSERT INTO k SELECT i, nullif(i % 3, 0)::text, i / 7.0 FROM generate_series(1, 5000) i",
    )
    copy.run()
    with psycopg.connect(copy.target, autocommit=True) as theirs:
        theirs.execute(
            "SET search_path = pg_catalog, pg_temp; CREATE TEMPORARY TABLE _cdc_rows (number int8, copies int8, c0 text)"
        )
        engine = PostgresEngine(Server.parse(copy.target), keeps_types=True)
        pairs = [(sql.column("c0", "s"), exp.cast(sql.column("a", "t"), "text"))]
        statement = engine.render(sql.delete_copies(TableName("public", "k"), pairs, "number", "copies"))
        plan = theirs.execute(f"EXPLAIN {statement}".encode()).fetchall()
    assert any("Hash" in line or "Merge" in line for (line,) in plan), plan
    execute(database, "UPDATE k SET n = n + 1", "DELETE FROM k WHERE b IS NULL AND a % 2 = 0")
    copy.run()
    copy.assert_equal("k")


def test_what_others_built_on_a_table(database: Database, copies: PrivatePostgres) -> None:
    """D-08: a table that is copied again stays the table that it was, with the rights, indexes, views and foreign keys of
    others; where its shape has to change under a view, it is held, and the reason names the view."""
    copy = Copy(database, copies)
    execute(database, "CREATE TABLE t (id int PRIMARY KEY, v int, w text)", "INSERT INTO t VALUES (1, 1, 'a')")
    copy.run()
    with psycopg.connect(copy.target, autocommit=True) as theirs:
        theirs.execute("CREATE UNIQUE INDEX theirs ON t (id); GRANT SELECT ON t TO pg_monitor")
        theirs.execute("CREATE TABLE f (id int REFERENCES t (id)); INSERT INTO f VALUES (1)")
        theirs.execute("CREATE VIEW seen AS SELECT v FROM t")
    execute(database, "INSERT INTO t VALUES (2, 2, 'b')", "UPDATE t SET v = 5 WHERE id = 1")
    resync = ("resync", database.dsn, copy.target, "--name", copy.name, "--tables", "public.t")
    done = cdc(*resync)
    assert done.returncode == 0, done.stderr
    copy.assert_equal("t")
    assert copy.rows("SELECT has_table_privilege('pg_monitor', 't', 'SELECT'), to_regclass('theirs') IS NULL") == [
        (True, False)
    ]
    assert copy.rows("SELECT * FROM f") == [(1,)]
    execute(database, "ALTER TABLE t ALTER v TYPE bigint", "INSERT INTO t VALUES (3, 3, 'c')")
    with pytest.raises(TablesHeld, match=r"view public\.seen depends on column .v.\. Drop that"):
        copy.run()
    with psycopg.connect(copy.target, autocommit=True) as theirs:
        theirs.execute("DROP VIEW seen; DROP TABLE f")
    assert cdc(*resync).returncode == 0
    copy.run()
    copy.assert_equal("t")


def test_names_that_postgres_has_no_place_for(on_mysql: MySqlDatabase, copies: PrivatePostgres) -> None:
    """E-06: a name of more than 63 bytes would be cut off, and collide; some columns are the server's own. A first start
    refuses them before anything is made, and what comes later is held alone."""
    long = "ü" * 32
    on_mysql.execute("CREATE TABLE t (id int PRIMARY KEY)", f"CREATE TABLE `{long}` (id int PRIMARY KEY)")
    copy = Copy(on_mysql, copies)
    with pytest.raises(UsageError, match=f"the name {long} has more than 63 bytes"):
        copy.run()
    on_mysql.execute(f"DROP TABLE `{long}`", "CREATE TABLE s (id int PRIMARY KEY, xmin int)")
    with pytest.raises(UsageError, match=r"\.s has a column xmin, but every table"):
        copy.run()
    on_mysql.execute("ALTER TABLE s DROP COLUMN xmin")
    copy.run()
    on_mysql.execute(
        f"ALTER TABLE s ADD COLUMN `{long}` int", "INSERT INTO s VALUES (1, 2)", "INSERT INTO t VALUES (1)"
    )
    with pytest.raises(TablesHeld, match=f"the name {long} has more than 63 bytes"):
        copy.run()
    assert copy.rows(f'SELECT * FROM "{on_mysql.name}".t') == [(1,)]


def test_a_long_name_comes_again(database: Database, copies: PrivatePostgres) -> None:
    """A-50: what is kept of dropped tables has names of its own, which PostgreSQL does not cut off."""
    copy = Copy(database, copies)
    long = "t" * 63
    for number in range(3):
        execute(database, f"CREATE TABLE {long} (id int PRIMARY KEY)", f"INSERT INTO {long} VALUES ({number})")
        copy.run()
        copy.assert_equal(long)
        execute(database, f"DROP TABLE {long}")
    assert len(copy.rows("SELECT 1 FROM pg_class WHERE relkind = 'r' AND relname LIKE 'ttt%_dropped_%'")) == 2


def test_a_reader_that_stays(
    database: Database, copies: PrivatePostgres, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A-50: a change of shape waits for a reader of the table. The lock is given up after a while, which lets others read
    and the pipeline be stopped, and tried again."""
    monkeypatch.setitem(connection._SESSION, "lock_timeout", "300ms")
    copy = Copy(database, copies)
    execute(database, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    copy.run()
    execute(database, "ALTER TABLE t ADD COLUMN v int", "INSERT INTO t VALUES (2, 3)")
    with psycopg.connect(copy.target) as reader:
        reader.execute("SELECT * FROM t")
        running = threading.Thread(target=copy.run)
        running.start()
        until = time.monotonic() + 30
        while "holds a lock that the pipeline needs" not in caplog.text and time.monotonic() < until:
            time.sleep(0.05)
    running.join()
    assert "holds a lock that the pipeline needs" in caplog.text
    copy.assert_equal("t")


def test_a_resync_beside_another_table_that_is_held(database: Database, copies: PrivatePostgres) -> None:
    """D-08: while one table is copied again, another one turns out to be altered by hand, and the pipeline begins again:
    the first is copied nevertheless."""
    copy = Copy(database, copies)
    execute(database, *(f"CREATE TABLE {t} (id int PRIMARY KEY, v int); INSERT INTO {t} VALUES (1, 1)" for t in "ab"))
    copy.run()
    for table in "ab":
        with psycopg.connect(copy.target, autocommit=True) as theirs:
            theirs.execute(f"ALTER TABLE {table} RENAME v TO w".encode())
        execute(database, f"UPDATE {table} SET v = 2")
        if table == "a":
            with pytest.raises(TablesHeld, match=r"public\.a"):
                copy.run()
    done = cdc("resync", database.dsn, copy.target, "--name", copy.name, "--tables", "public.a")
    assert done.returncode == 0, done.stderr
    with pytest.raises(TablesHeld, match=r"public\.b"):
        copy.run()
    copy.assert_equal("a")


@pytest.mark.parametrize("mode", [Mode.MIRROR, Mode.SOFT_DELETE])
def test_a_trigger_that_keeps_rows_out(database: Database, copies: PrivatePostgres, mode: Mode) -> None:
    """D-08: triggers of others fire where a user may not turn them off, or made them ENABLE ALWAYS. Rows that they take
    out hold the table, and are there after what the message says was done."""
    copy = Copy(database, copies)
    execute(database, "CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1, 1)")
    copy.run(mode)
    with psycopg.connect(copy.target, autocommit=True) as theirs:
        theirs.execute("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        theirs.execute("CREATE TRIGGER theirs BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()")
        theirs.execute("ALTER TABLE t ENABLE ALWAYS TRIGGER theirs")
    execute(database, "INSERT INTO t VALUES (2, 2)")
    with pytest.raises(TablesHeld, match=r"1 rows were written to public\.t, but the target has only 0 of them"):
        copy.run()
    with psycopg.connect(copy.target, autocommit=True) as theirs:
        theirs.execute("DROP TRIGGER theirs ON t")
    done = cdc("resync", database.dsn, copy.target, "--name", copy.name, "--tables", "public.t")
    assert done.returncode == 0, done.stderr
    assert copy.rows("SELECT id, v FROM t ORDER BY 1") == [(1, 1), (2, 2)]


def test_a_user_who_lacks_a_right(database: Database, copies: PrivatePostgres) -> None:
    """The hint is the GRANT that helps."""
    name = database.name
    target = copies.create_database(f"copy_{name}")
    copies.execute(f"CREATE ROLE weak_{name} LOGIN PASSWORD '{copies.password}'")
    execute(database, "CREATE TABLE t (id int PRIMARY KEY)")
    dsn = target.replace("postgres@", f"weak_{name}@")
    for hint in (f"GRANT CREATE ON DATABASE copy_{name} TO ", "GRANT CREATE, USAGE ON SCHEMA public TO "):
        with pytest.raises(UsageError) as refused:
            open_pipeline(database.dsn, dsn, Options(name, until_caught_up=True)).run()
        assert (refused.value.hint or "").startswith(hint)
        copies.execute(f"{hint}weak_{name}", database=f"copy_{name}")
    open_pipeline(database.dsn, dsn, Options(name, until_caught_up=True)).run()
