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
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cdc.demo.server import PrivatePostgres
from integration.benchmarks.contenders import (
    Backlog,
    Contender,
    IntoClickHouse,
    IntoFolder,
    IntoPostgres,
    Recvlogical,
    Subscription,
)
from integration.benchmarks.measure import Took, compare
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


@dataclass(frozen=True, slots=True)
class Workload:
    """What happens to a table of ten columns.

    Attributes:
        rows: that change.
        filled: rows that are there before.
        work: SQL that does it.
        last: true, on a copy of the table, once all of it is there.
    """

    title: str
    rows: int
    filled: int
    work: str
    last: str

    def prepared(self, server: PrivatePostgres, name: str) -> Backlog:
        """What is to be drained, in a database of that name, before the work is done."""
        server.create_database(name)
        server.execute(f"CREATE TABLE t ({TEN_COLUMNS})", name)
        server.execute(f"INSERT INTO t SELECT {ROW} FROM generate_series(1, {self.filled}) i", name)
        return Backlog(server, name, self.rows, self.last)


def inserting(scale: float) -> Workload:
    """W1: 1,000,000 rows of ten columns, 1,000 per transaction."""
    count = int(1_000_000 * scale)
    work = f"""
        DO $$ BEGIN FOR part IN 0..{count // 1000 - 1} LOOP
            INSERT INTO t SELECT {ROW} FROM generate_series(part * 1000 + 1, part * 1000 + 1000) i; COMMIT;
        END LOOP; END $$
    """
    return Workload("W1: inserts", count, 0, work, f"SELECT count(*) = 1 FROM t WHERE id = {count}")


def changing(scale: float) -> Workload:
    """W2: 300,000 updates and 100,000 deletes by ranges of the key, 100 per transaction."""
    count = int(400_000 * scale)
    work = f"""
        DO $$ BEGIN FOR part IN 0..{count // 100 - 1} LOOP
            UPDATE t SET price = price + 1, note = note || '!' WHERE id > part * 100 AND id <= part * 100 + 75;
            DELETE FROM t WHERE id > part * 100 + 75 AND id <= part * 100 + 100; COMMIT;
        END LOOP; END $$
    """
    return Workload("W2: updates and deletes", count, count, work, f"SELECT count(*) = 0 FROM t WHERE id = {count}")


def changing_at_random(scale: float) -> Workload:
    """W2 random: as W2, of keys in no order. The highest is the last that goes, as in W2."""
    count = int(400_000 * scale)
    work = f"""
        DO $$ BEGIN
            CREATE TEMPORARY TABLE shuffled AS
                SELECT id AS key, row_number() OVER (ORDER BY id = {count}, md5(id::text)) AS place FROM t;
            CREATE INDEX ON shuffled (place);
            ANALYZE shuffled;
            FOR part IN 0..{count // 100 - 1} LOOP
                UPDATE t SET price = price + 1, note = note || '!' FROM shuffled
                    WHERE id = key AND place > part * 100 AND place <= part * 100 + 75;
                DELETE FROM t USING shuffled WHERE id = key AND place > part * 100 + 75 AND place <= part * 100 + 100;
                COMMIT;
            END LOOP;
        END $$
    """
    title = "W2 random: updates and deletes of random keys"
    return Workload(title, count, count, work, f"SELECT count(*) = 0 FROM t WHERE id = {count}")


def inserts(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """W1, into everything that keeps tables."""
    with _all_tables(duckdb=1.0, ducklake=0.6, postgres=0.5, clickhouse=0.6) as contenders:
        _work_through(inserting(scale), server, "w1", console, pairs, contenders)


def updates_and_deletes(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """W2, into everything that keeps tables."""
    with _all_tables(duckdb=0.6, ducklake=None, postgres=0.3, clickhouse=0.4) as contenders:
        _work_through(changing(scale), server, "w2", console, pairs, contenders)


def updates_and_deletes_at_random(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """W2 random, into everything that keeps tables."""
    with _all_tables(duckdb=0.6, ducklake=None, postgres=0.3, clickhouse=0.4) as contenders:
        _work_through(changing_at_random(scale), server, "w2_random", console, pairs, contenders)


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
        _race(Backlog(server, "w3", count * 4, ""), console, "W3: pgbench TPC-B", work, pairs, [duckdb])


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


def _work_through(
    workload: Workload,
    server: PrivatePostgres,
    name: str,
    console: Console,
    pairs: int,
    contenders: Sequence[Contender],
) -> None:
    backlog = workload.prepared(server, name)
    _race(backlog, console, workload.title, lambda: server.execute(workload.work, name), pairs, contenders)


def _race(
    backlog: Backlog,
    console: Console,
    title: str,
    work: Callable[[], object],
    pairs: int,
    contenders: Sequence[Contender],
) -> None:
    tool = Recvlogical()
    theirs, *ours = raced(backlog, work, pairs, [tool, *contenders])
    named = [(each.title, took, each.goal) for each, took in zip(contenders, ours, strict=True)]
    compare(console, f"{title}, {backlog.rows:,} row changes", backlog.rows, tool.title, theirs, named)


def raced(
    backlog: Backlog, work: Callable[[], object], pairs: int, contenders: Sequence[Contender]
) -> list[list[Took]]:
    """What each contender took to drain what work writes, in turn, beyond what it took with nothing to drain."""
    for contender in contenders:
        contender.begin(backlog)
    idle = [contender.take(is_idle=True) for contender in contenders]
    work()
    took: list[list[Took]] = [[] for _ in contenders]
    for _ in range(pairs):
        for contender, runs, at_rest in zip(contenders, took, idle, strict=True):
            runs.append(contender.take(is_idle=False).beyond(at_rest))
    for contender in contenders:
        contender.end()
    return took
