"""The preflight: whatever would stop or harm replication, all of it at once. It only looks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from psycopg import sql

from cdc.errors import CdcError
from cdc.model.schema import TableName
from cdc.model.selection import Selection
from cdc.sources.findings import Finding, Severity, name_clashes
from cdc.sources.postgres.catalog import Connection, Table, user_tables
from cdc.sources.postgres.connection import Dsn, connect_replication, mapped_errors, run_command
from cdc.sources.postgres.keys import Obstacle
from cdc.sources.postgres.session import number, of_type, readable

FATAL, WARNING, NOTE = Severity.FATAL, Severity.WARNING, Severity.NOTE

_SLOTS_NEEDED = 2  # the pipeline's own, and a temporary one when a copy is made again
_LITTLE_WAL = 1 << 30
# Releases of May 2025 whose logical decoding fails with "invalid memory alloc request size".
_BROKEN = {130021, 140018, 150013, 160009, 170005}

# relkind or persistence -> why its rows never come through a slot
_NOT_REPLICATED = {
    "u": "an unlogged table: it writes no log",
    "f": "a foreign table: its rows are on another server",
    "v": "a view: it holds no rows",
    "m": "a materialized view: refreshing it is not logged as changes",
}


@readable()
def check(connection: Connection, dsn: Dsn, selection: Selection, *, include_keyless: bool = False) -> list[Finding]:
    """Everything that is to be said about a source, worst first."""
    findings = [
        *_server(connection),
        *_slots(connection),
        *_role(connection),
        *_replication_session(dsn),
        *_tables(connection, selection, include_keyless=include_keyless),
    ]
    order = [FATAL, WARNING, NOTE]
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _settings(connection: Connection, *names: str) -> dict[str, str]:
    found = connection.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", (list(names),)).fetchall()
    return {str(name): str(value) for name, value in found}


def _server(connection: Connection) -> Iterator[Finding]:
    settings = _settings(
        connection, "wal_level", "max_slot_wal_keep_size", "idle_replication_slot_timeout", "server_encoding"
    )
    if settings["wal_level"] != "logical":
        yield Finding(
            FATAL,
            "wal_level",
            f"wal_level is {settings['wal_level']!r}: the log does not say which rows changed.",
            "ALTER SYSTEM SET wal_level = 'logical';  -- then restart the server",
        )
    if connection.info.server_version in _BROKEN:
        yield Finding(
            WARNING,
            "server version",
            "This release fails in logical decoding with 'invalid memory alloc request size' under some loads.",
            "Update the server to its next minor release.",
        )
    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    if row is not None and row[0]:
        yield Finding(
            FATAL, "server", "This is a standby: publications cannot be made here.", "Give the DSN of the primary."
        )
    keep = int(settings["max_slot_wal_keep_size"])  # megabytes
    if keep < 0:
        yield Finding(
            WARNING,
            "max_slot_wal_keep_size",
            "Unlimited: a pipeline that is stopped for long fills the server's disk with WAL.",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';  -- what the disk can spare",
        )
    elif keep << 20 < _LITTLE_WAL:
        yield Finding(
            WARNING,
            "max_slot_wal_keep_size",
            f"Only {keep} MB: a slot that falls behind by more is lost, and everything must be copied again.",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';  -- what the disk can spare",
        )
    if settings.get("idle_replication_slot_timeout", "0") != "0":
        yield Finding(
            WARNING,
            "idle_replication_slot_timeout",
            f"A slot that nobody reads for {settings['idle_replication_slot_timeout']} s is lost.",
            "ALTER SYSTEM SET idle_replication_slot_timeout = 0;",
        )
    if settings["server_encoding"] == "SQL_ASCII":
        yield Finding(
            WARNING,
            "encoding",
            "The database is SQL_ASCII: it may hold bytes that are not UTF-8, at which replication stops.",
        )


def _slots(connection: Connection) -> Iterator[Finding]:
    limits = _settings(connection, "max_replication_slots", "max_wal_senders")
    row = connection.execute(
        "SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_stat_replication)"
    ).fetchone()
    slots, senders = of_type(row, tuple)
    for name, used, what in (("max_replication_slots", slots, "slot"), ("max_wal_senders", senders, "walsender")):
        free = number(limits[name]) - of_type(used, int)
        if free < 1:
            severity, message = FATAL, f"All {limits[name]} are taken: there is no free {what}."
        elif free < _SLOTS_NEEDED:
            severity, message = WARNING, f"Only one {what} is free; copying a table again needs another."
        else:
            continue
        wanted = int(limits[name]) + 5
        yield Finding(severity, name, message, f"ALTER SYSTEM SET {name} = {wanted};  -- then restart the server")


def _role(connection: Connection) -> Iterator[Finding]:
    row = connection.execute(
        """
        SELECT r.rolname, r.rolsuper, r.rolreplication,
               EXISTS (SELECT 1 FROM pg_roles m WHERE m.rolname IN ('rds_replication', 'rds_superuser')
                       AND pg_has_role(r.oid, m.oid, 'member')),
               current_database(), has_database_privilege(current_database(), 'CREATE')
        FROM pg_roles r WHERE r.rolname = current_user
        """
    ).fetchone()
    role, is_super, replicates, is_granted, database, may_create = of_type(row, tuple)
    name = _quoted(str(role))
    if not (is_super or replicates or is_granted):
        yield Finding(
            FATAL, f"role {role}", "The role may not start replication.", f"ALTER ROLE {name} WITH REPLICATION;"
        )
    if not may_create:
        yield Finding(
            FATAL,
            f"role {role}",
            "The role may not make a publication in this database.",
            f"GRANT CREATE ON DATABASE {_quoted(str(database))} TO {name};",
        )


def _replication_session(dsn: Dsn) -> Iterator[Finding]:
    """Whether pg_hba.conf and the role let a replication session in is found out by opening one."""
    try:
        with connect_replication(dsn, "cdc check") as connection, mapped_errors(dsn):
            run_command(connection, "IDENTIFY_SYSTEM")
    except CdcError as error:
        if error.retry and "FATAL:" not in str(error.__cause__):
            raise  # the connection was lost, which says nothing about what the server would have said
        yield Finding(
            FATAL,
            "replication connection",
            f"A replication session cannot be opened. {error.message}",
            f"host {dsn.parameters.get('dbname', 'all')} {dsn.parameters.get('user', 'all')} all scram-sha-256"
            "  # a line of pg_hba.conf that also serves logical replication",
        )


def _tables(connection: Connection, selection: Selection, *, include_keyless: bool) -> Iterator[Finding]:
    everything = user_tables(connection)
    tables = [table for table in everything if selection.matches(table.schema.table)]
    for pattern in selection.unmatched([table.schema.table for table in everything]):
        yield Finding(FATAL, pattern, "No table matches this pattern.")
    yield from _not_replicated(connection, selection)
    yield from (finding for _, finding in missing_rights(connection, tables))
    yield from name_clashes(table.schema for table in tables)
    usable = 0
    for table in tables:
        if not table.schema.columns:
            yield Finding(WARNING, str(table.schema.table), "It has no columns to replicate; it is left out.")
        elif table.obstacle is not None:
            yield _left_out(table.schema.table, table.obstacle)
            usable += include_keyless and not table.obstacle.is_of_inserts
        else:
            usable += 1
        if table.kind == "p":
            yield Finding(NOTE, str(table.schema.table), "Partitioned: its partitions arrive as one table.")
    if tables and not usable:
        yield Finding(FATAL, "tables", "None of the tables has a usable replica identity.")
    if not tables:
        yield Finding(FATAL, "tables", "There is no table to replicate.")


def _left_out(table: TableName, obstacle: Obstacle) -> Finding:
    why = f"{obstacle.message}: its changes cannot be followed. So it is left out."
    if not obstacle.is_of_inserts:
        why = (
            f"{obstacle.message}: published, its UPDATE and DELETE statements would fail, or could not be followed. So "
            "it is left out (--include-keyless follows its inserts and truncates)."
        )
    return Finding(WARNING, str(table), why, obstacle.fix)


def _not_replicated(connection: Connection, selection: Selection) -> Iterator[Finding]:
    found = connection.execute(
        """
        SELECT n.nspname, c.relname, CASE WHEN c.relkind = 'r' THEN c.relpersistence ELSE c.relkind END::text
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE (c.relkind IN ('f', 'v', 'm') OR (c.relkind IN ('r', 'p') AND c.relpersistence = 'u'))
          AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
        ORDER BY 1, 2
        """
    ).fetchall()
    for schema, relation, kind in found:
        table = TableName(str(schema), str(relation))
        if selection.matches(table):
            yield Finding(NOTE, str(table), f"Not replicated: {_NOT_REPLICATED[str(kind)]}.")


def missing_rights(connection: Connection, tables: Sequence[Table]) -> Iterator[tuple[TableName, Finding]]:
    """What the role may not do with some tables that is needed to publish and to copy them."""
    role = of_type(connection.execute("SELECT current_user").fetchone(), tuple)
    who = _quoted(str(role[0]))
    found = connection.execute(
        """
        SELECT c.oid::int8, has_schema_privilege(c.relnamespace, 'USAGE'),
               has_table_privilege(c.oid, 'SELECT'), pg_has_role(c.relowner, 'USAGE'),
               row_security_active(c.oid), pg_has_role(c.relowner, 'MEMBER'), c.relowner::regrole::text
        FROM pg_class c WHERE c.oid = ANY(%s::oid[])
        """,
        ([table.schema.identity for table in tables],),
    ).fetchall()
    by_oid = {table.schema.identity: table.schema.table for table in tables}
    for oid, may_use, may_read, owns, hidden, is_member, owner in found:
        table = by_oid[of_type(oid, int)]
        name = sql.Identifier(table.schema, table.name).as_string()
        if not may_use:
            fix = f"GRANT USAGE ON SCHEMA {_quoted(table.schema)} TO {who};"
            yield table, Finding(FATAL, str(table), "The role may not use its schema.", fix)
        if not may_read:
            yield table, Finding(FATAL, str(table), "The role may not read it.", f"GRANT SELECT ON {name} TO {who};")
        if not owns:
            message = "Only its owner may put it into a publication."
            fix = f"ALTER TABLE {name} OWNER TO {who};  -- or GRANT {owner} TO {who};"
            if is_member:  # whose membership is WITH INHERIT FALSE, or who is NOINHERIT (O49)
                message = "Only its owner may put it into a publication, whose rights the role has not inherited."
                is_by_grant = connection.info.server_version >= 160000
                fix = f"GRANT {owner} TO {who} WITH INHERIT TRUE;" if is_by_grant else f"ALTER ROLE {who} INHERIT;"
            yield table, Finding(FATAL, str(table), message, fix)
        if hidden:
            message = "Row-level security would hide rows from the copy."
            yield table, Finding(FATAL, str(table), message, f"ALTER ROLE {who} WITH BYPASSRLS;")


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string()
