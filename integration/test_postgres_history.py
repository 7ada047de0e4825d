"""PostgreSQL as a target that keeps histories: what SQL and the commands say of the past, on real servers."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator

import psycopg
import pytest

from cdc.demo.server import PrivatePostgres
from cdc.errors import TablesHeld, UsageError
from cdc.target import Keys, Mode
from cdc.targets.postgres import open_histories
from cdc.targets.postgres.connection import Server
from cdc.targets.postgres.engine import PostgresEngine
from cdc.targets.postgres.target import PostgresTarget
from integration.conftest import Database, MySqlDatabase
from integration.processes import cdc, start
from integration.test_cli import in_words
from integration.test_history import ROUNDS, Writer, counted, lines, printed
from integration.test_postgres_target import Copy, execute
from tests.conformance.places import quoted
from tests.seeds import chosen_at_random, one_of
from tests.targets.recorded_history import TIMES as CLOCKS
from tests.targets.recorded_history import ZONE, fill
from tests.targets.test_places import NEITHER, TIMES, UNKNOWN


@pytest.fixture(scope="module")
def copies() -> Iterator[PrivatePostgres]:
    """Another server than the source's."""
    with PrivatePostgres(18) as server:
        yield server


@pytest.fixture(scope="module")
def recorded(copies: PrivatePostgres) -> str:
    """Commits at 10, 12, 13 (a copy), 14 and 15, whose clock is of long ago. The second table begins at 13."""
    dsn = copies.create_database("recorded")
    fill(PostgresTarget(PostgresEngine(Server.parse(dsn), keeps_types=True), Mode.HISTORY))
    with psycopg.connect(dsn) as connection:
        for order, clock in CLOCKS.items():
            connection.execute(
                "UPDATE _cdc_history.commits SET committed_at = %s WHERE position_order = %s", (clock, order)
            )
    return dsn


def test_places(recorded: str) -> None:
    """H1, H2, H3, H9, O31: a function reads times and positions as the commands do, in any session; what is neither, and
    what is not known, is an error, also where there is no row."""
    settings = f"-c timezone={ZONE} -c datestyle=German -c standard_conforming_strings=off -c search_path=s"
    with psycopg.connect(recorded, autocommit=True, options=settings) as connection:
        for text in TIMES:
            expected = 13 if text == "2026-01-31" else 15
            assert connection.execute("SELECT _cdc_history.place(%s)", [text]).fetchall() == [(expected,)], text
        assert connection.execute("SELECT * FROM t_as_of('0/C') ORDER BY 1").fetchall() == [("1",), ("2",)]
        refused = [(text, "neither a position that this history knows nor a time") for text in (*NEITHER, None)]
        for text, said in (*UNKNOWN, *refused, ("2026-01-31 12:00 EST", "neither")):
            for rows in ("t_as_of(%s)", "empty_as_of(%s)", "t_as_of(%s) WHERE c0 = '7' LIMIT 1"):
                with pytest.raises(psycopg.errors.InvalidParameterValue, match=said):
                    connection.execute(f"SELECT * FROM {rows}".encode(), [text])
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="before this history begins: at 0/D"):
            connection.execute("SELECT * FROM late_as_of('0/C')")
    with open_histories(recorded.removeprefix("postgresql:")) as histories:
        known = histories.table("t")
        for text, said in UNKNOWN:  # one after the other: no error ends the session
            with pytest.raises(UsageError, match=said):
                histories.place(known, text)
        assert [histories.place(known, at).order for at in ("2025-06-01", "2025-07-31", "2025-12-31")] == [10, 12, 13]


def test_rights(recorded: str) -> None:
    """E-13: what a reader needs for the views, and for the function."""
    with psycopg.connect(recorded, autocommit=True) as owner:
        for statement in ("CREATE ROLE reader", "GRANT USAGE ON SCHEMA s, s_history TO reader"):
            owner.execute(statement)
        owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA s, s_history TO reader")
        owner.execute("SET ROLE reader")
        assert owner.execute("SELECT (SELECT count(*) FROM s.t), (SELECT count(*) FROM s_history.t)").fetchall() == [
            (4, 4)
        ]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            owner.execute("SELECT * FROM s.t_as_of('0/C')")
        owner.execute("RESET ROLE")
        owner.execute("GRANT USAGE ON SCHEMA _cdc_history, _cdc TO reader")
        owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA _cdc_history, _cdc TO reader")
        owner.execute("SET ROLE reader")
        assert owner.execute("SELECT count(*) FROM s.t_as_of('0/C')").fetchall() == [(2,)]


