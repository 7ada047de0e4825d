"""Those who ask by Arrow Flight SQL: a call is one question, with no connection that could be counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa

from cdc.serve.editions import Editions
from cdc.serve.reading import Reader
from cdc.targets.duckdb.refusals import TOO_LONG, TOO_MANY, Refused


class Readers:
    """So many questions at a time."""

    def __init__(self, editions: Editions) -> None:
        self._editions = editions
        self._places = threading.BoundedSemaphore(editions.limits.connections)

    @contextmanager
    def one(self) -> Iterator[Reader]:
        """For one question, or several to the same edition.

        Raises:
            Refused: there are too many.
        """
        reader = self._begun()
        try:
            yield reader
        finally:
            self._end(reader)

    def stream(self, sql: str, is_cancelled: Callable[[], bool]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The answer, as it is fetched.

        Raises:
            Refused: there are too many, or it is no question. While it is fetched: it fails, or nobody fetches it.
        """
        reader = self._begun()
        try:
            question = reader.ask(sql)
            rows = question.reader()
        except BaseException:
            self._end(reader)
            raise
        turn, over = threading.Lock(), threading.Event()

        def end() -> None:
            with turn:
                if not over.is_set():
                    over.set()
                    self._end(reader)

        # A client that does not read blocks the call inside of gRPC, where nothing here is asked again.
        longest = reader.limits.transaction
        timer = threading.Timer(longest, end)
        timer.daemon = True
        timer.start()

        def batches() -> Iterator[pa.RecordBatch]:
            found = question.batches(rows)
            try:
                while not is_cancelled():
                    with turn:
                        if over.is_set():
                            raise Refused(f"The answer was not fetched within {longest:g} s.", TOO_LONG)
                        batch = next(found, None)
                    if batch is None:
                        return
                    yield batch
            finally:
                timer.cancel()
                end()

        return rows.schema, batches()

    def _begun(self) -> Reader:
        if not self._places.acquire(blocking=False):
            raise Refused("Too many readers ask at once.", TOO_MANY, hint="Ask again, or raise --connections.")
        return Reader(self._editions)

    def _end(self, reader: Reader) -> None:
        try:
            reader.end()
        finally:
            self._places.release()
