"""Reading rows of the source again while the log is followed: repair of some, and copies of whole tables part by part.

Each part is read in a snapshot whose place in the log is exact, and put in the place of the target's part between the
same two transactions. What the stream says of these rows before is overwritten then, and what it says afterwards
applies. So no table waits for another one, and a copy that was cut off can simply begin again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TypeVar

from cdc import faults
from cdc.engine.pipeline import Pipeline
from cdc.engine.stage import Missed, Stage, Stopped
from cdc.errors import CdcError, OperatorNeeded, TableChanged, TargetFull, Unavailable, UsageError
from cdc.jobs.verify import comparable_target, parts, replaceable_target
from cdc.model.change import ChangeBatch
from cdc.model.parts import Condition, Key, Part
from cdc.model.schema import TableSchema
from cdc.observer import Observer

log = logging.getLogger(__name__)

T = TypeVar("T")

KEYS_AT_ONCE = 500
_TABLES_AT_ONCE = 200
_BYTES_AT_ONCE = 16 << 20
_TRIES = 100  # to place one part, if transactions keep getting in the way
_TRY_AGAIN_IN = 0.2  # seconds
_LOOK_EVERY = 0.2  # seconds between looks for tables that are to be copied
_PATIENCE = 60.0  # seconds for a pipeline that has lost a connection


class Backfill:
    """Reads rows again into the target of a pipeline that runs."""

    def __init__(self, pipeline: Pipeline, observer: Observer) -> None:
        self._pipeline = pipeline
        self._observer = observer

    def repair_rows(self, schema: TableSchema, keys: Sequence[Key]) -> int:
        """Make the rows with some keys what they are in the source, deletions included; how many of them there are.

        Raises:
            TableChanged: the table is not what the schema says any more.
        """
        return sum(self._replace(schema, part) for part in of_keys(keys))

    def repair_where(self, schema: TableSchema, condition: Condition | None) -> int:
        """Make the rows that fulfil a condition, on either side, what they are in the source; how many were read.

        They are chosen by their keys: what the one side takes to fulfil a condition, the other may not (O1). A table
        without a key is read by whole parts.

        Raises:
            UsageError: one of the sides cannot decide the condition.
            TableChanged: the table is not what the schema says any more.
        """
        rows = 0
        for part in parts(self._observer, schema):
            if condition is None:
                rows += self._replace(schema, part)
            elif keys := self._keys(schema, replace(part, condition=condition)):
                rows += self.repair_rows(schema, list(keys)) if schema.key else self._replace(schema, part)
        return rows

    def _keys(self, schema: TableSchema, part: Part) -> set[Key]:
        """The keys of a part's rows on either side. A row that changes meanwhile comes with the log."""
        theirs = self._errand(lambda stage: comparable_target(stage).keys(schema, part))
        with self._observer.look(schema) as look:
            return theirs | look.keys(schema, part)

    def copy(self, schema: TableSchema) -> int:
        """Copy a table that counts as copied by parts, to its end; the number of its rows that were read.

        Raises:
            TableChanged: it got another shape meanwhile; it still counts as copied by parts.
        """
        log.info("%s is copied, part by part, while the log is followed", schema.table)
        stage, rows = self._errand(lambda stage: stage), 0
        for part in parts(self._observer, schema):
            rows += self._replace(schema, part, stage)
            _is_read()
        while missed := self._errand(partial(_missed, schema, stage)):
            for part in of_keys(missed):
                rows += self._replace(schema, part, stage)
        log.info("%s is copied: %d rows", schema.table, rows)
        return rows

    def follow(self) -> None:
        """Copy whatever table comes to need it, for as long as the pipeline runs. One that cannot be copied is held."""
        while self._pipeline.is_running:
            try:
                waiting = self._waiting()
                for begin in range(0, len(waiting), _TABLES_AT_ONCE):
                    self._copy_small(waiting[begin : begin + _TABLES_AT_ONCE])
                for schema in waiting:
                    if schema.identity in self._pipeline.copying:
                        with holding(self._pipeline, schema):
                            self.copy(schema)
            except Stopped:
                return
            except Unavailable as error:
                log.debug("a copy begins again: %s", error)
            self._pipeline.rest(_LOOK_EVERY)

    def _copy_small(self, schemas: Sequence[TableSchema]) -> None:
        """Copy those of the tables that are one part, all at one place in the log: a place costs more than they (P20).

        If that cannot be, each of them is copied by itself, and shows what is wrong with it.
        """
        small = [schema for schema in schemas if self._is_small(schema)]
        while len(small) > 1:
            try:
                copied = self._errand(partial(self._copy_at_place, small))
            except CdcError as error:
                if isinstance(error, Stopped):
                    raise
                log.debug("%d tables are copied one after the other: %s", len(small), error)
                return
            log.info("%d new tables are copied, %s the first of them", copied, small[0].table)
            small = small[copied:]

    def _is_small(self, schema: TableSchema) -> bool:
        try:
            return len(list(islice(parts(self._observer, schema), 2))) == 1
        except TableChanged:
            return False

    def _copy_at_place(self, schemas: Sequence[TableSchema], stage: Stage) -> int:
        """Copy the first of some tables, as many as fit into memory; how many these are."""
        target = replaceable_target(stage)
        self._followed(stage)
        read: list[tuple[TableSchema, list[ChangeBatch]]] = []
        size = 0
        with self._observer.look(*schemas, exact=True) as look:
            for schema in schemas:
                read.append((schema, list(look.read(schema, Part()))))
                size += sum(batch.held for batch in read[-1][1])
                if size >= _BYTES_AT_ONCE:
                    break
            with stage.places(look.place) as places:
                for _ in places:
                    for schema, batches in read:
                        target.replace(schema, Part(), batches)
                        target.take_missed(schema)  # it has them now
                        target.copied(schema)
                        _is_read()
                    break
        return len(read)

    def _waiting(self) -> list[TableSchema]:
        if not self._pipeline.copying:
            return []
        followed = self._errand(self._followed)
        return [schema for schema in followed if schema.identity in self._pipeline.copying]

    def _followed(self, stage: Stage) -> list[TableSchema]:
        """The tables, by the target's checkpoint, which also tells the observer where the log is."""
        return list(self._observer.followed(stage.checkpoint.state)) if stage.checkpoint is not None else []

    def _replace(self, schema: TableSchema, part: Part, only: Stage | None = None) -> int:
        """Replace one part; with `only`, as long as the target has not been opened again."""
        for _ in range(_TRIES):
            try:
                return self._errand(partial(self._replace_at_place, schema, part, only))
            except Missed as missed:
                last: CdcError = missed
                time.sleep(_TRY_AGAIN_IN)
        raise last

    def _replace_at_place(self, schema: TableSchema, part: Part, only: Stage | None, stage: Stage) -> int:
        verify_same(stage, only)
        target = replaceable_target(stage)
        self._followed(stage)
        with self._observer.look(schema, exact=True) as look:
            batches = list(look.read(schema, part))
            with stage.places(look.place) as places:
                for _ in places:
                    target.replace(schema, part, batches)
                    break
        return sum(len(batch) for batch in batches)

    def _errand(self, work: Callable[[Stage], T]) -> T:
        return self._pipeline.errand(work, patience=_PATIENCE)


