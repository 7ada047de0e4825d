"""Following a log from Python: segments as Arrow tables or as events, acknowledged when the program has used them.

import cdc

with cdc.open("postgresql://app@db/shop", name="totals") as stream:
    for segment in stream:
        for table, rows in segment.tables().items():
            print(table, rows.num_rows)
        segment.acknowledge()
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

import numpy as np
import orjson
import pyarrow as pa

from cdc.connectors import known_as, source_factory, source_module
from cdc.engine.pipeline import Pipeline
from cdc.errors import CdcError, CheckpointUnreadable, InvariantError, UsageError
from cdc.model.change import ChangeBatch, ChangeEvent, Op, Transactions, events
from cdc.model.position import Checkpoint, Position
from cdc.model.segment import Changes, Replace, Reset, Segment, Truncate
from cdc.model.selection import Selection
from cdc.model.typed import typed
from cdc.options import SEGMENT_BYTES, Options

_LOOK_EVERY = 0.1  # seconds
_ARGUMENTS = {
    "--name": "name=",
    "--tables": "tables=",
    "--exclude": "exclude=",
    "--include-keyless": "include_keyless=True",
    "--segment": "segment_bytes=",
    "--slot": "snapshot=True",
}
_OPTION = re.compile(rf"({'|'.join(_ARGUMENTS)})\b(?!-)")


class SegmentView:
    """Consecutive whole transactions (or a part of one that is very large, or rows of the first copy).

    Attributes:
        segment: the same as the pipeline has it, with schema changes.
        begins_again: the connection was lost in the middle of a transaction, which begins again with this segment: the
            segments without a checkpoint that came since the last one with a checkpoint count for nothing.
    """

    def __init__(self, segment: Segment, *, begins_again: bool = False) -> None:
        self.segment = segment
        self.begins_again = begins_again
        self._done = threading.Event()

    @property
    def emptied(self) -> set[str]:
        """Tables (`schema.name`) that are copied from their first row on: all that came of them before counts for
        nothing. So it is at the first copy, and again if it was cut off, or if a table has to be copied once more."""
        return {str(step.schema.table) for step in self.segment.steps if isinstance(step, Reset)}

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
        found: dict[str, list[ChangeBatch]] = {}
        for step in self.segment.steps:
            batches = [step.batch] if isinstance(step, Changes) else step.batches if isinstance(step, Replace) else ()
            for batch in batches:
                found.setdefault(str(batch.schema.table), []).append(batch)
        return {table: typed(batches, self.segment.transactions) for table, batches in found.items()}

    def events(self) -> Iterator[ChangeEvent]:
        """The changes as rows, in commit order; values are the source's text. Copied rows are inserts of no transaction
        (number 0) at the position of the segment."""
        found: list[tuple[int, int, ChangeEvent]] = []
        transactions = self.segment.transactions
        for step in self.segment.steps:
            if isinstance(step, Truncate):
                found.append((step.transaction, step.ordinal, _truncate(step, transactions)))
            elif isinstance(step, Changes):
                them = transactions if not step.batch.copied else self._copy()
                order = zip(step.batch.transaction.tolist(), events(step.batch, them), strict=True)
                found += [(index, event.ordinal, event) for index, event in order]
            elif isinstance(step, Replace):
                found += [(0, e.ordinal, e) for batch in step.batches for e in events(batch, self._copy())]
        found.sort(key=lambda entry: entry[:2])
        yield from (event for _, _, event in found)

    def acknowledge(self) -> None:
        """Say that this need not come again: the source may let go of its log up to here."""
        self._done.set()

    @property
    def is_acknowledged(self) -> bool:
        return self._done.is_set()

    def _copy(self) -> Transactions:
        """The transaction of copied rows, which have no transaction of their own."""
        at = self.segment.checkpoint
        order, text = (at.position.order, at.position.text) if at is not None else (0, "")
        nothing = np.zeros(1, dtype=np.int64)
        return Transactions(nothing + order, nothing, nothing, lambda _: text)


class Stream:
    """A source that is followed: its segments as they come, without an end, or with `until_caught_up` until everything
    has come. A context manager, used from one thread.

    Each segment has to be acknowledged before the next one can be had; what is not acknowledged comes again another
    time. Of the segments that a large transaction comes in, the last one is enough.

    Raises, when the next segment is asked for:
        UsageError: the one before was not acknowledged.
        CdcError: the source cannot be followed any further.
    """

    def __init__(self, pipeline: Pipeline, pulled: _Pulled) -> None:
        self._pipeline = pipeline
        self._pulled = pulled
        self._last: SegmentView | None = None
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> SegmentView:
        last = self._last
        if last is not None and not last.is_acknowledged and last.segment.checkpoint is not None:
            raise UsageError(
                "The previous segment was not acknowledged.",
                hint="Call segment.acknowledge() when you have processed it.",
            )
        self._start()
        with _advice_for_programs():
            self._last = self._next()
        if self._last is None:
            raise StopIteration
        return self._last

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
        self._has_part = False  # of a transaction whose end has not been given
        self._begins_again = False

    def open(self) -> Checkpoint | None:
        self._begins_again = self._has_part
        return self._checkpoint

    def apply(self, segment: Segment) -> None:
        view = SegmentView(segment, begins_again=self._begins_again)
        self._until(lambda: self._is_given(view))
        self._begins_again, self._has_part = False, segment.checkpoint is None
        if segment.checkpoint is not None:
            self._until(lambda: view._done.wait(_LOOK_EVERY))
            self._checkpoint = segment.checkpoint

    def _is_given(self, view: SegmentView) -> bool:
        try:
            self.waiting.put(view, timeout=_LOOK_EVERY)
        except queue.Full:
            return False
        return True

    def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._is_closed:
                raise _Closed("Nobody takes segments any more.")

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
    tables: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    include_keyless: bool = False,
    resume: str | None = None,
    snapshot: bool = True,
    segment_bytes: int = SEGMENT_BYTES,
    until_caught_up: bool = False,
) -> Stream:
    """Open a source to follow it.

    Args:
        source: `postgresql://...`, `mysql://...`, `mariadb://...` or `journal:DIR`.
        name: of the pipeline: PostgreSQL's slot is called `cdc_NAME` and stays.
        tables, exclude: a pattern of `schema.table`, or several.
        include_keyless: also tables whose updates and deletes PostgreSQL cannot identify, for inserts and truncates.
        resume: the `checkpoint` of the last segment that was dealt with; None begins.
        snapshot: give the rows that there are, then what happens to them; otherwise only what happens from now on, as
            `cdc tail`, and without a slot that stays.
        segment_bytes: of log that one segment holds at most.
        until_caught_up: end where the source is now.

    Raises:
        UsageError: the source is not one.
    """
    with _advice_for_programs():
        options = Options(
            name=name,
            selection=Selection(_patterns(tables), _patterns(exclude)),
            include_keyless=include_keyless,
            segment_bytes=segment_bytes,
            until_caught_up=until_caught_up,
        )
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


def _patterns(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


@contextmanager
def _advice_for_programs() -> Iterator[None]:
    """Errors whose advice names arguments of `open`, not the options that they are on a command line."""
    try:
        yield
    except CdcError as error:
        if error.hint:
            outside = error.hint.split("`")
            outside[::2] = [_OPTION.sub(lambda found: _ARGUMENTS[found[0]], text) for text in outside[::2]]
            error.hint = "`".join(outside)  # commands stay what they are
        raise


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
