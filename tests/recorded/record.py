"""Record the sessions again, from private servers: python -m tests.recorded.record [postgres] [mariadb] [mysql]"""

from __future__ import annotations

import random
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import pq

from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from cdc.sources.mysql import connection as my
from cdc.sources.mysql.catalog import user_tables as my_tables
from cdc.sources.mysql.dump import open_dump
from cdc.sources.mysql.framing import Framer
from cdc.sources.mysql.identity import log_now
from cdc.sources.mysql.position import LogPlace
from cdc.sources.mysql.state import SourceState as MyState
from cdc.sources.mysql.state import TableState as MyTableState
from cdc.sources.mysql.transactions import event_end
from cdc.sources.postgres import connection as pg
from cdc.sources.postgres.catalog import missing_values, user_tables
from cdc.sources.postgres.position import parse_lsn, write_lsn
from cdc.sources.postgres.source import create_slot
from cdc.sources.postgres.state import SourceState, TableState
from tests.recorded.session import Session, Table, ordered

_TRANSACTIONS = 150
_TEXTS = ["", "x", "é😀", "it''s", "NULL", "a,b{}\\\\", "long " * 60]


def work(rng: random.Random) -> Iterator[list[str]]:
    """Transactions as SQL: any work on `a` and `b` (with keys) and `c` (without), and changes of their shapes."""
    ids = iter(range(1, 100_000))
    for number in range(_TRANSACTIONS):
        statements: list[str] = []
        for _ in range(rng.randint(1, 5)):
            table, key = rng.choice("ab"), rng.randint(1, 40)
            text = rng.choice(["NULL", *(f"'{text}'" for text in _TEXTS)])
            amount = rng.choice(["NULL", "0", "-1.50", "99999999.99"])
            long = f"repeat('abcdefgh{number % 10}', {rng.randint(240, 260)})" if rng.random() < 0.1 else text
            statements.append(
                rng.choice(
                    [
                        f"INSERT INTO {table} (id, v, n, big) VALUES ({next(ids)}, {text}, {amount}, {long})",
                        f"UPDATE {table} SET v = {text} WHERE id % 40 = {key}",
                        f"UPDATE {table} SET big = {long}, n = n + 1 WHERE id % 40 = {key} AND n < 100",
                        f"UPDATE {table} SET id = id + 200000 WHERE id % 40 = {key} AND id < 200000",
                        f"DELETE FROM {table} WHERE id % 40 = {key}",
                        f"INSERT INTO c (id, v) VALUES ({key % 5}, {text}), ({key % 5}, {text})",
                        f"UPDATE c SET v = {text} WHERE id = {key % 5}",
                        f"DELETE FROM c WHERE id = {key % 5} AND v = 'x'",
                    ]
                )
            )
        if rng.random() < 0.2:
            statements = [*statements[:1], "SAVEPOINT s", *statements[1:], "ROLLBACK TO SAVEPOINT s"]
        yield ["BEGIN", *statements, "ROLLBACK" if rng.random() < 0.08 else "COMMIT"]
        if number == 40:
            yield ["TRUNCATE TABLE b"]
            yield ["ALTER TABLE a ADD COLUMN added varchar(20) DEFAULT 'seven'"]
        if number == 80:
            yield ["ALTER TABLE b ADD COLUMN more int"]
        if number == 110:
            yield [
                "BEGIN",
                *(f"INSERT INTO a (id, v) VALUES ({next(ids)}, 'one of many {i}')" for i in range(300)),
                "COMMIT",
            ]


def postgres() -> Session:
    with PrivatePostgres(18) as server:
        server.create_database("s")
        dsn = pg.Dsn.parse(server.dsn("s"))
        with (
            psycopg.connect(server.dsn("s"), autocommit=True) as application,
            pg.connect(dsn, "record") as session,
            pg.connect_replication(dsn, "record") as replication,
        ):
            application.execute(
                "CREATE TABLE a (id int PRIMARY KEY, v text, n numeric(12,2), big text, flag bool DEFAULT true,"
                " at timestamptz DEFAULT '2024-02-29 12:00:00.5+02', tags text[] DEFAULT '{x,NULL,\"a b\"}');"
                "CREATE TABLE b (id bigint PRIMARY KEY, v varchar(400), n numeric(12,2), big text);"
                "CREATE TABLE c (id int, v text); ALTER TABLE c REPLICA IDENTITY FULL;"
                "ALTER TABLE b REPLICA IDENTITY FULL; ALTER TABLE a ALTER big SET STORAGE EXTERNAL;"
                "CREATE PUBLICATION p FOR ALL TABLES"
            )
            _, point = create_slot(replication, "s", temporary=False)
            state = _postgres_state(session)
            for statements in work(random.Random(1)):
                for statement in statements:
                    application.execute(statement.encode(), None)
            row = session.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
            assert row is not None
            end = parse_lsn(str(row[0]))
            tables = user_tables(session)
            held = {str(table.schema.table): _postgres_table(session, str(table.schema.table)) for table in tables}
            missing = {
                str(t): {str(n): values[t] for n, values in missing_values(session, t, [t]).items()}
                for table in tables
                if (t := table.schema.identity)
            }
            version = f"PostgreSQL {session.info.server_version}"
            later = _postgres_state(session)
        with pg.connect_replication(dsn, "record") as replication:
            pieces = _receive(replication.pgconn, write_lsn(point.order), end)
            replication.close()
    return Session(version, state, pieces, later, missing, held)


