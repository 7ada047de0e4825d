"""What a target's checkpoint says of the journal that feeds it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import orjson

from cdc.errors import CheckpointUnreadable
from cdc.model.records import read_record
from cdc.model.schema import TableName

FORMAT = 1


@dataclass(frozen=True, slots=True)
class HeldTable:
    """A table that a target cannot take: its steps are skipped until it is copied again.

    Attributes:
        until: the number of the record up to which that it begins to be copied says nothing new: what the target could
            not take may have been just that (O7).
    """

    identity: int
    table: TableName
    reason: str
    until: int = 0


@dataclass(frozen=True, slots=True)
class JournalState:
    """The state of a checkpoint that was made from a journal.

    Attributes:
        format: `FORMAT`.
        journal: the journal's identity.
        folder: where it was.
        reader: the target's own identity among those that are fed from it.
        next: the number of the record to go on with.
        include, exclude: the tables that the target is given.
        held: tables, by identity, that the target cannot take, each with its name and the reason.
    """

    format: int
    journal: str
    folder: str
    reader: str
    next: int
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    held: tuple[HeldTable, ...] = ()

    @classmethod
    def load(cls, text: str) -> JournalState:
        """Raises CheckpointUnreadable if it is of another source."""
        try:
            state = read_record(cls, orjson.loads(text))
        except ValueError:
            raise CheckpointUnreadable(
                "The target was not fed from a journal.", hint="Go on with the source that it was made from."
            ) from None
        if state.format != FORMAT:
            raise CheckpointUnreadable(f"The checkpoint has format {state.format}; this version reads {FORMAT}.")
        return state

    def dump(self) -> str:
        return orjson.dumps(asdict(self)).decode()
