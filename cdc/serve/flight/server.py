"""Answers Arrow Flight SQL, as the drivers of ADBC and JDBC speak it."""

from __future__ import annotations

import base64
import binascii
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl
from google.protobuf.message import DecodeError
from sqlglot import exp

from cdc.serve.access import Access
from cdc.serve.address import Address
from cdc.serve.editions import Editions
from cdc.serve.flight.messages import MESSAGES, packed, unpacked
from cdc.serve.flight.readers import Readers
from cdc.serve.pgwire.parameters import written
from cdc.serve.reading import Reader
from cdc.targets.duckdb.refusals import NO_FILE, NOT_OFFERED, READ_ONLY, TOO_LONG, TOO_MANY, Refused
from cdc.targets.duckdb.statements import places, refuse_writing, with_values
from cdc.version import VERSION

_PREPARED = 1_000  # statements at a time; the one that was used longest ago goes first
_TOKENS = 10_000
_TEXT = pa.string()

_UNION = pa.dense_union(
    [
        pa.field("string_value", pa.string()),
        pa.field("bool_value", pa.bool_()),
        pa.field("bigint_value", pa.int64()),
        pa.field("int32_bitmask", pa.int32()),
        pa.field("string_list", pa.list_(pa.string())),
        pa.field("int32_to_int32_list_map", pa.map_(pa.int32(), pa.list_(pa.int32()))),
    ]
)
_SCHEMAS = {
    "CommandGetSqlInfo": pa.schema([pa.field("info_name", pa.uint32(), False), pa.field("value", _UNION, False)]),
    "CommandGetCatalogs": pa.schema([pa.field("catalog_name", _TEXT, False)]),
    "CommandGetDbSchemas": pa.schema([("catalog_name", _TEXT), pa.field("db_schema_name", _TEXT, False)]),
    "CommandGetTableTypes": pa.schema([pa.field("table_type", _TEXT, False)]),
    "CommandGetPrimaryKeys": pa.schema(
        [
            ("catalog_name", _TEXT),
            ("db_schema_name", _TEXT),
            pa.field("table_name", _TEXT, False),
            pa.field("column_name", _TEXT, False),
            pa.field("key_sequence", pa.int32(), False),
            ("key_name", _TEXT),
        ]
    ),
}
_TABLES = pa.schema(
    [
        ("catalog_name", _TEXT),
        ("db_schema_name", _TEXT),
        pa.field("table_name", _TEXT, False),
        pa.field("table_type", _TEXT, False),
    ]
)
_TABLE_SCHEMA = pa.field("table_schema", pa.binary(), False)
# Numbers of SqlInfo (FlightSql.proto) with the place of the union that their value has.
_INFO: dict[int, tuple[int, object]] = {
    0: (0, "cdc"),
    1: (0, VERSION),
    2: (0, pa.__version__),
    3: (1, True),  # read only
    4: (1, True),  # SQL
    5: (1, False),  # Substrait
    8: (3, 0),  # no transactions
    9: (1, False),  # no cancelling but by ending the call
}


@dataclass(slots=True)
class Prepared:
    """A statement, and the SQL of its values once they are bound."""

    sql: str
    values: list[str] | None = None


class FlightServer:
    """Listens at an address."""

    def __init__(self, address: Address, editions: Editions, access: Access) -> None:
        host = f"[{address.host}]" if ":" in address.host else address.host
        certificates = None
        scheme = "tcp"
        if access.certificate is not None and access.key is not None:
            scheme = "tls"
            certificates = [(access.certificate.read_bytes(), access.key.read_bytes())]
        try:
            self._server = _Answering(
                editions,
                f"grpc+{scheme}://{host}:{address.port}",
                # The handshake itself is answered by what looks at the headers of each call.
                auth_handler=_NoHandshake(),
                tls_certificates=certificates,
                middleware={"access": _Doorkeeper(access)},
            )
        except pa.ArrowException as error:
            raise OSError(str(error)) from error

    def start(self) -> Callable[[], None]:
        """Begin, on threads of its own; what ends it."""
        threading.Thread(target=self._server.serve, name="flight", daemon=True).start()
        ending: Callable[[], None] = self._server.shutdown
        return ending


