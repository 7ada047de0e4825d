"""The audit stream in files: each event once, in commit order, whatever happens to the process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cdc import faults
from cdc.formats import ALL, Format, FormatSettings, Shapes, make
from cdc.formats.reread import Reread
from cdc.model.change import ChangeBatch, Transactions
from cdc.model.parts import Key, Part
from cdc.model.position import Checkpoint
from cdc.model.schema import TableSchema
from cdc.model.segment import Segment, Step, beyond
from cdc.target import TargetSettings
from cdc.targets.jsonl.files import Files, Saved


class JsonLinesTarget:
    """Files of events as a `cdc.target.Replaceable`.

    Rows of a snapshot are events, too. So a table that is copied again is emitted again, after an event that says so.
    Rows that are read again are emitted again, as they are at that place of the log.
    """

    def __init__(self, path: Path, settings: TargetSettings) -> None:
        self._path = path
        self._settings = settings
        self._files = Files(path, settings.rotate)
        self._format: Format
        self._saved: Saved
        self._is_inside = False  # a transaction, or between two of a segment
        self._reread = Reread(())
        self._shapes = Shapes({})

    def open(self) -> Checkpoint | None:
        settings = self._settings
        self._saved = self._files.open(settings.format)
        self._format = make(self._saved.format, FormatSettings(settings.pipeline, settings.source, settings.database))
        self._tell(Segment([], Transactions.none(), self._saved.checkpoint))  # no line, but where the format begins
        self._is_inside = False
        self._reread = Reread(self._saved.copying)
        self._shapes = Shapes(self._saved.shapes)
        return self._saved.checkpoint

    def verify_place(self) -> None:
        self._files.verify_place()

    def close(self) -> None:
        try:
            faults.point("target.before_close")
        finally:
            self._files.close()

    def apply(self, segment: Segment) -> None:
        new = beyond(segment, self._saved.order)
        if new is None:
            return
        faults.point("target.begun")
        self._tell(self._reread.emitted(new))
        self._is_inside = segment.checkpoint is None
        if segment.checkpoint is not None:
            position = segment.checkpoint.position
            self._saved = replace(
                self._saved, order=position.order, position=position.text, state=segment.checkpoint.state
            )
            self._save()

    def _tell(self, segment: Segment) -> None:
        self._files.write(memoryview(self._format.encode(segment, ALL, self._shapes.new_in(segment)).lines()))

    def _save(self) -> None:
        copying, shapes = tuple(sorted(self._reread.copying)), dict(self._shapes.emitted)
        self._saved = replace(self._saved, copying=copying, shapes=shapes)
        self._files.save(self._saved)

    # --- rows that are read again ------------------------------------------------------------------------------------

    @property
    def copying(self) -> set[int]:
        return set(self._reread.copying)

    def replace(self, schema: TableSchema, part: Part, batches: Sequence[ChangeBatch]) -> None:
        self._add(self._reread.part(schema, part, batches))

    def copy_parts(self, schema: TableSchema) -> None:
        steps = self._reread.begin(schema)
        self._reread.mind(steps)
        if steps:
            self._add(steps)

    def copied(self, schema: TableSchema) -> None:
        self._reread.copying.discard(schema.identity)
        self._add([])

    def take_missed(self, schema: TableSchema) -> list[Key]:
        return self._reread.take_missed(schema)

    def _add(self, steps: list[Step]) -> None:
        """Tell of rows that are in no transaction; durable at once, unless there is one that has to end first."""
        self._tell(Segment(steps, Transactions.none(), None))
        if not self._is_inside:
            self._save()
