"""`cdc serve`: a published copy by the PostgreSQL protocol, Arrow Flight SQL and HTTP, to the clients that people have;
and that nobody writes, reads another file, takes more than his share, or keeps others from reading."""

from __future__ import annotations

import base64
import datetime
import http.client
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as flight
import adbc_driver_manager
import orjson
import polars
import psycopg
import pyarrow as pa
import pytest
from starlette.applications import Starlette

from cdc.errors import EXIT_RESTARTABLE, UsageError
from cdc.serve.access import Access
from cdc.serve.address import Address, Protocol
from cdc.serve.editions import Editions
from cdc.serve.flight.readers import Readers
from cdc.serve.forward import query_route
from cdc.serve.limits import Limits
from cdc.serve.pgwire.scram import Exchange, Verifier
from cdc.serve.pgwire.server import PgServer
from cdc.serve.spill import Spill
from cdc.targets.duckdb.refusals import Refused
from integration.processes import cdc
from integration.serving import PASSWORD, USER, Served, free_ports, publish, serving, wait_for_port
from integration.tls import Authority
from tests.seeds import SEED

JDBC = Path.home() / ".cache/cdc-servers/pgjdbc/libs"

ROWS: list[tuple[Any, ...]] = [
    (
        *(1, "a'b\"c", Decimal("2.50"), datetime.datetime(2024, 1, 2, 3, 4, 5, 600000)),
        datetime.datetime(2024, 1, 2, 3, 4, 5, 123456, tzinfo=datetime.UTC),
        *(datetime.date(2024, 1, 2), datetime.time(3, 4, 5), True, b"\x00\xff", [1, None, 3], ["a", 'b"c\\d', None]),
        *({"a": 1}, uuid.UUID(int=1), datetime.timedelta(days=2, hours=4, minutes=5, seconds=6), 1.5, float("inf")),
        *(Decimal(12345678901234567890), -5, 7, {"a": 1, "b": "x"}, [[1, 2], [3, 4]], [Decimal("1.25"), None]),
    ),
    (2, "z", *[None] * 20),
    (
        *(3, "é", Decimal("-0.05"), datetime.datetime(1969, 12, 31, 23, 59, 59)),
        datetime.datetime(1969, 12, 31, 23, 59, 59, tzinfo=datetime.UTC),
        *(datetime.date(1999, 12, 31), datetime.time(), False, b"", [], [], [], uuid.UUID(int=(1 << 128) - 1)),
        *(datetime.timedelta(days=-1, hours=-2), -0.0, 1e10, Decimal(0), 0, 0, None, [], []),
    ),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    file = tmp_path_factory.mktemp("served") / "shop.duckdb"
    publish(file, "first")
    limits = ("--timeout", "3s", "--memory", "64MB", "--rows", "300000", "--connections", "12")
    with serving(file, *limits) as running:
        yield running


# --- the PostgreSQL protocol ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [False, True])
def test_values_as_psycopg_reads_them(served: Served, binary: bool) -> None:
    with served.connect() as connection:
        found = connection.cursor(binary=binary).execute("SELECT * FROM orders ORDER BY id").fetchall()

        assert found == ROWS


PARAMETERS = [
    *(
        5,
        -(10**12),
        10**25,
        1.5,
        float("inf"),
        Decimal("2.50"),
        "x'y\\",
        b"\x00a",
        True,
        None,
        datetime.date(2024, 1, 2),
    ),
    *(datetime.datetime(2024, 1, 2, 3), datetime.datetime(2024, 1, 2, 3, tzinfo=datetime.UTC), datetime.time(1, 2)),
    *(datetime.timedelta(1, 2), uuid.UUID(int=5), [1, 2]),
]


@pytest.mark.parametrize("form", ["%s", "%b", "%t"])
def test_parameters_come_back_as_they_went(served: Served, form: str) -> None:
    with served.connect() as connection:
        for value in PARAMETERS:
            if form == "%t" and isinstance(value, float):
                continue  # psycopg writes it without a type, as a number that DuckDB reads as a decimal
            assert connection.execute(f"SELECT {form} AS value", (value,)).fetchone() == (value,), value


def test_a_text_is_what_it_is_compared_with(served: Served) -> None:
    """PostgreSQL takes a parameter without a type as what it stands beside, and so do drivers that send all as text."""
    with served.connect() as connection:
        assert connection.execute("SELECT name FROM orders WHERE id = %s", ("1",)).fetchall() == [("a'b\"c",)]
        assert connection.execute("SELECT id FROM orders WHERE day = %s", ("2024-01-02",)).fetchall() == [(1,)]
        assert connection.execute("SELECT '$1', \"name\" FROM orders WHERE id = %s -- $2", (2,)).fetchall() == [
            ("$1", "z")
        ]
        assert connection.execute("SELECT id FROM orders WHERE id = ANY(%s)", ([1, 3],)).fetchall() == [(1,), (3,)]


def test_transactions_settings_and_pipelines(served: Served) -> None:
    with psycopg.connect(served.dsn()) as connection:
        with connection.transaction():
            assert connection.execute("SELECT count(*) FROM sales.names").fetchone() == (3,)
            with pytest.raises(psycopg.errors.UndefinedColumn), connection.transaction():
                connection.execute("SELECT nothing")
            assert connection.execute("SELECT 1").fetchone() == (1,)
        connection.rollback()
        connection.autocommit = True
        connection.execute("SET search_path TO sales")
        assert connection.execute("SELECT count(*) FROM names").fetchone() == (3,)
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT count(*) FROM orders")
        connection.execute("DISCARD ALL")
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (3,)
        connection.execute("SET statement_timeout = '300ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT count(*) FROM range(1000000000000)")
        assert connection.execute("SHOW statement_timeout").fetchone() == ("300ms",)
        with connection.pipeline():
            first, second = connection.execute("SELECT 1"), connection.execute("SELECT 2")
            assert (first.fetchone(), second.fetchone()) == ((1,), (2,))
        for number in range(8):  # from the fifth on it is prepared
            assert connection.execute("SELECT %s::int + 1", (number,)).fetchone() == (number + 1,)
        assert [row for (row,) in connection.cursor().stream("SELECT range FROM range(5)")] == list(range(5))
        assert connection.execute("SELECT 1 WHERE false").fetchall() == []


def test_many_rows(served: Served) -> None:
    with served.connect() as connection:
        rows = connection.execute(
            "SELECT range, range::VARCHAR, CASE WHEN range % 3 = 0 THEN range END FROM range(30000)"
        )

        assert rows.fetchall() == [(n, str(n), n if n % 3 == 0 else None) for n in range(30_000)]


def psql(served: Served, *commands: str) -> str:
    options = [option for command in commands for option in ("-c", command)]
    ran = subprocess.run(
        ["psql", "-X", "-At", served.dsn(), *options], capture_output=True, text=True, timeout=60, check=False
    )
    assert "ERROR" not in ran.stderr, ran.stderr
    return ran.stdout


def test_psql_describes(served: Served) -> None:
    """`\\d` and its kin ask the catalogue in ways that nothing else does."""
    assert "public|orders|table|cdc" in psql(served, r"\dt")
    described = psql(served, r"\d orders")
    for line in ("id|integer||not null|", "price|numeric(10,2)|||", "words|text[]|||", "pair|json|||"):
        assert line in described.splitlines()
    assert "sales|names|view|cdc" in psql(served, r"\dv")
    assert 'SELECT id, "name" FROM public.orders' in psql(served, r"\d+ sales.names", r"\sv sales.names")
    assert "what was sold" in psql(served, r"\dt+")
    assert "shop|cdc|UTF8" in psql(served, r"\l")
    assert "public|cdc" in psql(served, r"\dn")
    assert "_cdc|freshness|table|cdc" in psql(served, r"\dt *.*")
    for command in r"\do \dO+ \dF \dF+ \dFd \dFp \dFt \dew+ \des+ \deu \dL+ \dy+ \dc+ \dd \dl \dRs+ \dX \dAc \dAf \dAo \dAp \df+".split():
        assert psql(served, command) == ""
    psql(served, r"\d", r"\d+", r"\du", r"\df", r"\di", r"\ds", r"\dm", r"\dx", r"\dT", r"\db", r"\dp", r"\l+", r"\dn+")
    missing = subprocess.run(
        ["psql", "-X", served.dsn(), "-c", r"\d nowhere"], capture_output=True, text=True, timeout=60, check=False
    )
    assert "Did not find any relation" in missing.stderr


# What Grafana's editor for PostgreSQL asks (pkg: grafana-postgresql-datasource, postgresMetaQuery.ts), DBeaver and Metabase.
CATALOGUE = {
    "grafana's version": "SELECT current_setting('server_version_num')::int/100 AS version",
    "grafana's tables": """
        SELECT CASE WHEN table_schema = 'public' THEN quote_ident(table_name)
          ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS "table"
        FROM information_schema.tables WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog',
          '_timescaledb_cache', '_timescaledb_catalog', '_timescaledb_internal', '_timescaledb_config',
          'timescaledb_information', 'timescaledb_experimental') ORDER BY CASE WHEN table_schema = 'public' THEN 0 ELSE 1 END, 1""",
    "grafana's columns": """
        SELECT quote_ident(column_name) AS "column", data_type AS "type" FROM information_schema.columns
        WHERE CASE WHEN array_length(parse_ident('orders'), 1) = 2
            THEN quote_ident(table_schema) = (parse_ident('orders'))[1] AND quote_ident(table_name) = (parse_ident('orders'))[2]
            ELSE quote_ident(table_name) = 'orders'
              AND quote_ident(table_schema) IN (
                SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
                FROM generate_series(array_lower(string_to_array(current_setting('search_path'), ','), 1),
                  array_upper(string_to_array(current_setting('search_path'), ','), 1)) AS i,
                  string_to_array(current_setting('search_path'), ',') s) END""",
    "dbeaver's database": """
        SELECT db.oid, db.* FROM pg_catalog.pg_database db WHERE datallowconn AND NOT datistemplate OR db.datname = 'shop'
        ORDER BY db.datname""",
    "dbeaver's session": "SELECT current_schema(), session_user",
    "dbeaver's search path": "SHOW search_path",
    "dbeaver's schemas": """
        SELECT n.oid, n.*, d.description FROM pg_catalog.pg_namespace n
        LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid = n.oid AND d.objsubid = 0
          AND d.classoid = 'pg_namespace'::regclass ORDER BY nspname""",
    "dbeaver's types": """
        SELECT t.oid, t.*, c.relkind, format_type(nullif(t.typbasetype, 0), t.typtypmod) AS base_type_name, d.description
        FROM pg_catalog.pg_type t LEFT OUTER JOIN pg_catalog.pg_type et ON et.oid = t.typelem
        LEFT OUTER JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
        LEFT OUTER JOIN pg_catalog.pg_description d ON t.oid = d.objoid
        WHERE t.typname IS NOT NULL AND (c.relkind IS NULL OR c.relkind = 'c')
          AND (et.typcategory IS NULL OR et.typcategory <> 'C')""",
    "dbeaver's tables": """
        SELECT c.oid, c.*, d.description, pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS partition_expr,
          pg_catalog.pg_get_partkeydef(c.oid) AS partition_key
        FROM pg_catalog.pg_class c LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid = c.oid AND d.objsubid = 0
          AND d.classoid = 'pg_class'::regclass WHERE c.relkind NOT IN ('i', 'I', 'c')""",
    "dbeaver's columns": """
        SELECT c.relname, a.*, pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) AS def_value, dsc.description, dep.objid
        FROM pg_catalog.pg_attribute a INNER JOIN pg_catalog.pg_class c ON (a.attrelid = c.oid)
        LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON (a.attrelid = ad.adrelid AND a.attnum = ad.adnum)
        LEFT OUTER JOIN pg_catalog.pg_description dsc ON (c.oid = dsc.objoid AND a.attnum = dsc.objsubid)
        LEFT OUTER JOIN pg_depend dep ON dep.refobjid = a.attrelid AND dep.deptype = 'i' AND dep.refobjsubid = a.attnum
          AND dep.classid = dep.refclassid
        WHERE NOT a.attisdropped AND c.relname = 'orders' ORDER BY a.attnum""",
    "metabase's tables": """
        SELECT n.nspname AS schema, c.relname AS name, CASE c.relkind WHEN 'r' THEN 'TABLE' WHEN 'p' THEN 'PARTITIONED TABLE'
          WHEN 'v' THEN 'VIEW' WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE NULL END AS type,
          d.description AS description, NULLIF(stat.n_live_tup, 0) AS estimated_row_count
        FROM pg_catalog.pg_class AS c INNER JOIN pg_catalog.pg_namespace AS n ON c.relnamespace = n.oid
        LEFT JOIN pg_catalog.pg_description AS d ON (c.oid = d.objoid) AND (d.objsubid = 0)
          AND (d.classoid = 'pg_class'::regclass)
        LEFT JOIN pg_stat_user_tables AS stat ON (n.nspname = stat.schemaname) AND (c.relname = stat.relname)
        WHERE (c.relnamespace = n.oid) AND (n.nspname !~ '^information_schema|catalog_history|pg_')
          AND (c.relkind IN ('r', 'p', 'v', 'f', 'm')) AND (n.nspname IN ('public')) ORDER BY type ASC, schema ASC, name ASC""",
    "metabase's privileges": """
        WITH table_privileges AS (SELECT NULL AS role, t.schemaname AS schema, t.objectname AS table,
          pg_catalog.has_any_column_privilege(current_user, '"' || t.schemaname || '"' || '.' || '"' || t.objectname || '"',
            'update') AS update,
          pg_catalog.has_table_privilege(current_user, '"' || t.schemaname || '"' || '.' || '"' || t.objectname || '"',
            'select') AS select
        FROM (SELECT schemaname, tablename AS objectname FROM pg_catalog.pg_tables UNION
          SELECT schemaname, viewname AS objectname FROM pg_catalog.pg_views UNION
          SELECT schemaname, matviewname AS objectname FROM pg_catalog.pg_matviews) t
        WHERE t.schemaname !~ '^pg_' AND t.schemaname <> 'information_schema')
        SELECT t.* FROM table_privileges t""",
    "sqlalchemy's tables": """
        SELECT pg_catalog.pg_class.relname FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace
        ON pg_catalog.pg_namespace.oid = pg_catalog.pg_class.relnamespace
        WHERE pg_catalog.pg_class.relkind = ANY (ARRAY['r', 'p']) AND pg_catalog.pg_class.relpersistence != 't'
          AND pg_catalog.pg_table_is_visible(pg_catalog.pg_class.oid) AND pg_catalog.pg_namespace.nspname != 'pg_catalog'""",
    "psycopg's type": """
        SELECT typname AS name, oid, typarray AS array_oid, oid::regtype::text AS regtype, typdelim AS delimiter
        FROM pg_type t WHERE t.oid = 'int4'::regtype ORDER BY t.oid""",
}


@pytest.mark.parametrize("query", CATALOGUE)
def test_what_tools_ask_of_the_catalogue(served: Served, query: str) -> None:
    with served.connect() as connection:
        assert connection.execute(CATALOGUE[query].encode()).fetchall()


def test_names_of_the_catalogue(served: Served) -> None:
    with served.connect() as connection:
        (found,) = connection.execute("SELECT current_database(), version(), 'orders'::regclass::oid").fetchall()
        assert found[0] == "shop"
        assert str(found[1]).startswith("PostgreSQL 16")
        assert connection.execute("SELECT %s::regclass::text FROM (SELECT 1)", ("orders",)).fetchone() is not None
        query = "SELECT oid::regclass::text FROM pg_class WHERE oid = %s"
        assert connection.execute(query, (found[2],)).fetchone() == ("orders",)
        query = "SELECT data_type FROM information_schema.columns WHERE column_name = 'sold'"
        assert connection.execute(query).fetchone() == ("timestamp with time zone",)


def test_jdbc(served: Served) -> None:
    """PostgreSQL's own driver for Java, which Metabase, DBeaver and Power BI's gateway have, with its metadata, binary
    values, fetching in parts, and cancelling."""
    if not JDBC.is_dir():
        raise UsageError(
            "There is no JDBC driver on this machine.", hint="Install Java and Maven, then `make servers`."
        )
    program = str(Path(__file__).with_name("JdbcReader.java"))
    url = f"jdbc:postgresql://127.0.0.1:{served.pg}/shop"
    command = ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{JDBC}/*", program, url, USER, PASSWORD]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    said = ran.stdout.splitlines()

    assert ran.returncode == 0, ran.stderr
    assert "product: PostgreSQL 16" in said
    assert any(line.startswith("tables: null | public | orders | TABLE | what was sold") for line in said)
    assert any(
        line.startswith("columns: null | public | orders | price | 2 | numeric | 10 | null | 2") for line in said
    )
    assert "columns rows: 22" in said
    assert "primary keys rows: 0" in said
    assert said.count("orders rows: 3") == 7
    first = [line.split(" | ") for line in said if line.startswith("orders: 1 | ")]
    assert len(first) == 7
    for row in first:
        assert row[1:8] == ["a'b\"c", "2.50", "2024-01-02 03:04:05.6", row[4], "2024-01-02", "03:04:05", "true"]
    assert "sum: 4950" in said
    assert "refused: 25006" in said
    assert "timeout: 57014" in said


# --- Arrow Flight SQL -----------------------------------------------------------------------------------------------


def adbc(served: Served, password: str = PASSWORD) -> Any:
    known = {"username": USER, "password": password}
    return flight.connect(f"grpc://127.0.0.1:{served.flight}", db_kwargs=known, autocommit=True)


def test_flight_sql(served: Served) -> None:
    with adbc(served) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id, name, price, sold, numbers, matrix FROM orders ORDER BY id")
        rows = cursor.fetch_arrow_table().to_pylist()
        assert [tuple(row.values()) for row in rows] == [(*row[:3], row[4], row[9], row[20]) for row in ROWS]
        cursor.execute("SELECT ? + 1 AS a, ? AS b", (4, "x'y"))
        assert cursor.fetchall() == [(5, "x'y")]
        cursor.execute("SELECT range AS i FROM range(250000)")
        assert cursor.fetch_arrow_table().num_rows == 250_000
        assert connection.adbc_get_info()["vendor_name"] == "cdc"
        (catalog,) = connection.adbc_get_objects(depth="columns", db_schema_filter="public").read_all().to_pylist()
        (table,) = catalog["catalog_db_schemas"][0]["db_schema_tables"]
        assert (catalog["catalog_name"], table["table_name"], len(table["table_columns"])) == ("shop", "orders", 22)
        assert connection.adbc_get_table_types() == ["BASE TABLE", "VIEW"]
        assert connection.adbc_get_table_schema("orders", db_schema_filter="public").names[:2] == ["id", "name"]
        frame = polars.read_database("SELECT id, name, price FROM orders ORDER BY id", connection)
        assert frame.rows() == [row[:3] for row in ROWS]
        for query, kind in (
            ("INSERT INTO orders (id) VALUES (9)", "UNAUTHORIZED"),
            ("SELECT nothing", "INVALID_ARGUMENT"),
            ("SELECT count(*) FROM range(1000000000000)", "TIMEOUT|cancelled"),
        ):
            with pytest.raises(adbc_driver_manager.Error, match=kind):
                connection.cursor().execute(query).fetchall()


def test_flight_sql_needs_the_password(served: Served) -> None:
    with pytest.raises(adbc_driver_manager.Error, match="UNAUTHENTICATED"), adbc(served, "wrong") as connection:
        connection.cursor().execute("SELECT 1")


# --- HTTP -----------------------------------------------------------------------------------------------------------


def post(served: Served, body: bytes, password: str = PASSWORD, **headers: str) -> tuple[int, dict[str, str], bytes]:
    link = http.client.HTTPConnection("127.0.0.1", served.http, timeout=30)
    given = base64.b64encode(f"{USER}:{password}".encode()).decode()
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    link.request("POST", "/query", body, {"authorization": f"Basic {given}", **headers})
    answer = link.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def test_http(served: Served) -> None:
    status, _, body = post(served, b"SELECT id, big, huge, pair, document, ratio, name FROM orders ORDER BY id")
    found = orjson.loads(body)
    assert status == 200
    assert found["columns"][1] == {"name": "big", "type": "BIGINT"}
    assert found["rows"][0] == [1, -5, "12345678901234567890", {"a": 1, "b": "x"}, {"a": 1}, None, "a'b\"c"]
    assert (found["row_count"], found["truncated"]) == (3, False)

    question = orjson.dumps({"sql": "SELECT 9007199254740993 AS n FROM range(10)", "limit": 4})
    found = orjson.loads(post(served, question, content_type="application/json")[2])
    assert (found["rows"], found["truncated"]) == ([["9007199254740993"]] * 4, True)

    status, headers, body = post(served, b"SELECT id, name FROM orders ORDER BY id", accept="text/csv")
    assert body.decode().splitlines() == ['"id","name"', '"1","a\'b""c"', '"2","z"', '"3","é"']
    assert headers["x-cdc-truncated"] == "false"

    body = post(served, b"SELECT * FROM orders", accept="application/vnd.apache.arrow.stream")[2]
    assert pa.ipc.open_stream(body).read_all().num_rows == 3


@pytest.mark.parametrize(
    ("body", "status", "sqlstate"),
    [
        (b"SELEC", 400, "42601"),
        (b"SELECT * FROM nowhere", 400, "42P01"),
        (b"DELETE FROM orders", 403, "25006"),
        (b"SELECT count(*) FROM range(1000000000000)", 504, "57014"),
        (b'{"sql": "SELECT repeat(\'x\', 1000) AS x FROM range(200000)", "limit": 200000}', 413, "54000"),
        (b"\xff", 400, "08P01"),
        (b"", 403, "25006"),
    ],
)
def test_http_says_what_is_wrong(served: Served, body: bytes, status: int, sqlstate: str) -> None:
    form = "application/json" if body.startswith(b"{") else "text/plain"
    got, _, answer = post(served, body, content_type=form)

    assert (got, orjson.loads(answer)["sqlstate"]) == (status, sqlstate)


def test_http_needs_the_password(served: Served) -> None:
    assert post(served, b"SELECT 1", "wrong")[0] == 401


def test_the_route_of_the_service_passes_on(served: Served, tmp_path: Path) -> None:
    """The port of the service answers `/query` by the process that serves, and runs nothing itself."""
    import uvicorn

    (port,) = free_ports(1)
    routes = [query_route({"shop": served.own_socket}.get)]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=port, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for_port(port)

    def ask(body: bytes) -> tuple[int, Any]:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        link.request("POST", "/query?pipeline=shop", body, {"content-type": "application/json"})
        answer = link.getresponse()
        return answer.status, orjson.loads(answer.read())

    assert ask(b'{"sql": "SELECT id FROM orders ORDER BY id"}')[1]["rows"] == [[1], [2], [3]]
    assert ask(b'{"sql": "DROP TABLE orders"}')[0] == 403
    routes[0] = query_route({"shop": tmp_path / "nobody.http"}.get)
    server.should_exit = True
    thread.join(10)

    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=port, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for_port(port)
    assert ask(b'{"sql": "SELECT 1"}') == (
        503,
        {"error": "Nothing serves the published copy just now.", "hint": None, "sqlstate": "57P03"},
    )
    server.should_exit = True
    thread.join(10)


# --- what nobody may do ---------------------------------------------------------------------------------------------

WRITES = """
INSERT INTO orders (id) VALUES (9)
UPDATE orders SET id = 9
DELETE FROM orders
MERGE INTO orders USING (SELECT 1 AS id) AS s ON (orders.id = s.id) WHEN MATCHED THEN DELETE
TRUNCATE orders
CREATE TABLE t (a INT)
CREATE TEMP TABLE t AS SELECT 1
CREATE OR REPLACE MACRO f() AS 1
CREATE SCHEMA s
DROP TABLE orders
ALTER TABLE orders ADD COLUMN x INT
COPY orders TO '/tmp/stolen.csv'
COPY (SELECT 1) TO '/tmp/stolen.parquet'
COPY orders FROM '/etc/passwd'
COPY orders TO STDOUT
EXPORT DATABASE '/tmp/stolen'
IMPORT DATABASE '/tmp/stolen'
ATTACH ':memory:' AS other
ATTACH '/tmp/other.duckdb'
DETACH _cdc_target
USE memory
INSTALL httpfs
LOAD httpfs
FORCE INSTALL httpfs
PRAGMA memory_limit='1TB'
PRAGMA database_list
CALL pragma_version()
CHECKPOINT
FORCE CHECKPOINT
VACUUM
ANALYZE
PREPARE p AS SELECT 1
EXECUTE p
CREATE SECRET (TYPE s3, KEY_ID 'a', SECRET 'b')
COMMENT ON TABLE orders IS 'x'
EXPLAIN ANALYZE INSERT INTO orders (id) VALUES (9)
EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1
EXPLAIN (ANALYZE) DELETE FROM orders
WITH gone AS (DELETE FROM orders RETURNING *) SELECT * FROM gone
SELECT 1 INTO t
LOCK TABLE orders
GRANT SELECT ON orders TO me
DO $$ BEGIN END $$
""".strip().splitlines()


@pytest.mark.parametrize("statement", WRITES)
def test_nothing_is_written(served: Served, statement: str) -> None:
    """Every statement that is not SELECT or EXPLAIN, by its own and hidden behind one that is."""
    with served.connect() as connection:
        for sql in (statement, f"SELECT 1; {statement}", f"/* SELECT */ {statement} -- SELECT", f"BEGIN; {statement}"):
            with pytest.raises(
                (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.SyntaxError, psycopg.DatabaseError)
            ):
                connection.execute(sql.encode())
            connection.execute("ROLLBACK")
        assert connection.execute("SELECT count(*), max(id) FROM orders").fetchone() == (3, 3)
    assert not list(Path("/tmp").glob("stolen*"))


REACHES = """
SELECT * FROM read_csv('/etc/passwd')
SELECT * FROM read_text('/etc/passwd')
SELECT * FROM read_blob('/etc/passwd')
SELECT * FROM '/etc/passwd'
SELECT * FROM glob('/*')
SELECT * FROM sniff_csv('/etc/passwd')
SELECT * FROM read_duckdb('/tmp/other.duckdb')
SELECT * FROM read_parquet('http://127.0.0.1:1/x')
SELECT * FROM parquet_scan('/etc/passwd')
SELECT * FROM read_json('/etc/passwd')
SELECT getenv('CDC_SERVE_PASSWORD')
SELECT * FROM query('COPY (SELECT 1) TO ''/tmp/stolen.csv''')
SELECT * FROM enable_logging(storage = 'file', storage_path = '/tmp/stolen.log')
SELECT * FROM enable_profiling(save_location = '/tmp/stolen.json')
SELECT * FROM duckdb_secrets()
SELECT * FROM duckdb_extensions()
SELECT * FROM "/etc/passwd".csv
SELECT * FROM json_execute_serialized_sql(json_serialize_sql('FROM read_text(''/etc/passwd'')'))
SELECT * FROM add_grammar_extension('x')
SELECT * FROM arrow_scan(NULL, NULL, NULL)
SELECT * FROM pandas_scan()
SELECT * FROM seq_scan()
SUMMARIZE FROM '/etc/passwd'
DESCRIBE FROM read_csv('/etc/passwd')
FROM (PIVOT orders ON name USING sum(price))
SELECT * FROM editions
SELECT * FROM self
""".strip().splitlines()


@pytest.mark.parametrize("query", REACHES)
def test_nothing_else_is_reached(served: Served, query: str) -> None:
    """A SELECT that would read another file, the environment, a variable of the program, or write a log."""
    with served.connect() as connection, pytest.raises(psycopg.DatabaseError):
        connection.execute(query.encode())
    assert not list(Path("/tmp").glob("stolen*"))


def test_settings_are_locked(served: Served) -> None:
    """SET is answered, as clients expect, and changes nothing of DuckDB's."""
    with served.connect() as connection:
        for setting in ("memory_limit = '1TB'", "enable_external_access = true", "lock_configuration = false"):
            connection.execute(f"SET {setting}".encode())
        query = "SELECT value FROM duckdb_settings() WHERE name IN ('enable_external_access', 'lock_configuration') ORDER BY name"
        assert connection.execute(query).fetchall() == [("false",), ("true",)]


# --- what nobody may take -------------------------------------------------------------------------------------------


def test_a_runaway_query_ends(served: Served) -> None:
    with served.connect() as connection:
        began = time.monotonic()
        with pytest.raises(psycopg.errors.QueryCanceled, match="longer than 3 s"):
            connection.execute("SELECT count(*) FROM range(1000000000000)")
        assert time.monotonic() - began < 30
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_query_is_cancelled(served: Served) -> None:
    with served.connect() as connection:
        timer = threading.Timer(0.5, connection.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled, match="as its reader asked"):
            connection.execute("SELECT count(*) FROM range(1000000000000)")
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_nobody_cancels_for_others(served: Served) -> None:
    """The secret of a connection is not that of another one."""
    with served.connect() as connection:
        number = connection.info.backend_pid
        with socket.create_connection(("127.0.0.1", served.pg)) as link:
            link.sendall(struct.pack("!iiiI", 16, 80877102, number, 1))
            assert link.recv(10) == b""
        assert connection.execute("SELECT count(*) FROM range(1000000)").fetchone() == (1_000_000,)


def test_memory_is_bounded(served: Served) -> None:
    """A query that needs more than there is ends with an error, and the others go on."""
    with served.connect() as hog, served.connect() as other:
        with pytest.raises((psycopg.errors.OutOfMemory, psycopg.errors.QueryCanceled)):
            hog.execute("SELECT list(range || repeat('x', 500)) FROM range(3000000)")
        assert other.execute("SELECT count(*) FROM orders").fetchone() == (3,)


def test_an_answer_is_bounded(served: Served) -> None:
    with served.connect() as connection:
        with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="more than 300000 rows"):
            connection.execute("SELECT range FROM range(300001)")
        assert len(connection.execute("SELECT range FROM range(299999)").fetchall()) == 299_999


