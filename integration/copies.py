"""The tables of a database as a pipeline keeps them in each kind of target, read by clients that share no code with it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import psycopg
from clickhouse_connect import get_client

from cdc.demo.server import PrivatePostgres
from cdc.options import Options
from cdc.runs import open_pipeline
from integration.clickhouse import PrivateClickHouse
from integration.conftest import Database, MySqlDatabase
from integration.other_duckdb import OtherDuckDb
from integration.processes import cdc

Answer = tuple[list[str], list[tuple[Any, ...]]]  # the names of the columns, and rows
_READER = str(Path(__file__).with_name("lake_reader.py"))


class Copy(ABC):
    """A database, and where its tables go.

    Args:
        options: of the pipeline, beside the usual ones.
    """

    def __init__(self, source: Database | MySqlDatabase, target: str, **options: Any) -> None:
        self.source, self.target = source, target
        self.schema = source.name if isinstance(source, MySqlDatabase) else "public"
        self._options = Options(source.name, until_caught_up=True, **options)

    def catch_up(self) -> None:
        """Apply everything that the source has now."""
        open_pipeline(self.source.dsn, self.target, self._options).run()

    def crash(self, point: str) -> None:
        """The same in a process that is killed at a fault point, if it comes there."""
        cdc("run", *self._arguments, CDC_FAULT=point)

    @property
    def _arguments(self) -> tuple[str, ...]:
        return (self.source.dsn, self.target, "--name", self.source.name, "--until-caught-up")

    @property
    def durable(self) -> int:
        """The order of its checkpoint."""
        return int(self._ask("SELECT position_order FROM _cdc.checkpoint")[1][0][0])

    def answer(self, table: str) -> Answer:
        """All of a table."""
        return self._ask(f'SELECT * FROM "{self.schema}"."{table}"')

    @abstractmethod
    def _ask(self, query: str) -> Answer:
        """What its client answers."""

    def assert_equal(self, *tables: str) -> None:
        """Every row of the source, and no other."""
        for table in tables:
            assert _spelled(*self.answer(table)) == _spelled(*self._of_source(table)), table

    def _of_source(self, table: str) -> Answer:
        with self.source.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {table}")
            return [column[0] for column in cursor.description], list(cursor.fetchall())


class InDuckDb(Copy):
    """A file."""

    def __init__(self, source: Database | MySqlDatabase, folder: Path, **options: Any) -> None:
        self._file = folder / "copy.duckdb"
        super().__init__(source, f"duckdb:{self._file}", **options)

    def _ask(self, query: str) -> Answer:
        with duckdb.connect(str(self._file), read_only=True) as connection:
            found = connection.execute(query)
            return [column[0] for column in found.description or ()], found.fetchall()


class InPostgres(Copy):
    """A database of another server."""

    def __init__(self, source: Database | MySqlDatabase, copies: PrivatePostgres, **options: Any) -> None:
        super().__init__(source, copies.create_database(f"copy_{source.name}"), **options)

    def _ask(self, query: str) -> Answer:
        with psycopg.connect(self.target) as connection:
            found = connection.execute(query.encode())
            return [column[0] for column in found.description or ()], found.fetchall()


class InClickHouse(Copy):
    """Databases of ClickHouse's engine, whose names begin with that of the source's."""

    def __init__(self, source: Database | MySqlDatabase, house: PrivateClickHouse, **options: Any) -> None:
        self._house = house
        super().__init__(source, house.dsn(source.name), **options)

    def answer(self, table: str) -> Answer:
        return self._ask(f"SELECT * FROM `{self.source.name}_{self.schema}`.`{table}`")

    @property
    def durable(self) -> int:
        records = f"`{self.source.name}__cdc`.records"
        ((found,),) = self._ask(f"SELECT content FROM {records} FINAL WHERE name = 'checkpoint'")[1]
        return int(json.loads(found)["order"])

    def _ask(self, query: str) -> Answer:
        client = get_client(host="127.0.0.1", port=self._house.port, autogenerate_session_id=False)
        try:
            found = client.query(query)
            return list(found.column_names), [tuple(row) for row in found.result_rows]
        finally:
            client.close()


class InLake(Copy):
    """A lake with a file as its catalogue, by the DuckDB that has the extension."""

    def __init__(self, source: Database | MySqlDatabase, folder: Path, lakes: OtherDuckDb) -> None:
        self._lakes = lakes
        super().__init__(source, f"ducklake:{folder / 'catalogue'}")

    def catch_up(self) -> None:
        done = self._lakes.cdc("run", *self._arguments)
        assert done.returncode == 0, done.stderr

    def crash(self, point: str) -> None:
        self._lakes.cdc("run", *self._arguments, CDC_FAULT=point)

    def _ask(self, query: str) -> Answer:
        names, *rows = map(json.loads, self._lakes.python(_READER, self.target, "answer", query).splitlines())
        return names, rows


def _spelled(names: list[str], rows: Iterable[tuple[Any, ...]]) -> list[tuple[tuple[str, str | None], ...]]:
    """Rows by the names of their columns, in one order whatever the order of either was."""
    spelled = (
        sorted(zip(names, (None if value is None else str(value) for value in row), strict=True)) for row in rows
    )
    return sorted(map(tuple, spelled), key=repr)