class _NoHandshake(fl.ServerAuthHandler):  # type: ignore[misc]  # pyarrow has no types
    """Lets the call through by which a client gives its name and password in a header."""

    def authenticate(self, outgoing: object, incoming: object) -> None:
        pass

    def is_valid(self, token: bytes) -> bytes:
        return b""


class _Doorkeeper(fl.ServerMiddlewareFactory):  # type: ignore[misc]
    """Takes a name and a password, and gives a token for the calls that follow."""

    def __init__(self, access: Access) -> None:
        super().__init__()
        self._access = access
        self._tokens: OrderedDict[str, None] = OrderedDict()

    def start_call(self, info: object, headers: dict[str, list[str]]) -> fl.ServerMiddleware | None:
        given = next((values[0] for name, values in headers.items() if name.lower() == "authorization"), "")
        scheme, _, content = given.partition(" ")
        if scheme.lower() == "bearer" and content in self._tokens:
            self._tokens.move_to_end(content)
            return None
        user = password = ""
        if scheme.lower() == "basic":
            padded = content + "=" * (-len(content) % 4)  # which Go leaves out
            try:
                user, _, password = base64.b64decode(padded).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError) as error:
                raise fl.FlightUnauthenticatedError("The header is no name and password.") from error
        if not self._access.allows(user, password):
            raise fl.FlightUnauthenticatedError("A name and a password are needed, and these are not the right ones.")
        if scheme.lower() != "basic":
            return None
        token = secrets.token_urlsafe(24)
        self._tokens[token] = None
        while len(self._tokens) > _TOKENS:
            self._tokens.popitem(last=False)
        return _Token(token)


class _Token(fl.ServerMiddleware):  # type: ignore[misc]
    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token

    def sending_headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token}"}