@contextmanager
def holding(pipeline: Pipeline, schema: TableSchema) -> Iterator[None]:
    """What goes wrong with one table holds that table, and nothing else; what passes is left to the next try."""
    try:
        yield
    except TableChanged as error:
        log.debug("%s", error)
    except (OperatorNeeded, UsageError) as error:
        if isinstance(error, TargetFull):
            raise
        pipeline.hold(schema.identity, error.message)


def _is_read() -> None:
    """A part of a table, or all of a small one, was read again."""
    faults.point("backfill.part")


class _OpenedAgain(Unavailable):
    """What an open target remembers of a copy is lost when it is closed, so that the copy begins again."""


def verify_same(stage: Stage, only: Stage | None) -> None:
    """Raise Unavailable if the target was opened again since work on a table began."""
    if only is not None and stage is not only:
        raise _OpenedAgain("The target was opened again while a table was copied into it.")


def of_keys(keys: Sequence[Key]) -> list[Part]:
    """The rows with some keys as parts, KEYS_AT_ONCE in each."""
    return [Part(keys=tuple(keys[i : i + KEYS_AT_ONCE])) for i in range(0, len(keys), KEYS_AT_ONCE)]


def _missed(schema: TableSchema, only: Stage, stage: Stage) -> list[Key]:
    """Keys that have to be read again before the table counts as copied; without such keys it does from now on."""
    verify_same(stage, only)
    target = replaceable_target(stage)
    missed = target.take_missed(schema)
    if not missed:
        target.copied(schema)
    return missed
