"""What a process needs in memory: its peak once it has ended, its size while it runs, and what it may need.

`python -m integration.memory ARGUMENTS` is `cdc ARGUMENTS`, and says its peak at the end. The kernel's `ru_maxrss` of a
child would not do: it begins with the size of the process that started it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MEGABYTE = 1 << 20
_PEAK = "peak resident kB:"


def budget_mb(segment: int = 16, memory: int = 256, value: int = 0, columns: int = 0) -> int:
    """The most that a run may need, as docs/operating.md says it.

    Args:
        segment, memory: as given to `cdc run`, in megabytes.
        value: megabytes of the largest row, as text.
        columns: of the widest table.
    """
    return 200 + max(memory, columns // 2) + 8 * max(segment, value)


def peak_mb(*arguments: str) -> float:
    """Run `cdc` to its end, which must be a good one, and say what it needed at most."""
    command = [sys.executable, "-m", "integration.memory", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    *_, last = (line for line in done.stderr.splitlines() if line.startswith(_PEAK))
    return int(last.removeprefix(_PEAK)) / 1024


def resident_mb(pid: int, field: str = "VmRSS") -> float:
    """What a process has in memory now (`VmRSS`), or had at most (`VmHWM`); 0 once it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(field)), 0.0)


def _main() -> None:
    from cdc.cli import main

    try:
        main()
    finally:
        print(_PEAK, int(resident_mb(os.getpid(), "VmHWM") * 1024), file=sys.stderr, flush=True)


if __name__ == "__main__":
    _main()
