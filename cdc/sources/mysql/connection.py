"""Connections to MySQL and MariaDB: the DSN, the session settings that fix every value, and what the errors mean.

PyMySQL connects, authenticates and encrypts. What is read in bulk (binlog dumps, copies) is read from its socket, since
its own reading makes a Python object of every value.
"""

from __future__ import annotations

import os
import re
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from pymysql import err
from pymysql.constants import COMMAND
from pymysql.converters import escape_item

from cdc.errors import CdcError, LogLost, OperatorNeeded, SlotBusy, TableChanged, Unavailable, UsageError
from cdc.logs import without
from cdc.sources.mysql.login import Login

P = ParamSpec("P")
T = TypeVar("T")

SCHEMES = ("mysql", "mariadb")
OLDEST = {"mysql": (5, 6), "mariadb": (10, 3)}
_SEND_ANNOTATIONS = 2  # flag of a dump: BINLOG_SEND_ANNOTATE_ROWS_EVENT
_OPTIONS = frozenset(
    {"ssl_ca", "ssl_cert", "ssl_key", "ssl_mode", "server_public_key", "unix_socket", "connect_timeout"}
)
_SSL_MODES = ("disabled", "preferred", "required", "verify_ca", "verify_identity")
_SECONDS = re.compile(r"[0-9]{1,6}")
PATIENCE = 600.0  # seconds of silence after which a query is given up
_HINT = "Write it as mysql://user@host:3306/database, with special characters as %XX."

# Whatever the server, the user or a proxy set, values must read the same, and nothing may cut a long copy off.
_SESSION = (
    "SET SESSION sql_mode = ''",
    "SET SESSION time_zone = '+00:00'",
    "SET SESSION transaction_isolation = 'REPEATABLE-READ'|SET SESSION tx_isolation = 'REPEATABLE-READ'",
    "SET SESSION net_write_timeout = 3600",
    "SET SESSION net_read_timeout = 3600",
    "SET SESSION wait_timeout = 86400",
    "SET SESSION sql_select_limit = 18446744073709551615",  # which otherwise takes rows away
    "SET SESSION sql_big_selects = ON",
    "SET SESSION sql_auto_is_null = OFF",
    "SET SESSION completion_type = 0",
    "SET SESSION system_versioning_asof = DEFAULT|DO 0",
    "SET SESSION idle_transaction_timeout = 0|DO 0",
    "SET SESSION idle_readonly_transaction_timeout = 0|DO 0",
    "SET SESSION group_concat_max_len = 1048576",
    "SET SESSION max_execution_time = 0|SET SESSION max_statement_time = 0|DO 0",
    "SET SESSION show_gipk_in_create_table_and_information_schema = ON|DO 0",
    "SET SESSION information_schema_stats_expiry = 0|DO 0",
)


