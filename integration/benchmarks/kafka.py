"""Draining a backlog into Kafka topics, against `pg_recvlogical -f /dev/null` from a copy of the same slot.

The checkpoint is in Kafka and does not go back, so that each pair has a backlog of its own. The broker runs on the same
machine and takes its share of it.
"""

from __future__ import annotations

import sys

from rich.console import Console

from cdc.demo.server import PrivatePostgres
from cdc.model.selection import Selection
from cdc.options import Options
from cdc.runs import open_pipeline
from integration.benchmarks.drain import ROW, TEN_COLUMNS
from integration.benchmarks.measure import report, run
from integration.benchmarks.slots import take_recvlogical
from integration.kafka import PrivateKafka


def inserts(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """W1 with half of the rows, as JSON."""
    count, name = int(500_000 * scale) // 1000 * 1000, "kafka"
    dsn = server.create_database(name)
    server.execute(f"CREATE TABLE t ({TEN_COLUMNS})", name)
    with PrivateKafka() as kafka:
        target = f"kafka:{kafka.address('partitions=4')}"
        options = Options(name=name, selection=Selection(("public.*",)), until_caught_up=True)
        open_pipeline(dsn, target, options).run()
        command = [sys.executable, "-m", "cdc", "run", dsn, target, "--name", name, "--until-caught-up"]
        idle, idle_theirs = run(command), take_recvlogical(server, name, f"cdc_{name}")
        theirs, ours = [], []
        for pair in range(pairs):
            server.execute(
                f"DO $$ BEGIN FOR part IN {pair * count // 1000}..{(pair + 1) * count // 1000 - 1} LOOP INSERT INTO t "
                f"SELECT {ROW} FROM generate_series(part * 1000 + 1, part * 1000 + 1000) i; COMMIT; END LOOP; END $$",
                name,
            )
            theirs.append(take_recvlogical(server, name, f"cdc_{name}").beyond(idle_theirs))
            ours.append(run(command).beyond(idle))
    title = f"W1 into Kafka: inserts, {count:,} row changes"
    report(console, title, count, theirs, ours, "pg_recvlogical -f /dev/null", 0.6)
    server.execute(f"SELECT pg_drop_replication_slot('cdc_{name}')")
