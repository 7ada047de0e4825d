"""Pages whose commands are run: what a page shows as the output of a command is what the command really said.

A block of `console` has commands after `$ ` (and their further lines after `> `), each followed by its output. A page says in a comment which servers it needs:

    <!-- servers: postgresql clickhouse -->

They are private ones, under the names that pages use: `app@db/shop` is the source with customers and orders, `new` another
PostgreSQL, `house` a ClickHouse, `broker:9092` a Kafka. All commands of a page run in one empty folder. A block inside a comment is run and not
shown. A command that ends with ` &` goes on until the page ends, or until the words that a comment before it gives:

    <!-- until: caught up -->

`python -m integration.pages PAGE ...` runs pages and writes what was said into them.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Producer

from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres, wheel_binaries
from integration.clickhouse import PrivateClickHouse
from integration.failover import copy_of
from integration.kafka import PrivateKafka
from integration.other_duckdb import installed

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_SERVERS = re.compile(r"<!-- servers: (.*?) -->")
_UNTIL = re.compile(r"<!-- until: (.*?) -->\s*\Z")
_PATIENCE = 60.0  # seconds for a command
_WIDTH = 110  # characters of a line of output


_TABLES = (
    "CREATE TABLE customers (id bigint PRIMARY KEY, name varchar(100) NOT NULL, email varchar(100))",
    "CREATE TABLE orders (id bigint PRIMARY KEY, customer bigint NOT NULL, total numeric(12,2) NOT NULL)",
)
_ROWS = {
    "INSERT INTO customers VALUES (%s, %s, %s)": [(n, f"Customer {n}", f"c{n}@example.org") for n in range(1, 1001)],
    "INSERT INTO orders VALUES (%s, %s, %s)": [(n, 1 + n % 1000, n % 97 + 0.99) for n in range(1, 20001)],
}


@dataclass(frozen=True, slots=True)
class Block:
    """Commands of a page, each with what it says.

    Attributes:
        start, end: where they are in the page's text.
        said: commands with their outputs.
        until: what the last command, which goes on, says once the page can go on as well; empty if it just ends.
        is_shown: whether a reader sees it.
    """

    start: int
    end: int
    said: tuple[tuple[str, str], ...]
    until: str
    is_shown: bool

    @property
    def text(self) -> str:
        return "".join(f"$ {command}\n{output}" for command, output in self.said)


def blocks(text: str) -> list[Block]:
    """The blocks of a page."""
    hidden = [(match.start(), match.end()) for match in _COMMENT.finditer(text)]
    found = []
    for match in _BLOCK.finditer(text):
        said: list[tuple[str, str]] = []
        for line in match[1].splitlines(keepends=True):
            if line.startswith("$ "):
                said.append((line[2:].rstrip("\n"), ""))
            elif line.startswith(">") and said and not said[-1][1]:
                said[-1] = (f"{said[-1][0]}\n{line.rstrip()}", "")
            else:
                said[-1] = (said[-1][0], said[-1][1] + line)
        until = _UNTIL.search(text[: match.start()])
        is_shown = not any(start < match.start() < end for start, end in hidden)
        found.append(Block(match.start(1), match.end(1), tuple(said), until[1] if until else "", is_shown))
    return found


@dataclass
class Place:
    """Where the commands of a page run.

    Attributes:
        programs: a folder with commands of machines that are not here.
        environment: of the commands.
        names: what stands in a page for what the servers are really called.
        primary: the source, if it is PostgreSQL.
        running: commands that go on.
    """

    folder: Path
    programs: Path
    environment: dict[str, str]
    names: dict[str, str] = field(default_factory=dict)
    primary: PrivatePostgres | None = None
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, command: str, until: str) -> str:
        """Run a command; what it said, in the words of the page."""
        real = re.sub(r"^> ?", "", command, flags=re.MULTILINE)
        for name, value in self.names.items():
            real = real.replace(name, value)
        goes_on = real.endswith(" &")
        with tempfile.NamedTemporaryFile(dir=self.folder.parent) as output:
            process = subprocess.Popen(
                ["bash", "-c", "exec " * goes_on + real.removesuffix(" &")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self.environment,
            )
            said = Path(output.name)
            if goes_on:
                self.running.append(process)
                deadline = time.monotonic() + _PATIENCE
                while until not in said.read_text():
                    assert process.poll() is None, f"{command}: {said.read_text()}"
                    assert time.monotonic() < deadline, f"{command}: {said.read_text()}"
                    time.sleep(0.05)
            else:
                process.wait(_PATIENCE)
            assert "Traceback (most recent call last)" not in said.read_text(), f"{command}: {said.read_text()}"
            return self._in_words_of_the_page(said.read_text())

    def _in_words_of_the_page(self, text: str) -> str:
        for name, value in self.names.items():
            text = text.replace(value, name)
        text = text.replace(f"{self.folder}/", "/data/")
        lines = [line.rstrip() for line in text.strip("\n").splitlines()]
        return "".join(f"{line}\n" for line in lines)

    def add_program(self, name: str, command: str) -> None:
        """A command that gets the arguments."""
        script = self.programs / name
        script.write_text(f'#!/bin/sh\n{command} "$@"\n')
        script.chmod(0o755)

    def end(self) -> None:
        """End what goes on, as Ctrl+C would."""
        for process in reversed(self.running):
            process.send_signal(signal.SIGINT)
        for process in reversed(self.running):
            process.wait(_PATIENCE)


@contextmanager
def place(servers: list[str]) -> Iterator[Place]:
    """Private servers under the names of pages, and an empty folder."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cdc-page-")))
        folder, programs = root / "data", root / "bin"
        folder.mkdir()
        programs.mkdir()
        paths = [programs, Path(sys.executable).parent, wheel_binaries(18)]
        path = os.pathsep.join([*map(str, paths), os.environ["PATH"]])
        made = Place(folder, programs, os.environ | {"PATH": path, "COLUMNS": str(_WIDTH)})
        for server in servers:
            _START[server](made, stack)
        stack.callback(made.end)
        yield made


