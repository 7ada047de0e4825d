"""Schemas beside Debezium's payloads, as Kafka Connect's JsonConverter reads them.

That converter takes a text where a number is announced for 0, and a number that is too large for another one, in
silence. So every message announces what stands in it: where a value is a text although its column's type is a number,
the field is a string in this message. Only a key is required, since the log may have nothing of all else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc.formats.debezium_values import bit_width, is_zoned_time
from cdc.formats.text import Piece, literal
from cdc.model.arrays import LARGE
from cdc.model.schema import Column, Kind, TableSchema

Texts = Mapping[int, np.ndarray]  # by column, where there are any: bool[n], which of n messages have a text there

# Kind -> literal type and semantic type of Kafka Connect; a string for all others.
_TYPES: dict[Kind, tuple[str, str | None]] = {
    Kind.BOOL: ("boolean", None),
    Kind.INT16: ("int16", None),
    Kind.INT32: ("int32", None),
    Kind.INT64: ("int64", None),
    Kind.UINT32: ("int64", None),
    Kind.UINT64: ("int64", None),
    Kind.FLOAT32: ("float", None),
    Kind.FLOAT64: ("double", None),
    Kind.DATE: ("int32", "io.debezium.time.Date"),
    Kind.TIME: ("int64", "io.debezium.time.MicroTime"),
    Kind.TIMESTAMP: ("int64", "io.debezium.time.MicroTimestamp"),
    Kind.TIMESTAMPTZ: ("string", "io.debezium.time.ZonedTimestamp"),
    Kind.UUID: ("string", "io.debezium.data.Uuid"),
    Kind.JSON: ("string", "io.debezium.data.Json"),
}
_COMMON = "io.debezium.connector.common"
_POSTGRES = "io.debezium.connector.postgresql"
_SCHEMA = "io.debezium.connector.schema"
_MOMENTS = ("ts_ms", "ts_us", "ts_ns")

Described = dict[str, object]


def stray(column: Column) -> str | None:
    """How a text begins that stands for a value of another type; None if all values of the column are texts."""
    match _announced(column)["type"]:
        case "string":
            return None
        case "bytes":
            return '"_'  # no base64 begins so, but what stands for a value that the log left out
    return '"'


class Schemas:
    """The schemas of a pipeline's messages, each as pieces of JSON that say what `joined` makes of them."""

    def __init__(self, pipeline: str, connector: str) -> None:
        self._pipeline = pipeline
        self._connector = connector
        self._source = _source(connector)
        self._rest = ",".join(
            literal(field)
            for field in (
                self._source,
                _field("op", "string", optional=False),
                *(_field(name, "int64") for name in _MOMENTS),
                _BLOCK,
            )
        )

    def value(self, schema: TableSchema, before: Texts, after: Texts) -> list[Piece]:
        """Of a row's change."""
        name = f"{self._pipeline}.{schema.table}"
        columns = range(len(schema.columns))
        return [
            '{"type":"struct","fields":[',
            *(*_row(schema, columns, before, f"{name}.Value", "before"), ","),
            *(*_row(schema, columns, after, f"{name}.Value", "after"), ","),
            f'{self._rest}],"optional":false,"name":{literal(f"{name}.Envelope")},"version":2}}',
        ]

    def key(self, schema: TableSchema, texts: Texts) -> list[Piece]:
        """Of a row's key."""
        return _row(schema, schema.key, texts, f"{self._pipeline}.{schema.table}.Key", None)

    @property
    def note(self) -> tuple[str, str]:
        """Of an annotation's key and value."""
        prefix = _field("prefix", "string")
        message = _struct(f"{_POSTGRES}.Message", prefix, _field("content", "string"), field="message", optional=True)
        fields = (
            _field("op", "string", optional=False),
            *(_field(name, "int64") for name in _MOMENTS),
            *(self._source, _BLOCK, message),
        )
        return literal(_struct(f"{_POSTGRES}.MessageKey", prefix)), literal(
            _struct(f"{_POSTGRES}.MessageValue", *fields)
        )

    @property
    def shape(self) -> tuple[str, str]:
        """The schemas of the key and the value of a message about a table's shape."""
        number = "int64"
        columns = _struct(
            f"{_SCHEMA}.Column",
            _field("name", "string", optional=False),
            _field("typeName", "string", optional=False),
            _field("position", "int32", optional=False),
            _field("identity", number, optional=False),
        )
        table = _struct(
            f"{_SCHEMA}.Table",
            _field("identity", number, optional=False),
            _array("primaryKeyColumnNames", {"type": "string", "optional": False}),
            _array("columns", columns),
            field="table",
        )
        change = _struct(
            f"{_SCHEMA}.Change",
            _field("type", "string", optional=False),
            _field("id", "string", optional=False),
            table,
        )
        texts = (_field(name, "string") for name in ("databaseName", "schemaName", "ddl"))
        moments = (_field(name, "int64") for name in _MOMENTS)
        place = f"io.debezium.connector.{self._connector}"
        value = _struct(f"{place}.SchemaChangeValue", self._source, *moments, *texts, _array("tableChanges", change))
        key = _struct(f"{place}.SchemaChangeKey", _field("identity", number, optional=False))
        return literal(key), literal(value)

    @property
    def transaction(self) -> tuple[str, str]:
        """Of the key and the value of a message about a transaction."""
        identity = _field("id", "string", optional=False)
        counts = _struct(
            "event.collection",
            _field("data_collection", "string", optional=False),
            _field("event_count", "int64", optional=False),
            optional=True,
        )
        value = _struct(
            f"{_COMMON}.TransactionMetadataValue",
            _field("status", "string", optional=False),
            identity,
            _field("event_count", "int64"),
            _array("data_collections", counts),
            _field("ts_ms", "int64", optional=False),
        )
        return literal(_struct(f"{_COMMON}.TransactionMetadataKey", identity)), literal(value)


