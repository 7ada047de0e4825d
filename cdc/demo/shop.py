"""A small shop: its schema, its first rows, and a workload that does to it whatever applications do."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import psycopg
from psycopg.types.json import Jsonb

from cdc.demo.workload import WorkloadThread

SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.customers (
    id bigint PRIMARY KEY, name text NOT NULL, email text, tags text[], balance numeric(12,2) NOT NULL DEFAULT 0,
    is_active boolean NOT NULL DEFAULT true, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE shop.products (
    sku text PRIMARY KEY, title text NOT NULL, price numeric(10,2) NOT NULL, attributes jsonb, description text,
    weight double precision);
ALTER TABLE shop.products ALTER description SET STORAGE EXTERNAL;
CREATE TABLE shop.orders (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), customer_id bigint NOT NULL, status text NOT NULL,
    placed_on date NOT NULL DEFAULT current_date, ship_within interval, note text);
CREATE TABLE shop.order_lines (
    order_id uuid, line smallint, sku text NOT NULL, quantity integer NOT NULL, price numeric(10,2) NOT NULL,
    PRIMARY KEY (order_id, line));
"""
_STATUSES = ("new", "paid", "sent", "returned")
_LONG_TEXT = 4000  # characters: stored out of line, so that an update of another column leaves it out of the log

Connection = psycopg.Connection[tuple[object, ...]]


def create(connection: Connection, customers: int = 2000, products: int = 300) -> None:
    """Make the shop and fill it."""
    connection.execute(SCHEMA.encode())
    rng = random.Random(1)
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO shop.customers (id, name, email, tags, balance) VALUES (%s, %s, %s, %s, %s)",
            [(i, f"Customer {i}", f"c{i}@example.org", ["new", "née"], i % 100) for i in range(1, customers + 1)],
        )
        cursor.executemany(
            "INSERT INTO shop.products VALUES (%s, %s, %s, %s, %s, %s)",
            [
                (f"SKU-{i}", f"Product {i}", rng.randrange(10000) / 100, Jsonb({"size": i}), _text(rng), rng.random())
                for i in range(1, products + 1)
            ],
        )


def _text(rng: random.Random) -> str:
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=_LONG_TEXT))


class Workload(WorkloadThread):
    """Transactions on the shop.

    Args:
        dsn: of the shop's database.
        rate, seed: as `WorkloadThread` has them.
    """

    def __init__(self, dsn: str, rate: float, seed: int = 1) -> None:
        super().__init__(rate, seed)
        self._dsn = dsn
        self._next_customer = seed * 1_000_000

    def _work(self) -> None:
        acts: list[tuple[Callable[[Connection], int], int]] = [
            (self._place_order, 8),
            (self._pay, 6),
            (self._reprice, 4),
            (self._rewrite_description, 1),
            (self._sign_up, 3),
            (self._cancel, 2),
            (self._change_keys, 1),
            (self._give_up, 2),
        ]
        choices, weights = zip(*acts, strict=True)
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            began = time.monotonic()
            while not self._stop.is_set():
                (act,) = self._rng.choices(choices, weights)
                with connection.transaction():
                    self.changes += act(connection)
                self.transactions += 1
                self._pace(began, self.changes)

    def _place_order(self, connection: Connection) -> int:
        lines = self._rng.randint(1, 5)
        order = connection.execute(
            "INSERT INTO shop.orders (customer_id, status, ship_within) VALUES (%s, 'new', %s::interval) RETURNING id",
            (self._rng.randint(1, 2000), f"{self._rng.randint(1, 9)} days {self._rng.randint(0, 9)} hours"),
        ).fetchone()
        assert order is not None
        for line in range(lines):
            connection.execute(
                "INSERT INTO shop.order_lines VALUES (%s, %s, %s, %s, %s)",
                (order[0], line, self._sku(), self._rng.randint(1, 9), self._rng.randrange(5000) / 100),
            )
        return 1 + lines

    def _pay(self, connection: Connection) -> int:
        connection.execute(
            "UPDATE shop.customers SET balance = balance + %s, is_active = NOT is_active WHERE id = %s",
            (self._rng.randrange(1000) / 100, self._rng.randint(1, 2000)),
        )
        return (
            1
            + connection.execute(
                "UPDATE shop.orders SET status = %s "
                "WHERE id IN (SELECT id FROM shop.orders WHERE status <> 'sent' LIMIT 3)",
                (self._rng.choice(_STATUSES),),
            ).rowcount
        )

    def _reprice(self, connection: Connection) -> int:
        """Leaves the long description alone, which the log then does not carry."""
        return connection.execute(
            "UPDATE shop.products SET price = price + 0.01, attributes = attributes || %s WHERE sku = %s",
            (Jsonb({"n": self._rng.random()}), self._sku()),
        ).rowcount

    def _rewrite_description(self, connection: Connection) -> int:
        return connection.execute(
            "UPDATE shop.products SET description = %s WHERE sku = %s", (_text(self._rng), self._sku())
        ).rowcount

    def _sign_up(self, connection: Connection) -> int:
        self._next_customer += 1
        return connection.execute(
            "INSERT INTO shop.customers (id, name, email) VALUES (%s, %s, NULL)", (self._next_customer, "Someone new")
        ).rowcount

    def _cancel(self, connection: Connection) -> int:
        orders = connection.execute("SELECT id FROM shop.orders ORDER BY random() LIMIT 1").fetchall()
        ids = [order[0] for order in orders]
        lines = connection.execute("DELETE FROM shop.order_lines WHERE order_id = ANY(%s)", (ids,)).rowcount
        return lines + connection.execute("DELETE FROM shop.orders WHERE id = ANY(%s)", (ids,)).rowcount

    def _change_keys(self, connection: Connection) -> int:
        """A product gets another number, and goes on being the same product."""
        return connection.execute(
            "UPDATE shop.products SET sku = sku || '-' || (random() * 1000000)::int "
            "WHERE sku = (SELECT sku FROM shop.products ORDER BY random() LIMIT 1) AND length(sku) < 40"
        ).rowcount

    def _give_up(self, connection: Connection) -> int:
        """Work that is taken back, in whole or to a savepoint; nothing of it may ever be seen."""
        self.rolled_back += 1
        with connection.transaction(force_rollback=True):
            self._sign_up(connection)
            connection.execute("UPDATE shop.customers SET name = 'never' WHERE id < 100")
        return 0

    def _sku(self) -> str:
        return f"SKU-{self._rng.randint(1, 300)}"
