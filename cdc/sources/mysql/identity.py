"""Proof that a server and a checkpoint belong together. Whatever does not fit stops the pipeline."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from cdc.errors import LogLost, OperatorNeeded, SourceBehind, SourceChanged, UsageError
from cdc.sources.mysql.connection import Connection, Dsn, reads_answers
from cdc.sources.mysql.gtid import MariaDbGtids, MySqlGtids
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.state import SourceState

_RESYNC = "Run `cdc teardown SOURCE TARGET`, remove the target, and start again: what lies between is lost."


@dataclass(frozen=True, slots=True)
class Log:
    """A place in a server's log.

    Attributes:
        file, offset: where.
        gtids: everything up to there; empty if the server has no GTIDs.
    """

    file: str
    offset: int
    gtids: str


@reads_answers
def server_identity(connection: Connection) -> str:
    """What tells a server from any other: MySQL's UUID; MariaDB has none, so where and what it is (B-02).

    A server that was restored from a backup elsewhere has another server_id, or breaks replication by its own fault.
    """
    if connection.version.flavor == "mysql":
        return str(connection.value("SELECT @@server_uuid"))
    server_id, domain, uid = connection.query("SELECT @@server_id, @@gtid_domain_id, @@hostname")[0]
    return f"{server_id}/{domain}/{uid}"


@reads_answers
def has_gtids(connection: Connection) -> bool:
    """Whether every transaction has a GTID: always on MariaDB, by setting on MySQL."""
    return connection.version.flavor == "mariadb" or (connection.variable("gtid_mode") or "OFF").upper() == "ON"


@reads_answers
def log_now(connection: Connection, place: tuple[str, int] | None = None) -> Log:
    """Where the log ends now, or which GTIDs lie before another place of it.

    Raises:
        UsageError: the server has no log.
    """
    if place is None:
        row = _log_status(connection)
        if not row:
            raise UsageError(f"{connection.dsn} writes no binary log.", hint="Start the server with --log-bin.")
        place = str(row["file"]), int(row["position"])
        if connection.version.flavor == "mysql":
            gtids = str(row.get("executed_gtid_set", "")) if has_gtids(connection) else ""
            return Log(*place, str(MySqlGtids.parse(gtids)))
    gtids = connection.value("SELECT BINLOG_GTID_POS(%s, %s)", *place)
    return Log(*place, str(MariaDbGtids.parse(gtids or "")))


def _log_status(connection: Connection) -> dict[str, Any]:
    if connection.version.flavor == "mysql" and connection.version.number >= (8, 2):
        return connection.record("SHOW BINARY LOG STATUS")  # the other is gone in 8.4 (B-15)
    return connection.record("SHOW MASTER STATUS")


@reads_answers
def log_filters(connection: Connection) -> list[str]:
    """The options that keep databases out of the log.

    Whatever databases they name: a statement is filtered by the database that its session uses, so that under any of
    them an ALTER or a TRUNCATE of any table can be missing.
    """
    status = _log_status(connection)
    names = ("binlog_do_db", "binlog_ignore_db")
    return [f"{name} = {status[name]}" for name in names if status.get(name)]


@reads_answers
def log_files(connection: Connection) -> dict[str, int]:
    """The files of the log, oldest first, each with its size."""
    return {str(row[0]): int(row[1]) for row in connection.query("SHOW BINARY LOGS")}


def file_bases(files: dict[str, int], known: LogPlace) -> dict[str, int]:
    """The order of the first byte of each file from that of a known place on."""
    names = list(files)
    bases, base = {known.file: known.base}, known.base
    for name in names[names.index(known.file) :] if known.file in files else []:
        bases[name] = base
        base += files[name]
    return bases


def place_of(files: dict[str, int], known: LogPlace, file: str, offset: int) -> LogPlace:
    """Where a place is, counted on from one that is known."""
    return LogPlace(file, file_bases(files, known).get(file, known.order), offset)


def refuse_filters(connection: Connection) -> None:
    """The log has been begun to be filtered since the copy."""
    if filters := log_filters(connection):
        raise OperatorNeeded(
            f"{connection.dsn} keeps databases out of its log ({', '.join(filters)}): changes may be missing.",
            hint="Remove the option and restart the server. Then copy again. " + _RESYNC,
        )


@reads_answers
def verify_server(connection: Connection, state: SourceState) -> bool:
    """Refuse another database, and a server whose log does not go on from the checkpoint.

    Returns:
        Whether the server is the one that was followed last.

    Another server is accepted if GTIDs show that it has everything that the target has (B-03, B-04).

    Raises:
        SourceBehind: it may have all of that soon.
        SourceChanged: it has not, or nothing shows that it has.
        LogLost: it has thrown away what comes next.
    """
    dsn = connection.dsn
    _verify_database(dsn, state)
    if connection.version.flavor != state.flavor:
        raise SourceChanged(
            f"{dsn} runs {connection.version}, the target follows another kind of server.", hint=_RESYNC
        )
    same = server_identity(connection) == state.server
    if bool(state.gtids) and not has_gtids(connection):
        raise SourceChanged(
            f"{dsn} has no GTIDs any more, but the target follows it by GTIDs.", hint="Turn gtid_mode on."
        )
    if not state.gtids and not same:
        raise SourceChanged(
            f"{dsn} is another server than the one that was followed. Without GTIDs, a position in one server's log "
            "cannot be found in another's.",
            hint="Point the DSN at the server that was followed. If that is gone: " + _RESYNC,
        )
    if state.gtids and connection.version.flavor == "mysql":
        _verify_sets(connection, state)
    elif state.gtids and not same:
        _verify_domains(connection, state)
    if same:
        _verify_files(connection, state)
    return same


def _verify_database(dsn: Dsn, state: SourceState) -> None:
    """A log is of a whole server, and goes on for any of its databases: the options of the run show which one is meant.
    All of them in the place of one, or one in the place of all, is another choice of tables."""
    followed = state.options.selection.default_schema if state.options is not None else ""
    if dsn.database and followed and dsn.database.lower() != followed.lower():  # the server may know them so
        raise SourceChanged(
            f"{dsn} is another database than {followed!r}, which the target follows.",
            hint="Check the database name in the DSN.",
        )


def _verify_sets(connection: Connection, state: SourceState) -> None:
    ours = MySqlGtids.parse(state.gtids)
    executed = MySqlGtids.parse(str(connection.value("SELECT @@global.gtid_executed")))
    purged = MySqlGtids.parse(str(connection.value("SELECT @@global.gtid_purged")))
    if missing := ours.without(executed):
        if _may_come(missing, executed):
            raise _behind(connection, str(missing))
        raise SourceChanged(
            f"{connection.dsn} does not have the transactions {missing}, which the target has.",
            hint="It has another history, or was reset. Point the DSN at a server that has them. If they are lost for "
            "good: " + _RESYNC,
        )
    if lost := purged.without(ours):
        raise LogLost(
            f"{connection.dsn} has purged the transactions {lost} from its log, which the target does not have.",
            hint="Keep the log for longer (binlog_expire_logs_seconds). " + _RESYNC,
        )


def _may_come(missing: MySqlGtids, executed: MySqlGtids) -> bool:
    """Whether a replica can get transactions in time: it knows where they are from, and has some of them."""
    return all(source in executed.intervals for source in missing.intervals)


def _verify_domains(connection: Connection, state: SourceState) -> None:
    """MariaDB: the server has the last transaction of each domain, or will have it, or has gone another way since."""
    known = dict[tuple[int, int], int]()
    for variable in ("gtid_binlog_state", "gtid_slave_pos"):
        for word in filter(None, str(connection.value(f"SELECT @@global.{variable}") or "").split(",")):
            domain, server, number = map(int, word.split("-"))
            known[domain, server] = max(number, known.get((domain, server), 0))
    for domain, (server, number) in MariaDbGtids.parse(state.gtids).domains.items():
        if known.get((domain, server), 0) >= number:
            continue
        last = max((there for (of, _), there in known.items() if of == domain), default=0)
        missing = f"{domain}-{server}-{number}"
        if last < number:
            raise _behind(connection, missing)
        raise SourceChanged(
            f"{connection.dsn} does not have the transaction {missing}, which the target has. It has later ones.",
            hint="It has another history. Point the DSN at a server that has it. If it is lost for good: " + _RESYNC,
        )


def _behind(connection: Connection, missing: str) -> SourceBehind:
    return SourceBehind(
        f"{connection.dsn} does not have {missing} yet. The target has followed another server up to there.",
        hint="It is a replica that is behind: cdc tries again until it has caught up. If nothing replicates to it, "
        "point the DSN at a server that has these transactions.",
    )


def _verify_files(connection: Connection, state: SourceState) -> None:
    """The same server still has the file, and it is as long as it was: RESET MASTER begins again with small ones."""
    files = log_files(connection)
    place = state.place
    if place.file not in files:
        raise LogLost(
            f"{connection.dsn} has no log file {place.file} any more, at whose byte {place.offset} the target is.",
            hint="It was purged (binlog_expire_logs_seconds, expire_logs_days) or the log was reset. " + _RESYNC,
        )
    if files[place.file] < place.offset:
        raise SourceChanged(
            f"{connection.dsn} has {files[place.file]} bytes of {place.file}, of which the target has {place.offset}.",
            hint="The log was reset, or the server was restored to an earlier state. " + _RESYNC,
        )
    if state.flavor == "mariadb" and state.gtids and place.offset:
        _verify_gtid_of_place(connection, state)


def _verify_gtid_of_place(connection: Connection, state: SourceState) -> None:
    """MariaDB says which GTIDs lie before a byte of a file: other ones if the log was begun again (B-02)."""
    place = state.place
    found = connection.value("SELECT BINLOG_GTID_POS(%s, %s)", place.file, place.offset)
    if found is None or str(MariaDbGtids.parse(found)) != state.gtids:
        raise SourceChanged(
            f"{connection.dsn} has other transactions ({found or 'none'}) before {place.file}:{place.offset} than the "
            f"target ({state.gtids}).",
            hint="The log was reset, or the server was restored from a backup. " + _RESYNC,
        )


@reads_answers
def refuse_prepared(connection: Connection, dsn: Dsn) -> None:
    """A transaction that is prepared now is in no snapshot, and its rows lie in the log before it (B-28).

    A user who may not ask (MySQL: XA_RECOVER_ADMIN) goes on: all tables are compared where such a one is committed.

    Raises:
        UsageError: there is one.
    """
    try:
        rows = connection.query("XA RECOVER")
    except OperatorNeeded:
        return
    if rows:
        names = ", ".join(repr(_printable(row[3])) for row in rows)
        raise UsageError(
            f"{dsn} has distributed transactions that are prepared and not committed: {names}.",
            hint="Commit them or roll them back (XA COMMIT, XA ROLLBACK) before a copy begins.",
        )


def _printable(name: str | bytes) -> str:
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    return re.sub(r"[^\x20-\x7e]", "?", text)