def test_a_condition_uses_an_index(recorded: str) -> None:
    """The planner sees through the function: a row of the past is found by its key."""
    with psycopg.connect(recorded) as connection:
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute("EXPLAIN SELECT * FROM s.t_as_of('0/C') WHERE c0 = '7'").fetchall()
    scans = [text for (text,) in plan if "Scan" in text and "_c0_idx" in text]
    assert {text.split("_c0_idx")[0].split()[-1] for text in scans} == {"current_1", "past_1"}, plan


@pytest.fixture(params=one_of("postgres", "mysql", "mariadb"))
def source(request: pytest.FixtureRequest) -> Database | MySqlDatabase:
    if request.param == "postgres":
        made: Database = request.getfixturevalue("database")
        made.execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;"
            "CREATE TABLE c (a int, b text); ALTER TABLE c REPLICA IDENTITY FULL"
        )
        return made
    other: MySqlDatabase = request.getfixturevalue(f"on_{request.param}")
    other.execute("CREATE TABLE t (id int PRIMARY KEY, v text, big text)", "CREATE TABLE c (a int, b text)")
    return other


@pytest.mark.long
def test_as_of_every_commit(source: Database | MySqlDatabase, copies: PrivatePostgres) -> None:
    """A-41, A-46, D-01, D-03, D-05, H1: random work on two tables while `cdc run` is killed again and again: the function
    has what the source held after each commit."""
    copy, rng = Copy(source, copies), chosen_at_random()
    writer = Writer(source, rng)
    for _ in range(5):
        writer.transaction(of_rows=True)
    copy.run(Mode.HISTORY)
    writer.states.clear()
    for _ in range(ROUNDS):
        process = start("run", source.dsn, copy.target, "--name", copy.name)
        until = time.monotonic() + rng.uniform(0.6, 1.8)
        while time.monotonic() < until:
            writer.transaction(of_rows=True)
            time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
    copy.run()
    copy.verify()
    assert len(writer.states) > 20
    schema = quoted("public" if writer.is_postgres else source.name)
    by = "transaction::text" if writer.is_postgres else "position"
    positions = dict(copy.rows(f"SELECT {by}, position FROM _cdc_history.commits"))
    with psycopg.connect(copy.target) as connection:
        for place, tables in writer.states.items():
            for table, rows in tables.items():
                of = f"{schema}.{table}_as_of('{positions[str(place)]}')"
                names = ["id", "v", "big"] if table == "t" else ["a", "b"]
                found = connection.execute(f"SELECT {', '.join(names)} FROM {of}".encode()).fetchall()
                assert Counter(found) == counted(rows, names), of