@dataclass(frozen=True, slots=True)
class Dsn:
    """A source DSN. Its text form never holds the password (E-03)."""

    scheme: str
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    options: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str) -> Dsn:
        """Read `mysql://user:password@host:port/database?ssl_mode=required`; raises UsageError."""
        if not text.isprintable():  # a terminal may send what is not UTF-8
            raise UsageError("The DSN has characters that cannot be printed.", hint=_HINT)
        before_options = text.partition("?")[0]
        authority = before_options.partition("://")[2]
        # An unescaped @ or / in a password would make a part of it look like a host or a database, which are shown.
        if authority.count("@") > 1 or ("@" in authority and "@" not in authority.partition("/")[0]):
            raise UsageError("The DSN has an '@' that separates nothing: is the password written with %XX?", hint=_HINT)
        try:
            parts = urlsplit(text)
            port = parts.port or 3306
        except ValueError:
            raise UsageError("The DSN's host or port cannot be read.", hint=_HINT) from None
        if parts.scheme not in SCHEMES or parts.fragment:
            raise UsageError("This is not a DSN of MySQL or MariaDB.", hint=_HINT)
        options = dict(parse_qsl(parts.query))
        for name in options:
            if name not in _OPTIONS:
                raise UsageError(
                    f"The DSN has an unknown option {name!r}.", hint=f"There are {', '.join(sorted(_OPTIONS))}."
                )
        if options.get("ssl_mode", "preferred") not in _SSL_MODES:
            raise UsageError("The DSN has an unknown ssl_mode.", hint=f"There are {', '.join(_SSL_MODES)}.")
        if not _SECONDS.fullmatch(options.get("connect_timeout", "10")):
            raise UsageError("The DSN's connect_timeout is not a number of seconds.", hint=_HINT)
        if options.get("ssl_mode") == "disabled" and "ssl_ca" in options:
            raise UsageError(
                "The DSN's ssl_mode=disabled and its ssl_ca contradict each other.",
                hint="Leave ssl_mode out. The server must then have a certificate of that authority.",
            )
        return cls(
            parts.scheme,
            parts.hostname or "localhost",
            port,
            unquote(parts.username or ""),
            unquote(parts.password) if parts.password is not None else os.environ.get("MYSQL_PWD", ""),
            unquote(parts.path.removeprefix("/")),
            options,
        )

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}/{self.database}"

    @property
    def ssl_mode(self) -> str:
        """How the connection is encrypted; a DSN that names an authority means that it has to be the server's (M25)."""
        mode = self.options.get("ssl_mode", "preferred")
        return "verify_ca" if "ssl_ca" in self.options and not mode.startswith("verify") else mode

    @property
    def proves_server(self) -> bool:
        """Whether an encrypted connection is one to this server: any host has a certificate of some known authority."""
        return self.ssl_mode == "verify_identity" or "ssl_ca" in self.options


@dataclass(frozen=True, slots=True)
class Version:
    """Which server it is: `flavor` is `mysql` or `mariadb`, whatever the DSN says."""

    flavor: str
    number: tuple[int, int, int]

    def __str__(self) -> str:
        name = "MariaDB" if self.flavor == "mariadb" else "MySQL"
        return f"{name} {'.'.join(map(str, self.number))}"


