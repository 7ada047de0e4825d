"""Real servers: private ones, started once, with a database of its own for each test."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from psycopg import sql

from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from cdc.model.selection import Selection
from cdc.options import Options
from cdc.runs import TableComparison, compare_tables, open_pipeline
from integration.clickhouse import PrivateClickHouse
from integration.kafka import PrivateKafka
from integration.proxy import FaultProxy
from tests.seeds import TAKES_ALL, some

_HERE = Path(__file__).parent

_numbers = itertools.count(1)


@dataclass
class Database:
    """A database of its own on a shared server."""

    server: PrivatePostgres
    name: str

    @property
    def dsn(self) -> str:
        return self.server.dsn(self.name)

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.dsn, autocommit=True)

    def execute(self, query: str) -> list[tuple[object, ...]]:
        return self.server.execute(query, self.name)

    def remove(self) -> None:
        """Drop it with its slots, even if a process uses them."""
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            slots = "FROM pg_replication_slots WHERE database = %s"
            connection.execute(f"SELECT pg_terminate_backend(active_pid) {slots} AND active", (self.name,))
            for _ in range(200):
                if not connection.execute(f"SELECT 1 {slots} AND active", (self.name,)).fetchall():
                    break
            connection.execute(f"SELECT pg_drop_replication_slot(slot_name) {slots} AND NOT active", (self.name,))
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self.name)))


@dataclass
class MySqlDatabase:
    """A database of its own on a shared server of MySQL or MariaDB."""

    server: PrivateMySql
    name: str

    @property
    def dsn(self) -> str:
        return self.server.dsn(self.name)

    @property
    def flavor(self) -> str:
        return self.server.flavor

    def connect(self) -> Any:
        return self.server.connect(self.name)

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        return self.server.execute(*statements, database=self.name)

    def remove(self) -> None:
        self.server.execute(f"DROP DATABASE IF EXISTS `{self.name}`")


@dataclass
class Replica:
    """A pipeline from a database into a DuckDB file, run as often as a test likes."""

    database: Database | MySqlDatabase
    path: Path
    options: Options

    @property
    def target(self) -> str:
        return f"duckdb:{self.path}"

    def catch_up(self) -> None:
        """Run until everything that the source has now is applied."""
        open_pipeline(self.database.dsn, self.target, self.options).run()

    def compare(self) -> list[TableComparison]:
        return compare_tables(self.database.dsn, self.target, self.options.selection)

    def assert_equal(self) -> None:
        """Every table has the same rows with the same values on both sides."""
        comparison = self.compare()
        assert comparison, "there is no table to compare"
        assert [table for table in comparison if not table.equal] == []

    def query(self, query: str) -> list[tuple[object, ...]]:
        with duckdb.connect(str(self.path), read_only=True) as connection:
            schema = self.database.name if isinstance(self.database, MySqlDatabase) else "public"
            connection.execute(f'SET TimeZone = \'UTC\'; USE "{self.path.stem}"."{schema}"')
            return connection.execute(query).fetchall()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that is of MySQL as well as of MariaDB runs on one of the two, of which each commit has its own for each
    test; `CDC_CHOICES=all` has both."""
    if not TAKES_ALL:
        known = {item.nodeid for item in items}
        items[:] = [item for item in items if _is_chosen(item, known)]


def _is_chosen(item: pytest.Item, known: set[str]) -> bool:
    if not (isinstance(item, pytest.Function) and hasattr(item, "callspec") and item.path.is_relative_to(_HERE)):
        return True
    for kind, other in (("mysql", "mariadb"), ("mariadb", "mysql")):
        sibling = re.sub(rf"(?<=[\[-]){kind}(?=[\]-])", other, item.nodeid, count=1)
        if kind in item.callspec.params.values() and sibling != item.nodeid and sibling in known:
            return kind in some(["mysql", "mariadb"], 1, f"{item.path.name} {item.originalname}")
    return True


