"""One reader's transactions and queries, within the limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from cdc.serve.dialect import as_duckdb
from cdc.serve.editions import Edition, Editions
from cdc.serve.refusals import TOO_LARGE, TOO_LONG, Refused, refusal
from cdc.serve.statements import refuse_writing

_BATCH = 10_000  # rows


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query answers.

    Attributes:
        names: of the columns; two may have the same.
        types: DuckDB's.
        schema: Arrow's.
        batches: the rows, to be taken once.
    """

    names: list[str]
    types: list[duckdb.sqltypes.DuckDBPyType]
    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


class Reader:
    """A reader reads one edition from the beginning of a transaction to its end. One thread uses it, any may cancel."""

    def __init__(self, editions: Editions) -> None:
        self._editions = editions
        self._edition: Edition | None = None
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._is_cancelled = False

    def query(self, sql: str, values: Sequence[object] = (), *, limit: int | None = None) -> Answer:
        """Run a statement that only reads, in a transaction of its own if none is open.

        Args:
            values: of the parameters.
            limit: rows to deliver; without it, more than the limit of all answers are refused.

        Raises:
            Refused: it is not such a statement, or it failed.
        """
        written = as_duckdb(sql)
        refuse_writing(written)
        self.begin()
        assert self._cursor is not None
        self._is_cancelled = False
        ends = time.monotonic() + self._editions.limits.seconds
        try:
            with self._within(ends):
                relation = self._cursor.sql(written, params=list(values) or None)
                if relation is None:
                    raise Refused("This statement has no answer.", "42601")
                reader = relation.to_arrow_reader(_BATCH)
            batches = self._batches(reader, ends, limit)
            return Answer(relation.columns, relation.types, reader.schema, batches)
        except duckdb.Error as error:
            raise self._refused(error) from error

    def begin(self) -> None:
        """Begin a transaction unless one is open: what is read from here on is of one edition."""
        if self._cursor is None:
            self._edition = self._editions.take()
            self._cursor = self._edition.cursor()
            self._cursor.execute("BEGIN TRANSACTION READ ONLY")

    def end(self) -> None:
        """End the transaction."""
        cursor, edition = self._cursor, self._edition
        self._cursor = self._edition = None
        if cursor is not None:
            with suppress(duckdb.Error):
                cursor.close()
        if edition is not None:
            self._editions.give_back(edition)

    def cancel(self) -> None:
        """End the query that runs, if one does."""
        self._is_cancelled = True
        cursor = self._cursor
        if cursor is not None:
            with suppress(duckdb.Error):
                cursor.interrupt()

    def _batches(self, reader: pa.RecordBatchReader, ends: float, limit: int | None) -> Iterator[pa.RecordBatch]:
        most = self._editions.limits.rows
        left = most if limit is None else limit
        while True:
            try:
                with self._within(ends):
                    batch = next(reader, None)
            except duckdb.Error as error:
                raise self._refused(error) from error
            if batch is None:
                return
            if batch.num_rows > left:
                if limit is None:
                    raise Refused(f"The answer has more than {most} rows.", TOO_LARGE, hint="Add a LIMIT.")
                batch = batch.slice(0, left)
            left -= batch.num_rows
            if batch.num_rows:
                yield batch
            if limit is not None and not left:
                return

    @contextmanager
    def _within(self, ends: float) -> Iterator[None]:
        """Interrupt what is done here when the time is over."""
        cursor = self._cursor
        assert cursor is not None
        timer = threading.Timer(max(0.0, ends - time.monotonic()), cursor.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _refused(self, error: duckdb.Error) -> Refused:
        if isinstance(error, duckdb.InterruptException):
            if self._is_cancelled:
                return Refused("The query was cancelled, as its reader asked.", TOO_LONG)
            seconds = self._editions.limits.seconds
            return Refused(
                f"The query took longer than {seconds:g} s.", TOO_LONG, hint="Ask for less, or raise --serve-timeout."
            )
        return refusal(error)