def test_connections_are_bounded(served: Served) -> None:
    """Those who have not logged in take no place of those who have."""
    silent = [socket.create_connection(("127.0.0.1", served.pg)) for _ in range(12)]
    held = [served.connect() for _ in range(12)]
    with pytest.raises(psycopg.OperationalError, match="Too many readers"):
        served.connect()
    for link in silent:
        link.close()
    for connection in held[:5]:
        connection.close()
    time.sleep(0.3)
    with served.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    for connection in held[5:]:
        connection.close()


def test_who_speaks_byte_by_byte_has_to_go(served: Served) -> None:
    """A limit of each read alone would let a client hold its place for as long as it likes."""
    links = [socket.create_connection(("127.0.0.1", port)) for port in (served.pg, served.http, served.http)]
    links[2].sendall(b"POST /query HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n")
    links[2].sendall(b"authorization: Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()) + b"\r\n\r\n")
    began, waiting = time.monotonic(), dict(zip(links, (b"\0\0\3\0", b"POST", b"SELE"), strict=True))
    while waiting:
        assert time.monotonic() - began < 25
        time.sleep(1)
        for link in list(waiting):
            with suppress(OSError):
                link.sendall(waiting[link][:1] or b"x")
                waiting[link] = waiting[link][1:]
                link.settimeout(0.01)
                while link.recv(1000):
                    pass
                del waiting[link]
                continue
            if link.fileno() < 0 or _is_reset(link):
                del waiting[link]
    for link in links:
        link.close()


def _is_reset(link: socket.socket) -> bool:
    try:
        link.sendall(b"x")
    except OSError:
        return True
    return False


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Editions]]:
    """The editions of a copy, in this process, under limits of the test's own."""
    file, made = tmp_path / "shop.duckdb", []
    publish(file, "first")

    def of(**limits: Any) -> Editions:
        made.append(Editions(file, Limits(**limits)))
        return made[-1]

    yield of
    for editions in made:
        editions.close()


