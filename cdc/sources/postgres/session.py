"""A session of PostgreSQL that neither waits without end nor fails in unknown ways, whatever comes over the wire."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import psycopg
from psycopg import generators, pq

PATIENCE = 600.0  # seconds of silence after which a query is given up, whatever answers in the server's name
UNENDING = math.inf

T = TypeVar("T")
Row = tuple[object, ...]


@contextmanager
def readable() -> Iterator[None]:
    """An answer that cannot be read was damaged on the way, which a line without TLS does not notice (E-16).

    Also for the code that makes something of what was read.
    """
    try:
        yield
    except (ValueError, LookupError, ArithmeticError, TypeError, AttributeError) as error:
        raise psycopg.OperationalError(f"the server's answer cannot be read ({type(error).__name__})") from error


def of_type(value: object, kind: type[T]) -> T:
    """A server's answer, if it is of the kind that it was asked for; otherwise it was damaged on the way (E-16)."""
    if not isinstance(value, kind):
        found = type(value).__name__
        raise psycopg.OperationalError(f"the server's answer is not what was asked for ({found}, not {kind.__name__})")
    return value


def number(text: object) -> int:
    """A number that a server sent as text."""
    with readable():
        return int(str(text))


class Cursor(psycopg.Cursor[Row]):
    """The failure of psycopg at an answer that cannot be read becomes one of its own errors."""

    def execute(self, *args: Any, **kwargs: Any) -> Self:
        with readable():
            return super().execute(*args, **kwargs)

    def fetchone(self) -> Row | None:
        with readable():
            return super().fetchone()

    def fetchall(self) -> list[Row]:
        with readable():
            return super().fetchall()


class Session(psycopg.Connection[Row]):
    """A connection that does not wait for an answer without end.

    Attributes:
        patience: seconds of silence after which the server is taken for gone.
        is_at_work: says whether it is not, by another session, where an answer may take as long as it likes.
    """

    patience = PATIENCE
    is_at_work: Callable[[], bool] | None = None

    def __exit__(self, *_: object) -> None:
        """Close it. psycopg's own way commits before, which fails where an answer was not read to its end (E-16)."""
        self.close()

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        """psycopg waits for the server here, and only here."""
        return super().wait(self._impatiently(gen), *args, **kwargs)

    def _impatiently(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        heard = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                now = time.monotonic()
                if ready:
                    heard = now
                elif now - heard > self.patience:
                    if self.is_at_work is None or not self.is_at_work():
                        self._give_up()
                    heard = time.monotonic()
                wanted = gen.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result

    def run(self, command: bytes) -> pq.abc.PGresult:
        """Run one command by the simple protocol, whatever comes of it: also one that begins a COPY."""
        self.pgconn.send_query(command)
        return self._last_result()

    def run_out(self) -> pq.abc.PGresult:
        """What kind of end a COPY came to."""
        return self._last_result()

    def copied(self) -> Iterator[list[bytes]]:
        """The rows of a COPY that was begun, as they come; `run_out` tells what kind of end it came to.

        psycopg's own way costs a generator per row.
        """
        get = self.pgconn.get_copy_data
        while True:
            rows: list[bytes] = []
            while (got := get(1))[0] > 0:
                rows.append(bytes(got[1]))
            if rows:
                yield rows
            if got[0] < 0:
                return
            limit = self.patience if math.isfinite(self.patience) else None
            if not select.select([self.pgconn.socket], [], [], limit)[0]:
                self._give_up()
            self.pgconn.consume_input()

    def _last_result(self) -> pq.abc.PGresult:
        results: list[pq.abc.PGresult] = self.wait(generators.execute(self.pgconn))
        return results[-1]

    def _give_up(self) -> None:
        self.pgconn.finish()
        raise psycopg.OperationalError(f"the server has been silent for {self.patience:.0f} s")
