"""MySQL and MariaDB: the binlog as a replica reads it, and what was there before it through consistent reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cdc.errors import UsageError
from cdc.findings import Finding
from cdc.model.parts import Digest
from cdc.model.schema import TableSchema
from cdc.selection import Selection
from cdc.source import Begin, SourceStatus
from cdc.sources.mysql.admin import log_status
from cdc.sources.mysql.catalog import selected, user_tables
from cdc.sources.mysql.check import check
from cdc.sources.mysql.connection import Connection, Dsn
from cdc.sources.mysql.digest import digest
from cdc.sources.mysql.observer import MySqlObserver
from cdc.sources.mysql.source import Learned, MySqlSource, Settings
from cdc.sources.mysql.state import SourceState
from cdc.sources.mysql.tail import TailSource


def source_factory(
    dsn: str, *, name: str, selection: Selection, include_keyless: bool, workers: int, budget: int, notes: bool = False
) -> Callable[[], MySqlSource]:
    """Check a DSN's form and return what opens the source; raises UsageError. Tables without a key are always followed:
    the log has whole rows of them, and nothing fails on the server."""
    parsed = Dsn.parse(dsn)
    settings = Settings(name, _in_database(selection, parsed), workers, budget, notes)
    learned = Learned()
    return lambda: MySqlSource(parsed, settings, learned=learned)


def make_observer(dsn: str, *, name: str) -> MySqlObserver:
    """Somebody who looks at the source beside a pipeline."""
    return MySqlObserver(Dsn.parse(dsn), f"cdc {name} observer")


def digest_tables(dsn: str, selection: Selection) -> dict[TableSchema, Digest]:
    """The digest of each table that a pipeline of this selection follows, as they are now."""
    parsed = Dsn.parse(dsn)
    with Connection(parsed, "cdc compare") as connection:
        connection.query("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        tables = selected(user_tables(connection, parsed.database), _in_database(selection, parsed))
        return {table.schema: digest(connection, table.schema) for table in tables if table.schema.columns}


def tail_factory(
    dsn: str, *, slot: str | None, selection: Selection, include_keyless: bool, budget: int, begin: Begin | None = None
) -> Callable[[], TailSource]:
    """Check a DSN's form and return what opens a source without a snapshot; raises UsageError."""
    parsed = Dsn.parse(dsn)
    if slot is not None:
        raise UsageError("MySQL and MariaDB have no slots.", hint="Leave --slot out: `cdc run` keeps a position.")
    settings = Settings("tail", _in_database(selection, parsed), 1, budget, notes=True)
    return lambda: TailSource(parsed, settings, begin=begin)


def source_status(dsn: str, name: str, state: str | None) -> SourceStatus:
    """How far the server's log is, and whether it still has what comes after the checkpoint."""
    with Connection(Dsn.parse(dsn), "cdc status") as connection:
        return log_status(connection, state)


def table_states(state: str) -> dict[str, str]:
    """Per table of a checkpoint's state: copying or streaming."""
    tables = SourceState.load(state).tables.values()
    return {str(table.schema.table): "streaming" if table.copied else "copying" for table in tables}


def teardown_source(dsn: str, name: str) -> list[str]:
    """Nothing is ever made on the server, so that there is nothing to remove."""
    Dsn.parse(dsn)
    return []


def check_source(dsn: str, selection: Selection) -> list[Finding]:
    """Everything that would stop replication from here, each with its fix; changes nothing."""
    parsed = Dsn.parse(dsn)
    with Connection(parsed, "cdc check") as connection:
        return check(connection, parsed.database, _in_database(selection, parsed))


def _in_database(selection: Selection, dsn: Dsn) -> Selection:
    """A bare table name means one in the DSN's database."""
    return replace(selection, default_schema=dsn.database)
