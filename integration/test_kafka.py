"""Into a real Kafka: random work on a real server, processes that are killed, and a reader of committed messages who
finds each event once, in order, and from them the source's own rows."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter, defaultdict
from typing import Any

import pytest

from cdc.faults import POINTS
from integration.conftest import Database, MySqlDatabase
from integration.kafka import PrivateKafka, Record
from integration.processes import Process, cdc, start
from tests.seeds import SEED

KILLS = int(os.environ.get("CDC_KILL_ROUNDS", "2"))
_MANY = 12_000  # rows, more than a segment of 1 MB holds

Row = dict[str, Any]
Source = Database | MySqlDatabase


class Work:
    """Transactions at random on one connection, so that their numbers tell their order."""

    def __init__(self, database: Source, seed: int) -> None:
        self.database = database
        self.rng = random.Random(seed)
        self.is_postgres = isinstance(database, Database)
        self.number = 0
        self.unused = itertools.count(1000)  # keys that no row has had
        self.copied_at = 0  # all tables were copied when the number was this: no table is ahead of another any more
        self.later = 0
        full = ["ALTER TABLE c REPLICA IDENTITY FULL", "ALTER TABLE t ALTER v SET STORAGE EXTERNAL"]
        self._run(
            "CREATE TABLE ticks (n int PRIMARY KEY)",
            "CREATE TABLE t (id int PRIMARY KEY, v text, d decimal(10,2))",
            "CREATE TABLE c (a int, b text)",
            *(full if self.is_postgres else []),
        )
        self._fill("t", 1, 50)
        self._stop = threading.Event()
        self._failure: BaseException | None = None

    def _run(self, *statements: str) -> None:
        with self.database.connect() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def _fill(self, table: str, first: int, last: int) -> None:
        rows = ", ".join(f"({i}, '{'x' * 90}', 1.5)" for i in range(first, last + 1))
        self._run(f"INSERT INTO {table} VALUES {rows}")

    def add_table(self) -> None:
        """One that comes later, so that it needs a topic and is copied part by part."""
        self.later += 1
        self._run(f"CREATE TABLE later_{self.later} (id int PRIMARY KEY, v text, d decimal(10,2))")
        self._fill(f"later_{self.later}", 1, 5)

    def add_many(self) -> None:
        """A transaction that comes in several segments."""
        self.number += 1
        first = 1_000_000 + self.number * _MANY
        rows = ", ".join(f"({i}, '{'y' * 200}', 1)" for i in range(first, first + _MANY))
        self._transaction([f"INSERT INTO ticks VALUES ({self.number})", f"INSERT INTO t VALUES {rows}"])
        self.number += 1
        self._transaction([f"INSERT INTO ticks VALUES ({self.number})", f"DELETE FROM t WHERE id >= {first}"])

    def _transaction(self, statements: list[str]) -> None:
        with self.database.connect() as connection:
            self._do(connection, statements)

    @staticmethod
    def _do(connection: Any, statements: list[str]) -> None:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            for statement in statements:
                cursor.execute(statement)
            cursor.execute("COMMIT")

    def statement(self) -> str:
        key, v = self.rng.randint(1, 60), self.rng.choice(["NULL", "''", "'é😀'", f"'{'z' * 3000}'"])
        return self.rng.choice(
            [
                f"UPDATE t SET v = {v} WHERE id = {key}",
                f"UPDATE t SET d = {self.rng.randrange(999)} WHERE id % 7 = {key % 7}",
                f"DELETE FROM t WHERE id = {key}",
                # To another key; the value that the log may leave out is given with it.
                f"UPDATE t SET id = {next(self.unused)}, v = {v} WHERE id = {key}",
                *(["TRUNCATE TABLE t"] if self.is_postgres and self.rng.random() < 0.02 else []),
                f"INSERT INTO c VALUES ({key % 3}, 'b'), ({key % 3}, 'b')",
                f"UPDATE c SET b = {v} WHERE a = {key % 3}",
                f"DELETE FROM c WHERE a = {key % 3}",
                *(
                    f"INSERT INTO t SELECT {i}, {v}, 2.25 WHERE NOT EXISTS (SELECT 1 FROM t WHERE id = {i})"
                    for i in (key, key + 1)
                ),
            ]
        )

    def start(self) -> None:
        """Transactions until `stop`."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        try:
            with self.database.connect() as connection:
                while not self._stop.is_set():
                    self.number += 1
                    many = [self.statement() for _ in range(self.rng.randint(0, 4))]
                    self._do(connection, [f"INSERT INTO ticks VALUES ({self.number})", *many])
                    time.sleep(0.002)
        except BaseException as error:
            self._failure = error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        assert self._failure is None, self._failure

    def rows(self, table: str) -> list[Row]:
        """What the table holds, as events say it."""
        names = {"ticks": ["n"], "c": ["a", "b"]}.get(table, ["id", "v", "d"])
        as_text = "d::text" if self.is_postgres else "CAST(d AS CHAR)"
        chosen = ", ".join(as_text if name == "d" else name for name in names)
        found = self.database.execute(f"SELECT {chosen} FROM {table}")
        return [dict(zip(names, row, strict=True)) for row in found]

    @property
    def tables(self) -> list[str]:
        return ["t", "c", "ticks", *(f"later_{i + 1}" for i in range(self.later))]


