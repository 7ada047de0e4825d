"""PostgreSQL: the WAL through logical decoding (pgoutput), and what was there before it through COPY."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import asdict

from cdc.errors import DecodeError, UsageError
from cdc.findings import Finding
from cdc.model.parts import Digest
from cdc.model.schema import TableSchema
from cdc.selection import Selection
from cdc.source import Begin, SourceStatus
from cdc.sources.postgres.admin import slot_status, teardown
from cdc.sources.postgres.catalog import user_tables
from cdc.sources.postgres.check import check
from cdc.sources.postgres.connection import Dsn, connect, mapped_errors
from cdc.sources.postgres.digest import digest
from cdc.sources.postgres.observer import PostgresObserver
from cdc.sources.postgres.position import lsn, parse_lsn, write_lsn
from cdc.sources.postgres.session import UNENDING
from cdc.sources.postgres.source import PostgresSource, Settings
from cdc.sources.postgres.state import NEVER, SourceState, TableState
from cdc.sources.postgres.tail import TailSource


def source_factory(
    dsn: str, *, name: str, selection: Selection, include_keyless: bool, workers: int, budget: int, notes: bool = False
) -> Callable[[], PostgresSource]:
    """Check a DSN's form and return what opens the source; raises UsageError."""
    parsed = Dsn.parse(dsn)
    settings = Settings(name, f"cdc_{name}", selection, include_keyless, workers, budget, notes)
    readers: set[int] = set()
    return lambda: PostgresSource(parsed, settings, readers=readers)


def make_observer(dsn: str, *, name: str) -> PostgresObserver:
    """Somebody who looks at the source beside a pipeline."""
    return PostgresObserver(Dsn.parse(dsn), f"cdc {name} observer")


def digest_tables(dsn: str, selection: Selection) -> dict[TableSchema, Digest]:
    """The digest of each table that a pipeline of this selection follows, as they are now."""
    parsed = Dsn.parse(dsn)
    with connect(parsed, "cdc compare", UNENDING) as connection, mapped_errors(parsed):
        connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        tables = [table.schema for table in user_tables(connection) if selection.matches(table.schema.table)]
        return {schema: digest(connection, schema) for schema in tables}


def tail_factory(
    dsn: str, *, slot: str | None, selection: Selection, include_keyless: bool, budget: int, begin: Begin | None = None
) -> Callable[[], TailSource]:
    """Check a DSN's form and return what opens a source without a snapshot; raises UsageError."""
    parsed = Dsn.parse(dsn)
    if begin is not None and slot is None:
        raise UsageError(
            "PostgreSQL keeps no log to begin in but for a slot.",
            hint="--slot NAME keeps one from its first use on; --from then goes back as far as it was read.",
        )
    place = lsn(_lsn(begin.position)) if begin is not None and begin.position is not None else None
    name = slot or f"cdc_tail_{secrets.token_hex(4)}"
    settings = Settings("tail", name, selection, include_keyless, 1, budget, notes=True)
    return lambda: TailSource(parsed, settings, keep=slot is not None, begin=place)


def _lsn(text: str) -> int:
    try:
        return parse_lsn(text)
    except DecodeError as error:
        raise UsageError(error.message, hint="Write it as 0/16D3748, or a time as 2024-12-31T23:59:59Z.") from error


def check_source(dsn: str, selection: Selection) -> list[Finding]:
    """Everything that would stop replication from here, each with its fix; changes nothing."""
    parsed = Dsn.parse(dsn)
    with connect(parsed, "cdc check") as connection, mapped_errors(parsed):
        return check(connection, parsed, selection)


def source_status(dsn: str, name: str, state: str | None) -> SourceStatus:
    """How the pipeline's slot is; the slot itself knows how far the pipeline is."""
    parsed = Dsn.parse(dsn)
    with connect(parsed, "cdc status") as connection, mapped_errors(parsed):
        slot = slot_status(connection, f"cdc_{name}")
    return SourceStatus(
        kind="slot",
        healthy=slot.exists and slot.wal_status != "lost",
        lag_bytes=slot.lag_bytes if slot.exists else None,
        details=asdict(slot),
        lines=slot.lines(),
    )


def table_states(state: str) -> dict[str, str]:
    """Per table of a checkpoint's state: copying, or streaming from the LSN of its snapshot on."""
    return {
        str(table.schema.table): _said(table) for table in SourceState.load(state).tables.values() if table.followed
    }


def _said(table: TableState) -> str:
    if not table.copied:
        return "copying" if table.start != NEVER else "waiting"
    return f"streaming since {write_lsn(table.start)}"


def teardown_source(dsn: str, name: str) -> list[str]:
    """Remove what the pipeline made on the source; says what that was."""
    parsed = Dsn.parse(dsn)
    with connect(parsed, "cdc teardown") as connection, mapped_errors(parsed):
        return teardown(connection, name)