def test_commands_while_it_runs(database: Database, copies: PrivatePostgres) -> None:
    """E-12, H2: `cdc history`, `as-of` and `diff` answer while a pipeline writes; a key is found however it is written."""
    copy = Copy(database, copies)
    execute(
        database,
        "CREATE TABLE t (id int PRIMARY KEY, ok boolean, n numeric(10,2), f float8, j json, c char(5))",
        "INSERT INTO t VALUES (1, true, 1.50, 0.5, '{\"a\": 1}', 'ab'), (2, NULL, NULL, 'NaN', NULL, NULL)",
        "CREATE TABLE k (a int, j json)",
        "ALTER TABLE k REPLICA IDENTITY FULL",
        "INSERT INTO k VALUES (1, '{}'), (1, '{}'), (2, NULL)",
    )
    copy.run(Mode.HISTORY)
    execute(database, "UPDATE t SET n = 2 WHERE id = 1", "DELETE FROM t WHERE id = 2", "DELETE FROM k WHERE a = 2")
    copy.run()
    with start("run", database.dsn, copy.target, "--name", copy.name) as process:
        try:
            events = lines(printed("history", copy.target, "t", "01", "--json"))
            assert [(event["op"], event["changed"]) for event in events] == [
                ("copy", ["id", "ok", "n", "f", "j", "c"]),
                ("update", ["n"]),
            ]
            begin, end = (event["position"] for event in events)
            assert lines(printed("as-of", copy.target, "public.t", begin, "--format", "json")) == [
                {"id": 1, "ok": True, "n": "1.50", "f": 0.5, "j": '{"a": 1}', "c": "ab   "},
                {"id": 2, "ok": None, "n": None, "f": "nan", "j": None, "c": None},
            ]
            last = copy.rows("SELECT position FROM _cdc_history.commits ORDER BY position_order DESC LIMIT 1")[0][0]
            assert end != last
            differences = lines(printed("diff", copy.target, "t", begin, str(last), "--json"))
            assert [(each["change"], each["before"]["id"]) for each in differences] == [("changed", 1), ("removed", 2)]
            gone = lines(printed("diff", copy.target, "k", begin, str(last), "--json"))
            assert gone == [{"change": "removed", "before": {"a": 2, "j": None}, "after": None}]
            nothing = cdc("history", copy.target, "t", "no number")
            assert (nothing.returncode, "No row of t has ever had that key" in in_words(nothing)) == (2, True)
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def test_shapes_and_keys(database: Database, copies: PrivatePostgres) -> None:
    """A-50: the past stays through columns that come, go, and get other names and types; current versions have the
    primary key, and those of the past any number of each."""
    copy = Copy(database, copies)
    execute(
        database, "CREATE TABLE t (id int PRIMARY KEY, v int, w text)", "INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b')"
    )
    copy.run(Mode.HISTORY, keys=Keys.PRIMARY)
    execute(database, "UPDATE t SET v = v + 1", "UPDATE t SET v = v + 1", "UPDATE t SET id = id + 10")
    copy.run()
    place = str(copy.rows("SELECT max(position_order) FROM _cdc_history.commits")[0][0])
    execute(
        database,
        "ALTER TABLE t ALTER v TYPE bigint, ADD x int DEFAULT 7",
        "UPDATE t SET x = 8 WHERE id = 11",
        "ALTER TABLE t RENAME w TO v2",
        "ALTER TABLE t DROP COLUMN v2",
        "ALTER TABLE t RENAME TO u",
        "INSERT INTO u VALUES (9, 9000000000, 9)",
    )
    copy.run()
    copy.verify()
    assert copy.rows("SELECT * FROM u ORDER BY id") == [(9, 9000000000, 9), (11, 3, 8), (12, 4, 7)]
    at = copy.rows(f"SELECT position FROM _cdc_history.commits WHERE position_order = {place}")[0][0]
    assert copy.rows(f"SELECT * FROM u_as_of('{at}') ORDER BY id") == [(11, 3, None), (12, 4, None)]
    assert copy.rows('SELECT DISTINCT "_cdc_dropped_1_w" FROM public_history.u ORDER BY 1') == [
        ("a",),
        ("b",),
        (None,),
    ]
    assert copy.rows("SELECT to_regclass('t'), to_regprocedure('t_as_of(text)')") == [(None, None)]
    primary = "SELECT conrelid::regclass::text LIKE '%current%' FROM pg_constraint WHERE contype = 'p' AND connamespace = '_cdc_history'::regnamespace"
    assert copy.rows(primary) == [(True,)]


def test_a_type_that_has_no_place_for_a_value(on_mysql: MySqlDatabase, copies: PrivatePostgres) -> None:
    """A-70: a column that becomes text does so under the views, in the past as well."""
    on_mysql.execute("CREATE TABLE t (id int PRIMARY KEY, d date)", "INSERT INTO t VALUES (1, '2024-01-01'), (2, NULL)")
    copy = Copy(on_mysql, copies)
    copy.run(Mode.HISTORY)
    on_mysql.execute("UPDATE t SET d = '2024-02-02' WHERE id = 1")
    on_mysql.execute("SET SESSION sql_mode = ''", "UPDATE t SET d = '0000-00-00' WHERE id = 2")
    on_mysql.execute("SET SESSION sql_mode = ''", "ALTER TABLE t ADD e date NOT NULL DEFAULT '0000-00-00'")
    on_mysql.execute("SET SESSION sql_mode = ''", "INSERT INTO t VALUES (3, NULL, '2024-03-03')")
    copy.run()
    schema, zero = quoted(on_mysql.name), "0000-00-00"
    now = [(1, "2024-02-02", zero), (2, zero, zero), (3, None, "2024-03-03")]
    assert copy.rows(f"SELECT * FROM {schema}.t ORDER BY id") == now
    past = f"SELECT DISTINCT d FROM {quoted(on_mysql.name + '_history')}.t WHERE id = 1 ORDER BY 1"
    assert copy.rows(past) == [("2024-01-01",), ("2024-02-02",)]
    copy.verify()


