"""What a driver raises, as what it means for a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from cdc.errors import CdcError


class Failing(Protocol):
    """A database whose driver has exceptions of its own.

    Attributes:
        failures: what the driver raises.
    """

    failures: tuple[type[Exception], ...]

    def meaning(self, failure: Exception) -> CdcError:
        """What one of `failures` means for a pipeline."""


@contextmanager
def mapped_errors(database: Failing) -> Iterator[None]:
    """Turn what a driver raises into what it means for a pipeline."""
    try:
        yield
    except database.failures as error:
        raise database.meaning(error) from error