class Connection:
    """One session with the pinned settings, in autocommit.

    Args:
        purpose: what the server calls the session.
        patience: seconds of silence after which a query is given up.
    """

    def __init__(self, dsn: Dsn, purpose: str, patience: float = PATIENCE) -> None:
        self.dsn = dsn
        with mapped_errors(dsn):
            self._raw: Any = log_in(dsn, purpose)
            self.version = _version(self._raw.get_server_info())
            if self.version.number[:2] < OLDEST[self.version.flavor]:
                self.close()
                oldest = ".".join(map(str, OLDEST[self.version.flavor]))
                raise UsageError(f"{dsn} runs {self.version}.", hint=f"{oldest} or newer is needed.")
            for setting in _SESSION:
                self._first_accepted(setting.split("|"))
            self._raw._read_timeout = self._raw._write_timeout = patience

    def _first_accepted(self, settings: list[str]) -> None:
        """A setting under the name that this server has for it."""
        for number, setting in enumerate(settings):
            try:
                self._raw.query(setting)
                return
            except (err.OperationalError, err.InternalError, err.ProgrammingError) as error:
                unknown = error.args[0] in (1193, 1227, 1064)
                if not unknown or number == len(settings) - 1:
                    raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the session, whatever state it is in."""
        with suppress(Exception):
            self._raw._force_close()

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement; all of its rows. For the control plane: values become Python objects.

        Raises:
            CdcError: as `classify` says.
        """
        with mapped_errors(self.dsn), self._raw.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def value(self, statement: str, *values: object) -> Any:
        """The first column of the first row, None if there is no row."""
        rows = self.query(statement, *values)
        return rows[0][0] if rows else None

    def record(self, statement: str) -> dict[str, Any]:
        """The first row by the names of its columns, in lower case; empty if there is no row."""
        with mapped_errors(self.dsn), self._raw.cursor() as cursor:
            cursor.execute(statement)
            row = cursor.fetchone()
            names = [column[0].lower() for column in cursor.description or ()]
        return dict(zip(names, row, strict=True)) if row is not None else {}

    def lose_locks_after(self, seconds: int) -> None:
        """Let the server end this session, and with it the locks that it takes, when it has said nothing for so long.

        Should we be stopped or gone without its knowing, nobody is kept from writing for longer than that (C-10).
        """
        self.query(f"SET SESSION wait_timeout = {seconds}")

    def variable(self, name: str) -> str | None:
        """A system variable, None if this server does not have it."""
        with mapped_errors(self.dsn):
            rows = self.query("SHOW GLOBAL VARIABLES LIKE %s", name.replace("_", "\\_"))
            return str(rows[0][1]) if rows else None

    def literal(self, value: object) -> str:
        """A value as SQL."""
        return str(escape_item(value, "utf8mb4"))

    def command(self, number: int, content: bytes) -> None:
        """Send a command whose answer the caller reads by itself."""
        with mapped_errors(self.dsn):
            self._raw._execute_command(number, content)

    def packet(self) -> bytes:
        """One packet of an answer; raises what the server says if it is an error."""
        with mapped_errors(self.dsn):
            return bytes(self._raw._read_packet().get_all_data())

    def read(self, size: int) -> bytes:
        """Whatever has come, up to a size; waits for the first byte."""
        with mapped_errors(self.dsn):
            data: bytes = self._raw._rfile.read1(size)
        if not data:
            raise Unavailable(f"{self.dsn}: the server closed the connection.", hint="It is tried again.")
        return data

    def receive(self, size: int) -> bytes:
        """What the socket has, up to a size: of a dump, which PyMySQL has read nothing of."""
        with mapped_errors(self.dsn):
            data: bytes = self._raw._sock.recv(size)
        if not data:
            raise Unavailable(f"{self.dsn}: the server closed the connection.", hint="It is tried again.")
        return data

    @property
    def socket(self) -> Any:
        return self._raw._sock

    def dump(
        self, server_id: int, file: str, offset: int, gtids: bytes | None = None, *, statements: bool = False
    ) -> None:
        """Ask for the binlog from a place on; with `gtids` (encoded) for whatever is not in that set.

        Args:
            statements: MariaDB: the texts of statements that changed rows, too. MySQL sends what it has.
        """
        if gtids is None:
            flags = _SEND_ANNOTATIONS if statements and self.version.flavor == "mariadb" else 0
            self.command(COMMAND.COM_BINLOG_DUMP, struct.pack("<IHI", offset, flags, server_id) + file.encode())
            return
        name = file.encode()
        head = struct.pack("<HII", 4, server_id, len(name)) + name
        self.command(COMMAND.COM_BINLOG_DUMP_GTID, head + struct.pack("<QI", 4, len(gtids)) + gtids)


def log_in(dsn: Dsn, purpose: str, **more: Any) -> Any:
    """A session as PyMySQL has it, encrypted as the DSN says.

    Args:
        more: arguments of `Login`.

    Raises:
        UsageError: the server is not what the DSN asks for.
        pymysql.MySQLError: it does not let us in.
    """
    arguments = dict(more)
    if "unix_socket" in dsn.options:
        arguments["unix_socket"] = dsn.options["unix_socket"]
    mode = dsn.ssl_mode
    if mode == "disabled":
        arguments["ssl_disabled"] = True
    else:
        arguments["ssl"] = _ssl_context(dsn, mode)
    raw = _connect(dsn, mode, purpose, arguments)
    if mode not in ("disabled", "preferred") and not raw._secure:  # which older PyMySQL accepts
        raw._force_close()
        raise UsageError(f"{dsn}: the server offers no encryption.", hint=_TLS.hint)
    return raw


