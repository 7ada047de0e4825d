"""Tables that segments are applied to: the steps in order, and the checkpoint at the end, whatever database it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from cdc import faults
from cdc.errors import (
    DiskFailed,
    HalfWritten,
    InvariantError,
    OperatorNeeded,
    TableChanged,
    TargetDamaged,
    TargetDrift,
    TargetFull,
    UsageError,
)
from cdc.model.change import ABSENT, ChangeBatch
from cdc.model.parts import Digest, HashedRow, Key, Part
from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableName, TableSchema
from cdc.model.segment import (
    Changes,
    Copied,
    Drop,
    Evolve,
    Gap,
    Note,
    Replace,
    Reset,
    Segment,
    Suspect,
    Truncate,
    beyond,
)
from cdc.model.standing import Standing, State, Suspicion
from cdc.tables import places
from cdc.tables.engine import Database
from cdc.tables.failures import mapped_errors
from cdc.tables.layout import Layout
from cdc.tables.moments import Moments
from cdc.tables.owned import OwnedTables, first_come
from cdc.tables.state import SCHEMA, KeptState
from cdc.tables.table import TargetTable, kept_as_text, refuse_collisions
from cdc.target import HeldColumn, Mode

# What concerns all tables, whichever of them was at hand.
_OF_THE_DISK = (TargetFull, TargetDamaged, DiskFailed)


class AppliedTables(ABC):
    """The tables of one database as a `cdc.target.Comparable`. The database keeps others from writing."""

    def __init__(self, database: Database, mode: Mode | None = None) -> None:
        self._database = database
        self._wanted = mode
        self._state: KeptState
        self._layout: Layout
        self._owned: OwnedTables
        self._read_at: int | None = None  # when the copied rows of a segment were
        self._at: Position | None = None  # of the last commit that is applied, or could be, durable or not
        self._tables: dict[int, TargetTable] = {}
        self._in_transaction = False
        self._is_open = False
        self._copying: set[int] = set()
        self._suspects: dict[int, Suspicion] = {}
        self._apart: set[int] = set()  # tables whose changes are skipped

    def open(self) -> Checkpoint | None:
        with mapped_errors(self._database):
            self._database.open()
            self._is_open = True
            self._tables = {}
            self._in_transaction = False
            self._state = self._open_state()
            faults.point("target.opened")
            checkpoint = self._state.open()
            self._at = _last_before(checkpoint)
            self._layout = self._layout_for(self._state.take_mode(self._wanted))
            self._database.copies = self._layout.places
            self._owned = self._state.owned()
            self._copying = self._state.copying()
            self._suspects = self._state.suspects()
            self._apart = self._state.apart()
        return checkpoint

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        try:
            with mapped_errors(self._database):
                faults.point("target.before_close")
                if self._in_transaction:
                    self._database.rollback()
                    self._in_transaction = False
        finally:
            self._database.close()

    def apply(self, segment: Segment) -> None:
        at = self._state.position
        new = beyond(segment, at.order if at is not None else None)
        if new is None:
            return
        with mapped_errors(self._database):
            if not self._in_transaction:
                self._database.begin()
                self._in_transaction = True
                faults.point("target.begun")
            self._take(new)
            if segment.checkpoint is None:
                return
            self._settle()
            faults.point("target.before_checkpoint")
            self._state.write(segment.checkpoint, _last_commit(segment))
            faults.point("target.before_commit")
            self._in_transaction = False  # also if it fails: then it has rolled back by itself (O15)
            self._database.commit(segment.checkpoint.position.text)
            faults.point("target.after_commit")
            self._database.committed(is_copy=not len(segment.transactions))

    def refuse(self, schemas: Sequence[TableSchema]) -> None:
        with mapped_errors(self._database):
            taken = self._database.names()
            for schema in schemas:
                self._refuse_clash(schema)
                refuse_collisions(self._database, schema)
                self._layout.refuse(schema, taken)
        for table, why in self._set_apart(schemas).items():
            raise UsageError(f"{table}: {why}", hint="Leave one of them out with --exclude, or use another target.")

    def _set_apart(self, schemas: Sequence[TableSchema]) -> Mapping[TableName, str]:
        if self._database.abilities.sees_case:
            return {}
        return first_come(self._database.product)(schemas, ())

    # --- looking at tables, and setting them right ------------------------------------------------------------------

    def columns(self, schema: TableSchema) -> list[HeldColumn]:
        with self._looking():
            if schema.identity in self._tables:
                self._same(schema)
            return self._layout.columns(schema)

    def digest(self, schema: TableSchema, part: Part) -> Digest:
        with self._looking():
            return self._digest(self._same(schema), part)

    def rows(self, schema: TableSchema, part: Part, buckets: Sequence[int]) -> list[HashedRow]:
        with self._looking():
            return self._hashed_rows(self._same(schema), part, buckets)

    def values(self, schema: TableSchema, keys: Sequence[Key]) -> dict[Key, dict[str, str | None]]:
        with self._looking():
            return self._values(self._same(schema), keys)

    def keys(self, schema: TableSchema, part: Part) -> set[Key]:
        with self._looking():
            table = self._same(schema)
        try:
            with self._looking():
                return self._keys(table, part)
        except (TargetDrift, InvariantError) as error:
            raise UsageError(
                f"{self._database.product} cannot decide the condition for rows of {schema.table} "
                f"({type(error.__cause__).__name__}).",
                hint=f"It has to fit the table's columns, with functions that {self._database.product} has as well. "
                "Nothing was changed.",
            ) from error

    def replace(self, schema: TableSchema, part: Part, batches: Sequence[ChangeBatch]) -> None:
        with self._looking():
            table = self._same(schema)
        with mapped_errors(self._database), self._at_once():
            self._replace(table, part, batches)

    def _replace(self, table: TargetTable, part: Part, batches: Sequence[ChangeBatch]) -> None:
        self._layout.replace(table, part, batches, Moments.copied(self._place(), self._read_at))

    @property
    def copying(self) -> set[int]:
        return set(self._copying)

    def copy_parts(self, schema: TableSchema) -> None:
        with mapped_errors(self._database), self._at_once():
            self._same(schema)
            self._copy_parts(schema)

    def _copy_parts(self, schema: TableSchema) -> None:
        self._state.copy_parts(schema.identity)
        self._copying.add(schema.identity)
        self._clear(schema.identity)
        self._table(schema)

    def copied(self, schema: TableSchema) -> None:
        with mapped_errors(self._database), self._at_once():
            self._copied(schema)

    def _copied(self, schema: TableSchema) -> None:
        self._layout.copied(schema, Moments.copied(self._place(), self._read_at))
        self._forget_parts(schema.identity)
        self._be_lenient(schema.identity)

    def _forget_parts(self, identity: int) -> None:
        # Asked of every table that is made: a statement for each that has none would cost as much as making it (P21).
        if identity in self._copying:
            self._state.copied(identity)
            self._copying.discard(identity)
        if identity in self._apart:
            self._state.rejoin(identity)
            self._apart.discard(identity)

    @property
    def suspects(self) -> dict[int, Suspicion]:
        return dict(self._suspects)

    def suspect(self, identity: int, reason: str) -> None:
        with mapped_errors(self._database), self._at_once():
            self._suspect(identity, reason, self._at.order if self._at is not None else 0, is_doubt=True)

    def _suspect(self, identity: int, reason: str, since: int, *, is_doubt: bool) -> None:
        self._layout.unknown_from(identity, since, reason, is_doubt=is_doubt, is_skipped=False)
        number = 1 + max((suspicion.number for suspicion in self._suspects.values()), default=0)
        self._state.suspect(identity, suspicion := Suspicion(reason, number))
        self._suspects[identity] = suspicion
        self._be_lenient(identity)

    def cleared(self, identity: int, number: int) -> None:
        known = self._suspects.get(identity)
        if known is None or known.number != number:
            return
        with mapped_errors(self._database), self._at_once():
            self._clear(identity)
            if identity not in self._copying:
                self._layout.known_at(identity, Moments.copied(self._place(), None))

    def _clear(self, identity: int) -> None:
        if self._suspects.pop(identity, None) is not None:
            self._state.clear(identity)
        self._be_lenient(identity)

    def _be_lenient(self, identity: int) -> None:
        """Take the changes of a table to the rows that there are, for as long as not all of them are as they should."""
        if (table := self._tables.get(identity)) is not None:
            table.is_lenient = identity in self._copying or identity in self._suspects

    def take_missed(self, schema: TableSchema) -> list[Key]:
        table = self._same(schema)
        missed, table.missed = sorted(table.missed), set()
        return missed

    def _same(self, schema: TableSchema) -> TargetTable:
        if (table := self._tables.get(schema.identity)) is not None and table.schema != schema:
            raise TableChanged(f"{schema.table} has another shape now than before.")
        return self._table(schema)

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """A transaction ends with most errors, also those of a statement that only reads."""
        with mapped_errors(self._database):
            try:
                yield
            except self._database.failures as error:
                if self._in_transaction:
                    raise self._torn(error) from error
                raise

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """Durable at the end, unless a transaction is open, with which it becomes so; if it fails, nothing of it stays.

        Raises:
            HalfWritten: it failed inside a transaction that has more in it.
        """
        if self._in_transaction:
            try:
                yield
            except BaseException as error:
                raise self._torn(error) from error
            return
        self._database.begin()
        self._in_transaction = True
        try:
            yield
            self._database.commit()
        except BaseException:
            with suppress(*self._database.failures):  # a commit that failed has rolled back by itself
                self._database.rollback()
            raise
        finally:
            self._in_transaction = False

    def _torn(self, error: BaseException) -> HalfWritten:
        reason = self._database.meaning(error) if isinstance(error, self._database.failures) else error
        return HalfWritten(
            f"A step between two transactions of {self._database.place} failed halfway: {reason}",
            hint="cdc opens the target again. What was not durable is rolled back.",
        )

    # --- applying ---------------------------------------------------------------------------------------------------

    def _take(self, segment: Segment) -> None:
        """The steps in order. Changes of one table are gathered up to its next barrier, or the segment's end."""
        self._read_at = segment.read_at
        moments = self._moments(segment)
        gathered: dict[int, list[ChangeBatch]] = {}
        for step in segment.steps:
            if isinstance(step, Changes):
                gathered.setdefault(step.batch.schema.identity, []).append(step.batch)
                continue
            if isinstance(step, Note):
                continue  # no table has it
            schema = step.old if isinstance(step, Evolve) else step.schema
            with self._concerning(schema):
                self._write(gathered.pop(schema.identity, []), moments)
                self._take_barrier(step, moments)
        for batches in gathered.values():
            with self._concerning(batches[0].schema):
                self._write(batches, moments)

    def _take_barrier(
        self, step: Reset | Truncate | Evolve | Suspect | Gap | Drop | Replace | Copied, moments: Moments
    ) -> None:
        if isinstance(step, Reset):
            self._reset(step)
        elif isinstance(step, Truncate):
            self._layout.truncate(self._table(step.schema), moments, step.transaction, step.ordinal)
            faults.point("target.truncated")
        elif isinstance(step, Suspect):
            # What the catalog of a server says later may be nothing; what the log says has been done.
            since, is_doubt = self._first_unknown(step, moments), step.since is not None
            self._suspect(step.schema.identity, step.reason, since, is_doubt=is_doubt)
        elif isinstance(step, Gap):
            since = self._first_unknown(step, moments)
            self._layout.unknown_from(step.schema.identity, since, step.reason, is_doubt=False, is_skipped=True)
            self._set_aside(step.schema.identity, Standing(State.HELD, step.reason))
        elif isinstance(step, Drop):
            self._drop(step, moments)
        elif isinstance(step, Replace):
            self._replace(self._same(step.schema), step.part, step.batches)
        elif isinstance(step, Copied):
            self._copied(step.schema)
        else:
            self._evolve(step, moments)

    def _order_of(self, transaction: int, moments: Moments) -> int:
        return int(moments.order[transaction]) if transaction != ABSENT else self._place().order

    def _first_unknown(self, step: Suspect | Gap, moments: Moments) -> int:
        """Where a table begins not to be known: what the log does not place is behind all that it has said."""
        order = self._order_of(step.transaction, moments)
        if isinstance(step, Gap) and step.transaction == ABSENT:
            order += 1
        return min(order, step.since + 1) if step.since is not None else order

    def _drop(self, step: Drop, moments: Moments) -> None:
        """The table is no more; its rows stay as the layout has them."""
        identity = step.schema.identity
        if self._owned.get(identity) is None:
            return
        if step.transaction == ABSENT:
            moments = Moments.copied(self._place(), None)
        self._layout.drop(self._table(step.schema), moments, max(step.transaction, 0))
        self._forget_parts(identity)
        self._clear(identity)
        self._set_aside(identity, Standing(State.DROPPED, "the source has no such table any more"))

    def _set_aside(self, identity: int, standing: Standing) -> None:
        """Its rows stay as they are."""
        self._state.set_apart(identity, standing)
        self._apart.add(identity)

    @contextmanager
    def _concerning(self, schema: TableSchema) -> Iterator[None]:
        """Say of an error which table it is about, unless it is about the whole target."""
        try:
            with mapped_errors(self._database):
                yield
        except (OperatorNeeded, UsageError) as error:
            if not isinstance(error, _OF_THE_DISK):
                error.concerns = schema.identity
            raise

    def _moments(self, segment: Segment) -> Moments:
        """When the changes of a segment were committed, or where in the log its copied rows were read."""
        if len(segment.transactions):
            self._at = segment.transactions[-1].position
            moments = Moments.of(segment.transactions)
            self._layout.record(moments)
            return moments
        self._at = _last_before(segment.checkpoint) or self._at
        return Moments.copied(self._place(), self._read_at)

    def _place(self) -> Position:
        if self._at is None:
            raise InvariantError("Rows came to a target that is at no place in the log.")
        return self._at

    def _write(self, batches: Sequence[ChangeBatch], moments: Moments) -> None:
        if not batches:
            return
        if not batches[0].copied:
            self._database.before_changes(batches[0].schema)
        self._layout.write(self._table(batches[0].schema), batches, moments)

    def _table(self, schema: TableSchema) -> TargetTable:
        table = self._tables.get(schema.identity)
        if table is None:
            self._database.make_room(schema)
            table = self._tables[schema.identity] = self._layout.find(schema)
            self._be_lenient(schema.identity)
        if table.schema is not schema and table.schema != schema:
            raise InvariantError(f"Changes of {schema.table} came in another shape than the table has.")
        return table

    def _reset(self, step: Reset) -> None:
        """A table where the rows of a snapshot can go."""
        schema = step.schema
        self._refuse_clash(schema)
        self._database.make_room(schema)
        moments, known_as = Moments.copied(self._place(), self._read_at), self._owned.get(schema.identity)
        self._tables[schema.identity] = self._layout.make(schema, known_as, moments, by_parts=step.by_parts)
        self._own(schema)
        self._forget_parts(schema.identity)
        self._clear(schema.identity)
        if step.by_parts:
            self._copy_parts(schema)

    def _own(self, schema: TableSchema) -> None:
        known_as = self._owned.get(schema.identity)
        if known_as != schema.table:
            self._state.own(schema.identity, schema.table, is_known=known_as is not None)
            self._owned.own(schema.identity, schema.table)

    def _refuse_clash(self, schema: TableSchema) -> None:
        table = schema.table
        other = None if self._database.abilities.sees_case else self._owned.clash(schema.identity, table)
        if other is not None:
            raise UsageError(
                f"{table} and {other} have the same name in {self._database.product}, which ignores case.",
                hint="Leave one of them out with --exclude.",
            )
        if table.schema.lower() in (SCHEMA, places.SCHEMA):
            raise UsageError(f"The schema {table.schema} has the name of cdc's own.", hint="Leave it out: --exclude.")

    def _evolve(self, step: Evolve, moments: Moments) -> None:
        if step.old.table != step.new.table:
            self._refuse_clash(step.new)
        table = self._table(step.old)
        self._database.make_room(step.new)
        after = self._tables[step.new.identity] = self._layout.evolve(table, step)
        self._be_lenient(step.new.identity)
        self._own(step.new)
        if why := kept_as_text(step.old, after):
            self._suspect(step.new.identity, why, self._order_of(step.transaction, moments), is_doubt=True)

    # --- what each family of databases does in its own way ----------------------------------------------------------

    @abstractmethod
    def _open_state(self) -> KeptState:
        """What is kept beside the tables."""

    @abstractmethod
    def _layout_for(self, mode: Mode) -> Layout:
        """What keeps the tables."""

    @abstractmethod
    def _settle(self) -> None:
        """Do what has to be done before the checkpoint is written."""

    @abstractmethod
    def _digest(self, table: TargetTable, part: Part) -> Digest:
        """What the rows of a part are."""

    @abstractmethod
    def _hashed_rows(self, table: TargetTable, part: Part, buckets: Sequence[int]) -> list[HashedRow]:
        """Those rows of a part that lie in some buckets."""

    @abstractmethod
    def _values(self, table: TargetTable, keys: Sequence[Key]) -> dict[Key, dict[str, str | None]]:
        """Rows by their keys, every value as the source's text."""

    @abstractmethod
    def _keys(self, table: TargetTable, part: Part) -> set[Key]:
        """The keys of the rows of a part."""


def _last_commit(segment: Segment) -> int | None:
    """When its last transaction was committed; None if it has none."""
    committed_at = segment.transactions.committed_at
    return int(committed_at[-1]) if len(committed_at) else None


def _last_before(checkpoint: Checkpoint | None) -> Position | None:
    """The last place before a checkpoint: a transaction can begin to count at the very place where one ended."""
    if checkpoint is None:
        return None
    return Position(checkpoint.position.order - 1, checkpoint.position.text)
