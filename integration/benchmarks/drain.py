"""Draining a backlog into tables, against `pg_recvlogical -f /dev/null` from a copy of the same slot.

The clock of cdc runs from the server's first byte to the durable checkpoint: its own start-up is measured with an empty
backlog in the same run, and taken off, as is that of the others.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from cdc.demo.server import PrivatePostgres
from integration.benchmarks.contenders import Backlog, Contender, IntoClickHouse, IntoFolder, IntoPostgres, Subscription
from integration.benchmarks.measure import compare
from integration.benchmarks.slots import take_recvlogical
from integration.clickhouse import PrivateClickHouse
from integration.other_duckdb import installed

TEN_COLUMNS = (
    "id bigint PRIMARY KEY, a int, price numeric(12,2), name text, note text, at timestamptz, day date, flag boolean, "
    "x double precision, doc jsonb"
)
ROW = (
    "i, i % 1000, (i % 100000) * 1.25, 'name of row ' || i, 'a somewhat longer note that goes with row number ' || i, "
    "'2024-01-01'::timestamptz + i * interval '1 second', '2024-01-01'::date + i % 1000, i % 2 = 0, i / 7.0::float8, "
    "jsonb_build_object('k', i, 'v', 'x')"
)
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "16GB"}  # of the servers


def inserts(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """W1: 1,000,000 rows of ten columns, 1,000 per transaction."""
    count = int(1_000_000 * scale)
    server.create_database("w1")
    server.execute(f"CREATE TABLE t ({TEN_COLUMNS})", "w1")
    work = f"""
        DO $$ BEGIN FOR part IN 0..{count // 1000 - 1} LOOP
            INSERT INTO t SELECT {ROW} FROM generate_series(part * 1000 + 1, part * 1000 + 1000) i; COMMIT;
        END LOOP; END $$
    """
    backlog = Backlog(server, "w1", f"SELECT count(*) = 1 FROM t WHERE id = {count}")
    with _all_tables(duckdb=1.0, ducklake=0.6, postgres=0.5, clickhouse=0.6) as contenders:
        _race(backlog, console, "W1: inserts", lambda: server.execute(work, "w1"), count, pairs, contenders)


def updates_and_deletes(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """W2: 300,000 updates and 100,000 deletes by key, 100 per transaction."""
    count = int(400_000 * scale)
    server.create_database("w2")
    server.execute(f"CREATE TABLE t ({TEN_COLUMNS})", "w2")
    server.execute(f"INSERT INTO t SELECT {ROW} FROM generate_series(1, {count}) i", "w2")
    work = f"""
        DO $$ BEGIN FOR part IN 0..{count // 100 - 1} LOOP
            UPDATE t SET price = price + 1, note = note || '!' WHERE id > part * 100 AND id <= part * 100 + 75;
            DELETE FROM t WHERE id > part * 100 + 75 AND id <= part * 100 + 100; COMMIT;
        END LOOP; END $$
    """
    backlog = Backlog(server, "w2", f"SELECT count(*) = 0 FROM t WHERE id = {count}")
    with _all_tables(duckdb=0.6, ducklake=None, postgres=0.3, clickhouse=0.4) as contenders:
        _race(backlog, console, "W2: updates and deletes", lambda: server.execute(work, "w2"), count, pairs, contenders)


def pgbench(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """W3: 100,000 TPC-B transactions of pgbench: three updates and an insert each."""
    count = int(100_000 * scale)
    server.create_database("w3")
    environment = os.environ | {"PGPASSFILE": str(server.passfile)}
    bench = [str(server.binaries / "pgbench"), "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres"]
    subprocess.run([*bench, "-i", "-q", "-s", "10", "w3"], check=True, capture_output=True, env=environment)
    server.execute("ALTER TABLE pgbench_history ADD COLUMN id bigserial PRIMARY KEY", "w3")

    def work() -> None:
        run = [*bench, "-n", "-c", "4", "-t", str(count // 4), "w3"]
        subprocess.run(run, check=True, capture_output=True, env=environment)

    with tempfile.TemporaryDirectory() as folder:
        duckdb = IntoFolder("cdc into DuckDB", "duckdb", Path(folder), 0.5)
        _race(Backlog(server, "w3", ""), console, "W3: pgbench TPC-B", work, count * 4, pairs, [duckdb])


@contextmanager
def _all_tables(
    *, duckdb: float, ducklake: float | None, postgres: float, clickhouse: float
) -> Iterator[list[Contender]]:
    """Everybody who keeps tables, with the ratios that are to be reached."""
    with (
        tempfile.TemporaryDirectory() as folder,
        PrivatePostgres(18, settings=SETTINGS) as copies,
        PrivateClickHouse() as house,
    ):
        into_postgres = IntoPostgres(copies, postgres)
        yield [
            IntoFolder("cdc into DuckDB", "duckdb", Path(folder), duckdb),
            IntoFolder("cdc into DuckLake", "ducklake", Path(folder), ducklake, installed("ducklake.txt")),
            into_postgres,
            Subscription(into_postgres),
            IntoClickHouse(house, clickhouse),
        ]


def _race(
    backlog: Backlog,
    console: Console,
    title: str,
    work: Callable[[], object],
    rows: int,
    pairs: int,
    contenders: Sequence[Contender],
) -> None:
    server, database = backlog.server, backlog.name
    for contender in contenders:
        contender.begin(backlog)
    slot = f"cdc_{database}_duckdb"
    idle_theirs = take_recvlogical(server, database, slot)
    idle = [contender.take(is_idle=True) for contender in contenders]
    work()
    theirs = []
    ours = [[] for _ in contenders]
    for _ in range(pairs):
        theirs.append(take_recvlogical(server, database, slot).beyond(idle_theirs))
        for contender, took, at_rest in zip(contenders, ours, idle, strict=True):
            took.append(contender.take(is_idle=False).beyond(at_rest))
    named = [(each.title, took, each.goal) for each, took in zip(contenders, ours, strict=True)]
    compare(console, f"{title}, {rows:,} row changes", rows, "pg_recvlogical -f /dev/null", theirs, named)
    for contender in contenders:
        contender.end()
