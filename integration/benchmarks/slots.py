"""Replication slots that are drained more than once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cdc.demo.server import PrivatePostgres
from integration.benchmarks.measure import Took, run


def take_recvlogical(server: PrivatePostgres, database: str, slot: str) -> Took:
    """The server's own tool, from a copy of a slot, whose publication has its name."""
    server.execute(f"SELECT pg_copy_logical_replication_slot('{slot}', 'race')", database)
    end = server.execute("SELECT pg_current_wal_flush_lsn()")[0][0]
    command = [
        *(str(server.binaries / "pg_recvlogical"), "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres"),
        *("-d", database, "-S", "race", "--start", "-f", "/dev/null", "-E", str(end), "--no-loop"),
        *("-o", "proto_version=1", "-o", f"publication_names={slot}"),
    ]
    took = run(command, {"PGPASSFILE": str(server.passfile)})
    server.execute("SELECT pg_drop_replication_slot('race')")
    return took


@contextmanager
def kept_slot(server: PrivatePostgres, database: str, slot: str) -> Iterator[None]:
    """Afterwards a slot is where it was."""
    keep = f"keep_{slot}"
    server.execute(f"SELECT pg_copy_logical_replication_slot('{slot}', '{keep}')", database)
    try:
        yield
    finally:
        server.execute(f"SELECT pg_drop_replication_slot('{slot}')")
        server.execute(f"SELECT pg_copy_logical_replication_slot('{keep}', '{slot}')", database)
        server.execute(f"SELECT pg_drop_replication_slot('{keep}')")