class Pipeline:
    """`cdc run` from a database into topics of its own."""

    def __init__(self, database: Source, kafka: PrivateKafka, partitions: int = 3, options: str = "") -> None:
        self.database = database
        self.kafka = kafka
        self.target = f"kafka:{kafka.address(f'partitions={partitions}{options}')}"

    def start(self, fault: str = "", *arguments: str) -> Process:
        ends = (self.database.dsn, self.target, "--name", self.database.name)
        return start("run", *ends, "--segment", "1MB", "--include-keyless", *arguments, CDC_FAULT=fault)

    def run(self, fault: str = "", *arguments: str) -> tuple[int, str]:
        """The same until it ends by itself."""
        process = self.start(fault, *arguments)
        try:
            said = process.communicate(timeout=240)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"{fault} has not ended the process: {process.communicate()[1]}") from None
        return process.wait(), said

    def catch_up(self) -> None:
        code, said = self.run("", "--until-caught-up")
        assert code == 0, said

    def read(self) -> list[Record]:
        return self.kafka.events(self.database.name)


@pytest.fixture(params=["postgres", "mariadb"])
def source(request: pytest.FixtureRequest) -> Source:
    made: Source = request.getfixturevalue("database" if request.param == "postgres" else "on_mariadb")
    return made


@pytest.mark.long
def test_killed_wherever_a_step_is_half_done(source: Source, kafka: PrivateKafka) -> None:
    """D-01, D-12, D-19, D-22, D-23, D-25: at each point of the target, then at random moments."""
    print(f"CDC_SEED={SEED}")
    rng = random.Random(SEED)
    work = Work(source, SEED)
    pipeline = Pipeline(source, kafka)
    work.start()
    points = [name for name in POINTS if name.startswith("kafka.")]
    if not work.is_postgres and os.environ.get("CDC_FAULT_MATRIX") != "full":
        points = points[:1] + sorted(rng.sample(points[1:], 3))  # the target does not know where rows come from
    for number, point in enumerate(points):
        if number:
            work.stop()
            if number == len(points) // 2:  # a first copy was cut off often enough
                pipeline.catch_up()
                work.copied_at = work.number
            work.add_table()
            work.add_many()
            work.start()
        passing = rng.randint(1, 4) if point not in ("kafka.fenced", "kafka.before_close") else 1
        code, said = pipeline.run(f"{point}:{passing}", *(["--until-caught-up"] if "close" in point else []))
        assert code == -signal.SIGKILL, (point, said)
        assert f"fault point {point}: kill" in said
    for _ in range(KILLS):
        process = pipeline.start()
        time.sleep(rng.uniform(0.3, 1.8))
        process.kill()
        said = process.communicate()[1]
        assert process.returncode == -signal.SIGKILL, said
    work.stop()
    pipeline.catch_up()
    assert_emitted(work, pipeline.read())


