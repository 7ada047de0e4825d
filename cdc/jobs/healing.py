"""Healing: tables that are suspect are compared with the source and set right, while everything else goes on.

Each part is compared at one exact place in the log, as a verification does it, and what differs is read again and put
in its place there, as a repair does it. What the stream says of these rows before is overwritten then, and what it says
afterwards applies. So nobody has to ask for it, and a comparison that was cut off can simply begin again.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from cdc import faults
from cdc.engine.pipeline import Pipeline
from cdc.engine.stage import Missed, Stage, Stopped
from cdc.errors import TableChanged, Unavailable
from cdc.jobs.backfill import KEYS_AT_ONCE, holding, of_keys, verify_same
from cdc.jobs.verify import comparable_target, parts
from cdc.model.parts import Key, Part, compare
from cdc.model.schema import TableSchema
from cdc.observer import Look, Observer
from cdc.options import AfterShape
from cdc.target import Comparable

log = logging.getLogger(__name__)

T = TypeVar("T")

_TRIES = 100  # to place one part, if transactions keep getting in the way
_TRIES_WITHOUT_LOCK = 3
_TRY_AGAIN_IN = 0.2  # seconds
_LOOK_EVERY = 0.2  # seconds between looks for tables that are suspect
_PATIENCE = 60.0  # seconds for a pipeline that has lost a connection
_SAMPLE = 3  # parts of a table whose shape has changed that are compared
_MANY = 10 * KEYS_AT_ONCE  # differing rows of a part from which on all of it is read again


class Healing:
    """Compares the tables of a pipeline that runs wherever they are not certain to be the source's.

    Args:
        observer: looks at the source; used by nobody else meanwhile.
        after_shape: how a table is compared that has got another shape in a way that is followed exactly.
        max_rate: rows of the source that are compared per second, at most; None for no bound.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        observer: Observer,
        after_shape: AfterShape = AfterShape.SAMPLE,
        max_rate: float | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._observer = observer
        self._after_shape = after_shape
        self._max_rate = max_rate

    def follow(self) -> None:
        """Heal whatever table comes to need it, for as long as the pipeline runs."""
        while self._pipeline.is_running:
            try:
                self._once()
            except Stopped:
                return
            except Unavailable as error:
                log.debug("healing begins again: %s", error)
            self._pipeline.rest(_LOOK_EVERY)

    def _once(self) -> None:
        pipeline = self._pipeline
        if not (pipeline.suspects or pipeline.evolved):
            return
        followed = self._errand(self._followed)
        for schema, is_comparable in followed.items():
            if schema.identity in pipeline.copying:
                continue
            with holding(pipeline, schema):
                if (suspicion := pipeline.suspects.get(schema.identity)) is not None:
                    self.heal(schema, suspicion.number, suspicion.reason, is_comparable=is_comparable)
                elif schema.identity in pipeline.evolved:
                    self._look_after_shape(schema, is_comparable=is_comparable)
        known = {schema.identity for schema in followed}
        pipeline.evolved -= pipeline.evolved - known | pipeline.copying  # a table that is copied is right without this

    def heal(self, schema: TableSchema, number: int, reason: str, *, is_comparable: bool) -> None:
        """Compare a suspect table, whole, and read again what differs; it is clear afterwards.

        Raises:
            TableChanged: it got another shape meanwhile; it stays suspect.
        """
        log.warning("%s is suspect and is compared with the source: %s", schema.table, reason)
        stage, different = self._errand(lambda stage: stage), 0
        if is_comparable:
            for part in parts(self._observer, schema):
                different += self._set_right(schema, part, stage)
        while missed := self._errand(partial(_missed, schema, number, stage)):
            different += sum(self._set_right(schema, part, stage) for part in of_keys(missed))
        self._pipeline.evolved.discard(schema.identity)
        self._tell(schema, different)
        log.log(
            logging.WARNING if different else logging.INFO,
            "%s was compared with the source: %d rows differed%s",
            schema.table,
            different,
            " and were read again" if different else "",
        )

    def _look_after_shape(self, schema: TableSchema, *, is_comparable: bool) -> None:
        """The net under the lists of what is followed exactly: a table is compared once its shape has changed."""
        wanted = self._after_shape if is_comparable else AfterShape.OFF
        if wanted is AfterShape.FULL:
            self._suspect(schema, "its shape has changed")
            return
        chosen = _chosen(parts(self._observer, schema), _SAMPLE) if wanted is AfterShape.SAMPLE else []
        stage = self._errand(lambda stage: stage)
        self._pipeline.evolved.discard(schema.identity)
        different = sum(self._set_right(schema, part, stage) for part in chosen)
        if different:
            self._suspect(schema, f"{different} rows differed in a sample after its shape had changed")

    def _suspect(self, schema: TableSchema, reason: str) -> None:
        self._errand(lambda stage: comparable_target(stage).suspect(schema.identity, reason))

    def _set_right(self, schema: TableSchema, part: Part, only: Stage) -> int:
        """Compare one part and read again what differs; how many rows that is."""
        began = time.monotonic()
        for attempt in range(_TRIES):
            try:
                exact = attempt >= _TRIES_WITHOUT_LOCK
                rows, different = self._errand(partial(self._compare_at_place, schema, part, only, exact))
                break
            except Missed:
                if attempt == _TRIES - 1:
                    raise
                time.sleep(_TRY_AGAIN_IN)
            except TableChanged:
                if schema not in self._errand(self._followed) or attempt == _TRIES - 1:
                    raise
                # PostgreSQL's log has a new shape with the next row: the target may come to have it.
                time.sleep(_TRY_AGAIN_IN)
        faults.point("healing.part")
        took = time.monotonic() - began
        self._pipeline.rest(max(0.0, rows / self._max_rate - took if self._max_rate else 0.0))
        return different

    def _compare_at_place(
        self, schema: TableSchema, part: Part, only: Stage, exact: bool, stage: Stage
    ) -> tuple[int, int]:
        """The rows of a part in the source, and how many of them differed and were read again.

        Where the source does not tell the place exactly, being equal proves it, and being different nothing.
        """
        verify_same(stage, only)
        target = comparable_target(stage)
        self._followed(stage)
        with self._observer.look(schema, exact=exact) as look, stage.places(look.place) as places:
            ours = look.digest(schema, part)
            for _ in places:
                buckets = ours.differing(target.digest(schema, part))
                if not buckets:
                    return ours.row_count, 0
                if look.place.is_exact:
                    return ours.row_count, _read_differing(look, target, schema, part, buckets)
            raise Missed("the source does not tell exactly where it is")

    def _followed(self, stage: Stage) -> dict[TableSchema, bool]:
        """The tables, by the target's checkpoint, which also tells the observer where the log is."""
        return dict(self._observer.followed(stage.checkpoint.state)) if stage.checkpoint is not None else {}

    def _tell(self, schema: TableSchema, different: int) -> None:
        if (view := self._pipeline.view().tables.get(schema.table)) is not None:
            view.different = different

    def _errand(self, work: Callable[[Stage], T]) -> T:
        return self._pipeline.errand(work, patience=_PATIENCE)


def _missed(schema: TableSchema, number: int, only: Stage, stage: Stage) -> list[Key]:
    """Keys of rows whose changes could not be applied meanwhile; without such rows the table is clear from now on."""
    verify_same(stage, only)
    target = comparable_target(stage)
    missed = target.take_missed(schema)
    if not missed:
        target.cleared(schema.identity, number)
    return missed


def _read_differing(look: Look, target: Comparable, schema: TableSchema, part: Part, buckets: Sequence[int]) -> int:
    """Read again what differs in a part; both sides are at one place."""
    differences = compare(look.rows(schema, part, buckets), target.rows(schema, part, buckets))
    if not schema.key or len(differences) > _MANY:
        target.replace(schema, part, list(look.read(schema, part)))
    else:
        for keys in of_keys([difference.key for difference in differences]):
            target.replace(schema, keys, list(look.read(schema, keys)))
    return sum(difference.copies for difference in differences)


def _chosen(found: Iterator[Part], most: int) -> list[Part]:
    """Some parts at random, each as likely as any other, without holding all of them."""
    chosen: list[Part] = []
    for number, part in enumerate(found):
        if number < most:
            chosen.append(part)
        elif (place := random.randrange(number + 1)) < most:
            chosen[place] = part
    return chosen