def test_a_transaction_ends(opened: Callable[..., Editions]) -> None:
    """A reader keeps the file of its edition on the disk: also one that goes on asking has to let go of it."""
    (port,) = free_ports(1)
    server = PgServer(Address(Protocol.PG, "127.0.0.1", port), opened(transaction=1.0), Access())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with psycopg.connect(f"host=127.0.0.1 port={port} dbname=shop user=me") as connection:
        for _ in range(3):
            connection.execute("SELECT 1")
            time.sleep(0.2)
        time.sleep(0.6)
        with pytest.raises(psycopg.errors.TransactionTimeout, match="open for longer than 1 s"):
            connection.execute("SELECT 1")
    with psycopg.connect(f"host=127.0.0.1 port={port} dbname=shop user=me", autocommit=True) as connection:
        time.sleep(1.2)
        assert connection.execute("SELECT 1").fetchone() == (1,)
    server.shutdown()
    server.server_close()


def test_an_answer_that_nobody_fetches(opened: Callable[..., Editions]) -> None:
    """Flight SQL has no connections to count: its questions are, and none lasts for as long as its client likes."""
    readers = Readers(opened(transaction=0.5, connections=1))
    _, batches = readers.stream("SELECT range FROM range(100000)", lambda: False)
    next(batches)
    with pytest.raises(Refused, match="Too many readers"), readers.one():
        pass
    time.sleep(1)
    with readers.one() as reader:
        assert reader.ask("SELECT 1 AS a").reader().read_all().to_pylist() == [{"a": 1}]
    with pytest.raises(Refused, match="not fetched within"):
        next(batches)


