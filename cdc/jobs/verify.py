"""Verification: source and target compared part by part, each part at one exact place in the log, while both go on.

For each part the applier stops between two transactions, the source's server digests the part in a snapshot, the target
is brought to the place of that snapshot and digests the same part there, once the table has the same shape in the
source's catalog, for the pipeline, and in the target. Where the digests differ, the rows of the
buckets that do are compared one by one, with both sides still at that place. Nothing of the source waits meanwhile.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from cdc.engine.pipeline import Pipeline
from cdc.engine.stage import Missed, Stage, Stopped
from cdc.engine.views import VerificationView
from cdc.errors import CdcError, TableChanged, Unavailable, UsageError
from cdc.jobs.shapes import OtherShape, ShapeDifference, compare_shapes, not_followed
from cdc.model.parts import Difference, Digest, Key, Part, compare
from cdc.model.position import Position
from cdc.model.schema import TableName, TableSchema
from cdc.model.selection import Selection
from cdc.observer import Look, Observer, Selected
from cdc.target import Comparable, Replaceable

log = logging.getLogger(__name__)

T = TypeVar("T")

PART_ROWS = 50_000  # of a part that is a range of the key: a snapshot and the applier are held for it
SHARE_ROWS = 1_000_000  # of a part that is a share by hash: each costs a pass over the table
MOST_DIFFERENCES = 100_000  # that are listed of one table
_TRIES = 40  # to look at one part, if transactions keep getting in the way
_TRIES_WITHOUT_LOCK = 5
_TRIES_OF_A_SHAPE = 10
_TRY_AGAIN_IN = 0.2  # seconds
_LEAST_RATE = 1000.0  # rows per second of a verification in the background
_SPREAD = 0.8  # share of the time between two of them that one takes


@dataclass(frozen=True, slots=True)
class Wishes:
    """The wishes of the caller of a verification.

    Attributes:
        tables: which of those that are followed.
        sample: share of the parts of each table that are compared, at random.
        max_rate: rows of the source that are digested per second, at most; None for no bound.
        with_values: report the values of rows that differ.
    """

    tables: Selection = field(default_factory=Selection)
    sample: float = 1.0
    max_rate: float | None = None
    with_values: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """A row that differs.

    Attributes:
        difference: which, and what is so.
        position: where in the log both sides were.
        source, target: its values, if they are wanted and the side has the row.
    """

    difference: Difference
    position: Position
    source: dict[str, str | None] | None = None
    target: dict[str, str | None] | None = None


@dataclass(slots=True)
class TableReport:
    """What a verification found of one table.

    Attributes:
        schema: its shape.
        rows: of the source that were compared.
        parts: that were compared, of `parts_seen`.
        findings: the rows that differ, MOST_DIFFERENCES at most.
        different: how many rows differ, listed or not.
        first, last: where in the log the first and the last part were compared.
        trouble: why it, or the rest of it, could not be compared.
        shape: what is not the same of its shape in the source, for the pipeline, and in the target.
        left_out: its columns that the pipeline leaves out by a rule.
    """

    schema: TableSchema
    rows: int = 0
    parts: int = 0
    parts_seen: int = 0
    findings: list[Finding] = field(default_factory=list)
    different: int = 0
    first: Position | None = None
    last: Position | None = None
    trouble: str | None = None
    shape: list[ShapeDifference] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def table(self) -> TableName:
        return self.schema.table

    @property
    def is_identical(self) -> bool:
        return not self.different and self.trouble is None


class Verifier:
    """Compares the tables of a pipeline that runs.

    Args:
        pipeline: it goes on meanwhile, but for the moments of the parts.
        observer: looks at its source.
        progress: is called with a table's report whenever it has grown.
    """

    def __init__(
        self, pipeline: Pipeline, observer: Observer, progress: Callable[[TableReport], None] = lambda _: None
    ) -> None:
        self._pipeline = pipeline
        self._observer = observer
        self._progress = progress

    def verify(self, wishes: Wishes) -> list[TableReport]:
        """Compare tables, one after the other; at the end those that are meant and not followed.

        Raises:
            UsageError: no table is meant, or the target is one that cannot be compared.
            CdcError: the pipeline or the source ended it.
        """
        missing = self._not_followed(wishes.tables)
        followed = self.tables(wishes.tables, [report.schema for report in missing])
        return [*(self._table(schema, comparable, wishes) for schema, comparable in followed.items()), *missing]

    def _not_followed(self, asked: Selection) -> list[TableReport]:
        """Where nobody knows what the pipeline is meant to follow, that is what is asked for by its whole name."""
        meant = self._pipeline.meant
        if meant is None:
            meant = Selection(tuple(name for name in asked.include if not {"*", "?"} & set(name)))
            if not meant.include:
                return []
        meant = replace(meant, default_schema=self._observer.default_schema)
        for attempt in range(_TRIES):
            followed = {schema.table for schema in self.errand(self._followed)}
            missing = [
                found
                for found in self._observer.selected(asked)
                if found.schema.table not in followed and meant.matches(found.schema.table)
            ]
            held = {schema.table: why for schema, why in self.errand(self._held).items()}
            # A new table comes within seconds.
            if all(found.left_out is not None or found.schema.table in held for found in missing):
                break
            if attempt < _TRIES - 1:
                self._pipeline.rest(_TRY_AGAIN_IN)
        return [_report_missing(found, held.get(found.schema.table)) for found in missing]

    def _held(self, stage: Stage) -> dict[TableSchema, str]:
        return self._observer.held(stage.checkpoint.state) if stage.checkpoint is not None else {}

    def tables(self, selection: Selection, besides: Iterable[TableSchema] = ()) -> dict[TableSchema, bool]:
        """The tables that are meant, each with whether it can be compared; at least one, since none proves nothing.

        Args:
            besides: tables that are meant and not among those that are followed.

        Raises:
            UsageError: no table is meant.
            Unavailable: no table is followed yet.
        """
        followed = self.errand(self._followed)
        others = [schema.table for schema in besides]
        names = [*(schema.table for schema in followed), *others]
        if not names:
            raise Unavailable(
                "The pipeline does not follow any table yet.",
                hint="`cdc status SOURCE TARGET` shows why.",
            )
        if unmatched := Selection(selection.include, (), selection.default_schema).unmatched(names):
            raise UsageError(f"No table that is followed matches {unmatched[0]!r}.")
        meant = {
            schema: comparable
            for schema, comparable in sorted(followed.items(), key=lambda item: item[0].table)
            if selection.matches(schema.table)
        }
        if not meant and not others:
            raise UsageError("No table is left to compare.", hint="Exclude fewer tables.")
        return meant

    def _followed(self, stage: Stage) -> dict[TableSchema, bool]:
        target = replaceable_target(stage)
        followed = self._observer.followed(stage.checkpoint.state) if stage.checkpoint is not None else {}
        return {schema: able and schema.identity not in target.copying for schema, able in followed.items()}

    def _table(self, schema: TableSchema, comparable: bool, wishes: Wishes) -> TableReport:
        """Compare one table; again from its begin if it gets another shape meanwhile, until it keeps one."""
        for _ in range(_TRIES_OF_A_SHAPE):
            report = TableReport(schema)
            if not comparable:
                report.trouble = "Its copy is not complete, or the log carries only its inserts."
                break
            try:
                self._compare(report, wishes)
                return report
            except OtherShape as other:
                report.trouble, report.shape = other.message, other.differences
            except TableChanged as change:
                report.trouble = change.message
            followed = self.errand(self._followed)
            now = {known.identity: (known, able) for known, able in followed.items()}
            if now.get(schema.identity, (schema, comparable)) == (schema, comparable):
                break
            schema, comparable = now[schema.identity]
        self._progress(report)
        return report

    def _compare(self, report: TableReport, wishes: Wishes) -> None:
        report.left_out = self._see(report.schema, None, wishes).left_out
        for part in parts(self._observer, report.schema):
            report.parts_seen += 1
            if wishes.sample < 1 and random.random() >= wishes.sample:
                continue
            began = time.monotonic()
            rows = self._part(report, part, wishes)
            self._progress(report)
            self._breathe(rows, time.monotonic() - began, wishes.max_rate)

    def _part(self, report: TableReport, part: Part, wishes: Wishes) -> int:
        """Compare one part; the number of its rows in the source."""
        seen = self._see(report.schema, part, wishes)
        report.parts += 1
        report.rows += seen.rows
        report.first, report.last = report.first or seen.position, seen.position
        report.different += len(seen.findings)
        report.findings += seen.findings[: MOST_DIFFERENCES - len(report.findings)]
        return seen.rows

    def _see(self, schema: TableSchema, part: Part | None, wishes: Wishes) -> _Seen:
        """Look at a part, or at the shape alone, until both sides are seen at one place.

        Where the source does not tell the place exactly, being equal proves it, and being different nothing: that takes
        a look with a moment's lock, of which there are few.
        """
        for attempt in range(_TRIES):
            try:
                return self.errand(partial(self._look, schema, part, wishes, attempt >= _TRIES_WITHOUT_LOCK))
            except Missed as missed:
                last: CdcError = missed
            except TableChanged as changed:
                last = changed
                # PostgreSQL's log has a new shape with the next row: the target may come to have it.
                stays = isinstance(changed, OtherShape) and (not changed.may_pass or attempt >= _TRIES_OF_A_SHAPE)
                if stays or schema not in self.errand(self._followed):
                    raise
            time.sleep(_TRY_AGAIN_IN)
        raise last

    def _look(self, schema: TableSchema, part: Part | None, wishes: Wishes, exact: bool, stage: Stage) -> _Seen:
        target = comparable_target(stage)
        self._followed(stage)  # which tells the observer where the log is
        with self._observer.look(schema, exact=exact) as look, stage.places(look.place) as places:
            shape = look.shape(schema)
            ours: Digest | None = None
            buckets: list[int] | None = None
            for changed in places:
                if differences := compare_shapes(shape, schema, target.columns(schema)):
                    raise OtherShape(schema.table, differences)
                if part is None:
                    return _Seen(0, look.place.until, [], look.left_out(schema))
                ours = ours or look.digest(schema, part)
                if buckets is None or schema.identity in changed:
                    buckets = ours.differing(target.digest(schema, part))
                findings = _findings(look, target, schema, part, buckets, wishes) if look.place.is_exact else []
                if not buckets or look.place.is_exact:
                    return _Seen(ours.row_count, look.place.until, findings)
            raise Missed("the source does not tell exactly where it is")

    def _breathe(self, rows: int, took: float, max_rate: float | None) -> None:
        """Let the pipeline go on, and the source rest."""
        pause = rows / max_rate - took if max_rate else 0.0
        behind = took if self._pipeline.view().lag_bytes else 0.0
        self._pipeline.rest(max(0.0, pause, min(behind, 1.0)))

    def errand(self, work: Callable[[Stage], T]) -> T:
        """As `Pipeline.errand`, but waiting for a pipeline that has lost a connection and tries again."""
        return self._pipeline.errand(work, patience=60.0)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one look at a part has shown."""

    rows: int
    position: Position
    findings: list[Finding]
    left_out: list[str] = field(default_factory=list)


