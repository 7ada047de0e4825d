"""Reading rows of the source anew while the log is followed: repair of some, and copies of whole tables part by part.

Each part is read in a snapshot whose place in the log is exact, and put in the place of the target's part between the
same two transactions. What the stream says of these rows before is overwritten then, and what it says afterwards
applies. So no table waits for another one, and a copy that was cut off can simply begin again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from cdc import faults
from cdc.errors import CdcError, Unavailable
from cdc.model.parts import Condition, Key, Part
from cdc.model.schema import TableSchema
from cdc.observer import Observer
from cdc.pipeline import Pipeline
from cdc.stage import Missed, Stage, Stopped
from cdc.verify import parts, replaceable_target

log = logging.getLogger(__name__)

T = TypeVar("T")

KEYS_AT_ONCE = 500
_TRIES = 100  # to place one part, if transactions keep getting in the way
_TRY_AGAIN_IN = 0.2  # seconds
_LOOK_EVERY = 0.2  # seconds between looks for tables that are to be copied
_PATIENCE = 60.0  # seconds for a pipeline that has lost a connection


class Backfill:
    """Reads rows anew into the target of a pipeline that runs."""

    def __init__(self, pipeline: Pipeline, observer: Observer) -> None:
        self._pipeline = pipeline
        self._observer = observer

    def repair_rows(self, schema: TableSchema, keys: Sequence[Key]) -> int:
        """Make the rows with some keys what they are in the source, deletions included; how many of them there are.

        Raises:
            TableChanged: the table is not what the schema says any more.
        """
        return sum(self._replace(schema, part) for part in _of_keys(keys))

    def repair_where(self, schema: TableSchema, condition: Condition | None) -> int:
        """Make the rows that fulfil a condition (on either side) what they are in the source."""
        return sum(self._replace(schema, _with(part, condition)) for part in parts(self._observer, schema))

    def copy(self, schema: TableSchema) -> int:
        """Copy a table that counts as copied by parts, to its end; the number of its rows that were read.

        Raises:
            TableChanged: it got another shape meanwhile; it still counts as copied by parts.
        """
        log.info("%s is copied, part by part, while the log is followed", schema.table)
        stage, rows = self._errand(lambda stage: stage), 0
        for part in parts(self._observer, schema):
            rows += self._replace(schema, part, stage)
            faults.point("backfill.part")
        while missed := self._errand(partial(_missed, schema, stage)):
            for part in _of_keys(missed):
                rows += self._replace(schema, part, stage)
        log.info("%s is copied: %d rows", schema.table, rows)
        return rows

    def follow(self) -> None:
        """Copy whatever table comes to need it, for as long as the pipeline runs.

        Raises:
            CdcError: a table cannot be copied.
        """
        while self._pipeline.is_running:
            try:
                for schema in self._waiting():
                    self.copy(schema)
            except Stopped:
                return
            except Unavailable as error:
                log.debug("a copy begins again: %s", error)
            self._pipeline.rest(_LOOK_EVERY)

    def _waiting(self) -> list[TableSchema]:
        if not self._pipeline.copying:
            return []
        followed = self._errand(self._followed)
        return [schema for schema in followed if schema.identity in self._pipeline.copying]

    def _followed(self, stage: Stage) -> list[TableSchema]:
        """The tables, by the target's checkpoint, which also tells the observer where the log is."""
        return list(self._observer.followed(stage.checkpoint.state)) if stage.checkpoint is not None else []

    def _replace(self, schema: TableSchema, part: Part, only: Stage | None = None) -> int:
        """Replace one part; with `only`, as long as the target has not been opened anew."""
        for _ in range(_TRIES):
            try:
                return self._errand(partial(self._replace_at_place, schema, part, only))
            except Missed as missed:
                last: CdcError = missed
                time.sleep(_TRY_AGAIN_IN)
        raise last

    def _replace_at_place(self, schema: TableSchema, part: Part, only: Stage | None, stage: Stage) -> int:
        _verify_same(stage, only)
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


class _OpenedAnew(Unavailable):
    """What an open target remembers of a copy is lost when it is closed, so that the copy begins again."""


def _verify_same(stage: Stage, only: Stage | None) -> None:
    if only is not None and stage is not only:
        raise _OpenedAnew("The target was opened anew while a table was copied into it.")


def _of_keys(keys: Sequence[Key]) -> list[Part]:
    return [Part(keys=tuple(keys[i : i + KEYS_AT_ONCE])) for i in range(0, len(keys), KEYS_AT_ONCE)]


def _missed(schema: TableSchema, only: Stage, stage: Stage) -> list[Key]:
    """Keys that have to be read again before the table counts as copied; if there are none, it does from now on."""
    _verify_same(stage, only)
    target = replaceable_target(stage)
    missed = target.take_missed(schema)
    if not missed:
        target.copied(schema)
    return missed


def _with(part: Part, condition: Condition | None) -> Part:
    return replace(part, condition=condition)
