"""The DuckDB target: segments in, whole transactions together with their checkpoint in the file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from cdc import faults
from cdc.errors import InvariantError, TableChanged, UsageError
from cdc.model.change import ChangeBatch
from cdc.model.parts import Digest, HashedRow, Key, Part
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableName, TableSchema
from cdc.model.segment import Changes, Copied, Evolve, Note, Replace, Reset, Segment, Truncate, beyond
from cdc.target import Mode
from cdc.targets.duckdb import published
from cdc.targets.duckdb.connection import limit_memory, mapped_errors, open_file
from cdc.targets.duckdb.digest import digest, hashed_rows, values
from cdc.targets.duckdb.history import History
from cdc.targets.duckdb.layout import Layout, Mirror
from cdc.targets.duckdb.moments import Moments
from cdc.targets.duckdb.soft_delete import SoftDelete
from cdc.targets.duckdb.state import SCHEMA, StateTables
from cdc.targets.duckdb.table import TargetTable

log = logging.getLogger(__name__)

_COLUMN_BYTES = 512 << 10  # that DuckDB needs to write a row group: blocks of 256 kB, for each column by itself


class DuckDbTarget:
    """One DuckDB file as a `cdc.target.Target`. DuckDB's lock on the file is the lease (D-17)."""

    def __init__(self, path: Path, memory: int, mode: Mode | None = None) -> None:
        self._path = path
        self._memory = memory
        self._wanted = mode
        self._connection: duckdb.DuckDBPyConnection
        self._state: StateTables
        self._layout: Layout
        self._at: Position | None = None  # of the last commit that is applied, or could be, durable or not
        self._tables: dict[int, TargetTable] = {}
        self._in_transaction = False
        self._is_open = False
        self._copying: set[int] = set()

    def open(self) -> Checkpoint | None:
        self._connection = open_file(self._path, self._memory)
        self._is_open = True
        self._tables = {}
        self._in_transaction = False
        self._state = StateTables(self._connection)
        faults.point("target.opened")
        with mapped_errors(self._path):
            checkpoint = self._state.open()
            self._at = _last_before(checkpoint)
            self._layout = layout_for(self._state.take_mode(self._wanted), self._connection, self._path)
            self._copying = self._state.copying()
        return checkpoint

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        try:
            faults.point("target.before_close")
            with mapped_errors(self._path):
                if self._in_transaction:
                    self._connection.execute("ROLLBACK")
                    self._in_transaction = False
        finally:
            self._connection.close()

    def apply(self, segment: Segment) -> None:
        at = self._state.position
        new = beyond(segment, at.order if at is not None else None)
        if new is None:
            return
        with mapped_errors(self._path):
            if not self._in_transaction:
                self._connection.execute("BEGIN TRANSACTION")
                self._in_transaction = True
                faults.point("target.begun")
            self._take(new)
            if segment.checkpoint is None:
                return
            faults.point("target.before_checkpoint")
            self._state.write(segment.checkpoint)
            faults.point("target.before_commit")
            self._connection.execute("COMMIT")
            self._in_transaction = False
            faults.point("target.after_commit")

    # --- looking at tables, and setting them right ------------------------------------------------------------------

    def digest(self, schema: TableSchema, part: Part) -> Digest:
        with mapped_errors(self._path):
            return digest(self._connection, self._same(schema), part)

    def rows(self, schema: TableSchema, part: Part, buckets: Sequence[int]) -> list[HashedRow]:
        with mapped_errors(self._path):
            return hashed_rows(self._connection, self._same(schema), part, buckets)

    def values(self, schema: TableSchema, keys: Sequence[Key]) -> dict[Key, dict[str, str | None]]:
        with mapped_errors(self._path):
            return values(self._connection, self._same(schema), keys)

    def replace(self, schema: TableSchema, part: Part, batches: Sequence[ChangeBatch]) -> None:
        with mapped_errors(self._path), self._at_once():
            self._layout.replace(self._same(schema), part, batches, Moments.copied(self._place()))

    @property
    def copying(self) -> set[int]:
        return set(self._copying)

    def copy_parts(self, schema: TableSchema) -> None:
        with mapped_errors(self._path), self._at_once():
            self._copy_parts(schema)

    def _copy_parts(self, schema: TableSchema) -> None:
        self._state.copy_parts(schema.identity)
        self._copying.add(schema.identity)
        self._table(schema).is_copying = True

    def copied(self, schema: TableSchema) -> None:
        with mapped_errors(self._path), self._at_once():
            self._state.copied(schema.identity)
            self._copying.discard(schema.identity)
            self._table(schema).is_copying = False

    def take_missed(self, schema: TableSchema) -> list[Key]:
        table = self._table(schema)
        missed, table.missed = sorted(table.missed), set()
        return missed

    def _same(self, schema: TableSchema) -> TargetTable:
        if (table := self._tables.get(schema.identity)) is not None and table.schema != schema:
            raise TableChanged(f"{schema.table} has got another shape meanwhile.")
        return self._table(schema)

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """Durable at the end, unless a transaction is open, with which it becomes so."""
        if self._in_transaction:
            yield
            return
        self._connection.execute("BEGIN TRANSACTION")
        self._in_transaction = True
        yield
        self._connection.execute("COMMIT")
        self._in_transaction = False

    # --- applying ---------------------------------------------------------------------------------------------------

    def _take(self, segment: Segment) -> None:
        """The steps in order. Changes of one table are gathered up to its next barrier, or the segment's end."""
        moments = self._moments(segment)
        gathered: dict[int, list[ChangeBatch]] = {}
        for step in segment.steps:
            if isinstance(step, Changes):
                gathered.setdefault(step.batch.schema.identity, []).append(step.batch)
                continue
            if isinstance(step, Note):
                continue  # no table has it
            schema = step.old if isinstance(step, Evolve) else step.schema
            self._write(gathered.pop(schema.identity, []), moments)
            if isinstance(step, Reset):
                self._reset(step)
            elif isinstance(step, Truncate):
                self._layout.truncate(self._table(step.schema), moments, step.transaction, step.ordinal)
                faults.point("target.truncated")
            elif isinstance(step, Replace):
                self.replace(step.schema, step.part, step.batches)
            elif isinstance(step, Copied):
                self.copied(step.schema)
            else:
                self._evolve(step)
        for batches in gathered.values():
            self._write(batches, moments)

    def _moments(self, segment: Segment) -> Moments:
        """When the changes of a segment were committed, or where in the log its copied rows were read."""
        if len(segment.transactions):
            self._at = segment.transactions[-1].position
            moments = Moments.of(segment.transactions)
            self._layout.record(moments)
            return moments
        self._at = _last_before(segment.checkpoint) or self._at
        return Moments.copied(self._place())

    def _place(self) -> Position:
        if self._at is None:
            raise InvariantError("Rows came to a target that is at no place in the log.")
        return self._at

    def _write(self, batches: Sequence[ChangeBatch], moments: Moments) -> None:
        if batches:
            self._layout.write(self._table(batches[0].schema), batches, moments)

    def _table(self, schema: TableSchema) -> TargetTable:
        table = self._tables.get(schema.identity)
        if table is None:
            self._make_room(schema)
            table = self._tables[schema.identity] = self._layout.find(schema)
            table.is_copying = schema.identity in self._copying
        if table.schema is not schema and table.schema != schema:
            raise InvariantError(f"Changes of {schema.table} came in another shape than the table has.")
        return table

    def _make_room(self, schema: TableSchema) -> None:
        """Let DuckDB have what a table of so many columns takes: with less it could not commit (E-08)."""
        needed = len(schema.columns) * _COLUMN_BYTES * self._layout.places
        if needed > self._memory:
            self._memory = needed
            log.warning("%s has %d columns: DuckDB may use %d MB", schema.table, len(schema.columns), needed >> 20)
            limit_memory(self._connection, needed)

    def _reset(self, step: Reset) -> None:
        """A table where the rows of a snapshot can go."""
        schema = step.schema
        owned = self._state.owned()
        self._refuse_clash(schema, owned)
        self._make_room(schema)
        moments, known_as = Moments.copied(self._place()), owned.get(schema.identity)
        self._tables[schema.identity] = self._layout.make(schema, known_as, moments, by_parts=step.by_parts)
        self._state.own(schema.identity, schema.table)
        self._state.copied(schema.identity)
        self._copying.discard(schema.identity)
        if step.by_parts:
            self._copy_parts(schema)

    def _refuse_clash(self, schema: TableSchema, owned: Mapping[int, TableName]) -> None:
        """DuckDB finds names without regard to case, so that `a` and `A` are one table, or one schema, to it (E-07)."""
        table = schema.table
        for identity, other in owned.items():
            same_schema = other.schema.lower() == table.schema.lower()
            same_table = same_schema and other.name.lower() == table.name.lower()
            if identity != schema.identity and (same_table or (same_schema and other.schema != table.schema)):
                raise UsageError(
                    f"{table} and {other} have one name to DuckDB, which does not see case.",
                    hint="Leave one of them out with --exclude.",
                )
        if table.schema.lower() in (SCHEMA, published.SCHEMA):
            raise UsageError(f"The schema {table.schema} has the name of cdc's own.", hint="Leave it out: --exclude.")

    def _evolve(self, step: Evolve) -> None:
        if step.old.table != step.new.table:
            self._refuse_clash(step.new, self._state.owned())
        table = self._table(step.old)
        self._make_room(step.new)
        self._tables[step.new.identity] = self._layout.evolve(table, step)
        if step.old.table != step.new.table:
            self._state.own(step.new.identity, step.new.table)


def _last_before(checkpoint: Checkpoint | None) -> Position | None:
    """The last place before a checkpoint: a transaction can begin to count at the very place where one ended."""
    if checkpoint is None:
        return None
    return Position(checkpoint.position.order - 1, checkpoint.position.text)


def layout_for(mode: Mode, connection: duckdb.DuckDBPyConnection, path: Path) -> Layout:
    """What keeps the tables of a file."""
    kinds: dict[Mode, Callable[[duckdb.DuckDBPyConnection, Path], Layout]] = {
        Mode.MIRROR: Mirror,
        Mode.HISTORY: History,
        Mode.SOFT_DELETE: SoftDelete,
    }
    return kinds[mode](connection, path)