def _report_missing(found: Selected, held: str | None) -> TableReport:
    if found.left_out is not None:
        return TableReport(found.schema, left_out=[f"the table: {found.left_out}"])
    return TableReport(found.schema, trouble=held or "It is meant, and not followed.", shape=[not_followed()])


def _findings(
    look: Look, target: Comparable, schema: TableSchema, part: Part, buckets: Sequence[int], wishes: Wishes
) -> list[Finding]:
    if not buckets:
        return []
    differences = compare(look.rows(schema, part, buckets), target.rows(schema, part, buckets))
    position = look.place.until
    if not (wishes.with_values and schema.key):
        return [Finding(difference, position) for difference in differences]
    keys = [difference.key for difference in differences[:1000]]
    ours, theirs = look.values(schema, keys), target.values(schema, keys)
    return [Finding(d, position, ours.get(d.key), theirs.get(d.key)) for d in differences]


def verify_every(pipeline: Pipeline, observer: Observer, seconds: float) -> None:
    """Verify all tables again and again while a pipeline runs, each time spread over most of the time until the next.

    What is found is in the pipeline's view, and in the log.
    """
    verifier = Verifier(pipeline, observer)
    while pipeline.is_running:
        began = time.monotonic()
        try:
            rows = sum(observer.rows_estimated(schema) for schema in verifier.tables(Selection()))
            reports = verifier.verify(Wishes(max_rate=max(_LEAST_RATE, rows / (_SPREAD * seconds))))
        except (Unavailable, Stopped) as error:
            log.debug("verify: %s", error)  # while the first copy goes on, or a connection is lost
            pipeline.rest(min(1.0, seconds))
            continue
        sum_up(reports)
        pipeline.view().verification = VerificationView(
            finished_at=time.time(),
            rows=sum(report.rows for report in reports),
            different={str(report.table): report.different for report in reports if report.different},
            not_compared={str(report.table): report.trouble for report in reports if report.trouble is not None},
            shapes={str(report.table): list(map(str, report.shape)) for report in reports if report.shape},
        )
        pipeline.rest(max(0.0, seconds - (time.monotonic() - began)))


