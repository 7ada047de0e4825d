"""The library's own decoder as a second opinion, on the types that it reads right."""

from __future__ import annotations

from typing import Any

from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent

from cdc.model.change import events as as_events
from cdc.model.schema import TableName
from cdc.model.segment import Changes, Step
from cdc.sources.mysql.binlog import Decoder
from cdc.sources.mysql.catalog import named_tables, user_tables
from cdc.sources.mysql.charsets import ServerConverter
from cdc.sources.mysql.connection import Connection, Dsn
from cdc.sources.mysql.dump import log_events
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.tables import plan_rows
from integration.conftest import MySqlDatabase

Row = tuple[Any, ...]


def test_the_same_rows(my: MySqlDatabase) -> None:
    """B-24, B-58: inserts, updates and deletes, old and new rows, one by one in the log's order."""
    my.execute(
        "FLUSH BINARY LOGS", "CREATE TABLE t (id int PRIMARY KEY, v varchar(300), n bigint unsigned, d decimal(65,30))"
    )
    my.execute(
        *[f"INSERT INTO t VALUES ({i}, REPEAT('é', {i}), {2**64 - 1 - i}, -{i}.{i})" for i in range(1, 130)],
        "UPDATE t SET v = NULL, n = n - 7 WHERE id % 3 = 0",
        "UPDATE t SET id = id + 1000, d = d * 1.000000001 WHERE id % 7 = 0",
        "DELETE FROM t WHERE id % 5 = 0",
    )
    file = my.execute("SHOW BINARY LOGS")[-1][0]
    assert ours(my, file) == library(my, file)


def ours(my: MySqlDatabase, file: str) -> list[tuple[Row | None, Row | None]]:
    dsn = Dsn.parse(my.dsn)
    with Connection(dsn, "test") as connection:
        (table,) = named_tables(connection, [user_tables(connection, my.name)[0].name]).values()

        class Tables:
            def start(self, name: TableName) -> int:
                return 0

            def plan(self, table_map: Any) -> Any:
                from dataclasses import replace

                whole = replace(table.identified(1).schema, full_before=True)
                return (
                    plan_rows(replace(table, schema=whole).followed(0, copied=True), table_map)
                    if table_map.table == "t"
                    else None
                )

            def statement(self, *_: object) -> list[Step]:
                return []

        is_mariadb = my.flavor == "mariadb"
        decoder = Decoder(Tables(), ServerConverter(connection), LogPlace(file, 0), {}, {}, {}, is_mariadb=is_mariadb)
        decoded = decoder.decode(log_events(dsn, 4_000_000_001, file))
    return [
        (event.before and tuple(event.before.values()), event.after and tuple(event.after.values()))
        for step in decoded.steps
        if isinstance(step, Changes)
        for event in as_events(step.batch, decoded.transactions)
    ]


def library(my: MySqlDatabase, file: str) -> list[tuple[Row | None, Row | None]]:
    stream = BinLogStreamReader(
        connection_settings={"host": "127.0.0.1", "port": my.server.port, "user": "cdc", "passwd": my.server.password},
        server_id=4_000_000_002,
        log_file=file,
        log_pos=4,
        resume_stream=True,
        only_events=[WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent],
        only_schemas=[my.name],
    )
    found = []
    for event in stream:
        for row in event.rows:
            before = row.get("before_values") or (row["values"] if isinstance(event, DeleteRowsEvent) else None)
            after = row.get("after_values") or (row["values"] if isinstance(event, WriteRowsEvent) else None)
            found.append((before and texts(before), after and texts(after)))
    stream.close()
    return found


def texts(row: dict[str, Any]) -> Row:
    return tuple(
        None if value is None else format(value, "f") if hasattr(value, "as_tuple") else str(value)
        for value in row.values()
    )
