"""The control plane beside the data plane: how a server's log is for a pipeline."""

from __future__ import annotations

from contextlib import suppress

from cdc.errors import CdcError, LogLost, SourceBehind, SourceChanged, UsageError
from cdc.source import SourceStatus
from cdc.sources.mysql.connection import Connection
from cdc.sources.mysql.dump import verify_mark
from cdc.sources.mysql.identity import log_files, log_now, place_of, verify_server
from cdc.sources.mysql.state import SourceState


def log_status(connection: Connection, state: str | None) -> SourceStatus:
    """How far the log is, and whether a pipeline with this state (of its checkpoint) can go on."""
    now, files = log_now(connection), log_files(connection)
    kept = connection.variable("binlog_expire_logs_seconds") or connection.variable("expire_logs_days")
    details: dict[str, object] = {
        "file": now.file,
        "offset": now.offset,
        "gtids": now.gtids,
        "oldest_file": next(iter(files), None),
        "bytes": sum(files.values()),
    }
    lines = {
        "log": f"{now.file}:{now.offset}" + (f", {now.gtids}" if now.gtids else ""),
        "kept log": f"{sum(files.values()):,} bytes in {len(files)} files (limit: {kept or 'none'})",
    }
    if state is None:
        return SourceStatus("log", None, None, False, details, lines)
    known = SourceState.load(state)
    try:
        same = verify_server(connection, known)
        if same:
            verify_mark(connection.dsn, known)
    except CdcError as error:
        return SourceStatus("log", f"A run would end: {error.message}", None, True, details, lines)
    lag = max(0, place_of(files, known.place, now.file, now.offset).order - known.place.order) if same else None
    return SourceStatus("log", None, lag, lag != 0, details, lines)


def refuse_other(connection: Connection, state: SourceState) -> None:
    """Raise UsageError for a server that is not the one of a state, nor one that has taken its place."""
    try:
        with suppress(SourceBehind, LogLost):
            verify_server(connection, state)
    except SourceChanged as error:
        raise UsageError(
            f"The target does not follow {connection.dsn}: {error.message}",
            hint="Nothing was removed. Name the source and the target of one pipeline.",
        ) from error
