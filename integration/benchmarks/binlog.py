"""Draining a binlog into DuckDB, against `mysqlbinlog --read-from-remote-server --raw` of the same files.

Start-up and an empty run are measured in the same run and taken off on both sides.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pymysqlreplication import BinLogStreamReader
from rich.console import Console

from cdc.demo.mysql import PrivateMySql
from cdc.model.schema import TableName
from cdc.options import Options
from cdc.runs import open_pipeline
from cdc.sources.mysql.binlog import Decoder
from cdc.sources.mysql.catalog import user_tables
from cdc.sources.mysql.charsets import ServerConverter
from cdc.sources.mysql.connection import Connection, Dsn
from cdc.sources.mysql.dump import log_events
from cdc.sources.mysql.framing import Framer
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.slices import Events
from cdc.sources.mysql.state import TableState
from cdc.sources.mysql.tablemap import TableMap
from cdc.sources.mysql.tables import plan_rows
from integration.benchmarks.measure import LIMIT_MB, Took, report, run

COLUMNS = (
    "id bigint PRIMARY KEY, a int, price decimal(12,2), name varchar(60), note text, at timestamp(6) NULL, day date, "
    "flag tinyint(1), x double, doc json"
)
GOALS = {"mariadb": (0.5, 0.4), "mysql": (0.3, 0.3)}


def row(i: str) -> str:
    return (
        f"{i}, {i} % 1000, ({i} % 100000) * 1.25, CONCAT('name of row ', {i}), "
        f"CONCAT('a somewhat longer note that goes with row number ', {i}), '2024-01-01' + INTERVAL {i} SECOND, "
        f"'2024-01-01' + INTERVAL {i} % 1000 DAY, {i} % 2 = 0, {i} / 7.0, JSON_OBJECT('k', {i}, 'v', 'x')"
    )


def inserts(server: PrivateMySql, console: Console, pairs: int, scale: float) -> None:
    """W1: 1,000,000 inserts of one row of ten columns, 1,000 per transaction."""
    count = int(1_000_000 * scale)
    body = f"INSERT INTO t VALUES ({row('i')});"
    _race(server, console, "w1", "W1: inserts", body, 1000, count, pairs, GOALS[server.flavor][0], fill=0)


def updates_and_deletes(server: PrivateMySql, console: Console, pairs: int, scale: float) -> None:
    """W2: 300,000 updates and 100,000 deletes by key, 100 per transaction."""
    count = int(400_000 * scale)
    title, goal = "W2: updates and deletes", GOALS[server.flavor][1]
    _race(server, console, "w2", title, _changes_of("i"), 100, count, pairs, goal, fill=count)


def updates_and_deletes_at_random(server: PrivateMySql, console: Console, pairs: int, scale: float) -> None:
    """W2 random: as W2, of keys in no order, which a temporary table has: none of it is in the log."""
    count = int(400_000 * scale)
    title, goal = "W2 random: updates and deletes of random keys", GOALS[server.flavor][1]
    body = _changes_of("(SELECT id FROM shuffled WHERE place = i)")
    _race(server, console, "w2_random", title, body, 100, count, pairs, goal, fill=count)


def _changes_of(key: str) -> str:
    return (
        f"IF i % 4 < 3 THEN UPDATE t SET price = price + 1, note = CONCAT(note, '!') WHERE id = {key}; "
        f"ELSE DELETE FROM t WHERE id = {key}; END IF;"
    )


def _work(server: PrivateMySql, name: str, body: str, per_transaction: int, count: int) -> None:
    """Single statements, as applications send them, but from a procedure, which is faster."""
    server.execute(
        "CREATE TEMPORARY TABLE shuffled (place int PRIMARY KEY, id bigint)",
        "INSERT INTO shuffled SELECT ROW_NUMBER() OVER (ORDER BY SHA2(id, 256)) - 1, id FROM t",
        f"CREATE PROCEDURE work() BEGIN DECLARE i bigint DEFAULT 0; WHILE i < {count} DO START TRANSACTION; "
        f"REPEAT {body} SET i = i + 1; UNTIL i % {per_transaction} = 0 END REPEAT; COMMIT; END WHILE; END",
        "CALL work()",
        "DROP PROCEDURE work",
        database=name,
    )


def _race(
    server: PrivateMySql,
    console: Console,
    name: str,
    title: str,
    body: str,
    per_transaction: int,
    rows: int,
    pairs: int,
    goal: float,
    fill: int,
) -> None:
    dsn = server.create_database(name)
    server.execute(f"CREATE TABLE t ({COLUMNS})", database=name)
    if fill:
        server.execute(
            "CREATE TABLE d (i int PRIMARY KEY)", *[f"INSERT INTO d VALUES ({i})" for i in range(1000)], database=name
        )
        for part in range(fill // 1000):
            server.execute(f"INSERT INTO t SELECT {row(f'(i + {part * 1000})')} FROM d", database=name)
        server.execute("DROP TABLE d", database=name)
    server.execute("FLUSH BINARY LOGS")
    first = server.execute("SHOW BINARY LOGS")[-1][0]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base.duckdb"
        options = Options(name=name, until_caught_up=True)
        open_pipeline(dsn, f"duckdb:{base}", options).run()  # the state that the backlog follows on
        idle = _take_cdc(dsn, name, base, Path(folder))
        idle_theirs = _take_theirs(server, first, Path(folder))
        _work(server, name, body, per_transaction, rows)
        theirs, ours = [], []
        for _ in range(pairs):
            theirs.append(_take_theirs(server, first, Path(folder)).beyond(idle_theirs))
            ours.append(_take_cdc(dsn, name, base, Path(folder)).beyond(idle))
    tool = "mysqlbinlog" if server.flavor == "mysql" else "mariadb-binlog"
    report(console, f"{server.flavor}, {title}, {rows:,} row changes", rows, theirs, ours, f"{tool} --raw", goal)


def _take_theirs(server: PrivateMySql, first: str, folder: Path) -> Took:
    tool = "mysqlbinlog" if server.flavor == "mysql" else "mariadb-binlog"
    raw = folder / "raw"
    raw.mkdir(exist_ok=True)
    command = [
        *server.programs.command(tool),
        *("--no-defaults", "--read-from-remote-server", "--raw", "--to-last-log", "-h127.0.0.1", f"-P{server.port}"),
        *("-ucdc", f"-p{server.password}", f"--result-file={raw}/", first),
    ]
    took = run(command)
    shutil.rmtree(raw)
    return took


def _take_cdc(dsn: str, name: str, base: Path, folder: Path) -> Took:
    """A run from the base's checkpoint."""
    copy = folder / "copy.duckdb"
    shutil.copy(base, copy)
    return run([sys.executable, "-m", "cdc", "run", dsn, f"duckdb:{copy}", "--name", name, "--until-caught-up"])