@pytest.fixture(autouse=True)
def shapes_are_known(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A table that is copied again because its rows cannot be read is right in the end, and hides why (B-41)."""
    yield
    said = [text for text in (record.getMessage() for record in caplog.get_records("call")) if "another shape" in text]
    assert not said or request.node.get_closest_marker("loses_shapes"), said


@pytest.fixture(scope="session")
def postgres() -> Iterator[PrivatePostgres]:
    with PrivatePostgres(18) as server:
        yield server


@pytest.fixture(scope="session")
def postgres16() -> Iterator[PrivatePostgres]:
    with PrivatePostgres(16) as server:
        yield server


@pytest.fixture(scope="session")
def copies() -> Iterator[PrivatePostgres]:
    """A server to copy to, another one than the source's."""
    with PrivatePostgres(18) as server:
        yield server


@pytest.fixture(scope="session")
def house() -> Iterator[PrivateClickHouse]:
    with PrivateClickHouse() as server:
        yield server


@pytest.fixture(scope="session")
def kafka() -> Iterator[PrivateKafka]:
    with PrivateKafka() as broker:
        yield broker


@pytest.fixture
def database(postgres: PrivatePostgres) -> Iterator[Database]:
    yield from make_database(postgres)


def make_database(server: PrivatePostgres) -> Iterator[Database]:
    name = f"test_{next(_numbers)}"
    server.create_database(name)
    made = Database(server, name)
    yield made
    made.remove()


@pytest.fixture(scope="session")
def mysql() -> Iterator[PrivateMySql]:
    with PrivateMySql("mysql") as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[PrivateMySql]:
    with PrivateMySql("mariadb") as server:
        yield server


@pytest.fixture(params=["mysql", "mariadb"])
def my(request: pytest.FixtureRequest) -> Iterator[MySqlDatabase]:
    """A database on each of the two."""
    yield from make_my(request.getfixturevalue(request.param))


@pytest.fixture
def on_mysql(mysql: PrivateMySql) -> Iterator[MySqlDatabase]:
    yield from make_my(mysql)


@pytest.fixture
def on_mariadb(mariadb: PrivateMySql) -> Iterator[MySqlDatabase]:
    yield from make_my(mariadb)


def make_my(server: PrivateMySql) -> Iterator[MySqlDatabase]:
    # MariaDB reads a file of its log from the begin up to the GTID that a dump begins at: all that earlier tests did.
    server.execute("FLUSH BINARY LOGS")
    name = f"test_{next(_numbers)}"
    server.create_database(name)
    made = MySqlDatabase(server, name)
    yield made
    made.remove()


@pytest.fixture(params=["postgres", "mysql", "mariadb"])
def anywhere(request: pytest.FixtureRequest) -> Iterator[Database | MySqlDatabase]:
    """A database on each kind of server."""
    server = request.getfixturevalue(request.param)
    yield from make_database(server) if request.param == "postgres" else make_my(server)


@pytest.fixture
def my_replica(my: MySqlDatabase, tmp_path: Path) -> Replica:
    return make_replica(my, tmp_path)


@pytest.fixture
def replica(database: Database, tmp_path: Path) -> Replica:
    return make_replica(database, tmp_path)


def make_replica(database: Database | MySqlDatabase, folder: Path, *tables: str, **options: object) -> Replica:
    options = {"name": database.name, "until_caught_up": True} | options
    chosen = Options(selection=Selection(tables), **options)  # type: ignore[arg-type]
    return Replica(database, folder / f"{chosen.name}.duckdb", chosen)


@pytest.fixture(params=["postgres", "mysql", "mariadb"])
def bad_source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database | MySqlDatabase]:
    """A database with two tables on each of the servers, for tests of bad networks; tries follow each other soon."""
    from integration.line import fill

    monkeypatch.setattr("cdc.engine.pipeline._LONGEST_WAIT", 0.3)
    make = make_database if request.param == "postgres" else make_my
    for database in make(request.getfixturevalue(request.param)):
        fill(database)
        yield database


@pytest.fixture
def proxy(bad_source: Database | MySqlDatabase) -> Iterator[FaultProxy]:
    with FaultProxy(bad_source.server.port) as running:
        yield running


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed within seconds, of which a server lets one pass between two signs of life."""
    patience = 3.0
    monkeypatch.setattr("cdc.sources.postgres.stream._QUIET_FOR", 0.4)
    monkeypatch.setattr("cdc.sources.postgres.session.Session.patience", patience)
    monkeypatch.setattr("cdc.sources.postgres.connection.connect.__defaults__", (patience,))
    monkeypatch.setattr("cdc.sources.postgres.source._PATIENCE", patience)
    for module in ("stream.SILENT_FOR", "dump.SILENT_FOR", "source._PATIENCE"):
        monkeypatch.setattr(f"cdc.sources.mysql.{module}", patience)
    monkeypatch.setattr("cdc.sources.mysql.connection.Connection.__init__.__defaults__", (patience,))
