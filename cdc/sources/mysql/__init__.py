"""MySQL and MariaDB: the binlog as a replica reads it, and what was there before it through consistent reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cdc.errors import UsageError
from cdc.model.moment import Moment
from cdc.model.parts import Digest
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableName, TableSchema
from cdc.model.selection import Selection
from cdc.model.standing import Standing
from cdc.options import KeptOptions
from cdc.removal import Removal
from cdc.source import SourceStatus
from cdc.sources.findings import Finding
from cdc.sources.mysql.admin import log_status, refuse_other
from cdc.sources.mysql.catalog import selected, user_tables
from cdc.sources.mysql.check import check
from cdc.sources.mysql.connection import Connection, Dsn
from cdc.sources.mysql.digest import digest
from cdc.sources.mysql.identity import log_now
from cdc.sources.mysql.observer import MySqlObserver
from cdc.sources.mysql.reached import lies_before
from cdc.sources.mysql.source import Learned, MySqlSource, Settings
from cdc.sources.mysql.state import SourceState, standings
from cdc.sources.mysql.tail import TailSource
from cdc.target import SetApart, takes_all


def source_factory(
    dsn: str,
    *,
    name: str,
    options: KeptOptions,
    workers: int,
    budget: int,
    notes: bool = False,
    only_looks: bool = False,
    set_apart: SetApart = takes_all,
) -> Callable[[], MySqlSource]:
    """Check a DSN's form and return what opens the source; raises UsageError. Tables without a key are always followed:
    the log has whole rows of them, and nothing fails on the server, where nothing is ever changed."""
    parsed = Dsn.parse(dsn)
    settings = Settings(
        name, replace(options, selection=_in_database(options.selection, parsed)), workers, budget, notes
    )
    learned = Learned()
    return lambda: MySqlSource(parsed, settings, learned=learned)


def database_of(dsn: str) -> str:
    """The database that a DSN names, empty for all; raises UsageError."""
    return Dsn.parse(dsn).database


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
    dsn: str, *, slot: str | None, selection: Selection, include_keyless: bool, budget: int, begin: Moment | None = None
) -> Callable[[], TailSource]:
    """Check a DSN's form and return what opens a source without a snapshot; raises UsageError."""
    parsed = Dsn.parse(dsn)
    if slot is not None:
        raise UsageError("MySQL and MariaDB have no slots.", hint="Leave --slot out: `cdc run` keeps a position.")
    settings = Settings("tail", KeptOptions(_in_database(selection, parsed)), 1, budget, notes=True)
    return lambda: TailSource(parsed, settings, begin=begin)


def source_status(dsn: str, name: str, state: str | None, position: Position | None) -> SourceStatus:
    """How far the server's log is, and whether it still has what comes after the checkpoint."""
    with Connection(Dsn.parse(dsn), "cdc status") as connection:
        return log_status(connection, state)


def position_now(dsn: str) -> str:
    """The GTIDs of everything that was committed; file and byte where the server has none."""
    with Connection(Dsn.parse(dsn), "cdc wait") as connection:
        now = log_now(connection)
    return now.gtids or f"{now.file}:{now.offset}"


def has_reached(checkpoint: Checkpoint, wanted: str) -> bool:
    """Whether a checkpoint has some GTIDs, or is at a byte of a file, or behind it; raises UsageError."""
    return lies_before(wanted, checkpoint.state)


def pipeline_of(state: str) -> str:
    """The name of the pipeline that a checkpoint's state belongs to."""
    return SourceState.load(state).pipeline


def kept_options(state: str) -> KeptOptions | None:
    """The options of the last run, by a checkpoint's state; None if that is of a version that did not keep them."""
    return SourceState.load(state).options


def table_standings(state: str) -> dict[TableName, Standing]:
    """How the tables of the selection stand by a checkpoint's state."""
    return standings(SourceState.load(state))


def table_names(state: str) -> dict[int, TableName]:
    """The tables of a checkpoint's state by their identities."""
    return {identity: entry.schema.table for identity, entry in SourceState.load(state).tables.items()}


def source_removals(dsn: str, name: str, state: str | None) -> list[Removal]:
    """Nothing is ever made on the server, so that there is nothing to remove; raises UsageError if a checkpoint's state
    is of another one."""
    parsed = Dsn.parse(dsn)
    if state is not None:
        with Connection(parsed, "cdc teardown") as connection:
            refuse_other(connection, SourceState.load(state))
    return []


def check_source(dsn: str, selection: Selection) -> list[Finding]:
    """Everything that would stop replication from here, each with its fix; changes nothing."""
    parsed = Dsn.parse(dsn)
    with Connection(parsed, "cdc check") as connection:
        return check(connection, parsed.database, _in_database(selection, parsed))


def compare_log(dsn: str, selection: Selection, file: str | None) -> list[Finding]:
    """A file of the log as two decoders read it, and where they differ; changes nothing.

    Args:
        file: its name; None for the newest.

    Raises:
        UsageError: the server has no such file.
    """
    from cdc.sources.mysql.second_opinion import second_opinion  # noqa: PLC0415 - a library that nothing else needs

    parsed = Dsn.parse(dsn)
    return second_opinion(parsed, _in_database(selection, parsed), file)


def _in_database(selection: Selection, dsn: Dsn) -> Selection:
    """A bare table name means one in the DSN's database."""
    return replace(selection, default_schema=dsn.database)
