"""A published copy with a value of every kind, and `cdc serve` for it as a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import psycopg

from integration.processes import COMMAND

USER, PASSWORD = "reader", "säcret"

_SETUP = """
CREATE SCHEMA public; CREATE SCHEMA sales; CREATE SCHEMA _cdc;
CREATE TABLE _cdc.freshness (position VARCHAR); INSERT INTO _cdc.freshness VALUES ('{edition}');
CREATE TABLE public.orders (
  id INTEGER NOT NULL, name VARCHAR NOT NULL, price DECIMAL(10,2), made TIMESTAMP, sold TIMESTAMPTZ, day DATE, hour TIME,
  ok BOOLEAN, photo BLOB, numbers INTEGER[], words VARCHAR[], document JSON, number UUID, lasts INTERVAL, share DOUBLE,
  ratio FLOAT, huge HUGEINT, big BIGINT, small SMALLINT, pair STRUCT(a INTEGER, b VARCHAR), matrix INTEGER[][],
  prices DECIMAL(5,2)[]);
INSERT INTO public.orders VALUES
  (1, 'a''b"c', 2.50, '2024-01-02 03:04:05.6', '2024-01-02 03:04:05.123456+00', '2024-01-02', '03:04:05', true,
   '\\x00\\xFF'::BLOB, [1, NULL, 3], ['a', 'b"c\\d', NULL], '{{"a": 1}}', '00000000-0000-0000-0000-000000000001',
   INTERVAL '2 days 04:05:06', 1.5, 'inf', 12345678901234567890, -5, 7, {{'a': 1, 'b': 'x'}}, [[1, 2], [3, 4]],
   [1.25, NULL]),
  (2, 'z', {nulls}),
  (3, 'é', -0.05, '1969-12-31 23:59:59', '1969-12-31 23:59:59+00', '1999-12-31', '00:00', false, '', [], [], '[]',
   'ffffffff-ffff-ffff-ffff-ffffffffffff', INTERVAL '-1 day -02:00:00', -0.0, 1e10, 0, 0, 0, NULL, [], []);
CREATE VIEW sales.names AS SELECT id, name FROM public.orders;
COMMENT ON TABLE public.orders IS 'what was sold';
"""


def publish(file: Path, edition: str) -> None:
    """Put another copy under the name, in one step."""
    new = file.with_name(f"{edition}.new")
    with duckdb.connect(str(new)) as connection:
        connection.execute(_SETUP.format(edition=edition, nulls=", ".join(["NULL"] * 20)))
    new.replace(file)


@dataclass
class Served:
    """`cdc serve`, which runs."""

    file: Path
    process: subprocess.Popen[str]
    pg: int
    flight: int
    http: int
    own_socket: Path

    def dsn(self, user: str = USER, password: str = PASSWORD) -> str:
        return psycopg.conninfo.make_conninfo(
            host="127.0.0.1", port=self.pg, dbname="shop", user=user, password=password, connect_timeout=10
        )

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.dsn(), autocommit=True)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    links = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [link.getsockname()[1] for link in links]
    for link in links:
        link.close()
    return ports


@contextmanager
def serving(file: Path, *options: str, **environment: str) -> Iterator[Served]:
    """Serve a file by all three protocols."""
    pg, flight, http = free_ports(3)
    own_socket = file.with_name("own.http")
    command = [*COMMAND, "serve", str(file), f"pg://127.0.0.1:{pg}", f"flight://127.0.0.1:{flight}"]
    command += [f"http://127.0.0.1:{http}", "--own-socket", str(own_socket), *options]
    known = {"CDC_SERVE_USER": USER, "CDC_SERVE_PASSWORD": PASSWORD}
    process = subprocess.Popen(command, env=os.environ | known | environment, stderr=sys.stderr, text=True)
    try:
        for port in (pg, flight, http):
            wait_for_port(port, process)
        yield Served(file, process, pg, flight, http, own_socket)
    finally:
        process.terminate()
        process.wait(20)


def wait_for_port(port: int, process: subprocess.Popen[str] | None = None) -> None:
    until = time.monotonic() + 30
    while True:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        assert process is None or process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