def parts(observer: Observer, schema: TableSchema) -> Iterator[Part]:
    """A table in parts that both sides can name: ranges of its key, or shares by the hash of it."""
    if not observer.leading(schema):
        shares = max(1, -(-observer.rows_estimated(schema) // SHARE_ROWS))
        yield from (Part(share=number, shares=shares) for number in range(shares))
        return
    after: Key | None = None
    while True:
        upto = observer.border(schema, after, PART_ROWS)
        yield Part(after=after, upto=upto)
        if upto is None:
            return
        after = upto


def comparable_target(stage: Stage) -> Comparable:
    """The stage's target, if it is one whose tables can be compared."""
    if not isinstance(stage.target, Comparable):
        raise UsageError("This target cannot be compared with its source.", hint="DuckDB can.")
    return stage.target


def replaceable_target(stage: Stage) -> Replaceable:
    """The stage's target, if it is one into which rows can be put."""
    if not isinstance(stage.target, Replaceable):
        raise UsageError(
            "Rows cannot be read again into this target.", hint="Exclude the table, or start again with it."
        )
    return stage.target


def sum_up(reports: Sequence[TableReport]) -> bool:
    """Say in the log what was found; whether all of it is identical."""
    for report in reports:
        for difference in report.shape:
            log.error("verify: the shape of %s differs: %s", report.table, difference)
        if report.trouble is not None:
            log.warning("verify: %s was not compared: %s", report.table, report.trouble)
        elif report.different:
            log.error("verify: %d rows of %s differ", report.different, report.table)
    same = sum(report.is_identical for report in reports)
    rows = sum(report.rows for report in reports)
    log.info("verify: %d of %d tables are identical, %d rows compared", same, len(reports), rows)
    return same == len(reports)
