"""Following a log from Python: segments as Arrow tables or as events, acknowledged by whoever has dealt with them.

import cdc

with cdc.open("postgresql://app@db/shop", name="totals") as stream:
    for segment in stream.follow():
        for table, rows in segment.tables().items():
            print(table, rows.num_rows)
        segment.acknowledge()
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from types import TracebackType

import numpy as np
import orjson
import pyarrow as pa

from cdc.config import Options, known_as, source_factory, source_module
from cdc.errors import CheckpointUnreadable, InvariantError, UsageError
from cdc.model.change import ChangeEvent, Op, Transactions, events
from cdc.model.position import Checkpoint, Position
from cdc.model.segment import Changes, Replace, Segment, Truncate
from cdc.model.typed import typed
from cdc.pipeline import Pipeline
from cdc.selection import Selection

_LOOK_EVERY = 0.1  # seconds


class SegmentView:
    """Consecutive whole transactions (or a part of one that is very large, or rows of the first copy).

    Attributes:
        segment: the same as the pipeline has it, with schema changes.
    """

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self._done = threading.Event()

    @property
    def position(self) -> str | None:
        """The source's position that this ends at; None if a transaction goes on in the next segment."""
        return self.segment.checkpoint.position.text if self.segment.checkpoint is not None else None

    @property
    def checkpoint(self) -> str | None:
        """What `cdc.open(resume=...)` goes on from, to be kept with what was made of the segment."""
        at = self.segment.checkpoint
        return orjson.dumps([at.position.order, at.position.text, at.state]).decode() if at is not None else None

    def tables(self) -> dict[str, pa.Table]:
        """The changes of rows by table (`schema.name`), in order, one row each.

        Beside the table's columns, which hold the row after the change (before it for a delete, as far as the log has
        it), there are `_op` (`copy`, `insert`, `update`, `delete`), `_position`, `_transaction`, `_ordinal` and
        `_committed_at`, which are null for copied rows, and `_unchanged`: names of columns that the log left out. A
        column has its Arrow type as long as that can hold every value of the segment exactly, otherwise it is text. A
        table whose shape changes within the segment has the columns of all its shapes.
        """
        found: dict[str, list[pa.Table]] = {}
        for step in self.segment.steps:
            batches = [step.batch] if isinstance(step, Changes) else step.batches if isinstance(step, Replace) else ()
            for batch in batches:
                made = typed(batch, self.segment.transactions)
                found.setdefault(str(batch.schema.table), []).append(made)
        return {table: pa.concat_tables(parts, promote_options="permissive") for table, parts in found.items()}

    def events(self) -> Iterator[ChangeEvent]:
        """The changes as rows, in commit order; values are the source's text. Copied rows are inserts of no transaction
        (number 0) at the position of the segment."""
        told: list[tuple[int, int, ChangeEvent]] = []
        transactions = self.segment.transactions
        for step in self.segment.steps:
            if isinstance(step, Truncate):
                told.append((step.transaction, step.ordinal, _truncate(step, transactions)))
            elif isinstance(step, Changes):
                them = transactions if not step.batch.copied else self._copy()
                order = zip(step.batch.transaction.tolist(), events(step.batch, them), strict=True)
                told += [(index, event.ordinal, event) for index, event in order]
            elif isinstance(step, Replace):
                told += [(0, e.ordinal, e) for batch in step.batches for e in events(batch, self._copy())]
        told.sort(key=lambda entry: entry[:2])
        yield from (event for _, _, event in told)

    def acknowledge(self) -> None:
        """Say that this need not come again: the source may let go of its log up to here."""
        self._done.set()

    @property
    def is_acknowledged(self) -> bool:
        return self._done.is_set()

    def _copy(self) -> Transactions:
        """The transaction that stands in for none."""
        at = self.segment.checkpoint
        order, text = (at.position.order, at.position.text) if at is not None else (0, "")
        nothing = np.zeros(1, dtype=np.int64)
        return Transactions(nothing + order, nothing, nothing, lambda _: text)