def decoding(server: PrivateMySql, console: Console, _pairs: int, scale: float) -> None:
    """Packets in memory to typed Arrow, against the library's own decoder over the same log, by the CPU that both take."""
    count = int(100_000 * scale)
    dsn = server.create_database("decoding")
    server.execute(f"CREATE TABLE t ({COLUMNS})", database="decoding")
    server.execute("FLUSH BINARY LOGS")
    first = server.execute("SHOW BINARY LOGS")[-1][0]
    server.execute(
        "CREATE TABLE n (i int PRIMARY KEY)", *[f"INSERT INTO n VALUES ({i})" for i in range(1000)], database="decoding"
    )
    for part in range(count // 1000):
        server.execute(f"INSERT INTO t SELECT {row(f'(i + {part * 1000})')} FROM n", database="decoding")
    with Connection(Dsn.parse(dsn), "benchmark") as connection:
        table = next(t for t in user_tables(connection, "decoding") if t.name.name == "t")
        packets = b"".join(map(_packet, log_events(Dsn.parse(dsn), 99999, first)))

        class Tables:
            def start(self, name: TableName) -> int:
                return 0

            def plan(self, table_map: TableMap) -> Any:
                entry = TableState(table.identified(1).schema, table.charset, 0, True, 99)
                return plan_rows(entry, table_map) if table_map.table == "t" else None

            def statement(self, *_: object) -> list[Any]:
                return []

        best = min(_timed(lambda: _decode(Tables(), ServerConverter(connection), first, packets)) for _ in range(3))
    rows = 0
    began = time.process_time()
    stream = BinLogStreamReader(
        connection_settings={"host": "127.0.0.1", "port": server.port, "user": "cdc", "passwd": server.password},
        server_id=424242,
        log_file=first,
        log_pos=4,
        resume_stream=True,
        only_schemas=["decoding"],
        only_tables=["t"],
        is_mariadb=False,
    )
    for event in stream:
        rows += len(getattr(event, "rows", ()))
    library = time.process_time() - began
    stream.close()
    console.print(
        f"{server.flavor}, decoding {count:,} rows: cdc {count / best:,.0f} rows per CPU s, mysql-replication {rows / library:,.0f} "
        f"({rows:,} rows, reading them included): ratio {library / rows * count / best:.0f} (to reach: 20)\n",
        highlight=False,
    )


def _timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _packet(event: bytes) -> bytes:
    """As the server sends it."""
    packet = b"\0" + event + zlib.crc32(event).to_bytes(4, "little")
    return len(packet).to_bytes(4, "little") + packet


def _decode(tables: Any, converter: ServerConverter, file: str, packets: bytes) -> None:
    decoder, framer = Decoder(tables, converter, LogPlace(file, 0), {}, {}, {}), Framer(has_checksum=True)
    runs: list[Events] = []
    for at in range(0, len(packets), 1 << 20):
        runs.append(framer.feed(packets[at : at + (1 << 20)]))
        if sum(int(run.length.sum()) for run in runs) > 16 << 20:
            events = Events.joined(runs)
            runs = [events[decoder.decode(events).consumed :]]
    decoder.decode(Events.joined(runs))


def copy(server: PrivateMySql, console: Console, pairs: int, scale: float) -> None:
    """2,000,000 rows, against mariadb-dump or mysqldump to /dev/null."""
    count = int(2_000_000 * scale)
    dsn = server.create_database("copied")
    server.execute(f"CREATE TABLE t ({COLUMNS})", database="copied")
    dump = "mysqldump" if server.flavor == "mysql" else "mariadb-dump"
    command = [
        *server.programs.command(dump),
        *("--no-defaults", "--no-create-info", "--single-transaction", "-h127.0.0.1", f"-P{server.port}"),
        *("-ucdc", f"-p{server.password}", "--result-file=/dev/null", "copied"),
        *(["--set-gtid-purged=OFF"] if server.flavor == "mysql" else []),
    ]

    def replicate_once() -> Took:
        with tempfile.TemporaryDirectory() as folder:
            return run([sys.executable, "-m", "cdc", "run", dsn, f"duckdb:{folder}/c.duckdb", "--until-caught-up"])

    idle, idle_theirs = replicate_once(), run(command)
    fill(server, "copied", count)
    theirs, ours = [], []
    for _ in range(pairs):
        theirs.append(run(command).beyond(idle_theirs))
        ours.append(replicate_once().beyond(idle))
    report(console, f"{server.flavor}, snapshot, {count:,} rows", count, theirs, ours, dump, 0.5)


def fill(server: PrivateMySql, database: str, count: int) -> None:
    """Put rows into the table `t`, which the log does not have."""
    numbers = [f"INSERT INTO n VALUES ({number})" for number in range(1000)]
    server.execute("CREATE TABLE n (i int PRIMARY KEY)", *numbers, database=database)
    for part in range(count // 1000):
        rows = f"INSERT INTO t SELECT {row(f'(i + {part * 1000})')} FROM n"
        server.execute("SET sql_log_bin = 0", rows, database=database)
    server.execute("DROP TABLE n", "ANALYZE TABLE t", database=database)


def large(server: PrivateMySql, console: Console, _pairs: int, scale: float) -> None:
    """5,000,000 rows in one transaction, and a row of 64 MB."""
    count = int(5_000_000 * scale)
    dsn = server.create_database("large")
    server.execute(f"CREATE TABLE t ({COLUMNS})", "CREATE TABLE b (id int PRIMARY KEY, v longblob)", database="large")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cdc", "run", dsn, f"duckdb:{folder}/x.duckdb", "--until-caught-up"]
        run(command)
        server.execute("CREATE TEMPORARY TABLE n (i int PRIMARY KEY)", database="large")
        with server.connect("large") as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE n (i int PRIMARY KEY)")
            cursor.executemany("INSERT INTO n VALUES (%s)", [(i,) for i in range(1000)])
            cursor.execute("BEGIN")
            for part in range(count // 1000):
                cursor.execute(f"INSERT INTO t SELECT {row(f'(i + {part * 1000})')} FROM n")
            cursor.execute("COMMIT")
        took = run(command)
        console.print(
            f"{server.flavor}, one transaction of {count:,} rows: {took.seconds:.1f} s, {count / took.seconds:,.0f} rows/s, "
            f"CPU {took.cpu:.1f} s, peak memory {took.peak_mb:.0f} MB (limit: {LIMIT_MB})",
            highlight=False,
        )
        server.execute(f"INSERT INTO b VALUES (1, REPEAT(x'8041', {32 << 20}))", database="large")
        took = run(command)
        console.print(
            f"{server.flavor}, a row of 64 MB: peak memory {took.peak_mb:.0f} MB (limit: {LIMIT_MB})\n", highlight=False
        )
