"""Running a command and finding out what it took: wall time, CPU, peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

LIMIT_MB = 700


@dataclass(frozen=True, slots=True)
class Took:
    """What one run of a command took: seconds of wall time and CPU, peak resident megabytes."""

    seconds: float
    cpu: float
    peak_mb: float

    def beyond(self, idle: Took) -> Took:
        """What a run took beyond one with nothing to do."""
        return Took(max(0.01, self.seconds - idle.seconds), max(0.01, self.cpu - idle.cpu), self.peak_mb)


def run(command: Sequence[str], environment: dict[str, str] | None = None) -> Took:
    """Run a command to its end; it must succeed."""
    began = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | (environment or {})
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{command} failed: {said.decode(errors='replace')[-2000:]}")
    return Took(time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def report(
    console: Console, title: str, rows: int, theirs: list[Took], ours: list[Took], tool: str, goal: float
) -> None:
    """Print the medians of both sides and their ratio: above 1 we were faster."""
    ratio = median(t.seconds / o.seconds for t, o in zip(theirs, ours, strict=True))
    table = Table("", "rows/s", "seconds", "CPU s", "peak MB", title=title, title_justify="left")
    for name, runs in ((tool, theirs), ("cdc", ours)):
        seconds = median(run.seconds for run in runs)
        table.add_row(
            name,
            f"{rows / seconds:,.0f}",
            f"{seconds:.2f} ({min(r.seconds for r in runs):.2f}-{max(r.seconds for r in runs):.2f})",
            f"{median(r.cpu for r in runs):.2f}",
            f"{max(r.peak_mb for r in runs):.0f}",
        )
    console.print(table)
    peak = max(run.peak_mb for run in ours)
    console.print(
        f"ratio {ratio:.2f} (to reach: {goal}), median of {len(ours)} pairs; peak memory {peak:.0f} of {LIMIT_MB} MB\n",
        highlight=False,
    )