class Stream:
    """A source that is followed. A context manager, used from one thread."""

    def __init__(self, pipeline: Pipeline, pulled: _Pulled) -> None:
        self._pipeline = pipeline
        self._pulled = pulled
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def follow(self) -> Iterator[SegmentView]:
        """Segments as they come, for ever, or with `until_caught_up` until everything has come.

        Each has to be acknowledged before the next one can be had; whatever is not comes again another time.

        Raises:
            UsageError: the one before was not acknowledged.
            CdcError: the source cannot be followed any further.
        """
        self._start()
        last: SegmentView | None = None
        while True:
            if last is not None and not last.is_acknowledged and last.segment.checkpoint is not None:
                raise UsageError(
                    "The segment before was not acknowledged.", hint="Call segment.acknowledge() when it is dealt with."
                )
            last = self._next()
            if last is None:
                return
            yield last

    def close(self) -> None:
        """End. May be called twice."""
        self._pipeline.stop()
        self._pulled.end()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="follow", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            self._pipeline.run()
        except BaseException as error:  # is raised where somebody waits for it
            self._failure = error

    def _next(self) -> SegmentView | None:
        assert self._thread is not None
        while True:
            try:
                return self._pulled.waiting.get(timeout=_LOOK_EVERY)
            except queue.Empty:
                if self._thread.is_alive():
                    continue
            if self._failure is not None:
                raise self._failure
            return None


class _Pulled:
    """A target from which somebody takes segments; what he acknowledged is durable."""

    def __init__(self, checkpoint: Checkpoint | None) -> None:
        self.waiting: queue.Queue[SegmentView] = queue.Queue(1)
        self._checkpoint = checkpoint
        self._is_closed = False

    def open(self) -> Checkpoint | None:
        return self._checkpoint

    def apply(self, segment: Segment) -> None:
        view = SegmentView(segment)
        self.waiting.put(view)
        while segment.checkpoint is not None and not view._done.wait(_LOOK_EVERY):
            if self._is_closed:
                raise _Closed("Nobody takes segments any more.")
        self._checkpoint = segment.checkpoint or self._checkpoint

    def close(self) -> None:
        """The pipeline closes what it opens again."""

    def end(self) -> None:
        self._is_closed = True


class _Closed(InvariantError):
    """The stream was closed."""


def open(  # noqa: A001 - it is `cdc.open`
    source: str,
    *,
    name: str = "cdc",
    tables: Sequence[str] = (),
    exclude: Sequence[str] = (),
    resume: str | None = None,
    snapshot: bool = True,
    until_caught_up: bool = False,
) -> Stream:
    """Open a source to follow it.

    Args:
        source: `postgresql://...`, `mysql://...`, `mariadb://...` or `journal:DIR`.
        name: of the pipeline: PostgreSQL's slot is called `cdc_NAME` and stays.
        tables, exclude: patterns of `schema.table`.
        resume: the `checkpoint` of the last segment that was dealt with; None begins.
        snapshot: give the rows that there are, then what happens to them; otherwise only what happens from now on, as
            `cdc tail`, and without a slot that stays.
        until_caught_up: end where the source is now.

    Raises:
        UsageError: the source is not one.
    """
    options = Options(name=name, selection=Selection(tuple(tables), tuple(exclude)), until_caught_up=until_caught_up)
    if snapshot:
        make = source_factory(source, known_as(source, f"python {name}", name), options)
    else:
        make = source_module(source).tail_factory(
            source,
            slot=None,
            selection=options.selection,
            include_keyless=options.include_keyless,
            budget=options.segment_bytes,
        )
    pulled = _Pulled(_read(resume) if resume is not None else None)
    pipeline = Pipeline(make, lambda: pulled, queue_bytes=options.queue_bytes, until_caught_up=until_caught_up)
    return Stream(pipeline, pulled)


def _read(resume: str) -> Checkpoint:
    try:
        order, text, state = orjson.loads(resume)
        return Checkpoint(Position(int(order), str(text)), str(state))
    except (ValueError, TypeError):
        raise CheckpointUnreadable("That is not the checkpoint of a segment.") from None


def _truncate(step: Truncate, transactions: Transactions) -> ChangeEvent:
    of = transactions[step.transaction]
    return ChangeEvent(
        Op.TRUNCATE, step.schema.table, None, None, None, (), of.position, step.ordinal, of.identity, of.committed_at
    )


__all__ = ["ChangeEvent", "SegmentView", "Stream", "open"]
