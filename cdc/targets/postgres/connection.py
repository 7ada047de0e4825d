"""Sessions of a PostgreSQL database that is written to, and what their errors mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import conninfo

from cdc.errors import (
    CdcError,
    InvariantError,
    OperatorNeeded,
    TargetBusy,
    TargetDrift,
    TargetFull,
    Unavailable,
    UsageError,
)

Session = psycopg.Connection[tuple[Any, ...]]

# Every value has to be read and written in the same words, whatever the database or the role have set.
_SESSION = {
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "timezone": "UTC",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "search_path": "pg_catalog,pg_temp",
    "statement_timeout": "0",
    # Who waits for a lock lets nobody else have it, and cannot be stopped: it is given up, and tried again.
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_read_only": "off",
    "random_page_cost": "1.1",  # rows that change are found by the index, not by reading all of a table
}
_LINE = {
    "connect_timeout": "10",
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "45000",  # milliseconds
}
_SET = "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS s (name, value)"
# A changed row is deleted and inserted, which is not for triggers to see, nor for foreign keys, which may take others
# with it; the server's own replication leaves them out in the same way. Not every user may.
_NO_TRIGGERS = """
SELECT CASE WHEN has_parameter_privilege('session_replication_role', 'SET')
THEN set_config('session_replication_role', 'replica', false) END
"""
OLDEST_SERVER = 160000  # pg_input_is_valid


@dataclass(frozen=True, slots=True)
class Server:
    """A database that is written to. Its text form never holds the password (E-03)."""

    dsn: str
    parameters: dict[str, str]

    @classmethod
    def parse(cls, dsn: str) -> Server:
        """Read `postgresql://user@host:port/database`; raises UsageError."""
        try:
            found = conninfo.conninfo_to_dict(dsn)
        except psycopg.ProgrammingError:
            raise UsageError(
                "The target is not a PostgreSQL DSN.",
                hint="Write it as postgresql://user@host:5432/database, with special characters as %XX.",
            ) from None
        return cls(dsn, {name: str(value) for name, value in found.items() if value is not None})

    def __str__(self) -> str:
        host, port = self.parameters.get("host", "localhost"), self.parameters.get("port", "5432")
        return f"postgresql://{host}:{port}/{self.parameters.get('dbname', '')}"

    def __repr__(self) -> str:
        return f"Server({self})"

    def busy(self) -> TargetBusy:
        """That another process writes to it."""
        return TargetBusy(
            f"{self}: another pipeline writes to this database.",
            hint="Stop the other pipeline, or give this one another database: one target, one pipeline.",
        )


def connect(server: Server) -> Session:
    """Open a session with the settings above; raises UsageError for what cannot be a target."""
    line = {name: value for name, value in _LINE.items() if name not in server.parameters}
    session = psycopg.connect(
        conninfo.make_conninfo(server.dsn, application_name="cdc target", **line),
        autocommit=True,
        prepare_threshold=None,
    )
    if session.info.server_version < OLDEST_SERVER:
        version = session.info.server_version // 10000
        session.close()
        raise UsageError(f"{server} runs PostgreSQL {version}.", hint="A target needs PostgreSQL 16 or newer.")
    session.execute(
        _SET, [list(_SESSION), list(_SESSION.values())]
    )  # a pooler may leave out what is asked at the start
    session.execute(_NO_TRIGGERS)
    return session


_FULL = ("53100", "53200")
_DEPENDED_ON = ("2BP01", "0A000")  # what cannot be dropped, and what cannot get another type
_PASSES = ("08", "40", "53", "57")


def meaning(failure: Exception, server: Server) -> CdcError:
    """What an error means for a pipeline. Its details may hold values of rows, so that they are not passed on."""
    if not isinstance(failure, psycopg.Error):
        return InvariantError(f"{server}: {type(failure).__name__}.")
    state = failure.sqlstate
    text = (failure.diag.message_primary or str(failure).partition("\n")[0]).strip()
    if state is None:
        return _of_the_line(text, server)
    said = f"{server}: {text} (SQLSTATE {state})"
    if state in _FULL:
        return TargetFull(
            said, hint="Free some space and start again: nothing was lost, the last segment was rolled back."
        )
    if state == "55P03":
        return Unavailable(
            f"{server}: another session holds a lock that the pipeline needs.",
            hint="cdc tries again. This shows who may have it: SELECT pid, state, xact_start, query FROM "
            "pg_stat_activity WHERE xact_start < now() - interval '10 s'",
        )
    if state.startswith(_PASSES):
        return Unavailable(said, hint="It is tried again.")
    if state in ("28000", "28P01", "3D000"):
        return UsageError(said, hint="Check the DSN of the target.")
    if state == "42501":
        return UsageError(said, hint=_grant(text, server))
    if state in ("42P01", "42703", "3F000"):
        return TargetDrift(
            said,
            hint="Undo what was changed by hand, or copy the table again: `cdc resync SOURCE TARGET --tables TABLE`.",
        )
    if state in _DEPENDED_ON and " depends on " in (failure.diag.message_detail or ""):
        # Its details are names of tables and views, and no values.
        found = "; ".join((failure.diag.message_detail or "").splitlines())
        return TargetDrift(
            f"{said}: {found}. Drop that, copy the table again, and make it again.",
            hint="After that: `cdc resync SOURCE TARGET --tables TABLE`.",
        )
    if state.startswith("23"):
        return TargetDrift(
            said,
            hint="A constraint that was made in the target refuses the source's rows: drop it, then "
            "copy the table again: `cdc resync SOURCE TARGET --tables TABLE`.",
        )
    return OperatorNeeded(said, hint="Nothing was applied. The server's log says more.")


def _of_the_line(text: str, server: Server) -> CdcError:
    """What it means that there is no session, or that it was lost."""
    if "unsupported startup parameter" in text:
        return UsageError(f"{server}: {text}", hint="This is a pooler: name the server itself, or leave options out.")
    if any(word in text for word in ("authentication", "pg_hba", "password", "role ")):
        return UsageError(f"{server}: {text}", hint="Check user, password and pg_hba.conf.")
    if text.endswith("does not exist"):
        return UsageError(f"{server}: {text}", hint="Make the database, or check the DSN of the target.")
    return Unavailable(f"{server}: {text}", hint="Is the server running, and are host and port right?")


def _grant(refused: str, server: Server) -> str:
    """What gives the user the right that he lacks."""
    if (schema := re.fullmatch(r"permission denied for schema (.*)", refused)) is not None:
        return f"GRANT CREATE, USAGE ON SCHEMA {schema[1]} TO the user."
    if "for table " in refused or "owner of " in refused:
        return "The pipeline's tables belong to the user that made them: run it as that one."
    return f"GRANT CREATE ON DATABASE {server.parameters.get('dbname', '...')} TO the user."
