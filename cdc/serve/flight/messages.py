"""The messages of Arrow Flight SQL that are answered.

Source: FlightSql.proto of Apache Arrow, whose numbers and names these are. They are made when this is imported, so no
generated code has to be kept.
"""

from __future__ import annotations

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

PACKAGE = "arrow.flight.protocol.sql"
_TEXT, _BYTES, _BOOL, _UINT32, _INT64 = 9, 12, 8, 13, 3
_OPTIONAL, _REPEATED = 1, 3

_FIELDS: dict[str, list[tuple[str, int, int, int]]] = {
    "CommandGetSqlInfo": [("info", 1, _UINT32, _REPEATED)],
    "CommandGetXdbcTypeInfo": [],
    "CommandGetCatalogs": [],
    "CommandGetDbSchemas": [("catalog", 1, _TEXT, _OPTIONAL), ("db_schema_filter_pattern", 2, _TEXT, _OPTIONAL)],
    "CommandGetTables": [
        ("catalog", 1, _TEXT, _OPTIONAL),
        ("db_schema_filter_pattern", 2, _TEXT, _OPTIONAL),
        ("table_name_filter_pattern", 3, _TEXT, _OPTIONAL),
        ("table_types", 4, _TEXT, _REPEATED),
        ("include_schema", 5, _BOOL, _OPTIONAL),
    ],
    "CommandGetTableTypes": [],
    "CommandGetPrimaryKeys": [
        ("catalog", 1, _TEXT, _OPTIONAL),
        ("db_schema", 2, _TEXT, _OPTIONAL),
        ("table", 3, _TEXT, _OPTIONAL),
    ],
    "CommandStatementQuery": [("query", 1, _TEXT, _OPTIONAL), ("transaction_id", 2, _BYTES, _OPTIONAL)],
    "CommandStatementUpdate": [("query", 1, _TEXT, _OPTIONAL), ("transaction_id", 2, _BYTES, _OPTIONAL)],
    "TicketStatementQuery": [("statement_handle", 1, _BYTES, _OPTIONAL)],
    "CommandPreparedStatementQuery": [("prepared_statement_handle", 1, _BYTES, _OPTIONAL)],
    "CommandPreparedStatementUpdate": [("prepared_statement_handle", 1, _BYTES, _OPTIONAL)],
    "ActionCreatePreparedStatementRequest": [
        ("query", 1, _TEXT, _OPTIONAL),
        ("transaction_id", 2, _BYTES, _OPTIONAL),
    ],
    "ActionCreatePreparedStatementResult": [
        ("prepared_statement_handle", 1, _BYTES, _OPTIONAL),
        ("dataset_schema", 2, _BYTES, _OPTIONAL),
        ("parameter_schema", 3, _BYTES, _OPTIONAL),
    ],
    "ActionClosePreparedStatementRequest": [("prepared_statement_handle", 1, _BYTES, _OPTIONAL)],
    "DoPutPreparedStatementResult": [("prepared_statement_handle", 1, _BYTES, _OPTIONAL)],
}


def _made() -> dict[str, type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(name="cdc_flight_sql.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind, label in fields:
            optional = label == _OPTIONAL  # so that it can be seen whether it was set
            message.field.add(
                name=field,
                number=number,
                type=kind,
                label=label,
                proto3_optional=optional,
                **({"oneof_index": len(message.oneof_decl)} if optional else {}),
            )
            if optional:
                message.oneof_decl.add(name=f"_{field}")
    pool = descriptor_pool.DescriptorPool()  # of our own: a program may have the original in the common one
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _FIELDS}


MESSAGES = _made()


def unpacked(content: bytes) -> tuple[str, Message]:
    """A message and its name; raises ValueError if it is not one that is answered."""
    packed = any_pb2.Any()
    packed.ParseFromString(content)
    name = packed.type_url.rpartition(f"{PACKAGE}.")[2]
    if name not in MESSAGES:
        raise ValueError(name)
    message = MESSAGES[name]()
    message.ParseFromString(packed.value)
    return name, message


def packed(name: str, **fields: object) -> bytes:
    """A message as it travels."""
    envelope = any_pb2.Any()
    envelope.Pack(MESSAGES[name](**fields))
    return bytes(envelope.SerializeToString())