class _Answering(fl.FlightServerBase):  # type: ignore[misc]
    def __init__(self, editions: Editions, location: str, **arguments: Any) -> None:
        self._editions = editions
        self._readers = Readers(editions)
        self._prepared: OrderedDict[bytes, Prepared] = OrderedDict()
        super().__init__(location, **arguments)

    def get_flight_info(self, context: fl.ServerCallContext, descriptor: fl.FlightDescriptor) -> fl.FlightInfo:
        with _as_flight():
            name, message = _message(descriptor.command)
            ticket = descriptor.command
            match name:
                case "CommandStatementQuery":
                    schema = self._schema(message.query)
                    ticket = packed("TicketStatementQuery", statement_handle=message.query.encode())
                case "CommandPreparedStatementQuery":
                    schema = self._schema(self._bound(message.prepared_statement_handle))
                case "CommandGetTables":
                    schema = _TABLES.append(_TABLE_SCHEMA) if message.include_schema else _TABLES
                case _ if name in _SCHEMAS:
                    schema = _SCHEMAS[name]
                case _:
                    raise Refused(f"{name} is not offered.", NOT_OFFERED)
            return fl.FlightInfo(schema, descriptor, [fl.FlightEndpoint(ticket, [])], -1, -1)

    def get_schema(self, context: fl.ServerCallContext, descriptor: fl.FlightDescriptor) -> fl.SchemaResult:
        return fl.SchemaResult(self.get_flight_info(context, descriptor).schema)

    def do_get(self, context: fl.ServerCallContext, ticket: fl.Ticket) -> fl.FlightDataStream:
        with _as_flight():
            name, message = _message(ticket.ticket)
            match name:
                case "TicketStatementQuery":
                    return self._stream(context, message.statement_handle.decode())
                case "CommandPreparedStatementQuery":
                    return self._stream(context, self._bound(message.prepared_statement_handle))
                case "CommandGetSqlInfo":
                    return fl.RecordBatchStream(_sql_info(list(message.info)))
                case "CommandGetPrimaryKeys":
                    return fl.RecordBatchStream(_SCHEMAS[name].empty_table())
                case "CommandGetTableTypes":
                    return fl.RecordBatchStream(pa.table([["BASE TABLE", "VIEW"]], schema=_SCHEMAS[name]))
                case "CommandGetCatalogs":
                    return fl.RecordBatchStream(pa.table([[self._editions.name]], schema=_SCHEMAS[name]))
                case "CommandGetDbSchemas":
                    query = (
                        "SELECT catalog_name, schema_name FROM information_schema.schemata WHERE schema_name NOT IN "
                    )
                    query += "('pg_catalog', 'information_schema')"
                    query += _alike("schema_name", message, "db_schema_filter_pattern") + _of_catalog(message)
                    with self._readers.one() as reader:
                        return fl.RecordBatchStream(self._table(reader, query + " ORDER BY 1, 2", _SCHEMAS[name]))
                case "CommandGetTables":
                    return fl.RecordBatchStream(self._tables(message))
            raise Refused(f"{name} is not offered.", NOT_OFFERED)

    def do_action(self, context: fl.ServerCallContext, action: fl.Action) -> Iterator[fl.Result]:
        with _as_flight():
            name, message = _message(action.body.to_pybytes())
            if action.type == "CreatePreparedStatement" and name == "ActionCreatePreparedStatementRequest":
                handle = secrets.token_bytes(16)
                count = places(message.query)
                schema = self._schema(with_values(message.query, ["NULL"] * count))
                self._prepared[handle] = Prepared(message.query, None if count else [])
                while len(self._prepared) > _PREPARED:
                    self._prepared.popitem(last=False)
                parameters = pa.schema([(f"${place}", pa.null()) for place in range(1, count + 1)])
                answer = packed(
                    "ActionCreatePreparedStatementResult",
                    prepared_statement_handle=handle,
                    dataset_schema=schema.serialize().to_pybytes(),
                    parameter_schema=parameters.serialize().to_pybytes() if count else b"",
                )
                return iter([fl.Result(pa.py_buffer(answer))])
            if action.type == "ClosePreparedStatement" and name == "ActionClosePreparedStatementRequest":
                self._prepared.pop(message.prepared_statement_handle, None)
                return iter([])
            raise Refused(f"{action.type} is not offered.", NOT_OFFERED)

    def list_actions(self, context: fl.ServerCallContext) -> list[tuple[str, str]]:
        return [("CreatePreparedStatement", ""), ("ClosePreparedStatement", "")]

    def do_put(
        self,
        context: fl.ServerCallContext,
        descriptor: fl.FlightDescriptor,
        reader: fl.MetadataRecordBatchReader,
        writer: fl.FlightMetadataWriter,
    ) -> None:
        with _as_flight():
            name, message = _message(descriptor.command)
            if name != "CommandPreparedStatementQuery":
                query = message.query if name == "CommandStatementUpdate" else ""
                refuse_writing(query or "INSERT INTO t VALUES (1)")
                raise Refused(f"{name} is not offered.", NOT_OFFERED)
            rows = reader.read_all().to_pylist()
            if len(rows) != 1:
                raise Refused("A statement is carried out for one row of values at a time.", NOT_OFFERED)
            handle = message.prepared_statement_handle
            self._known(handle).values = [written(value) for value in rows[0].values()]
            answer = MESSAGES["DoPutPreparedStatementResult"](prepared_statement_handle=handle)
            writer.write(pa.py_buffer(answer.SerializeToString()))

    def _known(self, handle: bytes) -> Prepared:
        if handle not in self._prepared:
            raise Refused("There is no such prepared statement.", "26000")
        self._prepared.move_to_end(handle)
        return self._prepared[handle]

    def _bound(self, handle: bytes) -> str:
        prepared = self._known(handle)
        return with_values(prepared.sql, prepared.values) if prepared.values else prepared.sql

    def _schema(self, sql: str) -> pa.Schema:
        with self._readers.one() as reader:
            return reader.ask(sql).reader().schema

    def _stream(self, context: fl.ServerCallContext, sql: str) -> fl.FlightDataStream:
        schema, found = self._readers.stream(sql, context.is_cancelled)

        def batches() -> Iterator[pa.RecordBatch]:
            with _as_flight():
                yield from found

        return fl.GeneratorStream(schema, batches())

    def _table(self, reader: Reader, sql: str, schema: pa.Schema) -> pa.Table:
        question = reader.ask(sql)
        batches = list(question.batches(question.reader()))
        arrays = [pa.concat_arrays([batch.column(place) for batch in batches]) for place in range(len(schema))]
        return pa.table(arrays, schema=schema) if batches else schema.empty_table()

    def _tables(self, message: Any) -> pa.Table:
        query = "SELECT table_catalog, table_schema, table_name, table_type FROM information_schema.tables WHERE true"
        query += _alike("table_schema", message, "db_schema_filter_pattern")
        query += _alike("table_name", message, "table_name_filter_pattern") + _of_catalog(message, "table_catalog")
        if message.table_types:
            kinds = ["BASE TABLE" if kind == "TABLE" else kind for kind in message.table_types]
            query += f" AND table_type IN ({', '.join(written(kind) for kind in kinds)})"
        with self._readers.one() as reader:
            found = self._table(reader, query + " ORDER BY 1, 2, 3", _TABLES)
            if not message.include_schema:
                return found
            shapes = []
            for row in found.to_pylist():
                named = exp.table_(row["table_name"], row["db_schema_name"], quoted=True).sql(dialect="duckdb")
                shape = reader.ask(f"SELECT * FROM {named} LIMIT 0").reader().schema
                shapes.append(shape.serialize().to_pybytes())
        return found.append_column(_TABLE_SCHEMA, pa.array(shapes, pa.binary()))


