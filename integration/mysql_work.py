"""The demo's workload, as tests start it."""

from __future__ import annotations

from cdc.demo.mysql_shop import Workload, create
from integration.conftest import MySqlDatabase


def make_tables(database: MySqlDatabase, rows: int = 2000) -> None:
    with database.connect() as connection:
        create(connection, rows)


def start_work(database: MySqlDatabase, seed: int) -> Workload:
    """Transactions until `stop`."""
    workload = Workload(database.server.arguments(database.name), seed=seed)
    workload.start()
    return workload
