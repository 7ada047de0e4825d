"""How a table of the selection stands: whether it is certain what its rows are, and if not, why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cdc.model.schema import TableName


class State(StrEnum):
    """What becomes of a table's changes."""

    FOLLOWING = "following"  # they are applied, and nothing casts doubt on the rows
    COPYING = "copying"  # its rows are being copied, and its changes are applied to those that are there
    SUSPECT = "suspect"  # rows may have changed without an event: it is being compared with the source
    HELD = "held"  # it cannot be followed just now: its changes are skipped, its rows in the target stay as they were
    DROPPED = "dropped"  # the source has it no more; its rows in the target stay as they were
    LEFT_OUT = "left out"  # the selection names it, and it is not followed on purpose


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a table, and why it is so, in a sentence; empty where there is nothing to say."""

    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Apart:
    """A table of the selection that was never followed, and why."""

    table: TableName
    standing: Standing


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Why a target's table is suspect.

    Attributes:
        reason: what happened, in a sentence.
        number: of the mark. A table that is marked again while it is compared stays suspect.
    """

    reason: str
    number: int
