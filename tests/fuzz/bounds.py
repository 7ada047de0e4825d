"""What one input may cost: work in proportion to it, and no more memory than it can account for."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

SECONDS = 1.0  # of processor time, which other processes on the machine do not use up
MEMORY = 64 << 20  # bytes that any input may take
PER_BYTE = 4096  # and this much more for each of its bytes: what is compressed may grow by a thousand times
ADDRESS_SPACE = 8 << 30  # a length that lies must end in an error here, and not in a machine that is out of memory


class Excess(AssertionError):
    """An input cost too much."""


def limit_memory() -> None:
    """Let an allocation of many gigabytes fail at once."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, resource.getrlimit(resource.RLIMIT_AS)[1]))


def bounded(one_input: Callable[[bytes], None], *, slack: float = 1.0) -> Callable[[bytes], None]:
    """The same function, which raises Excess if an input costs too much.

    Args:
        slack: times as much processor time as otherwise, for code that is traced.
    """

    def checked(data: bytes) -> None:
        peak, begun = _peak(), time.process_time()
        one_input(data)
        taken, grown = time.process_time() - begun, _peak() - peak
        if taken > SECONDS * slack:
            raise Excess(f"{len(data)} bytes took {taken:.1f} s")
        if grown > MEMORY + PER_BYTE * len(data):
            raise Excess(f"{len(data)} bytes took {grown >> 20} MB")

    return checked


def _peak() -> int:
    """The most memory that this process has ever had, so that what was freed again counts as well."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