def _connect(dsn: Dsn, mode: str, purpose: str, arguments: dict[str, Any]) -> Any:
    within = int(dsn.options.get("connect_timeout", "10"))

    def attempt(**more: Any) -> Any:
        login = Login(
            str(dsn),
            is_proven=dsn.proves_server,
            server_public_key=dsn.options.get("server_public_key"),
            host=dsn.host,
            port=dsn.port,
            user=dsn.user,
            password=dsn.password,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=within,
            read_timeout=within,  # of the greeting and the login
            write_timeout=within,
            program_name=purpose,
            **more,
        )
        login.connect()
        return login

    try:
        return attempt(**arguments)
    except err.OperationalError as error:
        # A connection that was cut says nothing about what the server offers.
        failure = getattr(error, "original_exception", None)
        refused = error.args[0] == _NO_TLS or (
            isinstance(failure, ssl.SSLError) and not isinstance(failure, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
        )
        if mode != "preferred" or not refused:
            raise
        arguments.pop("ssl", None)
        return attempt(**arguments, ssl_disabled=True)


def _ssl_context(dsn: Dsn, mode: str) -> ssl.SSLContext:
    try:
        if mode.startswith("verify"):
            context = ssl.create_default_context(cafile=dsn.options.get("ssl_ca"))
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # not met by what MySQL makes for itself
            context.check_hostname = mode == "verify_identity"
        else:  # to read all authorities of the machine, of which nothing is asked, takes 40 ms a connection
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if "ssl_cert" in dsn.options:
            context.load_cert_chain(dsn.options["ssl_cert"], dsn.options.get("ssl_key"))
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"{dsn}: the certificate files of the DSN cannot be read: {error}.") from error
    return context


def _version(text: str) -> Version:
    """`10.11.6-MariaDB-log`, `5.5.5-10.3.1-MariaDB` (a prefix for old clients) or `8.4.0`."""
    flavor = "mariadb" if "mariadb" in text.lower() else "mysql"
    if flavor == "mariadb":
        text = text.removeprefix("5.5.5-")
    numbers = [int(part) for part in text.split("-")[0].split(".")[:3] if part.isdecimal()]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return Version(flavor, (major, minor, patch))


# The errors that PyMySQL raises at an answer that cannot be read, and so does the code that makes something of it.
_UNREADABLE = (ValueError, LookupError, ArithmeticError, AssertionError, TypeError, AttributeError, struct.error)


@contextmanager
def mapped_errors(dsn: Dsn) -> Iterator[None]:
    """Turn PyMySQL's and the socket's exceptions into ours."""
    try:
        yield
    except err.MySQLError as error:
        raise classify(error, dsn) from error
    except (OSError, EOFError) as error:
        raise Unavailable(
            f"{dsn}: the connection was lost ({type(error).__name__}).", hint="It is tried again."
        ) from error
    except _UNREADABLE as error:
        raise Unavailable(
            f"{dsn}: the server's answer cannot be read ({type(error).__name__}).",
            hint="Something between damages data; ?ssl_mode=required would notice. It is tried again.",
        ) from error


def reads_answers(function: Callable[Concatenate[Connection, P], T]) -> Callable[Concatenate[Connection, P], T]:
    """For a function that asks a connection: an answer that makes no sense is an error of `mapped_errors` (E-16)."""

    @wraps(function)
    def reading(connection: Connection, /, *arguments: P.args, **named: P.kwargs) -> T:
        with mapped_errors(connection.dsn):
            return function(connection, *arguments, **named)

    return reading


@dataclass(frozen=True, slots=True)
class _Rule:
    error: type[CdcError]
    hint: str


