"""The journal as a target: each segment becomes a record, which is durable before anybody relies on it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from cdc.errors import UsageError
from cdc.journal.folder import Folder
from cdc.journal.retention import forecast, prune, refuse_beyond_budget
from cdc.journal.writer import FILE_BYTES, Writer
from cdc.model.change import ABSENT, ChangeBatch, Op, Transactions, keys_after, lacking
from cdc.model.parts import Key, Part
from cdc.model.position import Checkpoint
from cdc.model.schema import TableSchema
from cdc.model.segment import Changes, Copied, Replace, Reset, Segment, Step, beyond
from cdc.target import TargetSettings

log = logging.getLogger(__name__)

_LITTLE = 64 << 10  # bytes of a segment that may wait for more
_AT_MOST_EVERY = 0.02  # seconds between records of little segments: a record costs a few kB, whatever is in it


class JournalTarget:
    """A folder of records as a `cdc.target.Target` that takes tables which come by parts, too."""

    def __init__(self, folder: Folder, settings: TargetSettings, file_bytes: int = FILE_BYTES) -> None:
        self._folder = folder
        self._settings = settings
        self._file_bytes = file_bytes
        self._writer: Writer | None = None
        self._is_inside = False
        self._missed: dict[int, set[Key]] = {}
        self._written = 0.0
        self._full_files = 0

    def open(self) -> Checkpoint | None:
        self._is_inside = False
        self._missed = {}
        settings = self._settings
        self._writer = Writer(
            self._folder, settings.pipeline, settings.source, settings.database, self._file_bytes
        ).open()
        self._keep_house()
        return self._writer.checkpoint

    def verify_place(self) -> None:
        if self._writer is not None:
            self._writer.verify_place()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def apply(self, segment: Segment) -> None:
        writer = self._open_writer
        at = writer.checkpoint.position if writer.checkpoint is not None else None
        new = beyond(segment, at.order if at is not None else None)
        if new is None:
            return
        if not self._is_inside:
            refuse_beyond_budget(writer, self._folder, self._settings.retention)
        for step in new.steps:
            self._notice(step)
        self._append(new)
        if segment.checkpoint is not None and segment.size < _LITTLE:
            self._rest()

    # --- tables that come by parts ----------------------------------------------------------------------------------

    @property
    def copying(self) -> set[int]:
        return set(self._open_writer.copying) if self._writer is not None else set()

    def copy_parts(self, schema: TableSchema) -> None:
        raise UsageError(
            f"{schema.table} cannot be copied into a journal again.",
            hint="Resync the targets that are fed from it.",
        )

    def replace(self, schema: TableSchema, part: Part, batches: Sequence[ChangeBatch]) -> None:
        self._append_step(Replace(schema, part, tuple(batches)), sum(batch.size for batch in batches))

    def copied(self, schema: TableSchema) -> None:
        self._open_writer.copying.discard(schema.identity)
        self._append_step(Copied(schema), 0)

    def take_missed(self, schema: TableSchema) -> list[Key]:
        return sorted(self._missed.pop(schema.identity, set()))

    def _append_step(self, step: Step, size: int) -> None:
        """Between two transactions, or in a cut of one segment, with whose end it becomes durable."""
        checkpoint = None if self._is_inside else self._open_writer.checkpoint
        self._append(Segment([step], Transactions.none(), checkpoint, size))

    def _notice(self, step: Step) -> None:
        """Which tables come by parts, and which of their changes could not be applied to a row that is not there."""
        copying = self._open_writer.copying
        if isinstance(step, Reset):
            (copying.add if step.by_parts else copying.discard)(step.schema.identity)
            self._missed.pop(step.schema.identity, None)
        elif isinstance(step, Changes) and step.batch.schema.identity in copying:
            missed = self._missed.setdefault(step.batch.schema.identity, set())
            missed |= _incomplete(step.batch)

    # --- writing ----------------------------------------------------------------------------------------------------

    @property
    def _open_writer(self) -> Writer:
        assert self._writer is not None
        return self._writer

    def _append(self, segment: Segment) -> None:
        writer = self._open_writer
        writer.append(replace(segment, read_at=int(time.time() * 1e6)))
        self._is_inside = segment.checkpoint is None
        if len(writer.manifest.files) != self._full_files:
            self._keep_house()

    def _keep_house(self) -> None:
        writer, retention = self._open_writer, self._settings.retention
        prune(writer, self._folder, retention)
        self._full_files = len(writer.manifest.files)
        if (warning := forecast(writer.manifest, writer.size, retention)) is not None:
            log.warning("%s", warning)

    def _rest(self) -> None:
        """Let more come together before the next record."""
        time.sleep(max(0.0, min(_AT_MOST_EVERY, self._written + _AT_MOST_EVERY - time.monotonic())))
        self._written = time.monotonic()


def _incomplete(batch: ChangeBatch) -> set[Key]:
    """The keys of changes that a target without the row before could not apply: values that the log left out, and keys
    that moved. A target that has the row does, and then these rows are only read once more than needed."""
    has_moved = (batch.op == Op.UPDATE) & (batch.before_row != ABSENT)
    return keys_after(batch, lacking(batch) | has_moved)
