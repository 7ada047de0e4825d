"""Comparing the shapes of a table: what it is in the source's catalog, for the pipeline, and in the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdc.errors import TableChanged
from cdc.model.schema import Column, TableName, TableSchema
from cdc.target import HeldColumn


@dataclass(frozen=True, slots=True)
class ShapeDifference:
    """A column, the key, or a whole table that is not the same in all three places.

    Attributes:
        what: the name of a column, `(key)` or `(table)`.
        source, pipeline, target: what it is there, in that place's own words; None where it is missing.
    """

    what: str
    source: str | None
    pipeline: str | None
    target: str | None

    def __str__(self) -> str:
        places = {"source": self.source, "pipeline": self.pipeline, "target": self.target}
        return f"{self.what}: " + ", ".join(f"{place} {text or 'missing'}" for place, text in places.items())


class OtherShape(TableChanged):
    """A table has not the same shape in the source, for the pipeline, and in the target.

    Attributes:
        differences: what is not the same.
    """

    def __init__(self, table: TableName, differences: Sequence[ShapeDifference]) -> None:
        super().__init__(
            f"{table} does not have the same shape everywhere "
            f"({', '.join(difference.what for difference in differences)}).",
            hint=f"If it stays so: `cdc resync SOURCE TARGET --tables {table}`.",
        )
        self.differences = list(differences)

    @property
    def may_pass(self) -> bool:
        """Whether the log may still bring it to the pipeline; what is wrong in the target alone stays so."""
        return any(difference.source != difference.pipeline for difference in self.differences)


def compare_shapes(
    source: TableSchema | None, pipeline: TableSchema, target: Sequence[HeldColumn]
) -> list[ShapeDifference]:
    """The differences. Types are compared by what they mean: an integer's display width does not count."""
    if source is None or not target:
        there = [None if source is None else "there", "there", "there" if target else None]
        return [ShapeDifference("(table)", *there)]
    ours = {column.name: column for column in source.columns}
    known = {column.name: column for column in pipeline.columns}
    held = {column.name: column for column in target}
    found = [
        ShapeDifference(name, _written(ours.get(name)), _written(known.get(name)), _type(held.get(name)))
        for name in {**ours, **known, **held}
        if not _is_same(ours.get(name), known.get(name), held.get(name))
    ]
    if source.table != pipeline.table:
        found.append(ShapeDifference("(name)", str(source.table), str(pipeline.table), str(pipeline.table)))
    if _key(source) != _key(pipeline):
        found.append(ShapeDifference("(key)", _key(source), _key(pipeline), _key(pipeline)))
    return found


def not_followed() -> ShapeDifference:
    """A table that the source has, that is meant, and that does not come."""
    return ShapeDifference("(table)", "there", None, None)


def _is_same(source: Column | None, pipeline: Column | None, target: HeldColumn | None) -> bool:
    if source is None or pipeline is None or target is None:
        return False
    return source.type == pipeline.type and target.fits


def _written(column: Column | None) -> str | None:
    return column.source_type if column is not None else None


def _type(column: HeldColumn | None) -> str | None:
    return column.type if column is not None else None


def _key(schema: TableSchema) -> str | None:
    return ", ".join(schema.columns[index].name for index in schema.key) or None
