"""The work of a long run: so many commits a second, that leave as many rows as there were, and changes of shape."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
from pymysql.constants import ER

from cdc.demo.workload import WorkloadThread

WRITERS = 4  # sessions that commit: one waits while another's commit is under way
_ACCOUNTS, _DOCUMENTS, _THINGS, _ORDERS = 20_000, 400, 1_000, 500  # rows; things and orders are those of each writer
_LINES = 4  # an order has up to so many
_LONG_TEXT = 4_000  # characters: PostgreSQL stores them out of line, and leaves them out of the log of other columns
_PACES = (2.0, 12.0)  # seconds between two changes of shape

_SHAPED = "CREATE TABLE {} (id int PRIMARY KEY, n int, v varchar(40))"
SCHEMA = (
    "CREATE TABLE accounts (id int PRIMARY KEY, owner varchar(40), balance decimal(14,2), details json, changed timestamp(6) NULL)",
    "CREATE TABLE orders (writer int, number int, status varchar(10), placed date, PRIMARY KEY (writer, number))",
    "CREATE TABLE order_lines (writer int, number int, line int, sku varchar(20), price decimal(10,2), weight double precision, "
    "PRIMARY KEY (writer, number, line))",
    "CREATE TABLE documents (id int PRIMARY KEY, version int, body text)",
    "CREATE TABLE things (id int PRIMARY KEY, v varchar(40))",
    _SHAPED.format("shaped"),
    _SHAPED.format("passing"),
)
_SHAPED_ROWS = 200
_NEW_ORDER = "INSERT INTO orders VALUES (%s, %s, 'new', CURRENT_DATE)"
_NEW_LINE = "INSERT INTO order_lines VALUES (%s, %s, %s, %s, %s, %s)"

Connect = Callable[[], Any]  # a session of its own, that commits each statement
Statements = list[tuple[str, tuple[object, ...]]]


def create(connect: Connect) -> None:
    """Make the tables and fill them: from here on the number of rows stays the same."""
    with connect() as connection, connection.cursor() as cursor:
        for statement in SCHEMA:
            cursor.execute(statement)
        cursor.execute("BEGIN")
        accounts = [(i, f"Owner né {i}", i, f'{{"i": {i}}}') for i in range(_ACCOUNTS)]
        cursor.executemany("INSERT INTO accounts (id, owner, balance, details) VALUES (%s, %s, %s, %s)", accounts)
        documents = [(i, 0, _text(random.Random(i))) for i in range(_DOCUMENTS)]
        cursor.executemany("INSERT INTO documents VALUES (%s, %s, %s)", documents)
        for writer in range(WRITERS):
            things = [(1 + writer * _THINGS + i, "thing") for i in range(_THINGS)]
            cursor.executemany("INSERT INTO things VALUES (%s, %s)", things)
            numbers = range(_ORDERS)
            cursor.executemany(_NEW_ORDER, [(writer, number) for number in numbers])
            cursor.executemany(_NEW_LINE, [line for number in numbers for line in _lines(writer, number)])
        for table in ("shaped", "passing"):
            cursor.execute(_filled(table))
        cursor.execute("COMMIT")


def _text(rng: random.Random) -> str:
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=_LONG_TEXT))


def _lines(writer: int, number: int) -> list[tuple[object, ...]]:
    count = 1 + number % _LINES
    return [(writer, number, line, f"SKU-{number * 7 % 300}", number / 100, number / 7) for line in range(count)]


def _filled(table: str) -> str:
    rows = ", ".join(f"({key}, 0, 'né')" for key in range(_SHAPED_ROWS))
    return f"INSERT INTO {table} (id, n, v) VALUES {rows}"


class Writer(WorkloadThread):
    """One session's transactions, at a rate in commits a second.

    Args:
        connect: makes the session.
        rate, seed: as `WorkloadThread` has them.
        writer: which one of them it is: things and orders are each writer's own, so that none waits for another long.
    """

    def __init__(self, connect: Connect, rate: float, seed: int, writer: int) -> None:
        super().__init__(rate, seed)
        self._connect, self._writer = connect, writer

    def _work(self) -> None:
        choices, weights = zip(*self._acts(), strict=True)
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT max(number) FROM orders WHERE writer = %s", (self._writer,))
            (self._number,) = cursor.fetchone()
            began = time.monotonic()
            while not self._stop.is_set():
                (act,) = self._rng.choices(choices, weights)
                try:
                    self._carry_out(cursor, act())
                except pymysql.err.OperationalError as error:
                    if (
                        error.args[0] != ER.LOCK_DEADLOCK
                    ):  # InnoDB has them between neighbours, and takes one of the two back
                        raise
                    self.rolled_back += 1
                self._pace(began, self.transactions)

    def _carry_out(self, cursor: Any, statements: Statements) -> None:
        """One transaction, of which some are taken back."""
        is_block = len(statements) > 1
        is_taken_back = is_block and self._rng.random() < 0.05
        changes = 0
        if is_block:
            cursor.execute("BEGIN")
        for statement, values in statements:
            cursor.execute(statement, values)
            changes += max(0, cursor.rowcount)
        if is_block:
            cursor.execute("ROLLBACK" if is_taken_back else "COMMIT")
        self.changes += 0 if is_taken_back else changes
        self.transactions += not is_taken_back
        self.rolled_back += is_taken_back

    def _acts(self) -> list[tuple[Callable[[], Statements], int]]:
        return [
            (self._touch, 10),
            (self._transfer, 6),
            (self._order, 6),
            (self._number_document, 3),
            (self._rewrite_document, 1),
            (self._move_key, 3),
            (self._half_take_back, 2),
        ]

    def _touch(self) -> Statements:
        return [self._booked(self._rng.randrange(_ACCOUNTS))]

    def _transfer(self) -> Statements:
        """In the order of the keys, so that two writers never wait for each other."""
        return [self._booked(key) for key in sorted(self._rng.sample(range(_ACCOUNTS), 2))]

    def _booked(self, account: int) -> tuple[str, tuple[object, ...]]:
        amount, details = self._rng.randrange(-1000, 1000) / 100, f'{{"n": {self._rng.random()}}}'
        statement = (
            "UPDATE accounts SET balance = balance + %s, details = %s, changed = CURRENT_TIMESTAMP WHERE id = %s"
        )
        return statement, (amount, details, account)

    def _order(self) -> Statements:
        """A new one, and the oldest ones go."""
        self._number += 1
        oldest = (self._writer, self._number - _ORDERS)
        return [
            (_NEW_ORDER, (self._writer, self._number)),
            *[(_NEW_LINE, line) for line in _lines(self._writer, self._number)],
            ("DELETE FROM order_lines WHERE writer = %s AND number <= %s", oldest),
            ("DELETE FROM orders WHERE writer = %s AND number <= %s", oldest),
        ]

    def _number_document(self) -> Statements:
        """Leaves the long text alone."""
        key = self._rng.randrange(_DOCUMENTS)
        return [("UPDATE documents SET version = version + 1 WHERE id = %s", (key,))]

    def _rewrite_document(self) -> Statements:
        text, key = _text(self._rng), self._rng.randrange(_DOCUMENTS)
        return [("UPDATE documents SET body = %s WHERE id = %s", (text, key))]

    def _move_key(self) -> Statements:
        """A thing gets another key, and its own again the next time."""
        key = 1 + self._writer * _THINGS + self._rng.randrange(_THINGS)
        return [("UPDATE things SET id = -id WHERE id IN (%s, %s)", (key, -key))]

    def _half_take_back(self) -> Statements:
        return [
            ("SAVEPOINT s", ()),
            ("DELETE FROM orders WHERE writer = %s AND number > %s", (self._writer, self._number - 10)),
            ("ROLLBACK TO SAVEPOINT s", ()),
            ("UPDATE orders SET status = 'paid' WHERE writer = %s AND number = %s", (self._writer, self._number)),
        ]


class Shaper(WorkloadThread):
    """Changes of shape under load, one every few seconds: columns that come and go, truncates, tables that change their names.

    What comes goes again, so that the shape does not grow either. No table is dropped: the target keeps its rows.
    """

    def __init__(self, connect: Connect, seed: int) -> None:
        super().__init__(None, seed)
        self._connect = connect

    def _work(self) -> None:
        with self._connect() as connection, connection.cursor() as cursor:
            shapes = self._shapes(cursor)
            while not self._stop.wait(self._rng.uniform(*_PACES)):
                for statement in next(shapes):
                    cursor.execute(statement)
                self.transactions += 1

    def _shapes(self, cursor: Any) -> Iterator[list[str]]:
        cursor.execute("SELECT column_name FROM information_schema.columns WHERE table_name = 'shaped'")
        columns = {name for (name,) in cursor.fetchall()}
        while True:
            column = f"c{self._rng.randrange(4)}"
            action = f"DROP COLUMN {column}" if column in columns else f"ADD COLUMN {column} int"
            columns ^= {column}
            yield [f"ALTER TABLE shaped {action}"]
            yield [f"UPDATE shaped SET n = n + 1 WHERE id < {self._rng.randrange(_SHAPED_ROWS)}"]
            yield ["TRUNCATE TABLE shaped", _filled("shaped")]
            renamed = ["ALTER TABLE passing RENAME TO passed", "UPDATE passed SET n = n + 1"]
            yield [*renamed, "ALTER TABLE passed RENAME TO passing"]