def test_an_error_after_the_first_rows(served: Served) -> None:
    """It is Arrow's then, not DuckDB's: a reader hears of it all the same, and goes on."""
    with served.connect() as connection:
        with pytest.raises(psycopg.errors.InvalidTextRepresentation, match="Could not convert"):
            connection.execute("SELECT CAST(IF(range > 100000, 'x', '1') AS INTEGER) FROM range(200000)")
        late = "SELECT range FROM range(100000000000) WHERE range < 5000 OR range = 99999999999"
        with pytest.raises(psycopg.errors.QueryCanceled, match="longer than 3 s"):
            connection.execute(late)
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with adbc(served) as flying, pytest.raises(adbc_driver_manager.Error, match="Could not convert"):
        flying.cursor().execute("SELECT CAST(IF(range > 100000, 'x', '1') AS INTEGER) FROM range(200000)").fetchall()
    late_body = b"SELECT CAST(IF(range > 500, 'x', '1') AS INTEGER) FROM range(200000)"
    assert post(served, late_body)[0] == 400


def test_what_a_killed_process_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its temporary files, of which there may be gigabytes, go when the next one starts; those of one that runs stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / "cdc-serve-killed"
    (left / "0").mkdir(parents=True)
    (left / "0" / "duckdb_temp_storage_DEFAULT-0.tmp").write_bytes(b"x")
    first = Spill()
    assert left.exists()  # it may be of a process that starts at this moment
    first.close()
    os.utime(left, (0, 0))
    one = Spill()
    assert not left.exists()
    folders = {one.another().parent, (another := Spill()).another().parent}
    assert set(tmp_path.iterdir()) == folders
    one.close()
    another.close()
    assert not list(tmp_path.iterdir())


