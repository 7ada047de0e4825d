"""How much memory DuckDB may have: what was asked for, and more for a moment where it could not commit with less."""

from __future__ import annotations

import logging
from contextlib import suppress

import duckdb

from cdc.model.schema import TableSchema
from cdc.targets.duckdb.connection import limit_memory

log = logging.getLogger(__name__)

_COLUMN_BYTES = 512 << 10  # that DuckDB needs to write a row group: blocks of 256 kB, for each column by itself
_TABLE_BYTES = 256 << 10  # that it holds for each table with deleted rows, until it makes a checkpoint of its own
_MEMORY = """
SELECT sum(memory_usage_bytes)::BIGINT, sum(memory_usage_bytes) FILTER (tag = 'BASE_TABLE')::BIGINT FROM duckdb_memory()
"""
_SLACK = 64  # tables for which there is room when there has to be more of it


class Room:
    """The memory limit of one open file.

    Args:
        memory: bytes that were asked for.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, memory: int) -> None:
        self._connection = connection
        self._memory = memory
        self._copies = 1  # of what is held for a table
        self._limit = memory
        self._changed: set[int] = set()  # tables, since DuckDB's last checkpoint

    def for_columns(self, schema: TableSchema, copies: int) -> None:
        """Let DuckDB have what a table of so many columns takes: with less it could not commit (E-08)."""
        needed = len(schema.columns) * _COLUMN_BYTES * copies
        if needed > self._memory:
            self._memory = needed
            log.warning("%s has %d columns: DuckDB may use %d MB", schema.table, len(schema.columns), needed >> 20)
            self._allow(needed)

    def for_changes(self, schema: TableSchema, copies: int) -> None:
        """Let DuckDB have what the changes of one more table take: it cannot put that on the disk (P25)."""
        if schema.identity in self._changed:
            return
        self._changed.add(schema.identity)
        self._copies = copies
        if self._memory // 2 + self._held > self._limit:
            self._allow(self._memory // 2 + self._held + _SLACK * _TABLE_BYTES * self._copies)

    def committed(self) -> None:
        """Everything is durable: before many tables pile up, DuckDB lets go of what it holds for them (O45)."""
        if self._held <= self._memory // 4:
            return
        # Somebody who reads the file just now keeps it from that; the next commit tries again.
        with suppress(duckdb.TransactionException):
            self._connection.execute("CHECKPOINT")
            self._changed.clear()
        if self._limit > self._memory and not self._changed:
            with suppress(duckdb.OutOfMemoryException):  # not all of it is free yet
                self._allow(self._memory)

    def copied(self) -> None:
        """Rows of a copy are durable: DuckDB lets go of blocks that it has written, and the process of what is free.

        DuckDB would keep them until its memory is full, and from then on look for one to let go of for each that it
        needs: that costs a tenth of the CPU, and a copy of 10,000,000 rows 100 MB more than one of 1,000,000.
        """
        used, written = self._connection.execute(_MEMORY).fetchall()[0]
        if written > self._memory // 4:
            with suppress(duckdb.OutOfMemoryException):  # somebody reads them just now
                limit_memory(self._connection, used - written // 2)
            limit_memory(self._connection, self._limit)

    @property
    def _held(self) -> int:
        return len(self._changed) * _TABLE_BYTES * self._copies

    def _allow(self, limit: int) -> None:
        limit_memory(self._connection, limit)
        self._limit = limit
