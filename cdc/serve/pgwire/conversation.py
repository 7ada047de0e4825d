"""One client's conversation by the PostgreSQL protocol: what it says, and what it is answered.

Source: "Frontend/Backend Protocol" of PostgreSQL's manual, version 3.0. Messages are made and read by pygwire.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from psycopg.pq import Format
from pygwire import messages as m
from pygwire.constants import TransactionStatus

from cdc.serve.catalog import DATABASE, SETTINGS
from cdc.serve.pgwire.link import Link
from cdc.serve.pgwire.parameters import literal
from cdc.serve.pgwire.values import TEXT, Column, column, data_rows
from cdc.serve.reading import Question, Reader
from cdc.targets.duckdb.refusals import Refused
from cdc.targets.duckdb.statements import places, statements, with_values

_LARGEST = 16 << 20  # bytes of a message

_REPORTED = (
    *("server_version", "server_encoding", "client_encoding", "DateStyle", "TimeZone", "IntervalStyle"),
    *("integer_datetimes", "standard_conforming_strings", "is_superuser", "in_hot_standby"),
    "default_transaction_read_only",
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement with places for values.

    Attributes:
        types: of the values, as the client has given them; 0 where it has not.
    """

    sql: str
    types: list[int]


@dataclass(slots=True)
class Portal:
    """A statement with its values, and how far its answer was fetched."""

    sql: str
    formats: list[int]
    question: Question | None = None
    columns: list[Column] = field(default_factory=list)
    batches: Iterator[pa.RecordBatch] | None = None
    rest: pa.RecordBatch | None = None
    sent: int = 0


