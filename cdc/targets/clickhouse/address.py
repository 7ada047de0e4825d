"""Which ClickHouse a target is, and sessions of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from cdc.errors import CdcError, OperatorNeeded, TargetBusy, TargetDrift, TargetFull, Unavailable, UsageError

try:
    from clickhouse_connect import get_client
    from clickhouse_connect.driver.client import Client
    from clickhouse_connect.driver.exceptions import Error, OperationalError
    from clickhouse_connect.driver.httputil import get_pool_manager
except ImportError as error:
    raise UsageError(
        "A ClickHouse target needs the package clickhouse-connect.", hint="pip install 'clickhouse-connect>=1.12'"
    ) from error

__all__ = ["Client", "Error"]

_FORM = (
    "Write it as clickhouse://user@host:8123, with ?secure=true for TLS and ?prefix=NAME_ before its databases' names."
)
_OPTIONS = {"secure", "prefix", "cluster"}
_PORT, _TLS_PORT = 8123, 8443
_SETTINGS = {
    "async_insert": 0,  # what was acknowledged is there
    "input_format_null_as_default": 0,
    "input_format_allow_errors_num": 0,
    "mutations_sync": 2,
    "alter_sync": 2,
    "session_timezone": "UTC",
    "select_sequential_consistency": 1,
}
# With quorums in parallel, which is how a server begins, sequential consistency does nothing: "there is no guarantee a
# single replica will have received all writes" (system.settings of 26.9).
_QUORUM = {"insert_quorum": "auto", "insert_quorum_parallel": 0}
_PATIENCE = 300  # seconds


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is written to. Its text form never holds the password (E-03).

    Attributes:
        prefix: begins the name of every database that is made.
        cluster: all statements that make tables run on it, and the tables are replicated ones; empty for one server.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    secure: bool
    prefix: str
    cluster: str

    @classmethod
    def parse(cls, place: str) -> Server:
        """Read what follows `clickhouse:`; the password may be in CLICKHOUSE_PASSWORD. Raises UsageError."""
        try:
            parts = urlsplit(f"clickhouse:{place}")
            port = parts.port
        except ValueError:
            raise UsageError("The target is not a ClickHouse DSN.", hint=_FORM) from None
        options = dict(parse_qsl(parts.query))
        if not parts.hostname or not place.startswith("//"):
            raise UsageError("The target names no ClickHouse server.", hint=_FORM)
        if parts.path.strip("/"):
            raise UsageError(
                "A ClickHouse target has no database of its own: each schema of the source becomes a database.",
                hint=f"Leave {parts.path} out; ?prefix=NAME_ keeps several pipelines apart on one server.",
            )
        if unknown := options.keys() - _OPTIONS:
            raise UsageError(f"The ClickHouse DSN has the unknown option {', '.join(sorted(unknown))}.", hint=_FORM)
        secure = options.get("secure", "false") == "true"
        return cls(
            parts.hostname,
            port or (_TLS_PORT if secure else _PORT),
            unquote(parts.username or "default"),
            unquote(parts.password or os.environ.get("CLICKHOUSE_PASSWORD", "")),
            secure,
            options.get("prefix", ""),
            options.get("cluster", ""),
        )

    def __str__(self) -> str:
        prefix = f"/?prefix={self.prefix}" if self.prefix else ""
        return f"clickhouse://{self.host}:{self.port}{prefix}"


def connect(server: Server) -> Client:
    """A client; raises what the driver raises."""
    settings = dict(_SETTINGS)
    if server.cluster:
        settings |= _QUORUM
    return get_client(
        host=server.host,
        port=server.port,
        username=server.user,
        password=server.password,
        secure=server.secure,
        connect_timeout=10,
        send_receive_timeout=_PATIENCE,
        query_retries=0,
        query_limit=0,
        autogenerate_session_id=False,
        client_name="cdc",
        settings=settings,
        # The pool that clients share otherwise would share its connections with a process that was forked as well.
        pool_mgr=get_pool_manager(),
    )


_FULL = {243}  # NOT_ENOUGH_SPACE
_REFUSED = {469}  # VIOLATED_CONSTRAINT: by a table that refuses rows which only an earlier writer can send
_DENIED = {497}  # ACCESS_DENIED
_UNKNOWN_USER = {192, 193, 194, 516}
_DRIFT = {16, 36, 47, 60, 81}  # no such column, bad arguments of a column, unknown identifier, table, database
_PASSES = {
    3, 23, 24, 32, 33, 95, 96, 159, 160, 164, 202, 203, 209, 210, 225, 236, 241, 242, 252, 254, 285, 286, 289, 319, 341,
    394, 425, 439, 529, 999,
}  # fmt: skip


def meaning(failure: Exception, server: Server) -> CdcError:
    """What an error means for a pipeline. Only the first line is passed on: others may hold values of rows."""
    code = failure.code if isinstance(failure, Error) else None
    text = str(failure).partition("\n")[0].partition(" (for url ")[0].partition("Code: ")[2 if code else 0].strip()
    said = f"{server}: {text[:300]}"
    if code is None:
        if isinstance(failure, OperationalError | OSError):
            return Unavailable(f"{server} does not answer.", hint="Is the server running, and are host and port right?")
        return Unavailable(said, hint="It is tried again.")
    if code in _UNKNOWN_USER:
        return UsageError(
            f"{server}: the server does not let {server.user} in.", hint="Check user and CLICKHOUSE_PASSWORD."
        )
    if code in _REFUSED:
        return busy(server)
    if code in _DENIED:
        return UsageError(
            said, hint="Give the user the right to make databases, tables and views, and to read and write them."
        )
    if code in _FULL:
        return TargetFull(said, hint="Free some space and start again: what was appended is appended again.")
    if code in _PASSES:
        return Unavailable(said, hint="It is tried again.")
    if code in _DRIFT:
        return TargetDrift(
            said,
            hint="Undo what was changed by hand, or copy the table again: `cdc resync SOURCE TARGET --tables TABLE`.",
        )
    return OperatorNeeded(said, hint="The checkpoint did not move. The server's log says more.")


def busy(server: Server) -> TargetBusy:
    """That another process writes there."""
    return TargetBusy(
        f"{server}: another pipeline writes to these databases.",
        hint="Give each pipeline its own ?prefix=NAME_. If the other one was killed on another machine, its lease "
        "ends after half a minute.",
    )