@contextmanager
def _as_flight() -> Iterator[None]:
    """What went wrong, as Flight has it."""
    kinds = {
        READ_ONLY: fl.FlightUnauthorizedError,
        TOO_LONG: fl.FlightTimedOutError,
        NO_FILE: fl.FlightUnavailableError,
        TOO_MANY: fl.FlightUnavailableError,
    }
    try:
        yield
    except Refused as error:
        text = f"{error.message} {error.hint}" if error.hint else error.message
        if error.sqlstate == NOT_OFFERED:  # which pyarrow sends as the status UNIMPLEMENTED
            raise NotImplementedError(text) from error
        raise kinds.get(error.sqlstate, pa.ArrowInvalid)(text) from error


def _message(content: bytes) -> tuple[str, Any]:
    try:
        return unpacked(content)
    except (ValueError, DecodeError) as error:
        raise Refused(f"{error} is not offered, or is no message of Flight SQL.", NOT_OFFERED) from error


def _alike(column: str, message: Any, field: str) -> str:
    pattern = dict(_set(message)).get(field)
    return f" AND {column} LIKE {written(pattern)}" if pattern is not None else ""


def _set(message: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a message that were set."""
    for descriptor, value in message.ListFields():
        yield descriptor.name, value


def _of_catalog(message: Any, column: str = "catalog_name") -> str:
    return f" AND {column} = {written(message.catalog)}" if message.HasField("catalog") and message.catalog else ""


def _sql_info(wanted: list[int]) -> pa.Table:
    chosen = {number: entry for number, entry in _INFO.items() if not wanted or number in wanted}
    children: list[list[object]] = [[] for _ in range(_UNION.num_fields)]
    offsets = []
    for place, value in chosen.values():
        offsets.append(len(children[place]))
        children[place].append(value)
    values = pa.UnionArray.from_dense(
        pa.array([place for place, _ in chosen.values()], pa.int8()),
        pa.array(offsets, pa.int32()),
        [pa.array(child, _UNION.field(place).type) for place, child in enumerate(children)],
        [_UNION.field(place).name for place in range(_UNION.num_fields)],
    )
    return pa.table([pa.array(list(chosen), pa.uint32()), values], schema=_SCHEMAS["CommandGetSqlInfo"])
