"""Whether a benchmark had the machine to itself: what others took of the processors while it ran.

Linux counts the time of all processors; what this process and all that it started took, its servers among them, is taken
off. What the machine's host gave to other machines is "steal". Source: proc_stat(5), proc_pid_stat(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

QUIET_BELOW = 0.05  # of all processors' time, taken by others or stolen
_PROC = Path("/proc")
_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds of all processors together, since some beginning.

    Attributes:
        passed: in all, whatever was done with them.
        busy: in which a process ran.
        stolen: which the host gave to other machines.
        ours: in which this process ran, or what it started.
    """

    passed: float
    busy: float
    stolen: float
    ours: float

    @classmethod
    def now(cls) -> Clock:
        return cls.of((_PROC / "stat").read_text(), _ours(os.getpid()))

    @classmethod
    def of(cls, stat: str, ours: float) -> Clock:
        """As /proc/stat says it; the time of guests is in a user's time already."""
        ticks = [int(field) / _PER_SECOND for field in stat.splitlines()[0].split()[1:9]]
        user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = ticks
        return cls(sum(ticks), user + nice + system + interrupts + soft_interrupts, stolen, ours)


def verdict(before: Clock, after: Clock) -> str:
    """Whether the machine was busy or quiet between two moments, and with what."""
    passed = max(after.passed - before.passed, 1 / _PER_SECOND)
    others = max(0.0, (after.busy - before.busy) - (after.ours - before.ours)) / passed
    stolen = (after.stolen - before.stolen) / passed
    said = "quiet" if others + stolen < QUIET_BELOW else "busy"
    return f"machine {said}: others took {others:.0%} of {os.cpu_count()} cores, {stolen:.0%} were stolen"


@contextmanager
def watched(console: Console, title: str) -> Iterator[None]:
    """Say before a benchmark what it is and how much waits to run, and after it whether the machine was busy or quiet."""
    console.rule(f"{title}; load before it {os.getloadavg()[0]:.1f}", align="left")
    before = Clock.now()
    try:
        yield
    finally:  # what was printed until a failure is of the same machine
        console.print(f"{title}: {verdict(before, Clock.now())}\n", highlight=False)


def _ours(process: int) -> float:
    """What a process took, with all that it started and still has, or has waited for."""
    taken, parents = {}, {}
    for folder in _PROC.glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
        except OSError:  # it has just ended
            continue
        taken[int(folder.name)] = sum(map(int, fields[11:15])) / _PER_SECOND
        parents[int(folder.name)] = int(fields[1])
    return sum(taken[each] for each in taken if process in _line(each, parents))


def _line(process: int, parents: dict[int, int]) -> Iterator[int]:
    """A process, its parent, and so on."""
    while process:
        yield process
        process = parents.get(process, 0)