def table_change(schema: TableSchema, *, is_first: bool) -> Described:
    """A shape as Debezium has it, without what no log has (JDBC's types, lengths, defaults); `identity` is ours."""
    table = schema.table
    columns = [
        {"name": column.name, "typeName": column.source_type, "position": place, "identity": column.identity}
        for place, column in enumerate(schema.columns, 1)
    ]
    names = [schema.columns[index].name for index in schema.key]
    return {
        "type": "CREATE" if is_first else "ALTER",
        "id": ".".join('"{}"'.format(name.replace('"', '""')) for name in (table.schema, table.name)),
        "table": {"identity": schema.identity, "primaryKeyColumnNames": names, "columns": columns},
    }


def _field(name: str, kind: str, *, optional: bool = True) -> Described:
    return {"type": kind, "optional": optional, "field": name}


def _struct(name: str, *fields: Described, field: str | None = None, optional: bool = False) -> Described:
    made: Described = {"type": "struct", "fields": fields, "optional": optional, "name": name, "version": 1}
    return made | ({"field": field} if field is not None else {})


def _array(name: str, items: Described) -> Described:
    return {"type": "array", "items": items, "optional": True, "field": name}


_BLOCK = _struct(
    "event.block",
    _field("id", "string", optional=False),
    _field("total_order", "int64", optional=False),
    _field("data_collection_order", "int64", optional=False),
    field="transaction",
    optional=True,
)


def _source(connector: str) -> Described:
    texts, longs = ["version", "connector", "name", "snapshot", "db", "table", "sequence"], [*_MOMENTS]
    if connector == "postgresql":
        texts, longs = [*texts, "schema"], [*longs, "txId", "lsn", "xmin"]
    else:
        texts, longs = [*texts, "gtid", "file", "query"], [*longs, "server_id", "pos", "row", "thread"]
    fields = [_field(name, "string") for name in texts] + [_field(name, "int64") for name in longs]
    return _struct(f"io.debezium.connector.{connector}.Source", *fields, field="source")


def _row(schema: TableSchema, columns: Sequence[int], texts: Texts, name: str, field: str | None) -> list[Piece]:
    """Of a row, or of a key."""
    pieces: list[Piece] = ['{"type":"struct","fields":[']
    for index in columns:
        pieces += ["," if len(pieces) > 1 else "", _column(schema.columns[index], texts.get(index))]
    rest: Described = {"optional": field is not None, "name": name}
    rest |= {"field": field} if field is not None else {}
    return [*pieces, f"],{literal(rest)[1:]}"]


def _column(column: Column, texts: np.ndarray | None) -> Piece:
    optional = column.key is None
    announced = {**_announced(column), "optional": optional, "field": column.name}
    if texts is None:
        return literal(announced)
    as_text = literal(_field(column.name, "string", optional=optional))
    return pc.if_else(pa.array(texts), pa.scalar(as_text, LARGE), pa.scalar(literal(announced), LARGE))


def _announced(column: Column) -> Described:
    """The type of a column's values, and what that means."""
    width = bit_width(column)
    kind, name = _TYPES.get(column.type.kind, ("string", None))
    if width is not None:
        kind, name = ("boolean", None) if width == 1 else ("bytes", "io.debezium.data.Bits")
    elif is_zoned_time(column):
        name = "io.debezium.time.ZonedTime"
    meaning: Described = {"name": name, "version": 1} if name else {}
    return {"type": kind, **meaning, **({"parameters": {"length": str(width)}} if kind == "bytes" else {})}
