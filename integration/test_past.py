"""Answers about the past on real servers, through statements that rewrite tables: right, or refused, never stale."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType

import duckdb
import pytest

from cdc.errors import NotKnown, TablesHeld
from cdc.options import Options
from cdc.runs import open_pipeline, open_rebuild
from cdc.target import Mode
from integration.audit import read
from integration.conftest import Database, MySqlDatabase, make_replica
from integration.processes import cdc, start
from integration.test_cli import in_words
from integration.test_mysql_tables import no_names
from integration.test_standings import following
from tests.seeds import some

Row = tuple[object, ...]
State = Counter[Row]


@dataclass
class Oracle:
    """The only one who writes to a database, so that what it reads after a commit is what that commit left.

    Attributes:
        states: by GTID, the names of a table's columns and its rows; None where there is no such table.
    """

    database: MySqlDatabase
    table: str = "t"
    states: dict[str, tuple[tuple[str, ...], State] | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.connection = self.database.connect()

    def commit(self, *statements: str) -> str:
        """Do something that is one transaction, and keep what there is afterwards; its GTID."""
        cursor = self.connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        if self.database.flavor == "mariadb":
            cursor.execute("SELECT @@last_gtid")
            (place,) = cursor.fetchone()
        else:
            cursor.execute("SELECT @@global.gtid_executed")
            (executed,) = cursor.fetchone()
            uuid, *parts = executed.split(":")  # first the numbers without a tag, then those of each tag
            numbers = list(takewhile(lambda part: part[0].isdigit(), parts))
            place = f"{uuid}:{numbers[-1].rpartition('-')[2]}"
        cursor.execute(f"SHOW TABLES LIKE '{self.table}'")
        if not cursor.fetchall():
            self.states[place] = None
            return str(place)
        cursor.execute(f"SELECT * FROM {self.table}")
        names = tuple(column[0] for column in cursor.description)
        self.states[place] = names, Counter(tuple(map(plain, row)) for row in cursor.fetchall())
        return str(place)


def plain(value: object) -> object:
    """A value that two programs, and two types, write in one way."""
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return value


def run(database: MySqlDatabase, *targets: str, mode: Mode | None = None) -> None:
    """Have each of the targets follow up to now, by a pipeline of its own."""
    for target in targets:
        name = target.partition(":")[0]
        options = Options(name=name, until_caught_up=True, mode=mode if name == "duckdb" else None)
        open_pipeline(database.dsn, target, options).run()


def rebuilt(journal: str, target: Path, until: str) -> None:
    open_rebuild(journal, f"duckdb:{target}", until, Options(name="rebuilt", until_caught_up=True)).run()


def as_of(target: str, table: str, place: str) -> tuple[tuple[str, ...], State] | str:
    """The columns and rows of a table at a place, or why it is refused."""
    path = Path(target.removeprefix("duckdb:"))
    with duckdb.connect(str(path), read_only=True) as connection:
        schema = connection.execute("SELECT schema_name FROM _cdc_history.tables").fetchone()
        assert schema is not None
        connection.execute(f'USE "{path.stem}"."{schema[0]}"')
        try:
            found = connection.execute(f"FROM {table}_as_of(?)", [place])
        except duckdb.InvalidInputException as error:
            return str(error)
        names = tuple(column[0] for column in found.description)
        return names, Counter(tuple(map(plain, row)) for row in found.fetchall())


def assert_answers(oracle: Oracle, target: str, new: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """Every answer is what the source held; the places as of which there is none, in order.

    Args:
        new: columns of which the past is not kept under their names, and the places up to which that is so.
    """
    refused, places = [], list(oracle.states)
    for place, state in oracle.states.items():
        found = as_of(target, oracle.table, place)
        if isinstance(found, str):
            assert "not known" in found, (place, found)
            refused.append(place)
            continue
        names, rows = found
        if state is None:
            assert not rows, place
            continue
        lost = {name for name, until in new.items() if places.index(place) < places.index(until)}
        chosen = [name for name in state[0] if name in names and name not in lost]
        assert part(names, rows, chosen) == part(*state, chosen), place
    return refused


def part(names: Sequence[str], rows: State, chosen: Sequence[str]) -> State:
    """Some columns of rows."""
    found: State = Counter()
    for row, count in rows.items():
        found[tuple(row[names.index(name)] for name in chosen)] += count
    return found


# What a statement is, and whether what follows it can be emitted at once (None: not even its changes can).
REWRITES = [
    ("MODIFY n decimal(20,4)", True),
    ("MODIFY n decimal(20,4) NULL AFTER id, MODIFY v varchar(40)", True),
    ("CHANGE n amount decimal(12,2)", True),
    ("DROP PRIMARY KEY", True),
    ("DROP PRIMARY KEY, ADD PRIMARY KEY (id, k)", True),
    ("MODIFY n decimal(10,0)", False),
    ("MODIFY n varchar(20)", False),
    ("MODIFY id bigint NOT NULL AUTO_INCREMENT", False),
    ("CONVERT TO CHARACTER SET latin1", None),
]


@pytest.fixture
def oracle(my: MySqlDatabase) -> Oracle:
    my.execute("CREATE TABLE t (id int NOT NULL, k int NOT NULL, n decimal(10,2), v varchar(20), PRIMARY KEY (id))")
    return Oracle(my)


def work(oracle: Oracle, begin: int) -> list[str]:
    """A row that stays, one that changes and one that goes: the places of what was done."""
    a, b = begin, begin + 1
    return [
        oracle.commit(f"INSERT INTO t (id, k, v) VALUES ({a}, 1, 'a'), ({b}, 2, 'b')"),
        oracle.commit(f"UPDATE t SET v = 'changed' WHERE id = {a}"),
        oracle.commit(f"DELETE FROM t WHERE id = {b}"),
        oracle.commit(f"UPDATE t SET v = 'all', k = k + 1 WHERE id < {begin}"),
    ]


@pytest.mark.parametrize(("actions", "exact"), some(REWRITES, 5))
def test_changes_behind_a_rewrite(oracle: Oracle, tmp_path: Path, actions: str, exact: bool | None) -> None:
    """H4: what happened between a statement that rewrote a table and the moment at which it is looked at is emitted as the
    log has it, in a stream, in a history and from a journal; where that cannot be, answers are refused."""
    assert_emitted(oracle, tmp_path, actions, exact=exact)


def test_changes_behind_a_rewrite_without_names(oracle: Oracle, tmp_path: Path) -> None:
    """H4, M7: the same where the log does not name columns: the statement says which is which, whatever case it has."""
    with no_names(oracle.database):
        assert_emitted(oracle, tmp_path, "MODIFY V varchar(60) FIRST, CHANGE k K bigint NOT NULL AFTER n", exact=True)


def assert_emitted(oracle: Oracle, tmp_path: Path, actions: str, *, exact: bool | None) -> None:
    """Follow a table into a stream, a history and a journal, with changes before, between and after a statement."""
    database = oracle.database
    lines, history, journal = tmp_path / "a.jsonl", f"duckdb:{tmp_path / 'h.duckdb'}", f"journal:{tmp_path / 'j'}"
    targets = (f"jsonl:{lines}", history, journal)
    oracle.commit("INSERT INTO t VALUES (1, 1, 1.25, 'x'), (2, 2, 2.75, 'y'), (3, 3, 0, 'z')")
    run(database, *targets, mode=Mode.HISTORY)
    oracle.states.clear()
    before = work(oracle, 10)
    altered = oracle.commit(f"ALTER TABLE t {actions}")
    behind = work(oracle, 20)
    run(database, *targets)
    after = work(oracle, 30)
    run(database, *targets)

    answer = {event["position"] for event in read(lines) if event["op"] in ("insert", "update", "delete")}
    wanted = [*before, *after] if exact is None else [*before, *behind, *after]
    assert [place for place in wanted if place not in answer] == []
    gaps = [event for event in read(lines) if event["op"] == "gap"]
    assert [gap["position"] for gap in gaps] == ([] if exact else [altered])

    unknown = [] if exact else [altered, *behind[:-1]]
    newest, known = oracle.states[after[-1]], as_of(history, "t", after[-1])
    assert newest is not None
    assert sorted(newest[0]) == sorted(known[0])
    refused = assert_answers(oracle, history, {"n": altered} if "decimal(10,0)" in actions else {})
    assert [place for place in refused if place not in [altered, *behind]] == []
    assert [place for place in unknown if place not in refused] == []
    for place in (before[-1], altered, behind[1], after[0], after[-1]):
        path = tmp_path / f"{time.monotonic_ns()}.duckdb"
        if place in unknown:
            with pytest.raises(NotKnown, match="are not known") as error:
                rebuilt(journal, path, place)
            hint = str(error.value.hint)
            assert hint.count(f"cdc rebuild {journal} TARGET --until") == 2
            for helps in re.findall(r"TARGET --until '(\S+)'", hint):
                rebuilt(journal, tmp_path / f"{time.monotonic_ns()}.duckdb", helps)
            continue
        rebuilt(journal, path, place)
        state = oracle.states[place]
        assert state is not None
        with duckdb.connect(str(path), read_only=True) as connection:
            found = connection.execute(f"SELECT {', '.join(state[0])} FROM {database.name}.t").fetchall()
        assert Counter(tuple(map(plain, row)) for row in found) == state[1], place
    if unknown:
        refusal = cdc("as-of", history, "t", behind[0])
        assert refusal.returncode == 2
        assert "are not known" in in_words(refusal)
        hint = re.findall(r"after it: cdc (as-of \S+ \S+ \S+)", in_words(refusal))
        assert cdc(*hint[0].rstrip(".").split()).returncode == 0
        events = [json.loads(line) for line in cdc("history", history, "t", "1", "--json").stdout.splitlines()]
        assert "unknown" in {event["op"] for event in events}


def log_end(database: MySqlDatabase) -> str:
    at = database.execute("SHOW BINARY LOG STATUS" if database.flavor == "mysql" else "SHOW MASTER STATUS")[0]
    return f"{at[0]}:{at[1]}"


ROWS = ("--op", "insert,update,delete")


def tailed(database: MySqlDatabase, *arguments: str) -> list[str]:
    """The positions of the changes that a tail tells."""
    done = cdc("tail", database.dsn, "--until-caught-up", *ROWS, *arguments)
    assert done.returncode == 0, in_words(done)
    return [json.loads(line)["position"] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("actions", ["MODIFY n decimal(20,4)", "DROP PRIMARY KEY", "CONVERT TO CHARACTER SET latin1"])
def test_a_tail_over_a_rewrite(oracle: Oracle, actions: str) -> None:
    """H5: all events come, or it is an error that names the table and what helps; never nothing, and exit code 0."""
    oracle.database.execute("CREATE TABLE w (id int PRIMARY KEY)")
    begin = log_end(oracle.database)
    before = work(oracle, 10)
    altered = oracle.commit(f"ALTER TABLE t {actions}")
    behind = work(oracle, 20)
    done = cdc("tail", oracle.database.dsn, "--until-caught-up", *ROWS, "--from", begin)
    if "decimal" in actions:
        assert done.returncode == 3
        assert f"rows of {oracle.database.name}.t, which has another shape now" in in_words(done)
        assert "cdc tail SOURCE --exclude" in in_words(done)
        assert tailed(oracle.database, "--from", begin, "--exclude", f"{oracle.database.name}.t") == []
    else:
        answer = [json.loads(line)["position"] for line in done.stdout.splitlines()]
        assert (done.returncode, set(answer)) == (0, {*before, *behind}), in_words(done)
    assert set(tailed(oracle.database, "--from", altered)) == set(behind)


def test_a_tail_over_tables_that_come_and_go(my: MySqlDatabase) -> None:
    """H5: rows of a table that is no more are an error, those of one that came meanwhile are emitted."""
    begin = log_end(my)
    my.execute("CREATE TABLE u (id int PRIMARY KEY)", "INSERT INTO u VALUES (1)", "ALTER TABLE u ADD v int")
    my.execute("INSERT INTO u VALUES (2, 2)")
    done = cdc("tail", my.dsn, "--until-caught-up", *ROWS, "--from", begin)
    assert "another shape now" in in_words(done)
    my.execute("DROP TABLE u", "CREATE TABLE w (id int PRIMARY KEY)", "INSERT INTO w VALUES (1)")
    done = cdc("tail", my.dsn, "--until-caught-up", *ROWS, "--from", begin)
    assert (done.returncode, "not there any more" in in_words(done)) == (3, True)
    assert len(tailed(my, "--from", begin, "--exclude", f"{my.name}.u")) == 1


def test_a_tail_that_follows_a_rewrite(oracle: Oracle) -> None:
    """H5: what happens behind a statement that comes while it is followed is emitted, also of a table that is new."""
    running = start("tail", oracle.database.dsn, *ROWS)
    time.sleep(2)
    before = work(oracle, 10)
    oracle.commit("ALTER TABLE t MODIFY n decimal(20,4), MODIFY v varchar(60)")
    oracle.commit("CREATE TABLE u (id int PRIMARY KEY)")
    new = oracle.commit("INSERT INTO u VALUES (1)")
    oracle.commit("ALTER TABLE t CONVERT TO CHARACTER SET latin1")
    behind = work(oracle, 20)
    wanted, answer = {*before, new, *behind}, set[str]()
    while answer != wanted:
        line = running.stdout.readline()
        assert line, running.stderr.read() if running.stderr is not None else ""
        answer.add(json.loads(line)["position"])
    running.terminate()
    assert running.wait(20) == 0


@pytest.fixture
def dropping(anywhere: Database | MySqlDatabase) -> Database | MySqlDatabase:
    """A table with rows, and one that stays."""
    for statement in (
        "CREATE TABLE t (id int PRIMARY KEY, v int)",
        "INSERT INTO t VALUES (1, 1), (2, 2)",
        "CREATE TABLE u (id int PRIMARY KEY)",
    ):
        anywhere.execute(statement)
    return anywhere


def drop(database: Database | MySqlDatabase) -> None:
    for statement in ("UPDATE t SET v = 5 WHERE id = 1", "DROP TABLE t", "INSERT INTO u VALUES (1)"):
        database.execute(statement)


def now() -> str:
    return f"@{time.time():.6f}"


@pytest.mark.parametrize("mode", Mode)
def test_a_table_that_was_dropped(dropping: Database | MySqlDatabase, tmp_path: Path, mode: Mode) -> None:
    """H7: its rows are no more in a history, nor as of later places, and marked under soft delete; a mirror keeps them.
    A run that was killed on the way does it again."""
    replica = make_replica(dropping, tmp_path, mode=mode)
    replica.catch_up()
    drop(dropping)
    arguments = ("run", dropping.dsn, replica.target, "--name", replica.options.name, "--until-caught-up")
    assert cdc(*arguments, CDC_FAULT="target.before_commit=kill").returncode == -9
    replica.catch_up()
    schema = dropping.name if isinstance(dropping, MySqlDatabase) else "public"
    if mode is Mode.MIRROR:
        assert replica.query("SELECT * FROM t ORDER BY id") == [(1, 5), (2, 2)]
    elif mode is Mode.SOFT_DELETE:
        assert replica.query("SELECT id, v, _cdc_deleted_at IS NULL FROM t ORDER BY id") == [
            (1, 5, False),
            (2, 2, False),
        ]
    else:
        query = f"SELECT id, v, _cdc_ended_by, _cdc_valid_to_time IS NULL FROM {schema}_history.t ORDER BY v"
        assert replica.query(query) == [(1, 1, "update", False), (2, 2, "drop", False), (1, 5, "drop", False)]
        assert replica.query(f"FROM t_as_of('{now()}')") == []
        assert "drop" in cdc("history", replica.target, "t", "1", "--json").stdout
        updated = replica.query(f"SELECT _cdc_valid_from_position FROM {schema}_history.t WHERE v = 5")[0][0]
        assert replica.query(f"FROM t_as_of('{updated}') ORDER BY id") == [(1, 5), (2, 2)]
    replica.catch_up()
    assert replica.query("FROM u") == [(1,)] if mode is Mode.MIRROR else True


def test_a_table_that_was_dropped_and_made_again(my: MySqlDatabase, tmp_path: Path) -> None:
    """H7, H4: in between there is none; from where it was made again up to its copy it is not known what it was."""
    oracle = Oracle(my)
    oracle.commit("CREATE TABLE t (id int PRIMARY KEY, v int)")
    oracle.commit("INSERT INTO t VALUES (1, 1), (2, 2)")
    history = f"duckdb:{tmp_path / 'h.duckdb'}"
    run(my, history, mode=Mode.HISTORY)
    oracle.states.clear()
    oracle.commit("UPDATE t SET v = 5 WHERE id = 1")
    oracle.commit("DROP TABLE t")
    oracle.commit("CREATE TABLE other (id int PRIMARY KEY)")
    made = oracle.commit("CREATE TABLE t (id int PRIMARY KEY, v int, w int)")
    unknown = [made, oracle.commit("INSERT INTO t VALUES (1, 7, 7), (3, 3, 3)")]
    last = oracle.commit("DELETE FROM t WHERE id = 3")
    run(my, history)
    oracle.commit("UPDATE t SET v = 8")
    oracle.commit("RENAME TABLE t TO x")
    oracle.commit("DROP TABLE x")
    run(my, history)
    refused = assert_answers(Oracle(my, "x", dict.fromkeys(list(oracle.states)[-1:])), history)
    oracle.states = dict(list(oracle.states.items())[:-2])
    oracle.table = "x"
    assert refused == []
    assert [place for place in assert_answers(oracle, history) if place != last] == unknown


def test_a_drop_through_a_journal(dropping: Database | MySqlDatabase, tmp_path: Path) -> None:
    """H7: a target that is fed from a journal hears of it."""
    journal, target = str(tmp_path / "j"), f"duckdb:{tmp_path / 'h.duckdb'}"
    fan = ("run", dropping.dsn, "--journal", journal, "--name", dropping.name, "--until-caught-up")
    assert cdc(*fan).returncode == 0
    assert cdc("run", f"journal:{journal}", target, "--mode", "history", "--until-caught-up").returncode == 0
    drop(dropping)
    assert cdc(*fan).returncode == 0
    assert cdc("run", f"journal:{journal}", target, "--until-caught-up").returncode == 0
    found = as_of(target, "t", now())
    assert not isinstance(found, str)
    assert not found[1]


def test_soft_delete_and_a_table_without_a_key_that_comes_later(
    anywhere: Database | MySqlDatabase, tmp_path: Path
) -> None:
    """H8: that table is held with the reason, at each start; the others go on, and it comes once it has a key."""
    anywhere.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    replica = make_replica(anywhere, tmp_path, mode=Mode.SOFT_DELETE)
    replica.catch_up()
    anywhere.execute("CREATE TABLE k (id int NOT NULL, v int)")
    if isinstance(anywhere, Database):
        anywhere.execute("ALTER TABLE k REPLICA IDENTITY FULL")
    anywhere.execute("CREATE TABLE after_it (id int PRIMARY KEY)")
    anywhere.execute("INSERT INTO k VALUES (1, 1)")
    for number in range(3):
        anywhere.execute(f"INSERT INTO t VALUES ({number}, 1)")
        anywhere.execute(f"INSERT INTO after_it VALUES ({number})")
        with pytest.raises(TablesHeld, match=r"\.k: .*has no key"):
            replica.catch_up()
        count = f"SELECT count(*) = {number + 1} FROM"
        assert replica.query(f"{count} t") == replica.query(f"{count} after_it") == [(True,)]
    anywhere.execute("ALTER TABLE k ADD PRIMARY KEY (id)")
    schema = anywhere.name if isinstance(anywhere, MySqlDatabase) else "public"
    with following(replica):
        done = cdc("resync", anywhere.dsn, replica.target, "--name", replica.options.name, "--tables", f"{schema}.k")
        assert done.returncode == 0, in_words(done)
    replica.catch_up()
    assert replica.query("SELECT id, v FROM k") == [(1, 1)]


def test_a_table_that_is_held_is_not_known(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """H4: as of a place at which a table's changes were passed over there is no answer, by macro or by command, but a
    word on what helps; after a resync there is one again, and the gap stays a fact."""
    anywhere.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    anywhere.execute("CREATE TABLE u (id int PRIMARY KEY)")
    anywhere.execute("INSERT INTO t VALUES (1, 1)")
    replica = make_replica(anywhere, tmp_path, mode=Mode.HISTORY)
    replica.catch_up()
    anywhere.execute("UPDATE t SET v = 2")
    replica.catch_up()
    known = now()
    with duckdb.connect(str(replica.path)) as connection:
        stored = connection.execute("SELECT identity FROM _cdc_history.tables WHERE table_name = 't'").fetchone()
        assert stored is not None
        connection.execute(f"ALTER TABLE _cdc_history.current_{stored[0]} RENAME v TO w")  # somebody else does
    time.sleep(1.1)
    anywhere.execute("UPDATE t SET v = 3")
    with pytest.raises(TablesHeld):
        replica.catch_up()
    time.sleep(1.1)
    anywhere.execute("INSERT INTO u VALUES (1)")
    with pytest.raises(TablesHeld):
        replica.catch_up()
    with duckdb.connect(str(replica.path)) as connection:
        connection.execute(f"ALTER TABLE _cdc_history.current_{stored[0]} RENAME w TO v")
    held = now()
    refusal = cdc("as-of", replica.target, "t", held)
    assert refusal.returncode == 2
    assert "are not known" in in_words(refusal)
    assert f"cdc resync SOURCE {replica.target} --tables" in in_words(refusal)
    found = as_of(replica.target, "t", held)
    assert isinstance(found, str)
    assert "it is not known" in found
    assert as_of(replica.target, "u", held) == (("id",), Counter({(Decimal(1),): 1}))
    schema = anywhere.name if isinstance(anywhere, MySqlDatabase) else "public"
    with following(replica):
        done = cdc("resync", anywhere.dsn, replica.target, "--name", replica.options.name, "--tables", f"{schema}.t")
        assert done.returncode == 0, in_words(done)
    replica.catch_up()
    assert as_of(replica.target, "t", now()) == (("id", "v"), Counter({(Decimal(1), Decimal(3)): 1}))
    assert as_of(replica.target, "t", known) == (("id", "v"), Counter({(Decimal(1), Decimal(2)): 1}))
    assert isinstance(as_of(replica.target, "t", held), str)
    with duckdb.connect(str(replica.path), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM _cdc_history.unknown WHERE table_name = 't'").fetchone() == (1,)
