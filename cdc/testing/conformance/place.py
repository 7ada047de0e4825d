"""What the suite is given: a place where a target can be, and how its rows are read from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cdc.model.schema import TableName, TableSchema
from cdc.target import Mode, Target, TargetAbilities

Texts = tuple[str | None, ...]  # a row, by its columns' canonical texts (`cdc.model.schema.Kind`)


@dataclass(frozen=True)
class Place:
    """An empty place for one target, in which nobody else writes.

    Attributes:
        abilities: what the kind of target says that it can do. It is held to that.
        make: a target at this place that is not open, which keeps its tables in a mode. It is called again and again:
            every target that it gives finds what the ones before it wrote.
        read: the rows of a table as they are now, each with the texts of the columns of a schema, in any order; None if
            there is no such table. It is called while no target is open, and should share no code with the target. It
            may be left out for a target that can be compared (`cdc.target.Comparable`), which is asked then.
        occupy: makes an empty table of a name that is not the pipeline's, with one column `theirs` of whole numbers,
            while no target is open. It may be left out for a
            target that is not durable, where nobody else could make one.
        recall: the rows of a table as of a position of the log, as `read` gives those of now; of a target that keeps
            histories.
    """

    abilities: TargetAbilities
    make: Callable[[Mode | None], Target]
    read: Callable[[TableSchema], Sequence[Texts] | None] | None = None
    occupy: Callable[[TableName], None] | None = None
    recall: Callable[[TableSchema, str], Sequence[Texts]] | None = None
