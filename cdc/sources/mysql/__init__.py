"""MySQL and MariaDB: the binlog as a replica reads it, and what was there before it through consistent reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cdc.findings import Finding
from cdc.model.schema import TableSchema
from cdc.selection import Selection
from cdc.sources.mysql.check import check
from cdc.sources.mysql.connection import Connection, Dsn
from cdc.sources.mysql.digest import digest
from cdc.sources.mysql.catalog import selected, user_tables
from cdc.sources.mysql.source import MySqlSource, Settings


def source_factory(
    dsn: str, *, name: str, selection: Selection, include_keyless: bool, workers: int, budget: int
) -> Callable[[], MySqlSource]:
    """Check a DSN's form and return what opens the source; raises UsageError. Tables without a key are always followed:
    the log has whole rows of them, and nothing fails on the server."""
    parsed = Dsn.parse(dsn)
    settings = Settings(name, _in_database(selection, parsed), workers, budget)
    return lambda: MySqlSource(parsed, settings)


def digest_tables(dsn: str, selection: Selection) -> dict[TableSchema, tuple[int, int]]:
    """Row count and digest of each table that a pipeline of this selection follows, as they are now."""
    parsed = Dsn.parse(dsn)
    with Connection(parsed, "cdc compare") as connection:
        connection.query("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        tables = selected(user_tables(connection, parsed.database), _in_database(selection, parsed))
        return {table.schema: digest(connection, table.schema) for table in tables if table.schema.columns}


def check_source(dsn: str, selection: Selection) -> list[Finding]:
    """Everything that would stop replication from here, each with its fix; changes nothing."""
    parsed = Dsn.parse(dsn)
    with Connection(parsed, "cdc check") as connection:
        return check(connection, parsed.database, _in_database(selection, parsed))


def _in_database(selection: Selection, dsn: Dsn) -> Selection:
    """A bare table name means one in the DSN's database."""
    return replace(selection, default_schema=dsn.database)
