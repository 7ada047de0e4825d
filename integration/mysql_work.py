"""The demo's workload, as tests start it."""

from __future__ import annotations

from cdc.demo.mysql_shop import Workload, create
from integration.conftest import MySqlDatabase


def make_tables(database: MySqlDatabase, rows: int = 2000) -> None:
    with database.connect() as connection:
        create(connection, rows)


def start_work(database: MySqlDatabase, seed: int, rate: float = 500) -> Workload:
    """Transactions until `stop`, of so many changes a second: as many as there can be take the processors for themselves."""
    workload = Workload(database.server.arguments(database.name), rate, seed)
    workload.start()
    return workload
