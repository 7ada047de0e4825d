"""Connections to PostgreSQL: the DSN, the session settings that fix every value's text, and what its errors mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import conninfo, pq

from cdc.errors import (
    CdcError,
    OperatorNeeded,
    PublicationChanged,
    SlotBusy,
    SlotUnusable,
    SourceChanged,
    Unavailable,
    UsageError,
)
from cdc.logs import without
from cdc.sources.postgres.session import PATIENCE, Cursor, Session, readable

# Whatever the database, the role or the client's environment set, values must read the same.
# extra_float_digits=1 is the shortest exact text since PostgreSQL 12. The time limits are off because a snapshot and a
# replication session are long by nature (a role-wide statement_timeout would cut them in the middle).
SESSION = {
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "timezone": "UTC",
    "client_encoding": "UTF8",
    "xmloption": "content",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_read_only": "off",  # publications, slots and the heartbeat are written
    "quote_all_identifiers": "off",  # types are distinguished by their names
    "search_path": "pg_catalog",
    "row_security": "off",  # an error rather than fewer rows
    # Of a host that is gone without a word, a copy's sessions would hold back vacuum and ALTER TABLE for two hours.
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "6",
}
# Limits that older servers do not know, and so refuse in a connection's options.
_LATER_LIMITS = {140000: "idle_session_timeout", 170000: "transaction_timeout"}
# A line that is dead without a word is found by the kernel: from the data that nobody acknowledges, or, where there is
# none, from keepalives. The system's own limits are hours. A DSN may say otherwise.
_LINE = {
    "connect_timeout": "10",
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "45000",  # milliseconds
}
# libpq takes no more from the socket at a time than its buffer holds, 16 kB at first. That grows with a long row, and
# stays so (pqCheckInBufferSpace in fe-misc.c): a backlog is then read in a third of the calls.
_READ = 64 << 10  # bytes
OLDEST_SERVER = 130000  # PostgreSQL 13: publish_via_partition_root, wal_status, pg_copy_logical_replication_slot

SCHEMES = ("postgresql", "postgres")


@dataclass(frozen=True, slots=True)
class Dsn:
    """A source DSN that libpq accepts. Its text form never holds the password (E-03)."""

    text: str
    parameters: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Dsn:
        """Read `postgresql://user@host:port/database?...`; raises UsageError."""
        hint = "Write it as postgresql://user@host:5432/database, with special characters as %XX."
        if not _is_text(text):
            raise UsageError("The DSN has characters that are not text.", hint=hint)
        if _has_stray_at(text):
            raise UsageError("The DSN has an '@' that separates nothing: is the password written with %XX?", hint=hint)
        try:
            parsed = conninfo.conninfo_to_dict(text)
        except psycopg.ProgrammingError as error:
            raise UsageError(f"This is not a PostgreSQL DSN: {_unquoted(str(error).strip())}", hint=hint) from None
        parameters = {name: str(value) for name, value in parsed.items() if value is not None}
        ports = parameters.get("port", "").split(",")
        if not all(port == "" or (port.isdecimal() and 0 < int(port) < 65536) for port in ports):
            raise UsageError("The DSN's port is not a number from 1 to 65535.", hint=hint)
        return cls(text, parameters)

    def __str__(self) -> str:
        host, port = self.parameters.get("host", "localhost"), self.parameters.get("port", "5432")
        return f"postgresql://{host}:{port}/{self.parameters.get('dbname', '')}"

    def __repr__(self) -> str:
        return f"Dsn({self})"

    @property
    def database(self) -> str:
        """The database that is meant, as libpq finds it: by any form of DSN, from the environment, else by the user."""
        defaults = {option.keyword.decode(): option.val for option in pq.Conninfo.get_defaults() if option.val}
        known = {name: value.decode() for name, value in defaults.items()} | self.parameters
        return known.get("dbname") or known.get("user", "")

    def conninfo(self, *, replication: bool, application_name: str) -> str:
        options = " ".join(
            [self.parameters.get("options", "")]
            + [f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in SESSION.items()]
        ).strip()
        overrides: dict[str, str] = {"options": options, "application_name": application_name}
        if replication:
            overrides["replication"] = "database"
        line = _LINE | ({"target_session_attrs": "primary"} if self._names_hosts() else {})
        overrides |= {name: value for name, value in line.items() if name not in self.parameters}
        return conninfo.make_conninfo(self.text, **overrides)

    def _names_hosts(self) -> bool:
        """Whether it names several servers: a primary and those that may become it (A-14)."""
        return any("," in self.parameters.get(name, "") for name in ("host", "hostaddr"))


def connect(dsn: Dsn, application_name: str, patience: float = PATIENCE) -> Session:
    """Open an ordinary autocommit session with the pinned settings."""
    connection = _connect(dsn, application_name, replication=False)
    connection.patience = patience
    if connection.info.server_version < OLDEST_SERVER:
        version = connection.info.server_version // 10000
        connection.close()
        raise UsageError(f"{dsn} runs PostgreSQL {version}.", hint="PostgreSQL 13 or newer is needed.")
    return connection


def connect_replication(dsn: Dsn, application_name: str) -> Session:
    """Open a session that speaks the replication commands (and plain SQL by the simple protocol)."""
    connection = _connect(dsn, application_name, replication=True)
    with mapped_errors(dsn):
        run_command(connection, f"SELECT repeat(' ', {_READ})")
    return connection


def _connect(dsn: Dsn, application_name: str, *, replication: bool) -> Session:
    with mapped_errors(dsn):
        connection = Session.connect(
            dsn.conninfo(replication=replication, application_name=application_name),
            autocommit=True,
            prepare_threshold=None,
            cursor_factory=Cursor,
        )
        _lift_limits(connection)
    return connection


def _lift_limits(connection: Session) -> None:
    for since, name in _LATER_LIMITS.items():
        if connection.info.server_version >= since:
            run_command(connection, f"SET {name} = 0")


def run_command(connection: Session, command: str) -> list[dict[str, str | None]]:
    """Run one replication command; values are the server's text."""
    result = connection.run(command.encode())
    if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
        raise server_error(result)
    with readable():
        names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
        return [
            {
                name: None if (value := result.get_value(row, column)) is None else value.decode()
                for column, name in enumerate(names)
            }
            for row in range(result.ntuples)
        ]