@pytest.mark.long
def test_the_broker_dies(database: Database) -> None:
    """D-13, D-14: whatever it had answered, or not, when it went: the pipeline begins again and repeats nothing."""
    with PrivateKafka() as kafka:
        work = Work(database, SEED)
        pipeline = Pipeline(database, kafka)
        pipeline.catch_up()
        work.start()
        process = pipeline.start()
        time.sleep(3)
        kafka.stop(signal.SIGKILL)
        time.sleep(1)
        kafka.start()
        time.sleep(2)
        kafka.send(signal.SIGSTOP)
        time.sleep(2)
        kafka.send(signal.SIGCONT)
        time.sleep(1)
        work.stop()
        assert process.poll() is None, process.communicate()[1]
        process.terminate()
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 0, said
        pipeline.catch_up()
        assert_emitted(work, pipeline.read())


def test_a_second_process_shuts_the_first_out(on_mariadb: MySqlDatabase, kafka: PrivateKafka) -> None:
    """D-17: one that is stopped, and wakes up when another has gone on, cannot commit what it has in hand."""
    work = Work(on_mariadb, SEED)
    pipeline = Pipeline(on_mariadb, kafka)
    pipeline.catch_up()
    work.add_many()
    first = pipeline.start("kafka.before_commit=delay:3")
    assert first.stderr is not None
    said = ""
    while "fault point" not in said:
        line = first.stderr.readline()
        assert line, said
        said += line
    first.send_signal(signal.SIGSTOP)
    work.start()
    time.sleep(0.5)
    work.stop()
    pipeline.catch_up()
    first.send_signal(signal.SIGCONT)
    try:
        said += first.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        first.kill()
        raise AssertionError(said + first.communicate()[1]) from None
    assert first.returncode == 1, said
    assert "Another process took over the pipeline" in said
    pipeline.catch_up()
    assert_emitted(work, pipeline.read())


def test_status_and_teardown(database: Database, kafka: PrivateKafka) -> None:
    """E-01: a running pipeline says how it is, one that ended is known by its checkpoint; teardown leaves the topics."""
    work = Work(database, SEED)
    pipeline = Pipeline(database, kafka)
    place = [database.dsn, pipeline.target, "--name", database.name]

    def status() -> dict[str, Any]:
        done = cdc("status", *place, "--json")
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    process = pipeline.start()
    until = time.monotonic() + 120
    while not (found := status())["running"] or found["phase"] != "streaming":
        assert time.monotonic() < until, found
        time.sleep(0.2)
    process.terminate()
    assert process.wait(120) == 0
    found = status()
    assert found["healthy"]
    assert not found["running"]
    assert found["position"]
    assert set(found["tables"]) == {f"public.{table}" for table in work.tables}
    verify = cdc("verify", *place)
    assert verify.returncode == 2, verify.stderr
    done = cdc("teardown", *place, "--yes")
    assert f"removed topic _cdc.{database.name}" in done.stdout
    assert kafka.topics(f"{database.name}.")
    assert not kafka.topics(f"_cdc.{database.name}")


# --- what a reader makes of it ----------------------------------------------------------------------------------------


def assert_emitted(work: Work, records: list[Record]) -> None:
    """Each event once, in the order of the commits, whole transactions; and they make the source's rows."""
    events = [(record, json.loads(record.value or b"")) for record in records]
    assert_once(events)
    events = [entry for entry in events if entry[1]["op"] != "note"]  # of no row, and with no ordinal of its own
    assert_whole([event for _, event in events], work.copied_at)
    assert_in_order(events)
    schema = "public" if work.is_postgres else work.database.name
    for table in work.tables:
        topic = f"{work.database.name}.{schema}.{table}"
        replayed = replay([entry for entry in events if entry[0].topic == topic])
        assert as_counted(replayed) == as_counted(work.rows(table)), table
    assert sorted(row["n"] for row in work.rows("ticks")) == list(range(1, work.number + 1))
    seen = Counter(event["op"] for _, event in events)
    assert all(seen[op] for op in ("copy", "insert", "update", "delete", "reset")), seen
    assert any(is_moved(*entry) for entry in events)


def is_moved(record: Record, event: Row) -> bool:
    """Whether it is emitted under the key that the row had before."""
    return record.key is not None and json.loads(record.key) != event["key"]


OF_ALL_ROWS = ("truncate", "reset", "gap", "drop")  # so that they are in each partition of a table


def is_of_the_log(event: Row) -> bool:
    return event["op"] not in ("copy", "reset", "gap")


