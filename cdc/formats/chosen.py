"""The changes that a reader wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cdc.model.change import ChangeBatch, Op


@dataclass(frozen=True, slots=True)
class Chosen:
    """A choice of changes.

    Attributes:
        ops: labels of what may have happened (`insert`, `copy`, `note`, ...); None for anything.
        rows: of a batch, which changes (bool[n]); None for all. A reader who chooses rows gets nothing else.
    """

    ops: frozenset[str] | None = None
    rows: Callable[[ChangeBatch], np.ndarray] | None = None

    def has(self, label: str) -> bool:
        """Whether events that are no rows, but are called so, are wanted."""
        return self.rows is None and (self.ops is None or label in self.ops)

    def of(self, batch: ChangeBatch) -> ChangeBatch:
        """The chosen changes of a batch."""
        wanted = np.ones(len(batch), dtype=bool)
        if self.ops is not None and batch.copied:
            wanted &= "copy" in self.ops
        elif self.ops is not None:
            wanted &= np.isin(batch.op, [op for op in Op if op.label in self.ops])
        if self.rows is not None and wanted.any():
            wanted &= self.rows(batch)
        return batch if wanted.all() else batch.rows(np.flatnonzero(wanted))


ALL = Chosen()
