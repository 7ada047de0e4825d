"""A workload on MySQL or MariaDB that does to a few tables whatever applications do."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pymysql

from cdc.demo.workload import WorkloadThread

SCHEMA = (
    "CREATE TABLE accounts (id int PRIMARY KEY, balance decimal(20,4), note text, j json, changed timestamp(6) NULL)",
    "CREATE TABLE entries (a varchar(20), b int, v double, PRIMARY KEY (a, b))",
    "CREATE TABLE notes (n int, v varchar(50))",
)


def create(connection: Any, rows: int = 2000) -> None:
    """Make the tables and fill one of them."""
    with connection.cursor() as cursor:
        for statement in SCHEMA:
            is_old = connection.get_server_info().startswith("5.6")  # which has no documents
            cursor.execute(statement.replace("j json", "j text") if is_old else statement)
        values = [(i, i / 8, "x" * (i % 300), f'{{"i": {i}}}', "2024-01-01 00:00:00.5") for i in range(rows)]
        cursor.executemany("INSERT INTO accounts VALUES (%s, %s, %s, %s, %s)", values)


class Workload(WorkloadThread):
    """Transactions on the tables.

    Args:
        connect: the arguments of `pymysql.connect`.
        rate, seed: as `WorkloadThread` has them.
    """

    def __init__(self, connect: dict[str, Any], rate: float | None = None, seed: int = 1) -> None:
        super().__init__(rate, seed)
        self._connect, self._seed = connect, seed

    def _work(self) -> None:
        rng, number = self._rng, self._seed * 1_000_000
        with pymysql.connect(**self._connect) as connection, connection.cursor() as cursor:
            began = time.monotonic()
            while not self._stop.is_set():
                number += 1
                cursor.execute("BEGIN")
                for _ in range(rng.randint(1, 6)):
                    with suppress(pymysql.err.IntegrityError):
                        self.changes += cursor.execute(rng.choice(self._statements(number)))
                commits = rng.random() < 0.9
                cursor.execute("COMMIT" if commits else "ROLLBACK")
                self.transactions += commits
                self.rolled_back += not commits
                self._pace(began, self.changes)

    def _statements(self, number: int) -> list[str]:
        rng = self._rng
        key, other = rng.randrange(2200), rng.randrange(2200)
        return [
            f"INSERT IGNORE INTO accounts VALUES ({key}, {number / 16}, 'né', '[{key}]', NOW(6))",
            f"UPDATE accounts SET balance = balance + 0.25, changed = NOW(6) WHERE id BETWEEN {key} AND {key + 5}",
            f"UPDATE accounts SET id = {other} WHERE id = {key}",
            f"UPDATE accounts SET note = REPEAT('y', {key % 3000}), j = '{{\"k\": {key}}}' WHERE id = {key}",
            f"DELETE FROM accounts WHERE id = {key}",
            f"REPLACE INTO entries VALUES ('e{key % 50}', {other % 20}, {number / 7})",
            f"DELETE FROM entries WHERE b = {key % 20} LIMIT 3",
            f"INSERT INTO notes VALUES ({key % 9}, 'v{other % 9}')",
            f"UPDATE notes SET v = 'w' WHERE n = {key % 9} LIMIT 1",
            f"DELETE FROM notes WHERE n = {key % 9} LIMIT 2",
        ]