def assert_once(events: list[tuple[Record, Row]]) -> None:
    places: dict[tuple[str, str], list[tuple[int, bytes | None]]] = defaultdict(list)
    for record, event in events:
        places[record.topic, event["id"]].append((record.partition, record.key))
    moved = {(record.topic, event["id"]) for record, event in events if is_moved(record, event)}
    spread = {(record.topic, event["id"]) for record, event in events if event["op"] in OF_ALL_ROWS}
    partitions = Counter(topic for topic, _ in {(record.topic, record.partition) for record, _ in events})
    for place, found in places.items():
        if place in spread:
            assert len({partition for partition, _ in found}) == len(found) in (1, partitions[place[0]]), (place, found)
        else:
            assert len(found) == len(set(found)) == (2 if place in moved else 1), (place, found)


def numbered(events: list[Row]) -> dict[str, int]:
    """The numbers of transactions by their positions."""
    inserted = (event for event in events if event["table"].endswith(".ticks") and event["op"] == "insert")
    return {event["position"]: event["after"]["n"] for event in inserted}


def assert_whole(events: list[Row], after: int) -> None:
    """Every ordinal of every transaction after some number: before, a table may have been copied later than another."""
    ordinals, totals, numbers = defaultdict(set), {}, numbered(events)
    for event in events:
        if is_of_the_log(event) and numbers.get(event["position"], 0) > after:
            ordinals[event["position"]].add(event["ordinal"])
            totals[event["position"]] = max(totals.get(event["position"], 0), event["total"] or 0)
    assert len(ordinals) > 20
    # Where an errand has cut a segment, the last transaction before it was emitted without its total.
    expected = {position: set(range(totals[position] or max(found) + 1)) for position, found in ordinals.items()}
    assert expected == ordinals


def assert_in_order(events: list[tuple[Record, Row]]) -> None:
    """In each partition the events of the log stand in the order of commits, whose numbers one of the tables has."""
    numbers = numbered([event for _, event in events])
    last: dict[tuple[str, int], tuple[int, int]] = {}
    for record, event in events:
        if is_of_the_log(event) and event["position"] in numbers:
            here, at = (record.topic, record.partition), (numbers[event["position"]], event["ordinal"])
            assert at > last.get(here, (0, 0)) or (at == last[here] and event["op"] == "update"), (record, event)
            last[here] = at


def replay(events: list[tuple[Record, Row]]) -> list[Row]:
    """The rows that somebody has who reads each partition by itself."""
    keyed: dict[tuple[int, str], Row] = {}
    loose: list[Row] = []
    for record, event in events:
        op, after = event["op"], event["after"]
        if op in ("truncate", "reset"):
            keyed = {place: row for place, row in keyed.items() if place[0] != record.partition}
            loose.clear()
        elif record.key is None:
            if event["before"] is not None:
                loose.remove(event["before"])
            if after is not None:
                loose.append(after)
        else:
            place = (record.partition, json.dumps(json.loads(record.key), sort_keys=True))
            if op == "delete" or is_moved(record, event):
                keyed.pop(place, None)
            else:
                keyed[place] = {**(keyed.get(place, {}) if op == "update" else {}), **after}
    return [*keyed.values(), *loose]


def as_counted(rows: list[Row]) -> Counter[str]:
    return Counter(json.dumps(row, sort_keys=True, default=str) for row in rows)


def test_the_reader_notices() -> None:
    """An event that is missing, that comes twice, or too late, is found: the assertions above can fail."""
    line = {"table": "s.ticks", "before": None, "after": {"n": 1}, "key": {"n": 1}, "op": "insert", "total": 2}
    first = Record("x", 0, b'{"n":1}', None), line | {"id": "a:0", "position": "a", "ordinal": 0}
    second = Record("x", 0, b'{"n":1}', None), line | {"id": "a:1", "position": "a", "ordinal": 1}
    assert_once([first, second])
    with pytest.raises(AssertionError):
        assert_once([first, second, first])
    assert_in_order([first, second])
    with pytest.raises(AssertionError):
        assert_in_order([second, first])
    many = [{**first[1], "position": str(i), "total": 1, "after": {"n": i + 1}} for i in range(30)]
    assert_whole(many, 0)
    with pytest.raises(AssertionError):
        assert_whole([*many, {**second[1], "position": "7", "ordinal": 2}], 0)
