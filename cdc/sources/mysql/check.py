"""Everything that would stop replication from a server, or make it less than exact, each with its fix."""

from __future__ import annotations

from collections.abc import Iterator

from cdc.errors import CdcError, Unavailable
from cdc.findings import Finding, Severity, name_clashes
from cdc.selection import Selection
from cdc.sources.mysql.catalog import SYSTEM_SCHEMAS, Table, selected, user_tables
from cdc.sources.mysql.connection import Connection, reads_answers
from cdc.sources.mysql.identity import has_gtids, log_filters, log_now
from cdc.sources.mysql.select import quoted_table

_LEAST_RETENTION = 86400  # seconds

_CASCADES = """
SELECT r.constraint_schema, r.table_name, r.constraint_name, r.referenced_table_name, r.update_rule, r.delete_rule
FROM information_schema.referential_constraints r
WHERE r.update_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT') OR r.delete_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT')
"""


@reads_answers
def check(connection: Connection, database: str, selection: Selection) -> list[Finding]:
    """All findings, the worst first."""
    findings = [*_settings(connection), *_rights(connection), *_tables(connection, database, selection)]
    order = list(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _settings(connection: Connection) -> Iterator[Finding]:
    if connection.variable("log_bin") != "ON":
        yield Finding(Severity.FATAL, "log_bin", "The server writes no binary log.", "log_bin = ON  # needs a restart")
        return
    wanted = {
        "binlog_format": ("ROW", Severity.FATAL, "Other formats log statements, not rows."),
        "binlog_row_image": ("FULL", Severity.WARNING, "It is followed, but stops at a default that is not certain."),
        "binlog_annotate_row_events": (
            "ON",
            Severity.NOTE,
            "Without whole rows, only its statement tells a REPLACE from an update of the key, which then stops.",
        ),
        "binlog_row_metadata": (
            "FULL",
            Severity.NOTE,
            "The log does not name columns; they are known from the statements that altered the table.",
        ),
    }
    for name, (good, severity, why) in wanted.items():
        value = connection.variable(name)
        if value is not None and value.upper() != good:
            fix = f"SET GLOBAL {name} = '{good}';  -- and in the server's configuration; sessions keep what they have"
            yield Finding(severity, name, f"It is {value}. {why}", fix)
    for option in _filters(connection):
        yield Finding(
            Severity.FATAL,
            "log filter",
            f"{option}: statements are filtered by the database in use, so that one on any table may be missing.",
            "Remove the option from the server's configuration.  -- needs a restart",
        )
    if connection.variable("lower_case_table_names") == "2":
        yield Finding(
            Severity.FATAL,
            "lower_case_table_names",
            "With 2 the log writes the name of a table in whatever case a statement has it.",
            "lower_case_table_names = 1 or 0  # as the server is set up anew",
        )
    if not has_gtids(connection):
        yield Finding(
            Severity.WARNING,
            "gtid_mode",
            "GTIDs are off: the pipeline can follow this one server only, not one that takes its place.",
            "SET GLOBAL gtid_mode = ON;  -- step by step, as the manual says",
        )
    seconds = connection.variable("binlog_expire_logs_seconds")
    if seconds is not None and 0 < int(seconds) < _LEAST_RETENTION:
        yield Finding(
            Severity.WARNING,
            "binlog_expire_logs_seconds",
            f"The log is kept for {seconds} seconds only: a pipeline that stands still for longer has to copy again.",
            "SET GLOBAL binlog_expire_logs_seconds = 604800;",
        )


def _filters(connection: Connection) -> list[str]:
    try:
        return log_filters(connection)
    except CdcError:  # a right is missing, of which `_rights` tells
        return []


def _rights(connection: Connection) -> Iterator[Finding]:
    who = str(connection.value("SELECT CURRENT_USER()"))
    user, _, host = who.rpartition("@")
    name = f"{connection.literal(user)}@{connection.literal(host)}"
    grants = " ".join(str(row[0]).upper() for row in connection.query("SHOW GRANTS"))
    # What a role brings is not listed with its name; whether it suffices shows when it is used.
    everything = "GRANT ALL PRIVILEGES ON *.*" in grants or "GRANT `" in grants
    if not everything and "REPLICATION SLAVE" not in grants and "REPLICATION REPLICA" not in grants:
        yield Finding(
            Severity.FATAL,
            f"user {user}",
            "The user may not read the log.",
            f"GRANT REPLICATION SLAVE ON *.* TO {name};",
        )
    try:
        log_now(connection)
        connection.query("SHOW BINARY LOGS")
    except Unavailable:  # a lost connection says nothing about rights
        raise
    except CdcError:
        word = "BINLOG MONITOR" if connection.version.flavor == "mariadb" else "REPLICATION CLIENT"
        yield Finding(
            Severity.FATAL, f"user {user}", "The user may not see where the log is.", f"GRANT {word} ON *.* TO {name};"
        )
    if not everything and "RELOAD" not in grants and "LOCK TABLES" not in grants:
        yield Finding(
            Severity.WARNING,
            f"user {user}",
            "The user may take no lock, which a copy needs for a moment to know its place in the log"
            + (" while there are writes." if connection.version.flavor == "mariadb" else "."),
            f"GRANT RELOAD ON *.* TO {name};  -- or LOCK TABLES on the databases",
        )


def _tables(connection: Connection, database: str, selection: Selection) -> Iterator[Finding]:
    everything = user_tables(connection, database)
    for pattern in selection.unmatched([table.name for table in everything]):
        yield Finding(Severity.FATAL, pattern, "No table matches this pattern.")
    tables = selected(everything, selection)
    if not tables:
        yield Finding(Severity.FATAL, "tables", "There is no table to replicate.")
    for table in tables:
        yield from _table(connection, table)
    yield from _cascades(connection, tables)
    yield from name_clashes(table.schema for table in tables)


def _table(connection: Connection, table: Table) -> Iterator[Finding]:
    subject = str(table.name)
    if table.trouble is not None:
        yield Finding(Severity.FATAL, subject, f"{table.trouble} --exclude leaves the table out.")
    try:
        connection.query(f"SELECT 1 FROM {quoted_table(table.name)} LIMIT 0")
    except Unavailable:
        raise
    except CdcError:
        yield Finding(
            Severity.FATAL, subject, "The user may not read it.", f"GRANT SELECT ON {quoted_table(table.name)} TO ...;"
        )
    if not table.schema.key:
        yield Finding(
            Severity.NOTE,
            subject,
            "It has no key: its rows are told apart by all of their values, which needs binlog_row_image = FULL.",
            f"ALTER TABLE {quoted_table(table.name)} ADD PRIMARY KEY (...);",
        )
    if not table.is_transactional:
        yield Finding(
            Severity.WARNING,
            subject,
            f"Its engine ({table.engine}) has no transactions: nobody can write to it while it is copied.",
            f"ALTER TABLE {quoted_table(table.name)} ENGINE = InnoDB;",
        )


def _cascades(connection: Connection, tables: list[Table]) -> Iterator[Finding]:
    """InnoDB carries cascades out below the log (B-26). From MySQL 9.6 on the server does it, and logs them."""
    if connection.version.flavor == "mysql" and connection.version.number >= (9, 6):
        return
    followed = {(table.name.schema, table.name.name) for table in tables}
    for schema, child, constraint, parent, on_update, on_delete in connection.query(_CASCADES):
        if (schema, child) in followed and schema not in SYSTEM_SCHEMAS:
            yield Finding(
                Severity.WARNING,
                f"{schema}.{child}",
                f"Foreign key {constraint} to {parent} changes its rows (UPDATE {on_update}, DELETE {on_delete}), "
                "and the server does not log that: such changes do not arrive.",
                "Let the application change the rows itself, or replace the rule by RESTRICT.",
            )
