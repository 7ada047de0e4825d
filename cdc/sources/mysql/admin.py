"""The control plane beside the data plane: how a server's log is for a pipeline."""

from __future__ import annotations

from cdc.errors import CdcError
from cdc.source import SourceStatus
from cdc.sources.mysql.connection import Connection
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
        return SourceStatus("log", True, None, details, lines)
    known = SourceState.load(state)
    try:
        same = verify_server(connection, known)
    except CdcError as error:
        return SourceStatus(
            "log", False, None, details | {"problem": error.message}, lines | {"problem": error.message}
        )
    lag = max(0, place_of(files, known.place, now.file, now.offset).order - known.place.order) if same else None
    return SourceStatus("log", True, lag, details, lines)