def test_questions_that_are_nested_deeply(served: Served) -> None:
    """Each reader of SQL has a limit of its own, and none of them ends a connection."""
    with served.connect() as connection:
        for sql in (f"SELECT pg_is_in_recovery(), {'1+' * 5000}1", f"SELECT version{'(' * 3000}1{')' * 3000}"):
            with pytest.raises(psycopg.DatabaseError, match="depth"):
                connection.execute(sql.encode())
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_query_that_heeds_no_interrupt(tmp_path: Path) -> None:
    """DuckDB looks for one between two vectors, and one call for a vector can take hours: the process ends then."""
    file = tmp_path / "shop.duckdb"
    publish(file, "first")
    script = f"""
from pathlib import Path
from cdc.serve import reading
from cdc.serve.editions import Editions
from cdc.serve.limits import Limits
reading._HEEDS_WITHIN = 0.3
reader = reading.Reader(Editions(Path({str(file)!r}), Limits(seconds=0.2)))
reader.ask("SELECT length(list_sort(list_transform(range(20000000), lambda x: hash(x))))").reader().read_all()
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == EXIT_RESTARTABLE, ran
    assert "does not end after its time is over" in ran.stderr


def test_what_is_no_message(served: Served) -> None:
    """Noise, messages that are cut or too long, and clients that go in the middle: the next one is served."""
    choose = random.Random(SEED)
    startup = b"user\0reader\0database\0shop\0\0"
    hello = struct.pack("!ii", 8 + len(startup), 196608) + startup
    cases = [choose.randbytes(choose.randrange(1, 400)) for _ in range(30)]
    cases += [struct.pack("!i", 1 << 30), struct.pack("!i", -5) + b"x", struct.pack("!ii", 8, 80877103)[:6], hello[:9]]
    cases += [
        hello + choose.randbytes(50),
        hello + b"p" + struct.pack("!i", 4),
        hello + b"Q" + struct.pack("!i", 1 << 29),
    ]
    for case in cases:
        with socket.create_connection(("127.0.0.1", served.pg), 5) as link:
            link.settimeout(5)
            link.sendall(case)
            link.shutdown(socket.SHUT_WR)
            with suppress(OSError):  # a reset is as good an answer as an end
                while link.recv(1000):
                    pass
    with served.connect() as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (3,)
    assert served.process.poll() is None


# --- who may read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("user", "password"), [(USER, "wrong"), ("other", PASSWORD), (USER, "")])
def test_a_wrong_password(served: Served, user: str, password: str) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"authentication failed|no password supplied"):
        psycopg.connect(served.dsn(user, password))


@pytest.mark.parametrize(
    "first", [b"n,a=other,n=,r=abc", b"n,,m=1,n=,r=abc", b"n,,n=,r=", b"p=tls-unique,,n=,r=abc", b"n,,n="]
)
def test_first_messages_that_are_refused(first: bytes) -> None:
    """Another user's name, an extension that is mandatory, no nonce, channel binding (RFC 5802, 5.1 and 7)."""
    with pytest.raises(ValueError, match=r"offered|another user|extension|nonce"):
        Exchange(Verifier(PASSWORD)).challenge(first)