def _start_source(made: Place, stack: ExitStack) -> None:
    """PostgreSQL as the source."""
    made.primary = _start_postgres(made, stack, "app", "db")
    _fill(psycopg.connect(made.primary.dsn("shop", "app")))


def _start_new(made: Place, stack: ExitStack) -> None:
    _start_postgres(made, stack, "cdc", "new")


def _start_postgres(made: Place, stack: ExitStack, role: str, host: str) -> PrivatePostgres:
    server = stack.enter_context(PrivatePostgres(18, password=made.environment.get("PGPASSWORD", "")))
    server.execute(f"CREATE ROLE {role} LOGIN REPLICATION PASSWORD '{server.password}'")
    server.execute(f"CREATE DATABASE shop OWNER {role}")
    made.environment["PGPASSWORD"] = server.password
    made.names[f"@{host}/"] = f"@127.0.0.1:{server.port}/"
    return server


def _start_standby(made: Place, stack: ExitStack) -> None:
    """A standby `b` that has copies of the slots of `a`, which is the source, and a way to both machines."""
    primary = made.primary
    assert primary is not None
    standby = copy_of(primary, follows=True, settings={"sync_replication_slots": "on"})
    stack.callback(standby.close)
    primary.execute(f"ALTER SYSTEM SET synchronized_standby_slots = '{standby.slot}'")
    primary.execute("SELECT pg_reload_conf()")
    made.names |= {
        "@a:5432,b:5432/": f"@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/",
        "@a/": f"@127.0.0.1:{primary.port}/",
        "@b/": f"@127.0.0.1:{standby.port}/",
    }
    as_owner = "setpriv --reuid=65534 --regid=65534 --clear-groups " if os.geteuid() == 0 else ""
    data = f"case $1 in a) data={primary.data};; b) data={standby.data};; esac"
    made.add_program("ssh", f"{data}\nshift 2\ncd /tmp && exec {as_owner}{primary.binaries}/pg_ctl -D $data -s")


