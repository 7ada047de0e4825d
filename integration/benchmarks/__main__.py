"""`python -m integration.benchmarks [names]`: run the benchmarks and print their ratios.

Every figure is of this machine in these minutes; only ratios of what ran in turn mean something elsewhere.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from rich.console import Console

from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from integration.benchmarks import (
    binlog,
    drain,
    formats,
    journal,
    kafka,
    large,
    latency,
    peers,
    publish,
    readers,
    sizes,
    snapshot,
    startup,
    tables,
)
from integration.benchmarks.neighbours import watched

BENCHMARKS = {
    "w1": drain.inserts,
    "w2": drain.updates_and_deletes,
    "w2_random": drain.updates_and_deletes_at_random,
    "w3": drain.pgbench,
    "kafka": kafka.inserts,
    "snapshot": snapshot.copy,
    "sizes": sizes.from_postgres,
    "latency": latency.commit_to_visible,
    "live-size": latency.by_size,
    "large": large.one_transaction,
    "journal": journal.write_and_replay,
    "formats": formats.events,
    "tables": tables.copies,
    "live-tables": tables.commits,
    "publish": publish.copies,
    "startup": startup.commands,
    "readers": readers.served,
    "peers": peers.in_turn,
}
BINLOG = {
    "w1": binlog.inserts,
    "w2": binlog.updates_and_deletes,
    "w2_random": binlog.updates_and_deletes_at_random,
    "decoding": binlog.decoding,
    "snapshot": binlog.copy,
    "sizes": sizes.from_mysql,
    "large": binlog.large,
    "startup": startup.following,
}
SOURCES = ("postgresql", "mariadb", "mysql")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m integration.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS, "decoding"], help="which; all if none")  # type: ignore[arg-type]
    parser.add_argument("--source", choices=SOURCES, action="append", help="which servers; all if none")
    parser.add_argument("--pairs", type=int, default=5, help="alternating pairs per figure")
    parser.add_argument("--scale", type=float, default=1.0, help="of the rows; below 1 for a quick look")
    arguments = parser.parse_args()
    console = Console(width=140)
    for source in arguments.source or SOURCES:
        if not _of(BENCHMARKS if source == "postgresql" else BINLOG, arguments.names):
            continue
        if source == "postgresql":
            with PrivatePostgres(18, settings=drain.SETTINGS) as server:
                for name in _of(BENCHMARKS, arguments.names):
                    with watched(console, name):
                        BENCHMARKS[name](server, console, arguments.pairs, arguments.scale)
            continue
        settings = {
            "innodb-buffer-pool-size": "1G",
            "innodb-log-file-size" if source == "mariadb" else "innodb-redo-log-capacity": "1G",
        }
        with PrivateMySql(source, settings) as other:
            for name in _of(BINLOG, arguments.names):
                with watched(console, f"{source}, {name}"):
                    BINLOG[name](other, console, arguments.pairs, arguments.scale)


def _of(benchmarks: Iterable[str], names: list[str]) -> list[str]:
    """Those that are wanted of a source's, each of which has its own."""
    return [name for name in benchmarks if name in names or not names]


main()
