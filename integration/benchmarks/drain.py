"""Draining a backlog into DuckDB, against `pg_recvlogical -f /dev/null` from a copy of the same slot.

The clock of cdc runs from the server's first byte to the durable checkpoint: its own start-up is measured with an empty
backlog in the same run, and taken off, as is that of pg_recvlogical.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from cdc.demo.server import PrivatePostgres
from cdc.model.selection import Selection
from cdc.options import Options
from cdc.runs import open_pipeline
from integration.benchmarks.measure import Took, report, run

TEN_COLUMNS = (
    "id bigint PRIMARY KEY, a int, price numeric(12,2), name text, note text, at timestamptz, day date, flag boolean, "
    "x double precision, doc jsonb"
)
ROW = (
    "i, i % 1000, (i % 100000) * 1.25, 'name of row ' || i, 'a somewhat longer note that goes with row number ' || i, "
    "'2024-01-01'::timestamptz + i * interval '1 second', '2024-01-01'::date + i % 1000, i % 2 = 0, i / 7.0::float8, "
    "jsonb_build_object('k', i, 'v', 'x')"
)


def inserts(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """W1: 1,000,000 rows of ten columns, 1,000 per transaction."""
    count = int(1_000_000 * scale)
    dsn = server.create_database("w1")
    server.execute(f"CREATE TABLE t ({TEN_COLUMNS})", "w1")
    work = f"""
        DO $$ BEGIN FOR part IN 0..{count // 1000 - 1} LOOP
            INSERT INTO t SELECT {ROW} FROM generate_series(part * 1000 + 1, part * 1000 + 1000) i; COMMIT;
        END LOOP; END $$
    """
    _race(server, console, dsn, "w1", "W1: inserts", lambda: server.execute(work, "w1"), count, pairs, 1.0)


def updates_and_deletes(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """W2: 300,000 updates and 100,000 deletes by key, 100 per transaction."""
    count = int(400_000 * scale)
    dsn = server.create_database("w2")
    server.execute(f"CREATE TABLE t ({TEN_COLUMNS})", "w2")
    server.execute(f"INSERT INTO t SELECT {ROW} FROM generate_series(1, {count}) i", "w2")
    work = f"""
        DO $$ BEGIN FOR part IN 0..{count // 100 - 1} LOOP
            UPDATE t SET price = price + 1, note = note || '!' WHERE id > part * 100 AND id <= part * 100 + 75;
            DELETE FROM t WHERE id > part * 100 + 75 AND id <= part * 100 + 100; COMMIT;
        END LOOP; END $$
    """
    _race(server, console, dsn, "w2", "W2: updates and deletes", lambda: server.execute(work, "w2"), count, pairs, 0.6)


def pgbench(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """W3: 100,000 TPC-B transactions of pgbench: three updates and an insert each."""
    count = int(100_000 * scale)
    dsn = server.create_database("w3")
    bench = [str(server.binaries / "pgbench"), "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres"]
    subprocess.run([*bench, "-i", "-q", "-s", "10", "w3"], check=True, capture_output=True)
    server.execute("ALTER TABLE pgbench_history ADD COLUMN id bigserial PRIMARY KEY", "w3")

    def work() -> None:
        subprocess.run([*bench, "-n", "-c", "4", "-t", str(count // 4), "w3"], check=True, capture_output=True)

    _race(server, console, dsn, "w3", "W3: pgbench TPC-B", work, count * 4, pairs, 0.5)


def _race(
    server: PrivatePostgres,
    console: Console,
    dsn: str,
    name: str,
    title: str,
    work: object,
    rows: int,
    pairs: int,
    goal: float,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base.duckdb"
        options = Options(name=name, selection=Selection(("public.*",)), until_caught_up=True)
        open_pipeline(dsn, f"duckdb:{base}", options).run()  # the state that the backlog follows on
        idle = _take_cdc(server, dsn, name, base, Path(folder))
        idle_theirs = take_recvlogical(server, name)
        work()  # type: ignore[operator]
        theirs, ours = [], []
        for _ in range(pairs):
            theirs.append(take_recvlogical(server, name).beyond(idle_theirs))
            ours.append(_take_cdc(server, dsn, name, base, Path(folder)).beyond(idle))
    report(console, f"{title}, {rows:,} row changes", rows, theirs, ours, "pg_recvlogical -f /dev/null", goal)
    server.execute(f"SELECT pg_drop_replication_slot('cdc_{name}')")


def take_recvlogical(server: PrivatePostgres, name: str) -> Took:
    """The server's own tool, from a copy of the slot."""
    server.execute(f"SELECT pg_copy_logical_replication_slot('cdc_{name}', 'race')", name)
    end = server.execute("SELECT pg_current_wal_flush_lsn()")[0][0]
    command = [
        *(str(server.binaries / "pg_recvlogical"), "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres"),
        *("-d", name, "-S", "race", "--start", "-f", "/dev/null", "-E", str(end), "--no-loop"),
        *("-o", "proto_version=1", "-o", f"publication_names=cdc_{name}"),
    ]
    took = run(command)
    server.execute("SELECT pg_drop_replication_slot('race')")
    return took


def _take_cdc(server: PrivatePostgres, dsn: str, name: str, base: Path, folder: Path) -> Took:
    """A run from the base's checkpoint, with the slot as it was then."""
    copy = folder / "copy.duckdb"
    shutil.copy(base, copy)
    with kept_slot(server, name):
        return run([sys.executable, "-m", "cdc", "run", dsn, f"duckdb:{copy}", "--name", name, "--until-caught-up"])


@contextmanager
def kept_slot(server: PrivatePostgres, name: str) -> Iterator[None]:
    """Afterwards the slot of a pipeline is where it was."""
    keep = f"keep_{name}"
    server.execute(f"SELECT pg_copy_logical_replication_slot('cdc_{name}', '{keep}')", name)
    try:
        yield
    finally:
        server.execute(f"SELECT pg_drop_replication_slot('cdc_{name}')")
        server.execute(f"SELECT pg_copy_logical_replication_slot('{keep}', 'cdc_{name}')", name)
        server.execute(f"SELECT pg_drop_replication_slot('{keep}')")
