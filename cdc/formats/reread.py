"""Rows that are read again, as events: what a target of events keeps in mind of tables that are copied part by part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from cdc.errors import UsageError
from cdc.model.change import ChangeBatch, keys_after, lacking
from cdc.model.parts import Key, Part
from cdc.model.schema import TableSchema
from cdc.model.segment import Changes, Copied, Replace, Reset, Segment, Step


class Reread:
    """The tables whose rows are emitted again.

    Args:
        copying: those, by identity, that were copied part by part when the target was closed.
    """

    def __init__(self, copying: Iterable[int]) -> None:
        self.copying = set(copying)
        self._missed: dict[int, set[Key]] = {}

    def emitted(self, segment: Segment) -> Segment:
        """The segment as it is emitted, of which note is taken. A segment from a journal has steps of its own for rows
        that were read again."""
        steps: list[Step] = []
        for step in segment.steps:
            if isinstance(step, Replace):
                steps += self.part(step.schema, step.part, step.batches)
            elif isinstance(step, Copied):
                self.copying.discard(step.schema.identity)
            else:
                self.mind([step])
                steps.append(step)
        return replace(segment, steps=steps)

    def mind(self, steps: Iterable[Step]) -> None:
        """Take note of steps that are emitted."""
        for step in steps:
            if isinstance(step, Reset):
                self.copying.discard(step.schema.identity)
                self.copying |= {step.schema.identity} if step.by_parts else set()
            elif isinstance(step, Changes) and step.batch.schema.identity in self.copying:
                self._missed.setdefault(step.batch.schema.identity, set()).update(
                    keys_after(step.batch, lacking(step.batch))
                )

    def begin(self, schema: TableSchema) -> list[Step]:
        """The steps that are emitted when a table begins to be copied part by part. If it has begun already, its events
        since then stay valid."""
        return [] if schema.identity in self.copying else [Reset(schema, by_parts=True)]

    @staticmethod
    def part(schema: TableSchema, part: Part, batches: Sequence[ChangeBatch]) -> list[Step]:
        """The steps that are emitted for the rows of a part.

        Raises:
            UsageError: without a key, a row that is read may be one that an event of its change has brought already.
        """
        rows: list[Step] = [Changes(batch) for batch in batches]
        if schema.key:
            return rows
        if part.shares > 1:
            raise UsageError(
                f"{schema.table} has no key, and too many rows to be copied while its changes are emitted.",
                hint="Leave it out with --exclude, or begin a new pipeline, which copies it first.",
            )
        return [Reset(schema), *rows]

    def take_missed(self, schema: TableSchema) -> list[Key]:
        """The keys of rows that were emitted without some of their values. Perhaps no event before had these values."""
        return sorted(self._missed.pop(schema.identity, set()))