def server_error(result: pq.abc.PGresult) -> psycopg.Error:
    """The psycopg exception for an error result got from libpq itself."""
    return psycopg.errors.error_from_result(result, encoding="utf-8")


@contextmanager
def mapped_errors(dsn: Dsn) -> Iterator[None]:
    """Turn psycopg's exceptions into ours; every use of a connection happens inside one of these."""
    try:
        yield
    except psycopg.Error as error:
        raise classify(error, dsn) from error


@dataclass(frozen=True, slots=True)
class _Rule:
    """How one SQLSTATE (or its class, two characters) is met."""

    error: type[CdcError]
    hint: str


_RECREATE = "Run `cdc teardown SOURCE TARGET`, remove the target, and start again: changes may have been lost."

# SQLSTATE -> rule; the longest match wins. https://www.postgresql.org/docs/current/errcodes-appendix.html (E-11)
SQLSTATES: dict[str, _Rule] = {
    "08": _Rule(Unavailable, "The connection was lost; it is tried again."),
    "28": _Rule(UsageError, "Check user, password and pg_hba.conf; `cdc check SOURCE` shows what replication needs."),
    "3D000": _Rule(UsageError, "Check the database name in the DSN."),
    "42501": _Rule(UsageError, "`cdc check SOURCE` prints the GRANT statements that are missing."),
    "42": _Rule(OperatorNeeded, "`cdc check SOURCE` shows what is wrong with the source."),
    "0A000": _Rule(UsageError, "`cdc check SOURCE` shows what the server does not offer."),
    "22021": _Rule(OperatorNeeded, "The database holds bytes that are not valid in its encoding; repair them first."),
    "22P05": _Rule(OperatorNeeded, "The database holds characters that UTF-8 does not have; repair them first."),
    "53300": _Rule(Unavailable, "The server has no free connection or walsender (max_connections, max_wal_senders)."),
    "53400": _Rule(
        OperatorNeeded, "Raise max_replication_slots or drop slots that nobody uses; see `cdc check SOURCE`."
    ),
    "53": _Rule(Unavailable, "The server is short of resources; it is tried again."),
    "55000": _Rule(OperatorNeeded, "`cdc check SOURCE` shows what the server lacks."),
    "55006": _Rule(SlotBusy, "Another process holds it: stop that one, or give this pipeline another --name."),
    "57P04": _Rule(OperatorNeeded, "The database was dropped."),
    "57P05": _Rule(Unavailable, "The session was ended for being idle; it is opened again."),
    "57": _Rule(Unavailable, "The server is starting, stopping or was asked to end the session; it is tried again."),
    "58": _Rule(OperatorNeeded, "The server could not read its own files; look into its log."),
    "XX001": _Rule(OperatorNeeded, "The server found damaged data; look into its log."),
    "XX": _Rule(OperatorNeeded, "The server failed within itself; look into its log, and update to its last minor."),
    "40": _Rule(Unavailable, "The transaction clashed with another; it is tried again."),
    "42710": _Rule(OperatorNeeded, "Choose another --name, or run `cdc teardown SOURCE TARGET` for the old pipeline."),
}