_AWAY = _Rule(Unavailable, "Is the server running, and are host and port right?")
_RIGHTS = _Rule(UsageError, "`cdc check SOURCE` prints the GRANT statements that are missing.")
_LOGIN = _Rule(UsageError, "Check user and password, and from which hosts the user may come.")
_TLS = _Rule(UsageError, "Check ssl_mode and ssl_ca in the DSN, and that the certificate is for this host name.")
_NO_TLS = 2026
_CLASH = _Rule(Unavailable, "It is tried again.")
# https://dev.mysql.com/doc/mysql-errors/9.0/en/server-error-reference.html, https://mariadb.com/kb/en/mariadb-error-codes/
ERRORS: dict[int, _Rule] = {
    **dict.fromkeys((2002, 2003, 2005, 2006, 2012, 2013, 2014, 2055), _AWAY),
    **dict.fromkeys((1040, 1203, 1226), _Rule(Unavailable, "The server has no free connection.")),
    **dict.fromkeys((1053, 1079, 1080, 1152, 1159, 1160, 1161, 1184, 1317, 1927, 3169, 4031), _AWAY),
    **dict.fromkeys((1205, 1213, 1206), _CLASH),
    **dict.fromkeys((1045, 1130, 1698, 1820, 1862, 3118, 4151), _LOGIN),
    **dict.fromkeys((1044, 1142, 1143, 1227, 1370, 1410), _RIGHTS),
    1049: _Rule(UsageError, "Check the database name in the DSN."),
    _NO_TLS: _TLS,
    3159: _Rule(UsageError, "Add ?ssl_mode=required to the DSN."),
    1412: _Rule(TableChanged, "The table is copied again."),
    1146: _Rule(TableChanged, "The table is copied again if it comes back."),
    1054: _Rule(TableChanged, "The table is copied again."),
    1290: _Rule(OperatorNeeded, "The server runs with an option that forbids this."),
    1381: _Rule(UsageError, "Binary logging is off: start the server with --log-bin."),
}


def classify(error: err.MySQLError, dsn: Dsn) -> CdcError:
    """Decide what an error of the server or the client library means for a pipeline."""
    failure = getattr(error, "original_exception", None)
    if isinstance(failure, ssl.SSLCertVerificationError):
        return UsageError(f"{dsn}: the server's certificate is not accepted: {failure.verify_message}", hint=_TLS.hint)
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    text = str(error.args[1]) if len(error.args) > 1 else str(error)
    text = text or "the connection is closed."  # of which PyMySQL says nothing
    return server_error(code, text, dsn)


def server_error(code: int, text: str, dsn: Dsn) -> CdcError:
    """The same from a number and a text."""
    text = without(text, dsn.password)
    if "cryptography" in text:
        return UsageError(f"{dsn}: {text}", hint="pip install cryptography")
    if code == 1236 or "same server_uuid" in text:
        return _dump_error(text, dsn)
    if rule := ERRORS.get(code):
        return rule.error(f"{dsn}: {text} (error {code})", hint=rule.hint)
    if code == 0 or 2000 <= code < 3000:
        return Unavailable(f"{dsn}: {text}", hint="It is tried again.")
    return OperatorNeeded(f"{dsn}: {text} (error {code})", hint="The server's log says more.")


_RESYNC = "Run `cdc teardown SOURCE TARGET`, remove the target, and start again: what lies between is lost."


def _dump_error(text: str, dsn: Dsn) -> CdcError:
    """All that a dump may fail of has one number (1236, ER_MASTER_FATAL_ERROR_READING_BINLOG)."""
    lower = text.lower()
    if "same server_uuid" in lower or "same server_id" in lower:
        return SlotBusy(
            f"{dsn}: another reader with the server id of this pipeline has connected.",
            hint="Stop the other one: two pipelines must not have the checkpoint of one target.",
        )
    if "max_allowed_packet" in lower and "exceeded" in lower:
        return LogLost(
            f"{dsn}: {text}",
            hint="The position is not one of this server's log, or an event is larger than its max_allowed_packet. "
            + _RESYNC,
        )
    if any(word in lower for word in ("could not find first log", "purged", "gtid", "not in the master", "impossible")):
        return LogLost(
            f"{dsn}: the server does not have the log from the checkpoint on any more ({text}).",
            hint="Keep the log for longer (binlog_expire_logs_seconds, expire_logs_days). " + _RESYNC,
        )
    return OperatorNeeded(f"{dsn}: {text} (error 1236)", hint="The server's log says more.")