def _start_mysql(made: Place, stack: ExitStack) -> None:
    server = _start_edition(made, stack, "mysql")
    shutil.copy(server.data / "ca.pem", made.folder)


def _start_mariadb(made: Place, stack: ExitStack) -> None:
    _start_edition(made, stack, "mariadb")


def _start_edition(made: Place, stack: ExitStack, edition: str) -> PrivateMySql:
    server = stack.enter_context(PrivateMySql(edition))
    user = "app@'127.0.0.1'"
    server.execute(f"CREATE USER {user} IDENTIFIED BY '{server.password}'", f"GRANT ALL ON *.* TO {user}")
    server.create_database("shop")
    _fill(server.connect("shop"))
    made.add_program(edition, f"exec {' '.join(server.programs.command(edition))}")
    made.environment["MYSQL_PWD"] = server.password
    made.names |= {"@db/": f"@127.0.0.1:{server.port}/", "-h db": f"-h 127.0.0.1 -P {server.port}"}
    return server


def _start_clickhouse(made: Place, stack: ExitStack) -> None:
    house = stack.enter_context(PrivateClickHouse())
    made.names |= {f"{before}house:8123": f"{before}127.0.0.1:{house.port}" for before in ("@", "//")}


def _start_kafka(made: Place, stack: ExitStack) -> None:
    broker = stack.enter_context(PrivateKafka())
    made.names["broker:9092"] = broker.brokers
    login = (broker.folder / "client.properties").read_text()
    (made.folder / "client.properties").write_text(login)
    settings = dict(line.split("=", 1) for line in login.splitlines())
    # The first producer with transactions waits for the broker, and says so.
    Producer(settings | {"bootstrap.servers": broker.brokers, "transactional.id": "first"}).init_transactions()


def _take_ducklake(made: Place, _: ExitStack) -> None:
    """The DuckDB that there are extensions for without a network."""
    found = installed("ducklake.txt").environment
    made.environment |= {name: found[name] for name in ("PYTHONPATH", "HOME")}


_START: dict[str, Callable[[Place, ExitStack], None]] = {
    "postgresql": _start_source,
    "standby": _start_standby,
    "new": _start_new,
    "mysql": _start_mysql,
    "mariadb": _start_mariadb,
    "clickhouse": _start_clickhouse,
    "kafka": _start_kafka,
    "ducklake": _take_ducklake,
}


def _fill(connection: Any) -> None:
    """Make the tables that pages are about."""
    with connection, connection.cursor() as cursor:
        for table in _TABLES:
            cursor.execute(table)
        for statement, rows in _ROWS.items():
            cursor.executemany(statement, rows)


def said_by(text: str) -> list[Block]:
    """Run the commands of a page; its blocks with what they said now."""
    match = _SERVERS.search(text)
    with place(match[1].split() if match else []) as where:
        return [
            replace(block, said=tuple((command, where.run(command, block.until)) for command, _ in block.said))
            for block in blocks(text)
        ]


def written(text: str) -> str:
    """The page with what its commands said now."""
    for block in reversed(said_by(text)):
        if block.is_shown:
            text = text[: block.start] + block.text + text[block.end :]
    return text


def shape(output: str) -> list[str]:
    """An output without what each run has its own of: times, positions, numbers, and the widths of columns."""
    # Progress comes as time passes, and a run names any of its tables to look at.
    text = re.sub(
        r"^.*( phase=(opening|copying|streaming) | Caught up with the source).*\n", "", output, flags=re.MULTILINE
    )
    text = re.sub(r"FROM \S+ LIMIT", "FROM # LIMIT", text)
    text = re.sub(r"\b[0-9A-F]+/[0-9A-F]+\b", "#", text)
    text = re.sub(r"\b([0-9a-f]{32}|copy-[0-9a-f]{8})\b", "#", text)
    text = re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "#", text)
    text = re.sub(r"\d[\d.,:TZ-]*( ?(ms|s|kB|MB|GB|B|bytes))?\b", "#", text)
    text = re.sub(r"[─━═-]{2,}", "--", text)
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip()]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        page = Path(name)
        page.write_text(written(page.read_text()))