@pytest.mark.parametrize("mode", [Mode.MIRROR, Mode.HISTORY])
def test_views_of_others(database: Database, copies: PrivatePostgres, mode: Mode) -> None:
    """D-08: what depends on a table goes on where a column comes. Where PostgreSQL cannot change the table under it, that
    table alone is held, and the message says what it is and what helps, which does."""
    copy = Copy(database, copies)
    execute(
        database,
        "CREATE TABLE t (id int PRIMARY KEY, v int)",
        "INSERT INTO t VALUES (1, 1)",
        "CREATE TABLE other (id int PRIMARY KEY)",
    )
    copy.run(mode)
    with psycopg.connect(copy.target, autocommit=True) as theirs:
        theirs.execute("CREATE VIEW mine AS SELECT v FROM t")
        execute(database, "ALTER TABLE t ADD x int", "INSERT INTO t VALUES (2, 2, 2)")
        copy.run()
        if mode is Mode.HISTORY:  # of which the views stay
            _resync(copy)
        assert theirs.execute("SELECT v FROM mine ORDER BY 1").fetchall() == [(1,), (2,)]
        execute(
            database,
            "ALTER TABLE t ALTER v TYPE bigint",
            "INSERT INTO t VALUES (3, 3, 3)",
            "INSERT INTO other VALUES (1)",
        )
        with pytest.raises(TablesHeld, match=r"(?s)public\.t.*view public\.mine depends on"):
            copy.run()
        assert copy.rows("SELECT * FROM other") == [(1,)]
        theirs.execute("DROP VIEW mine")
    _resync(copy)
    copy.assert_equal("t", "other")
    copy.verify()


def _resync(copy: Copy) -> None:
    done = cdc("resync", copy.source.dsn, copy.target, "--name", copy.name, "--tables", "public.t")
    assert done.returncode == 0, in_words(done)
    copy.run()


def test_names_with_quotes(database: Database, copies: PrivatePostgres) -> None:
    """E-06: names of columns, which stand in the words of a function, end none of them."""
    names = ("it's", "$cdc$; $$", 'a"b', "back\\slash", "%s")
    execute(database, f"CREATE TABLE t (id int PRIMARY KEY, {', '.join(f'{quoted(name)} text' for name in names)})")
    execute(database, "INSERT INTO t VALUES (1, 'a', 'b', 'c', 'd', 'e')")
    copy = Copy(database, copies)
    copy.run(Mode.HISTORY)
    ((place,),) = copy.rows("SELECT position FROM _cdc_history.commits")
    assert copy.rows(f"SELECT * FROM t_as_of('{place}')") == [(1, "a", "b", "c", "d", "e")]
    assert lines(printed("as-of", copy.target, "t", str(place), "--format", "json"))[0]["it's"] == "a"


def test_names_that_are_taken(database: Database, copies: PrivatePostgres) -> None:
    """D-08: what somebody else made under the name of a view or a function stays, and the message names it."""
    execute(database, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    copy = Copy(database, copies)
    with psycopg.connect(copy.target, autocommit=True) as theirs:
        theirs.execute("CREATE SCHEMA public_history CREATE TABLE t (id int)")
        with pytest.raises(UsageError, match=r"public_history\.t already, which this pipeline did not make"):
            copy.run(Mode.HISTORY)
        theirs.execute("DROP TABLE public_history.t")
        theirs.execute("CREATE FUNCTION public.t_as_of(text) RETURNS int LANGUAGE sql AS 'SELECT 7'")
        with pytest.raises((UsageError, TablesHeld), match=r"function public\.t_as_of already"):
            copy.run(Mode.HISTORY)
        assert theirs.execute("SELECT t_as_of('x')").fetchall() == [(7,)]
