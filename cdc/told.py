"""The options of a run that concern the tables that it follows. They stay with the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from cdc.selection import Selection


class AfterShape(StrEnum):
    """How a table is compared after its shape has changed."""

    FULL = "full"
    SAMPLE = "sample"  # some parts, at random; all of it if one of them differs
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Told:
    """The options that the last run was given. They are in the source's state, so that a job that opens the pipeline by
    itself follows the same tables in the same way (O5).

    Attributes:
        selection: which tables.
        include_keyless: also tables whose updates and deletes the log cannot identify, for inserts and truncates.
        holds_tables: what concerns one table holds that table; otherwise it ends the run.
        after_shape: how a table is compared with the source after its shape has changed.
        max_rate: rows per second that are compared at most where a table is suspect; None for no bound.
    """

    selection: Selection = field(default_factory=Selection)
    include_keyless: bool = False
    holds_tables: bool = True
    after_shape: AfterShape = AfterShape.SAMPLE
    max_rate: float | None = None
