"""The control plane beside the data plane: how a pipeline's slot is, and taking a pipeline away."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from cdc.errors import SlotBusy, UsageError
from cdc.sources.postgres.catalog import Connection
from cdc.sources.postgres.connection import Dsn
from cdc.sources.postgres.identity import Server, holder, read_slot
from cdc.sources.postgres.session import of_type, readable
from cdc.sources.postgres.state import SourceState

_STATUS = """
SELECT to_jsonb(s) || jsonb_build_object(
    'confirmed', (s.confirmed_flush_lsn - '0/0'::pg_lsn)::int8,
    'current', (head.lsn - '0/0'::pg_lsn)::int8,
    'current_text', head.lsn::text,
    'retained', greatest(0, head.lsn - s.restart_lsn)::int8,
    'xmin_age', age(s.catalog_xmin),
    'clock', extract(epoch FROM clock_timestamp())::float8)
FROM pg_replication_slots s,
     (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_flush_lsn() END) head(lsn)
WHERE s.slot_name = %s
"""

# What keeps restart_lsn where it is: the oldest transaction that has an xid, open or prepared.
_PIN = """
SELECT what, seconds FROM (
    SELECT format('transaction %%s of PID %%s (%%s, %%s)', a.backend_xid, a.pid, a.state,
                  coalesce(nullif(a.application_name, ''), 'unnamed')) AS what,
           extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds
    FROM pg_stat_activity a WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_backend_pid()
    UNION ALL
    SELECT format('prepared transaction %%L', p.gid), extract(epoch FROM clock_timestamp() - p.prepared)::float8
    FROM pg_prepared_xacts p
) pins WHERE seconds > %s ORDER BY seconds DESC LIMIT 1
"""
_PIN_AFTER = 10.0  # seconds

# Before PostgreSQL 15 the begin and the end of transactions that concern nobody come as well: only rows count.
_PEEK = """
SELECT 1 FROM pg_logical_slot_peek_binary_changes(%s, NULL, %s, 'proto_version', '1', 'publication_names', %s)
WHERE get_byte(data, 0) IN (ascii('I'), ascii('U'), ascii('D'), ascii('T')) LIMIT 1
"""
_PEEK_CHANGES = 1000
_PEEK_FOR = 5  # seconds
_LINGERS_FOR = 2.0  # seconds


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """A pipeline's slot as the server sees it.

    Attributes:
        slot: its name.
        exists: False if there is no such slot, and then nothing else is known.
        active: somebody reads from it.
        holder: who, in words.
        wal_status: reserved, extended, unreserved or lost.
        invalidation_reason: why it is lost, from PostgreSQL 17 on.
        failover: standbys may keep a copy of it; None before PostgreSQL 17, which does not know that.
        confirmed, current: LSNs: what was acknowledged, and the end of the log.
        lag_bytes: between the two.
        retained_bytes: WAL that the server keeps for the slot.
        safe_bytes: how much more may be written before the slot is in danger; None without a limit.
        catalog_xmin_age: transactions since the oldest whose catalog rows the slot keeps.
        pinned_by: what keeps the server from letting go of more WAL, in words.
        clock: the server's, in seconds since the Unix epoch.
    """

    slot: str
    exists: bool
    active: bool = False
    holder: str | None = None
    wal_status: str | None = None
    invalidation_reason: str | None = None
    failover: bool | None = None
    confirmed: str | None = None
    current: str | None = None
    lag_bytes: int = 0
    retained_bytes: int = 0
    safe_bytes: int | None = None
    catalog_xmin_age: int | None = None
    pinned_by: str | None = None
    clock: float = 0.0

    def lines(self) -> dict[str, str]:
        """The same for people."""
        return {
            "slot": f"{self.slot}: {self._condition()}",
            "retained WAL": f"{self.retained_bytes:,} bytes"
            + (f", {self.safe_bytes:,} more until the slot is in danger" if self.safe_bytes is not None else ""),
            "pinned by": self.pinned_by or "nothing",
            "catalog xmin age": str(self.catalog_xmin_age or 0),
        }

    @property
    def problem(self) -> str | None:
        """Why the pipeline cannot go on with it, or soon could not (A-01, O41)."""
        if not self.exists:
            return f"The replication slot {self.slot} is missing."
        if self.wal_status == "lost":
            return f"The server has let go of the log that the slot {self.slot} needs."
        if self.wal_status == "unreserved":
            return (
                f"The slot {self.slot} is beyond max_slot_wal_keep_size: at its next checkpoint the server may let go "
                "of the log that it needs."
            )
        return None

    def _condition(self) -> str:
        if not self.exists:
            return "missing"
        reason = f" ({self.invalidation_reason})" if self.invalidation_reason else ""
        used = f"read by {self.holder}" if self.active else "nobody reads from it"
        return f"{self.wal_status}{reason}, {used}"


@readable()
def slot_status(connection: Connection, slot: str) -> SlotStatus:
    """How a slot is now."""
    row = connection.execute(_STATUS, (slot,)).fetchone()
    if row is None:
        return SlotStatus(slot, exists=False)
    found = of_type(row[0], dict)
    pin = connection.execute(_PIN, (_PIN_AFTER,)).fetchone()
    return SlotStatus(
        slot=slot,
        exists=True,
        active=found["active"],
        holder=holder(connection, slot) if found["active"] else None,
        wal_status=found["wal_status"],
        invalidation_reason=found.get("invalidation_reason"),
        failover=found.get("failover"),
        confirmed=found["confirmed_flush_lsn"],
        current=found["current_text"],
        lag_bytes=max(0, found["current"] - (found["confirmed"] or 0)),
        retained_bytes=found["retained"] or 0,
        safe_bytes=found["safe_wal_size"],
        catalog_xmin_age=found["xmin_age"],
        pinned_by=f"{pin[0]}, for {pin[1]:.0f} s" if pin is not None else None,
        clock=found["clock"],
    )


@readable()
def slot_has_backlog(connection: Connection, slot: str, publications: Sequence[str]) -> bool:
    """Whether the log has changes for a slot that nobody reads from; nothing is taken by that (O27).

    The walsender of a process that was just killed has the slot for a moment (A-10), and so has who else looks at it.
    """
    listed = ",".join(sql.Identifier(name).as_string(connection) for name in publications)
    until = time.monotonic() + _LINGERS_FOR
    while True:
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL statement_timeout = {_PEEK_FOR * 1000}")
                row = connection.execute(_PEEK, (slot, _PEEK_CHANGES, listed)).fetchone()
        except psycopg.errors.QueryCanceled:
            return True  # there is more than can be read in that time
        except psycopg.errors.ObjectInUse:
            if time.monotonic() > until:
                return False  # somebody reads it
            time.sleep(0.05)
            continue
        return row is not None


@readable()
def made_by(connection: Connection, name: str) -> dict[str, sql.Composed]:
    """The slot and the publications of a pipeline, in words, each with the statement that removes it (A-20, E-14).

    Raises:
        SlotBusy: the pipeline runs.
    """
    slot = f"cdc_{name}"
    made = {}
    found = read_slot(connection, slot)
    database = connection.execute("SELECT oid::text FROM pg_database WHERE datname = current_database()").fetchone()
    if found is not None and found.plugin == "pgoutput" and database is not None and found.database == database[0]:
        active = connection.execute("SELECT active FROM pg_replication_slots WHERE slot_name = %s", (slot,)).fetchone()
        if active is not None and active[0]:
            raise SlotBusy(
                f"Replication slot {slot!r} is in use by {holder(connection, slot)}.", hint="Stop the pipeline first."
            )
        made[f"replication slot {slot}"] = sql.SQL("SELECT pg_drop_replication_slot({})").format(sql.Literal(slot))
    for publication, comment in _publications(connection, slot).items():
        # Ours carry the pipeline's name and a random number as their comment.
        if comment is not None and comment.startswith(f"{name} "):
            statement = sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(publication))
            made[f"publication {publication}"] = statement
    return made


@readable()
def refuse_other(dsn: Dsn, connection: Connection, server: Server, state: SourceState) -> None:
    """Raise UsageError for a database that is not the one of a state, or has a later pipeline of its name (O44)."""
    comments = [comment for comment in _publications(connection, state.slot).values() if comment is not None]
    if (server.system, server.database) != (state.system, state.database):
        what = f"The target does not follow {dsn}, but another server or database."
    elif comments and state.pipeline not in comments:
        what = f"The slot {state.slot!r} on {dsn} belongs to another target: it was made later, under the same name."
    else:
        return
    raise UsageError(what, hint="Nothing was removed. Name the source and the target of one pipeline.")


def _publications(connection: Connection, slot: str) -> dict[str, str | None]:
    """The publications that go with a slot, each with its comment."""
    rows = connection.execute(
        "SELECT pubname::text, obj_description(oid, 'pg_publication') FROM pg_publication WHERE pubname = ANY(%s)",
        ([slot, f"{slot}_inserts"],),
    ).fetchall()
    return {str(name): None if comment is None else str(comment) for name, comment in rows}
