"""Everything that would stop replication from a server, or make it less than exact, each with its fix."""

from __future__ import annotations

from collections.abc import Iterator

from cdc.errors import CdcError, Unavailable
from cdc.model.selection import Selection
from cdc.sources.findings import Finding, Severity, name_clashes
from cdc.sources.mysql.catalog import SYSTEM_SCHEMAS, Table, selected, user_tables
from cdc.sources.mysql.connection import Connection, reads_answers
from cdc.sources.mysql.engines import engine_trouble
from cdc.sources.mysql.identity import has_gtids, log_filters, log_now
from cdc.sources.mysql.rights import rights_of
from cdc.sources.mysql.select import quoted, quoted_table

_LEAST_RETENTION = 86400  # seconds

_CASCADES = """
SELECT r.constraint_schema, r.table_name, r.constraint_name, r.referenced_table_name, r.update_rule, r.delete_rule
FROM information_schema.referential_constraints r
WHERE r.update_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT') OR r.delete_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT')
"""


@reads_answers
def check(connection: Connection, database: str, selection: Selection) -> list[Finding]:
    """All findings, the worst first."""
    everything = user_tables(connection, database)
    tables = selected(everything, selection)
    findings = [
        *_settings(connection),
        *_rights(connection, database, selection, tables),
        *_tables(connection, selection, everything, tables),
    ]
    order = list(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _settings(connection: Connection) -> Iterator[Finding]:
    if connection.variable("log_bin") != "ON":
        yield Finding(Severity.FATAL, "log_bin", "The server writes no binary log.", "log_bin = ON  # needs a restart")
        return
    wanted = {
        "binlog_format": ("ROW", Severity.FATAL, "Other formats log statements, not rows."),
        "binlog_row_image": (
            "FULL",
            Severity.WARNING,
            "It is followed, but a table is compared again wherever what was left out is not certain.",
        ),
        "binlog_annotate_row_events": (
            "ON",
            Severity.NOTE,
            "Without whole rows, only its statement tells a REPLACE from an update: tables are then compared again.",
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
            f"{option}: statements are filtered by the database in use: statements on any table may be missing.",
            "Remove the option from the server's configuration.  -- needs a restart",
        )
    if connection.variable("lower_case_table_names") == "2":
        yield Finding(
            Severity.FATAL,
            "lower_case_table_names",
            "With 2 the log writes the name of a table in whatever case a statement has it.",
            "lower_case_table_names = 1 or 0  # when the server is set up again",
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
    except CdcError:  # a right is missing, which `_rights` reports
        return []


def _rights(connection: Connection, database: str, selection: Selection, tables: list[Table]) -> Iterator[Finding]:
    """What the user lacks, of the rights that docs/operating.md lists (M22)."""
    who = str(connection.value("SELECT CURRENT_USER()"))
    user, _, host = who.rpartition("@")
    name, subject = f"{connection.literal(user)}@{connection.literal(host)}", f"user {user}"
    rights, is_mariadb = rights_of(connection), connection.version.flavor == "mariadb"
    if not (rights.may("REPLICATION SLAVE") or rights.may("REPLICATION REPLICA")):
        fix = f"GRANT REPLICATION SLAVE ON *.* TO {name};"
        yield Finding(Severity.FATAL, subject, "The user may not read the log.", fix)
    try:
        log_now(connection)
        connection.query("SHOW BINARY LOGS")
    except Unavailable:  # a lost connection says nothing about rights
        raise
    except CdcError:
        word = "BINLOG MONITOR" if is_mariadb and connection.version.number >= (10, 5) else "REPLICATION CLIENT"
        yield Finding(
            Severity.FATAL, subject, "The user may not see where the log is.", f"GRANT {word} ON *.* TO {name};"
        )
    names_all = not selection.include or any(set(pattern) & set("*?") for pattern in selection.include)
    for schema in sorted({table.name.schema for table in tables} | ({database} if database else set())):
        if not rights.may("LOCK TABLES", schema):
            steady = all(table.is_transactional for table in tables if table.name.schema == schema)
            is_needed = not (is_mariadb and steady)
            yield Finding(
                Severity.FATAL if is_needed else Severity.WARNING,
                subject,
                f"The user may not lock tables of {schema} for a moment, by which a copy knows its place in the log"
                + ("." if is_needed else " while there are many writes."),
                f"GRANT LOCK TABLES ON {quoted(schema)}.* TO {name};",
            )
        if names_all and not rights.may("SELECT", schema):
            yield Finding(
                Severity.WARNING,
                subject,
                f"The user may read single tables of {schema} only: cdc cannot see which others there are.",
                f"GRANT SELECT ON {quoted(schema)}.* TO {name};  -- if others are meant, too",
            )
    if not is_mariadb and connection.version.number >= (8, 0) and not rights.may("XA_RECOVER_ADMIN"):
        yield Finding(
            Severity.NOTE,
            subject,
            "The user may not see whether a distributed transaction is prepared when a copy begins. If one is "
            "committed later, all tables are compared with the source.",
            f"GRANT XA_RECOVER_ADMIN ON *.* TO {name};  -- if there are any",
        )


def _tables(
    connection: Connection, selection: Selection, everything: list[Table], tables: list[Table]
) -> Iterator[Finding]:
    for pattern in selection.unmatched([table.name for table in everything]):
        yield Finding(
            Severity.FATAL,
            pattern,
            "No table matches this pattern that the user may read.",
            "GRANT SELECT ON ... TO ...;  -- if there is such a table",
        )
    if not tables:
        yield Finding(Severity.FATAL, "tables", "There is no table to replicate.")
    for table in tables:
        yield from _table(table)
    yield from _cascades(connection, tables)
    yield from name_clashes(table.schema for table in tables)


def _table(table: Table) -> Iterator[Finding]:
    subject = str(table.name)
    if engine_trouble(table.engine) is not None:
        yield Finding(Severity.WARNING, subject, f"{table.trouble} The table is left out.")
    elif table.trouble is not None:
        yield Finding(
            Severity.FATAL,
            subject,
            f"{table.trouble} --exclude leaves the table out.",
            f"GRANT SELECT ON {quoted_table(table.name)} TO ...;" if "may not read" in table.trouble else None,
        )
    if not table.schema.key:
        yield Finding(
            Severity.NOTE,
            subject,
            "It has no key: its rows are distinguished by all of their values, which needs binlog_row_image = FULL.",
            f"ALTER TABLE {quoted_table(table.name)} ADD PRIMARY KEY (...);",
        )
    if table.trouble is None and not table.is_transactional:
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
