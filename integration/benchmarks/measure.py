"""Running a command and finding out what it took: wall time, CPU, peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from cdc.demo.server import PrivatePostgres

LIMIT_MB = 700
_COLUMNS = ("", "rows/s", "seconds", "CPU s / 1 M", "server's", "peak MB")


@dataclass(frozen=True, slots=True)
class Took:
    """What one run of a command took: seconds of wall time and CPU, peak resident megabytes, and seconds of CPU of the
    server that it wrote to, if there is one."""

    seconds: float
    cpu: float
    peak_mb: float
    server_cpu: float = 0.0

    def beyond(self, idle: Took) -> Took:
        """What a run took beyond one with nothing to do."""
        taken = (self.seconds - idle.seconds, self.cpu - idle.cpu, self.server_cpu - idle.server_cpu)
        seconds, cpu, server_cpu = (max(0.01, each) for each in taken)
        return Took(seconds, cpu, self.peak_mb, server_cpu if self.server_cpu else 0.0)

    def with_server(self, seconds: float) -> Took:
        """The same, with what the server took."""
        return replace(self, server_cpu=seconds)


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


def server_cpu(server: PrivatePostgres) -> float:
    """Seconds of CPU that a server has taken so far, with its sessions that have ended and those that are there."""
    main = int((server.data / "postmaster.pid").read_text().split()[0])
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
        except OSError:  # it has just ended
            continue
        if int(folder.name) == main or int(fields[1]) == main:
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def process_cpu(process: int) -> float:
    """Seconds of CPU that a process has taken so far."""
    return time.clock_gettime(~process << 3 | 2)  # its clock in Linux, as `clock_getcpuclockid` gives it


def report(
    console: Console, title: str, rows: int, theirs: list[Took], ours: list[Took], tool: str, goal: float
) -> None:
    """Print the medians of both sides and their ratio: above 1 we were faster."""
    compare(console, title, rows, tool, theirs, [("cdc", ours, goal)])


def compare(
    console: Console,
    title: str,
    rows: int,
    tool: str,
    theirs: list[Took],
    others: Sequence[tuple[str, list[Took], float | None]],
) -> None:
    """Print the medians of a tool and of others, with the ratios of each to it: above 1 it was faster.

    Args:
        others: names, runs in turn with the tool's, and the ratios that are to be reached.
    """
    table = Table(*_COLUMNS, "ratio", "to reach", title=title, title_justify="left")
    table.add_row(tool, *_measured(rows, theirs))
    for name, runs, goal in others:
        table.add_row(name, *_measured(rows, runs), f"{_times(theirs, runs):.2f}", str(goal or ""))
    console.print(table)
    console.print(
        f"medians of {len(theirs)} pairs; CPU s for 1,000,000 rows; peak memory: limit {LIMIT_MB} MB\n", highlight=False
    )


def beside(
    console: Console, title: str, rows: int, ours: list[Took], peers: Sequence[tuple[str, list[Took], float]]
) -> None:
    """Print the medians of cdc and of its peers, with how many times as fast as each of them it was.

    Args:
        peers: names, runs in turn with those of cdc, and the ratios that are to be reached.
    """
    table = Table(*_COLUMNS, "cdc: times as fast", "to reach", "CPU: times ours", title=title, title_justify="left")
    table.add_row("cdc", *_measured(rows, ours))
    for name, runs, goal in peers:
        cpu = median(p.cpu / o.cpu for p, o in zip(runs, ours, strict=True))
        table.add_row(name, *_measured(rows, runs), f"{_times(runs, ours):.2f}", str(goal), f"{cpu:.2f}")
    console.print(table)
    console.print(
        f"medians of {len(ours)} runs in turn; CPU s of each side's own process, for 1,000,000 rows\n", highlight=False
    )


def _measured(rows: int, runs: list[Took]) -> list[str]:
    """The medians of runs as `_COLUMNS` has them."""
    seconds = [run.seconds for run in runs]
    million = rows / 1_000_000
    server = median(run.server_cpu for run in runs)
    return [
        f"{rows / median(seconds):,.0f}",
        f"{median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})",
        f"{median(run.cpu for run in runs) / million:.2f}",
        f"{server / million:.2f}" if server else "",
        f"{max(run.peak_mb for run in runs):.0f}",
    ]


def _times(slower: list[Took], faster: list[Took]) -> float:
    """The median, over pairs, of how many times as long one took as the other."""
    return median(s.seconds / f.seconds for s, f in zip(slower, faster, strict=True))
