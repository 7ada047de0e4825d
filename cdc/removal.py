"""What taking a pipeline away removes: said before it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Removal:
    """One thing of a pipeline.

    Attributes:
        what: in words.
        remove: does it.
    """

    what: str
    remove: Callable[[], object]
