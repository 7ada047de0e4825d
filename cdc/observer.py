"""The third seam: seeing parts of a source's tables, each at a place in its log that is known exactly.

The initial copy, verification, repair and tables that come later rest on the same idea: rows that were read at a known
place can be put between two transactions of the stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cdc.model.change import ChangeBatch, Transactions
from cdc.model.parts import Digest, HashedRow, Key, Part
from cdc.model.position import Position
from cdc.model.schema import TableSchema
from cdc.model.selection import Selection

SEEN, UNSEEN, UNKNOWN = 1, 0, -1


class Place(Protocol):
    """Where in the log a look is."""

    @property
    def until(self) -> Position:
        """Whatever the look saw was committed up to here."""

    @property
    def is_exact(self) -> bool:
        """Whether `sees` never has to say UNKNOWN and never is wrong."""

    def sees(self, transactions: Transactions) -> np.ndarray:
        """int8[n]: for each transaction SEEN, UNSEEN or, where the server does not tell, UNKNOWN."""


@dataclass(frozen=True, slots=True)
class Selected:
    """A table of the source that a selection means.

    Attributes:
        left_out: why a pipeline does not follow such a table, by a rule that the documentation has.
        has_inserts: it is followed even so where tables without a key are, for inserts and truncates only.
    """

    schema: TableSchema
    left_out: str | None = None
    has_inserts: bool = False


class Look(Protocol):
    """One state of a source's tables. All values are canonical texts, the same as the stream has."""

    @property
    def place(self) -> Place: ...

    def shape(self, schema: TableSchema) -> TableSchema | None:
        """What the source's catalog has of a table, as a pipeline that begins now would take it; None if it is gone."""

    def left_out(self, schema: TableSchema) -> list[str]:
        """The columns that a pipeline leaves out, by a rule that the documentation has."""

    def digest(self, schema: TableSchema, part: Part) -> Digest:
        """What the rows of a part are, computed by the server."""

    def rows(self, schema: TableSchema, part: Part, buckets: Sequence[int]) -> list[HashedRow]:
        """Those rows of a part that lie in some buckets of its digest."""

    def values(self, schema: TableSchema, keys: Sequence[Key]) -> dict[Key, dict[str, str | None]]:
        """The rows that have these keys."""

    def keys(self, schema: TableSchema, part: Part) -> set[Key]:
        """The keys of a part's rows; of a table without a key one that is empty, if there are any rows.

        Raises:
            UsageError: the part's condition cannot be decided.
        """

    def read(self, schema: TableSchema, part: Part) -> Iterator[ChangeBatch]:
        """The rows of a part as copied ones.

        Raises:
            TableChanged: the table is not what the schema says any more.
        """


class Observer(Protocol):
    """Somebody who looks at a source beside the stream, with sessions of its own. Used from one thread at a time."""

    @property
    def dialect(self) -> str:
        """The name that sqlglot has for the source's SQL."""

    @property
    def default_schema(self) -> str:
        """What a table's name without a schema means."""

    def followed(self, state: str) -> dict[TableSchema, bool]:
        """The tables of a checkpoint's state, each with whether its rows can be compared: the log may carry inserts
        only, or its copy may not be complete."""

    def held(self, state: str) -> dict[TableSchema, str]:
        """The tables of a checkpoint's state that cannot be followed just now, each with the reason."""

    def selected(self, selection: Selection) -> list[Selected]:
        """The tables that the source has now, of those that a user means."""

    def rows_estimated(self, schema: TableSchema) -> int:
        """How many rows the source believes a table has."""

    def leading(self, schema: TableSchema) -> tuple[int, ...]:
        """Indexes of the first columns of the key that this server orders as every target does; may be empty."""

    def border(self, schema: TableSchema, after: Key | None, rows: int) -> Key | None:
        """The leading columns of the row that lies so many rows beyond `after`; None if there are not that many."""

    def look(self, *schemas: TableSchema, exact: bool = False) -> AbstractContextManager[Look]:
        """See tables as they are now, all of them at one place, until the end of the context.

        Args:
            exact: the place must be exact, even if the application has to wait for a moment's lock on the tables.

        Raises:
            Unavailable: not just now.
        """

    def close(self) -> None:
        """End all sessions. May be called twice."""