def test_beyond_this_machine(tmp_path: Path) -> None:
    """Without TLS and a password, nothing listens where others could connect."""
    authority = Authority(tmp_path, "authority")
    authority.issue("127.0.0.1", tmp_path)
    tls = ("--tls-cert", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key"))
    (port,) = free_ports(1)
    known = {"CDC_SERVE_USER": USER, "CDC_SERVE_PASSWORD": PASSWORD}
    for options, environment in (((), {}), ((), known), (tls, {})):
        ran = cdc("serve", "x.duckdb", f"pg://0.0.0.0:{port}", *options, **environment)
        assert ran.returncode == 2, ran
        assert "needs TLS and a password" in ran.stderr


def test_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    authority.issue("127.0.0.1", tmp_path)
    file = tmp_path / "shop.duckdb"
    publish(file, "first")
    with serving(file, "--tls-cert", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key")) as served:
        safe = {"sslmode": "verify-full", "sslrootcert": str(authority.file)}
        with psycopg.connect(served.dsn(), **safe) as connection:  # type: ignore[arg-type]
            assert connection.execute("SELECT count(*) FROM orders").fetchone() == (3,)
            assert connection.pgconn.ssl_in_use
        known = {"username": USER, "password": PASSWORD}
        known["adbc.flight.sql.client_option.tls_root_certs"] = authority.file.read_text()
        with flight.connect(f"grpc+tls://127.0.0.1:{served.flight}", db_kwargs=known, autocommit=True) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT 1 AS a")
            assert cursor.fetchall() == [(1,)]


# --- editions -------------------------------------------------------------------------------------------------------


def test_a_new_copy_is_read_from_the_next_transaction_on(tmp_path: Path) -> None:
    file = tmp_path / "shop.duckdb"
    with serving(file) as served:
        with (
            served.connect() as connection,
            pytest.raises(psycopg.errors.CannotConnectNow, match="Nothing is published"),
        ):
            connection.execute("SELECT 1")
        publish(file, "first")
        with served.connect() as early, served.connect() as late:
            early.execute("BEGIN")
            assert position(early) == "first"
            publish(file, "second")
            assert position(early) == "first"
            assert position(late) == "second"
            early.execute("SAVEPOINT before")
            with pytest.raises(psycopg.errors.UndefinedColumn):
                early.execute("SELECT nothing")
            early.execute("ROLLBACK TO before")
            assert position(early) == "first"  # also after what has failed
            early.execute("COMMIT")
            assert position(early) == "second"
            file.write_bytes(b"this is no database")
            with pytest.raises(psycopg.errors.CannotConnectNow, match="cannot be read"):
                position(late)
            publish(file, "third")
            assert position(late) == "third"


def position(connection: psycopg.Connection[tuple[object, ...]]) -> object:
    row = connection.execute("SELECT position FROM _cdc.freshness").fetchone()
    assert row is not None
    return row[0]