class Conversation:
    """A client that was let in, to its last byte.

    Args:
        key: the number and the secret by which the client may have a query cancelled.
    """

    def __init__(self, link: Link, reader: Reader, key: tuple[int, bytes]) -> None:
        self._link = link
        self._reader = reader
        self._key = key
        self._prepared: dict[str, Prepared] = {}
        self._portals: dict[str, Portal] = {}
        self._settings = dict(SETTINGS)
        self._is_inside = False  # of a transaction that the client has begun
        self._has_failed = False
        self._skips = False  # until Sync, after an error

    def hold(self, introduction: m.StartupMessage) -> None:
        """Talk until the end."""
        self._link.over_at = lambda: self._reader.over_at
        try:
            with self._link.talking():
                self._welcome(introduction)
                for message in self._link.received(_LARGEST):
                    self._take(message)
                    if isinstance(message, m.Terminate):
                        return
        except TimeoutError:
            longest = self._reader.limits.transaction
            self._link.refuse("25P04", f"The transaction was open for longer than {longest:g} s. Begin another one.")
        finally:
            self._reader.end()

    def _welcome(self, introduction: m.StartupMessage) -> None:
        self._say(m.AuthenticationOk())
        for name in _REPORTED:
            self._say(m.ParameterStatus(name, self._settings[name.lower()]))
        database = introduction.params.get("database") or introduction.params.get("user", "")
        self._reader.variables[DATABASE] = database
        self._say(m.BackendKeyData(*self._key))
        self._ready()

    def _say(self, message: m.PGMessage) -> None:
        self._link.say(message)

    def _fail(self, error: Refused) -> None:
        fields = {"S": "ERROR", "V": "ERROR", "C": error.sqlstate, "M": error.message.replace("\0", "")}
        self._say(m.ErrorResponse(fields | ({"H": error.hint} if error.hint else {})))
        self._portals.clear()
        self._has_failed = self._is_inside
        if self._is_inside:
            self._reader.abandon()
        else:
            self._reader.end()

    # --- messages ---------------------------------------------------------------------------------------------------

    def _take(self, message: m.PGMessage) -> None:
        if isinstance(message, m.Sync):
            self._skips = False
            self._settle()
            self._ready()
            return
        if self._skips:
            return
        try:
            match message:
                case m.Query():
                    self._simple(message.query_string)
                case m.Parse():
                    self._parse(message)
                case m.Bind():
                    self._bind(message)
                case m.Describe():
                    self._describe(message)
                case m.Execute():
                    self._execute(self._portal(message.portal), message.max_rows)
                case m.Close():
                    (self._prepared if message.kind == "S" else self._portals).pop(message.name, None)
                    self._say(m.CloseComplete())
                case m.FunctionCall():
                    raise Refused("Functions are not called by their numbers here.", "0A000")
        except Refused as error:
            self._fail(error)
            self._skips = not isinstance(message, m.Query | m.FunctionCall)
        if isinstance(message, m.Query | m.FunctionCall):
            self._settle()
            self._ready()

    def _ready(self) -> None:
        status = TransactionStatus.IDLE
        if self._is_inside:
            status = TransactionStatus.ERROR_TRANSACTION if self._has_failed else TransactionStatus.IN_TRANSACTION
        self._say(m.ReadyForQuery(status))

    def _settle(self) -> None:
        """What was read outside of a transaction of the client's is over."""
        if not self._is_inside:
            self._portals.clear()
            self._reader.end()

    def _simple(self, text: str) -> None:
        found = statements(text)
        if not found:
            self._say(m.EmptyQueryResponse())
        for statement in found:
            if not self._command(statement):
                portal = Portal(statement, [])
                self._open(portal)
                self._say(_description(portal.columns))
                self._fetch(portal, 0)

    def _parse(self, message: m.Parse) -> None:
        found = statements(message.query)
        if len(found) > 1:
            raise Refused("Several statements cannot be prepared as one.", "42601")
        sql = found[0] if found else ""
        types = message.param_types + [0] * (places(sql) - len(message.param_types))
        self._prepared[message.statement] = Prepared(sql, types)
        self._say(m.ParseComplete())

    def _bind(self, message: m.Bind) -> None:
        prepared = self._prepared_as(message.statement)
        if len(message.param_values) != len(prepared.types):
            raise Refused(f"{len(prepared.types)} values are needed, {len(message.param_values)} came.", "08P01")
        forms = _spread(message.param_formats, len(prepared.types))
        given = [
            literal(value, kind, Format(form))
            for value, kind, form in zip(message.param_values, prepared.types, forms, strict=True)
        ]
        sql = with_values(prepared.sql, given) if given else prepared.sql
        self._portals[message.portal] = Portal(sql, message.result_formats)
        self._say(m.BindComplete())

    def _describe(self, message: m.Describe) -> None:
        if message.kind == "P":
            portal = self._portal(message.name)
            self._open(portal)
            self._say(_description(portal.columns) if portal.columns else m.NoData())
            return
        prepared = self._prepared_as(message.name)
        self._say(m.ParameterDescription([kind or TEXT for kind in prepared.types]))
        portal = Portal(with_values(prepared.sql, ["NULL"] * len(prepared.types)), [])
        self._open(portal)
        self._say(_description(portal.columns) if portal.columns else m.NoData())

    def _execute(self, portal: Portal, most: int) -> None:
        if not portal.sql:
            self._say(m.EmptyQueryResponse())
        elif portal.question is not None or not self._command(portal.sql, described=True):
            self._open(portal)
            self._fetch(portal, most)

    def _prepared_as(self, name: str) -> Prepared:
        if name not in self._prepared:
            raise Refused(f'There is no prepared statement "{name}".', "26000")
        return self._prepared[name]

    def _portal(self, name: str) -> Portal:
        if name not in self._portals:
            raise Refused(f'There is no portal "{name}".', "34000")
        return self._portals[name]

    # --- questions --------------------------------------------------------------------------------------------------

    def _open(self, portal: Portal) -> None:
        """Find out which columns a statement answers with; a command has none."""
        if portal.question is not None or not portal.sql or _is_command(portal.sql):
            shown = _SHOW.fullmatch(portal.sql)
            if shown is not None and portal.question is None:
                portal.columns = [_text_column(shown[1].lower())]
            return
        if self._has_failed:
            raise Refused("The transaction has failed: end it with ROLLBACK.", "25P02")
        portal.question = self._reader.ask(portal.sql)
        names, kinds = portal.question.names, portal.question.types
        forms = _spread(portal.formats, len(names))
        portal.columns = [
            column(name, kind, place, Format(form))
            for place, (name, kind, form) in enumerate(zip(names, kinds, forms, strict=True), 1)
        ]

    def _fetch(self, portal: Portal, most: int) -> None:
        """Send rows, as many as there are or as are wanted."""
        assert portal.question is not None
        if portal.batches is None:
            reader = portal.question.reader([entry.value for entry in portal.columns])
            portal.batches = portal.question.batches(reader)
        sent = 0
        while batch := portal.rest or next(portal.batches, None):
            portal.rest = None
            if most and batch.num_rows > most - sent:
                portal.rest = batch.slice(most - sent)
                batch = batch.slice(0, most - sent)
            self._link.put(data_rows(batch, portal.columns))
            sent += batch.num_rows
            if most and sent == most:
                self._say(m.PortalSuspended())
                return
        word = "EXPLAIN" if portal.sql[:7].upper() == "EXPLAIN" else f"SELECT {sent}"
        self._say(m.CommandComplete(word))

    # --- commands ---------------------------------------------------------------------------------------------------

    def _command(self, sql: str, *, described: bool = False) -> bool:
        """Answer what is no question: transactions and settings."""
        if not _is_command(sql):
            return False
        word = sql.split(None, 1)[0].upper()
        if word == "SHOW":
            self._show(sql, described)
            return True
        if word in ("BEGIN", "START"):
            self._is_inside, word = True, "BEGIN"
        elif word in ("COMMIT", "END", "ROLLBACK", "ABORT") and not re.search(r"\bTO\b", sql, re.IGNORECASE):
            word = "ROLLBACK" if self._has_failed or word in ("ROLLBACK", "ABORT") else "COMMIT"
            self._is_inside = self._has_failed = False
            self._settle()
        elif word in ("ROLLBACK", "ABORT"):
            self._has_failed = False
        elif word == "SET":
            self._set(sql)
        elif word in ("RESET", "DISCARD"):
            self._settings = dict(SETTINGS)
            self._reader.schemas, self._reader.seconds = None, self._reader.limits.seconds
            word = "DISCARD ALL" if word == "DISCARD" else word
        elif word == "DEALLOCATE":
            name = sql.rsplit(maxsplit=1)[-1].strip('"')
            self._prepared = {} if name.upper() == "ALL" else {n: p for n, p in self._prepared.items() if n != name}
        self._say(m.CommandComplete(word))
        return True

    def _set(self, sql: str) -> None:
        found = _SET.match(sql)
        if found is None:  # SET TRANSACTION, SET SESSION CHARACTERISTICS: it reads one edition in any case
            return
        name = "timezone" if found[1].upper() == "TIME ZONE" else found[1].lower()
        value = found[2].strip()
        if name == "search_path":
            self._reader.schemas = None if value.upper() == "DEFAULT" else _names(value)
        if name == "statement_timeout":
            self._reader.seconds = min(_seconds(value) or self._reader.limits.seconds, self._reader.limits.seconds)
        if name not in ("timezone", "client_encoding"):  # values are written in UTC and UTF-8 whatever it says
            self._settings[name] = value.strip("'\"")

    def _show(self, sql: str, described: bool) -> None:
        found = _SHOW.fullmatch(sql)
        assert found is not None
        name = found[1].lower().replace("transaction isolation level", "transaction_isolation").replace(" ", "")
        if name not in self._settings:
            raise Refused(f'There is no setting "{name}".', "42704")
        shown = _text_column(found[1].lower())
        if not described:
            self._say(_description([shown]))
        batch = pa.record_batch([pa.array([self._settings[name]])], ["value"])
        self._link.put(data_rows(batch, [shown]))
        self._say(m.CommandComplete("SHOW"))