def _receive(pgconn: Any, start: str, end: int) -> list[bytes]:
    command = f"START_REPLICATION SLOT s LOGICAL {start} (proto_version '1', publication_names 'p', messages 'true')"
    assert pgconn.exec_(command.encode()).status == pq.ExecStatus.COPY_BOTH
    pieces: list[bytes] = []
    while True:
        _, message = pgconn.get_copy_data(0)
        pieces.append(bytes(message))
        if message[0] == ord("k") and struct.unpack_from(">Q", message, 1)[0] >= end:
            return pieces


def _postgres_state(session: Any) -> str:
    tables = {t.schema.identity: TableState(t.schema, t.relation, 0, copied=True) for t in user_tables(session)}
    return SourceState("recorded", "1", "1", 1, "s", {}, tables).dump()


def _postgres_table(session: Any, table: str) -> Table:
    """The text that the server's output functions make, as the log has it."""
    result = session.execute(f"SELECT * FROM {table}").pgresult
    columns = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
    rows = [
        [
            None if (value := result.get_value(row, column)) is None else bytes(value).decode()
            for column in range(result.nfields)
        ]
        for row in range(result.ntuples)
    ]
    return columns, ordered(rows)


def binlog(flavor: str) -> Session:
    with PrivateMySql(flavor, {"binlog-row-metadata": "FULL"}) as server:
        dsn = my.Dsn.parse(server.create_database("s"))
        with my.Connection(dsn, "record") as session, server.connect("s").cursor() as application:
            application.execute(
                "CREATE TABLE a (id int PRIMARY KEY, v varchar(400), n decimal(12,2), big longtext,"
                " at datetime DEFAULT '2024-02-29 12:00:00', e enum('one','two') DEFAULT 'two')"
            )
            application.execute(
                "CREATE TABLE b (id bigint unsigned PRIMARY KEY, v text, n decimal(12,2), big longtext)"
            )
            application.execute("CREATE TABLE c (id int, v varchar(400))")
            application.execute("FLUSH BINARY LOGS")
            state = _binlog_state(session, flavor)
            for number, statements in enumerate(work(random.Random(2))):
                for statement in statements:
                    application.execute(statement)
                if number in (50, 100):
                    application.execute("FLUSH BINARY LOGS")
            end = log_now(session)
            tables = my_tables(session, "s")
            held = {str(table.name): _binlog_table(session, table) for table in tables}
            version, later = str(session.version), _binlog_state(session, flavor)
        pieces, file, framer = [], "", Framer(has_checksum=True)
        with open_dump(dsn, "record", MyState.load(state)) as (connection, _):
            while True:
                pieces.append(connection.receive(1 << 16))
                events = framer.feed(pieces[-1])
                for event in events:
                    file = event[27:].decode() if event[4] == 4 else file
                if file == end.file and any(event_end(event) == end.offset for event in events):
                    break
    return Session(version, state, pieces, later, {}, held)


def _binlog_state(session: my.Connection, flavor: str) -> str:
    now = log_now(session)
    tables = {}
    for number, table in enumerate(my_tables(session, "s"), 1):
        schema = replace(table.schema, identity=number)
        tables[number] = MyTableState(schema, table.charset, 0, True, len(schema.columns) + 1, table.row_end)
    place = LogPlace(now.file, 0, now.offset)
    return MyState("recorded", flavor, "1", 77, place, [], now.gtids, tables, next_table=9).dump()


def _binlog_table(session: my.Connection, table: Any) -> Table:
    names = [column.name for column in table.schema.columns]
    casts = ", ".join(f"CAST(`{name}` AS CHAR)" for name in names)
    rows = [list(row) for row in session.query(f"SELECT {casts} FROM s.`{table.name.name}`")]
    return names, ordered(rows)


def main() -> None:
    for name in sys.argv[1:] or ["postgres", "mariadb", "mysql"]:
        began = time.monotonic()
        session = postgres() if name == "postgres" else binlog(name)
        size = session.save(name)
        rows = sum(len(rows) for _, rows in session.tables.values())
        print(f"{name}: {session.server}, {size} bytes, {rows} rows at the end, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
