"""A workload on MySQL or MariaDB that does whatever applications do, on a thread of its own."""

from __future__ import annotations

import random
import threading

import pymysql

from integration.conftest import MySqlDatabase


def make_tables(database: MySqlDatabase, rows: int = 2000) -> None:
    database.execute(
        "CREATE TABLE accounts (id int PRIMARY KEY, balance decimal(20,4), note text, j json, changed timestamp(6) NULL)",
        "CREATE TABLE entries (a varchar(20), b int, v double, PRIMARY KEY (a, b))",
        "CREATE TABLE notes (n int, v varchar(50))",
    )
    with database.connect() as connection, connection.cursor() as cursor:
        values = [(i, i / 8, "x" * (i % 200), f'{{"i": {i}}}', "2024-01-01 00:00:00.5") for i in range(rows)]
        cursor.executemany("INSERT INTO accounts VALUES (%s, %s, %s, %s, %s)", values)


class Work:
    """Transactions until `stop`."""

    def __init__(self, database: MySqlDatabase, seed: int) -> None:
        self._database = database
        self._rng = random.Random(seed)
        self._seed = seed
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        rng, number = self._rng, self._seed * 1_000_000
        try:
            with self._database.connect() as connection, connection.cursor() as cursor:
                while not self._stop.is_set():
                    number += 1
                    cursor.execute("BEGIN")
                    for _ in range(rng.randint(1, 6)):
                        try:
                            cursor.execute(rng.choice(self._statements(number)))
                        except pymysql.err.IntegrityError:
                            pass
                    cursor.execute("COMMIT" if rng.random() < 0.9 else "ROLLBACK")
        except BaseException as error:
            self._failure = error

    def _statements(self, number: int) -> list[str]:
        rng = self._rng
        key, other = rng.randrange(2200), rng.randrange(2200)
        return [
            f"INSERT IGNORE INTO accounts VALUES ({key}, {number / 16}, 'né', '[{key}]', NOW(6))",
            f"UPDATE accounts SET balance = balance + 0.25, changed = NOW(6) WHERE id BETWEEN {key} AND {key + 5}",
            f"UPDATE accounts SET id = {other} WHERE id = {key}",
            f"UPDATE accounts SET note = REPEAT('y', {key % 3000}), j = JSON_OBJECT('k', {key}, 'n', NULL) WHERE id = {key}",
            f"DELETE FROM accounts WHERE id = {key}",
            f"REPLACE INTO entries VALUES ('e{key % 50}', {other % 20}, {number / 7})",
            f"DELETE FROM entries WHERE b = {key % 20} LIMIT 3",
            f"INSERT INTO notes VALUES ({key % 9}, 'v{other % 9}')",
            f"UPDATE notes SET v = 'w' WHERE n = {key % 9} LIMIT 1",
            f"DELETE FROM notes WHERE n = {key % 9} LIMIT 2",
        ]