_COMMAND = re.compile(
    r"(BEGIN|START\s+TRANSACTION|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|SET|RESET|DISCARD|DEALLOCATE|LISTEN|UNLISTEN"
    r"|NOTIFY|CLOSE)\b",
    re.IGNORECASE,
)
_SHOW = re.compile(r"SHOW\s+((?!tables\b|all\b|databases\b|schemas\b|columns\b)[\w ]+)", re.IGNORECASE)
_SET = re.compile(
    r"SET\s+(?:SESSION\s+|LOCAL\s+)?(TIME\s+ZONE|[\w.]+)\s*(?:=|\bTO\b|\s)\s*(.+)", re.IGNORECASE | re.DOTALL
)
_NAME = re.compile(r"""\s*(?:"((?:[^"]|"")*)"|'((?:[^']|'')*)'|([\w$]+))\s*(?:,|$)""")
_UNITS = {"us": 1e-6, "ms": 1e-3, "": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def _is_command(sql: str) -> bool:
    return _COMMAND.match(sql) is not None or _SHOW.fullmatch(sql) is not None


def _names(text: str) -> list[str]:
    """The names of a list, as `"$user", public`."""
    return [quoted.replace('""', '"') or literal_ or bare.lower() for quoted, literal_, bare in _NAME.findall(text)]


def _seconds(text: str) -> float:
    found = re.fullmatch(r"'?\s*(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d|)\s*'?", text)
    if found is None:
        raise Refused(f"{text} is no time.", "22023")
    return float(found[1]) * _UNITS[found[2]]


def _spread(given: Sequence[int], count: int) -> list[int]:
    """Formats as they are given: of all columns, of each, or not at all, which means text."""
    if len(given) == 1:
        return [given[0]] * count
    if len(given) not in (0, count) or not set(given) <= {0, 1}:
        raise Refused("The formats do not fit the columns.", "08P01")
    return list(given) or [0] * count


def _text_column(name: str) -> Column:
    return Column(name, TEXT, -1, -1, Format.TEXT, "", lambda values: values.cast(pa.binary()))


def _description(columns: Sequence[Column]) -> m.RowDescription:
    return m.RowDescription(
        [m.FieldDescription(entry.name, 0, 0, entry.oid, entry.size, entry.modifier, entry.format) for entry in columns]
    )
