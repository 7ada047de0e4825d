"""One reader's transactions and queries, within the limits."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import duckdb
import pyarrow as pa
from sqlglot import exp

from cdc.errors import EXIT_RESTARTABLE
from cdc.serve.catalog import DATABASE
from cdc.serve.dialect import as_duckdb
from cdc.serve.editions import Edition, Editions
from cdc.targets.duckdb.refusals import STREAM_ERRORS, TOO_LARGE, TOO_LONG, Refused, of_stream, refusal
from cdc.targets.duckdb.statements import refuse_writing

log = logging.getLogger(__name__)

_HEEDS_WITHIN = 30.0  # seconds, in which DuckDB ends a query that is interrupted
_BATCH = 2048  # rows: one of DuckDB's vectors, so that little is on its way at a time


class Reader:
    """A reader reads one edition from the beginning of a transaction to its end. One thread uses it, any may cancel.

    Attributes:
        seconds: what DuckDB may work on one query.
        schemas: in which a name without one is looked for; None for all of the file.
        variables: DuckDB's, of this reader.
        over_at: when the transaction has to have ended, by `time.monotonic`; None if there is none.
    """

    def __init__(self, editions: Editions) -> None:
        self.limits = editions.limits
        self.seconds = editions.limits.seconds
        self.schemas: Sequence[str] | None = None
        self.variables = {DATABASE: editions.name}
        self.over_at: float | None = None
        self._editions = editions
        self._edition: Edition | None = None
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._is_cancelled = False
        self._sees_catalogue = False

    def ask(self, sql: str) -> Question:
        """Prepare a statement that only reads, in a transaction of its own if none is open.

        Raises:
            Refused: it is not such a statement, or names what is not there.
        """
        written = as_duckdb(sql)
        refuse_writing(written)
        self.begin()
        if written != sql:
            self._describe()
        assert self._cursor is not None
        clock = Clock(self, self._cursor, self.seconds)
        with clock.runs():
            relation = self._cursor.sql(written)
        if relation is None:
            raise Refused("This statement has no answer.", "42601")
        return Question(relation, clock, self.limits.rows)

    def begin(self) -> None:
        """Begin a transaction unless one is open: what is read from here on is of one edition."""
        if self._cursor is None:
            if self._edition is None:
                self._edition = self._editions.take()
                self.over_at = time.monotonic() + self.limits.transaction
            self._cursor = self._begun(self._edition)

    def _begun(self, edition: Edition) -> duckdb.DuckDBPyConnection:
        cursor = edition.cursor(self.schemas)
        for name, value in self.variables.items():
            cursor.execute(f"SET VARIABLE {name} = {exp.Literal.string(value).sql()}")
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        return cursor

    def _describe(self) -> None:
        """Have PostgreSQL's catalogue there; the transaction is another one then, of the same edition."""
        assert self._edition is not None
        if self._edition.describe() or not self._sees_catalogue:
            assert self._cursor is not None
            self._cursor.close()
            self._cursor = self._begun(self._edition)
        self._sees_catalogue = True

    def abandon(self) -> None:
        """Let go of what has failed; what is read next is of the same edition, as before in the transaction."""
        cursor, self._cursor = self._cursor, None
        self._sees_catalogue = False
        if cursor is not None:
            with suppress(duckdb.Error):
                cursor.close()

    def end(self) -> None:
        """End the transaction."""
        self.abandon()
        edition = self._edition
        self._edition = self.over_at = None
        if edition is not None:
            self._editions.give_back(edition)

    def cancel(self) -> None:
        """End the query that runs, if one does."""
        self._is_cancelled = True
        cursor = self._cursor
        if cursor is not None:
            with suppress(duckdb.Error):
                cursor.interrupt()

    def was_cancelled(self) -> bool:
        """Whether the query was, since this was asked last."""
        was, self._is_cancelled = self._is_cancelled, False
        return was


class Clock:
    """Counts the time that DuckDB works on one query, and interrupts it when that is over."""

    def __init__(self, reader: Reader, cursor: duckdb.DuckDBPyConnection, seconds: float) -> None:
        self._reader = reader
        self._cursor = cursor
        self._seconds = seconds
        self._left = seconds

    @contextmanager
    def runs(self) -> Iterator[None]:
        """DuckDB works on it here.

        Raises:
            Refused: what DuckDB says, or that it took too long.
        """
        began = time.monotonic()
        done = threading.Event()
        threading.Thread(target=self._end_late, args=(done,), daemon=True).start()
        try:
            yield
        except (duckdb.Error, *STREAM_ERRORS) as error:
            raise self._refusal(error if isinstance(error, duckdb.Error) else of_stream(error)) from error
        finally:
            done.set()
            self._left -= time.monotonic() - began

    def _end_late(self, done: threading.Event) -> None:
        """DuckDB looks for an interrupt between two vectors: one call of a function for 2,048 rows can take hours."""
        if done.wait(max(0.0, self._left)):
            return
        self._cursor.interrupt()
        if not done.wait(_HEEDS_WITHIN):
            log.error("A query does not end after its time is over: the process ends instead.")
            os._exit(EXIT_RESTARTABLE)

    def _refusal(self, error: duckdb.Error) -> Refused:
        if not isinstance(error, duckdb.InterruptException):
            return refusal(error)
        if self._reader.was_cancelled():
            return Refused("The query was cancelled, as its reader asked.", TOO_LONG)
        hint = "Ask for less, or raise the time limit with --timeout."
        return Refused(f"The query took longer than {self._seconds:g} s.", TOO_LONG, hint=hint)


class Question:
    """A query that is understood, and not carried out yet.

    Attributes:
        names: of the columns; two may have the same.
        types: DuckDB's.
    """

    def __init__(self, relation: duckdb.DuckDBPyRelation, clock: Clock, most: int) -> None:
        self.names: list[str] = relation.columns
        self.types: list[duckdb.sqltypes.DuckDBPyType] = relation.types
        self._relation = relation
        self._clock = clock
        self._most = most

    def reader(self, values: Sequence[str] = ()) -> pa.RecordBatchReader:
        """Begin to carry it out.

        Args:
            values: what is delivered, as SQL over the columns `#1`, `#2`; the columns as they are without it.
        """
        with self._clock.runs():
            wanted = self._relation
            if values:
                wanted = wanted.project(", ".join(f"{value} AS c{place}" for place, value in enumerate(values)))
            return wanted.to_arrow_reader(_BATCH)

    def batches(self, reader: pa.RecordBatchReader, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        """The rows.

        Args:
            limit: how many to deliver; without it, more than the limit of all answers are refused.

        Raises:
            Refused: they took too long, or are too many.
        """
        left = self._most if limit is None else limit
        while True:
            with self._clock.runs():
                batch = next(reader, None)
            if batch is None:
                return
            if batch.num_rows > left:
                if limit is None:
                    raise Refused(f"The answer has more than {self._most} rows.", TOO_LARGE, hint="Add a LIMIT.")
                batch = batch.slice(0, left)
            left -= batch.num_rows
            if batch.num_rows:
                yield batch
            if limit is not None and not left:
                return
