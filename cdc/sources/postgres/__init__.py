"""PostgreSQL: the WAL through logical decoding (pgoutput), and what was there before it through COPY."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from psycopg import sql

from cdc.errors import DecodeError, UsageError
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
from cdc.sources.postgres.admin import made_by, refuse_other, slot_has_backlog, slot_status
from cdc.sources.postgres.catalog import user_tables
from cdc.sources.postgres.connection import Dsn, connect, connect_replication, mapped_errors
from cdc.sources.postgres.identity import identify
from cdc.sources.postgres.position import parse_lsn
from cdc.sources.postgres.session import UNENDING
from cdc.sources.postgres.state import SourceState, standings

if TYPE_CHECKING:
    from cdc.sources.postgres.observer import PostgresObserver
    from cdc.sources.postgres.source import PostgresSource
    from cdc.sources.postgres.tail import TailSource
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
) -> Callable[[], PostgresSource]:
    """Check a DSN's form and return what opens the source; raises UsageError."""
    from cdc.sources.postgres.source import PostgresSource, Settings

    parsed = Dsn.parse(dsn)
    settings = Settings(name, f"cdc_{name}", options, workers, budget, notes, only_looks, set_apart)
    readers: set[int] = set()
    return lambda: PostgresSource(parsed, settings, readers=readers)


def database_of(dsn: str) -> str:
    """The database that a DSN means; raises UsageError."""
    return Dsn.parse(dsn).database


def make_observer(dsn: str, *, name: str) -> PostgresObserver:
    """Somebody who looks at the source beside a pipeline."""
    from cdc.sources.postgres.observer import PostgresObserver

    return PostgresObserver(Dsn.parse(dsn), f"cdc {name} observer")


def digest_tables(dsn: str, selection: Selection) -> dict[TableSchema, Digest]:
    """The digest of each table that a pipeline of this selection follows, as they are now."""
    from cdc.sources.postgres.digest import digest

    parsed = Dsn.parse(dsn)
    with connect(parsed, "cdc compare", UNENDING) as connection, mapped_errors(parsed):
        connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        tables = [table.schema for table in user_tables(connection) if selection.matches(table.schema.table)]
        return {schema: digest(connection, schema) for schema in tables}


def tail_factory(
    dsn: str, *, slot: str | None, selection: Selection, include_keyless: bool, budget: int, begin: Moment | None = None
) -> Callable[[], TailSource]:
    """Check a DSN's form and return what opens a source without a snapshot; raises UsageError."""
    from cdc.sources.postgres.source import Settings
    from cdc.sources.postgres.tail import TailSource

    parsed = Dsn.parse(dsn)
    if begin is not None and slot is None:
        raise UsageError(
            "PostgreSQL keeps its log only for a slot.",
            hint="--slot NAME makes a slot when it is first used. --from can go back as far as that slot was read.",
        )
    if begin is not None and begin.time is None and begin.lsn is None:
        raise UsageError(
            f"{begin} is not a position in a log of PostgreSQL.",
            hint="Write it as 0/16D3748, or a time as 2024-12-31T23:59:59Z.",
        )
    name = slot or f"cdc_tail_{secrets.token_hex(4)}"
    settings = Settings("tail", name, KeptOptions(selection, include_keyless), 1, budget, notes=True, only_looks=True)
    return lambda: TailSource(parsed, settings, keep=slot is not None, begin=begin)


def check_source(dsn: str, selection: Selection) -> list[Finding]:
    """Everything that would stop replication from here, each with its fix; changes nothing."""
    from cdc.sources.postgres.check import check

    parsed = Dsn.parse(dsn)
    with connect(parsed, "cdc check") as connection, mapped_errors(parsed):
        return check(connection, parsed, selection)


def makes(name: str, *, keyless: bool) -> list[str]:
    """What a pipeline of this name makes on the server, in words; `keyless` if it follows a table without a key."""
    publications = [f"publication cdc_{name}", *([f"publication cdc_{name}_inserts"] if keyless else [])]
    return [f"replication slot cdc_{name}", *publications]


def source_status(dsn: str, name: str, state: str | None, position: Position | None) -> SourceStatus:
    """How the pipeline's slot is, and whether a run could go on here."""
    parsed = Dsn.parse(dsn)
    with connect(parsed, "cdc status") as connection, mapped_errors(parsed):
        slot = slot_status(connection, f"cdc_{name}")
        refusal, has_backlog = None, False
        if state is not None and position is not None:
            from cdc.sources.postgres.witness import find_refusal

            known = SourceState.load(state)
            refusal = find_refusal(parsed, connection, known, position)
            can_go_on = refusal is None and slot.problem is None
            has_backlog = can_go_on and slot_has_backlog(connection, slot.slot, list(known.publications))
    return SourceStatus(
        kind="slot",
        problem=slot.problem or (f"A run would end: {refusal.message} {refusal.hint}" if refusal is not None else None),
        lag_bytes=slot.lag_bytes if slot.exists else None,
        has_backlog=has_backlog,
        details=asdict(slot) | {"refused": refusal.message if refusal is not None else None},
        lines=slot.lines(),
    )


def position_now(dsn: str) -> str:
    """The LSN up to which everything was committed that somebody sees now."""
    with closing(make_observer(dsn, name="wait")) as observer, observer.look() as look:
        return look.place.until.text


def has_reached(checkpoint: Checkpoint, wanted: str) -> bool:
    """Whether a checkpoint is at an LSN, or behind it; raises UsageError if that is not one."""
    try:
        return parse_lsn(wanted.strip()) <= checkpoint.position.order
    except DecodeError as error:
        raise UsageError(error.message, hint="Write it as pg_current_wal_lsn() does: 0/16B3748.") from error


def pipeline_of(state: str) -> str:
    """The name of the pipeline that a checkpoint's state belongs to."""
    return SourceState.load(state).slot.removeprefix("cdc_")


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
    """What a pipeline made on the source; raises UsageError if that is not what a checkpoint's state belongs to."""
    parsed = Dsn.parse(dsn)
    with connect(parsed, "cdc teardown") as connection, mapped_errors(parsed):
        if state is not None:
            with connect_replication(parsed, "cdc teardown") as replication:
                refuse_other(parsed, connection, identify(replication, connection), SourceState.load(state))
        made = made_by(connection, name)
    return [Removal(what, partial(_execute, parsed, statement)) for what, statement in made.items()]


def _execute(dsn: Dsn, statement: sql.Composed) -> None:
    with connect(dsn, "cdc teardown") as connection, mapped_errors(dsn):
        connection.execute(statement)