# A slot that cannot be used says 55000 or 42704, with texts that differ between versions. The prefixes
# are those of PostgreSQL 13 to 18.
_LOST_SLOT = re.compile(
    r"cannot read from logical replication slot|can no longer (get changes from|access) replication slot"
    r"|replication slot .* (has been invalidated|does not exist)|This slot has been invalidated"
)
_LOST_PUBLICATION = re.compile(r'publication ".*" does not exist')
_WAL_GONE = re.compile(
    r"requested (WAL segment|starting point) .*(has already been removed|is ahead of|is not in this)"
)
_ALLOCATION = re.compile(r"invalid memory alloc request size")
# What libpq says of bytes that are no message.
_GARBLED = re.compile(
    r"lost synchronization|in message type|in \".\" message|message contents do not agree|invalid message length"
    r"|unexpected (response|character|message|field count)|cannot be read|invalid (string|byte) in message|decrypt"
    r"|bad record mac|wrong version number|unexpected message from server",
    re.IGNORECASE,
)
_NETWORK = re.compile(
    r"connection refused|could not connect|timeout|timed out|server closed the connection|no route to host"
    r"|connection reset|broken pipe|temporary failure in name resolution|network is unreachable|starting up"
    r"|shutting down|ssl syscall error|eof detected|connection is lost|the connection is closed|recovery mode"
    r"|invalid socket|too many clients|remaining connection slots|connection not open|terminating connection"
    r"|sending|receiving",
    re.IGNORECASE,
)


def classify(error: psycopg.Error, dsn: Dsn) -> CdcError:
    """Decide what a PostgreSQL error means for a pipeline: try again, stop, or ask an operator."""
    text = _first_line(error)
    text = _without_password(text, dsn)
    state = error.sqlstate
    if _LOST_PUBLICATION.search(text):
        return PublicationChanged(
            f"{dsn}: {text}",
            hint="Creating it again does not help: the slot decodes with the catalog of its own past (A-30). "
            + _RECREATE,
        )
    if _LOST_SLOT.search(text):
        return SlotUnusable(
            f"{dsn}: {text}",
            hint="If max_slot_wal_keep_size or idle_replication_slot_timeout discarded it, raise that first. "
            + _RECREATE,
        )
    if _WAL_GONE.search(text):
        return SourceChanged(f"{dsn}: {text}", hint=_RECREATE)
    if _ALLOCATION.search(text):
        return OperatorNeeded(
            f"{dsn}: {text}",
            hint="PostgreSQL 16.9, 17.5 and their sisters fail so in logical decoding; update the server.",
        )
    if state is None:
        return _without_state(error, text, dsn)
    for length in (5, 2):
        if rule := SQLSTATES.get(state[:length]):
            return rule.error(f"{dsn}: {text} (SQLSTATE {state})", hint=rule.hint)
    return OperatorNeeded(f"{dsn}: {text} (SQLSTATE {state})", hint="The server's log says more.")


def _without_state(error: psycopg.Error, text: str, dsn: Dsn) -> CdcError:
    """Errors that libpq makes itself, and those of a connection attempt, come without an SQLSTATE."""
    lower = text.lower()
    if any(word in lower for word in ("password", "authentication", "pg_hba", "no pg_hba", "role ")):
        return UsageError(f"{dsn}: {text}", hint=SQLSTATES["28"].hint)
    if "database " in lower and "does not exist" in lower:
        return UsageError(f"{dsn}: {text}", hint=SQLSTATES["3D000"].hint)
    if "unsupported startup parameter" in lower:
        return UsageError(f"{dsn}: {text}", hint="This is a pooler, which cannot replicate: name the server itself.")
    if any(word in lower for word in ("certificate", "sslmode", "ssl is not", "does not support ssl")):
        return UsageError(f"{dsn}: {text}", hint="Check sslmode, sslrootcert and the server's certificate.")
    if _GARBLED.search(text):
        return Unavailable(
            f"{dsn}: {text}",
            hint="Something between damages data; sslmode=require would notice. It is opened again.",
        )
    if isinstance(error, psycopg.OperationalError) or _NETWORK.search(text):
        return Unavailable(f"{dsn}: {text}", hint="Is the server running, and are host and port right?")
    return OperatorNeeded(f"{dsn}: {text}", hint="This is not expected; please report it.")


def _first_line(error: psycopg.Error) -> str:
    """The primary message alone: DETAIL and CONTEXT may hold values of rows (E-04)."""
    primary = error.diag.message_primary if error.diag else None
    if primary:
        return primary
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].removeprefix("connection failed: ") if lines else type(error).__name__


def _is_text(dsn: str) -> bool:
    """Whether it can be handed to libpq, for which a zero byte is the end. A terminal may send what is not UTF-8."""
    try:
        return b"\0" not in dsn.encode()
    except UnicodeEncodeError:
        return False


def _has_stray_at(dsn: str) -> bool:
    """Whether a URL has an `@` beside the one before the host.

    An unescaped `@`, `/` or `?` in a password makes libpq take the rest of it for a host, a database or an option, and
    those are shown (E-03).
    """
    scheme, separator, rest = dsn.partition("://")
    if not separator or scheme not in SCHEMES:
        return False
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    before_options = rest.partition("?")[0]
    return before_options.count("@") > 1 or ("@" in rest and "@" not in authority and "user=" not in rest)


def _unquoted(message: str) -> str:
    """What libpq says of a DSN that it cannot read, without what it quotes of it, which may be a password (E-03).

    The name of an option is the exception: it is what the user wants to know.
    """
    if re.fullmatch(
        r'invalid (connection option|URI query parameter): ?"\w+"|invalid connection option "\w+"', message
    ):
        return message
    return re.sub(r'"[^=\]].*"', "(a part of it)", message, flags=re.DOTALL)


def _without_password(message: str, dsn: Dsn) -> str:
    """The server has no reason to repeat a password or the DSN, but nobody promises that it does not (E-03)."""
    return without(message, dsn.text, dsn.parameters.get("password"), dsn.parameters.get("sslpassword"))
